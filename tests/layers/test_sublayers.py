"""Every layer made of layers with every kind of part: it is what its parts are one after the other, or it says no by name."""

import contextlib
import inspect
import json
import tempfile

import keras
import numpy as np
import pytest
import structures
import tensorflow as tf
from cases import D, randomised
from conformance import assert_close
from structures import STEPS, reference

import keras_seq
from keras_seq import GRU, LSTM, RNN, TCN, TDNN, Bidirectional, LastStep, MaskedMean, Stacked, WaveNet

pytestmark = pytest.mark.filterwarnings("ignore:.*receptive field", "ignore:.*does not support masking")
U = D  # so that a skip can join any two


def memory(kind, *arguments, **named):
    return lambda dtype: kind(*arguments, dtype=dtype, **{"return_sequences": True, **named})


def of_keras(*names, **arguments):
    def made(dtype):
        cells = [getattr(keras.layers, name)(U, dtype=dtype, **arguments) for name in names]
        return RNN(cells if len(cells) > 1 else cells[0], return_sequences=True, dtype=dtype)

    return made


def directions(half, **arguments):
    return lambda dtype: Bidirectional(half(dtype), dtype=dtype, **arguments)


def stack(*parts, **arguments):
    return lambda dtype: Stacked([part(dtype) for part in parts], dtype=dtype, **arguments)


def around(cell):
    return lambda dtype: RNN(cell(dtype), return_sequences=True, dtype=dtype)


gru = memory(GRU, U)
PARTS = {
    "plain": memory(LSTM, U),
    "return_state": memory(LSTM, U, return_state=True),
    "last": memory(LSTM, U, return_sequences=False),
    "stateful": memory(LSTM, U, stateful=True),
    "go_backwards": memory(LSTM, U, go_backwards=True),
    "zero_output_for_mask": memory(LSTM, U, zero_output_for_mask=True),
    "last, zero_output_for_mask": memory(LSTM, U, return_sequences=False, zero_output_for_mask=True),
    "unroll": memory(LSTM, U, unroll=True),
    "truncate": memory(LSTM, U, truncate=2),
    "checkpoint": memory(LSTM, U, checkpoint=True),
    "solver": memory(LSTM, U, solver="newton"),
    "dropout": memory(LSTM, U, dropout=0.2, recurrent_dropout=0.3),
    "zoneout": memory(LSTM, U, zoneout=0.2),
    "learn_initial_state": memory(LSTM, U, learn_initial_state=True),
    "return_internals": memory(LSTM, U, return_internals=True),
    "activity_regularizer": memory(LSTM, U, activity_regularizer="l2"),
    "conditioned": around(lambda dtype: keras_seq.ConditionedCell(keras_seq.GRUCell(U, dtype=dtype), dtype=dtype)),
    "attention": around(lambda dtype: keras_seq.AttentionCell(keras_seq.GRUCell(U, dtype=dtype), dtype=dtype)),
    "Jordan": memory(keras_seq.Jordan, U, U),
    "Elman": memory(keras_seq.Elman, U, outputs=U),
    "ResidualRNN": memory(keras_seq.ResidualRNN, U, recurrent=False),
    "NARX": memory(keras_seq.NARX, U, U, output_delays=2),
    "NARX, closed": memory(keras_seq.NARX, U, U, output_delays=2, closed=True),
    "AR": memory(keras_seq.AR, outputs=U, output_delays=2),
    "AR, wider": memory(keras_seq.AR, outputs=U + 1, output_delays=2),
    "cell of Keras": of_keras("LSTMCell"),
    "cell of Keras, dropout": of_keras("GRUCell", dropout=0.2, recurrent_dropout=0.2),
    "cells of Keras": of_keras("LSTMCell", "GRUCell"),
    "layer of Keras": lambda dtype: keras.layers.LSTM(U, return_sequences=True, dtype=dtype),
    "pointwise layer of Keras": lambda dtype: keras.layers.Dense(U, dtype=dtype),
    "Stacked": stack(gru, gru),
    "Stacked, return_state": stack(gru, gru, return_state=True),
    "Stacked, residual": stack(gru, gru, skips="residual"),
    "Stacked, dense": stack(memory(GRU, 1), memory(GRU, U - 1), skips="dense"),
    "Stacked, last": stack(gru, memory(LSTM, U, return_sequences=False)),
    "Bidirectional": directions(gru, merge_mode="sum"),
    "Bidirectional, return_state": directions(memory(LSTM, U, return_state=True), merge_mode="mul"),
    "Bidirectional, stateful": directions(memory(GRU, U, stateful=True), merge_mode="ave"),
    "Bidirectional, last": directions(memory(GRU, U, return_sequences=False), merge_mode="sum"),
    "Bidirectional, pair": directions(gru, merge_mode=None),
    "TDNN": lambda dtype: TDNN(U, delays=3, dtype=dtype),
    "TDNN, ahead": lambda dtype: TDNN(U, context=[-1, 0, 1], zero_output_for_mask=True, dtype=dtype),
    "TDNN, subsampling": lambda dtype: TDNN(U, delays=2, subsampling=2, dtype=dtype),
    "TCN": memory(TCN, U, dilations=[1, 2], activation="tanh"),
    "TCN, last": memory(TCN, U, dilations=[1], activation="tanh", return_sequences=False),
    "WaveNet": lambda dtype: WaveNet(U, dilations=[1, 2], dtype=dtype),
    "LastStep": lambda dtype: LastStep(dtype=dtype),
    "MaskedMean": lambda dtype: MaskedMean(dtype=dtype),
}
WHOLES = {
    "alone": lambda part: part,
    "below": lambda part: stack(part, gru),
    "below, residual": lambda part: stack(part, memory(GRU, U, return_sequences=False), skips="residual"),
    "above, dense": lambda part: stack(gru, part, skips="dense", return_state=True),
    "both ways": directions,
    "backwards": lambda part: (
        lambda dtype: Bidirectional(
            LSTM(U, return_sequences=True, dtype=dtype), backward_layer=part(dtype), merge_mode="sum", dtype=dtype
        )
    ),
    "a stack of both ways": lambda part: stack(directions(part, merge_mode="sum"), gru),
    "both ways of a stack": lambda part: directions(stack(part, gru, return_state=True)),
    "a stack of a stack": lambda part: stack(gru, stack(part, gru, return_state=True)),
}
STACKS = ("below", "below, residual", "a stack of a stack", "both ways of a stack")
LOWER = {
    "last",
    "last, zero_output_for_mask",
    "Stacked, last",
    "Bidirectional, last",
    "TCN, last",
    "LastStep",
    "MaskedMean",
}
FOREIGN = {"layer of Keras", "pointwise layer of Keras"}


