"""Tensors and ids only; no files, no data."""
