"""Tailor a small open language model to your own task."""

__version__ = "0.1.0"
