"""The picture of internals: a panel for each name, holding the values of the row asked for."""

import numpy as np
import pytest

import keras_seq
from keras_seq.analysis import plot_internals

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def internals():
    layer = keras_seq.LSTM(4, return_internals=True, projection=2)
    return layer(RNG.normal(size=(3, 6, 2)))[-1]


def panels(figure):
    return {axis.get_ylabel().replace("\n", "_"): axis.get_images()[0] for axis in figure.axes if axis.get_images()}


def test_a_panel_for_each_name(internals):
    found = panels(plot_internals(internals, row=1))
    assert set(found) == set(internals)
    for name, image in found.items():
        np.testing.assert_array_equal(image.get_array(), internals[name][1].numpy().T)
        low, high = image.get_clim()
        assert (low, high) == (0, 1) if name.endswith("_gate") else low == -high


def test_names_and_labels(internals):
    figure = plot_internals(internals, names=["hidden", "forget_gate"], steps=list("abcdef"))
    assert list(panels(figure)) == ["hidden", "forget_gate"]
    axis = [axis for axis in figure.axes if axis.get_images()][-1]
    assert [label.get_text() for label in axis.get_xticklabels()] == list("abcdef")


def test_it_can_be_written(internals, tmp_path):
    plot_internals(internals).savefig(tmp_path / "gates.png")
    assert (tmp_path / "gates.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"names": ["gate"]}, ValueError, "names: expected some of .*'gate'"),
        ({"steps": ["a"]}, ValueError, "steps: expected 6 labels, got 1"),
        ({"row": 3}, IndexError, "3"),
    ],
)
def test_errors(internals, arguments, error, message):
    with pytest.raises(error, match=message):
        plot_internals(internals, **arguments)
