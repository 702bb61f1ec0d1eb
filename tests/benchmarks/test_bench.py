"""The bench at work on small sizes: what it measures, what it writes, and what it says of a missing peer."""

import pathlib
import sys
import time

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(FOLDER))
    try:
        import bench

        yield bench
    finally:
        sys.path.remove(str(FOLDER))


def test_in_turn_and_its_figures(bench):
    order = []
    functions = {"slow": lambda: order.append("slow") or time.sleep(0.02), "own": lambda: order.append("own") or 7.5}
    times = bench.timing.in_turn(functions, runs=3, warm_up=1)
    assert order == ["slow", "own", "own", "slow"] * 2
    assert times["own"] == [7.5] * 3
    assert len(times["slow"]) == 3
    assert min(times["slow"]) >= 20
    assert bench.timing.median([3, 1, 2]) == 2
    assert bench.timing.median([4, 1, 2, 3]) == 2.5
    assert bench.timing.geometric_mean([2, 8]) == pytest.approx(4)


def test_summary_names_the_worst(bench):
    results = bench.Results()
    for key, ratio in (("a", 2.0), ("b", 0.5)):
        results.add("more is better", key, ratio)
        results.add("at most 1", key, ratio)
    _, _, more, most = results.summary().splitlines()
    assert more == "| more is better | 1.00 | 0.50 | b | 2 |"
    assert most == "| at most 1 | 1.00 | 2.00 | a | 2 |"


def test_peers_without_torch(bench, tmp_path, capsys):
    flags = ["--only", "peers", "limit", "--sizes", "2,3,4,5", "--memories", "LSTM", "--runs", "1"]
    # a Python that says nothing, in the place of one that has torch
    results = bench.main([*flags, "--torch", "true", "--output", str(tmp_path)])
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.startswith("# Measured")
    assert "torch none found" in page
    assert "| 2,3,4,5 | LSTM | train | " in page
    assert "| 2,3,4,5 | LSTM | infer | " in page
    assert "at most 1" in capsys.readouterr().out
    for name in ("training", "inference"):
        assert list(results.ratios[f"LSTM, GRU, SimpleRNN, {name}: Keras's time / ours"]) == ["LSTM, 2,3,4,5"]
    assert (tmp_path / "results.png").stat().st_size > 5000


def test_a_backward_pass_that_noise_has_swallowed(bench, tmp_path, monkeypatch):
    """Its row says so, and the page is written all the same."""
    of = {"quiet": {"forward": [1.0], "train": [3.0], "products": [4.0]}}
    of["noisy"] = {"forward": [3.0], "train": [1.0], "products": [4.0]}
    monkeypatch.setattr(bench.variants, "without_loop", lambda size: of)
    monkeypatch.setattr(bench.timing, "in_turn", lambda functions, runs: functions)
    results = bench.main(["--only", "loops", "--sizes", "2,3,4,5", "--output", str(tmp_path)])
    (ratios,) = results.ratios.values()
    assert ratios == {"quiet, 2,3,4,5": 0.5}
    page = (tmp_path / "RESULTS.md").read_text()
    assert "| 2,3,4,5 | quiet | 0.50 | 2.00 | 4.00 | 3.00 |" in page
    assert "| 2,3,4,5 | noisy | lost in noise | -2.00 | 4.00 | 1.00 |" in page


def test_every_memory_of_the_table_exists(bench):
    for name, make in bench.variants.MEMORIES.items():
        layer = make(3, return_sequences=True)
        layer.build((2, 4, 5))
        assert layer.count_params() > 0, name


