"""A server of trained models: what `examples/serve.py` runs."""
