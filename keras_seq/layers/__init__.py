"""What users put in models."""

from keras_seq.layers.memories import GRU, LSTM, CoupledLSTM, NoForgetLSTM, PeepholeLSTM, SimpleRNN
from keras_seq.layers.rnn import RNN

__all__ = ["GRU", "LSTM", "RNN", "CoupledLSTM", "NoForgetLSTM", "PeepholeLSTM", "SimpleRNN"]
