"""Text to examples; never imports the model."""
