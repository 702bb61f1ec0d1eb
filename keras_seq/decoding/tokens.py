"""What all decoders share: constraints about which tokens may come and how many, and the loop of single hypotheses."""

import numbers

import keras
import numpy as np
from keras import backend, ops, tree

from keras_seq.arguments import known, positive_integer, tensor
from keras_seq.shapes import fits

WORST = -float("inf")
"""The score of what cannot be. A number and no tensor: see `only`."""


class DecodingConstraints:
    """The arguments that decoders have in common, checked. Values are checked where there are any, not in a graph."""

    def __init__(self, prompt, *, end, max_length, max_lengths=None, min_length=0, allowed=None, pad=0):
        self.max_length = positive_integer("max_length", max_length)
        self.end, self.pad = token("end", end), token("pad", pad)
        if self.end == self.pad:
            raise ValueError(f"end: expected another token than pad, got {end!r} for both")
        self.prompt, self._tokens = self._prompt(prompt)
        self._seen = self._tokens is not None
        most, known_most = self._counts("max_lengths", max_lengths, 1, [1], self.max_length)
        least, known_least = self._counts("min_length", min_length, 0, [0, 1], 0)
        if known_most is not None and known_least is not None and np.any(known_least > known_most):
            raise ValueError(f"min_length: expected at most max_lengths {known_most}, row by row, got {known_least}")
        self.most, self.least, self.allowed = most, least, allowed
        values = None if allowed is None else known(allowed)
        if values is not None and values.ndim and not values.any(axis=-1).all():
            raise ValueError("allowed: expected at least one token for each row, got none")

    def _prompt(self, prompt):
        prompt = tensor("prompt", prompt, "integers")
        if len(prompt.shape) != 2 or 0 in prompt.shape:
            raise ValueError(f"prompt: expected shape (b, p) with at least one token, got {tuple(prompt.shape)}")
        return ops.cast(prompt, "int32"), known(prompt)

    def _counts(self, name, value, least, axes, default):
        """`(numbers of tokens, int32 () or (b,); their values, None in a graph)`."""
        if value is None:
            return default, np.asarray(default)
        values, counts = known(value), ops.convert_to_tensor(value)
        if not _is_integer(counts):
            raise TypeError(f"{name}: expected integers, got {value!r}")
        rows = self.prompt.shape[0]
        if len(counts.shape) not in axes or (len(counts.shape) == 1 and not fits(counts.shape, (rows,))):
            shapes = " or ".join("()" if n == 0 else f"({'b' if rows is None else rows},)" for n in axes)
            raise ValueError(f"{name}: expected integers of shape {shapes}, got shape {tuple(counts.shape)}")
        wrong = [] if values is None else values[(values < least) | (values > self.max_length)]
        if len(wrong):
            raise ValueError(f"{name}: expected integers from {least} to max_length={self.max_length}, got {wrong[0]}")
        return ops.cast(counts, "int32"), values

    def call_step(self, step, token, state, flat):
        """`(logits, the new state as a flat list)` of one step."""
        if not callable(step):
            raise TypeError(f"step: expected a function of tokens and a state, got {step!r}")
        old = tree.pack_sequence_as(state, list(flat))
        try:
            logits, new = step(token, old)
        except Exception as error:
            # the step failed, maybe because a token lies outside its table: call it with token 0 to learn the table's size
            if self._tokens is not None:
                self._check_tokens(step(ops.zeros_like(token), old)[0].shape[-1], error)
            raise
        size = logits.shape[-1] if len(logits.shape) == 2 else None
        if size is None:
            raise ValueError(f"step: expected logits (rows, v) with v known, got shape {tuple(logits.shape)}")
        self._check_tokens(size)
        if not self._seen:
            by_row = ops.reshape(logits, (ops.shape(self.prompt)[0], -1, size))
            logits = ops.reshape(undefined(by_row, checked("prompt", self.prompt, size)[1]), (-1, size))
        for name, own in (("end", self.end), ("pad", self.pad)):
            if not 0 <= own < size:
                raise ValueError(f"{name}: expected a token of the {size} that the step gives logits for, got {own}")
        return logits, check_state(old, new)

    def _check_tokens(self, size, error=None):
        tokens, self._tokens = self._tokens, None
        wrong = [] if tokens is None else tokens[(tokens < 0) | (tokens >= size)]
        if len(wrong):
            message = f"prompt: expected tokens 0 .. {size - 1}, as the step gives logits for, got {wrong[0]}"
            raise ValueError(message) from error

    def mask_logits(self, logits, index):
        """The logits (b, v) or (b, k, v), those of forbidden tokens, and of `end` while it is too early, -inf."""
        size, beam = logits.shape[-1], [1] * (len(logits.shape) - 2)
        too_short = ops.reshape(index < self.least - 1, (-1, *beam, 1))
        keep = ops.logical_not(ops.logical_and(too_short, ops.arange(size, dtype="int32") == self.end))
        if self.allowed is not None:
            allowed = ops.convert_to_tensor(self.allowed)
            rows = (self.prompt.shape[0], size)
            one, each = fits(allowed.shape, rows[1:]), fits(allowed.shape, rows)
            if not (one or each) or backend.standardize_dtype(allowed.dtype) != "bool":
                got = f"{backend.standardize_dtype(allowed.dtype)} {tuple(allowed.shape)}"
                raise ValueError(f"allowed: expected booleans of shape ({size},) or (b, {size}), got {got}")
            keep = ops.logical_and(keep, ops.reshape(allowed, (-1, *beam, size)))
        return only(keep, logits)

    def at_limit(self, index):
        """Whether the token at this place is the last one of its row: (b, 1), or (1, 1) for all."""
        return ops.reshape(index + 1 >= self.most, (-1, 1))

    def forced(self):
        """(b, p + max_length): the prompt, padded with `max_length` times `pad`."""
        rows = ops.shape(self.prompt)[0]
        return ops.concatenate([self.prompt, ops.full((rows, self.max_length), self.pad, dtype="int32")], axis=1)


