"""Dropout of inputs and states: one mask for all steps, only in training, repeatable."""

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import B, T, U, assert_close, differentiated, repeated

import keras_seq

SEQUENCES = {"return_sequences": True, "return_state": True}
NEEDED = {"Jordan": {"outputs": 2}, "Elman": {"outputs": 2}}
MEMORIES = ["SimpleRNN", "LSTM", "PeepholeLSTM", "CoupledLSTM", "NoForgetLSTM", "GRU", "ResidualRNN", "Elman", "Jordan"]
OF_LSTM = {"projection": 3, "full_gate_recurrence": True, "peepholes": True}


def made(name, **arguments):
    case = conformance.Case(name, {**NEEDED.get(name, {}), **arguments})
    layer = case("float64", **SEQUENCES)
    return case, layer, conformance.data(case, layer)


def test_input_dropout_is_one_mask_for_all_steps():
    """A linear network without recurrence shows its inputs."""
    layer = keras_seq.SimpleRNN(6, activation="linear", use_bias=False, dropout=0.5, return_sequences=True)
    layer.build((None, None, 6))
    layer.set_weights([np.eye(6), np.zeros((6, 6))])
    y = layer(tf.ones((64, T, 6)), training=True).numpy()
    assert set(np.unique(y)) == {0.0, 2.0}
    np.testing.assert_array_equal(y, np.repeat(y[:, :1], T, axis=1))
    assert 0.35 < np.mean(y == 0) < 0.65
    assert np.ptp(y[:, 0], axis=0).all(), "rows share a mask"


def test_recurrent_dropout_is_one_mask_for_all_steps():
    """h_t = h_{t-1} m / (1 - p): after t steps 2^t, or nothing."""
    layer = keras_seq.SimpleRNN(6, activation="linear", use_bias=False, recurrent_dropout=0.5, return_sequences=True)
    layer.build((None, None, 6))
    layer.set_weights([np.eye(6), np.eye(6)])
    y = layer(tf.zeros((64, T, 6)), initial_state=tf.ones((64, 6)), training=True).numpy()
    kept = y[:, 0] > 0
    np.testing.assert_array_equal(y, kept[:, None] * 2.0 ** np.arange(1, T + 1)[:, None])
    assert 0.35 < np.mean(kept) < 0.65


@pytest.mark.parametrize("name", MEMORIES)
def test_off_when_not_training(name):
    _, layer, given = made(name, dropout=0.5, recurrent_dropout=0.5)
    plain = conformance.Case(name, NEEDED.get(name, {}))("float64", **SEQUENCES)
    plain.set_weights(layer.get_weights()[: len(plain.weights)])
    assert_close(conformance.call(layer, given), conformance.call(plain, given), 0.0)


def test_nothing_is_drawn_when_not_training():
    _, layer, given = made("LSTM", dropout=0.5, recurrent_dropout=0.5)
    before = layer.cell.seed_generator.state.numpy()
    conformance.call(layer, given)
    np.testing.assert_array_equal(layer.cell.seed_generator.state.numpy(), before)
    conformance.call(layer, given, training=True)
    assert (layer.cell.seed_generator.state.numpy() != before).any()


@pytest.mark.deep
@pytest.mark.parametrize("name", ["SimpleRNN", "PeepholeLSTM", "GRU"])
@pytest.mark.parametrize("kind", ["dropout", "recurrent_dropout"])
def test_expectation_is_kept_roughly(kind, name):
    _, layer, given = made(name, **{kind: 0.1})
    without = conformance.call(layer, given._replace(mask=None))[0]
    draws = [conformance.call(layer, given._replace(mask=None), training=True)[0] for _ in range(40)]
    assert np.std(draws, axis=0).max() > 0.01
    assert np.abs(np.mean(draws, axis=0) - without).mean() < 0.05


