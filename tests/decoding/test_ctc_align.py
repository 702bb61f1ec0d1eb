"""Forced alignment against all paths that collapse to the labels."""

import numpy as np
import pytest
import tensorflow as tf
from ctc_paths import paths, settings

from keras_seq.decoding.ctc_align import ctc_align

# with the blank 0: repeats, none, more than fit, one that needs every frame of the first row
LABELS = np.array([[1, 1, 2], [2, 1, 0], [0, 0, 0], [1, 1, 1], [2, 0, 0], [0, 2, 0]])


@pytest.mark.parametrize(("seed", "blank", "jit_compile"), [(0, 0, False), (1, 0, True), (2, 2, True)])
def test_is_the_best_of_all_paths_that_collapse_to_the_labels(seed, blank, jit_compile):
    logits, mask = settings(seed, 30, 5, 3)
    mask[3] = [False, True, True, True, True]
    logits[3] = np.nan_to_num(logits[3])
    labels = (np.tile(LABELS, (5, 1)) + blank) % 3
    columns, scores = tf.function(lambda *x: ctc_align(*x, blank), jit_compile=jit_compile)(logits, labels, mask)
    possible = 0
    for r in range(30):
        wanted = tuple(w for w in labels[r] if w != blank)
        found = [(logp, path) for path, said, logp in paths(logits[r], mask[r], blank) if said == wanted]
        assert np.all(columns[r][~mask[r]] == -1)
        if not found:
            assert np.isneginf(scores[r])
            assert np.all(columns[r] == -1)
            continue
        possible += 1
        logp, path = max(found)
        assert scores[r].numpy() == pytest.approx(logp, rel=1e-9)
        said = columns[r].numpy()[mask[r]]
        np.testing.assert_array_equal(np.where(said >= 0, labels[r][said], blank), path)
        # each column in its turn, none left out: what a path alone does not say where frames are hidden
        assert sorted(set(said[said >= 0])) == [c for c in range(3) if labels[r, c] != blank]
        assert np.all(np.diff(said[said >= 0]) >= 0)
    assert possible >= 20


def test_one_label_on_both_sides_of_a_hidden_frame_is_one():
    logits = np.log([[[0.1, 0.9], [0.5, 0.5], [0.1, 0.9]]])
    columns, scores = ctc_align(logits, np.array([[1]]), np.array([[True, False, True]]))
    assert columns.numpy().tolist() == [[0, -1, 0]]
    assert np.exp(scores[0]) == pytest.approx(0.81)


def test_one_trace_for_all_shapes():
    traces = []
    any_shape = [tf.TensorSpec((None, None, 3)), tf.TensorSpec((None, None), "int32")]

    @tf.function(input_signature=any_shape)
    def align(logits, labels):
        traces.append(1)
        return ctc_align(logits, labels)

    rng = np.random.default_rng(0)
    for batch, time, length in ((1, 1, 1), (2, 6, 2), (2, 3, 0)):
        logits = rng.normal(size=(batch, time, 3)).astype("float32")
        labels = rng.integers(1, 3, size=(batch, length)).astype("int32")
        columns, scores = align(logits, labels)
        again, expected = ctc_align(logits, labels)
        np.testing.assert_array_equal(columns, again)
        np.testing.assert_allclose(scores, expected)
        assert set(np.unique(columns)) - {-1} == set(range(length))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": np.array([[1, 3], [1, 1]])}, "labels: expected integers from 0 to 2, got 3"),
        ({"labels": np.array([[1, -1], [1, 1]])}, "labels: expected integers from 0 to 2, got -1"),
        ({"labels": np.array([1, 2])}, r"labels: expected shape \(2, n\), got \(2,\)"),
        ({"labels": np.ones((3, 2), "int32")}, r"labels: expected shape \(2, n\), got \(3, 2\)"),
        ({"blank": 3}, "blank: expected the index of one of the 3 logits, got 3"),
        ({"mask": np.ones((2, 5), bool)}, "mask: expected booleans of shape"),
        ({"logits": np.zeros((4, 3))}, "logits: expected shape"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments, message):
    given = {"logits": np.zeros((2, 4, 3)), "labels": np.array([[1, 2], [2, 0]]), **arguments}
    with pytest.raises((TypeError, ValueError), match=message):
        ctc_align(**given)