def refused(whole, part):
    """What a whole says of a part that it cannot have; None where it is right."""
    name = {"both ways": "layer", "a stack of both ways": "layer", "backwards": "backward_layer"}.get(
        whole, r"layers\[\d\]"
    )
    halves = name.endswith("layer")
    if whole == "alone":
        return None
    if part in FOREIGN:
        return f"{name}: expected a sequence layer of keras_seq, got"
    if part == "return_internals":
        return f"{name}: expected a layer with return_internals=False, got lstm"
    if part == "Bidirectional, pair":
        return f"{name}: expected a layer with one output, got bidirectional.* with merge_mode=None"
    if part == "NARX":
        return f"{name}: expected a layer that reads its inputs alone, got narx.*, which needs targets"
    if part == "go_backwards" and whole != "backwards":
        return f"{name}: expected (a layer|one) that reads forwards, got lstm"
    if part in ("conditioned", "attention") and (halves or whole == "both ways of a stack"):
        return "(layer|backward_layer): expected a layer that reads no constants, got"
    if part in LOWER and whole in STACKS:
        return f"{name}: expected return_sequences=True below the last layer, got .* without"
    if part in LOWER and whole == "backwards":
        return "backward_layer: expected return_sequences=True like the layer's, got False"
    if part in LOWER and whole == "a stack of both ways":
        return r"layers\[0\]: expected return_sequences=True below the last layer, got bidirectional.* without"
    if part in ("stateful", "Bidirectional, stateful") and whole == "backwards":
        return "backward_layer: expected one that is not stateful, got"
    if part.endswith("return_state") and whole == "backwards":
        return "backward_layer: expected return_state=False like the layer's, got True"
    if part == "TDNN, subsampling" and (halves or whole == "both ways of a stack"):
        return "layer: expected one without subsampling, got"
    if part == "TDNN, subsampling" and whole in ("below, residual", "above, dense"):
        return "skips: expected None over a layer that subsamples, got"
    return None


