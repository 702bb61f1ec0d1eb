"""The example that sings: its tone, its measures, what it generates from, and a small run."""

import itertools
import pathlib
import sys
import wave

import keras
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import wavenet_tone

import keras_seq


def test_tone_and_its_measures():
    pieces = wavenet_tone.tone(np.random.default_rng(0), 3, 8000)
    assert pieces.shape == (3, 8000)
    assert np.abs(pieces).max() < 1
    assert np.abs(pieces[0] - pieces[1]).max() > 0.1, "they begin anywhere"
    for piece in pieces:
        assert wavenet_tone.peak(piece) == pytest.approx(220, abs=0.05)
        assert wavenet_tone.in_tune(piece) > 0.99
    times = np.arange(8000) / 8000
    for hertz in (100.0, 233.3, 1234.5):
        assert wavenet_tone.peak(np.sin(2 * np.pi * hertz * times)) == pytest.approx(hertz, abs=0.1)
        assert wavenet_tone.in_tune(np.sin(2 * np.pi * hertz * times)) < 0.01
    assert wavenet_tone.in_tune(np.random.default_rng(0).normal(size=8000)) < 0.05


def test_targets_are_the_next_samples():
    for seen, following in itertools.islice(wavenet_tone.batches(np.random.default_rng(0), 4, 50), 3):
        assert seen.shape == following.shape == (4, 50)
        np.testing.assert_array_equal(seen[:, 1:], following[:, :-1])
        assert 0 <= seen.min() < 100 < 150 < seen.max() <= 255


def test_generation_is_what_the_whole_model_says():
    """Nearly without chance, each class must be the likeliest after all that came before it, prompt and own."""
    net = keras_seq.WaveNet(6, dilations=[1, 2, 4], outputs=256)
    model = keras.Sequential([keras.Input((None,), dtype="int32"), keras.layers.Embedding(256, 5), net])
    model.set_weights([w + np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    prompt = np.random.default_rng(1).integers(256, size=(2, 20)).astype("int32")
    found = np.array(wavenet_tone.generator(model, 15, 1e-4, 0)(prompt))
    assert found.shape == (2, 15)
    whole = np.concatenate([prompt, found], axis=1)
    np.testing.assert_array_equal(np.array(model(whole)).argmax(-1)[:, 19:-1], found)
    warm = wavenet_tone.generator(model, 15, 3.0, 0)
    assert np.any(np.array(warm(prompt)) != np.array(warm(prompt))), "it draws"


def test_a_small_run(tmp_path, capsys):
    arguments = ["--steps", "4", "--batch", "2", "--samples", "300", "--seconds", "0.1"]
    results = wavenet_tone.main([*arguments, "--output", str(tmp_path)])
    assert results["true"][0] == pytest.approx(220, abs=2)
    assert 0 <= results["generated"][1] <= 1
    out = capsys.readouterr().out
    assert "800 samples generated at" in out
    with wave.open(str(tmp_path / "tone.wav")) as file:
        assert (file.getnframes(), file.getframerate(), file.getnchannels()) == (800, 8000, 1)
        assert len(set(np.frombuffer(file.readframes(800), "<i2"))) > 20
    assert (tmp_path / "wavenet_tone.png").stat().st_size > 5000
