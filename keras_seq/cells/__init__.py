"""One step of one memory, one file per family."""

from keras_seq.cells.attention import AttentionCell
from keras_seq.cells.base import Cell
from keras_seq.cells.conditioned import ConditionedCell
from keras_seq.cells.feedback import FeedbackCell
from keras_seq.cells.gated import GatedCell, ReadoutCell
from keras_seq.cells.gru import GRUCell
from keras_seq.cells.linear import LinearRNNCell, MinGRUCell, MinLSTMCell
from keras_seq.cells.lru import LRUCell
from keras_seq.cells.lstm import CoupledLSTMCell, LSTMCell, NoForgetLSTMCell, PeepholeLSTMCell
from keras_seq.cells.narx import ARCell, NARXCell
from keras_seq.cells.simple import ElmanCell, JordanCell, ResidualRNNCell, SimpleRNNCell

__all__ = [
    "ARCell",
    "AttentionCell",
    "Cell",
    "ConditionedCell",
    "CoupledLSTMCell",
    "ElmanCell",
    "FeedbackCell",
    "GRUCell",
    "GatedCell",
    "JordanCell",
    "LRUCell",
    "LSTMCell",
    "LinearRNNCell",
    "MinGRUCell",
    "MinLSTMCell",
    "NARXCell",
    "NoForgetLSTMCell",
    "PeepholeLSTMCell",
    "ReadoutCell",
    "ResidualRNNCell",
    "SimpleRNNCell",
]