def refused_when_built(whole, part):
    """What it says where the width of the inputs, or the constants, have to be known."""
    if part == "AR, wider" and whole != "alone":
        return r"(layer|layers\[\d\]): expected a layer that reads inputs of width \d alone, got (forward_)?ar"
    if part == "AR" and whole == "above, dense":
        return r"layers\[1\]: expected a layer that reads inputs of width 6 alone, got (forward_)?ar"
    if part in ("conditioned", "attention"):
        return "constants: expected (one|a memory)"
    return None


GRID = [(whole, part) for whole in WHOLES for part in PARTS]
REFUSED = [pair for pair in GRID if refused(*pair)]
UNBUILT = [pair for pair in GRID if not refused(*pair) and refused_when_built(*pair)]
# what is no composition, or is given more than sequences
APART = [("alone", part) for part in (*FOREIGN, "NARX", "AR, wider", "Bidirectional, pair")]
RIGHT = [pair for pair in GRID if pair not in (*REFUSED, *UNBUILT, *APART)]
QUICK = [
    ("below", "return_state"),
    ("below, residual", "zero_output_for_mask"),
    ("both ways of a stack", "cells of Keras"),
    ("a stack of both ways", "checkpoint"),
    ("above, dense", "last, zero_output_for_mask"),
]


def in_model(whole, part):
    """Whether a pair is put in a model, trained and saved as well: each part in three wholes, each whole with a third of them.

    What a model needs of a layer hangs on the part or on the whole, and not on how the two are joined.
    """
    return (list(WHOLES).index(whole) + list(PARTS).index(part)) % 3 == 0 or (whole, part) in QUICK


def rows(pairs):
    return {"argnames": ("whole", "part"), "argvalues": pairs, "ids": [f"{whole}-{part}" for whole, part in pairs]}


@pytest.mark.parametrize(**rows(REFUSED))
def test_a_part_that_does_not_fit_is_refused_by_name(whole, part):
    with pytest.raises((TypeError, ValueError), match=refused(whole, part)):
        WHOLES[whole](PARTS[part])("float32")


@pytest.mark.parametrize(**rows(UNBUILT))
def test_a_part_that_does_not_fit_the_inputs_is_refused_when_it_is_built(whole, part):
    layer = WHOLES[whole](PARTS[part])("float32")
    with pytest.raises((TypeError, ValueError), match=refused_when_built(whole, part)):
        layer.build((4, STEPS, D))


@pytest.mark.parametrize(**rows(QUICK))
def test_a_whole_is_its_parts(whole, part):
    check(whole, part)


@pytest.mark.deep
@pytest.mark.parametrize(**rows(RIGHT))
def test_every_whole_is_its_parts(whole, part):
    check(whole, part)


def anew(layer):
    """The layer at the start of its streams."""
    if getattr(layer, "stateful", False):
        layer.reset_state()
    return layer


def flat(results):
    return keras.tree.flatten(results)


def check(whole, part):
    layer = WHOLES[whole](PARTS[part])("float64")
    x, mask = structures.data()
    layer.build(x.shape)
    randomised(layer)
    anew(layer)
    x = np.where(mask[..., None], x, 0)
    expected = reference(layer, x, mask)
    returned = expected if not getattr(layer, "return_internals", False) else expected[:1]
    check_values(layer, x, mask, returned)
    check_gradients(layer, x, mask)
    if in_model(whole, part):
        check_model(layer, x, mask, returned)
    check_configuration(layer)
    if layer.not_stepwise is None:
        check_steps(layer, x, mask)


def check_values(layer, x, mask, expected):
    for function in (layer, tf.function(layer)):
        found = flat(function(tf.constant(x), mask=tf.constant(mask)))
        assert_close(found[: len(expected)], expected, 1e-10, "values")
        anew(layer)


def check_gradients(layer, x, mask):
    """NaN behind the mask changes nothing; every weight has a gradient."""

    def gradients(x):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            found = flat(layer(x, mask=tf.constant(mask)))
            loss = sum(tf.reduce_sum(y * y) for y in found)
        anew(layer)
        return tape.gradient(loss, [x, *[w.value for w in layer.trainable_variables]])

    found = gradients(np.where(mask[..., None], x, np.nan))
    assert all(g is not None for g in found)
    assert_close(found, gradients(x), 0.0, "gradients")


