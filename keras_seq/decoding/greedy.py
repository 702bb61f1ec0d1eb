"""Greedy decoding: the likeliest token at each step."""

from keras import ops, tree


def greedy(step, state, prompt, *, end, max_length, pad=0):
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
        pad: the token for nothing.

    Returns:
        int32 tokens (b, max_length): for each row its prompt after the first token, what follows, and `end` if it came.

    Raises:
        ValueError: a `max_length` below 1, or a prompt that is not (b, p).

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import greedy
    table = np.eye(5, k=1, dtype="float32")       # after token i comes i + 1
    tokens = greedy(lambda w, s: (table[w], s), (), np.array([[1], [2]]), end=4, max_length=4)   # [[2 3 4 0], [3 4 0 0]]
    ```
    """
    if max_length < 1:
        raise ValueError(f"max_length: expected a positive integer, got {max_length!r}")
    if len(prompt.shape) != 2 or prompt.shape[1] == 0:
        raise ValueError(f"prompt: expected shape (b, p) with at least one token, got {tuple(prompt.shape)}")
    prompt = ops.cast(prompt, "int32")
    batch = ops.shape(prompt)[0]
    nothing = ops.full((batch, max_length + 1), pad, dtype="int32")
    forced = ops.concatenate([prompt, nothing], axis=1)

    def unfinished(index, token, done, *_):
        return ops.logical_and(index < max_length, ops.logical_not(ops.all(done)))

    def advance(index, token, done, tokens, *flat):
        logits, new_state = step(token, tree.pack_sequence_as(state, list(flat)))
        given = ops.take(forced, index + 1, axis=1)
        token = ops.where(given == pad, ops.cast(ops.argmax(logits, axis=-1), "int32"), given)
        token = ops.where(done, pad, token)
        tokens = ops.where(ops.arange(max_length) == index, token[:, None], tokens)
        return index + 1, token, ops.logical_or(done, token == end), tokens, *tree.flatten(new_state)

    start = (ops.convert_to_tensor(0, dtype="int32"), prompt[:, 0], ops.zeros((batch,), dtype="bool"))
    return ops.while_loop(unfinished, advance, (*start, nothing[:, 1:], *tree.flatten(state)))[3]
