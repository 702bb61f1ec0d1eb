"""What users put in models."""

from keras_seq.layers.memories import (
    GRU,
    LSTM,
    CoupledLSTM,
    Elman,
    Jordan,
    NoForgetLSTM,
    PeepholeLSTM,
    ResidualRNN,
    SimpleRNN,
)
from keras_seq.layers.narx import AR, NARX
from keras_seq.layers.rnn import RNN

__all__ = [
    "AR",
    "GRU",
    "LSTM",
    "NARX",
    "RNN",
    "CoupledLSTM",
    "Elman",
    "Jordan",
    "NoForgetLSTM",
    "PeepholeLSTM",
    "ResidualRNN",
    "SimpleRNN",
]
