"""The levels of a linear recurrence: steps joined in pairs, pairs in pairs, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops


def recurrence_by_pairs(
    a: Any, b: Any, initial: Any, times: Callable[..., Any], concatenate: Callable[..., Any] = ops.concatenate
) -> Any:
    """h_t = times(a_t, h_{t-1}) + b_t, with h_0 = `initial`, in 2 log2(t) levels, or log2(t) longer ones by doubling.

    Args:
        a: tensor (t, b, ...), of numbers or matrices.
        b: tensor (t, b, ...), of as many axes as `a`: columns (u, 1) where there are matrices. An unknown t means doubling.
        initial: tensor (b, ...).
        times: an associative product, of two of `a` and of one of `a` with one of `b`.
        concatenate: as that of `keras.ops`, which makes complex64 of complex128.

    Returns:
        Tensor (t, b, ...) of h_1 .. h_t.
    """
    b = concatenate([b[:1] + times(a[:1], initial), b[1:]], axis=0)
    return by_doubling(a, b, times) if b.shape[0] is None else _joined(a, b, times, concatenate)


def _joined(a, h, times, concatenate):
    """From zero: the recurrence over pairs of steps is half as long, and gives every second h."""
    time = h.shape[0]
    if time == 1:
        return h
    even = time - time % 2
    odd = _joined(times(a[1::2], a[:even:2]), h[1::2] + times(a[1::2], h[:even:2]), times, concatenate)
    later = h[2::2] + times(a[2::2], odd[: (time - 1) // 2])
    first = concatenate([h[:1], later], axis=0)[: even // 2]
    pairs = ops.reshape(concatenate([first[:, None], odd[:, None]], axis=1), (even, *ops.shape(h)[1:]))
    return pairs if time == even else concatenate([pairs, later[-1:]], axis=0)


def by_doubling(a: Any, h: Any, times: Callable[..., Any]) -> Any:
    """The same from zero, with b in the place of `h`: what each h sees of the past doubles in each level."""
    time = ops.shape(h)[0]

    def double(stride, a, h):
        return 2 * stride, times(a, moved_on(a, stride)), h + times(a, moved_on(h, stride))

    return ops.while_loop(lambda stride, *_: stride < time, double, (1, a, h))[2]


def moved_on(x: Any, stride: Any) -> Any:
    """`x` (t, ..) moved on by so many steps, a tensor, zeros coming in: a window on `x` with as many zeros before it."""
    shape = ops.shape(x)
    further = [0] * (len(shape) - 1)
    return ops.slice(ops.pad(x, [(shape[0], 0), *[(n, n) for n in further]]), (shape[0] - stride, *further), shape)