@pytest.mark.deep
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *[(name, {}) for name in MEMORIES if name not in NEEDED],
        *[(name, {"blocked": False}) for name in NEEDED],
        ("LSTM", OF_LSTM),
        ("LSTM", {"projection": 2, "normalize": True}),
    ],
    ids=str,
)
def test_gradients_with_both_dropouts_are_finite_differences(name, arguments):
    _, layer, given = made(name, dropout=0.4, recurrent_dropout=0.4, seed=3, **arguments)
    conformance.check_differences_in_training(layer, given)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [*[(name, {}) for name in MEMORIES], ("LSTM", OF_LSTM), ("Jordan", {"blocked": False})],
    ids=str,
)
def test_the_same_mask_gives_the_same_in_the_loop_of_keras_and_written_out(name, arguments):
    _, layer, given = made(name, dropout=0.4, recurrent_dropout=0.4, seed=3, **arguments)
    expected = repeated(layer, differentiated(layer), *given)
    other = keras.layers.RNN(layer.cell, dtype="float64", **SEQUENCES)
    assert_close(repeated(layer, differentiated(other), *given), expected, 1e-10, "keras.layers.RNN")
    unrolled = keras_seq.RNN(layer.cell, dtype="float64", unroll=True, **SEQUENCES)
    assert_close(repeated(layer, differentiated(unrolled), *given), expected, 1e-10, "unroll=True")


def test_the_fed_back_state_is_dropped_and_nothing_else():
    """Recurrent dropout acts on h where a gate reads it: not on gates fed back, nor on what a projection reads."""
    _, layer, given = made("LSTM", recurrent_dropout=0.5, seed=3, **OF_LSTM)
    _, still, _ = made("LSTM", recurrent_dropout=0.5, seed=3, **OF_LSTM)
    still.cell.recurrent_kernel.assign(0 * still.cell.recurrent_kernel)
    plain = conformance.Case("LSTM", OF_LSTM)("float64", **SEQUENCES)
    plain.set_weights(still.get_weights()[: len(plain.weights)])
    assert_close(conformance.call(still, given, training=True), conformance.call(plain, given), 1e-12)
    found = conformance.call(layer, given, training=True)[0]
    assert np.abs(found - conformance.call(layer, given)[0]).max() > 0.01


def test_dropout_of_narx_is_of_the_inputs_alone():
    """A linear one shows its inputs; true outputs, and a series that is both, are not dropped."""
    case = conformance.Case("NARX", {"units": None, "outputs": 3, "dropout": 0.5}, targets=True)
    layer = case("float64", return_sequences=True)
    given = conformance.data(case, layer, b=16, mask=False)
    layer.cell.kernel.assign(np.eye(3))
    found = conformance.call(layer, given, training=True)[0]
    ratio = (found - conformance.call(layer, given._replace(x=0 * given.x))[0]) / given.x
    assert set(np.unique(np.round(ratio, 9))) == {0.0, 2.0}
    np.testing.assert_allclose(ratio, np.repeat(ratio[:, :1], T, axis=1), atol=1e-9)
    series = keras_seq.AR(outputs=3, output_delays=2, dropout=0.5, return_sequences=True)
    assert_close([series(given.x, training=True)], [series(given.x)], 0.0)


@pytest.mark.deep
@pytest.mark.parametrize("jit", [None, False, True], ids=["eager", "graph", "jit"])
def test_the_same_seed_gives_the_same(jit):
    def results():
        keras.utils.set_random_seed(7)
        layer = keras_seq.LSTM(U, dropout=0.3, recurrent_dropout=0.3, seed=11, **SEQUENCES)
        layer.build((None, None, 3))
        function = differentiated(layer)
        if jit is not None:
            function = tf.function(function, jit_compile=jit)
        given = conformance.data(conformance.Case("LSTM"), layer)
        return function(*given), function(*given)

    (first, second), (again, _) = results(), results()
    assert_close(again, first, 0.0)
    assert np.abs(first[0][0] - second[0][0]).max() > 0.01, "two batches share a mask"


def test_global_seed_decides_where_none_is_given():
    def result(seed):
        keras.utils.set_random_seed(seed)
        layer = keras_seq.GRU(U, recurrent_dropout=0.5)
        return layer(tf.ones((B, T, 3)), training=True).numpy()

    np.testing.assert_array_equal(result(1), result(1))
    assert np.any(result(1) != result(2))


def test_recurrent_dropout_of_a_dot_with_something_else_is_refused():
    class Wide(keras_seq.Cell):
        state_names, state_size, output_size = ("h",), [4], 4

        def build(self, input_shape):
            self.kernel = self.add_weight(name="kernel", shape=(8, 4))
            super().build(input_shape)

        def step(self, projected, states, constants=()):
            h = keras.ops.concatenate([states[0], states[0]], axis=-1)
            h = keras_seq.dot(h, self.kernel)
            return h, (h,)

    layer = keras_seq.RNN(Wide(recurrent_dropout=0.5))
    layer(tf.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="recurrent_dropout: expected every `dot`"):
        layer(tf.ones((2, 3, 4)), training=True)
