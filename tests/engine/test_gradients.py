"""Gradients of every memory: finite differences, and the same from every way to run the same thing."""

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import CASES, GAPS, KINDS, QUICK, Case, Data, assert_close, differentiated, named

import keras_seq
from keras_seq.engine.tensorflow import probe

SEQUENCES = {"return_sequences": True, "return_state": True}
VARIANTS = [
    {"masked": False, "go_backwards": True},
    {"go_backwards": True, "zero_output_for_mask": True},
    {"return_sequences": False},
    {"masked": False, "return_sequences": False, "return_state": False},
]


@pytest.mark.parametrize(**named([c for c in CASES if c.blocked], quick=QUICK))
def test_finite_differences_where_no_gradient_passes(case):
    """Of nets with one step of history; all other cells are held to finite differences by `test_conformance`."""
    conformance.check_finite_differences(case, directions=2)


@pytest.mark.parametrize("flags", VARIANTS, ids=str)
@pytest.mark.parametrize(**named(KINDS[::2], quick=[Case("LSTM")]))
def test_finite_differences_with_flags(case, flags):
    conformance.check_finite_differences(case, directions=1, **flags)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_when_the_forward_pass_kept_nothing(dtype, jit):
    """A gradient of `training=False` runs the loop again."""
    case = Case("GRU", {"reset_after": False})
    layer = case(dtype, **SEQUENCES)
    given = conformance.data(case, layer)
    compiled = tf.function(differentiated(layer, training=False), jit_compile=jit)
    assert_close(compiled(*given), differentiated(layer)(*given), conformance.tolerance(dtype))


@pytest.mark.parametrize(**named(KINDS[::2], quick=[Case("SimpleRNN")]))
def test_one_graph_serves_all_sizes(case):
    """Unknown batch and time, down to one row and one step, from one trace."""
    layer = case("float64", **SEQUENCES)
    eager = differentiated(layer)
    sizes = [(4, 5), (1, 1), (2, 7)]
    examples = [conformance.data(case, layer, b, t, seed=b + t) for b, t in sizes]
    traces = []

    def masked(x, mask, *rest):
        traces.append(1)
        return eager(x, mask, *rest)

    def plain(x, mask, *rest):
        return masked(x, None, *rest)

    for function in (masked, plain) if case.layer == "LSTM" else (masked,):
        graph = conformance.of_any_size(function, case, examples[0])
        found = [graph(*given) for given in examples]
        assert len(traces) == 1
        for given, results in zip(examples, found, strict=True):
            assert_close(results, function(*given), 1e-11, f"b, t = {given.x.shape[:2]}")
        traces.clear()


COMPILED = [
    Case("PeepholeLSTM"),
    Case("Elman", {"outputs": 2}),
    Case("Jordan", {"outputs": 2, "blocked": False}, targets=True),
    Case("NARX", GAPS, targets=True),
    next(c for c in KINDS if c.constants[1:]),
]


@pytest.mark.parametrize(**named(COMPILED, quick=COMPILED[:1]))
def test_one_trace_serves_all_sizes_compiled(case):
    layer = case("float64", **SEQUENCES)
    traces = []

    @tf.function(jit_compile=True, reduce_retracing=True)
    def compiled(x, constants, targets):
        traces.append(1)
        results = conformance.call(layer, Data(x, constants=constants, targets=targets), training=True)
        return results, tf.gradients(sum(tf.reduce_sum(r * r) for r in results), [x, *layer.trainable_variables])

    for b, t in [(4, 5), (2, 3), (1, 1)]:
        given = conformance.data(case, layer, b, t)
        with tf.GradientTape() as tape:
            tape.watch(given.x)
            results = conformance.call(layer, Data(given.x, constants=given.constants, targets=given.targets))
            loss = sum(tf.reduce_sum(r * r) for r in results)
        gradients = tape.gradient(loss, [given.x, *layer.trainable_variables])
        assert_close(compiled(given.x, given.constants, given.targets), (results, gradients), 1e-11, f"b, t = {b, t}")
    assert len(traces) <= 2


@pytest.mark.parametrize(**named([c for c in KINDS if not c.constants and not c.targets], quick=KINDS[:1]))
def test_equal_to_the_keras_layer_over_the_same_cell(case):
    layer = case("float64", **SEQUENCES)
    given = conformance.data(case, layer)
    # Keras has the first state repeat or, with a mask, the last output; both loops see finite inputs
    other = keras.layers.RNN(layer.cell, dtype="float64", **SEQUENCES)
    assert_close(differentiated(layer)(*given), differentiated(other)(*given), 1e-10)


def test_runs_on_the_engine_not_on_the_loop_of_keras(monkeypatch):
    def forbidden(*args, **kwargs):
        raise RuntimeError("the loop of Keras was called")

    monkeypatch.setattr(keras.layers.RNN, "inner_loop", forbidden)
    for case in CASES:
        layer = case()
        given = conformance.data(case, layer)
        results = conformance.call(layer, given, training=True)
        assert all(np.isfinite(r).all() for r in results)


