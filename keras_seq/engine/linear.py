"""Linear recurrences, h_t = a_t h_{t-1} + b_t and h_t = h_{t-1} K + b_t, for all t at once, with their gradients."""

import operator

import keras
import numpy as np
from keras import ops

from keras_seq.engine.backend import complex_of, custom_gradient, linear_loop, linear_loop_is_cheap
from keras_seq.engine.pairs import by_doubling, moved_on, recurrence_by_pairs

CHUNK = 32


def linear_recurrence(a, b, initial):
    """h_t = a_t * h_{t-1} + b_t, with h_0 = `initial`.

    In 2 log2(t) passes, each over half as many steps as the one before and back: pairs of steps are joined to one, the
    recurrence over these gives every second h, and these the others. Where the length is not known while it is traced, by
    doubling in log2(t) passes over all steps. In a program of XLA for processors without a GPU one step after the other: such
    a loop moves each number once, and is as fast as memory is. Where `a` is a number, chunks of 32 steps are each one product
    with the triangle of its powers, and doubling joins them. The gradient is a linear recurrence too, from the last step to
    the first: it keeps the result alone.

    Args:
        a: tensor (t, b, u), or (t, 1, u) for all rows, or a real number, the same for all.
        b: tensor (t, b, u), the time first.
        initial: tensor (b, u). All tensors are real, or all complex.

    Returns:
        Tensor (t, b, u) of h_1 .. h_t.

    Source of the pairs: Blelloch, "Prefix sums and their applications", 1990.
    """
    if isinstance(a, (int, float)):

        @custom_gradient
        def constant(b, initial):
            h = _by_chunks(a, b, initial)

            def gradient(delta, upstream=None):
                delta = delta if upstream is None else upstream
                back = _backwards(a, delta, initial)
                return back, a * back[0]

            return h, gradient

        return constant(b, initial)
    return _varying(a, b, initial)


def _differentiable(forward, pullback):
    """`forward(*given)` with the gradient `pullback(result, *given, delta)`, and gradients of that.

    The pullback sees the result as a function of what was given, with the same pullback: nothing differentiates `forward`.
    """

    def pulled(result, given, delta, upstream):
        delta = delta if upstream is None else upstream
        return pullback(known(ops.stop_gradient(result), *given), *given, delta)

    @custom_gradient
    def known(result, *given):
        return result, lambda delta, upstream=None: (
            ops.zeros_like(result),
            *pulled(result, given, delta, upstream),
        )

    @custom_gradient
    def run(*given):
        result = forward(*given)
        return result, lambda delta, upstream=None: pulled(result, given, delta, upstream)

    return run


def _varying_forward(a, b, initial):
    if linear_loop_is_cheap():
        return linear_loop(a, b, initial, operator.mul)
    return recurrence_by_pairs(a, b, initial, operator.mul, _concatenate)


def _varying_pullback(h, a, b, initial, delta):
    factors = _as_in_gradients(a)
    back = _backwards(_concatenate([factors[1:], ops.zeros_like(a[:1])], axis=0), delta, initial)
    share = back * _as_in_gradients(_before(initial, h))
    return ops.sum(share, axis=1, keepdims=True) if a.shape[1] == 1 else share, back, factors[0] * back[0]


def _before(initial, h):
    """The h before each step."""
    return _concatenate([initial[None], h[:-1]], axis=0)


def _as_in_gradients(factor):
    """What a gradient is multiplied by where a value is multiplied by this: its conjugate, except on JAX."""
    return factor if keras.config.backend() == "jax" else ops.conj(factor)


def _backwards(following, delta, initial):
    """The recurrence from the last step to the first; each reads what comes after it by the factor `following`."""
    following = following if isinstance(following, (int, float)) else ops.flip(following, 0)
    return ops.flip(linear_recurrence(following, ops.flip(delta, 0), ops.zeros_like(initial)), 0)


def _concatenate(tensors, axis):
    """`ops.concatenate`, which makes complex64 of complex128."""
    if "complex" not in keras.backend.standardize_dtype(tensors[0].dtype):
        return ops.concatenate(tensors, axis=axis)
    return complex_of(*(ops.concatenate([part(x) for x in tensors], axis=axis) for part in (ops.real, ops.imag)))


