"""Looking into a memory."""

from keras_seq.analysis.attention import plot_alignment, plot_attended
from keras_seq.analysis.internals import plot_internals
from keras_seq.analysis.state_gradients import state_gradients

__all__ = ["plot_alignment", "plot_attended", "plot_internals", "state_gradients"]
