"""The best sequences of tags under a conditional random field."""

from __future__ import annotations

from typing import Any, Unpack

import keras
from keras import ops

from keras_seq.arguments import positive_integer, refuse_unknown
from keras_seq.decoding.crf_chain import best, check_potentials, first_scores, real_steps, relative, steps_of
from keras_seq.decoding.tokens import WORST
from keras_seq.engine.backend import gather, iterate
from keras_seq.typing import Config, LayerArguments, Shape, Tensor


def viterbi(potentials: Tensor, n_best: int | None = None) -> tuple[Tensor, Tensor]:
    """The n best of all sequences of tags, by dynamic programming (Viterbi 1967): exact, not a beam.

        y = argmax sum_t P_t[y_{t-1}, y_t]

    Each tag keeps the n best ways to it; walking back from the best ends finds the tags. Loops of `keras.ops`, so that it
    compiles under XLA and runs in a SavedModel. Of equally good ways the one from the lower tag is taken.

    Args:
        potentials: tensor (b, t, k, k), as `keras_seq.CRF` gives them.
        n_best: how many sequences, the best first; None for the best one without an axis for them.

    Returns:
        `(tags, scores)`: int32 (b, t), -1 at steps that are not real; and (b,), the sums of potentials, float32 at least. With
        `n_best` (b, n, t) and (b, n); where a row has fewer sequences the others have the score -inf and tags -1.
        The probability of tags is `exp(-crf_loss(tags, potentials))`.

    Raises:
        TypeError, ValueError: potentials that are not (b, t, k, k), `n_best` that is no positive integer.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import viterbi
    potentials = np.log([[[[0.6, 0.4]] * 2, [[0.6, 0.4], [0.1, 0.9]]]])     # p(first tag), p(second tag | first tag)
    tags, scores = viterbi(potentials, n_best=2)                            # [[[0 0], [1 1]]]
    print(np.exp(scores))                                                   # [[0.36 0.36]]
    ```
    """
    n = 1 if n_best is None else positive_integer("n_best", n_best)
    potentials = check_potentials(potentials)
    tags, total = _best_one(potentials) if n == 1 else _n_best(potentials, n)
    there = ops.logical_and(real_steps(potentials)[:, None], total[:, :, None] > WORST)
    tags = ops.where(there, ops.transpose(tags, (1, 2, 0)), -1)
    return (tags[:, 0], total[:, 0]) if n_best is None else (tags, total)


@keras.saving.register_keras_serializable(package="keras_seq")
class ViterbiTags(keras.layers.Layer):
    """The best tags as a layer, to stand behind `keras_seq.CRF` in a model that is saved, served or exported.

    Args:
        n_best: how many sequences of tags, the best first; None for the best one without an axis for them.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        potentials: tensor (b, t, k, k), as `keras_seq.CRF` gives them.

    Returns:
        Integers (b, t), or (b, n, t) with `n_best`; -1 at steps that are not real.

    Raises:
        TypeError, ValueError: `n_best` that is no positive integer, potentials that are not (b, t, k, k).

    Example:

    ```python
    import keras
    import keras_seq
    from keras_seq.decoding import ViterbiTags
    tagger = keras.Sequential([keras.layers.Dense(3), keras_seq.CRF(3), ViterbiTags()])
    tags = tagger.predict(keras.random.normal((2, 7, 4)), verbose=0)        # integers (2, 7)
    ```
    """

    def __init__(self, n_best: int | None = None, **kwargs: Unpack[LayerArguments]) -> None:
        refuse_unknown(type(self), kwargs)
        super().__init__(**{"autocast": False, **kwargs})
        self.n_best = None if n_best is None else positive_integer("n_best", n_best)

    def call(self, potentials: Tensor) -> Tensor:
        return viterbi(potentials, self.n_best)[0]

    def compute_output_shape(self, potentials_shape: Shape) -> Any:
        b, t, *_ = potentials_shape
        return (b, t) if self.n_best is None else (b, self.n_best, t)

    def compute_output_spec(self, potentials: Tensor) -> Any:
        return keras.KerasTensor(self.compute_output_shape(potentials.shape), dtype="int32")

    def get_config(self) -> Config:
        return {**super().get_config(), "n_best": self.n_best}


def _best_one(potentials):
    """`(tags (t, b, 1), total scores (b, 1))` of the best sequences."""

    def forward(scores, index):
        scores = ops.max(relative(scores, axis=1)[:, :, None] + gather(potentials, index, axis=1), axis=1)
        return scores, scores

    first = first_scores(potentials)
    last, scores = iterate(forward, first, steps_of(potentials))
    most, before = _parted(ops.concatenate([first[None], scores[:-1]], axis=0), axis=2)

    def back(tag, index):
        now = gather(gather(potentials, index, axis=1), tag, axis=2, batch_dims=1)  # (b, tag before)
        return _place(gather(before, index, axis=0) + now), tag

    _, tags = iterate(back, _place(last), steps_of(potentials), reverse=True)
    return tags[:, :, None], ops.max(last, axis=1, keepdims=True) + ops.sum(most, axis=0)


def _n_best(potentials, n):
    """`(tags (t, b, n), total scores (b, n))` of the n best sequences: each tag keeps the n best ways to it."""

    def ways_to(before, now):
        """Values and places of the n best ways to each tag, of scores before and potentials (b, tag before, tag)."""
        return _first_of(before[:, None] + ops.swapaxes(now, 1, 2)[..., None], n)

    def forward(scores, index):
        scores, _ = ways_to(relative(scores, axis=(1, 2)), gather(potentials, index, axis=1))
        return scores, scores

    first = first_scores(potentials, n)
    last, scores = iterate(forward, first, steps_of(potentials))
    most, before = _parted(ops.concatenate([first[None], scores[:-1]], axis=0), axis=(2, 3))

    def back(state, index):
        tag, rank = state
        now = gather(gather(potentials, index, axis=1), tag, axis=2, batch_dims=1)  # (b, tag before, sequence)
        _, places = ways_to(gather(before, index, axis=0), now)
        place = gather(places, rank, axis=2, batch_dims=2)
        return (place // n, place % n), state

    values, place = (x[:, 0] for x in _first_of(last[:, None], n))
    _, (tags, _) = iterate(back, (place // n, place % n), steps_of(potentials), reverse=True)
    return tags, values + ops.sum(most, axis=0)[..., 0]


def _parted(scores, axis):
    """`(the best of the scores, axes kept; the scores relative to it)`, as `relative` has them."""
    most = best(scores, axis)
    return most, scores - most


def _place(scores):
    """The first of the best of (b, k), (b,)."""
    is_best = scores == ops.max(scores, axis=1, keepdims=True)
    return ops.argmax(ops.cast(is_best, "int32"), axis=1)  # of integers, which Keras takes as they are


def _first_of(ways, n):
    """`(values, places)` of the n best of ways (.., k, n), in order, places among k * n."""
    values, places = ops.top_k(ops.reshape(ways, (*ops.shape(ways)[:-2], ways.shape[-2] * ways.shape[-1])), n)
    return values, ops.cast(places, "int32")
