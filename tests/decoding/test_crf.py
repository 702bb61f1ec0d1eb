"""Conditional random fields against all sequences of tags written out: loss, gradient, marginals, the best ones."""

import crf_paths
import keras
import numpy as np
import pytest
import tensorflow as tf
from crf_paths import MASK, K, T, losses, numbers, sequences, settings

import keras_seq
from keras_seq.decoding import CRFLoss, ViterbiTags, crf_check_labels, crf_loss, crf_marginals, viterbi

NAMES = crf_paths.NAMES
SCHEMES = [None, "BIO"]
WEIGHTS = np.arange(1.0, 1 + len(MASK))


def gradients(layer, scores, labels, jit_compile):
    @tf.function(jit_compile=jit_compile, input_signature=[tf.TensorSpec((None, None, K), "float64")])
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            found = crf_loss(labels, layer(x, mask=tf.constant(MASK)))
        return found, tape.gradient(found, [x, *[w.value for w in layer.weights]], tf.constant(WEIGHTS))

    return run(tf.constant(scores))


@pytest.mark.parametrize(("scheme", "jit_compile"), [pytest.param(None, False, marks=pytest.mark.deep), ("BIO", True)])
def test_is_the_sum_over_all_sequences_and_its_slopes(scheme, jit_compile):
    """Of a length that is not known, under every kind of mask, with NaN behind it."""
    layer, scores, labels = settings(1, scheme)
    found, (of_scores, *of_weights) = gradients(layer, scores, labels, jit_compile)
    weights = numbers(layer)
    np.testing.assert_allclose(found, losses(weights, scores, labels, scheme), rtol=1e-12, atol=1e-14)
    assert np.all(of_scores.numpy()[~MASK] == 0)

    def difference(change):
        ends = []
        for by in (1e-6, -1e-6):
            moved = [w.copy() for w in (scores, *weights)]
            change(moved, by)
            ends.append(losses(moved[1:], moved[0], labels, scheme))
        return (ends[0] - ends[1]) / 2e-6

    for t, j in np.ndindex(T, K):
        expected = np.where(
            MASK[:, t],
            WEIGHTS * difference(lambda m, by, t=t, j=j: m[0].__setitem__((slice(None), t, j), m[0][:, t, j] + by)),
            0,
        )
        np.testing.assert_allclose(of_scores[:, t, j], expected, atol=1e-7)
    for n, slopes in enumerate(of_weights, 1):
        for place in np.ndindex(*slopes.shape):
            expected = WEIGHTS @ difference(lambda m, by, n=n, place=place: m[n].__setitem__(place, m[n][place] + by))
            np.testing.assert_allclose(slopes.numpy()[place], expected, atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_marginals_are_sums_over_sequences(scheme):
    layer, scores, _ = settings(2, scheme)
    potentials = layer(scores, mask=MASK)
    found, pairs = crf_marginals(potentials).numpy(), crf_marginals(potentials, pairs=True).numpy()
    assert np.all(found[~MASK] == 0)
    np.testing.assert_allclose(pairs.sum(axis=2), found, atol=1e-14)
    for row, mask in enumerate(MASK):
        every = sequences(numbers(layer), scores[row], mask, scheme)
        total, steps = np.sum(np.exp(list(every.values()))), np.flatnonzero(mask)
        expected, of_pairs = np.zeros((T, K)), np.zeros((T, K, K))
        for path, score in every.items():
            for place, (before, tag) in enumerate(zip((0, *path), path, strict=False)):
                expected[steps[place], tag] += np.exp(score) / total
                of_pairs[steps[place], before, tag] += np.exp(score) / total
        np.testing.assert_allclose(found[row], expected, atol=1e-12)
        np.testing.assert_allclose(pairs[row], of_pairs, atol=1e-12)


@pytest.mark.parametrize(
    ("scheme", "n_best", "jit_compile"),
    [
        pytest.param(None, 300, False, marks=pytest.mark.deep),
        ("BIO", 4, True),
        (None, 1, False),
    ],
)
def test_viterbi_finds_the_best_sequences_in_order(scheme, n_best, jit_compile):
    layer, scores, _ = settings(3, scheme)

    @tf.function(jit_compile=jit_compile, input_signature=[tf.TensorSpec((None, None, K), "float64")])
    def run(x):
        potentials = layer(x, mask=tf.constant(MASK))
        return *viterbi(potentials, n_best), *viterbi(potentials)

    tags, totals, best, score = (x.numpy() for x in run(tf.constant(scores)))
    assert tags.dtype == best.dtype == np.int32
    for row, mask in enumerate(MASK):
        every = sequences(numbers(layer), scores[row], mask, scheme)
        expected = sorted(every.items(), key=lambda item: -item[1])[:n_best]
        there = np.full((n_best, T), -1)
        there[: len(expected), mask] = [path for path, _ in expected]
        np.testing.assert_array_equal(tags[row], there)
        np.testing.assert_allclose(totals[row, : len(expected)], [value for _, value in expected], rtol=1e-12)
        assert np.all(np.isneginf(totals[row, len(expected) :]))
    np.testing.assert_array_equal(best, tags[:, 0])
    np.testing.assert_allclose(score, totals[:, 0])


def test_of_equal_ways_the_lower_tag():
    tags, scores = viterbi(np.zeros((1, 3, 2, 2)), n_best=9)
    assert len({tuple(row) for row in tags.numpy()[0, :8]}) == 8
    assert tags.numpy()[0, 0].tolist() == [0, 0, 0]
    assert np.all(scores.numpy()[0, :8] == 0)
    assert np.isneginf(scores.numpy()[0, 8])


@pytest.mark.deep
def test_a_thousand_steps_in_float32():
    """The loss within 1e-5 of float64, also where it is small beside the sums that it is the difference of."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, (2, 1000))
    for sure in (0.0, 9.0):
        potentials = rng.normal(size=(2, 1000, 9, 9)).astype("float32")
        np.put_along_axis(potentials[0], labels[0, :, None, None], 5.0 + sure, axis=2)

        @tf.function
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                found = crf_loss(labels, x)
            return found, tape.gradient(found, x), *viterbi(x)

        short, long = (run(tf.constant(potentials, dtype)) for dtype in ("float32", "float64"))
        np.testing.assert_allclose(short[0], long[0], rtol=1e-5)
        np.testing.assert_allclose(short[1], long[1], atol=2e-5)
        assert np.abs(np.sum(short[1].numpy(), axis=(2, 3), dtype="float64")).max() < 1e-5
        np.testing.assert_array_equal(short[2], long[2])
        np.testing.assert_allclose(short[3], long[3], rtol=1e-6)


def test_what_is_impossible_has_the_loss_inf_and_no_gradient():
    layer, scores, labels = settings(0, "BIO")
    labels[0] = [0, 2, 0, 0, 0]  # "I-x" after "O"
    labels[1, 2:] = [2, 2, 0]  # at the start
    labels[2, [0, 2, 4]] = [1, 3, 0]  # none of the tags
    found, slopes = gradients(layer, scores, labels, False)
    assert np.isposinf(found).tolist() == [True, True, True, False, False, False]
    assert np.all(slopes[0].numpy()[:3] == 0)
    assert all(np.all(np.isfinite(x)) for x in slopes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1, 2, 0], [0, 2, 1]], "labels: .* got tag 2 at row 1, step 1, where its potential after tag 0 .* is -inf"),
        ([[2, 2, 0], [0, 0, 1]], "labels: .* got tag 2 at row 0, step 0, where"),
        ([[0, 0, 0], [0, 3, 0]], "labels: expected integers from 0 to 2, got 3 at row 1, step 1"),
        ([[0, 0, -1], [0, 1, 0]], "labels: expected integers from 0 to 2, got -1 at row 0, step 2"),
        ([[0, 0, 0.5], [0, 1, 0]], "labels: expected integers from 0 to 2, got 0.5 at row 0, step 2"),
        ([[0, 0], [0, 1]], r"labels: expected shape \(2, 3\), got \(2, 2\)"),
    ],
)
def test_labels_that_are_wrong_are_named(labels, message):
    potentials = keras_seq.CRF(NAMES, "BIO")(np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match=message):
        crf_loss(np.array(labels), potentials)


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        (
            [[1, 2, 0], [0, 2, 1]],
            {},
            "labels: 1 of 2 rows are wrong, the first is row 1: at step 1 'I-x' is forbidden after 'O'",
        ),
        ([[2, 2, 0], [2, 2, 1]], {}, "labels: 2 of 2 .* row 0: at step 0 'I-x' is forbidden at the start"),
        ([[0, 7, 0]], {}, "row 0: at step 1 expected a tag from 0 to 2, got 7"),
        ([[0, 7, 0]], {"mask": np.array([[True, False, False]])}, None),
        ([[0, 7, 2]], {"mask": np.array([[True, False, True]])}, "at step 2 'I-x' is forbidden after 'O'"),
        ([[0, 0, 0]], {"mask": np.zeros((1, 3), bool)}, "expected a real step in each row, got none"),
        ([[0, 1, 2]], {"mask": np.zeros((1, 2), bool)}, r"mask: expected booleans of shape \(1, 3\)"),
        ([[2, 0, 2]], {"tags": 3, "scheme": None}, None),
        ([[2, 3, 2]], {"tags": 3, "scheme": None}, "at step 1 expected a tag from 0 to 2, got 3"),
        ([[0, 1]], {"tags": ["O", "B-x", "E-x"], "scheme": "BIOES"}, "at step 1 'B-x' is forbidden at the end"),
        ([[0.0]], {}, r"labels: expected integers of shape \(b, t\), got float64"),
        ([[0]], {"tags": 1}, "tags: expected two or more"),
    ],
)
def test_labels_are_checked_before_training(labels, given, message):
    arguments = {"tags": NAMES, "scheme": "BIO", **given}
    if message is None:
        crf_check_labels(np.array(labels), **arguments)
        return
    with pytest.raises(ValueError, match=message):
        crf_check_labels(np.array(labels), **arguments)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CRFLoss(reduction=3), TypeError, "reduction: expected the name"),
        (lambda: CRFLoss(name=3), TypeError, "name: expected a string or None"),
        (lambda: CRFLoss(dtype="float16"), ValueError, "dtype: expected float32 or float64, got float16"),
        (lambda: viterbi(np.zeros((1, 2, 3, 4))), ValueError, r"potentials: expected shape \(b, t, k, k\)"),
        (lambda: viterbi(np.zeros((1, 2, 3))), ValueError, "potentials: expected shape"),
        (lambda: viterbi(np.zeros((1, 0, 3, 3))), ValueError, "potentials: expected shape"),
        (lambda: crf_marginals(np.zeros((1, 2, 1, 1))), ValueError, "k of 2 or more"),
        (lambda: crf_marginals("tags"), TypeError, "potentials: expected a tensor of numbers"),
        (lambda: crf_marginals(np.zeros((1, 2, 3, 3)), pairs=1), TypeError, "pairs: expected True or False"),
        (lambda: viterbi(np.zeros((1, 2, 3, 3)), n_best=0), ValueError, "n_best: expected a positive integer"),
        (lambda: ViterbiTags(n_best=1.5), TypeError, "n_best: expected a positive integer"),
        (lambda: ViterbiTags(best=1), TypeError, "unknown argument 'best'"),
        (
            lambda: viterbi(np.zeros((0, 2, 3, 3))),
            ValueError,
            "potentials: expected shape .* with b and t of 1 or more",
        ),
        (
            lambda: CRFLoss()([["O"]], np.zeros((1, 1, 2, 2))),
            TypeError,
            "labels: expected a tensor of numbers, got one of",
        ),
        (lambda: CRFLoss()(None, np.zeros((1, 1, 2, 2))), TypeError, "labels: expected a tensor of numbers, got None"),
        (
            lambda: CRFLoss()(np.zeros((2, 3)), np.zeros((2, 3, 2, 2)), np.ones(3)),
            ValueError,
            r"sample_weight: expected one for each row, \(b,\), got shape \(3,\)",
        ),
        (lambda: crf_check_labels([[0], [0, 1]], 3), TypeError, r"labels: expected an array, got \[\[0\], \[0, 1\]\]"),
        (
            lambda: CRFLoss()(np.zeros((2, 3)), np.zeros((2, 3, 2, 2)), np.ones((2, 3))),
            ValueError,
            r"sample_weight: expected one for each row, \(b,\), got shape \(2, 3\)",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_arguments_of_the_loss():
    potentials, labels = np.log([[[[0.6, 0.4]] * 2, [[0.9, 0.1], [0.5, 0.5]]]] * 2), np.array([[0, 0], [1, 1]])
    each = -np.log([0.54, 0.2])
    np.testing.assert_allclose(CRFLoss(reduction=None)(labels, potentials), each, rtol=1e-6)
    assert float(CRFLoss(reduction="sum")(labels, potentials)) == pytest.approx(each.sum(), rel=1e-6)
    weighted = CRFLoss()(labels, potentials, sample_weight=np.array([1.0, 3.0]))
    assert float(weighted) == pytest.approx(each @ [1, 3] / 2, rel=1e-6)
    loss = CRFLoss(reduction="sum", name="own", dtype="float64")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    assert set(loss.get_config()) == {"reduction", "name", "dtype"}
    assert again(labels, potentials).dtype == tf.float64


@pytest.mark.deep
@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_second_derivatives_are_those_of_the_sums_written_out(jit_compile):
    """Of a loop under plain autodiff, in one direction: eagerly, in a graph, under XLA."""
    rng = np.random.default_rng(0)
    potentials, direction = (tf.constant(rng.normal(size=(2, 4, K, K))) for _ in range(2))
    labels = tf.constant([[0, 1, 2, 0], [2, 2, 1, 0]])

    def written_out(x):
        scores, found = x[:, 0, 0], tf.gather(x[:, 0, 0], labels[:, 0], batch_dims=1)
        for t in range(1, 4):
            found += tf.gather_nd(x[:, t], labels[:, t - 1 : t + 1], batch_dims=1)
            scores = tf.reduce_logsumexp(scores[:, :, None] + x[:, t], axis=1)
        return tf.reduce_logsumexp(scores, axis=1) - found

    def second(loss):
        with tf.GradientTape() as outer:
            outer.watch(potentials)
            with tf.GradientTape() as inner:
                inner.watch(potentials)
                losses = loss(potentials)
            along = tf.reduce_sum(inner.gradient(losses, potentials) * direction)
        return outer.gradient(along, potentials)

    ours = lambda: second(lambda x: crf_loss(labels, x))  # noqa: E731
    found = ours() if jit_compile is None else tf.function(ours, jit_compile=jit_compile)()
    np.testing.assert_allclose(found, second(written_out), atol=1e-13)


@pytest.mark.parametrize("dtype", [pytest.param("float16", marks=pytest.mark.deep), "bfloat16"])
def test_sixteen_bits_are_summed_in_more(dtype):
    potentials = keras.ops.cast(np.random.default_rng(0).normal(size=(2, 300, 4, 4)), dtype)
    labels = np.zeros((2, 300), "int32")
    exact = crf_loss(labels, keras.ops.cast(potentials, "float64"))
    found = crf_loss(labels, potentials)
    assert found.dtype == crf_marginals(potentials).dtype == tf.float32
    np.testing.assert_allclose(found, exact, rtol=1e-6)