def test_depth_and_streams(bench, tmp_path, monkeypatch):
    """All that is measured of stacks, directions, convolutions and steps; a stream's memory stays as it was."""
    monkeypatch.setitem(sys.modules, "tcn", None)  # no keras-tcn
    results = bench.main(["--only", "depth", "--sizes", "2,3,4,5", "--runs", "1", "--output", str(tmp_path)])
    page = (tmp_path / "RESULTS.md").read_text()
    assert "| 2,3,5,5 | train | " in page
    assert "keras-tcn none found" in page
    for what in (
        "Stacked of three LSTMs, training: its time / one's",
        "Bidirectional LSTM, inference: its time / one direction's",
    ):
        assert any(key.startswith(what) for key in results.ratios)
    results.add("TCN, training: keras-tcn's time / ours", "2,3,4,5", 1.0)
    bench.report.draw(results, tmp_path / "none.png")  # none of the memories is among them: no figure
    assert not (tmp_path / "none.png").exists()
    functions = bench.stacks.one_step()
    assert {name.split(",")[0] for name in functions} >= {"LSTM(32)", "identity of x"}
    y, _ = functions["LSTM(32), graph"]()
    assert y.shape == (1, 32)
    found = bench.stacks.in_microseconds({"LSTM": functions["LSTM(32), XLA"]}, 20)
    assert 0 < found["LSTM"][0] <= found["LSTM"][1]
    rows = bench.stacks.memory_over_steps(50)
    assert [row[1] for row in rows[:6]] == ["0", "10", "20", "30", "40", "50"]


def test_decoding(bench, tmp_path, monkeypatch):
    """All three ways give the same tokens; END is never among them."""
    tiny = {"BATCHES": (2,), "LENGTH": 2, "VOCABULARY": 11, "EMBEDDING": 5, "UNITS": 7, "WIDTH": 3}
    tiny |= {"FRAMES": (2, 9), "LABELS": 2, "SYMBOLS": 5}
    for name, value in tiny.items():
        monkeypatch.setattr(bench.decoders, name, value)
    decoder = bench.decoders.Decoder(11, 5, 7)
    decoder.embedding.embeddings.assign(40 * decoder.embedding.embeddings)
    decoder.readout.kernel.assign(40 * decoder.readout.kernel)
    for width in (None, 3):
        ours, stepped, predicted = (way(3, 4, width)() for way in (decoder.ours, decoder.by_steps, decoder.by_predict))
        assert ours.shape == (3, 4)
        assert len(set(ours[0])) > 1
        assert bench.decoders.END not in ours
        assert (ours == stepped).all()
        assert (ours == predicted).all()
    results = bench.main(["--only", "decoding", "--runs", "1", "--output", str(tmp_path)])
    page = (tmp_path / "RESULTS.md").read_text()
    assert "| beam of 3 | 2 | " in page
    for who in ("loop over a compiled step", "loop over model.predict"):
        assert len(results.ratios[f"decoding: tokens per second, ours / {who}"]) == 2
    assert "| beam of 10 | " in page
    assert len(results.ratios["CTC: the time of Keras's, or TensorFlow's, / ours"]) == 3


def test_attention(bench, tmp_path, monkeypatch):
    """Both give the same outputs and gradients of the memory and the weights."""
    monkeypatch.setattr(bench.reading, "SIZES", [(2, 3, 4, 3, 5)])
    monkeypatch.setattr(bench.reading, "FORMS", {"general": {"score": "general", "query": "after"}})
    found = [function() for function in bench.reading.contestants((2, 3, 4, 3, 5), {"score": "additive"}).values()]
    for values in zip(*found, strict=True):
        assert all(abs(v - values[0]).max() < 1e-4 for v in values)
    assert abs(found[0][2]).max() > 1e-3  # of the memory
    results = bench.main(["--only", "attention", "--runs", "1", "--output", str(tmp_path)])
    assert "| general | 2,3,4,3,5 | " in (tmp_path / "RESULTS.md").read_text()
    assert len(results.ratios["attention, training: Keras's loop's time / ours"]) == 1


@pytest.mark.deep
def test_growth(bench, tmp_path):
    """Each figure of a process of its own; a peer that is not there has no column."""
    found = bench.growth.sweep(["keras_seq", "inputs alone", "torch"], [(2, 3, 4, 5), (2, 6, 4, 5)], "false", 60)
    assert [list(row) for row in found.values()] == [["keras_seq", "inputs alone"]] * 2
    assert all(seconds > 0 and mib > 100 for row in found.values() for seconds, mib in row.values())
    assert bench.growth.text_of(found).splitlines()[0] == "| b,t,d,u | keras_seq | inputs alone |"
    bench.growth.draw_all({"length": found, "rows": found, "units": found}, tmp_path)
    for name in bench.growth.PICTURES:
        assert (tmp_path / name).stat().st_size > 5000
