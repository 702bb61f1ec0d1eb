"""Keras models made of layers and decoding."""

from keras_seq.models.captioner import ImageCaptioner, small_encoder
from keras_seq.models.vocabulary import Vocabulary

__all__ = ["ImageCaptioner", "Vocabulary", "small_encoder"]
