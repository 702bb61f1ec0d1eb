"""Scores of spans: those of seqeval, over batches, of tags, scores and potentials, in `fit` and saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.metrics import SpanScores

BIO = ["O", "B-a", "I-a", "B-b", "I-b"]
BIOES = ["O", *(f"{p}-{t}" for t in "ab" for p in "BIES")]
# names, true rows, found rows; what seqeval 1.2.2 gives (precision, recall, F1), micro and macro
SEQEVAL = [
    (
        BIO,
        ["I-a I-a I-b O B-b", "O B-a", "I-a"],
        ["I-a I-a I-b O B-b", "O B-a", "B-b"],
        [0.8, 0.8, 0.8],
        [0.8333333, 0.8333333, 0.8],
    ),
    (
        BIO,
        ["O B-a", "I-b B-b B-a B-a O", "B-a"],
        ["B-a I-a", "I-b B-b B-a B-a B-a", "B-b"],
        [0.5714286, 0.6666667, 0.6153846],
        [0.5833333, 0.75, 0.65],
    ),
    (BIO, ["O I-a B-b", "B-a I-a", "I-a"], ["O I-a B-b", "B-a I-a", "I-a"], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
    (
        BIO,
        ["B-b I-a B-a", "B-b B-a O I-a", "I-a"],
        ["O I-a B-a", "B-b B-b O I-a", "B-a"],
        [0.8333333, 0.7142857, 0.7692308],
        [0.75, 0.65, 0.6944444],
    ),
    (BIO, ["O B-a", "B-a"], ["O B-a", "B-a"], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),  # one type alone
    (
        BIOES,
        ["E-a", "B-b S-b B-b S-b", "E-b B-a B-b"],
        ["O", "B-b E-a B-b S-b", "B-b B-a B-b"],
        [0.8571429, 0.75, 0.8],
        [0.75, 0.6666667, 0.7045455],
    ),
    (
        BIOES,
        ["S-a", "B-b S-a I-a B-a I-a S-a", "I-a O B-a S-b"],
        ["O", "B-b S-a E-b B-a I-a O", "B-b I-a I-a S-b"],
        [0.5714286, 0.4444444, 0.5],
        [0.5833333, 0.6428571, 0.5333333],
    ),
    (
        BIOES,
        ["B-a I-a I-b B-b", "O I-b", "I-a E-b I-a"],
        ["E-b B-b I-b B-b", "O I-b", "I-a I-a I-a"],
        [0.4, 0.2857143, 0.3333333],
        [0.25, 0.25, 0.25],
    ),
    (
        BIOES,
        ["B-b I-a B-a E-b", "S-b S-b S-b", "B-a B-b O"],
        ["B-b I-a B-a S-a", "S-a B-b S-b", "B-a B-b O"],
        [0.7777778, 0.7777778, 0.7777778],
        [0.8, 0.8333333, 0.775],
    ),
]


def arrays(names, there, found):
    """`(y_true, y_pred)`, each row with a hidden step before it and in it, -1 and any label there."""
    rows = [[row.split() for row in side] for side in (there, found)]
    length = 3 + max(map(len, rows[0]))
    y = np.full((2, len(there), length), -1)
    for side, sentences in enumerate(rows):
        for row, tags in enumerate(sentences):
            places = [1, *range(3, 2 + len(tags))][: len(tags)]
            y[side, row, places] = [names.index(tag) for tag in tags]
    y[0][y[1] < 0] = 2
    return y


def scores(metric):
    return [float(metric.result()[name]) for name in ("precision", "recall", "f1")]


@pytest.mark.parametrize(("names", "there", "found", "micro", "macro"), SEQEVAL)
def test_equal_to_seqeval_however_rows_are_divided(names, there, found, micro, macro):
    y_true, y_pred = arrays(names, there, found)
    for average, expected in (("micro", micro), ("macro", macro)):
        metric = SpanScores(names, average)
        for rows in np.array_split(np.arange(len(there)), 2):
            metric.update_state(y_true[rows], y_pred[rows])
        np.testing.assert_allclose(scores(metric), expected, rtol=1e-6)


def test_tags_scores_and_potentials_are_one():
    rng = np.random.default_rng(0)
    y_true, logits = rng.integers(0, 5, (4, 9)), rng.normal(size=(4, 9, 5)).astype("float32")
    mask = rng.random((4, 9)) < 0.8
    tags = np.where(mask, logits.argmax(-1), -1)
    carried = keras.layers.Masking()(np.where(mask[..., None], logits, 0))
    potentials = keras_seq.CRF(BIO)(logits, mask=mask)  # of weights that are zeros

    def of(y_pred, **compiled):
        metric = SpanScores(BIO)
        tf.function(lambda y: metric.update_state(y, y_pred), **compiled)(y_true)
        return scores(metric)

    found = [of(tags), of(carried), of(potentials, jit_compile=True)]
    assert found[0] == found[1] == found[2]
    assert 0 < found[0][2] < 1


def test_rows_are_weighted_and_a_metric_can_be_reset():
    y_true, y_pred = np.array([[1, 0], [1, 0]]), np.array([[1, 0], [0, 1]])
    metric = SpanScores(BIO)
    metric.update_state(y_true, y_pred, sample_weight=np.array([3.0, 1.0]))
    assert scores(metric) == pytest.approx([0.75] * 3)
    metric.reset_state()
    assert scores(metric) == [0, 0, 0]
    metric.update_state(y_true[1:], y_pred[1:])
    assert scores(metric) == [0, 0, 0]


def test_survives_its_config():
    metric = SpanScores(BIOES, "macro", name="own", dtype="float64")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert again.get_config() == metric.get_config()
    assert (again.tags, again.average, again.dtype) == (BIOES, "macro", "float64")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SpanScores(["O", "noun"]), ValueError, "tags: expected 'O', or"),
        (lambda: SpanScores(3), TypeError, "tags: expected a list of names"),
        (lambda: SpanScores(BIO, "weighted"), ValueError, "average: expected one of"),
        (
            lambda: SpanScores(BIO).update_state(np.zeros((2, 3)), np.zeros((2, 4))),
            ValueError,
            r"y_true: expected shape \(2, 4\)",
        ),
        (
            lambda: SpanScores(BIO).update_state(np.zeros((2, 3)), np.zeros((2, 3, 4))),
            ValueError,
            "y_pred: expected potentials",
        ),
        (
            lambda: SpanScores(BIO).update_state(None, np.zeros((2, 3))),
            TypeError,
            "y_true: expected a tensor of numbers",
        ),
        (
            lambda: SpanScores(BIO).update_state(np.zeros((2, 3)), np.full((2, 3), 5)),
            ValueError,
            "y_pred: expected integers from 0 to 4, got 5 at row 0, step 0",
        ),
        (
            lambda: SpanScores(BIO).update_state(np.zeros((2, 3)), np.zeros((2, 3)), np.array([1.0, -1.0])),
            ValueError,
            "sample_weight: expected numbers of at least 0, got -1.0",
        ),
        (
            lambda: SpanScores(BIO).update_state(np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 3))),
            ValueError,
            r"sample_weight: expected one for each row, \(b,\), got shape \(2, 3\)",
        ),
    ],
)
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
