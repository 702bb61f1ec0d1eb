"""Scores of generated sentences, of tags and of spans that are found, and how likely a model finds a text."""

from keras_seq.metrics.captions import cider_d, corpus_bleu
from keras_seq.metrics.likelihood import BitsPerCharacter, Perplexity
from keras_seq.metrics.spans import SpanScores
from keras_seq.metrics.tag_accuracy import TagAccuracy

__all__ = ["BitsPerCharacter", "Perplexity", "SpanScores", "TagAccuracy", "cider_d", "corpus_bleu"]
