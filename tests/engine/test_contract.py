"""What any engine owes: `scan` of every backend, held to a loop in NumPy, its gradients to those of a loop written out.

A backend is one entry of `ENGINES`: its name, its `scan`, and how a gradient is taken there.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_seq.engine import dot, linear_recurrence
from keras_seq.engine.tensorflow import scan
from keras_seq.testing.differences import assert_close

B, T, D, U = 3, 7, 2, 4
MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0]], bool)


def gradients_of_tensorflow(function, given):
    given = [tf.constant(x) for x in given]
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = function(*given)
    return tape.gradient(value, given, unconnected_gradients="zero")


ENGINES = {"tensorflow": (scan, gradients_of_tensorflow)}
BY_BACKEND = [ENGINES[keras.config.backend()]]


def project(weights, inputs):
    """Two parts, one of them of the mask of another input."""
    kernel, *_ = weights
    return {"sums": ops.matmul(inputs["x"], kernel), "scale": inputs["scale"]}


def step(weights, projected, states, constants):
    """A product that is only added, one of a computed argument, both by slices; weights and constants element by element."""
    _, recurrent, gains = weights
    (h, c), (context,) = states, constants
    inner, outer = ops.split(projected["sums"], 2, axis=-1)
    c = 0.5 * c + ops.tanh(inner + dot(h, recurrent[:, :U]) + gains * c)
    h = ops.tanh(outer + dot(projected["scale"] * c, recurrent[:, U:]) + context)
    return {"h": h, "both": ops.concatenate([h, c], axis=-1)}, (h, c)


def numbers(seed):
    rng = np.random.default_rng(seed)
    shapes = [(B, T, D), (B, T, U), (B, U), (B, U), (B, U), (D, 2 * U), (U, 2 * U), (U,)]
    return [rng.normal(size=s) for s in shapes]


def run(scan, given, mask=None, **flags):
    x, scale, h, c, context, kernel, recurrent, gains = given
    outputs, states = scan(
        project, step, {"x": x, "scale": scale}, (h, c), (context,), (kernel, recurrent, gains), mask, **flags
    )
    return [outputs["h"], outputs["both"], *states]


def written_out(given, mask=None, go_backwards=False, return_sequences=True, zero_output_for_mask=False, truncate=None):
    """The same with `step` called in a Python loop, where each `dot` is a product."""
    x, scale, h, c, context, *weights = given
    states, found, last = (h, c), [], None
    for n, t in enumerate(range(T - 1, -1, -1) if go_backwards else range(T)):
        shown = np.ones((B, 1), bool) if mask is None else mask[:, t : t + 1]
        if truncate and n % truncate == 0 and n:
            states = tuple(ops.stop_gradient(s) for s in states)
        inputs = {"x": ops.where(shown, x[:, t], 0.0), "scale": ops.where(shown, scale[:, t], 0.0)}
        outputs, new = step(weights, project(weights, inputs), states, (context,))
        last = {k: ops.zeros_like(v) for k, v in outputs.items()} if last is None else last
        states = tuple(ops.where(shown, a, b) for a, b in zip(new, states, strict=True))
        last = {k: ops.where(shown, v, last[k]) for k, v in outputs.items()}
        zero = zero_output_for_mask and return_sequences
        found.append({k: ops.where(shown, v, 0.0) if zero else v for k, v in last.items()})
    if not return_sequences:
        return [last["h"], last["both"], *states]
    return [*(ops.stack([f[k] for f in found], axis=1) for k in ("h", "both")), *states]


def weighted(results):
    """A loss that no two results have alike."""
    return sum(ops.sum(ops.sin(r * (i + 1.5))) for i, r in enumerate(results))


FLAGS = [
    {},
    {"go_backwards": True},
    {"return_sequences": False},
    {"return_sequences": False, "go_backwards": True},
    {"zero_output_for_mask": True},
    {"truncate": 3},
]
WAYS = [{}, {"independent_rows": True}, {"save_residuals": False}, {"checkpoint": True}]


@pytest.mark.parametrize(("scan", "gradients"), BY_BACKEND, ids=[keras.config.backend()])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_values_and_gradients(flags, way, masked, scan, gradients):
    mask, given = MASK if masked else None, numbers(1)
    if flags.get("truncate") and way.get("checkpoint"):
        pytest.skip("one cuts into chunks as the other does")
    expected = written_out([ops.convert_to_tensor(x) for x in given], mask, **flags)
    assert_close(run(scan, given, mask, **flags, **way), expected, 1e-11)
    found = gradients(lambda *x: weighted(run(scan, x, mask, **flags, **way)), given)
    assert_close(found, gradients(lambda *x: weighted(written_out(x, mask, **flags)), given), 1e-10)


@pytest.mark.parametrize(("scan", "gradients"), BY_BACKEND, ids=[keras.config.backend()])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_detached_states_are_read_and_not_differentiated(masked, scan, gradients):
    """Each step's gradient is that of a net whose states are given numbers."""
    mask, given = MASK if masked else None, numbers(2)

    def detached(weights, projected, states, constants):
        return step(weights, projected, [ops.stop_gradient(s) for s in states], constants)

    def plainly(*given):
        x, scale, h, c, context, *weights = given
        inputs = {"x": x, "scale": scale}
        outputs, states = scan(project, detached, inputs, (h, c), (context,), weights, mask)
        return weighted([outputs["h"], outputs["both"], *states])

    found = gradients(lambda *x: weighted(run(scan, x, mask, detach_states=True)), given)
    assert_close(found, gradients(plainly, given), 1e-11)


