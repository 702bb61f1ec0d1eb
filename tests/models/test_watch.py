"""A loss that does not move, or is no number, is said to those who ask, and to nobody else."""

import warnings

import keras
import numpy as np
import pytest

from keras_seq.models import LossWatch


def told(losses, **kwargs):
    """What is said over epochs of these losses."""
    watch = LossWatch(**kwargs)
    watch.set_model(keras.Sequential(name="a_model"))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):  # each training anew
            watch.on_train_begin()
            for epoch, loss in enumerate(losses):
                watch.on_epoch_end(epoch, {"loss": loss})
    texts = [str(w.message) for w in found]
    assert texts[: len(texts) // 2] == texts[len(texts) // 2 :]
    return texts[: len(texts) // 2]


STILL = "a_model: the loss has not fallen by 1.00% in 2 epochs: {} after epoch {}, {} after epoch {}"


SAID = [
    ([4.0, 3.9, 3.8, 3.7, 3.6], []),
    ([4.0, 3.99], []),  # not so long yet
    ([4.0, 3.99, 3.98, 3.97], [STILL.format(4, 1, 3.98, 3)]),  # once
    ([4.0, 5.0, 3.9, 4.5, 4.5], [STILL.format(3.9, 3, 4.5, 5)]),  # of the last epochs the best counts
    ([4.0, 4.0, 3.9, 3.8], []),
    ([4.0, 3.0, 4.0], []),  # it had fallen in between
    ([-1.0, -1.1, -1.2, -1.2, -1.2], [STILL.format(-1.2, 3, -1.2, 5)]),  # below zero too
    ([2.0, float("nan"), float("nan")], ["a_model: the loss of epoch 2 is nan, no finite number"]),
    ([float("inf")], ["a_model: the loss of epoch 1 is inf, no finite number"]),
    (
        [float("nan"), 3.0, 3.0, 3.0],
        ["a_model: the loss of epoch 1 is nan, no finite number", STILL.format(3, 2, 3, 4)],
    ),
]


@pytest.mark.parametrize(("losses", "expected"), SAID, ids=str)
def test_what_is_said(losses, expected):
    assert told(losses, patience=2) == expected


def test_in_fit():
    """It says so where it was asked, and the model by itself says nothing."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x, y = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
    with pytest.warns(UserWarning, match="the loss has not fallen by 50.00% in 1 epochs"):
        model.fit(x, y, epochs=2, verbose=0, callbacks=[LossWatch(patience=1, least=0.5)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, np.nan * y, epochs=2, verbose=0)
    with pytest.warns(UserWarning, match="the loss of epoch 1 is nan"):
        model.fit(x, np.nan * y, epochs=1, verbose=0, callbacks=[LossWatch()])


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"patience": 0}, ValueError, "patience"),
        ({"patience": 1.5}, TypeError, "patience"),
        ({"least": 0}, ValueError, "least"),
        ({"least": 1.0}, ValueError, "least"),
        ({"least": "1"}, TypeError, "least"),
        ({"least": float("nan")}, ValueError, "least"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments, error, name):
    with pytest.raises(error, match=f"^{name}: expected a "):
        LossWatch(**arguments)
