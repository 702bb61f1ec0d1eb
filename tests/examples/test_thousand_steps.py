"""The example of a thousand steps: a small run from the command line."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import thousand_steps


def test_a_small_run(tmp_path, capsys):
    found = thousand_steps.main(["--lengths", "6", "9", "--steps", "100", "--units", "4", "--output", str(tmp_path)])
    assert list(found) == ["MinGRU", "SimpleRNN"]
    assert [length for length, *_ in found["MinGRU"][1]] == [6, 9]
    assert all(0 < error < 1 for _, results in found.values() for _, _, error, _ in results)
    assert "| MinGRU |" in capsys.readouterr().out
    assert (tmp_path / "thousand_steps.png").stat().st_size > 10_000
