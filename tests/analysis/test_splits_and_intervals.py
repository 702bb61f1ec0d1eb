"""Splits of a series: every step in one part, none shared; intervals whose coverage is what is said."""

import statistics

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.analysis import block_split, ensemble_interval, interleaved_split, quantile_interval

SPLITS = {
    "blocks": lambda steps, shares, warm_up: block_split(steps, shares, warm_up),
    "steps in turn": lambda steps, shares, warm_up: interleaved_split(steps, shares, warm_up, length=warm_up + 1),
    "pieces in turn": lambda steps, shares, warm_up: interleaved_split(steps, shares, warm_up, length=7),
}


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("shares", [(0.7, 0.15, 0.15), (2, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("warm_up", [0, 3])
def test_no_step_is_in_two_parts_and_no_target_an_input_of_another_part(name, shares, warm_up):
    masks = SPLITS[name](211, shares, warm_up)
    assert len(masks) == len(shares)
    assert all(mask.dtype == bool and mask.shape == (211,) and mask.any() for mask in masks)
    owner = np.full(211, -1)
    for i, mask in enumerate(masks):
        assert (owner[mask] == -1).all()
        owner[mask] = i
    if not warm_up:
        assert (owner >= 0).all()
        np.testing.assert_allclose([m.mean() for m in masks], np.array(shares) / sum(shares), atol=0.05)
    for t in np.flatnonzero(owner >= 0):
        before = owner[max(0, t - warm_up) : t]
        assert set(before) <= {-1, owner[t]}


def test_blocks_are_contiguous_and_in_order():
    train, validation, test = block_split(100)
    assert [list(np.flatnonzero(m)[[0, -1]]) for m in (train, validation, test)] == [[0, 69], [70, 84], [85, 99]]
    train, test = block_split(10, (1, 1), warm_up=2)
    assert [list(np.flatnonzero(m)) for m in (train, test)] == [[2, 3, 4], [7, 8, 9]]


def test_a_mask_is_the_weight_of_the_steps_in_fit():
    rng = np.random.default_rng(0)
    u, y = rng.normal(size=(2, 1, 60, 1)).astype("float32")
    layer = keras_seq.NARX(3, 1, input_delays=2, output_delays=2, return_sequences=True)
    x, true = keras.Input((None, 1)), keras.Input((None, 1))
    model = keras.Model([x, true], layer(x, targets=true)[:, 2:])
    model.compile("sgd", weighted_metrics=["mse"], loss="mse")
    for mask in interleaved_split(60, (2, 1), warm_up=2, length=10):
        found = model.evaluate(
            [u, y], y[:, 2:], sample_weight=mask[None, 2:].astype("float32"), return_dict=True, verbose=0
        )
        errors = (np.asarray(model([u, y])) - y[:, 2:])[0, mask[2:]]
        assert found["mse"] == pytest.approx(np.mean(errors**2), rel=1e-4)


def test_pieces_are_dealt_out_in_turn():
    one, two = interleaved_split(8, (1, 1), length=2)
    assert list(np.flatnonzero(one)) == [0, 1, 4, 5]
    assert list(np.flatnonzero(two)) == [2, 3, 6, 7]
    train, test = interleaved_split(12, (3, 1), warm_up=1, length=2)
    assert list(np.flatnonzero(train)) == [1, 2, 3, 7, 8, 9, 10, 11]  # two runs
    assert list(np.flatnonzero(test)) == [5]


def test_an_ensemble_with_noise_covers_what_it_says():
    rng = np.random.default_rng(0)
    true = rng.normal(size=4000)
    forecasts = true + 0.3 * rng.normal(size=(30, 4000))
    measured = true + 0.5 * rng.normal(size=4000) + 0.3 * rng.normal(size=4000)
    for level in (0.5, 0.9):
        interval = ensemble_interval(forecasts, level, noise=0.5)
        assert interval.coverage(measured) == pytest.approx(level, abs=0.03)
        assert interval.level == level
    z = statistics.NormalDist().inv_cdf(0.95)
    spread = np.sqrt(forecasts.std(axis=0, ddof=1) ** 2 + 0.25)
    np.testing.assert_allclose(interval.upper - interval.centre, z * spread)
    assert interval.width == pytest.approx(np.mean(2 * z * spread))
    alone = ensemble_interval(forecasts, 0.9)
    assert alone.coverage(measured) < 0.7, "models agree about noise"


def test_quantiles_are_put_in_order():
    interval = quantile_interval(np.array([[3.0, 1.0, 2.0], [0.0, 1.0, 2.0]]), [0.1, 0.4, 0.8])
    np.testing.assert_array_equal(interval.lower, [1, 0])
    np.testing.assert_array_equal(interval.centre, [2, 1])
    np.testing.assert_array_equal(interval.upper, [3, 2])
    assert interval.level == pytest.approx(0.7)
    assert interval.coverage([1.0, 2.5]) == 0.5


WRONG = [
    (lambda: block_split(10, (1,)), "shares: expected at least two positive numbers"),
    (lambda: block_split(10, (1, -1)), "shares: expected at least two positive numbers"),
    (
        lambda: block_split(10, (1, 1), warm_up=5),
        r"shares: expected steps beyond the warm-up of 5 in each part, got none in \[0, 1\]",
    ),
    (lambda: block_split(10, warm_up=-1), "warm_up: expected an integer of at least 0, got -1"),
    (lambda: block_split(0), "steps: expected a positive integer, got 0"),
    (lambda: interleaved_split(10, length=3), "shares: expected steps beyond"),
    (lambda: interleaved_split(10, warm_up=2, length=2), "length: expected more than warm_up=2, got 2"),
    (lambda: ensemble_interval([[1.0, 2.0]]), "forecasts: expected those of at least two models"),
    (lambda: ensemble_interval(np.ones((2, 3)), level=0), r"level: expected a number in \(0, 1\), got 0"),
    (lambda: ensemble_interval(np.ones((2, 3)), noise=-1), "noise: expected a positive number, got -1"),
    (lambda: quantile_interval(np.ones((2, 3)), [0.5, 0.1, 0.9]), "quantiles: expected at least two rising numbers"),
    (lambda: quantile_interval(np.ones((2, 3)), [0.1, 0.9]), r"forecasts: expected shape \(..., 2\)"),
    (lambda: ensemble_interval(np.ones((2, 3))).coverage([1.0]), r"true: expected shape \(3,\), got \(1,\)"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
