"""The linear recurrence h_t = a_t h_{t-1} + b_t for all t at once."""

import keras
import numpy as np
from keras import ops

CHUNK = 32


def linear_recurrence(a, b, initial):
    """h_t = a_t * h_{t-1} + b_t, with h_0 = `initial`.

    By doubling, in log2(t) passes: after that of stride s, `h` is what the last 2s steps leave, and `a` what they multiply
    by. Where `a` is a number, chunks of 32 steps are each one product with the triangle of its powers, and doubling joins
    them. The gradient is a linear recurrence too, from the last step to the first: it keeps the result alone.

    Args:
        a: tensor (t, b, u), or a real number, the same for all.
        b: tensor (t, b, u), the time first.
        initial: tensor (b, u). All tensors are real, or all complex.

    Returns:
        Tensor (t, b, u) of h_1 .. h_t.
    """
    if isinstance(a, (int, float)):

        @ops.custom_gradient
        def constant(b, initial):
            h = _by_chunks(a, b, initial)

            def gradient(delta, upstream=None):
                delta = delta if upstream is None else upstream
                back = _backwards(a, delta, initial)
                return back, a * back[0]

            return h, gradient

        return constant(b, initial)
    return _varying(a, b, initial)


@ops.custom_gradient
def _varying(a, b, initial):
    h = _doubling(a, b, initial)

    def gradient(delta, upstream=None):
        delta = delta if upstream is None else upstream
        factors = _as_in_gradients(a)
        back = _backwards(ops.concatenate([factors[1:], ops.zeros_like(a[:1])], axis=0), delta, initial)
        before = ops.concatenate([initial[None], h[:-1]], axis=0)
        return back * _as_in_gradients(before), back, factors[0] * back[0]

    return h, gradient


def _as_in_gradients(factor):
    """What a gradient is multiplied by where a value is multiplied by this: its conjugate, except on JAX."""
    return factor if keras.config.backend() == "jax" else ops.conj(factor)


def _backwards(following, delta, initial):
    """The recurrence from the last step to the first; each reads what comes after it by the factor `following`."""
    following = following if isinstance(following, (int, float)) else ops.flip(following, 0)
    return ops.flip(linear_recurrence(following, ops.flip(delta, 0), ops.zeros_like(initial)), 0)


def _by_chunks(a, b, initial):
    time = ops.shape(b)[0]
    size = min(CHUNK, b.shape[0] or CHUNK)
    flat = ops.reshape(b, (time, -1))
    padding = size - 1 - (time - 1) % size  # -time % size; but ONNX rounds negative integers towards zero
    chunks = ops.reshape(ops.pad(flat, ((0, padding), (0, 0))), (-1, size, ops.shape(flat)[1]))
    later, earlier = np.mgrid[:size, :size]
    triangle = np.where(later >= earlier, float(a) ** np.maximum(later - earlier, 0), 0.0)
    inside = ops.matmul(ops.cast(triangle, b.dtype), chunks)
    first = ops.reshape(initial, (1, -1))
    ends = _doubling(a**size, inside[:, -1], first[0])
    before = ops.concatenate([first, ends[:-1]], axis=0)
    powers = ops.cast(float(a) ** np.arange(1, size + 1), b.dtype)
    h = inside + powers[:, None] * before[:, None]
    return ops.reshape(ops.reshape(h, (-1, ops.shape(flat)[1]))[:time], ops.shape(b))


def _doubling(a, b, initial):
    number = isinstance(a, (int, float))
    h = ops.concatenate([b[:1] + (a if number else a[:1]) * initial, b[1:]], axis=0)
    time = h.shape[0]
    if time is None:
        return _doubling_of_unknown_length(ops.full_like(h, a) if number else a, h)
    stride = 1
    while stride < time:
        h = h + a * _later(h, stride)
        a = a * a if number else a * _later(a, stride)
        stride *= 2
    return h


def _later(x, stride):
    """`x` moved on by so many steps, zeros coming in."""
    return ops.pad(x[:-stride], [(stride, 0), *[(0, 0)] * (len(x.shape) - 1)])


def _doubling_of_unknown_length(a, h):
    time = ops.shape(h)[0]
    steps = ops.reshape(ops.arange(time, dtype="int32"), (-1, *[1] * (len(h.shape) - 1)))

    def double(stride, a, h):
        def later(x):
            return ops.where(steps >= stride, ops.roll(x, stride, axis=0), ops.zeros_like(x))

        return 2 * stride, a * later(a), h + a * later(h)

    return ops.while_loop(lambda stride, *_: stride < time, double, (1, a, h))[2]
