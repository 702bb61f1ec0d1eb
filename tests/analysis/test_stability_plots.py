"""Pictures: what is drawn is what was given, each in the Axes it was given, and readable without colour."""

import math

import matplotlib.axes
import numpy as np
import pytest
from matplotlib.figure import Figure

import keras_seq
from keras_seq import analysis
from keras_seq.analysis import (
    fit_arx,
    forecast_errors,
    gradient_flow,
    lyapunov_spectrum,
    memory_curves,
    plot_correlation,
    plot_forecast_errors,
    plot_forecasts,
    plot_gate,
    plot_gradient_flow,
    plot_lyapunov_spectrum,
    plot_memory_curves,
    plot_spectrum,
    plot_state_gradients,
    residual_tests,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 30, 3)).astype("float32")


@pytest.fixture(scope="module")
def layer():
    layer = keras_seq.GRU(4)
    layer(X)
    return layer


@pytest.fixture(scope="module")
def flow(layer):
    return gradient_flow(layer, X)


@pytest.fixture(scope="module")
def spectrum(layer):
    return lyapunov_spectrum(layer, X)


TESTS, AR = residual_tests(X[0, :, 0], X[0, :, 1], lags=8), fit_arx(X[0, :, 0], output_delays=2)
GATES = {"forget_gate": RNG.uniform(size=(2, 5, 3)), "cell": RNG.normal(size=(2, 5, 3))}


def drawn(flow, spectrum):
    """Each picture, by its name, as a function of the Axes."""
    return {
        "plot_spectrum": lambda ax: plot_spectrum({"a": [0.5, 1.2j], "b": np.array([-0.3])}, ax=ax),
        "plot_memory_curves": lambda ax: plot_memory_curves(memory_curves(steps=10), ax=ax),
        "plot_gradient_flow": lambda ax: plot_gradient_flow({"a": flow, "b": flow}, ax=ax),
        "plot_state_gradients": lambda ax: plot_state_gradients([RNG.normal(size=(2, 7, 3))] * 2, names="hc", ax=ax),
        "plot_lyapunov_spectrum": lambda ax: plot_lyapunov_spectrum(spectrum, ax=ax),
        "plot_gate": lambda ax: plot_gate(GATES, symbols="hello", ax=ax),
        "plot_correlation": lambda ax: plot_correlation(TESTS.correlations["residual, input"], ax=ax),
        "plot_forecast_errors": lambda ax: plot_forecast_errors(
            forecast_errors({"AR": AR}, X[0, :, 0], horizons=[1, 2, 3]), ax=ax
        ),
        "plot_forecasts": lambda ax: plot_forecasts(X, {"other": X[:, 10:] + 1}, known=10, ax=ax),
    }


def test_each_draws_in_the_axes_it_is_given_or_in_new_ones(flow, spectrum, tmp_path):
    for name, draw in drawn(flow, spectrum).items():
        figure = Figure()
        ax = figure.subplots()
        assert draw(ax) is ax, name
        assert ax.has_data(), name
        new = draw(None)
        assert isinstance(new, matplotlib.axes.Axes)
        assert new.figure is not figure
        new.figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        with pytest.raises(TypeError, match="ax: expected matplotlib Axes or None, got 3"):
            draw(3)
        for label in (new.get_xlabel(), new.get_ylabel()):
            assert label or name in ("plot_gate", "plot_state_gradients")


def test_what_is_beyond_the_circle_is_filled():
    values = {"a": np.array([0.5, -2.0, 0.3 + 0.4j]), "b": np.array([1.5])}
    ax = plot_spectrum(values)
    found = [c for c in ax.collections if len(c.get_offsets())]
    filled = {tuple(p) for c in found if len(c.get_facecolors()) for p in c.get_offsets()}
    empty = {tuple(p) for c in found if not len(c.get_facecolors()) for p in c.get_offsets()}
    assert filled == {(-2.0, 0.0), (1.5, 0.0)}
    assert empty == {(0.5, 0.0), (0.3, 0.4)}
    circle = next(line for line in ax.lines if len(line.get_xdata()) > 100)
    np.testing.assert_allclose(np.hypot(*circle.get_data()), 1)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a (2)", "b (1.5)"]
    assert plot_spectrum(values["a"]).get_title() == "greatest modulus 2"


@pytest.mark.parametrize("log", [False, True])
def test_a_line_for_each_weight_and_input(log):
    curves = memory_curves("relu", [0.5, 2.0], [1.0, -1.0, 3.0], biases=[0.0, 0.5], steps=8)
    ax = plot_memory_curves(curves, bias=1, log=log)
    assert ax.get_yscale() == ("log" if log else "linear")
    lines = [line.get_ydata() for line in ax.lines]
    expected = curves.values[:, 1].reshape(6, 9)
    expected = np.where(expected > 0, expected, np.nan) if log else expected
    np.testing.assert_array_equal(lines, expected)
    looks = [(line.get_linestyle(), line.get_marker()) for line in ax.lines]
    assert len(set(looks)) == 2, "not by colour alone"
    assert [line.get_markerfacecolor() == "white" for line in ax.lines] == [False, True, False] * 2
    vectors = memory_curves("tanh", RNG.normal(size=(2, 3, 3)), RNG.normal(size=(2, 3)), steps=8)
    lengths = [line.get_ydata() for line in plot_memory_curves(vectors).lines]
    np.testing.assert_allclose(lengths, np.linalg.norm(vectors.values[:, 0], axis=-1).reshape(4, 9))


