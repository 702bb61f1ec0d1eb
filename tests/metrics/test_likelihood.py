"""Perplexity and bits per character: against NumPy, over ragged batches, with weights, in `fit`, saved."""

import keras
import numpy as np
import pytest

from keras_seq.metrics.likelihood import BitsPerCharacter, Perplexity

METRICS = [(Perplexity, np.exp), (BitsPerCharacter, lambda nats: nats / np.log(2))]


def batches(pad=0):
    """Three batches of different shapes, targets padded, with logits and weights."""
    rng = np.random.default_rng(0)
    for rows, steps in ((4, 7), (1, 3), (2, 12)):
        targets = rng.integers(1, 6, (rows, steps))
        for row, length in enumerate(rng.integers(1, steps + 1, rows)):
            targets[row, length:] = pad
        targets[0, 0] = pad  # a gap before what is real
        yield targets, rng.normal(scale=3, size=(rows, steps, 6)).astype("float32"), rng.uniform(size=(rows, steps))


def expected(pad, weigh):
    """The mean of -ln P, target by target."""
    total = count = 0
    for targets, logits, weights in batches(0 if pad is None else pad):
        for place in np.ndindex(targets.shape):
            if targets[place] != pad:
                p = np.exp(logits[place].astype("float64"))
                total -= weigh(weights, place) * np.log(p[targets[place]] / p.sum())
                count += weigh(weights, place)
    return total / count


@pytest.mark.parametrize(("metric", "scaled"), METRICS)
@pytest.mark.parametrize("pad", [0, 3, -1, None])
@pytest.mark.parametrize("kind", ["none", "token", "row"])
def test_equal_to_numpy_over_ragged_batches(metric, scaled, pad, kind):
    weigh = {"none": lambda w, p: 1, "token": lambda w, p: w[p], "row": lambda w, p: w[p[0], 0]}[kind]
    metric = metric(pad)
    for targets, logits, weights in batches(0 if pad is None else pad):
        if pad is not None:
            logits = np.where((targets == pad)[..., None], np.nan, logits)  # what is hidden is not looked at
        given = {"none": None, "token": weights, "row": weights[:, 0]}[kind]
        metric.update_state(targets, logits, sample_weight=given)
    np.testing.assert_allclose(metric.result(), scaled(expected(pad, weigh)), rtol=1e-5)
    metric.reset_state()
    assert np.isnan(metric.result())
    metric.update_state(np.array([1, 2]), np.zeros((2, 8)))  # a target per row
    np.testing.assert_allclose(metric.result(), scaled(np.log(8)), rtol=1e-6)


@pytest.mark.parametrize("jit", [True, False])
def test_in_fit_batches_count_by_their_tokens(jit):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 4, 3)).astype("float32"), rng.integers(1, 6, (5, 4))
    y[0, 1:], y[4, :3] = 0, 0
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(6)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=[Perplexity(), BitsPerCharacter()], jit_compile=jit)
    found = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
    p = np.exp(model.predict(x, verbose=0).astype("float64"))
    nats = -np.log(np.take_along_axis(p, y[..., None], -1)[..., 0] / p.sum(-1))[y != 0].mean()
    np.testing.assert_allclose(found["perplexity"], np.exp(nats), rtol=1e-5)
    np.testing.assert_allclose(found["bits_per_character"], nats / np.log(2), rtol=1e-5)


@pytest.mark.parametrize("metric", [Perplexity, BitsPerCharacter])
def test_saved_by_its_configuration(metric):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric(pad=4, name="held_out")))
    assert (type(again), again.pad, again.name) == (metric, 4, "held_out")
    assert keras.saving.get_registered_name(metric) == f"keras_seq>{metric.__name__}"


@pytest.mark.parametrize("metric", [Perplexity, BitsPerCharacter])
def test_wrong_inputs_are_named(metric):
    for pad in (1.0, True, "0"):
        with pytest.raises(TypeError, match="pad"):
            metric(pad)
    targets = np.ones((2, 3), int)
    with pytest.raises(ValueError, match="y_pred: expected logits"):
        metric().update_state(targets, np.zeros((2, 3)))
    for shape in ((3, 2), (2, 3, 1), (3,), (2, 1)):
        with pytest.raises(ValueError, match="sample_weight: expected"):
            metric().update_state(targets, np.zeros((2, 3, 4)), sample_weight=np.ones(shape))
