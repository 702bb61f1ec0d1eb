"""From scores to sequences."""

from keras_seq.decoding.beam import beam_search
from keras_seq.decoding.feedback import feed_back
from keras_seq.decoding.greedy import greedy
from keras_seq.decoding.sampling import sample

__all__ = ["beam_search", "feed_back", "greedy", "sample"]
