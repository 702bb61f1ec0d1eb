"""Pictures of attention: what was given is what is drawn, in its place, and labels never overlap."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from keras_seq.analysis.attention import plot_alignment, plot_attended

RNG = np.random.default_rng(0)
SOURCE, TARGET = "mar 3 '21", "2021-03-03"
WEIGHTS = RNG.dirichlet(np.ones(9), size=10)
PICTURE = RNG.integers(0, 256, (12, 20, 3))


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_alignment_holds_the_weights_and_both_labels():
    figure = plot_alignment(WEIGHTS, SOURCE, TARGET)
    (image,) = figure.axes[0].get_images()
    np.testing.assert_array_equal(image.get_array(), WEIGHTS)
    assert image.get_clim() == (0, WEIGHTS.max())
    assert ticks(figure.axes[0].xaxis) == list(SOURCE)
    assert ticks(figure.axes[0].yaxis) == list(TARGET)
    top, bottom = figure.axes[0].get_ylim()[::-1]
    assert top < bottom  # the first output stands at the top


def test_alignment_without_labels_counts():
    figure = plot_alignment(WEIGHTS)
    assert figure.axes[0].get_xlabel() == "source position"
    assert figure.axes[0].get_ylabel() == "target position"


@pytest.mark.parametrize(("t", "s"), [(2, 3), (10, 30), (120, 70), (30, 500)])
def test_labels_do_not_overlap_and_stand_at_their_positions(t, s):
    words = [f"word{i}" for i in range(s)]
    figure = plot_alignment(RNG.dirichlet(np.ones(s), size=t), words, [f"w{i}" for i in range(t)])
    assert max(figure.get_size_inches()) <= 16
    FigureCanvasAgg(figure).draw()
    for axis, mark in ((figure.axes[0].xaxis, "word"), (figure.axes[0].yaxis, "w")):
        labels = axis.get_ticklabels()
        assert ticks(axis) == [f"{mark}{int(place)}" for place in axis.get_ticklocs()]
        assert len(labels) >= 2
        boxes = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
        assert labels[0].get_fontsize() >= 6


def test_a_panel_for_each_word_on_its_own_scale():
    words = ["a", "small", "red", "square", "left", "of", "it"]
    weights = RNG.dirichlet(np.ones(6), size=7)
    weights[3] = 1 / 6  # looks everywhere: nothing is darker
    figure = plot_attended(PICTURE, words, weights, (2, 3))
    alone, *panels = [axes for axes in figure.axes if axes.get_images()]
    assert len(alone.get_images()) == 1
    assert [axes.get_title() for axes in panels] == words
    for axes, own in zip(panels, weights, strict=True):
        picture, shade = axes.get_images()
        np.testing.assert_array_equal(picture.get_array(), PICTURE)
        assert shade.get_extent() == picture.get_extent()
        assert not shade.get_array()[..., :3].any()
        dark = shade.get_array()[..., 3]
        np.testing.assert_allclose(dark, 0.7 * (1 - own.reshape(2, 3) / own.max()))


def test_the_place_that_was_read_stays_light_in_what_is_drawn(tmp_path):
    """A white picture, all weight on the last place of the upper row: read off the pixels."""
    figure = plot_attended(np.full((40, 60, 3), 255), ["here"], [[0, 0, 1, 0, 0, 0]], (2, 3))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., 0]
    box = figure.axes[1].get_window_extent()
    rows = len(pixels) - np.linspace(box.y1, box.y0, 5)[1::2]
    columns = np.linspace(box.x0, box.x1, 7)[1::2]
    light = pixels[np.ix_(rows.astype(int), columns.astype(int))]
    assert light[0, 2] > 240
    assert light[0, 0] < 90
    assert light[1].max() < 90
    between = pixels[int(rows[0]), int(columns[1]) : int(columns[2])]
    assert len(np.unique(between)) > 8  # smooth
    figure.savefig(tmp_path / "attended.png")
    assert (tmp_path / "attended.png").stat().st_size > 2000


def alignment(**changed):
    return plot_alignment(**{"weights": WEIGHTS, "source": SOURCE, "target": TARGET, **changed})


def attended(**changed):
    words = list("abcdefghij")
    return plot_attended(**{"image": PICTURE, "words": words, "weights": WEIGHTS, "map_shape": (3, 3), **changed})


@pytest.mark.parametrize(
    ("draw", "changed", "message"),
    [
        (alignment, {"weights": WEIGHTS[0]}, r"weights: expected shape \(t, s\) .*got \(9,\)"),
        (alignment, {"weights": WEIGHTS[:0]}, "weights: expected shape"),
        (alignment, {"weights": WEIGHTS - 0.5}, "weights: expected finite numbers of at least 0, got .*-0"),
        (alignment, {"weights": WEIGHTS * np.inf}, "weights: expected finite numbers"),
        (alignment, {"source": "abc"}, "source: expected 9 labels, got 3"),
        (alignment, {"target": ["a"] * 11}, "target: expected 10 labels, got 11"),
        (attended, {"weights": WEIGHTS[None]}, r"weights: expected shape \(t, h' \* w'\)"),
        (attended, {"image": PICTURE[..., 0]}, r"image: expected shape \(h, w, 3\), got \(12, 20\)"),
        (attended, {"image": PICTURE - 1}, "image: expected values 0 .. 255, got -1"),
        (attended, {"words": ["a"]}, "words: expected 10, one for each row of weights, got 1"),
        (attended, {"map_shape": (3, 4)}, r"map_shape: expected \(h', w'\) of 9 places, got \(3, 4\)"),
        (attended, {"map_shape": (-3, -3)}, "map_shape: expected"),
        (attended, {"map_shape": (9,)}, "map_shape: expected"),
    ],
)
def test_errors(draw, changed, message):
    with pytest.raises(ValueError, match=message):
        draw(**changed)