def matrix_recurrence(kernel, b, initial):
    """h_t = h_{t-1} K + b_t, with h_0 = `initial`, in about 2 sqrt(t) products, or 32 + log2(t / 32) where t is not known.

    Chunks run side by side from zero; what each hands on to the next is found by doubling, with K to the powers c, 2c, ..; then
    all steps of a chunk are given what came from before it, times K, K^2, .. K^c. Twice the operations of a loop, in large
    products. The gradient is the same recurrence from the last step to the first, with the adjoint of K.

    Args:
        kernel: tensor (u, u).
        b: tensor (t, b, u), the time first.
        initial: tensor (b, u). All tensors are real.

    Returns:
        Tensor (t, b, u) of h_1 .. h_t.
    """
    return _of_matrix(kernel, b, initial)


def _matrix_pullback(h, kernel, b, initial, delta):
    adjoint = ops.transpose(kernel)
    back = ops.flip(matrix_recurrence(adjoint, ops.flip(delta, 0), ops.zeros_like(initial)), 0)
    before, after = (ops.reshape(x, (-1, ops.shape(kernel)[0])) for x in (_before(initial, h), back))
    return ops.matmul(ops.transpose(before), after), back, ops.matmul(back[0], adjoint)


def _chunks_of_matrix(kernel, b, initial):
    (time, rows, width), known = ops.shape(b), b.shape[0]
    size = CHUNK if known is None else 2 ** round(np.log2(known) / 2)
    padding = size - 1 - (time - 1) % size
    chunks = ops.reshape(ops.pad(b, ((0, padding), (0, 0), (0, 0))), (-1, size, rows, width))

    def step(h, now):
        h = ops.matmul(h, kernel) + now
        return h, h

    _, inside = ops.scan(step, ops.zeros_like(chunks[:, 0]), ops.swapaxes(chunks, 0, 1), length=size)  # (size, n, b, u)
    powers = [kernel]  # K^1 .. K^size, each product twice as many
    while len(powers) < size:
        powers += [ops.matmul(p, powers[-1]) for p in powers]
    joined = _concatenate(powers, axis=1)  # (u, size * u)
    ends = inside[-1]
    # of as many axes: TensorFlow's graphs take the sum of a product and (1, 1, u) for a bias, and drop an axis
    first = ends[0] + ops.matmul(initial, powers[-1])
    ends = _concatenate([first[None], ends[1:]], axis=0)
    ends = _doubling_of_matrix(powers[-1], ends)
    before = _concatenate([initial[None], ends[:-1]], axis=0)  # what each chunk begins from (n, b, u)
    carried = ops.reshape(ops.matmul(before, joined), (-1, rows, size, width))
    h = ops.swapaxes(inside, 0, 1) + ops.swapaxes(carried, 1, 2)
    return ops.reshape(h, (-1, rows, width) if known is None else (known + padding, -1, width))[:time]


def _doubling_of_matrix(kernel, h):
    """h_t = h_{t-1} K + b_t from zero, of b in the place of h."""
    time = ops.shape(h)[0]

    def double(stride, kernel, h):
        return 2 * stride, ops.matmul(kernel, kernel), h + ops.matmul(moved_on(h, stride), kernel)

    return ops.while_loop(lambda stride, *_: stride < time, double, (1, kernel, h))[2]


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
    before = _concatenate([first, ends[:-1]], axis=0)
    powers = ops.cast(float(a) ** np.arange(1, size + 1), b.dtype)
    h = inside + powers[:, None] * before[:, None]
    return ops.reshape(ops.reshape(h, (-1, ops.shape(flat)[1]))[:time], ops.shape(b))


def _doubling(a, b, initial):
    number = isinstance(a, (int, float))
    h = _concatenate([b[:1] + (a if number else a[:1]) * initial, b[1:]], axis=0)
    time = h.shape[0]
    if time is None:
        return by_doubling(ops.full_like(h, a) if number else a, h, operator.mul)
    stride = 1
    while stride < time:
        h = h + a * _later(h, stride)
        a = a * a if number else a * _later(a, stride)
        stride *= 2
    return h


def _later(x, stride):
    """`x` moved on by so many steps, zeros coming in."""
    return ops.pad(x[:-stride], [(stride, 0), *[(0, 0)] * (len(x.shape) - 1)])


_varying = _differentiable(_varying_forward, _varying_pullback)
_of_matrix = _differentiable(_chunks_of_matrix, _matrix_pullback)
