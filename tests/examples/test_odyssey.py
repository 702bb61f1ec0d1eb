"""The side-by-side example: its grammar, its scores, and a small run from the command line."""

import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import odyssey

import keras_seq


def accepted(symbols, inner):
    """Whether the automaton, written out once more, makes this string."""
    arrows = {
        0: {"T": 1, "P": 2},
        1: {"S": 1, "X": 3},
        2: {"T": 2, "V": 4},
        3: {"X": 2, "S": 5},
        4: {"P": 3, "V": 5},
    }
    left = list(symbols)
    if left[0] != "B" or left[1] not in "TP" or left[-1] != "E" or left[-2] != left[1]:
        return False
    left = left[2:-2]
    for _ in range(inner):
        if not left or left.pop(0) != "B":
            return False
        state = 0
        while state != 5:
            if not left or left[0] not in arrows[state]:
                return False
            state = arrows[state][left.pop(0)]
        if not left or left.pop(0) != "E":
            return False
    return not left


@pytest.mark.parametrize("inner", [1, 3])
def test_strings_are_of_the_grammar(inner):
    rng = np.random.default_rng(0)
    made = [odyssey.string(rng, inner) for _ in range(200)]
    for symbols, choices in made:
        assert accepted(symbols, inner)
        assert not accepted([*symbols[:-2], {"T": "P", "P": "T"}[symbols[-2]], "E"], inner)
        assert len(choices) == len(symbols)
        assert choices[-2:] == [1, 1]
    assert len({"".join(symbols) for symbols, _ in made}) > 20


def test_streams_say_what_must_be_remembered():
    symbols, choices, remembered = odyssey.streams(np.random.default_rng(0), 4, 60, 2)
    assert symbols.shape == choices.shape == remembered.shape == (4, 61)
    rows, places = np.nonzero(remembered)
    assert len(rows) > 4
    assert set(symbols[rows, places]) <= {odyssey.SYMBOLS.index("T"), odyssey.SYMBOLS.index("P")}
    assert set(choices[rows, places]) == {1}


def test_the_nine_cells_are_settings_of_one():
    counts = {}
    for name, arguments in odyssey.CELLS.items():
        layer = keras_seq.LSTM(5, **arguments)
        layer.build((None, None, 3))
        counts[name] = layer.count_params()
    gate = 3 * 5 + 5 * 5 + 5  # kernel, recurrent kernel and bias of one gate
    assert counts["NP"] == 4 * gate
    assert counts["V"] == counts["NIAF"] == counts["NOAF"] == 4 * gate + 15
    assert counts["NIG"] == counts["NFG"] == counts["NOG"] == counts["CIFG"] == 3 * gate + 10
    assert counts["FGR"] == 4 * gate + 15 + 15 * 15


def test_a_small_run(tmp_path, capsys):
    arguments = [
        "--cells",
        "V",
        "NFG",
        "--seeds",
        "1",
        "--steps",
        "60",
        "--length",
        "20",
        "--inner",
        "1",
        "--epochs",
        "1",
    ]
    results, floor = odyssey.main([*arguments, "--output", str(tmp_path)])
    assert set(results) == {"V", "NFG"}
    nats = np.array([[one[0] for one in found] for found in results.values()])
    assert nats.shape == (2, 1)
    assert np.all(nats > floor)
    assert np.all(nats < np.log(7)), "it has learned something"
    assert "| NFG  | no forget gate" in capsys.readouterr().out
    assert (tmp_path / "odyssey.png").stat().st_size > 5000
