"""CTC's loss against all paths written out, its gradient against differences, and training under masks."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from ctc_paths import collapsed, labellings, log_softmax, settings

import keras_seq
from keras_seq.decoding.ctc import CTCLoss, ctc_check_labels, ctc_loss

# with the blank 0: repeats, padding in other places, none, more than fit
LABELS = np.array([[1, 1, 2, 0], [0, 2, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [2, 0, 0, 0], [1, 2, 0, 0]])


def given(seed, blank):
    logits, mask = settings(seed, 6, 5, 3)
    mask[5] = False, True, False, True, True
    logits[5] = np.random.default_rng(seed).normal(size=(5, 3))
    return logits, mask, (LABELS + blank) % 3


def expected(logits, mask, labels, blank):
    sums = [labellings(x, m, blank) for x, m in zip(logits, mask, strict=True)]
    return np.array([-s[tuple(w for w in row if w != blank)] for s, row in zip(sums, labels, strict=True)])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("seed", "blank"), [(0, 0), (1, 2)])
def test_is_the_sum_over_all_paths_and_its_slopes(seed, blank, jit_compile):
    logits, mask, labels = given(seed, blank)
    weights = np.arange(1.0, 7.0)

    @tf.function(jit_compile=jit_compile)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = ctc_loss(labels, x, mask, blank)
        return losses, tape.gradient(losses, x, output_gradients=tf.constant(weights))

    losses, slopes = run(tf.constant(logits))
    values = expected(logits, mask, labels, blank)
    assert losses.dtype == slopes.dtype == tf.float64
    assert np.isposinf(values).tolist() == [False, False, False, True, False, False]
    np.testing.assert_allclose(losses, values, rtol=1e-12)
    differences = np.zeros_like(logits)
    for t, v in itertools.product(range(5), range(3)):
        moved = [logits.copy(), logits.copy()]
        moved[0][:, t, v] += 1e-6
        moved[1][:, t, v] -= 1e-6
        ends = [expected(x, mask, labels, blank) for x in moved]
        with np.errstate(invalid="ignore"):
            differences[:, t, v] = np.where(np.isinf(values) | ~mask[:, t], 0, (ends[0] - ends[1]) / 2e-6)
    np.testing.assert_allclose(slopes, weights[:, None, None] * differences, atol=1e-7)
    assert np.all(slopes.numpy()[~mask] == 0), "what is hidden gets no gradient, nor NaN"
    assert np.all(slopes.numpy()[3] == 0), "nor what is impossible"


def test_long_sequences_equal_keras():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 300, 20)).astype("float32"), rng.integers(1, 20, size=(4, 30))
    labels[1, 12:] = 0
    theirs = keras.losses.CTC(reduction=None)(labels, logits)
    ours = tf.function(ctc_loss)
    np.testing.assert_allclose(ours(labels, logits), theirs, rtol=1e-5)
    half = ours(labels, logits.astype("float16"))
    assert half.dtype == tf.float32
    np.testing.assert_allclose(half, theirs, rtol=1e-2)


@pytest.mark.parametrize(("frames", "count", "scale"), [(400, 150, 1.0), (400, 150, 5.0), (1500, 100, 1.0)])
def test_gradient_of_long_sequences_in_float32(frames, count, scale):
    """As in float64, and nothing is left over in any frame."""
    rng = np.random.default_rng(0)
    logits = (scale * rng.normal(size=(2, frames, 30))).astype("float32")
    labels, mask = rng.integers(1, 30, size=(2, count)), rng.random((2, frames)) < 0.95

    @tf.function
    def differentiated(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = ctc_loss(labels, x, mask)
        return losses, tape.gradient(losses, x)

    losses, slopes = differentiated(tf.constant(logits))
    exact_losses, exact = differentiated(tf.constant(logits, "float64"))
    np.testing.assert_allclose(losses, exact_losses, rtol=1e-6)
    assert np.max(np.abs(exact)) > 0.1
    np.testing.assert_allclose(slopes, exact, atol=5e-5)
    assert np.max(np.abs(np.sum(slopes, axis=-1, dtype="float64"))) < 5e-6


def test_one_trace_for_all_shapes():
    traces = []
    any_shape = [tf.TensorSpec((None, None), "int32"), tf.TensorSpec((None, None, 3), "float64")]

    @tf.function(input_signature=any_shape)
    def run(labels, x):
        traces.append(1)
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = ctc_loss(labels, x)
        return losses, tape.gradient(losses, x)

    rng = np.random.default_rng(0)
    for batch, time, length in ((1, 1, 1), (3, 5, 2), (2, 3, 0)):
        logits = rng.normal(size=(batch, time, 3))
        labels = rng.integers(1, 3, size=(batch, length)).astype("int32")
        losses, slopes = run(labels, logits)
        np.testing.assert_allclose(losses, expected(logits, np.ones((batch, time), bool), labels, 0), rtol=1e-12)
        assert np.abs(slopes).max() > 0.01
    assert len(traces) == 1


def test_labels_outside_the_vocabulary():
    logits = np.zeros((2, 4, 3))
    with pytest.raises(ValueError, match="labels: expected integers from 0 to 2, got 3"):
        ctc_loss(np.array([[1, 2], [1, 3]]), logits)
    compiled = tf.function(lambda y: ctc_loss(y, logits))(tf.constant([[1, 2], [1, 3]]))
    assert np.isfinite(compiled[0])
    assert np.isposinf(compiled[1])


def test_minus_infinity_as_a_logit():
    """What is forbidden takes no part, in values or slopes."""
    logits = np.array([[[0.0, 1.0, -np.inf], [0.5, 0.0, -np.inf], [0.0, 0.3, 0.2]]])
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        losses = ctc_loss(np.array([[1]]), x)
    logs = log_softmax(logits[0])
    paths = [p for p in itertools.product(range(3), repeat=3) if collapsed(p, 0) == (1,)]
    total = sum(np.exp(sum(logs[t, w] for t, w in enumerate(p))) for p in paths)
    assert losses[0].numpy() == pytest.approx(-np.log(total))
    assert np.all(np.isfinite(tape.gradient(losses, x)))


def ragged(rng, rows, time, size):
    """Noise with marks: each label holds two frames of its own channel; frames between hidden by chance, some at the end."""
    x, labels = 0.1 * rng.normal(size=(rows, time, size)).astype("float32"), np.zeros((rows, 3), "int32")
    for r in range(rows):
        n = rng.integers(1, 4)
        labels[r, :n] = rng.integers(1, size, size=n)
        for i, label in enumerate(labels[r, :n]):
            x[r, 4 * i : 4 * i + 2, label] += 1
        x[r, 4 * n :] = -1.0
        x[r, 4 * rng.integers(0, n) + 3] = -1.0
    return x, labels


@pytest.mark.deep
@pytest.mark.parametrize(("bidirectional", "jit_compile"), [(False, True), (True, False)])
def test_training_under_a_masking_layer(bidirectional, jit_compile):
    rng = np.random.default_rng(0)
    x, labels = ragged(rng, 32, 14, 4)
    memory = keras_seq.LSTM(8, return_sequences=True)
    model = keras.Sequential(
        [
            keras.layers.Masking(-1.0),
            keras_seq.Bidirectional(memory) if bidirectional else memory,
            keras.layers.Dense(4),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), CTCLoss(), jit_compile=jit_compile)
    logits, mask = np.array(model(x), "float64"), np.any(x != -1, axis=-1)
    by_row = [alone(logits[r], mask[r], labels[r]) for r in range(32)]
    history = model.fit(x, labels, epochs=25, batch_size=32, verbose=0).history["loss"]
    assert history[0] == pytest.approx(np.mean(by_row), rel=1e-4)
    assert history[-1] < 0.5 * history[0]


def alone(logits, mask, labels):
    """The loss of one row without its hidden frames: in probabilities, by the recursion over the lattice."""
    p = np.exp(log_softmax(logits[mask]))
    symbols = [0]
    for label in labels[labels > 0]:
        symbols += [label, 0]
    ways = np.zeros(len(symbols))
    ways[0] = 1  # before the first frame
    for frame in p:
        new = np.zeros_like(ways)
        for s, w in enumerate(symbols):
            new[s] = ways[s] + (ways[s - 1] if s else 0)
            if s > 1 and w and w != symbols[s - 2]:
                new[s] += ways[s - 2]
            new[s] *= frame[w]
        ways = new
    return -np.log(ways[-1] + ways[-2])


@pytest.mark.deep
def test_the_loss_of_keras_does_not_take_the_mask():
    """If this fails, Keras has learned to: say so in the documentation of ours."""
    model = keras.Sequential([keras.layers.Masking(), keras_seq.SimpleRNN(3, return_sequences=True)])
    x, labels = np.ones((2, 4, 3), "float32"), np.array([[1], [2]])
    with pytest.raises(Exception, match=r"(?i)shape|dimension|compatible|broadcast"):
        keras.losses.CTC()(labels, model(x))
    assert np.isfinite(CTCLoss()(labels, model(x)))


def test_arguments_of_the_loss():
    labels, logits = np.array([[1, 1, 1], [1, 0, 0]]), np.zeros((2, 3, 2), "float32")
    each = CTCLoss(reduction=None)(labels, logits)
    assert np.isposinf(each[0])
    assert float(each[1]) == pytest.approx(np.log(8 / 6))
    counted = CTCLoss(reduction="sum", zero_infinity=True)(labels, logits)
    assert float(counted) == pytest.approx(np.log(8 / 6))
    weighted = CTCLoss(zero_infinity=True)(labels, logits, sample_weight=np.array([1.0, 3.0]))
    assert float(weighted) == pytest.approx(3 * np.log(8 / 6) / 2)
    assert np.isposinf(CTCLoss(blank=1, reduction="sum")(1 - labels, logits))
    loss = CTCLoss(blank=1, zero_infinity=True, reduction="sum", name="own", dtype="float64")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert isinstance(again, CTCLoss)
    assert again.get_config() == loss.get_config()
    assert set(loss.get_config()) == {"blank", "zero_infinity", "reduction", "name", "dtype"}
    assert again(1 - labels, logits).dtype == tf.float64
    assert float(again(1 - labels, logits)) == pytest.approx(np.log(8 / 6), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"blank": 1.0}, TypeError, "blank: expected a token, an integer, got 1.0"),
        ({"blank": -1}, ValueError, "blank: expected an integer of at least 0, got -1"),
        ({"zero_infinity": 1}, TypeError, "zero_infinity: expected True or False, got 1"),
        ({"dtype": "bfloat16"}, ValueError, "dtype: expected float32 or float64, got bfloat16"),
    ],
)
def test_wrong_arguments_of_the_loss(arguments, error, message):
    with pytest.raises(error, match=message):
        CTCLoss(**arguments)


@pytest.mark.parametrize("blank", [0, 2])
def test_labels_are_checked_by_how_many_frames_a_path_needs(blank):
    labels = (np.array([[1, 1, 2, 0], [1, 2, 1, 2], [0, 0, 0, 0], [1, 1, 1, 1], [2, 0, 0, 0]]) + blank) % 3
    needs = ctc_check_labels(labels, 7, 3, blank)
    for row, need in zip(labels, needs, strict=True):
        wanted = tuple(w for w in row if w != blank)
        for frames in range(1, 8):
            fits = any(collapsed(p, blank) == wanted for p in itertools.product(range(3), repeat=frames))
            assert fits == (frames >= need)
    mask = np.ones((5, 8), bool)
    mask[:, 4] = False
    np.testing.assert_array_equal(ctc_check_labels(labels, mask, blank=blank), needs)
    mask[0, [0, 1, 2, 7]], mask[3, 5:] = False, False
    message = "labels: 2 of 5 rows need more frames than they have, the first is row 0: 3 labels, 1 of them equal"
    with pytest.raises(ValueError, match=message + r" to the one before, need 4 frames, got 3"):
        ctc_check_labels(labels, mask, blank=blank)


@pytest.mark.parametrize(
    ("labels", "frames", "message"),
    [
        ([[1, 2], [4, 1]], 9, r"labels: expected integers from 0 to 3; 1 of 2 rows .* row 1: \[4, 1\]"),
        ([[1, -1], [3, -1]], 9, r"labels: expected integers from 0 to 3; 2 of 2 rows .* row 0: \[1, -1\]"),
        ([1, 2], 9, r"labels: expected integers of shape \(b, n\), got int64 \(2,\)"),
        ([[1.0]], 9, r"labels: expected integers of shape \(b, n\), got float64 \(1, 1\)"),
        ([[1], [2]], [1, 2, 3], r"frames: expected .* integers of shape \(\) or \(2,\), got int64 \(3,\)"),
        ([[1], [2]], 2.5, "frames: expected"),
        ([[1], [2]], [2, 0], "labels: 1 of 2 rows need more frames than they have, the first is row 1"),
    ],
)
def test_labels_that_are_wrong_are_named(labels, frames, message):
    with pytest.raises(ValueError, match=message):
        ctc_check_labels(labels, frames, vocabulary=4)
