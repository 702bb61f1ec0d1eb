"""Recurrent networks for Keras, trained by an engine of their own."""

__version__ = "0.1.0"
