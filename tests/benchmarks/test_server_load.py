"""The benchmark of the server: a small run."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))


def test_every_kind_is_asked_for_and_counted():
    pytest.importorskip("fastapi", reason="the server needs pip install keras_seq[serve]")
    import server_load

    rows = server_load.main(["--units", "4", "--clients", "2", "--seconds", "0.2"])
    assert [row[:2] for row in rows[2:]] == [[what, 2] for what in server_load.KINDS]
    for _, _, count, p50, p99 in rows:
        assert int(count.replace(",", "")) > 0
        assert 0 < float(p50) <= float(p99)
