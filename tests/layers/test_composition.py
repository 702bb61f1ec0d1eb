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


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", [keras_seq.LSTM, keras_seq.Elman, keras_seq.MinGRU])
def test_no_rows_give_no_rows_and_no_gradient(kind, masked):
    layer, x = keras_seq.Bidirectional(kind(4, return_sequences=True)), tf.zeros((0, 5, D))
    with tf.GradientTape() as tape:
        y = layer(x, mask=tf.zeros((0, 5), "bool") if masked else None, training=True)
        loss = tf.reduce_sum(y)
    assert y.shape == (0, 5, 8)
    gradients = tape.gradient(loss, layer.trainable_variables)
    assert not any(np.any(g) for g in gradients)
    assert tf.function(layer)(x).shape == y.shape


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


# -- masks -----------------------------------------------------------------------------------------------------------------


AFTER = {
    "GRU": lambda: keras_seq.GRU(3, return_sequences=True, return_state=True),
    "Keras's GRU": lambda: keras.layers.GRU(3, return_sequences=True, return_state=True),
    "Bidirectional": lambda: keras_seq.Bidirectional(keras_seq.LSTM(3)),
    "TDNN": lambda: lambda x: keras_seq.LastStep()(keras_seq.TDNN(3, delays=2)(x)),
    "MaskedMean": keras_seq.MaskedMean,
    "backwards again": lambda: keras_seq.LSTM(3, go_backwards=True),
}


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize(
    "made",
    [
        lambda: keras_seq.LSTM(4, return_sequences=True, go_backwards=True),
        lambda: keras_seq.Jordan(4, 2, return_sequences=True, go_backwards=True, zero_output_for_mask=True),
        lambda: keras_seq.RNN(keras.layers.GRUCell(4), return_sequences=True, go_backwards=True),
    ],
    ids=["LSTM", "Jordan", "a cell of Keras"],
)
def test_what_follows_a_reversed_layer_reads_the_real_steps_alone(made, after):
    """Its mask is reversed as its outputs are: each row, whatever its padding and holes, is what it is alone."""
    inputs = keras.Input((None, D))
    reversed_ = made()(keras.layers.Masking()(inputs))
    outputs = flat(AFTER[after]()(reversed_))
    model = keras.Model(inputs, outputs)
    x, mask = structures.data(dtype="float32")
    found = model(np.where(mask[..., None], x, 0))
    for row in np.flatnonzero(mask.any(1)):
        alone = model(x[row, mask[row]][None])
        for y, expected in zip(flat(found), flat(alone), strict=True):
            y = y[row] if len(y.shape) == 2 else y.numpy()[row][mask[row][::-1]]
            assert_close([y], [expected[0]], 1e-6)


@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_masks_are_one_for_each_output(return_sequences, return_state):
    flags = {"return_sequences": return_sequences, "return_state": return_state}
    layers = [
        keras_seq.LSTM(3, **flags),
        keras_seq.LSTM(3, go_backwards=True, **flags),
        keras_seq.Stacked(keras_seq.LSTM, [3, 3], **flags),
        keras_seq.Bidirectional(keras_seq.LSTM(3, **flags)),
        keras_seq.Bidirectional(keras_seq.LSTM(3, **flags), merge_mode=None),
    ]
    x, mask = structures.data(dtype="float32")
    for layer in layers:
        outputs = flat(layer(x, mask=mask))
        masks = flat(layer.compute_mask(x, mask))
        assert len(masks) == len(outputs)
        expected = mask[:, ::-1] if getattr(layer, "go_backwards", False) else mask
        for y, m in zip(outputs, masks, strict=True):
            if len(y.shape) == 3:
                np.testing.assert_array_equal(m, expected)
                np.testing.assert_array_equal(keras.src.backend.get_keras_mask(y), expected)
            else:
                assert m is None


