"""The derivatives of one step, for every kind of cell: those of automatic differentiation through the step as it stands."""

import conformance
import numpy as np
import pytest
import tensorflow as tf
from conformance import KINDS, Case, assert_close, named

from keras_seq.cells.functional import functions_of
from keras_seq.engine import intercept_dot
from keras_seq.engine.tensorflow import step_jacobian, step_jvp, step_vjp
from keras_seq.engine.tensorflow.arrays import outer, product
from keras_seq.engine.tensorflow.step import Residuals, run_step

ROWS = 3


class OneStep:
    """A step of a case's cell, with random weights and all that it reads."""

    def __init__(self, case):
        layer = case("float64")
        given = conformance.data(case, layer, b=ROWS, t=2, mask=False)
        self.cell = layer.cell
        functions = functions_of(self.cell)
        self.step = functions.step
        self.weights = [tf.convert_to_tensor(v) for v in functions.variables]
        inputs = {"inputs": given.x[:, 0]}
        if given.targets is not None:
            inputs["targets"] = given.targets[:, 0]
        self.projected = functions.project(self.weights, inputs)
        self.states = list(given.states)
        self.constants = list(self.cell.run_prepare(list(given.constants)))
        self.given = self.step, self.weights, self.projected, self.states, self.constants

    def taken(self):
        """`(results, flat, kernels, arguments and results of its dots)`."""
        dots = []

        def record(x, kernel):
            dots.append((tf.convert_to_tensor(kernel), x, product(x, tf.convert_to_tensor(kernel))))
            return dots[-1][2]

        with intercept_dot(record):
            output, new = run_step(*self.given)
        return [*tf.nest.flatten(output), *new], dots


def random_like(tensors, seed):
    rng = np.random.default_rng(seed)
    return [tf.constant(rng.normal(size=x.shape)) for x in tensors]


def every_kind(function):
    return pytest.mark.parametrize(**named(KINDS, quick=[Case("LSTM"), Case("GRU", {"reset_after": False})]))(function)


@every_kind
def test_vjp_is_that_of_autodiff(case):
    one = OneStep(case)
    parts = tf.nest.flatten(one.projected)
    sources = [*one.states, *parts, *one.weights]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        results, _ = one.taken()
    cotangents = random_like(results, seed=1)
    expected = tape.gradient(results, sources, output_gradients=cotangents)
    _, dots = one.taken()
    residuals = Residuals(one.projected, tuple(one.states), [result for *_, result in dots])
    transposed = [tf.transpose(kernel) for kernel, *_ in dots]
    found = step_vjp(one.step, one.weights, residuals, one.constants, transposed, cotangents)
    n, m = len(one.states), len(one.states) + len(parts)

    def zeros(gradients, of):
        return [tf.zeros_like(x) if g is None else g for g, x in zip(gradients, of, strict=True)]

    assert_close(found.states, zeros(expected[:n], one.states), 1e-11)
    assert_close(found.projected, zeros(expected[n:m], parts), 1e-11)
    # the kernels' gradients from what the dots multiplied, pulled back to the weights that the kernels are made of
    with tf.GradientTape() as tape:
        tape.watch(one.weights)
        _, again = one.taken()
        kernels = [kernel for kernel, *_ in again]
    multiplied = [one.states[x] if isinstance(x, int) else x for x in found.arguments]
    dkernels = [outer(x, delta, x.dtype) for x, delta in zip(multiplied, found.dots, strict=True)]
    by_dots = tape.gradient(kernels, one.weights, output_gradients=dkernels) if kernels else [None] * len(one.weights)
    total = [a + b for a, b in zip(zeros(by_dots, one.weights), zeros(found.weights, one.weights), strict=True)]
    assert_close(total, zeros(expected[m:], one.weights), 1e-11)


@every_kind
def test_jvp_and_vjp_are_adjoint(case):
    """<c, J t> = <J^T c, t> for the states, the projected input and the weights."""
    one = OneStep(case)
    with tf.GradientTape() as tape:
        sources = {"weights": one.weights, "projected": one.projected, "states": one.states}
        tape.watch(sources)
        results = tf.nest.flatten(run_step(*one.given))
    tangents = {
        name: tf.nest.pack_sequence_as(x, random_like(tf.nest.flatten(x), seed=i))
        for i, (name, x) in enumerate(sources.items())
    }
    cotangents = random_like(results, seed=7)
    backward = tape.gradient(results, sources, output_gradients=cotangents, unconnected_gradients="zero")
    value, change = step_jvp(*one.given, tangents)
    assert_close(tf.nest.flatten(value), results, 1e-12)

    def inner(a, b):
        return sum(tf.reduce_sum(x * y) for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True))

    assert_close([inner(cotangents, change)], [inner(backward, tangents)], 1e-9)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@every_kind
def test_jacobian_is_that_of_each_row(case, graph):
    one = OneStep(case)
    if case.constants and not one.cell.batched_constants:
        pytest.skip("its rows share a constant")
    widths = [s.shape[-1] for s in one.states]
    expected = np.zeros((ROWS, sum(widths), sum(widths)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(one.states)
        _, new = run_step(*one.given)
    starts = np.cumsum([0, *widths])
    for i, n in enumerate(new):
        for j, s in enumerate(one.states):
            block = tape.batch_jacobian(n, s)
            if block is not None:
                expected[:, starts[i] : starts[i + 1], starts[j] : starts[j + 1]] = block
    jacobian = tf.function(lambda: step_jacobian(*one.given)) if graph else lambda: step_jacobian(*one.given)
    after, found = jacobian()
    assert_close([*after, found], [*new, tf.constant(expected)], 1e-11)


def test_a_step_from_its_functions_is_that_of_the_cell():
    one = OneStep(Case("PeepholeLSTM"))
    output, new = run_step(*one.given)
    expected, states = one.cell.run_step(one.projected["inputs"], one.states)
    assert_close([output["output"], *new], [expected, *states], 0)
    changed = [1.5 * w for w in one.weights]
    output, _ = run_step(one.step, changed, *one.given[2:])
    assert np.max(np.abs(output["output"] - expected)) > 1e-3, "the step is one of the weights that it is given"
