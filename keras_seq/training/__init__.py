"""Learning rules for streams that do not end."""

from keras_seq.training.online import OnlineLearner
from keras_seq.training.rtrl import RTRL, UORO, SnAp1

__all__ = ["RTRL", "UORO", "OnlineLearner", "SnAp1"]
