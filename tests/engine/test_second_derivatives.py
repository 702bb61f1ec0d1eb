"""Gradients of gradients: as those of Keras's layers with the same weights."""

import conformance
import pytest
import tensorflow as tf
from conformance import CASES, GAPS, KERAS_TWINS, Case, assert_close, named

SEQUENCES = {"return_sequences": True, "return_state": True}


def penalised(layer):
    """A function to a gradient penalty and its gradients: of the inputs, the first state and all weights."""

    def penalty(*given):
        x, states = given[0], given[2]
        with tf.GradientTape() as outer:
            outer.watch([x, states])
            with tf.GradientTape() as inner:
                inner.watch([x, states])
                results = conformance.call(layer, conformance.Data(*given), training=True)
                loss = conformance.loss(results, given[-1])
            first = inner.gradient(loss, [x, *states, layer.trainable_variables[1].value])
            value = sum(tf.reduce_sum(g * g) for g in first)
        wanted = [x, *states, *[w.value for w in layer.trainable_variables]]
        return value, outer.gradient(value, wanted, unconnected_gradients="zero")

    return penalty


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(**named([c for c in KERAS_TWINS if "activation" not in c.arguments], quick=[Case("LSTM")]))
def test_gradient_penalty_equals_that_of_keras(case, masked):
    layer = case("float64", **SEQUENCES)
    twin = conformance.keras_twin(case, layer, "float64", **SEQUENCES)
    given = conformance.data(case, layer, mask=masked)
    expected = penalised(twin)(*given)
    assert_close(penalised(layer)(*given), expected, 1e-9, "eager")
    if case.layer == "LSTM":
        assert_close(tf.function(penalised(layer))(*given), expected, 1e-9, "graph")


PENALISED = [
    next(c for c in CASES if c.constants[1:]),
    Case("SimpleRNN", {"outputs": 2, "output_activation": "tanh"}),
    Case("Elman", {"outputs": 2}),
    Case("Jordan", {"outputs": 2, "blocked": False}, targets=True),
    Case("ResidualRNN", {"recurrent": False}),
    Case("MinGRU"),
    Case("LinearRNN", {"transition": "full"}),
    Case("LRU", {"outputs": 2}),
    Case("NARX", {**GAPS, "closed": True}),
    Case("NARX", GAPS, targets=True),
    Case("LSTM", {"peepholes": True, "normalize": True, "projection": 3}),
    Case("LSTM", {"full_gate_recurrence": True}),
]


@pytest.mark.parametrize(**named(PENALISED, quick=PENALISED[1:2]))
def test_gradient_penalty_equals_the_loop_written_out(case):
    layer, unrolled = case("float64", **SEQUENCES), case("float64", unroll=True, **SEQUENCES)
    given = conformance.data(case, layer)
    assert_close(penalised(layer)(*given), penalised(unrolled)(*given), 1e-9)


@pytest.mark.deep
def test_gradient_penalty_compiled():
    case = Case("LSTM")
    layer = case("float64", **SEQUENCES)
    given = conformance.data(case, layer)
    compiled = tf.function(penalised(layer), jit_compile=True)
    assert_close(compiled(*given), penalised(layer)(*given), 1e-9)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_jacobian_equals_that_of_keras(graph):
    """All rows at once, by the vectorised backward loop."""
    case = Case("LSTM")
    layer = case("float64", return_sequences=True)
    twin = conformance.keras_twin(case, layer, "float64", return_sequences=True)
    x = conformance.data(case, layer).x

    def jacobian(memory):
        def function(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = memory(x, training=True)
            return tape.batch_jacobian(y, x)

        return tf.function(function) if graph else function

    assert_close([jacobian(layer)(x)], [jacobian(twin)(x)], 1e-10)


@pytest.mark.deep
@pytest.mark.parametrize(
    **named(
        [
            Case("Elman", {"outputs": 2}),
            Case("Jordan", {"outputs": 2, "blocked": False}, targets=True),
            Case("ResidualRNN", {"recurrent": False}),
            Case("NARX", {**GAPS, "closed": True}),
        ]
    )
)
def test_jacobian_equals_the_loop_written_out(case):
    layer, unrolled = case("float64", return_sequences=True), case("float64", return_sequences=True, unroll=True)
    given = conformance.data(case, layer)

    def jacobian(memory):
        with tf.GradientTape() as tape:
            tape.watch(given.x)
            (y,) = conformance.call(memory, given, training=True)
        return tape.batch_jacobian(y, given.x)

    assert_close([jacobian(layer)], [jacobian(unrolled)], 1e-10)
