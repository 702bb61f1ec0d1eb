"""Keras models made of layers and decoding."""

from keras_seq.models.captioner import ImageCaptioner, small_encoder
from keras_seq.models.language_model import LanguageModel
from keras_seq.models.schedules import InverseSigmoidDecay
from keras_seq.models.seq2seq import Seq2Seq
from keras_seq.models.stream_batches import stream_batches
from keras_seq.models.vocabulary import Vocabulary
from keras_seq.models.watch import LossWatch

__all__ = [
    "ImageCaptioner",
    "InverseSigmoidDecay",
    "LanguageModel",
    "LossWatch",
    "Seq2Seq",
    "Vocabulary",
    "small_encoder",
    "stream_batches",
]
