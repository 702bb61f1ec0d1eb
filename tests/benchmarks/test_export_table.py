"""The table of exports: what a cell says, and a row of it in full."""

import importlib.util
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))
import exports


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ((2048, 0.0, ""), "2 kB, 0"),
        ((2048, 1.26e-7, "2 rows"), "2 kB, 1e-07, 2 rows"),
        ((2048, 0.2, ""), "**wrong by 2e-01**"),
        ("not installed", "not installed"),
    ],
)
def test_a_cell(cell, said):
    assert exports.shown(cell) == said


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("format: expected one that has the operations ['Cumsum', 'Imag'], got 'litert'", "has no Cumsum, Imag"),
        ("error: 'tf.Imag' op is neither\nerror: 'tf.Real' op is neither", "has no Imag, Real"),
        ("input_signature: expected a known number of rows, got", "a known number of rows is needed"),
        ("first | line\nsecond", "first / line"),
        (90 * "x" + "yz", 87 * "x" + "..."),
    ],
)
def test_a_reason(message, said):
    assert exports.reason(ValueError(message)) == said


def test_every_layer_has_a_row():
    import keras_seq
    from keras_seq import layers

    names = [row.name for row in exports.subjects(every=False)["Layers"]]
    assert len(set(names)) == len(names)
    said = " ".join(names)
    public = [n for n in vars(keras_seq) if isinstance(getattr(keras_seq, n), type) and hasattr(layers, n)]
    wanted = [n for n in public if issubclass(getattr(keras_seq, n), exports.keras.layers.Layer)]
    assert len(wanted) > 20
    assert [n for n in wanted if n not in said and n != "StepForm"] == []  # whose rows are those of the second table


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore")
def test_a_row_in_full():
    tables = exports.measured(only=["TDNN"])
    for table in ("Layers", "Steps"):
        cells = tables[table]["TDNN"]
        for format in (".keras", "SavedModel", "LiteRT"):
            held, worst, _ = cells[format]
            assert held > 1000
            assert worst < 1e-6
        for format, names in exports.WANTED.items():
            installed = all(importlib.util.find_spec(n) for n in names)
            assert isinstance(cells[format], tuple) if installed else cells[format] == "not installed", cells[format]
    assert "| TDNN |" in exports.page(tables)


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore")
def test_a_step_on_a_microcontroller():
    """The file in three types, which LiteRT runs; the memory too, where the interpreter for microcontrollers is installed."""
    _, _, row = exports.arena.table(["MinGRU"])
    cells = [c.strip() for c in row.split("|")[2:-1]]
    for cell, bound in zip(cells, (1e-6, 1e-3, 5e-2), strict=False):
        assert int(cell.partition(",")[0]) in range(1, 10)  # thousands of bytes
        assert 0 < float(cell.rpartition(", ")[2]) < bound
    installed = importlib.util.find_spec("tflite_micro") is not None
    assert [" + " in cell for cell in cells] == [installed, False, installed, False]
    assert ("not installed" in cells[3]) == (not installed)
