"""Sampling: tokens drawn with their probabilities, or from the likelier ones."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_seq.arguments import positive_integer
from keras_seq.cells.floats import long_type
from keras_seq.decoding.random import key_of, uniform
from keras_seq.decoding.tokens import DecodingConstraints, decode_loop, likeliest, number
from keras_seq.typing import Step, Tensor

NUMBERS = {  # what is expected of each, and whether it holds
    "temperature": ("positive and finite", lambda n: 0 < n < math.inf),
    "top_p": ("in (0, 1]", lambda n: 0 < n <= 1),
}


def sample(
    step: Step,
    state: Any,
    prompt: Tensor,
    *,
    end: int,
    max_length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: Any = None,
    max_lengths: Tensor | None = None,
    min_length: int | Tensor = 0,
    allowed: Tensor | None = None,
    pad: int = 0,
) -> Tensor:
    """Continue `prompt` by tokens drawn at random, until each row has ended.

        w_t ~ p,   p_v proportional to exp(logits_v(w_{t-1}, s_{t-1}) / temperature) over the v that are kept

    Kept are, after the temperature, the `top_k` likeliest tokens (Fan et al. 2018); of these the fewest whose
    probabilities sum to `top_p` or more (the nucleus, Holtzman et al. 2020). One loop of `keras.ops`, so that it compiles
    under XLA and runs in a SavedModel. The token is the first whose cumulated probability exceeds a number u, uniform in
    [0, 1), which depends on the seed, the row and the step alone (Threefry; Salmon et al. 2011): the same seed gives the same
    tokens eagerly, compiled and in a file, and a row the same ones whatever rows stand below it.

    Args:
        step: function `(tokens (b,), state) -> (logits (b, v), state)`; the state may be any nest of tensors.
        state, prompt, end, max_length, max_lengths, min_length, allowed, pad: as in `keras_seq.decoding.greedy`.
        temperature: positive number: below 1 sharper, above flatter than what was learned.
        top_k: positive integer or None.
        top_p: number in (0, 1] or None.
        seed: integer from 0 to 2^32 - 1, or a tensor of one or two integers: the same tokens each time; or a
            `keras.random.SeedGenerator`, None for the global one: others at each call.

    `temperature`, `top_p` and `seed` may be tensors, as in `greedy`: other values need no other trace.

    Returns:
        int32 tokens (b, max_length): for each row its prompt after the first token, what follows, and `end` if it came.

    Raises:
        TypeError, ValueError: a temperature of 0 or below or inf, a top_k that is no positive integer or larger than the
            vocabulary, a top_p outside (0, 1], a seed that is none; and what `keras_seq.decoding.greedy` refuses.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import sample
    table = np.log([[0.1, 0.2, 0.7]] * 3).astype("float32")       # whatever came before
    tokens = sample(lambda w, s: (table[w], s), (), np.array([[1], [1]]), end=2, max_length=8, top_p=0.9, seed=1)    # (2, 8)
    ```
    """
    draw = drawing(temperature, top_k, top_p)
    constraints = DecodingConstraints(
        prompt,
        end=end,
        max_length=max_length,
        max_lengths=max_lengths,
        min_length=min_length,
        allowed=allowed,
        pad=pad,
    )
    rows = ops.arange(ops.shape(constraints.prompt)[0], dtype="int32")[:, None]
    drawn = uniform(key_of(seed), rows, ops.arange(constraints.max_length, dtype="int32"))
    return decode_loop(step, state, constraints, lambda logits, index: draw(logits, ops.take(drawn, index, axis=1)))


def drawing(temperature=1.0, top_k=None, top_p=None):
    """`draw(logits (b, v), uniform numbers (b,)) -> tokens (b,)`, by these arguments of `sample`, checked."""
    temperature = number("temperature", temperature, *NUMBERS["temperature"])
    top_k = None if top_k is None else positive_integer("top_k", top_k)
    top_p = None if top_p is None else number("top_p", top_p, *NUMBERS["top_p"])
    dtype = long_type(keras.config.floatx())

    def draw(logits, drawn):
        scaled = ops.cast(logits, dtype) / ops.cast(temperature, dtype)
        return drawn_tokens(scaled, ops.cast(drawn, dtype)[:, None], top_k, top_p)

    return draw


def drawn_tokens(logits, uniform, top_k=None, top_p=None):
    """The tokens (b,) that uniform numbers (b, 1) in [0, 1) stand for."""
    size = logits.shape[-1]
    if top_k is not None and top_k > size:
        raise ValueError(f"top_k: expected at most the {size} tokens that the step gives logits for, got {top_k}")
    if top_k == 1:
        return likeliest(logits)
    if top_k is None and top_p is None:
        return _first_above(ops.softmax(logits, axis=-1), uniform)
    logits, tokens = ops.top_k(logits, top_k or size)
    shares = ops.softmax(logits, axis=-1)
    if top_p is not None:
        before = ops.cumsum(shares, axis=-1) - shares
        shares = ops.where(before < top_p, shares, ops.zeros_like(shares))
    return ops.take_along_axis(tokens, _first_above(shares, uniform)[:, None], axis=1)[:, 0]


def _first_above(shares, uniform):
    """The first place where the cumulated shares exceed so much of their sum; never one whose share is 0."""
    reached = ops.cumsum(shares, axis=-1)
    place = ops.sum(ops.cast(reached <= uniform * reached[:, -1:], "int32"), axis=-1)
    places = ops.arange(shares.shape[-1], dtype="int32")
    last = ops.max(ops.where(shares > 0, places, 0), axis=-1)  # rounding may lead past it
    return ops.minimum(place, last)
