"""Greedy decoding: the likeliest token at each step."""

from __future__ import annotations

from typing import Any

from keras_seq.decoding.tokens import DecodingConstraints, decode_loop, likeliest
from keras_seq.typing import Step, Tensor


def greedy(
    step: Step,
    state: Any,
    prompt: Tensor,
    *,
    end: int,
    max_length: int,
    max_lengths: Tensor | None = None,
    min_length: int | Tensor = 0,
    allowed: Tensor | None = None,
    pad: int = 0,
) -> Tensor:
    """Continue `prompt` by the likeliest token, again and again, until each row has ended.

        w_t = argmax_v logits_v(w_{t-1}, s_{t-1}),   until w_t = end or t is the row's limit

    One loop of `keras.ops`, so that it compiles under XLA and runs in a SavedModel; it stops as soon as every row has
    given `end` or is at its limit. After that a row holds `pad`; so it does from where its logits are NaN.

    Args:
        step: function `(tokens (b,), state) -> (logits (b, v), state)`; the state may be any nest of tensors.
        state: its first state, rows along the first axis.
        prompt: integer tokens (b, p), p of 1 or more: what each row starts with; rows padded by `pad` on the right.
            A row continues after its own last token.
        end: the token that ends a row.
        max_length: positive integer, the width of the result: how many tokens to give per row at the most, the prompt's
            after its first and `end` included.
        max_lengths: integers (b,), 1 .. max_length: a limit for each row; None for the same for all.
        min_length: an integer, or integers (b,): `end` is not given as one of a row's first `min_length - 1` tokens, the
            prompt's after its first included.
        allowed: boolean (v,) or (b, v), the tokens that may be given at all; None for all.
        pad: the token for nothing, another one than `end`.

    `max_lengths`, `min_length` and `allowed` may be tensors: other values need no other trace.

    Returns:
        int32 tokens (b, max_length): for each row its prompt after the first token, what follows, and `end` if it came.

    Raises:
        TypeError, ValueError: a max_length that is no positive integer; max_lengths outside 1 .. max_length or a min_length
            outside 0 .. the row's limit, or that are not integers (b,); a prompt that is not integers (b, p), or holds what
            is no token of the step's; `end` and `pad` that are no such tokens, or the same; an `allowed` of another shape;
            logits that are not (b, v), a step that changes the structure of its state, or the shape or type of a tensor in
            it. Limits that are tensors in a graph are not checked: there one above max_length is max_length, one below 1
            gives one token. Of a prompt in a TensorFlow graph, what is no token of the step's fails an assertion when the
            graph runs; under XLA, which drops assertions, the row holds `pad` alone.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import greedy
    table = np.eye(5, k=1, dtype="float32")       # after token i comes i + 1
    tokens = greedy(lambda w, s: (table[w], s), (), np.array([[1], [2]]), end=4, max_length=4)   # [[2 3 4 0], [3 4 0 0]]
    ```
    """

    constraints = DecodingConstraints(
        prompt,
        end=end,
        max_length=max_length,
        max_lengths=max_lengths,
        min_length=min_length,
        allowed=allowed,
        pad=pad,
    )
    return decode_loop(step, state, constraints, lambda logits, index: likeliest(logits))