def test_directions_of_keras_over_our_layers():
    """Keras turns the backward half's outputs round by itself."""
    x, mask = structures.data(dtype="float32")
    theirs = keras.layers.Bidirectional(keras_seq.LSTM(3, return_sequences=True))
    ours = keras_seq.Bidirectional(keras_seq.LSTM(3, return_sequences=True, zero_output_for_mask=True))
    found = theirs(x, mask=mask)
    ours.build(x.shape)
    ours.set_weights(theirs.get_weights())
    assert_close([found], [ours(x, mask=mask)], 1e-6)
    np.testing.assert_array_equal(keras.src.backend.get_keras_mask(found), mask)


BESIDES = {
    "RNN": (lambda: keras_seq.GRU(4), {"initial_state": (4,)}),
    "a cell of Keras": (lambda: keras_seq.RNN(keras.layers.GRUCell(4)), {"initial_state": (4,)}),
    "Stacked": (lambda: keras_seq.Stacked(keras_seq.GRU, [4]), {"initial_state": (4,)}),
    "Bidirectional": (lambda: keras_seq.Bidirectional(keras_seq.GRU(4)), {"initial_state": [(4,), (4,)]}),
    "targets": (lambda: keras_seq.NARX(4, 1, output_delays=2), {"targets": (None, 1)}),
    "targets of AR": (lambda: keras_seq.AR(outputs=D, output_delays=2), {"targets": (None, D)}),
    "constants": (lambda: keras_seq.RNN(keras_seq.ConditionedCell(keras_seq.GRUCell(4))), {"constants": [(2,)]}),
    "constants of a stack": (
        lambda: keras_seq.Stacked([keras_seq.RNN(keras_seq.ConditionedCell(keras_seq.GRUCell(4)))]),
        {"constants": [(2,)]},
    ),
}


@pytest.mark.parametrize("name", BESIDES)
def test_the_mask_of_the_sequences_is_read_whatever_comes_with_them(name):
    """Keras fills in `mask` for one tensor only."""
    make, shapes = BESIDES[name]
    layer, rng = make(), np.random.default_rng(1)
    inputs = keras.Input((None, D))
    given = {k: [keras.Input(s) for s in v] if isinstance(v, list) else keras.Input(v) for k, v in shapes.items()}
    model = keras.Model([inputs, *flat(given)], layer(keras.layers.Masking()(inputs), **given))
    x, mask = structures.data(dtype="float32")
    x = np.where(mask[..., None], x, 0)
    values = [rng.normal(size=(len(x), *[len(x[0]) if n is None else n for n in s.shape[1:]])) for s in flat(given)]
    values = [v.astype("float32") for v in values]
    further = keras.tree.pack_sequence_as(given, values)
    found = model([x, *values])
    assert_close([found], [layer(x, mask=mask, **further)], 1e-6)
    assert np.abs(np.asarray(found) - np.asarray(layer(x, **further))).max() > 1e-3


ZEROS = {"zero_output_for_mask": True}
LAST = {
    "loop": lambda: keras_seq.LSTM(4, **ZEROS),
    "readout": lambda: keras_seq.SimpleRNN(4, outputs=2, **ZEROS),
    "blocked": lambda: keras_seq.Elman(4, outputs=2, **ZEROS),
    "backwards": lambda: keras_seq.GRU(4, go_backwards=True, **ZEROS),
    "truncate": lambda: keras_seq.LSTM(4, truncate=2, **ZEROS),
    "checkpoint": lambda: keras_seq.LSTM(4, checkpoint=True, go_backwards=True, **ZEROS),
    "together": lambda: keras_seq.ResidualRNN(4, recurrent=False, **ZEROS),
    "unroll": lambda: keras_seq.LSTM(4, unroll=True, **ZEROS),
    "a cell of Keras": lambda: keras_seq.RNN(keras.layers.LSTMCell(4), **ZEROS),
    "a cell of Keras, unrolled": lambda: keras_seq.RNN(
        keras.layers.GRUCell(4), unroll=True, go_backwards=True, **ZEROS
    ),
    "NARX": lambda: keras_seq.NARX(4, 2, closed=True, **ZEROS),
    "AR": lambda: keras_seq.AR(outputs=D, output_delays=2, **ZEROS),
    "TCN": lambda: keras_seq.TCN(4, dilations=[1, 2], activation="tanh", **ZEROS),
    "Bidirectional": lambda: keras_seq.Bidirectional(keras_seq.LSTM(4, **ZEROS)),
    "Stacked": lambda: keras_seq.Stacked([keras_seq.LSTM(4, return_sequences=True), keras_seq.LSTM(4, **ZEROS)]),
    **{
        f"Stacked, {skips}": lambda skips=skips: keras_seq.Stacked(
            [
                keras_seq.GRU(4, return_sequences=True, **ZEROS),
                keras_seq.Stacked(
                    [
                        keras_seq.LSTM(3, return_sequences=True, **ZEROS),
                        keras_seq.GRU(4, return_sequences=True, **ZEROS),
                    ]
                ),
                keras_seq.GRU(4, **ZEROS),
            ],
            skips=skips,
        )
        for skips in ("residual", "dense")
    },
}


