"""From scores to sequences."""

from keras_seq.decoding.greedy import greedy

__all__ = ["greedy"]
