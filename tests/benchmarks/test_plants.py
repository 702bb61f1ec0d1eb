"""The benchmark of plants: its simulated tanks, and how it cuts series and fits linear nets."""

import pathlib
import sys

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def plants():
    sys.path.insert(0, str(FOLDER))
    try:
        import plants

        yield plants
    finally:
        sys.path.remove(str(FOLDER))


def test_tanks_at_rest_and_full(plants):
    """Without change the levels are those of the equations: k1 sqrt(x1) = k4 u, k3 sqrt(x2) = k2 sqrt(x1)."""
    rng = np.random.default_rng(0)
    level = plants.tanks(np.full(400, 2.0), rng, noise=0)[-1]
    assert level == pytest.approx((0.09 * 2 / 0.1) ** 2, rel=1e-3)
    assert plants.tanks(np.full(200, 5.0), rng, noise=0)[-1] == pytest.approx(10)


def test_a_linear_net_is_that_of_least_squares(plants):
    rng = np.random.default_rng(0)
    series = rng.normal(size=(200, 2))
    for t in range(3, 200):
        series[t, 1] = 0.5 * series[t - 1, 1] - 0.2 * series[t - 3, 1] + series[t - 2, 0] + 0.3
    net = plants.Net(None, [1, 2, 3], 3, seed=0)
    plants.least_squares(net, series)
    np.testing.assert_allclose(net.free_run(series), series[3:, 1], atol=1e-4)
    for loop, model in (("open", net.opened), ("closed", net.closed)):
        inputs, targets = net.pieces(series, 20, loop)
        np.testing.assert_allclose(model.predict(inputs, verbose=0), targets, atol=1e-4)


def test_a_linear_filter_needs_its_memory(plants):
    series = np.random.default_rng(0).normal(size=(4000, 2))
    series[:, 1] = np.convolve(series[:, 0], [0, 0, 0, 1])[: len(series)]
    assert plants.finite_memory(series, 4, series) < 1e-9
    assert plants.finite_memory(series, 3, series) > 0.9
