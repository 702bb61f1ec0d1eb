"""How models of tokens start: vectors as large as a memory reads well, scores as the words are frequent."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import initializers, layers

from keras_seq.arguments import copied, named
from keras_seq.models.vocabulary import Vocabulary
from keras_seq.typing import Activation, Initializer


class Starts:
    """A model whose vectors of tokens start from `embeddings_initializer`, its dense layers from `kernel_initializer`.

    Vectors from N(0, 1) make the first sums of a memory about one in size, so that it tells tokens apart from the first step
    on; from Keras's uniform numbers up to 0.05 a model stays for epochs at the frequencies of the words.
    """

    embedding_size: int
    dtype_policy: keras.DTypePolicy

    def keep_initializers(
        self, embeddings_initializer: Initializer, kernel_initializer: Initializer, deviation: float = 1.0
    ) -> None:
        """Both as attributes; the vectors' is N(0, deviation) where none is given."""
        if embeddings_initializer is None:
            embeddings_initializer = initializers.RandomNormal(stddev=deviation)
        self.embeddings_initializer = named(initializers, "embeddings_initializer", embeddings_initializer)
        self.kernel_initializer = named(initializers, "kernel_initializer", kernel_initializer)

    def new_embedding(self, vocabulary: Vocabulary) -> layers.Embedding:
        initializer = copied(self.embeddings_initializer)
        return layers.Embedding(len(vocabulary), self.embedding_size, initializer, dtype=self.dtype_policy)

    def new_dense(self, width: int, activation: Activation = None, **kwargs: Any) -> layers.Dense:
        initializer = copied(self.kernel_initializer)
        return layers.Dense(width, activation, kernel_initializer=initializer, dtype=self.dtype_policy, **kwargs)

    def new_readout(self, vocabulary: Vocabulary) -> layers.Dense:
        return self.new_dense(len(vocabulary), bias_initializer=log_frequencies(vocabulary))


def log_frequencies(vocabulary: Vocabulary) -> initializers.Initializer:
    """The initializer of a readout's bias: log (n + 1) of how often each token is asked for, zeros where none are counted.

    A model that has learned nothing yet then says how frequent each token is. The logarithms are those of shares.
    """
    if vocabulary.counts is None:
        return initializers.Zeros()
    counts = np.asarray(vocabulary.counts) + 1.0
    return initializers.Constant(np.log(counts / counts.sum()))