@pytest.mark.parametrize(("scan", "gradients"), BY_BACKEND, ids=[keras.config.backend()])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_states_that_are_known_without_the_loop(masked, backwards, scan, gradients):
    """A running mean: all steps at once give what the loop gives."""
    mask, (x, *_) = MASK if masked else None, numbers(3)
    start, kernel = np.random.default_rng(4).normal(size=(B, U)), np.random.default_rng(5).normal(size=(D, U))

    def project(weights, inputs):
        return ops.matmul(inputs, weights[0])

    def mean(weights, projected, states, constants):
        m = 0.5 * states[0] + projected
        return ops.tanh(m), (m,)

    def before(weights, projected, states):
        after = linear_recurrence(0.5, projected, states[0])
        return [ops.concatenate([states[0][None], after[:-1]], axis=0)]

    def loss(known):
        def function(x, start, kernel):
            flags = {"states_before": before} if known else {}
            outputs, states = scan(project, mean, x, (start,), (), (kernel,), mask, go_backwards=backwards, **flags)
            return weighted([outputs, *states])

        return function

    given = [x, start, kernel]
    assert_close([loss(True)(*given)], [loss(False)(*given)], 1e-11)
    assert_close(gradients(loss(True), given), gradients(loss(False), given), 1e-11)


@pytest.mark.parametrize(("scan", "gradients"), BY_BACKEND, ids=[keras.config.backend()])
def test_what_is_behind_a_mask_reaches_nothing(scan, gradients):
    given = numbers(6)
    poisoned = [np.where(MASK[:, :, None], x, np.nan) if x.shape[:2] == (B, T) else x for x in given]
    clean = [np.where(MASK[:, :, None], x, 0.0) if x.shape[:2] == (B, T) else x for x in given]
    assert_close(run(scan, poisoned, MASK), run(scan, clean, MASK), 0)
    found = gradients(lambda *x: weighted(run(scan, x, MASK)), poisoned)
    assert all(np.all(np.isfinite(g)) for g in found)


@pytest.mark.parametrize(("scan", "gradients"), BY_BACKEND, ids=[keras.config.backend()])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda h: (h[:, :2],), r"step: expected new states like the old ones, \['\(3, 4\) float64'\], got"),
        (lambda h: (h, h), "step: expected new states like the old ones"),
        (lambda h: (ops.cast(h, "float32"),), "step: expected new states like the old ones"),
    ],
)
def test_states_of_another_form_are_refused(wrong, message, scan, gradients):
    x, _, h, *_ = numbers(7)

    def step(weights, projected, states, constants):
        return states[0], wrong(states[0])

    with pytest.raises(ValueError, match=message):
        scan(lambda weights, inputs: inputs, step, x, (h,))


@pytest.mark.parametrize(("scan", "gradients"), BY_BACKEND, ids=[keras.config.backend()])
def test_weights_that_are_no_numbers_are_refused(scan, gradients):
    x, _, h, *_ = numbers(8)
    with pytest.raises(TypeError, match="weights: expected tensors of real or complex numbers, got"):
        scan(lambda weights, inputs: inputs, lambda w, p, s, c: (s[0], s), x, (h,), (), (np.ones(3, "int32"),))
