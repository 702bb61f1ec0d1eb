"""A linear-chain conditional random field: scores of tags step by step become scores of whole sequences of tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import keras
import numpy as np
from keras import constraints, initializers, ops, regularizers

from keras_seq.arguments import described, named, refuse_unknown
from keras_seq.cells.floats import drawn_long, long_type
from keras_seq.layers.spans import allowed_transitions, check_tags
from keras_seq.shapes import check_sequences, fits
from keras_seq.typing import Config, Constraint, Initializer, LayerArguments, Regularizer, Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class CRF(keras.layers.Layer):
    """A linear-chain conditional random field (Lafferty et al. 2001) over any layer's scores of k tags.

        p(y | x) = exp(s(x, y)) / sum_{y'} exp(s(x, y'))
        s(x, y)  = b_{y_1} + x_1[y_1] + sum_{t > 1} (A_{y_{t-1}, y_t} + x_t[y_t]) + e_{y_T}

    The layer gives the potentials of each step, that is all that s is a sum of:

        P_t[i, j] = A_{ij} + x_t[j],   with b_j for A_{ij} at the first step, and e_j added at the last one,

    and what is asked of the field is a function of them alone, which lives in `keras_seq.decoding`: `CRFLoss` to train by,
    `ViterbiTags` for the best tags, `viterbi`, `crf_marginals`. So loss, metric and layer are plain Keras, each saved for
    itself. First and last are those that the mask shows, wherever they are: the tags of steps hidden in between are left out,
    and the tag before such a hole stands beside the one after it. A hidden step has potentials that change nothing (0 from a
    tag to itself, else -inf), so that the mask needs no other way to the loss; the output carries none.

    With a `scheme` the names of the tags say which transitions there are; the others have the potential -inf, are in no result
    and get no gradient.

    Weights: `transitions` A (k, k), from the row's tag to the column's, `start_scores` b (k,), `end_scores` e (k,).

    Potentials take k times the memory of the scores, 4 b t k^2 bytes. They are float32 under policies of 16 bits.

    Args:
        tags: the names of the k tags in the order of the scores, or their number, 2 or more.
        scheme: "BIO" or "BIOES", for names of tags such as "B-day"; None for no constraints.
        transition_initializer, boundary_initializer: of `transitions`; of `start_scores` and `end_scores`.
        transition_regularizer, transition_constraint: of `transitions`.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        sequences: scores (b, t, k), before any softmax.
        mask: boolean (b, t), True for real steps; a row may have none.

    Returns:
        Potentials (b, t, k, k).

    Raises:
        TypeError, ValueError: tags that are no names or number of 2 or more; a scheme without names, or with names that are not
            its own, or that no sequence can hold; scores that are not (b, t, k), a mask that is not (b, t).

    Example:

    ```python
    import keras
    import keras_seq
    from keras_seq.decoding import CRFLoss, ViterbiTags
    tags = ["O", "B-day", "I-day"]
    model = keras.Sequential([
        keras.layers.Embedding(100, 8, mask_zero=True),
        keras_seq.Bidirectional(keras_seq.LSTM(8, return_sequences=True)),
        keras.layers.Dense(len(tags)),
        keras_seq.CRF(tags, scheme="BIO"),
    ])
    model.compile("adam", CRFLoss())
    words, y = keras.random.randint((4, 6), 0, 100), keras.ops.zeros((4, 6), "int32")
    history = model.fit(words, y, verbose=0)
    tagger = keras.Sequential([model, ViterbiTags()])      # integers (4, 6); to be saved and exported
    print(tagger(words).shape)
    ```
    """

    def __init__(
        self,
        tags: int | Sequence[str],
        scheme: str | None = None,
        transition_initializer: Initializer = "zeros",
        boundary_initializer: Initializer = "zeros",
        transition_regularizer: Regularizer = None,
        transition_constraint: Constraint = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        refuse_unknown(type(self), kwargs)
        super().__init__(**{"autocast": False, **kwargs})
        self.supports_masking = True
        self.tags, self.size = check_tags(tags)
        self.scheme = scheme
        self._allowed = None
        if scheme is not None:
            if not isinstance(self.tags, list):
                raise ValueError(f"scheme: expected None for tags without names, got {scheme!r}")
            self._allowed = allowed_transitions(self.tags, scheme)
        self.transition_initializer = named(initializers, "transition_initializer", transition_initializer)
        self.boundary_initializer = named(initializers, "boundary_initializer", boundary_initializer)
        self.transition_regularizer = named(regularizers, "transition_regularizer", transition_regularizer)
        self.transition_constraint = named(constraints, "transition_constraint", transition_constraint)

    def build(self, sequences_shape: Shape) -> None:
        self._check_width(sequences_shape)
        self.transitions = self.add_weight(
            name="transitions",
            shape=(self.size, self.size),
            initializer=drawn_long(self.transition_initializer),
            regularizer=self.transition_regularizer,
            constraint=self.transition_constraint,
            autocast=False,
        )
        self.start_scores, self.end_scores = (
            self.add_weight(
                name=name, shape=(self.size,), initializer=drawn_long(self.boundary_initializer), autocast=False
            )
            for name in ("start_scores", "end_scores")
        )

    def call(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        check_sequences(sequences, mask)
        self._check_width(sequences.shape)
        dtype = long_type(self.variable_dtype)
        start, transitions, end = self._weights(dtype)
        scores = ops.cast(sequences, dtype)[:, :, None]
        real = ops.ones_like(scores[:, :, 0, 0], dtype="bool") if mask is None else ops.cast(mask, "bool")
        number = ops.cumsum(ops.cast(real, "int32"), axis=1)  # of the step among the real ones, from 1
        first, last, real = (m[:, :, None, None] for m in (number == 1, number == number[:, -1:], real))
        potentials = scores + ops.where(first, start, transitions)
        potentials = ops.where(last, potentials + end, potentials)
        if self._allowed is not None:
            starts, goes_on, ends = (ops.convert_to_tensor(x) for x in self._allowed)
            allowed = ops.logical_and(ops.where(first, starts, goes_on), ops.logical_or(ends, ops.logical_not(last)))
            potentials = ops.where(allowed, potentials, ops.full((self.size, self.size), -float("inf"), dtype=dtype))
        return ops.where(real, potentials, _unchanged(self.size, dtype))

    def _weights(self, dtype):
        """`(start (1, k), transitions (k, k), end (1, k))`."""
        start, transitions, end = (ops.cast(w, dtype) for w in (self.start_scores, self.transitions, self.end_scores))
        return start[None], transitions, end[None]

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        return None

    def compute_output_spec(self, sequences: Any, mask: Any = None) -> Any:
        shape = self.compute_output_shape(sequences.shape)
        return keras.KerasTensor(shape, dtype=long_type(self.variable_dtype))

    def compute_output_shape(self, sequences_shape: Shape) -> Any:
        self._check_width(sequences_shape)
        return (*sequences_shape, self.size)

    def get_config(self) -> Config:
        return {**super().get_config(), **described(self)}

    def _check_width(self, shape):
        if not fits(shape, (None, None, self.size)):
            raise ValueError(f"sequences: expected scores (b, t, {self.size}), one for each tag, got {tuple(shape)}")


def _unchanged(size, dtype):
    """The potentials of a step that is not there, (k, k): from each tag to itself, at no cost."""
    return ops.convert_to_tensor(np.where(np.eye(size), 0.0, -np.inf), dtype=dtype)
