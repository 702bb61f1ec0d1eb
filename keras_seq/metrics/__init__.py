"""Scores of generated sentences against references."""

from keras_seq.metrics.captions import cider_d, corpus_bleu

__all__ = ["cider_d", "corpus_bleu"]
