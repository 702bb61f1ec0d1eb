"""`return_internals=True`: what a step says of its inside, at every step, with gradients; and nothing of it without."""

import json
import re

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import BUILT_IN, EVERYTHING, GAPS, KINDS, QUICK, Case, D, T, assert_close, differentiated, named

import keras_seq
from keras_seq.cells import gru, lstm, narx, simple

SHOWN = {"return_sequences": True, "return_state": True, "return_internals": True}
SOME = [
    Case("LSTM", EVERYTHING),
    Case("GRU", {"reset_after": False}),
    Case("Elman", {"outputs": 2}),
    Case("Jordan", {"outputs": 2, "blocked": False}, targets=True),
    Case("ResidualRNN", {"recurrent": False}),
    Case("NARX", {**GAPS, "closed": True}),
]


@pytest.mark.parametrize(**named(BUILT_IN, quick=KINDS))
def test_equations(case):
    conformance.check_oracle(case, return_internals=True)


@pytest.mark.parametrize(
    "flags",
    [
        {"masked": False, "go_backwards": True},
        {"return_sequences": False, "zero_output_for_mask": True},
        {"return_sequences": False, "return_state": False, "go_backwards": True, "training": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(**named([c for c in KINDS if c.gated], quick=QUICK))
def test_equations_with_flags(case, flags):
    conformance.check_oracle(case, return_internals=True, **flags)


@pytest.mark.parametrize(**named([c for c in KINDS if c.gated][::2], quick=[Case("LSTM")]))
def test_gradients(case):
    conformance.check_finite_differences(case, directions=1, return_internals=True)


@pytest.mark.parametrize(**named(SOME, quick=SOME[1:2]))
def test_gradients_with_flags(case):
    flags = {"return_sequences": False, "return_state": False, "zero_output_for_mask": True, "go_backwards": True}
    conformance.check_finite_differences(case, directions=1, return_internals=True, **flags)


@pytest.mark.parametrize(**named(SOME, quick=SOME[1:2]))
def test_compiled_and_written_out(case):
    layer, unrolled = case("float64", **SHOWN), case("float64", unroll=True, **SHOWN)
    given = conformance.data(case, layer)
    expected = differentiated(layer)(*given)
    assert_close(tf.function(differentiated(layer), jit_compile=True)(*given), expected, 1e-11, "compiled")
    assert_close(differentiated(unrolled)(*given), expected, 1e-10, "written out")


@pytest.mark.parametrize(**named([c for c in KINDS if c.gated], quick=[]))
def test_outputs_and_states_are_the_same_with_and_without(case):
    shown, plain = case("float64", **SHOWN), case("float64", return_sequences=True, return_state=True)
    given = conformance.data(case, plain)
    expected = conformance.call(plain, given)
    assert_close(conformance.call(shown, given)[: len(expected)], expected, 1e-12)


# -- their form ----------------------------------------------------------------------------------------------------------


def test_they_come_last_by_name():
    layer = keras_seq.LSTM(4, coupled=True, projection=2, return_state=True, return_internals=True)
    y, h, c, internals = layer(tf.ones((3, T, D)))
    assert (y.shape, h.shape, c.shape) == ((3, 2), (3, 2), (3, 4))
    widths = {"input_gate": 4, "forget_gate": 4, "output_gate": 4, "candidate": 4, "cell": 4, "hidden": 2}
    assert {name: value.shape for name, value in internals.items()} == {n: (3, T, w) for n, w in widths.items()}
    np.testing.assert_array_equal(internals["hidden"][:, -1], h)
    np.testing.assert_array_equal(internals["cell"][:, -1], c)
    np.testing.assert_allclose(internals["input_gate"], 1 - internals["forget_gate"], atol=1e-6)


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize(**named([c for c in SOME if not c.targets], quick=SOME[1:2]))
def test_in_a_functional_model_and_in_its_file(case, return_sequences, tmp_path):
    layer = case(return_sequences=return_sequences, return_internals=True)
    inputs = keras.Input((None, D))
    output, internals = layer(inputs)
    first = keras.Model(inputs, {"output": output, **{f"its {name}": value for name, value in internals.items()}})
    given = conformance.data(case, layer, mask=False)
    zeros = given._replace(states=tuple(0 * s for s in given.states))
    expected = conformance.oracle(layer, zeros)
    expected = {f"its {name}": value for name, value in expected.internals.items()} | {
        "output": expected.outputs if return_sequences else expected.last
    }
    found = first(given.x)
    assert set(found) == set(expected)
    assert_close([found[k] for k in expected], list(expected.values()), 1e-5)
    for name, value in internals.items():
        assert value.shape == (None, None, expected[f"its {name}"].shape[-1])
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")(given.x)
    assert_close([second[k] for k in found], list(found.values()), 0.0)


def test_the_flag_is_in_the_config():
    layer = keras_seq.GRU(4, return_internals=True)
    assert keras_seq.GRU.from_config(json.loads(json.dumps(layer.get_config()))).return_internals is True
    assert keras_seq.GRU(4).get_config()["return_internals"] is False


# -- what has none -------------------------------------------------------------------------------------------------------


def test_a_cell_that_exposes_nothing_is_refused():
    for unroll in (False, True):
        layer = keras_seq.RNN(conformance.TangledCell(), return_internals=True, unroll=unroll)
        with pytest.raises(ValueError, match="return_internals: expected False, as TangledCell exposes none"):
            layer(tf.ones((2, T, D)))


def test_a_cell_of_keras_is_refused():
    with pytest.raises(ValueError, match=r"return_internals: expected False for a cell that is no keras_seq\.Cell"):
        keras_seq.RNN(keras.layers.GRUCell(4), return_internals=True)


@pytest.mark.parametrize("value", [1, None, "all"])
def test_the_flag_is_a_boolean(value):
    for make in (keras_seq.LSTM, lambda units, **flag: keras_seq.RNN(keras_seq.GRUCell(units), **flag)):
        with pytest.raises(TypeError, match=r"^return_internals: expected True or False"):
            make(4, return_internals=value)


def test_a_name_that_is_exposed_twice_is_refused():
    class Twice(keras_seq.Cell):
        state_names, state_size, output_size = ("h",), [3], 3

        def step(self, projected, states, constants=()):
            keras_seq.expose(h=projected)
            keras_seq.expose(h=states[0])
            return projected, states

    keras_seq.RNN(Twice())(tf.ones((2, T, 3)))
    with pytest.raises(ValueError, match="expose: expected each name once in a step, got 'h' again"):
        keras_seq.RNN(Twice(), return_internals=True)(tf.ones((2, T, 3)))


def program(case, training, **flags):
    """What XLA is given to compile of a layer, or of its training step, without names and places in the source."""
    layer = case(batch=3, return_sequences=True, **flags)
    given = conformance.data(case, layer, b=3, mask=False)

    @tf.function(jit_compile=True)
    def step(x, states, constants, targets):
        with tf.GradientTape() as tape:
            y, *_ = conformance.call(layer, conformance.Data(x, None, states, constants, targets), training)
            loss = tf.reduce_sum(y * y)
        return tape.gradient(loss, layer.trainable_variables) if training else y

    text = step.experimental_get_compiler_ir(given.x, given.states, given.constants, given.targets)(stage="hlo")
    text = re.sub(r"metadata=\{[^}]*\}", "", text)
    return re.sub(r"[%\w\-]*\.\d+|%[\w\-]+", "_", text).splitlines()[1:]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(**named([c for c in SOME if c.layer != "NARX"], quick=SOME[1:2]))
def test_without_the_flag_nothing_is_compiled_for_them(case, training, monkeypatch):
    compiled = program(case, training)
    shown = program(case, training, return_internals=True)
    for module in (gru, lstm, narx, simple):
        monkeypatch.setattr(module, "expose", lambda **values: None)
    assert compiled == program(case, training)
    assert len(shown) > len(compiled), "the control"