def decode_loop(step, state, constraints, choose):
    """Tokens (b, max_length) that follow the first one of each row's prompt; `choose(logits, index)` gives (b,) of them.

    A row ends where its logits are NaN.
    """
    prompt, forced = constraints.prompt, constraints.forced()
    batch = ops.shape(prompt)[0]
    nothing = ops.full((batch, constraints.max_length), constraints.pad, dtype="int32")

    def unfinished(index, token, done, *_):
        return ops.logical_and(index < constraints.max_length, ops.logical_not(ops.all(done)))

    def body(index, token, done, tokens, *flat):
        logits, new = constraints.call_step(step, token, state, flat)
        given = ops.take(forced, index + 1, axis=1)
        chosen = ops.cast(choose(constraints.mask_logits(logits, index), index), "int32")
        done = ops.logical_or(done, broken(logits))
        token = ops.where(done, constraints.pad, ops.where(given == constraints.pad, chosen, given))
        tokens = ops.where(ops.arange(constraints.max_length, dtype="int32") == index, token[:, None], tokens)
        done = ops.logical_or(ops.logical_or(done, token == constraints.end), constraints.at_limit(index)[:, 0])
        return index + 1, token, done, tokens, *new

    flat = first_state(state, prompt)
    start = (ops.convert_to_tensor(0, dtype="int32"), prompt[:, 0], ops.zeros((batch,), dtype="bool"), nothing)
    return ops.while_loop(unfinished, body, (*start, *flat))[3]


def first_state(state, prompt):
    """The leaves of a first state as tensors; a ValueError unless each has a row for each of the prompt's."""
    flat = [ops.convert_to_tensor(s) for s in tree.flatten(state)]
    for s in flat:
        if not fits(s.shape[:1], prompt.shape[:1]):
            raise ValueError(
                f"state: expected tensors of {prompt.shape[0]} rows, as the prompt has, got {tuple(s.shape)}"
            )
    return flat


