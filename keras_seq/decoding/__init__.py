"""From scores to sequences."""

from keras_seq.decoding.feedback import feed_back
from keras_seq.decoding.greedy import greedy

__all__ = ["feed_back", "greedy"]