def check_model(layer, x, mask, expected):
    """In a functional model: what it says of its shapes, masks, a step of training, a file."""
    inputs = keras.Input(batch_shape=x.shape, dtype="float64")
    outputs = flat(layer(keras.layers.Masking(dtype="float64")(inputs)))
    model = keras.Model(inputs, outputs)
    found = flat(model(x))
    assert_close(found[: len(expected)], expected, 1e-10, "model")
    assert [(y.shape, y.dtype) for y in outputs] == [(y.shape, y.dtype) for y in found]
    anew(layer)
    trained = keras.Model(inputs, outputs[0])
    before = [w.numpy() for w in layer.trainable_variables]
    with floatx("float64"):  # Keras adds the losses of regularizers to its own in that type
        trained.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
        trained.fit(x, np.ones(found[0].shape), batch_size=len(x), verbose=0)
    after = [w.numpy() for w in layer.trainable_variables]
    assert all(np.isfinite(a).all() for a in after)
    assert any((a != b).any() for a, b in zip(after, before, strict=True)) or not before
    anew(layer)
    expected = flat(model(x))
    anew(layer)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        loaded = keras.models.load_model(f"{folder}/model.keras")
    for one in loaded.layers:
        anew(one)
    assert_close(flat(loaded(x)), expected, 1e-12, "loaded")


@contextlib.contextmanager
def floatx(dtype):
    before = keras.config.floatx()
    keras.config.set_floatx(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before)


def check_configuration(layer):
    config = json.dumps(layer.get_config())
    assert json.dumps(type(layer).from_config(json.loads(config)).get_config()) == config


def check_steps(layer, x, mask):
    """Step by step, and as a stream of a model, it is what the sequence would be if it ended there."""
    whole = flat(anew(layer)(x, mask=mask))[0]
    state, outputs = anew(layer).initial_state(len(x)), []
    for t in range(STEPS):
        y, state = layer.step(tf.constant(x[:, t]), state, tf.constant(mask[:, t]))
        outputs.append(y)
    assert_close([np.stack(outputs, 1) if layer.return_sequences else outputs[-1]], [whole], 1e-10, "steps")
    if has_more_outputs(layer):
        with pytest.raises(ValueError, match=f"{layer.name}: expected return_(state|internals)=False"):
            stream(layer)
        return
    anew(layer)
    stepped = stream(layer)
    state, outputs = stepped.initial_state(len(x)), []
    for t in range(STEPS):
        y, state = stepped.step(x[:, t], state)
        outputs.append(y)
    assert_close([np.stack(outputs, 1) if layer.return_sequences else outputs[-1]], [whole], 1e-10, "stream")


def has_more_outputs(layer):
    return getattr(layer, "return_state", False) or getattr(layer, "return_internals", False)


def stream(layer):
    inputs = keras.Input(batch_shape=(4, STEPS, D), dtype="float64")
    outputs = layer(keras.layers.Masking(dtype="float64")(inputs))
    return keras_seq.streaming(keras.Model(inputs, outputs))


def test_every_switch_of_a_layer_is_in_the_table():
    switches = {p for p in inspect.signature(RNN).parameters if p not in ("cell", "return_sequences", "kwargs")}
    switches |= {"zoneout", "learn_initial_state", "dropout"}
    assert switches - set(PARTS) == set()
    kinds = {type(part("float32")).__name__ for part in PARTS.values()}
    assert {"Stacked", "Bidirectional", "TDNN", "TCN", "WaveNet", "RNN", "NARX", "AR"} <= kinds


# -- constants -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True], ids=["given", "carried by Keras"])
def test_a_stack_hands_its_constants_and_their_mask_on(masked):
    attending = RNN(keras_seq.AttentionCell(keras_seq.GRUCell(U)), return_sequences=True)
    stacked = Stacked([LSTM(U, return_sequences=True), Stacked([attending, GRU(U, return_sequences=True)])])
    (x, mask), (memory, shown) = structures.data(dtype="float32"), structures.data(t=6, seed=1, dtype="float32")
    inputs, read = keras.Input((None, D)), keras.Input((None, D))
    places = keras.layers.Masking()(read)
    if not masked:
        places = [read, keras.ops.any(read != 0, axis=-1)]
    outputs = stacked(keras.layers.Masking()(inputs), constants=places if isinstance(places, list) else [places])
    model = keras.Model([inputs, read], outputs)
    x, memory = np.where(mask[..., None], x, 0), np.where(shown[..., None], memory, 0)
    lower, upper = stacked.layers
    expected = lower(x, mask=mask)
    expected = attending(expected, mask=mask, constants=[memory, shown])
    expected = upper.layers[1](expected, mask=mask)
    assert_close([model([x, memory])], [expected], 1e-6)
