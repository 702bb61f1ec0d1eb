"""The example on Shakespeare: what the models that count give, and a small run."""

import collections
import pathlib
import sys

import keras
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import shakespeare


def slow(train, held_out, order, size):
    """The same probabilities by walking through the text for each history."""
    train, held_out = [[0] * (order - 1) + list(tokens) for tokens in (train, held_out)]

    def p(history, token, k):
        if k == 0:
            return 1 / size
        after = collections.Counter(
            train[i] for i in range(order - 1, len(train)) if tuple(train[i - k + 1 : i]) == tuple(history)
        )
        shorter = p(history[1:], token, k - 1)
        if not after:
            return shorter
        return (after[token] + len(after) * shorter) / (sum(after.values()) + len(after))

    return [p(held_out[i - order + 1 : i], held_out[i], order) for i in range(order - 1, len(held_out))]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_ngrams(order):
    rng = np.random.default_rng(0)
    train, held_out = rng.integers(1, 4, 60), rng.integers(1, 5, 15)
    found = shakespeare.ngram(train, held_out, order, 5)
    np.testing.assert_allclose(found, slow(train, held_out, order, 5), rtol=1e-9)
    # after one history the probabilities of all tokens sum to one
    every = np.concatenate([[*held_out[:8], token] for token in range(5)]).astype(int)
    assert sum(shakespeare.ngram(train, every[i * 9 :][:9], order, 5)[-1] for i in range(5)) == pytest.approx(1)


def test_a_small_run(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("to be, or not to be: that is the question. " * 60, encoding="utf-8")
    arguments = [
        "--units",
        "24",
        "--embedding",
        "8",
        "--epochs",
        "12",
        "--rows",
        "4",
        "--steps",
        "20",
        "--dropout",
        "0",
    ]
    arguments += ["--learning-rate", "0.03", "--length", "40", "--temperatures", "0.1", "--no-jit"]
    output = tmp_path / "out"
    results = shakespeare.main([*arguments, "--text", str(text), "--prompts", "to be", "--output", str(output)])
    out = capsys.readouterr().out
    assert list(results) == ["characters", "trigrams", "6-grams", "LSTM"]
    assert results["6-grams"] < results["trigrams"] < results["characters"]
    assert results["LSTM"] < results["characters"] / 2
    assert all(f"| {name:19} | {nats:18.3f} | {nats / np.log(2):18.3f} |" in out for name, nats in results.items())
    assert "2,322 characters to learn, 258 held out" in out
    assert out.count("nats per character") == 13
    assert "--- temperature 0.1\nto be, or not to be: that is the quest" in out, "learned by heart"
    assert (output / "shakespeare.png").stat().st_size > 5000
    model = keras.models.load_model(output / "shakespeare.keras")
    assert model.generate(["that"], "greedy", max_length=8)[0].startswith("that")


def test_the_real_text(data_folder):
    text = (data_folder("tinyshakespeare") / "input.txt").read_text(encoding="utf-8")
    assert len(text) == 1115394
    assert all(prompt in text for prompt in shakespeare.PROMPTS)
