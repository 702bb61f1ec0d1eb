"""Packages that a plain install leaves out."""

import importlib


def needed(package, extra):
    """The package of this name; a ModuleNotFoundError that says which extra brings it, where it is not installed."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        name = package.partition(".")[0]
        raise ModuleNotFoundError(f"{name} is not installed: pip install keras_seq[{extra}]") from error