@pytest.mark.parametrize("name", LAST)
def test_the_last_output_is_that_of_the_last_real_step(name):
    """Whatever zero_output_for_mask says of sequences; zeros for a row without a step; gradients too, step by step too."""
    layer = LAST[name]()
    x, mask = structures.data(dtype="float32")
    layer.build(x.shape)
    structures.randomised(layer)

    def gradient(x, mask):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, mask=mask, training=True)
            loss = tf.reduce_sum(y * y)
        return y, tape.gradient(loss, x)

    found, gradients = gradient(x, tf.constant(mask))
    rows = np.flatnonzero(mask.any(1))
    assert not mask[rows, -1].all()
    assert not mask[rows, 0].all()
    for row in rows:
        alone, of_alone = gradient(x[row, mask[row]][None], None)
        assert np.abs(alone).max() > 1e-3
        assert_close([found[row]], [alone[0]], 1e-5)
        if name != "truncate":  # which counts hidden steps too
            assert_close([gradients.numpy()[row, mask[row]]], [of_alone[0]], 1e-5)
    np.testing.assert_array_equal(found.numpy()[~mask.any(1)], 0.0)
    if not layer.not_stepwise:
        state = layer.initial_state(len(x))
        for t in range(x.shape[1]):
            y, state = layer.step(x[:, t], state, mask[:, t])
            assert_close([y], [layer(x[:, : t + 1], mask=mask[:, : t + 1])], 1e-5)


def test_a_warm_up_with_no_step_after_it_gives_the_last_known_step():
    layer = keras_seq.NARX(4, 1, output_delays=2, input_delays=2, closed=True, **ZEROS)
    x = np.random.default_rng(0).normal(size=(1, 6, D)).astype("float32")
    y = x[:, :3, :1]
    mask = np.array([[True, True, False, False, False, False]])
    assert_close([layer(x, targets=y, mask=mask)], [layer(x[:, :2], targets=y[:, :2])], 1e-6)


@pytest.mark.parametrize("flags", [{}, {"go_backwards": True}, {"unroll": True}], ids=str)
def test_internals_without_sequences_are_at_masked_steps_what_sequences_would_be(flags):
    layer = keras_seq.SimpleRNN(4, outputs=2, return_internals=True, **ZEROS, **flags)
    whole = keras_seq.RNN(layer.cell, return_internals=True, return_sequences=True, **ZEROS, **flags)
    x, mask = structures.data(dtype="float32")
    (last, internals), (outputs, expected) = (one(x, mask=mask) for one in (layer, whole))
    assert_close(flat(internals), flat(expected), 1e-6)
    real = mask[:, ::-1] if flags.get("go_backwards") else mask
    for row in range(len(x)):
        places = np.flatnonzero(real[row])
        assert_close([last[row]], [outputs[row, places[-1]] if len(places) else np.zeros(2)], 1e-6)


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
