"""What users put in models."""

from keras_seq.layers.bidirectional import Bidirectional
from keras_seq.layers.brackets import format_trees, parse_trees
from keras_seq.layers.crf import CRF
from keras_seq.layers.graph import GraphRecurrent
from keras_seq.layers.narx import AR, NARX
from keras_seq.layers.newton import Newton
from keras_seq.layers.pooling import LastStep, MaskedMax, MaskedMean
from keras_seq.layers.recurrent import (
    GRU,
    LRU,
    LSTM,
    CoupledLSTM,
    Elman,
    Jordan,
    LinearRNN,
    MinGRU,
    MinLSTM,
    NoForgetLSTM,
    PeepholeLSTM,
    ResidualRNN,
    SimpleRNN,
)
from keras_seq.layers.rnn import RNN
from keras_seq.layers.spans import spans_to_tags, tags_to_spans
from keras_seq.layers.stacked import Stacked
from keras_seq.layers.streaming import StepForm, Stream, streaming
from keras_seq.layers.tcn import TCN
from keras_seq.layers.tdnn import TDNN
from keras_seq.layers.tree import RecursiveNN, TreeLSTM
from keras_seq.layers.wavenet import WaveNet, mu_law_decode, mu_law_encode

__all__ = [
    "AR",
    "CRF",
    "GRU",
    "LRU",
    "LSTM",
    "NARX",
    "RNN",
    "TCN",
    "TDNN",
    "Bidirectional",
    "CoupledLSTM",
    "Elman",
    "GraphRecurrent",
    "Jordan",
    "LastStep",
    "LinearRNN",
    "MaskedMax",
    "MaskedMean",
    "MinGRU",
    "MinLSTM",
    "Newton",
    "NoForgetLSTM",
    "PeepholeLSTM",
    "RecursiveNN",
    "ResidualRNN",
    "SimpleRNN",
    "Stacked",
    "StepForm",
    "Stream",
    "TreeLSTM",
    "WaveNet",
    "format_trees",
    "mu_law_decode",
    "mu_law_encode",
    "parse_trees",
    "spans_to_tags",
    "streaming",
    "tags_to_spans",
]
