"""The linear recurrence h_t = a_t h_{t-1} + b_t for all t at once, in log2(t) passes."""

from keras import ops


def linear_recurrence(a, b, initial):
    """h_t = a_t * h_{t-1} + b_t, with h_0 = `initial`.

    By doubling: after a pass of stride s, `h` is what the last 2s steps leave, and `a` what they multiply by. The gradient
    is a linear recurrence too, from the last step to the first: it keeps the result alone.

    Args:
        a: tensor (t, b, u), or one that broadcasts to it.
        b: tensor (t, b, u), the time first; t is static, or else the backend's loop runs the passes.
        initial: tensor (b, u).

    Returns:
        Tensor (t, b, u) of h_1 .. h_t.
    """
    a = ops.broadcast_to(a, ops.shape(b))
    return _recurrence(a, b, initial)


@ops.custom_gradient
def _recurrence(a, b, initial):
    h = _doubling(a, ops.concatenate([b[:1] + a[:1] * initial, b[1:]], axis=0))

    def gradient(delta, upstream=None):
        delta = delta if upstream is None else upstream
        following = ops.concatenate([a[1:], ops.zeros_like(a[:1])], axis=0)
        back = ops.flip(linear_recurrence(ops.flip(following, 0), ops.flip(delta, 0), ops.zeros_like(initial)), 0)
        before = ops.concatenate([ops.expand_dims(initial, 0), h[:-1]], axis=0)
        return back * before, back, a[0] * back[0]

    return h, gradient


def _doubling(a, h):
    time = h.shape[0]
    steps = ops.reshape(ops.arange(ops.shape(h)[0]), (-1, *[1] * (len(h.shape) - 1)))

    def double(stride, a, h):
        reached = steps >= stride
        earlier_h = ops.where(reached, ops.roll(h, stride, axis=0), ops.zeros_like(h))
        earlier_a = ops.where(reached, ops.roll(a, stride, axis=0), ops.ones_like(a))
        return 2 * stride, a * earlier_a, h + a * earlier_h

    if time is None:
        return ops.while_loop(lambda s, a, h: s < ops.shape(h)[0], double, (1, a, h))[2]
    stride = 1
    while stride < time:
        stride, a, h = double(stride, a, h)
    return h
