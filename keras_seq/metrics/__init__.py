"""Scores of generated sentences, and how likely a model finds a text."""

from keras_seq.metrics.captions import cider_d, corpus_bleu
from keras_seq.metrics.likelihood import BitsPerCharacter, Perplexity

__all__ = ["BitsPerCharacter", "Perplexity", "cider_d", "corpus_bleu"]
