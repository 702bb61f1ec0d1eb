"""The pinball loss: its value and its least, training with it, masks, types, files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_seq
from keras_seq.analysis import quantile_interval
from keras_seq.training import PinballLoss

RNG = np.random.default_rng(0)
Q = [0.1, 0.5, 0.8]
TRUE, FORECAST = RNG.normal(size=(2, 5, 2)), RNG.normal(size=(2, 5, 6))


def written_out(true, forecast, quantiles):
    found = np.empty((*true.shape, len(quantiles)))
    for index in np.ndindex(found.shape):
        over = true[index[:-1]] - forecast[(*index[:-2], index[-2] * len(quantiles) + index[-1])]
        q = quantiles[index[-1]]
        found[index] = q * over if over > 0 else (q - 1) * over
    return found.mean(axis=(-1, -2))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_its_value_is_that_of_the_equation(dtype, compiled):
    loss = PinballLoss(Q, reduction=None, dtype=dtype)
    call = tf.function(loss, jit_compile=True) if compiled else loss
    found = call(ops.convert_to_tensor(TRUE, dtype=dtype), ops.convert_to_tensor(FORECAST, dtype=dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, written_out(TRUE, FORECAST, Q), rtol=1e-5)
    np.testing.assert_allclose(PinballLoss(Q)(TRUE, FORECAST), written_out(TRUE, FORECAST, Q).mean(), rtol=1e-5)
    half = PinballLoss([0.5])(TRUE[..., :1], FORECAST[..., :1])
    np.testing.assert_allclose(half, np.abs(TRUE - FORECAST[..., :2])[..., 0].mean() / 2, rtol=1e-5)


def test_its_least_is_at_the_quantiles():
    y = np.sort(RNG.exponential(size=(999, 1)), axis=0)
    losses = [
        float(PinballLoss([q])(y, np.full_like(y, np.quantile(y, p))))
        for q in (0.2, 0.9)
        for p in (q - 0.03, q, q + 0.03)
    ]
    assert losses[1] < min(losses[0], losses[2])
    assert losses[4] < min(losses[3], losses[5])


def test_steps_behind_a_mask_do_not_count():
    x = RNG.normal(size=(2, 5, 3)).astype("float32")
    x[1, 3:] = 0
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Masking(), keras_seq.GRU(3, return_sequences=True)])
    found = PinballLoss(Q, reduction="sum")(TRUE[..., :1], model(x))
    each = written_out(TRUE[..., :1], np.asarray(model(x)), Q)
    np.testing.assert_allclose(found, each[0].sum() + each[1, :3].sum(), rtol=1e-5)


@pytest.mark.deep
def test_a_model_trained_by_it_covers_what_it_says(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, size=(64, 40, 1)).astype("float32")
    y = x + (0.2 + 0.5 * np.abs(x)) * rng.normal(size=x.shape).astype("float32")
    memory = keras_seq.GRU(8, return_sequences=True)
    model = keras.Sequential([keras.Input((None, 1)), memory, keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.02), PinballLoss([0.05, 0.5, 0.95]), jit_compile=True)
    model.fit(x[:48], y[:48], epochs=80, batch_size=16, verbose=0)
    interval = quantile_interval(model.predict(x[48:], verbose=0), [0.05, 0.5, 0.95])
    assert interval.coverage(y[48:, :, 0]) == pytest.approx(0.9, abs=0.05)
    wide, narrow = (
        np.mean((interval.upper - interval.lower)[far])
        for far in (np.abs(x[48:, :, 0]) > 0.8, np.abs(x[48:, :, 0]) < 0.2)
    )
    assert wide > 1.5 * narrow, "as the noise is"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.loss.quantiles == [0.05, 0.5, 0.95]
    np.testing.assert_allclose(loaded.evaluate(x, y, verbose=0), model.evaluate(x, y, verbose=0), rtol=1e-5)


def test_it_is_made_again_from_its_config():
    loss = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(PinballLoss([0.2, 0.7], dtype="float64"))
    )
    assert (loss.quantiles, loss.dtype, loss.name) == ([0.2, 0.7], "float64", "pinball")


WRONG = [
    (lambda: PinballLoss([0.5, 0.2]), ValueError, r"quantiles: expected rising numbers in \(0, 1\)"),
    (lambda: PinballLoss([0.0, 0.5]), ValueError, "quantiles: expected rising numbers"),
    (lambda: PinballLoss(0.5), ValueError, "quantiles: expected rising numbers"),
    (lambda: PinballLoss([]), ValueError, "quantiles: expected rising numbers"),
    (lambda: PinballLoss("abc"), TypeError, "quantiles: expected numbers"),
    (lambda: PinballLoss(reduction=3), TypeError, "reduction: expected the name"),
    (
        lambda: PinballLoss(Q)(TRUE, FORECAST[..., :5]),
        ValueError,
        "y_pred: expected 3 quantiles for each of the outputs",
    ),
    (lambda: PinballLoss(Q)(TRUE[:, 0, 0], FORECAST), ValueError, "y_pred: expected 3 quantiles"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
