"""The loop that all decoders of single hypotheses share: choose a token, take the next step with it."""

from keras import ops, tree

from keras_seq.cells.arguments import positive_integer


def continued(step, state, prompt, choose, *, end, max_length, min_length, allowed, pad):
    """Tokens (b, max_length) that follow the first one of each row's prompt; `choose(logits, index)` gives (b,) of them."""
    prompt, max_length = check_limits(prompt, max_length, min_length)
    batch = ops.shape(prompt)[0]
    nothing = ops.full((batch, max_length + 1), pad, dtype="int32")
    forced = ops.concatenate([prompt, nothing], axis=1)

    def unfinished(index, token, done, *_):
        return ops.logical_and(index < max_length, ops.logical_not(ops.all(done)))

    def advance(index, token, done, tokens, *flat):
        logits, new = step(token, tree.pack_sequence_as(state, list(flat)))
        check_structure(state, new)
        logits = permitted(logits, allowed, end, index < min_length - 1)
        given = ops.take(forced, index + 1, axis=1)
        token = ops.where(given == pad, ops.cast(choose(logits, index), "int32"), given)
        token = ops.where(done, pad, token)
        tokens = ops.where(ops.arange(max_length) == index, token[:, None], tokens)
        return index + 1, token, ops.logical_or(done, token == end), tokens, *tree.flatten(new)

    start = (ops.convert_to_tensor(0, dtype="int32"), prompt[:, 0], ops.zeros((batch,), dtype="bool"))
    return ops.while_loop(unfinished, advance, (*start, nothing[:, 1:], *tree.flatten(state)))[3]


def check_limits(prompt, max_length, min_length):
    """`(the prompt as int32, max_length)`."""
    max_length = positive_integer("max_length", max_length)
    if not 0 <= min_length <= max_length:
        raise ValueError(f"min_length: expected an integer from 0 to max_length={max_length}, got {min_length!r}")
    prompt = ops.convert_to_tensor(prompt)
    if len(prompt.shape) != 2 or prompt.shape[1] == 0:
        raise ValueError(f"prompt: expected shape (b, p) with at least one token, got {tuple(prompt.shape)}")
    return ops.cast(prompt, "int32"), max_length


def permitted(logits, allowed, end, too_short):
    """The logits, those of forbidden tokens, and of `end` while it is too early, -inf."""
    size = logits.shape[-1]
    if not 0 <= end < size:
        raise ValueError(f"end: expected a token of the {size} that the step gives logits for, got {end!r}")
    keep = ops.logical_not(ops.logical_and(too_short, ops.arange(size) == end))
    if allowed is not None:
        allowed = ops.convert_to_tensor(allowed)
        if len(allowed.shape) not in (1, 2) or allowed.shape[-1] != size or allowed.dtype != "bool":
            raise ValueError(
                f"allowed: expected booleans of shape ({size},) or (b, {size}), got {allowed.dtype} {tuple(allowed.shape)}"
            )
        if len(allowed.shape) < len(logits.shape) == 3:
            allowed = ops.reshape(allowed, (-1, 1, size))  # a beam stands between rows and tokens
        keep = ops.logical_and(keep, allowed)
    return ops.where(keep, logits, ops.full_like(logits, -float("inf")))


def check_structure(old, new):
    """A ValueError if a step gives a state of another structure than it got."""
    try:
        tree.assert_same_structure(old, new)
    except (TypeError, ValueError) as error:
        raise ValueError("step: expected a state of the structure that it was given, got another") from error