@pytest.mark.parametrize(
    **named([Case("LSTM"), Case("Jordan", {"outputs": 2}), Case("NARX", GAPS, targets=True)]),
)
def test_only_what_is_asked_for_gets_a_gradient(case):
    """One argument alone, and final states alone: no tensor is taken for another."""
    layer = case("float64", **SEQUENCES)
    given = conformance.data(case, layer)
    weight = conformance.argument_names(layer, given).index(conformance.weight_name(layer.cell.recurrent_kernel))
    everything = []
    for i in range(len(given.cotangents)):
        cotangents = tuple(c if i == j else 0 * c for j, c in enumerate(given.cotangents))
        everything.append(differentiated(layer)(*given._replace(cotangents=cotangents))[1])
        with tf.GradientTape() as tape:
            result = conformance.call(layer, given)[i]
        wanted = [layer.cell.recurrent_kernel.value]
        alone = tape.gradient(result, wanted, output_gradients=given.cotangents[i], unconnected_gradients="zero")
        assert_close(alone, [everything[i][weight]], 1e-12)
    total = [sum(parts) for parts in zip(*everything, strict=True)]
    assert_close(differentiated(layer)(*given)[1], total, 1e-12)
    assert all(np.max(np.abs(g)) > 0 for g in total)


@pytest.mark.parametrize("compiled", [None, False, True], ids=["eager", "graph", "jit"])
@pytest.mark.parametrize(**named([c for c in CASES if c.blocked and (c in KINDS or c.cell)]))
def test_no_gradient_passes_a_blocked_context(case, compiled):
    for flags in ({}, {"go_backwards": True}):
        conformance.check_no_gradient_passes(case, compiled, **flags)


def test_a_gradient_passes_the_context_that_is_not_blocked():
    """The control of the test above."""
    for case in (Case("Elman", {"blocked": False}), Case("Jordan", {"outputs": 2, "blocked": False})):
        layer = case("float64")
        given = conformance.data(case, layer, mask=False)
        gradients = differentiated(layer)(*given)[1]
        assert np.all(np.any(gradients[0].numpy() != 0, axis=-1))
        assert np.all(gradients[1].numpy() != 0)


def test_blocked_weights_learn_from_every_step():
    """The gradient is the sum over steps of nets with one step of history, built of plain operations."""
    case = Case("Elman", {"outputs": 2})
    layer = case("float64", return_sequences=True)
    given = conformance.data(case, layer, mask=False)
    cell = layer.cell
    contexts = tf.constant(conformance.oracle(layer, given).contexts[0])
    weights = [cell.kernel, cell.recurrent_kernel, cell.bias, cell.output_kernel, cell.output_bias]
    with tf.GradientTape() as tape:
        x, c = (tf.reshape(v, (-1, v.shape[-1])) for v in (given.x, contexts))
        h = tf.tanh(x @ cell.kernel + c @ cell.recurrent_kernel + cell.bias)
        y = tf.reshape(h @ cell.output_kernel + cell.output_bias, given.cotangents[0].shape)
        loss = tf.reduce_sum(y * given.cotangents[0])
    expected = dict(
        zip(map(conformance.weight_name, weights), tape.gradient(loss, [w.value for w in weights]), strict=True)
    )
    found = dict(zip(conformance.argument_names(layer, given), differentiated(layer)(*given)[1], strict=True))
    assert_close([found[path] for path in expected], list(expected.values()), 1e-12)


def test_frozen_layer_still_passes_gradients_on():
    case = Case("GRU")
    layer = case("float64")
    given = conformance.data(case, layer)
    free = differentiated(layer)(*given)[1][0]
    layer.trainable = False
    _, gradients = differentiated(layer)(*given)
    assert len(gradients) == 1 + len(given.states)
    assert_close([gradients[0]], [free], 1e-12)


class Returner(keras_seq.GatedCell):
    """Adds a product to its projection, and also returns one of the two, or projects to the same tensor twice."""

    def __init__(self, units, what, **arguments):
        super().__init__(units, **arguments)
        self.what = what

    def project(self, inputs):
        projected = super().project(inputs)
        return (projected, projected) if self.what == "twice" else projected

    def step(self, projected, states, constants=()):
        part = projected[0] if self.what == "twice" else projected
        result = keras_seq.dot(states[0], self.recurrent_kernel)
        h = self.activation(part + result)
        return {"projection": part, "product": result, "twice": h}[self.what], (h,)


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("what", ["projection", "product", "twice"])
def test_equal_where_a_step_returns_what_it_adds(what, go_backwards):
    case = Case("SimpleRNN")
    layer = keras_seq.RNN(Returner(conformance.U, what, dtype="float64"), dtype="float64", **SEQUENCES)
    layer.go_backwards = go_backwards
    layer.build((None, None, conformance.D))
    conformance.randomised(layer)
    given = conformance.data(case, layer, mask=False)
    eager = differentiated(layer)(*given)
    assert_close(tf.function(differentiated(layer))(*given), eager, 1e-12)
    layer.unroll = True
    assert_close(eager, differentiated(layer)(*given), 1e-10)


@pytest.mark.parametrize(("name", "merges"), [("SimpleRNN", 1), ("LSTM", 1), ("PeepholeLSTM", 1), ("GRU", 0)])
def test_the_sum_alone_is_kept_where_it_can_be(name, merges, monkeypatch):
    found, fused_dots = [], probe.fused_dots
    monkeypatch.setattr(probe, "fused_dots", lambda *given: found.append(fused_dots(*given)) or found[-1])
    layer = Case(name)()
    given = conformance.data(Case(name), layer)
    tf.function(differentiated(layer))(*given)
    assert {sum(part is not None for part in f) for f in found} == {merges}
