"""Beam search: the likeliest sequences among several kept side by side."""

import numbers

from keras import ops, tree

from keras_seq.cells.arguments import positive_integer
from keras_seq.decoding.tokens import check_limits, check_structure, permitted


def beam_search(
    step,
    state,
    prompt,
    *,
    end,
    max_length,
    width=5,
    n_best=1,
    length_penalty=0.0,
    no_repeat=None,
    min_length=0,
    allowed=None,
    pad=0,
):
    """The likeliest continuations of `prompt` that a beam of `width` finds.

        score(w_1 .. w_n) = sum_i log p(w_i | w_1 .. w_{i-1}) / ((5 + n) / 6)^length_penalty      (Wu et al. 2016)

    At each step every open sequence of the beam is continued by every token, and the `width` best by score of all these and
    of those that have ended stay. Width 1 is `keras_seq.decoding.greedy`. The search stops when all have ended, or when
    none that is open can still come among the `n_best`: log p only falls, so that an open sequence can reach no more than
    its log p so far, divided by the penalty of the greatest length. What is open at `max_length` counts as it stands.

    One loop of `keras.ops`, so that it compiles under XLA and runs in a SavedModel.

    Args:
        step: function `(tokens (rows,), state) -> (logits (rows, v), state)`, called with b * width rows; the state may be
            any nest of tensors, rows along the first axis.
        state: its first state, b rows; repeated for the beam here.
        prompt: integer tokens (b, p), p of 1 or more: what each row starts with; rows padded by `pad` on the right. They
            count neither in a score nor in its length.
        end: the token that ends a sequence.
        max_length: positive integer, how many tokens to give per row at the most, those of the prompt after its first and
            `end` included.
        width: positive integer, at most v.
        n_best: positive integer, at most width: how many sequences to give per row.
        length_penalty: number of at least 0: 0 prefers short sequences, 1 about the best mean.
        no_repeat: positive integer n: no n tokens come twice in the same order, the prompt's included; 1 forbids every
            repetition. None for no such limit.
        min_length: as in `keras_seq.decoding.greedy`.
        allowed: boolean (v,) or (b, v), the tokens that may be given at all; None for all.
        pad: the token for nothing.

    Returns:
        `(tokens, scores)`: int32 (b, n_best, max_length), the best first, and (b, n_best). A sequence that could not be
        continued without a forbidden token has the score -inf.

    Raises:
        TypeError, ValueError: a width that is no positive integer or larger than the vocabulary, an n_best larger than the
            width, a length_penalty below 0, a no_repeat that is no positive integer; and what `keras_seq.decoding.greedy`
            refuses.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import beam_search
    table = np.log([[0.1, 0.5, 0.4], [0.2, 0.4, 0.4], [0.9, 0.05, 0.05]]).astype("float32")      # after each token
    tokens, scores = beam_search(lambda w, s: (table[w], s), (), np.array([[1]]), end=0, max_length=3, width=3)
    print(tokens[0, 0], np.exp(scores[0, 0]))       # [2 0 0], 0.36: likelier than what begins with 1
    ```
    """
    width, n_best = positive_integer("width", width), positive_integer("n_best", n_best)
    if n_best > width:
        raise ValueError(f"n_best: expected at most the width {width}, got {n_best}")
    if isinstance(length_penalty, bool) or not isinstance(length_penalty, numbers.Real):
        raise TypeError(f"length_penalty: expected a number of at least 0, got {length_penalty!r}")
    if not 0 <= length_penalty < float("inf"):
        raise ValueError(f"length_penalty: expected a number of at least 0, got {length_penalty!r}")
    no_repeat = None if no_repeat is None else positive_integer("no_repeat", no_repeat)
    prompt, max_length = check_limits(prompt, max_length, min_length)
    batch = ops.shape(prompt)[0]
    nothing = ops.full((batch, max_length + 1), pad, dtype="int32")
    forced = ops.concatenate([prompt, nothing], axis=1)
    rows = ops.arange(batch, dtype="int32")[:, None] * width

    def penalised(total, length):
        return total / ops.power((5.0 + ops.cast(length, "float32")) / 6.0, length_penalty)

    def unfinished(index, token, done, total, length, *_):
        # the worst of the best that have ended against the most that an open one can reach
        scores = penalised(total, length)
        ended = ops.top_k(ops.where(done, scores, _worst(scores)), n_best)[0][:, -1]
        open_ = ops.max(ops.where(done, _worst(scores), penalised(total, max_length)), axis=1)
        return ops.logical_and(index < max_length, ops.any(open_ > ended))

    def advance(index, token, done, total, length, tokens, *flat):
        logits, new = step(ops.reshape(token, (-1,)), tree.pack_sequence_as(state, list(flat)))
        check_structure(state, new)
        size = logits.shape[-1]
        if width > size:
            raise ValueError(f"width: expected at most the {size} tokens that the step gives logits for, got {width}")
        steps = ops.log_softmax(ops.reshape(ops.cast(logits, "float32"), (-1, width, size)), axis=-1)
        steps = permitted(steps, allowed, end, index < min_length - 1)
        if no_repeat is not None:
            begun = ops.concatenate([ops.broadcast_to(prompt[:, :1, None], (batch, width, 1)), tokens], axis=2)
            steps = ops.where(_would_repeat(begun, index + 1, no_repeat, size), _worst(steps), steps)
        given = ops.take(forced, index + 1, axis=1)[:, None]
        # what is given, or has ended, goes on in one way only and at no cost
        only = ops.where(done, pad, given)[:, :, None] == ops.arange(size)
        held = ops.logical_or(done, given != pad)
        steps = ops.where(held[:, :, None], ops.where(only, 0.0, _worst(steps)), steps)
        longer = length + ops.cast(ops.logical_not(held), "int32")
        found = total[:, :, None] + steps
        scores = ops.reshape(penalised(found, longer[:, :, None]), (-1, width * size))
        _, chosen = ops.top_k(scores, width)
        chosen = ops.cast(chosen, "int32")
        parent, token = chosen // size, chosen % size

        def from_parent(x):
            return ops.take_along_axis(x, parent, axis=1)

        total = ops.take_along_axis(ops.reshape(found, (-1, width * size)), chosen, axis=1)
        length, before = from_parent(longer), from_parent(done)
        token = ops.where(before, pad, token)
        tokens = ops.take_along_axis(tokens, parent[:, :, None], axis=1)
        tokens = ops.where(ops.arange(max_length) == index, token[:, :, None], tokens)
        places = ops.reshape(rows + parent, (-1,))
        new = [ops.take(s, places, axis=0) for s in tree.flatten(new)]
        return index + 1, token, ops.logical_or(before, token == end), total, length, tokens, *new

    single = ops.where(ops.arange(width) == 0, 0.0, -float("inf"))
    start = (
        ops.convert_to_tensor(0, dtype="int32"),
        ops.broadcast_to(prompt[:, :1], (batch, width)),
        ops.zeros((batch, width), dtype="bool"),
        ops.broadcast_to(single[None], (batch, width)),
        ops.zeros((batch, width), dtype="int32"),
        ops.broadcast_to(nothing[:, None, 1:], (batch, width, max_length)),
    )
    repeated = [ops.repeat(ops.convert_to_tensor(s), width, axis=0) for s in tree.flatten(state)]
    _, _, _, total, length, tokens, *_ = ops.while_loop(unfinished, advance, (*start, *repeated))
    scores, order = ops.top_k(penalised(total, length), n_best)
    return ops.take_along_axis(tokens, ops.cast(order, "int32")[:, :, None], axis=1), scores


def _worst(like):
    return ops.full_like(like, -float("inf"))


def _would_repeat(tokens, count, n, size):
    """Which next token (b, k, v) would end n tokens that stand already among the first `count` of (b, k, t)."""
    steps = tokens.shape[-1]
    places = ops.arange(steps)
    matches = ops.broadcast_to(places < count, ops.shape(tokens))  # the last of the n stands at this place
    for back in range(1, n):
        earlier = ops.roll(tokens, back, axis=-1)
        last = ops.take(tokens, ops.maximum(count - back, 0), axis=-1)
        matches = ops.logical_and(matches, ops.logical_and(places >= back, earlier == last[:, :, None]))
    matches = ops.logical_and(matches, count >= n)
    return ops.any(ops.logical_and(matches[..., None], tokens[..., None] == ops.arange(size)), axis=2)