def test_gradients_are_drawn_in_powers_of_ten(flow):
    short = flow._replace(log_norm=np.where(flow.lags < 20, flow.log_norm, -math.inf))
    ax = plot_gradient_flow({"whole": flow, "cut": short})
    whole, cut = (line for line in ax.lines if len(line.get_xdata()) > 2)
    np.testing.assert_allclose(whole.get_ydata(), flow.log_norm.mean(axis=0) / math.log(10))
    assert len(cut.get_xdata()) == 20
    assert whole.get_linestyle() != cut.get_linestyle()


def test_a_heat_map_of_gradients():
    h, c = RNG.normal(size=(2, 7, 3)), 1e-20 * RNG.normal(size=(2, 7, 2))
    ax = plot_state_gradients([h, c], row=1, names=["h", "c"], decades=9)
    image = ax.get_images()[0]
    assert image.get_array().shape == (5, 7)
    sizes = np.abs(h[1]).T
    np.testing.assert_allclose(image.get_array()[:3], np.maximum(np.log10(sizes / sizes.max()), -9))
    np.testing.assert_array_equal(image.get_array()[3:], -9)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["h", "c"]
    assert np.all(plot_state_gradients(np.zeros((1, 4, 2))).get_images()[0].get_array() == -12)


def test_exponents_stand_in_their_places(spectrum):
    gone = spectrum._replace(exponents=np.where([0, 0, 0, 1], -math.inf, spectrum.exponents))
    ax = plot_lyapunov_spectrum({"all": spectrum, "three": gone})
    every, three = (c[0] for c in ax.containers)
    np.testing.assert_allclose(every.get_data(), [[1, 2, 3, 4], spectrum.exponents.mean(axis=0)])
    np.testing.assert_array_equal(three.get_xdata(), [1, 2, 3])


def test_a_gate_over_its_symbols():
    ax = plot_gate(GATES, symbols=["to", "be", "or", "not", "to"], row=1)
    np.testing.assert_array_equal(ax.get_images()[0].get_array(), GATES["forget_gate"][1].T)
    assert ax.get_images()[0].get_clim() == (0, 1)
    labels = ax.get_xticklabels()
    assert [t.get_text() for t in labels] == ["to", "be", "or", "not", "to"]
    assert {t.get_rotation() for t in labels} == {90}
    assert {t.get_rotation() for t in plot_gate(GATES, symbols="hello").get_xticklabels()} == {0}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plot_spectrum([[1.0]]), ValueError, r"eigenvalues: expected numbers \(n,\)"),
        (lambda: plot_spectrum([math.nan]), ValueError, "eigenvalues: expected finite"),
        (lambda: plot_spectrum({}), ValueError, "eigenvalues: expected at least one"),
        (lambda: plot_memory_curves([1.0]), TypeError, "curves: expected what memory_curves gives"),
        (
            lambda: plot_memory_curves(memory_curves(steps=2), bias=1),
            ValueError,
            "bias: expected a number below 1, got 1",
        ),
        (lambda: plot_gradient_flow([1.0]), TypeError, "flows: expected what gradient_flow gives"),
        (lambda: plot_lyapunov_spectrum({"a": 1}), TypeError, "spectra: expected what lyapunov_spectrum gives"),
        (lambda: plot_state_gradients(np.ones((2, 3))), ValueError, "gradients: expected shapes"),
        (lambda: plot_state_gradients("h"), TypeError, "gradients: expected numbers"),
        (lambda: plot_state_gradients(np.ones((2, 3, 1)), row=2), IndexError, "row: expected one of the 2"),
        (lambda: plot_state_gradients(np.ones((2, 3, 1)), names="hc"), ValueError, "names: expected 1"),
        (
            lambda: plot_state_gradients(np.ones((2, 3, 1)), decades=0),
            ValueError,
            "decades: expected a positive number",
        ),
        (lambda: plot_gate(3), TypeError, "internals: expected a dict"),
        (lambda: plot_gate(GATES, "gate"), ValueError, "name: expected one of .*'gate'"),
        (lambda: plot_gate(GATES, "cell"), ValueError, "name: expected a gate, between 0 and 1, got 'cell'"),
        (lambda: plot_gate(GATES, symbols="hi"), ValueError, "symbols: expected 5"),
        (lambda: plot_gate(GATES, row=2), IndexError, "row: expected one of the 2"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_every_picture_of_one_axes_is_in_this_file(flow, spectrum):
    known = {"plot_alignment", "plot_attended", "plot_internals"}  # pictures of several
    assert {name for name in analysis.__all__ if name.startswith("plot_")} - known == set(drawn(flow, spectrum))
