"""Parts that meet: layers in layers, and what each switch of a part does there."""

import keras
import numpy as np
import pytest
import structures
import tensorflow as tf
from cases import D
from conformance import assert_close
from structures import STRUCTURES, named

import keras_seq

BY_NAME = {s.name: s for s in STRUCTURES}
WITH_STATES = [s for s in STRUCTURES if s.make("float32").state_size]
pytestmark = pytest.mark.filterwarnings("ignore:.*receptive field")


def flat(results):
    return keras.tree.flatten(results)


# -- whether a call returns the states is said by its caller ---------------------------------------------------------------


@pytest.mark.parametrize(**named([s for s in WITH_STATES if s.name in ("Stacked-LSTM-GRU", "Bidirectional-LSTM")]))
def test_a_call_says_whether_it_returns_the_states(structure):
    check_return_state(structure())


@pytest.mark.deep
@pytest.mark.parametrize(**named(WITH_STATES))
def test_every_call_says_whether_it_returns_the_states(structure):
    check_return_state(structure())


def check_return_state(layer):
    """Eagerly, in a graph, compiled and symbolically; the outputs are the same, and the layer is what it was."""
    x, mask = (tf.constant(v) for v in structures.data())
    count, before = len(layer.state_size), layer.return_state
    outputs = len(flat(layer(x, mask=mask))) - count * before
    with_states = flat(layer(x, mask=mask, return_state=True))
    assert len(with_states) == outputs + count
    for asked in (True, False):
        expected = with_states if asked else with_states[:outputs]

        def call(x, mask, asked=asked):
            return layer(x, mask=mask, return_state=asked)

        for function in (call, tf.function(call), tf.function(call, jit_compile=True)):
            assert_close(flat(function(x, mask)), expected, 1e-10)
        symbolic = flat(layer(keras.Input((None, D), dtype="float64"), return_state=asked))
        assert [s.shape[1:] for s in symbolic if len(s.shape) == 2] == [
            e.shape[1:] for e in expected if len(e.shape) == 2
        ]
        assert [s.dtype for s in symbolic] == [e.dtype for e in expected]
    assert layer.return_state is before
    with pytest.raises(TypeError, match="return_state: expected True or False, got 1"):
        layer(x, return_state=1)


@pytest.mark.parametrize("name", ["LSTM", "Stacked", "Bidirectional"])
def test_a_functional_model_keeps_what_a_call_was_asked_for(name, tmp_path):
    layer = {
        "LSTM": lambda: keras_seq.LSTM(4),
        "Stacked": lambda: keras_seq.Stacked(keras_seq.LSTM, [4, 4]),
        "Bidirectional": lambda: keras_seq.Bidirectional(keras_seq.LSTM(4)),
    }[name]()
    inputs = keras.Input((None, D))
    masked = keras.layers.Masking()(inputs)
    outputs, *states = layer(masked, return_state=True)
    model = keras.Model(inputs, [outputs, *states, layer(masked)])
    model.save(tmp_path / "model.keras")
    x = structures.data(dtype="float32")[0]
    expected = model(x)
    assert_close([expected[-1]], [expected[0]], 0.0)
    assert_close(keras.models.load_model(tmp_path / "model.keras")(x), expected, 1e-6)


# -- cells of Keras --------------------------------------------------------------------------------------------------------


def cells_of_keras():
    several = [keras.layers.LSTMCell(4, dtype="float64"), keras.layers.GRUCell(3, dtype="float64")]
    return {
        "LSTMCell": keras.layers.LSTMCell(4, dtype="float64"),
        "GRUCell": keras.layers.GRUCell(4, dtype="float64"),
        "SimpleRNNCell": keras.layers.SimpleRNNCell(4, dtype="float64"),
        "StackedRNNCells": keras.layers.StackedRNNCells(several, dtype="float64"),
    }


@pytest.mark.parametrize("unroll", [False, True], ids=["loop", "unrolled"])
@pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", cells_of_keras())
def test_nothing_behind_a_mask_reaches_the_weights_of_a_cell_of_keras(name, go_backwards, unroll):
    flags = {"return_sequences": True, "return_state": True, "go_backwards": go_backwards, "unroll": unroll}
    layer = keras_seq.RNN(cells_of_keras()[name], dtype="float64", **flags)
    x, mask = structures.data()
    hidden = np.where(mask[..., None], x, np.nan)
    layer.build(x.shape)

    def gradients(x):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            found = layer(x, mask=tf.constant(mask))
            loss = sum(tf.reduce_sum(y * y) for y in found)
        return [*found, *tape.gradient(loss, [x, *[w.value for w in layer.trainable_variables]])]

    assert_close(gradients(hidden), gradients(x), 0.0)


@pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", cells_of_keras())
def test_an_unrolled_cell_of_keras_is_its_loop(name, go_backwards):
    cell = cells_of_keras()[name]
    flags = {"return_sequences": True, "return_state": True, "go_backwards": go_backwards, "dtype": "float64"}
    loop, unrolled = keras_seq.RNN(cell, **flags), keras_seq.RNN(cell, unroll=True, **flags)
    x, mask = structures.data()
    assert_close(unrolled(x, mask=mask), loop(x, mask=mask), 1e-12)
    short = [layer(x[2:3, mask[2]]) for layer in (loop, unrolled)]  # a row with holes and padding is what it is alone
    for found in short:
        assert_close(found[1:], [s[2:3] for s in loop(x, mask=mask)[1:]], 1e-12)


def test_states_of_several_cells_are_one_flat_list():
    """As those of a stack; given flat, or as Keras nests them."""
    layer = keras_seq.RNN(
        cells_of_keras()["StackedRNNCells"], return_sequences=True, return_state=True, dtype="float64"
    )
    x, mask = (tf.constant(v) for v in structures.data())
    assert layer.state_size == [4, 4, 3]
    outputs, *states = layer(x, mask=mask)
    assert [s.shape for s in states] == [(4, 4), (4, 4), (4, 3)]
    _, *states = layer(x[:, :4], mask=mask[:, :4])
    second, *last = layer(x[:, 4:], mask=mask[:, 4:], initial_state=states)
    assert_close(last, layer(x, mask=mask)[1:], 1e-12)
    nested = layer(x[:, 4:], mask=mask[:, 4:], initial_state=[states[:2], states[2]])
    assert_close(nested, [second, *last], 0.0)
    state = layer.initial_state(4)
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state, mask[:, t])
        assert_close([y], [outputs[:, t]], 1e-12)
    stacked = keras_seq.Stacked([layer, keras_seq.LSTM(3, return_sequences=True, dtype="float64")], dtype="float64")
    assert_close(flat(stacked(x, mask=mask)), flat(stacked.layers[1](layer(x, mask=mask)[0], mask=mask)), 1e-12)
