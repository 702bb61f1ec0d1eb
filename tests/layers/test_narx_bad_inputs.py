"""What NARX and AR refuse, by the name of the argument."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from narx_cases import B, D, K, T, W, made, net

import keras_seq

both = pytest.mark.parametrize("cls", [keras_seq.NARX, keras_seq.NARXCell], ids=["layer", "cell"])


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("output_delays", 0, ValueError),
        ("output_delays", [0, 1], ValueError),
        ("output_delays", [], ValueError),
        ("output_delays", [2, 2], ValueError),
        ("output_delays", [1, -2], ValueError),
        ("output_delays", 1.5, TypeError),
        ("output_delays", [1, "2"], TypeError),
        ("output_delays", True, TypeError),
        ("output_delays", None, TypeError),
        ("input_delays", 0, ValueError),
        ("input_delays", [-1], ValueError),
        ("input_delays", [], ValueError),
        ("input_delays", [1, 1], ValueError),
        ("input_delays", "2", TypeError),
        ("units", 0, ValueError),
        ("units", 2.5, TypeError),
        ("outputs", 0, ValueError),
        ("outputs", None, TypeError),
        ("network", "dense", TypeError),
        ("network", lambda u: u, TypeError),
        ("exogenous", 1, TypeError),
        ("recurrent_dropout", 0.5, ValueError),
        ("zoneout", 0.5, ValueError),
        ("activation", "no_such_thing", ValueError),
        ("delays", 2, TypeError),
    ],
)
@both
def test_bad_arguments(cls, argument, value, error):
    with pytest.raises(error, match=rf"^{argument}: expected|unknown argument '{argument}'"):
        cls(**{argument: value})


def test_delays_of_any_order_and_integers_of_numpy():
    cell = keras_seq.NARXCell(input_delays=np.int64(2), output_delays=(5, np.int32(2)))
    assert (cell.input_delays, cell.output_delays, cell.delays) == ([0, 1], [2, 5], 5)
    assert keras_seq.NARX(input_delays=[7], output_delays=2).delays == 7
    assert keras_seq.AR(output_delays=3).delays == 3
    assert {type(d) for d in cell.output_delays} == {int}


@both
def test_network_and_units_together(cls):
    with pytest.raises(ValueError, match=r"^units: expected None with a network, got 3"):
        cls(3, network=net())


def test_closed_is_a_bool():
    with pytest.raises(TypeError, match=r"^closed: expected True or False"):
        keras_seq.NARX(closed=1)


@pytest.mark.parametrize("argument", ["input_delays", "exogenous"])
def test_ar_has_no_inputs(argument):
    with pytest.raises(TypeError, match=f"AR: unknown argument '{argument}'"):
        keras_seq.AR(**{argument: 2})
    with pytest.raises(TypeError, match=argument):
        keras_seq.ARCell(**{argument: 2})


def test_network_of_another_width():
    layer = keras_seq.NARX(network=net(5), outputs=2, output_delays=2)
    with pytest.raises(ValueError, match=r"network: expected one from width 7 to outputs=2, got width 5"):
        layer(tf.ones((B, T, D)), targets=tf.ones((B, T, 2)))


@pytest.mark.parametrize("inner", [keras.layers.Dropout(0.5), keras.layers.BatchNormalization()], ids=type)
def test_network_with_random_numbers_or_statistics(inner):
    network = keras.Sequential([keras.layers.Dense(3), inner, keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"network: expected one without dropout or batch normalisation"):
        keras_seq.NARX(network=network)(tf.ones((B, T, D)), targets=tf.ones((B, T, 1)))


@pytest.mark.parametrize("name", ["hidden", "network"])
def test_open_loop_without_targets(name):
    with pytest.raises(ValueError, match=r"targets: expected the true outputs in open loop, got None \(close_loop"):
        made(name)(tf.ones((B, T, D)))


SHAPES = [(B, T - 1, K), (B, T + 1, K), (B, T, K + 1), (B + 1, T, K), (B, T), (T,)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_targets_of_another_shape_in_open_loop(shape):
    with pytest.raises(ValueError, match=r"targets: expected shape "):
        made("hidden")(tf.ones((B, T, D)), targets=tf.ones(shape))


@pytest.mark.parametrize("shape", [(B, T - 1, K), (B + 1, T, K)], ids=str)
@pytest.mark.parametrize("jit", [False, True], ids=["graph", "jit"])
def test_targets_of_another_shape_where_it_is_not_known_beforehand(shape, jit):
    layer = made("hidden")
    signature = [tf.TensorSpec((None, None, n), "float64") for n in (D, K)]
    call = tf.function(lambda x, y: layer(x, targets=y)[0], input_signature=signature, jit_compile=jit)
    call(np.ones((B, T, D)), np.ones((B, T, K)))
    with pytest.raises(tf.errors.InvalidArgumentError):
        call(np.ones((B, T, D)), np.ones(shape))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (B, 2, K),
            "targets: expected as a warm-up a known number of steps, at least the 3 of the delays, and no more",
        ),
        ((B, 0, K), "targets: expected as a warm-up .*, got 0"),
        ((B, T + 1, K), f"targets: expected as a warm-up .* no more than the {T} of the sequences, got {T + 1}"),
        ((B, W, K + 1), rf"targets: expected shape \({B}, w, {K}\), got"),
        ((B + 1, W, K), rf"targets: expected shape \({B}, w, {K}\), got"),
        ((B, W), "targets: expected shape"),
        ((W,), "targets: expected shape"),
    ],
)
def test_bad_warm_up(shape, message):
    layer = made("hidden", closed=True)
    assert layer.delays == 3
    with pytest.raises(ValueError, match=message):
        layer(tf.ones((B, T, D)), targets=tf.ones(shape))


def test_warm_up_of_unknown_length():
    layer = made("hidden", dtype="float32")
    message = r"targets: expected as a warm-up a known number of steps, .* got None"
    signature = [tf.TensorSpec((B, T, D)), tf.TensorSpec((B, None, K))]
    for function in (layer.forecast, lambda y, x: layer.close_loop()(x, targets=y)):
        with pytest.raises(ValueError, match=message):
            tf.function(lambda x, y, f=function: f(y, x), input_signature=signature).get_concrete_function()


def test_warm_up_backwards():
    layer = made("linear", go_backwards=True, closed=True)
    with pytest.raises(ValueError, match=r"targets: expected None in closed loop with go_backwards"):
        layer(tf.ones((B, T, D)), targets=tf.ones((B, W, K)))


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("hidden", {}, ValueError, "sequences: expected it, and no steps, for NARX, got None"),
        ("hidden", {"steps": 3}, ValueError, "sequences: expected it, and no steps, for NARX"),
        ("hidden", {"sequences": np.ones((B, T, D)), "steps": 3}, ValueError, "sequences: expected it, and no steps"),
        (
            "hidden",
            {"sequences": np.ones((B, W, D))},
            ValueError,
            "sequences: expected more steps than the 4 of targets",
        ),
        ("hidden", {"sequences": np.ones((B + 1, T, D))}, ValueError, "targets: expected shape"),
        ("AR", {}, ValueError, "steps: expected it, and no sequences, for AR, got None"),
        ("AR", {"sequences": np.ones((B, T, K))}, ValueError, "steps: expected it, and no sequences, for AR"),
        ("AR", {"steps": 0}, ValueError, "steps: expected a positive integer, got 0"),
        ("AR", {"steps": 2.5}, TypeError, "steps: expected a positive integer, got 2.5"),
    ],
)
def test_bad_forecasts(name, arguments, error, message):
    with pytest.raises(error, match=message):
        made(name).forecast(np.ones((B, W, K)), **arguments)


@pytest.mark.parametrize("shape", [(B, 3, K), (B, W, K + 1), (B, W)], ids=str)
def test_forecast_from_bad_targets(shape):
    with pytest.raises(ValueError, match=r"targets: expected"):
        made("AR").forecast(np.ones(shape), steps=2)


def test_width_of_the_series_of_an_ar():
    with pytest.raises(ValueError, match=r"targets: expected shape"):
        keras_seq.AR(outputs=2)(tf.ones((B, T, 3)))
