"""The example on spoken digits: its readers, what a number is made of, its scores, and a small run on drawn tones."""

import pathlib
import sys
import wave

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import spoken_digits


def write(path, samples, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((32767 * samples).astype("<i2").tobytes())


def tone(digit, samples):
    return 0.5 * np.sin(2 * np.pi * (300 + 300 * digit) / 8000 * np.arange(samples))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings of two speakers in which a digit is a tone, eleven takes of different lengths."""
    path = tmp_path_factory.mktemp("data")
    (path / "fsdd" / "recordings").mkdir(parents=True)
    for i, (speaker, digit, take) in enumerate(
        (s, d, t) for s in ("anna", "otto") for d in range(10) for t in range(12)
    ):
        write(path / "fsdd" / "recordings" / f"{digit}_{speaker}_{take}.wav", tone(digit, 1500 + 37 * (i % 20)))
    return path


def test_sounds_and_frames(tmp_path):
    write(tmp_path / "a.wav", tone(5, 1000))
    samples = spoken_digits.sound(tmp_path / "a.wav")
    np.testing.assert_allclose(samples, tone(5, 1000), atol=1e-4)
    write(tmp_path / "b.wav", tone(5, 1000), rate=16000)
    with pytest.raises(ValueError, match="expected one channel of 2 bytes at 8000 Hz"):
        spoken_digits.sound(tmp_path / "b.wav")
    low, high, short = spoken_digits.log_mel([tone(1, 4000), tone(8, 4000), tone(8, 810)], at_once=2)
    assert (low.shape, high.shape, short.shape) == ((50, 32), (50, 32), (10, 32))
    assert set(low[5:-5].argmax(1)) == {low[10].argmax()}
    assert low[10].argmax() < high[10].argmax()
    np.testing.assert_allclose(short[3:7], high[3:7], atol=0.1)
    with pytest.raises(FileNotFoundError, match=r"no .wav files in"):
        spoken_digits.recordings(tmp_path / "none")


def test_parts_share_no_recording(folder):
    frames = spoken_digits.recordings(folder / "fsdd" / "recordings")
    assert len(frames) == 240
    parts = spoken_digits.divided(frames)
    assert {name: sorted({take for _, _, take in part}) for name, part in parts.items()} == {
        "train": [10, 11],
        "validation": [5, 6, 7, 8, 9],
        "test": [0, 1, 2, 3, 4],
    }
    assert sum(map(len, parts.values())) == 240
    parts = spoken_digits.divided(frames, "otto")
    assert {speaker for speaker, _, _ in parts["test"]} == {"otto"}
    assert len(parts["test"]) == 120
    assert {speaker for name in ("train", "validation") for speaker, _, _ in parts[name]} == {"anna"}
    assert sum(map(len, parts.values())) == 240


def test_a_number_is_its_digits_by_one_speaker_with_noise_around():
    """Frames that say which speaker and digit they are of, and which one they are."""
    frames = {
        (speaker, digit, take): np.stack([np.full(n, 100 * s + digit), 1 + np.arange(n)], 1)
        for s, speaker in enumerate(("anna", "otto"), 1)
        for digit in range(10)
        for take, n in enumerate((40, 80, 120))
    }
    frames = {key: np.repeat(f, 16, axis=1).astype("float32") for key, f in frames.items()}
    made = spoken_digits.Numbers(frames, [np.zeros((100, 32), "float32")], np.ones(32))
    x, labels = made.batch(np.random.default_rng(0), 60)
    assert x.shape == (60, 100, 4 * 32)
    lengths, gaps, speakers = set(), set(), set()
    for row, label in zip(x, labels, strict=True):
        real = spoken_digits.shown(row)
        assert np.all(np.diff(real.astype(int)) <= 0), "what is hidden is at the end"
        steps = row[real].reshape(-1, 32)
        np.testing.assert_allclose(steps.mean(0), 0, atol=1e-3)
        kind, place = np.rint(steps[:, 0] - steps[:, 0].min()), np.rint(steps[:, -1] - steps[:, -1].min())
        begins = np.nonzero(place == 1)[0]
        assert (kind[begins] % 100 + 1).astype(int).tolist() == label[label > 0].tolist()
        assert len(set(kind[begins] // 100)) == 1
        speakers |= set(kind[begins] // 100)
        runs = np.diff(np.r_[np.nonzero(place == 0)[0], 0])
        gaps.add(int(np.sum(runs == 1)))
        lengths.add(len(begins))
        assert np.all((place == 0) == (kind == 0))
    assert lengths == {2, 3, 4, 5}
    assert speakers == {1, 2}
    assert len(gaps) > 20


def test_error_rates():
    labels = np.array([[1, 2, 3, 0], [4, 4, 0, 0], [5, 6, 7, 8]], "int32")
    tokens = np.array([[1, 3, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0], [9, 5, 6, 1, 8, 8]], "int32")
    assert spoken_digits.error_rate(tokens, labels) == pytest.approx((1 + 1 + 3) / 9)
    assert spoken_digits.error_rate(np.zeros_like(tokens), labels) == pytest.approx(1)
    train = np.array([[3, 3, 3, 0, 0], [3, 3, 0, 0, 0], [3, 3, 0, 0, 0], [1, 9, 0, 0, 0]], "int32")
    assert spoken_digits.constant(train, train) == pytest.approx((1 + 0 + 0 + 2) / 9)


def test_a_small_run_on_tones(folder, tmp_path, capsys, monkeypatch):
    for name, value in {"FRAMES": 160, "SHAPE": (40, 128), "SILENCE": 8}.items():
        monkeypatch.setattr(spoken_digits, name, value)
    sizes = {"steps": 100, "batch": 16, "count": 20, "units": 16, "learning-rate": 0.02, "width": 3}
    arguments = [f"--{name}={value}" for name, value in sizes.items()]
    results = spoken_digits.main([*arguments, "--no-jit", "--data", str(folder), "--output", str(tmp_path)])
    out = capsys.readouterr().out
    assert "40 recordings to train, 100 recordings to validation, 100 recordings to test" in out
    assert list(results) == ["one answer to all", "greedy", "beam of 3"]
    assert "| beam of 3 " in out
    for name in ("greedy", "beam of 3"):
        assert results[name][1] < 0.6 < results["one answer to all"][1], "tones are easily told apart"
    assert (tmp_path / "spoken_digits.png").stat().st_size > 5000


def test_a_speaker_that_is_not_there_is_named(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        spoken_digits.main(["--held-out-speaker", "emil", "--data", str(folder), "--output", str(tmp_path)])
    assert "--held-out-speaker: expected one of anna, otto, got emil" in capsys.readouterr().err


def test_the_data_set(data_folder):
    paths = sorted((data_folder("fsdd") / "recordings").glob("*.wav"))
    assert len(paths) == 3000
    frames = spoken_digits.log_mel([spoken_digits.sound(path) for path in paths[::100]])
    assert {f.shape[1] for f in frames} == {32}
    assert 10 < min(map(len, frames)) < max(map(len, frames)) < 240
    assert all(np.ptp(f) > 20 for f in frames)
