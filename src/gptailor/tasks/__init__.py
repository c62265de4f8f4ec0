"""The wiring of each task: configuration, data, model, loop, report."""
