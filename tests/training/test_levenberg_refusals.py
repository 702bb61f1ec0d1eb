"""Levenberg-Marquardt: the models, arguments and data that it refuses, by name."""

import keras
import numpy as np
import pytest
from keras import layers
from levenberg_models import curve, masked, narx, sequential, small, table

import keras_seq
from keras_seq.training import LevenbergMarquardt


class Drawn(layers.Layer):
    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), dtype=x.dtype)


def fit(model, x=None, y=None, *given, **further):
    wanted = [(8, *(3 if n is None else n for n in i.shape[1:])) for i in model.inputs]
    x = [np.random.default_rng(0).normal(size=shape) for shape in wanted] if x is None else x
    y = np.zeros((8, *(3 if n is None else n for n in model.output_shape[1:]))) if y is None else y
    return LevenbergMarquardt(model, jit_compile=False).fit(x, y, *given, **{"verbose": 0, **further})


def changed(how):
    """A fit of a model that something is done to behind its trainer's back."""
    model = small()
    trainer = LevenbergMarquardt(model, jit_compile=False)
    how(model)
    return trainer.fit(*curve(), epochs=1, verbose=0)


def between(layer):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), layer, layers.Dense(1)])


def two_outputs():
    x = keras.Input((1,))
    return keras.Model(x, [layers.Dense(1)(x), layers.Dense(1)(x)])


def compiled(loss):
    model = small()
    model.compile("sgd", loss)
    return model


