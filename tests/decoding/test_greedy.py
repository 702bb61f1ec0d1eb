"""Greedy decoding against a plain loop over rows."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.decoding import greedy

END, V, U = 3, 9, 5


def model(seed):
    """A random recurrent scorer as NumPy weights: s' = tanh(s A + E[w]), logits = s' V."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype("float32") for shape in ((U, U), (V, U), (U, V))]


def by_hand(weights, states, prompts, max_length):
    a, e, v = weights
    rows = []
    for s, prompt in zip(states, prompts, strict=True):
        row, word = [], prompt[0]
        given = [w for w in prompt[1:] if w]
        while len(row) < max_length and word != END:
            s = np.tanh(s @ a + e[word])
            word = given.pop(0) if given else int(np.argmax(s @ v))
            row.append(word)
        rows.append(row + [0] * (max_length - len(row)))
    return np.array(rows)


def setting(seed, prompt_length=1, batch=6):
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(batch, U)).astype("float32")
    prompts = rng.integers(4, V, size=(batch, prompt_length)).astype("int32")
    return model(seed), states, prompts


def run(weights, states, prompts, max_length, calls=None):
    a, e, v = weights

    def step(tokens, state):
        if calls is not None:
            calls.append(1)
        s = tf.tanh(state["s"] @ a + tf.gather(e, tokens))
        return s @ v, {"s": s, "count": [state["count"][0] + 1]}

    state = {"s": tf.convert_to_tensor(states), "count": [tf.zeros(states.shape[:1], tf.int32)]}
    return greedy(step, state, tf.convert_to_tensor(prompts), end=END, max_length=max_length)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("prompt_length", [1, 3])
def test_equals_a_loop_over_rows(seed, prompt_length):
    weights, states, prompts = setting(seed, prompt_length)
    if prompt_length == 3:
        prompts[0, 1:] = 0  # a shorter prompt, padded
        prompts[1, 2:] = 0
    expected = by_hand(weights, states, prompts, 12)
    assert (run(weights, states, prompts, 12).numpy() == expected).all()
    compiled = tf.function(lambda s, p: run(weights, s, p, 12), jit_compile=True, autograph=False)
    assert (compiled(states, prompts).numpy() == expected).all()


def test_some_rows_of_these_end_early_and_at_different_lengths():
    ends = {tuple((by_hand(*setting(seed), 12) == END).argmax(axis=1)) for seed in range(6)}
    assert len(ends) > 2  # otherwise the test above shows little


def test_stops_as_soon_as_every_row_has_ended():
    weights, states, prompts = setting(1)
    weights[2][:, END] = 0
    weights[2][:, :END], weights[2][:, END + 1 :] = -1e-3, -1e-3
    weights = [weights[0], np.ones_like(weights[1]), weights[2]]  # positive states: END has the highest score
    calls = []
    tokens = run(weights, states * 0, prompts, 50, calls).numpy()
    assert len(calls) == 1
    assert (tokens[:, 0] == END).all()
    assert (tokens[:, 1:] == 0).all()


def test_unknown_batch_in_one_trace():
    weights, *_ = setting(0)
    traces = []

    @tf.function(input_signature=[tf.TensorSpec((None, U)), tf.TensorSpec((None, 1), tf.int32)], autograph=False)
    def decode(states, prompts):
        traces.append(1)
        a, e, v = weights

        def step(tokens, s):
            s = tf.tanh(s @ a + tf.gather(e, tokens))
            return s @ v, s

        return greedy(step, states, prompts, end=END, max_length=7)

    for batch in (1, 4):
        _, states, prompts = setting(batch, batch=batch)
        assert (decode(states, prompts).numpy() == by_hand(weights, states, prompts, 7)).all()
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("prompt", "max_length", "name"),
    [(np.ones((2, 1), int), 0, "max_length"), (np.ones((2,), int), 3, "prompt"), (np.ones((2, 0), int), 3, "prompt")],
)
def test_wrong_arguments_are_named(prompt, max_length, name):
    with pytest.raises(ValueError, match=name):
        greedy(lambda w, s: (w, s), (), prompt, end=END, max_length=max_length)
