"""For those who write cells: what our own cells are held to, for yours."""

from keras_seq.testing.check import check_cell

__all__ = ["check_cell"]
