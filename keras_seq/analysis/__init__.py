"""Looking into a memory."""

from keras_seq.analysis.internals import plot_internals

__all__ = ["plot_internals"]
