"""Drawn tokens: their shares are the probabilities, the cuts are exact, and limits are kept; greedy's too."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq.decoding import greedy, sample

LOGITS = np.log(np.array([0.02, 0.08, 0.4, 0.2, 0.3], "float32"))
END = 0


def still(tokens, state):
    """The same logits whatever came before."""
    return tf.repeat(LOGITS[None], tf.shape(tokens)[0], 0), state


def shares(tokens):
    """How often each token was drawn as the first one."""
    return np.bincount(np.asarray(tokens)[:, 0], minlength=5) / len(tokens)


def first(**arguments):
    prompt = tf.ones((20_000, 1), "int32")
    draw = tf.function(lambda p: sample(still, (), p, end=END, max_length=1, seed=3, **arguments), jit_compile=True)
    return shares(draw(prompt))


def powered(temperature):
    p = np.exp(LOGITS / temperature)
    return p / p.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_shares_are_the_probabilities(temperature):
    np.testing.assert_allclose(first(temperature=temperature), powered(temperature), atol=0.012)


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ({"top_k": 1}, [2]),
        ({"top_k": 3}, [2, 3, 4]),
        ({"top_k": 5}, [0, 1, 2, 3, 4]),
        ({"top_p": 1e-6}, [2]),
        ({"top_p": 0.69}, [2, 4]),
        ({"top_p": 0.71}, [2, 3, 4]),
        ({"top_p": 1.0}, [0, 1, 2, 3, 4]),
        ({"top_k": 3, "top_p": 0.75}, [2, 4]),  # 0.4, 0.3, 0.2 of 0.9: two make 0.78
        ({"top_k": 2, "temperature": 2.0}, [2, 4]),
        ({"allowed": np.array([True, True, False, False, True])}, [0, 1, 4]),
        ({"allowed": np.array([True, True, False, False, True]), "top_k": 2}, [1, 4]),
    ],
    ids=str,
)
def test_what_is_cut_is_never_drawn_and_the_rest_keeps_its_shares(cut, kept):
    expected = np.zeros(5)
    expected[kept] = powered(cut.get("temperature", 1.0))[kept]
    found = first(**cut)
    assert set(np.flatnonzero(found)) == set(kept)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.012)


def test_steps_and_rows_are_drawn_apart():
    tokens = np.asarray(
        sample(still, (), tf.ones((400, 1), "int32"), end=END, max_length=50, seed=1, allowed=LOGITS > -3)
    )
    assert set(np.unique(tokens)) == {1, 2, 3, 4}
    np.testing.assert_allclose(
        np.bincount(tokens.ravel(), minlength=5)[1:] / tokens.size, powered(1)[1:] / 0.98, atol=0.02
    )
    follows = np.mean(tokens[:, 1:] == tokens[:, :-1])
    assert abs(follows - np.sum((powered(1)[1:] / 0.98) ** 2)) < 0.02
    assert len({tuple(row) for row in tokens}) == 400


def test_seeds():
    prompt = tf.ones((3, 1), "int32")
    draw = lambda seed: np.asarray(sample(still, (), prompt, end=END, max_length=30, seed=seed))  # noqa: E731
    assert np.all(draw(5) == draw(5))
    assert np.any(draw(5) != draw(6))
    generator = keras.random.SeedGenerator(1)
    compiled = tf.function(lambda: sample(still, (), prompt, end=END, max_length=30, seed=generator), jit_compile=True)
    assert np.any(np.asarray(compiled()) != np.asarray(compiled()))
    assert np.any(draw(None) != draw(None))


def test_cold_is_greedy():
    """Of a recurrent scorer, each row with a prompt of its own length."""
    rng = np.random.default_rng(0)
    a, e, v = (rng.normal(size=shape).astype("float32") for shape in ((6, 6), (9, 6), (6, 9)))

    def step(tokens, s):
        s = tf.tanh(s @ a + tf.gather(e, tokens))
        return s @ v, s

    state, prompt = (
        tf.constant(rng.normal(size=(5, 6)), "float32"),
        tf.constant([[4, 5], [6, 0], [7, 0], [8, 1], [2, 2]]),
    )
    for limits in ({}, {"min_length": 4}, {"allowed": np.arange(9) != 5}):
        given = {"end": 3, "max_length": 10, **limits}
        likeliest = np.asarray(greedy(step, state, prompt, **given))
        assert np.all(likeliest == np.asarray(sample(step, state, prompt, temperature=1e-4, **given)))
        assert np.all(likeliest == np.asarray(sample(step, state, prompt, top_k=1, **given)))


def test_limits_of_both():
    """END is the likeliest: it comes at the first step that may end, a forbidden token at none."""
    logits = tf.constant([[5.0, 1.0, 2.0, 3.0]])

    def ending(tokens, state):
        return tf.repeat(logits, tf.shape(tokens)[0], 0), state

    for decode in (greedy, lambda *a, **k: sample(*a, **k, top_k=1)):
        given = {"end": 0, "max_length": 6, "pad": 1}
        prompt = tf.constant([[2]])
        assert decode(ending, (), prompt, **given).numpy().tolist() == [[0, 1, 1, 1, 1, 1]]
        assert decode(ending, (), prompt, min_length=4, **given).numpy().tolist() == [[3, 3, 3, 0, 1, 1]]
        rows = np.array([[True, True, True, False], [False, True, False, True]])
        found = decode(ending, (), tf.constant([[2], [2]]), allowed=rows, min_length=2, **given).numpy().tolist()
        assert found == [[2, 0, 1, 1, 1, 1], [3] * 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "temperature: expected a number, positive, got 0"),
        ({"temperature": -1.0}, "temperature: expected"),
        ({"temperature": float("nan")}, "temperature: expected"),
        ({"temperature": "warm"}, "temperature: expected"),
        ({"top_p": 0}, r"top_p: expected a number, in \(0, 1\], got 0"),
        ({"top_p": 1.1}, "top_p: expected"),
        ({"top_k": 0}, "top_k: expected a positive integer"),
        ({"top_k": 6}, "top_k: expected at most the 5 tokens"),
        ({"max_length": 0}, "max_length: expected a positive integer, got 0"),
        ({"min_length": 4}, "min_length: expected an integer from 0 to max_length=3, got 4"),
        ({"end": 5}, "end: expected a token of the 5"),
        ({"allowed": np.ones(4, bool)}, r"allowed: expected booleans of shape \(5,\)"),
        ({"allowed": np.ones(5)}, "allowed: expected booleans"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    given = {"end": END, "max_length": 3, **arguments}
    with pytest.raises((TypeError, ValueError), match=message):
        sample(still, (), tf.ones((2, 1), "int32"), **given)
    if not {"temperature", "top_k", "top_p"} & set(arguments):
        with pytest.raises((TypeError, ValueError), match=message):
            greedy(still, (), tf.ones((2, 1), "int32"), **given)


def test_a_step_that_changes_its_state_is_named():
    with pytest.raises(ValueError, match="step: expected a state of the structure that it was given"):
        greedy(
            lambda w, s: (still(w, s)[0], (*s, s)), (tf.ones((2, 1)),), tf.ones((2, 1), "int32"), end=END, max_length=3
        )
