"""One step of one memory, one file per family."""

from keras_seq.cells.base import Cell, GatedCell
from keras_seq.cells.conditioned import ConditionedCell
from keras_seq.cells.gru import GRUCell
from keras_seq.cells.lstm import CoupledLSTMCell, LSTMCell, NoForgetLSTMCell, PeepholeLSTMCell
from keras_seq.cells.simple import SimpleRNNCell

__all__ = [
    "Cell",
    "ConditionedCell",
    "CoupledLSTMCell",
    "GRUCell",
    "GatedCell",
    "LSTMCell",
    "NoForgetLSTMCell",
    "PeepholeLSTMCell",
    "SimpleRNNCell",
]
