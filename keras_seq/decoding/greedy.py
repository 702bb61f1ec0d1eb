"""Greedy decoding: the likeliest token at each step."""

from keras import ops

from keras_seq.decoding.tokens import continued


def greedy(step, state, prompt, *, end, max_length, min_length=0, allowed=None, pad=0):
    """Continue `prompt` by the likeliest token, again and again, until each row has ended.

        w_t = argmax_v logits_v(w_{t-1}, s_{t-1}),   until w_t = end or t = max_length

    One loop of `keras.ops`, so that it compiles under XLA and runs in a SavedModel; it stops as soon as every row has
    given `end`. After it a row holds `pad`.

    Args:
        step: function `(tokens (b,), state) -> (logits (b, v), state)`; the state may be any nest of tensors.
        state: its first state, rows along the first axis.
        prompt: integer tokens (b, p), p of 1 or more: what each row starts with; rows padded by `pad` on the right.
            A row continues after its own last token.
        end: the token that ends a row.
        max_length: positive integer, how many tokens to give per row at the most, `end` included.
        min_length: `end` is not given as one of the first `min_length - 1` tokens, the prompt's after its first included.
        allowed: boolean (v,) or (b, v), the tokens that may be given at all; None for all.
        pad: the token for nothing.

    Returns:
        int32 tokens (b, max_length): for each row its prompt after the first token, what follows, and `end` if it came.

    Raises:
        TypeError, ValueError: a max_length that is no positive integer, a min_length outside 0 .. max_length, a prompt that
            is not (b, p), an `end` that is no token, an `allowed` of another shape, a step that changes the structure of its
            state.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import greedy
    table = np.eye(5, k=1, dtype="float32")       # after token i comes i + 1
    tokens = greedy(lambda w, s: (table[w], s), (), np.array([[1], [2]]), end=4, max_length=4)   # [[2 3 4 0], [3 4 0 0]]
    ```
    """

    def choose(logits, index):
        return ops.argmax(logits, axis=-1)

    limits = {"end": end, "max_length": max_length, "min_length": min_length, "allowed": allowed, "pad": pad}
    return continued(step, state, prompt, choose, **limits)
