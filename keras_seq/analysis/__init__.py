"""Looking into a memory."""

from keras_seq.analysis.attention import plot_alignment, plot_attended
from keras_seq.analysis.internals import plot_internals

__all__ = ["plot_alignment", "plot_attended", "plot_internals"]