def check_state(old, new):
    """The leaves of a step's new state; a ValueError unless they are like those of the state that it was given."""
    try:
        tree.assert_same_structure(old, new)
    except (TypeError, ValueError) as error:
        raise ValueError("step: expected a state of the structure that it was given, got another") from error
    given, got = tree.flatten(old), [ops.convert_to_tensor(s) for s in tree.flatten(new)]
    for place, (a, b) in enumerate(zip(given, got, strict=True)):
        kinds = [backend.standardize_dtype(x.dtype) for x in (a, b)]
        if kinds[0] != kinds[1] or not fits(b.shape, a.shape):
            described = [f"{kind} {tuple(x.shape)}" for kind, x in zip(kinds, (a, b), strict=True)]
            raise ValueError(
                f"step: expected a state like the one that it was given, whose tensor {place} of {len(got)} is "
                f"{described[0]}, got {described[1]}"
            )
    return got


def token(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected a token, an integer, got {value!r}")
    return int(value)


def number(name, value, expected, holds):
    """`value` as a float, a tensor () as one of float32; an error unless it is a number of which this `holds`, where known."""
    tensor = hasattr(value, "shape") and not isinstance(value, np.generic)
    if tensor:
        kind = backend.standardize_dtype(value.dtype)
        if tuple(value.shape) != () or not ("float" in kind or "int" in kind):
            raise TypeError(f"{name}: expected a number, {expected}, got {kind} {tuple(value.shape)}")
    elif isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, {expected}, got {value!r}")
    given = known(value) if tensor else value
    if given is not None and not holds(float(given)):
        raise ValueError(f"{name}: expected a number, {expected}, got {given}")
    return ops.cast(value, "float32") if tensor else float(value)


def checked(name, tokens, size):
    """`(tokens, wrong)`: which of these integers are not from 0 to `size` - 1; None where it is known that none is.

    Known values are checked at once: a ValueError. Those of a TensorFlow graph are checked by an assertion when it runs.
    XLA drops assertions, and other backends have none: there, let what is made of the wrong ones be NaN (`undefined`).
    """
    expected = f"{name}: expected integers from 0 to {size - 1}, got"
    values = known(tokens)
    if values is not None:
        wrong = values[(values < 0) | (values >= size)] if values.dtype.kind in "iu" else values.ravel()
        if wrong.size:
            raise ValueError(f"{expected} {wrong[0]}")
        return tokens, None
    wrong = ops.logical_or(tokens < 0, tokens >= size)
    if not _is_integer(tokens):  # Keras builds models under a strategy on means
        wrong = ops.logical_or(wrong, tokens != ops.floor(tokens))
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        got = tf.reduce_max(tf.where(wrong, tokens, tokens.dtype.min))
        seen = tf.debugging.Assert(~tf.reduce_any(wrong), [expected, got])
        with tf.control_dependencies([seen]):
            tokens = tf.identity(tokens)
    return tokens, wrong


def undefined(values, wrong):
    """Floats (b, ..), NaN in each row that has one of the wrong (b, ..); no gradient comes from there."""
    if wrong is None:
        return values
    rows = ops.any(ops.reshape(wrong, (ops.shape(wrong)[0], -1)), axis=1)
    rows = ops.reshape(rows, (-1, *[1] * (len(values.shape) - 1)))
    return ops.where(rows, float("nan"), values)


def broken(logits):
    """Whether there is a NaN among the logits (.., v)."""
    return ops.any(ops.isnan(logits), axis=-1)


def likeliest(logits):
    """The token (..), int32, with the largest of the logits (.., v), the first of several; v, which is none, where one is NaN.

    By operations that ONNX and LiteRT have: `ops.argmax` looks at single bits, for the sign of zeros.
    """
    size = ops.shape(logits)[-1]
    largest = logits == ops.max(logits, axis=-1, keepdims=True)
    return ops.min(ops.where(largest, ops.arange(size, dtype="int32"), size), axis=-1)


def only(allowed, logits):
    """The logits (.., v), those of tokens that are not allowed, booleans (.., v), -inf.

    A number and no tensor, or what is exported as ONNX has `allowed * logits + (1 - allowed) * -inf`, which is NaN.
    """
    return ops.where(allowed, logits, WORST)


def _is_integer(x):
    return "int" in backend.standardize_dtype(x.dtype)
