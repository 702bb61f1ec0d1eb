"""Beam search: the likeliest sequences among several kept side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_seq.arguments import positive_integer
from keras_seq.cells.floats import long_type
from keras_seq.decoding.tokens import WORST, DecodingConstraints, broken, first_state, number
from keras_seq.typing import Step, Tensor

LEAST_COVERAGE = 1e-6  # of a source position, so that its logarithm is finite
AT_LEAST_0 = ("at least 0 and finite", lambda n: 0 <= n < math.inf)
NUMBERS = {
    "length_penalty": AT_LEAST_0,
    "coverage_penalty": AT_LEAST_0,
}  # what is expected of each, and whether it holds


def beam_search(
    step: Step,
    state: Any,
    prompt: Tensor,
    *,
    end: int,
    max_length: int,
    width: int = 5,
    n_best: int = 1,
    length_penalty: float = 0.0,
    coverage_penalty: float = 0.0,
    coverage: Callable[[Any], Tensor] | None = None,
    no_repeat: int | None = None,
    max_lengths: Tensor | None = None,
    min_length: int | Tensor = 0,
    allowed: Tensor | None = None,
    pad: int = 0,
) -> tuple[Tensor, Tensor]:
    """The likeliest continuations of `prompt` that a beam of `width` finds.

        score(w_1 .. w_n) = sum_i log p(w_i | w_1 .. w_{i-1}) / ((5 + n) / 6)^length_penalty
                            + coverage_penalty * sum_j log(min(sum_i a_ij, 1))                     (Wu et al. 2016)

    with a_ij the attention of step i to source position j. At each step every open sequence of the beam is continued by
    every token, and the `width` best by score of all these and of those that have ended stay. Width 1 is
    `keras_seq.decoding.greedy`. The search stops when all have ended, or when none that is open can still come among the
    `n_best`: log p only falls, so that an open sequence can reach no more than its log p so far, divided by the penalty of
    the greatest length. What is open at its row's limit counts as it stands.

    Coverage counts, as published, for sequences that have ended, or stand at the limit: an open one has the second term 0,
    the most that it can still reach, so that in a narrow beam what has ended may give way to it. What ends keeps the
    coverage that it has then. A position's coverage below 1e-6 counts as 1e-6.

    One loop of `keras.ops`, so that it compiles under XLA and runs in a SavedModel.

    Args:
        step: function `(tokens (rows,), state) -> (logits (rows, v), state)`, called with b * width rows; the state may be
            any nest of tensors, rows along the first axis.
        state: its first state, b rows; repeated for the beam here.
        prompt: integer tokens (b, p), p of 1 or more: what each row starts with; rows padded by `pad` on the right. They
            count neither in a score nor in its length.
        width: positive integer, at most v.
        n_best: positive integer, at most width: how many sequences to give per row.
        length_penalty: number of at least 0: 0 prefers short sequences, 1 about the best mean. The greatest length is the
            row's own limit.
        coverage_penalty: number of at least 0; Wu et al. take 0.2.
        coverage: function from the step's state to the attention summed over the steps so far, (rows, s), prompt included;
            with 1 where a mask hides a source position, which then does not count. Needed with a coverage_penalty above 0.
        no_repeat: positive integer n: no n tokens come twice in the same order, the prompt's included; 1 forbids every
            repetition. None for no such limit.
        end, max_length, max_lengths, min_length, allowed, pad: as in `keras_seq.decoding.greedy`.

    `length_penalty` and `coverage_penalty` may be tensors, as in `greedy`: other values need no other trace.

    Returns:
        `(tokens, scores)`: int32 (b, n_best, max_length), the best first, and (b, n_best), in float32, or in float64 where
        `keras.config.floatx()` is. A sequence that could not be continued without a forbidden token has the score -inf; a row
        whose logits are NaN holds `pad` and has the score NaN.

    Raises:
        TypeError, ValueError: a width that is no positive integer or larger than the vocabulary, an n_best larger than the
            width, a length_penalty or coverage_penalty below 0, a coverage that is no function, is missing, or does not give
            (rows, s), a no_repeat that is no positive integer; and what `keras_seq.decoding.greedy` refuses.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import beam_search
    table = np.log([[1, 0, 0, 0], [0, 0.1, 0.5, 0.4], [0, 0.3, 0.3, 0.4], [0, 0.9, 0.05, 0.05]] + np.float32(1e-9))
    step = lambda tokens, state: (table[tokens], state)       # what comes after each token
    tokens, scores = beam_search(step, (), np.array([[1]]), end=1, max_length=3, width=3)
    print(tokens[0, 0], np.exp(scores[0, 0]))       # [3 1 0], 0.36: likelier than what begins with 2
    ```
    """
    width, n_best = positive_integer("width", width), positive_integer("n_best", n_best)
    if n_best > width:
        raise ValueError(f"n_best: expected at most the width {width}, got {n_best}")
    length_penalty = number("length_penalty", length_penalty, *NUMBERS["length_penalty"])
    coverage_penalty = number("coverage_penalty", coverage_penalty, *NUMBERS["coverage_penalty"])
    covers = not (isinstance(coverage_penalty, float) and coverage_penalty == 0)
    if coverage is not None and not callable(coverage):
        raise TypeError(f"coverage: expected a function of the step's state, or None, got {coverage!r}")
    if coverage is None and covers:
        raise ValueError(f"coverage: expected a function with coverage_penalty={coverage_penalty}, got None")
    no_repeat = None if no_repeat is None else positive_integer("no_repeat", no_repeat)
    constraints = DecodingConstraints(
        prompt,
        end=end,
        max_length=max_length,
        max_lengths=max_lengths,
        min_length=min_length,
        allowed=allowed,
        pad=pad,
    )
    prompt, max_length, forced = constraints.prompt, constraints.max_length, constraints.forced()
    greatest = ops.reshape(ops.convert_to_tensor(constraints.most), (-1, 1))
    batch, dtype = ops.shape(prompt)[0], long_type(keras.config.floatx())
    rows = ops.arange(batch, dtype="int32")[:, None] * width

    def penalised(total, length):
        return total / ops.power((5.0 + ops.cast(length, dtype)) / 6.0, length_penalty)

    def unfinished(index, token, done, total, length, covered, *_):
        # the worst of the best that have ended against the most that an open one can reach
        scores = penalised(total, length) + covered
        ended = ops.top_k(ops.where(done, scores, WORST), n_best)[0][:, -1]
        open_ = ops.max(ops.where(done, WORST, penalised(total, greatest)), axis=1)
        return ops.logical_and(index < max_length, ops.any(open_ > ended))

    def body(index, token, done, total, length, covered, tokens, *flat):
        logits, new = constraints.call_step(step, ops.reshape(token, (-1,)), state, flat)
        size = logits.shape[-1]
        if width > size:
            raise ValueError(f"width: expected at most the {size} tokens that the step gives logits for, got {width}")
        steps = ops.log_softmax(ops.reshape(ops.cast(logits, dtype), (-1, width, size)), axis=-1)
        steps = constraints.mask_logits(steps, index)
        if no_repeat is not None:
            begun = ops.concatenate([ops.broadcast_to(prompt[:, :1, None], (batch, width, 1)), tokens], axis=2)
            steps = ops.where(_would_repeat(begun, index + 1, no_repeat, size), WORST, steps)
        given = ops.take(forced, index + 1, axis=1)[:, None]
        # what is given, or has ended, goes on in one way only and at no cost
        only = ops.where(done, constraints.pad, given)[:, :, None] == ops.arange(size, dtype="int32")
        held = ops.logical_or(done, given != constraints.pad)
        steps = ops.where(held[:, :, None], ops.where(only, ops.zeros_like(steps), WORST), steps)
        lost = ops.logical_and(broken(ops.reshape(logits, (-1, width, size))), ops.logical_not(done))
        steps = ops.where(ops.any(lost, axis=1)[:, None, None], float("nan"), steps)
        longer = length + ops.cast(ops.logical_not(held), "int32")
        found = total[:, :, None] + steps
        scores, last = penalised(found, longer[:, :, None]), constraints.at_limit(index)
        if covers:
            now = coverage_penalty * _log_coverage(coverage(tree.pack_sequence_as(state, new)), width, dtype)
            ends = ops.logical_or(ops.arange(size, dtype="int32") == constraints.end, last[:, :, None])
            ends = ops.where(ends, now[:, :, None], ops.zeros_like(scores))
            cover = ops.where(done[:, :, None], covered[:, :, None], ends)
            scores = scores + cover
        _, chosen = ops.top_k(ops.reshape(scores, (-1, width * size)), width)
        chosen = ops.cast(chosen, "int32")
        parent, token = chosen // size, chosen % size

        def at_chosen(x):
            return ops.take_along_axis(ops.reshape(x, (-1, width * size)), chosen, axis=1)

        def from_parent(x):
            return ops.take_along_axis(x, parent, axis=1)

        total, length, before = at_chosen(found), from_parent(longer), from_parent(done)
        covered = at_chosen(cover) if covers else covered
        token = ops.where(before, constraints.pad, token)
        tokens = ops.take_along_axis(tokens, parent[:, :, None], axis=1)
        tokens = ops.where(ops.arange(max_length, dtype="int32") == index, token[:, :, None], tokens)
        done = ops.logical_or(ops.logical_or(before, token == constraints.end), last)
        places = ops.reshape(rows + parent, (-1,))
        return index + 1, token, done, total, length, covered, tokens, *(ops.take(s, places, axis=0) for s in new)

    single = ops.convert_to_tensor(np.where(np.arange(width) == 0, 0.0, -np.inf), dtype=dtype)
    start = (
        ops.convert_to_tensor(0, dtype="int32"),
        ops.broadcast_to(prompt[:, :1], (batch, width)),
        ops.zeros((batch, width), dtype="bool"),
        ops.broadcast_to(single[None], (batch, width)),
        ops.zeros((batch, width), dtype="int32"),
        ops.zeros((batch, width), dtype=dtype),
        ops.full((batch, width, max_length), constraints.pad, dtype="int32"),
    )
    repeated = [ops.repeat(s, width, axis=0) for s in first_state(state, prompt)]
    _, _, _, total, length, covered, tokens, *_ = ops.while_loop(unfinished, body, (*start, *repeated))
    scores, order = ops.top_k(penalised(total, length) + covered, n_best)
    tokens = ops.take_along_axis(tokens, ops.cast(order, "int32")[:, :, None], axis=1)
    return ops.where(ops.isnan(scores)[:, :, None], constraints.pad, tokens), scores


def _log_coverage(attention, width, dtype):
    """sum_j log(min(a_j, 1)), (b, k), of attention (b * k, s)."""
    attention = ops.convert_to_tensor(attention)
    if len(attention.shape) != 2:
        raise ValueError(f"coverage: expected attention of shape (rows, s), got {tuple(attention.shape)}")
    logs = ops.log(ops.clip(ops.cast(attention, dtype), LEAST_COVERAGE, 1.0))
    return ops.reshape(ops.sum(logs, axis=-1), (-1, width))


def _would_repeat(tokens, count, n, size):
    """Which next token (b, k, v) would end n tokens that stand already among the first `count` of (b, k, t)."""
    steps = tokens.shape[-1]
    places = ops.arange(steps, dtype="int32")
    matches = ops.broadcast_to(places < count, ops.shape(tokens))  # the last of the n stands at this place
    for back in range(1, n):
        earlier = ops.roll(tokens, back, axis=-1)
        last = ops.take(tokens, ops.maximum(count - back, 0), axis=-1)
        matches = ops.logical_and(matches, ops.logical_and(places >= back, earlier == last[:, :, None]))
    matches = ops.logical_and(matches, count >= n)
    return ops.any(ops.logical_and(matches[..., None], tokens[..., None] == ops.arange(size, dtype="int32")), axis=2)
