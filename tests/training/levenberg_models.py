"""Models, and data for them, that the tests of Levenberg-Marquardt share."""

import keras
import numpy as np
from keras import layers

import keras_seq

T, WARM_UP = 9, 3


def sequential(*given, features=2):
    return keras.Sequential([keras.Input((None, features)), *given])


def narx(loop, **given):
    """A model over a NARX layer: "open", "closed" after a warm-up, or "free" from zeros."""
    x, known, true = keras.Input((None, 2)), keras.Input((WARM_UP, 1)), keras.Input((None, 1))
    layer = keras_seq.NARX(**{"units": 3, "input_delays": 2, "output_delays": 3, "return_sequences": True, **given})
    if loop == "open":
        return keras.Model([x, true], layer(x, targets=true)[:, WARM_UP:])
    closed = layer.close_loop() if layer.built else _built(layer).close_loop()
    if loop == "free":
        return keras.Model(x, closed(x))
    return keras.Model([x, known], closed(x, targets=known)[:, WARM_UP:])


def _built(layer):
    layer.build((None, None, 2))
    return layer


def masked(*given):
    return sequential(layers.Masking(), *given)


def data(model, rows=3, steps=T, seed=0):
    """Inputs as the model takes them, some steps of zeros, which `Masking` hides; and targets."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, steps, 2))
    x[-1, :3], x[0, 4:6], x[rows // 2, -2:] = 0, 0, 0
    y = rng.normal(size=(rows, steps, 1))
    given = [x if i.shape[-1] == 2 else y[:, : i.shape[1]] for i in model.inputs]
    given = given if len(given) > 1 else given[0]
    return given, rng.normal(size=np.shape(model(given)))


def curve(rows=40):
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, rows)[:, None]
    return x, np.sin(3 * x) + 0.1 * rng.normal(size=x.shape)


def small(units=3, **given):
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((1,)), layers.Dense(units, "tanh", **given), layers.Dense(1, **given)])


def exploding():
    """A free run that grows by a half at each step, and one that is right at once if its weights are drawn anew."""
    layer = keras_seq.AR(None, 1, output_delays=1, return_sequences=True, closed=True)
    x = keras.Input((None, 1))
    model = keras.Model(x, layer(x))
    layer.cell.recurrent_kernel.assign([[1.5]])
    layer.cell.bias.assign([1.0])
    return model, np.zeros((2, 60, 1)), np.full((2, 60, 1), 0.5)


def table():
    return keras.Sequential(
        [keras.Input((3,), dtype="int32"), layers.Embedding(5, 2), layers.Flatten(), layers.Dense(1, "tanh")]
    )
