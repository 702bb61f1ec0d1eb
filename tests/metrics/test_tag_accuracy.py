"""The part of the tags that is right: of tags, scores and potentials, under masks and weights, in `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.decoding import CRFLoss
from keras_seq.metrics import SpanScores, TagAccuracy

K = 4
RNG = np.random.default_rng(0)
MASK = RNG.random((5, 7)) < 0.7  # holes, and steps hidden at both ends
TRUE = np.where(MASK, RNG.integers(0, K, MASK.shape), 9)  # no tag where nothing is real
SCORES = np.where(MASK[..., None], RNG.normal(size=(*MASK.shape, K)) + 2 * np.eye(K + 6)[TRUE][..., :K], 0)
WEIGHTS = {None: None, "rows": RNG.uniform(0.5, 2, 5), "column": RNG.uniform(0.5, 2, (5, 1))}
WEIGHTS["steps"] = RNG.uniform(0, 1, MASK.shape).round(1)


def predictions():
    return {
        "tags": np.where(MASK, SCORES.argmax(-1), -1),
        "scores": keras.layers.Masking()(SCORES),
        "potentials": keras_seq.CRF(K)(SCORES, mask=MASK),  # of weights that are zeros
    }


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("kind", ["tags", pytest.param("scores", marks=pytest.mark.deep), "potentials"])
def test_is_the_mean_over_real_steps(kind, weights):
    y_pred, weight = predictions()[kind], WEIGHTS[weights]
    each = MASK * (1 if weight is None else weight.reshape(5, -1))
    expected = np.sum(each * (SCORES.argmax(-1) == TRUE)) / np.sum(each)
    metric = TagAccuracy()
    metric.update_state(TRUE, y_pred, weight)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
    assert 0.3 < expected < 1


def test_rows_may_be_divided_and_a_graph_may_be_compiled():
    potentials, metric = predictions()["potentials"], TagAccuracy(dtype="float64")
    update = tf.function(metric.update_state, jit_compile=True, reduce_retracing=True)
    for rows in (slice(0, 2), slice(2, 5)):
        update(tf.constant(TRUE[rows]), potentials[rows])
    assert float(metric.result()) == pytest.approx(np.mean((SCORES.argmax(-1) == TRUE)[MASK]), rel=1e-12)
    metric.reset_state()
    assert float(metric.result()) == 0


@pytest.mark.deep
@pytest.mark.parametrize("crf", [True, False])
def test_in_fit(crf):
    last = [keras_seq.CRF(K)] if crf else []
    first = keras.layers.Dense(K, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((None, K)), keras.layers.Masking(), first, *last])
    loss = CRFLoss() if crf else keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=9)
    model.compile("adam", loss, metrics=[TagAccuracy(name="accuracy")], jit_compile=False)
    x, y = SCORES.astype("float32"), TRUE.copy()
    history = model.fit(x, y, batch_size=2, validation_data=(x, y), verbose=0).history
    metric = TagAccuracy()
    metric.update_state(TRUE, model(x))
    assert history["val_accuracy"][0] == pytest.approx(float(metric.result()), rel=1e-6)
    assert 0 < history["accuracy"][0] < 1


@pytest.mark.parametrize(
    ("make", "label"),
    [(lambda: SpanScores(["O", "B-a", "I-a", "B-b"]), 4), (TagAccuracy, -1), (TagAccuracy, 0.5)],
)
def test_a_label_that_is_none_is_named_and_in_a_graph_makes_the_score_nan(make, label):
    metric, labels = make(), np.where(MASK, TRUE, 0.0)
    labels[1, 4] = label  # at a step that is real
    potentials = predictions()["potentials"]
    with pytest.raises(ValueError, match=f"y_true: expected integers from 0 to 3, got {label} at row 1, step 4"):
        metric.update_state(labels, potentials)
    metric.reset_state()
    tf.function(metric.update_state)(tf.constant(labels), potentials)
    assert np.all(np.isnan(keras.tree.flatten(metric.result())))


def test_keras_does_not_read_potentials():
    """Its accuracy fails, or where steps are as many as tags compares what does not belong together: not in our hands."""
    potentials, labels = keras_seq.CRF(3)(np.zeros((2, 5, 3))), np.zeros((2, 5), int)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        keras.metrics.SparseCategoricalAccuracy().update_state(labels, potentials)
    with pytest.raises(ValueError, match="rank"):
        keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, potentials)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TagAccuracy(name=3), TypeError, "name: expected a string or None"),
        (
            lambda: TagAccuracy().update_state(np.zeros((2, 3)), np.zeros((2, 4))),
            ValueError,
            r"y_true: expected shape \(2, 4\), got \(2, 3\)",
        ),
        (
            lambda: TagAccuracy().update_state(np.zeros((2, 3)), np.zeros((2, 3, 4, 5))),
            ValueError,
            r"y_pred: expected potentials \(b, t, k, k\), scores \(b, t, k\) or tags \(b, t\), got shape \(2, 3, 4, 5\)",
        ),
        (
            lambda: TagAccuracy().update_state([["O"]], [[0]]),
            TypeError,
            "y_true: expected a tensor of numbers, got one of",
        ),
        (
            lambda: TagAccuracy().update_state(np.zeros((2, 3)), np.zeros((2, 3)), np.array([1.0, -1.0])),
            ValueError,
            "sample_weight: expected numbers of at least 0, got -1.0",
        ),
        (
            lambda: TagAccuracy().update_state(np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 4))),
            ValueError,
            r"sample_weight: expected one for each row or step, \(b,\) or \(b, t\), got shape \(2, 4\)",
        ),
    ],
)
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