CERTAIN = r"say the same in training and at inference, .*, got "
REFUSED = {
    "a layer": (lambda: LevenbergMarquardt(layers.Dense(1)), TypeError, "model: expected a keras.Model"),
    "not built": (
        lambda: LevenbergMarquardt(keras.Sequential([layers.Dense(1)])),
        TypeError,
        "expected a built Sequential",
    ),
    "outputs": (lambda: LevenbergMarquardt(two_outputs()), ValueError, "model: expected one output, got 2"),
    "no weights": (lambda: LevenbergMarquardt(sequential(layers.ReLU())), ValueError, "expected trainable weights"),
    "loss": (
        lambda: LevenbergMarquardt(compiled("mae")),
        ValueError,
        "compiled with loss='mse', or is not compiled, got 'mae'",
    ),
    "regularizer": (
        lambda: LevenbergMarquardt(small(kernel_regularizer="l2")),
        ValueError,
        "expected weights without a regularizer, got .*/kernel",
    ),
    "constraint": (
        lambda: LevenbergMarquardt(small(bias_constraint="non_neg")),
        ValueError,
        "without a constraint, got",
    ),
    "activity": (
        lambda: LevenbergMarquardt(small(activity_regularizer="l2")),
        ValueError,
        "without an activity regularizer",
    ),
    "stateful": (
        lambda: LevenbergMarquardt(
            keras.Sequential([keras.Input(batch_shape=(2, 3, 1)), keras_seq.GRU(2, stateful=True)])
        ),
        ValueError,
        "expected layers with stateful=False, got gru",
    ),
    "blocked": (
        lambda: LevenbergMarquardt(sequential(keras_seq.Elman(2))),
        ValueError,
        "gradients through all steps, got elman",
    ),
    "dropout": (lambda: fit(between(layers.Dropout(0.5, name="drops"))), ValueError, CERTAIN + "drops"),
    "noise": (lambda: fit(between(layers.GaussianNoise(0.5, name="noisy"))), ValueError, CERTAIN + "noisy"),
    "statistics": (lambda: fit(between(layers.BatchNormalization(name="batch"))), ValueError, CERTAIN + "batch"),
    "random": (lambda: fit(between(Drawn(name="drawn"))), ValueError, CERTAIN + "drawn"),
    "zoneout": (lambda: fit(sequential(keras_seq.GRU(2, zoneout=0.5, name="memory"))), ValueError, CERTAIN + "memory"),
    "drawn alike": (
        lambda: fit(small(kernel_initializer=keras.initializers.GlorotUniform(seed=1)), restarts=1),
        ValueError,
        "restarts: expected a model whose weights are drawn anew, got the same twice",
    ),
    "all masked": (
        lambda: fit(masked(keras_seq.GRU(2, return_sequences=True)), [np.zeros((8, 3, 2))]),
        ValueError,
        "^x: expected steps that the mask of the outputs shows, got none",
    ),
    "all masked, held out": (
        lambda: fit(
            masked(keras_seq.GRU(2, return_sequences=True)),
            validation_data=(np.zeros((2, 3, 2)), np.zeros((2, 3, 2))),
        ),
        ValueError,
        "^validation_data: x: expected steps that the mask of the outputs shows, got none",
    ),
    "Lambda": (
        lambda: LevenbergMarquardt(between(layers.Lambda(lambda x: 2 * x, name="twice"))),
        ValueError,
        "model: expected layers that their configurations make again, got twice: .*Lambda",
    ),
    "frozen since": (
        lambda: changed(lambda model: setattr(model.layers[0], "trainable", False)),
        ValueError,
        "model: expected the 4 trained variables that it had when its trainer was made, got 2 or others; make a new",
    ),
    "compiled since": (
        lambda: changed(lambda model: model.compile("sgd", "mae")),
        ValueError,
        "compiled with loss='mse', or is not compiled, got 'mae'",
    ),
    "damping": (lambda: LevenbergMarquardt(small(), damping=0), ValueError, "damping: expected a positive number"),
    "bayesian": (lambda: LevenbergMarquardt(small(), bayesian=1), TypeError, "bayesian: expected True or False"),
    "compile": (
        lambda: LevenbergMarquardt(small(), jit_compile="xla"),
        ValueError,
        "jit_compile: expected \"auto\", True or False, got 'xla'",
    ),
    "compile type": (
        lambda: LevenbergMarquardt(small(), jit_compile=1),
        TypeError,
        "jit_compile: expected True or False",
    ),
    "bytes": (
        lambda: LevenbergMarquardt(small(100), max_bytes=10**6).fit(*curve(), verbose=0),
        ValueError,
        "takes at most 1000000 bytes, got 51784040: 301 weights, 100 numbers of a row that change with each",
    ),
    "epochs": (lambda: fit(small(), epochs=0), ValueError, "epochs: expected a positive integer"),
    "restarts": (lambda: fit(small(), restarts=-1), ValueError, "restarts: expected an integer of at least 0, got -1"),
    "restarts type": (lambda: fit(small(), restarts=True), TypeError, "restarts: expected an integer of at least 0"),
    "patience": (lambda: fit(small(), patience=0), ValueError, "patience: expected a positive integer"),
    "validation": (lambda: fit(small(), validation_data=0.2), TypeError, "validation_data: expected .*, got 0.2"),
    "validation y": (
        lambda: fit(small(), validation_data=(np.ones((3, 1)), np.ones((4, 1)))),
        ValueError,
        r"validation_data: y: expected shape \(3, 1\) like the output, got \(4, 1\)",
    ),
    "arrays": (lambda: fit(narx("closed"), [np.ones((8, 5, 2))]), ValueError, "x: expected 2 arrays, got 1"),
    "features": (lambda: fit(small(), np.ones((8, 2))), ValueError, r"x: expected shape \(None, 1\), got \(8, 2\)"),
    "NaN": (lambda: fit(small(), np.full((8, 1), np.nan)), ValueError, "x: expected finite numbers"),
    "NaN targets": (lambda: fit(small(), None, np.full((8, 1), np.inf)), ValueError, "y: expected finite numbers"),
    "no rows": (lambda: fit(small(), np.ones((0, 1))), ValueError, r"x: expected at least one row, got shape \(0, 1\)"),
    "no steps": (
        lambda: fit(narx("closed"), [np.ones((8, 3, 2)), np.ones((8, 3, 1))], np.ones((8, 0, 1))),
        ValueError,
        r"y: expected at least one step, got \(8, 0, 1\)",
    ),
    "which input": (
        lambda: fit(narx("closed"), [np.ones((8, 5, 2)), np.ones((8, 2, 1))]),
        ValueError,
        r"x\[1\]: expected shape \(None, 3, 1\), got \(8, 2, 1\)",
    ),
    "no targets": (
        lambda: LevenbergMarquardt(small()).fit(np.ones((8, 1)), None),
        TypeError,
        "y: expected numbers, got None",
    ),
    "huge targets": (
        lambda: fit(small(), None, np.full((8, 1), 1e200)),
        ValueError,
        r"y: expected numbers of at most 1e\+150, got 1e\+200",
    ),
    "complex": (lambda: fit(small(), np.ones((8, 1)) + 1j), TypeError, "x: expected numbers, got array"),
    "lengths": (
        lambda: fit(small(), [np.ones((4, 1)), np.ones((3, 1))]),
        TypeError,
        r"x: expected arrays of one shape, got \[\(4, 1\), \(3, 1\)\]",
    ),
    "no integers": (lambda: fit(table(), np.full((8, 3), 1.5)), ValueError, "x: expected integers, got others: array"),
    "words": (lambda: fit(small(), [["a"]] * 8), TypeError, "x: expected numbers, got"),
    "weights": (
        lambda: fit(small(), None, None, np.ones(7)),
        ValueError,
        r"sample_weight: expected the first axes of \(8, 1\)",
    ),
    "negative": (
        lambda: fit(small(), None, None, -np.ones(8)),
        ValueError,
        "sample_weight: expected numbers of at least 0",
    ),
    "no weight": (lambda: fit(small(), None, None, np.zeros(8)), ValueError, "sample_weight: expected some above 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()
