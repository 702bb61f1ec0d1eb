"""Beam search against all sequences, against a beam written out in Python, and against greedy decoding."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.decoding import beam_search, greedy

END, V, U = 2, 5, 4


def model(seed, sharp=1.5):
    """A random recurrent scorer: s' = tanh(s A + E[w]), logits = s' C."""
    rng = np.random.default_rng(seed)
    return [sharp * rng.normal(size=shape) for shape in ((U, U), (V, U), (U, V))]


def scorer(weights):
    a, e, c = (tf.constant(w, "float32") for w in weights)

    def step(tokens, state):
        s = tf.tanh(state["s"] @ a + tf.gather(e, tokens))
        return s @ c, {"s": s, "count": [state["count"][0] + 1]}

    return step


def beginning(states):
    return {"s": tf.constant(states, "float32"), "count": [tf.zeros(len(states), "int32")]}


def log_shares(weights, s, w):
    a, e, c = weights
    s = np.tanh(s @ a + e[w])
    z = s @ c
    return s, z - z.max() - np.log(np.sum(np.exp(z - z.max())))


def by_hand(weights, s, prompt, *, width, n_best, max_length, penalty=0.0, no_repeat=None, min_length=0, allowed=None):
    """One row: a list of hypotheses `(score, tokens, state, log p, length)`, cut to the best at each step; no early stop."""

    def score(total, length):
        return total / ((5 + length) / 6) ** penalty

    beam = [(0.0, [prompt[0]], s, 0.0, 0)]
    for index in range(max_length):
        candidates = []
        for old, row, s, total, length in beam:
            if END in row[1:]:
                candidates.append((old, row, s, total, length))
                continue
            new, logs = log_shares(weights, s, row[-1])
            if index + 1 < len(prompt) and prompt[index + 1]:
                candidates.append((score(total, length), [*row, prompt[index + 1]], new, total, length))
                continue
            for w in range(V):
                grams = [tuple(row[i : i + (no_repeat or 1)]) for i in range(len(row) - (no_repeat or 1) + 1)]
                forbidden = bool(no_repeat) and tuple([*row, w][len(row) + 1 - no_repeat :]) in grams
                forbidden |= allowed is not None and not allowed[w]
                if forbidden or (w == END and index < min_length - 1):
                    continue
                candidates.append((score(total + logs[w], length + 1), [*row, w], new, total + logs[w], length + 1))
        beam = sorted(candidates, key=lambda h: -h[0])[:width]
    return [(h[1][1:] + [0] * (max_length + 1 - len(h[1])), h[0]) for h in beam[:n_best]]


def check(weights, states, prompts, jit_compile=False, **arguments):
    given = {"end": END, "max_length": 6, "width": 3, "n_best": 2, **arguments}
    decode = tf.function(lambda s, p: beam_search(scorer(weights), s, p, **given), jit_compile=jit_compile)
    tokens, scores = decode(beginning(states), tf.constant(prompts))
    own = {("penalty" if k == "length_penalty" else k): v for k, v in given.items() if k != "end"}
    for r in range(len(states)):
        further = {"allowed": own["allowed"][r]} if np.ndim(own.get("allowed")) == 2 else {}
        expected = by_hand(weights, states[r], prompts[r], **{**own, **further})
        assert [list(t) for t in tokens[r].numpy()] == [t for t, _ in expected]
        np.testing.assert_allclose(scores[r], [score for _, score in expected], rtol=1e-4, atol=1e-5)
    return tokens.numpy()


def setting(seed, prompt_length=1, batch=4):
    rng = np.random.default_rng(seed)
    prompts = rng.integers(3, V, size=(batch, prompt_length)).astype("int32")
    return model(seed), rng.normal(size=(batch, U)), prompts


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_equals_a_beam_written_out(seed, length_penalty):
    found = check(*setting(seed), length_penalty=length_penalty, width=4, n_best=4)
    assert len({tuple(row) for row in found.reshape(-1, 6)}) > 4


@pytest.mark.parametrize(
    "limits",
    [
        {"no_repeat": 1},
        {"no_repeat": 2, "max_length": 9},
        {"no_repeat": 3, "max_length": 12, "min_length": 12},
        {"min_length": 5},
        {"allowed": np.array([False, True, True, False, True])},
        {"allowed": np.arange(20).reshape(4, 5) % 3 != 1, "length_penalty": 1.0},
        {"width": 5, "n_best": 5},
        {"max_length": 1},
    ],
    ids=str,
)
def test_limits(limits):
    for seed in (1, 2):
        check(*setting(seed), jit_compile=seed == 1, **limits)


def test_prompts_of_different_lengths():
    weights, states, prompts = setting(3, prompt_length=4)
    prompts[0, 1:] = 0
    prompts[1, 3:] = 0
    for arguments in ({}, {"no_repeat": 2, "length_penalty": 0.5}):
        found = check(weights, states, prompts, **arguments)
        assert np.all(found[2, :, :3] == prompts[2, 1:])


@pytest.mark.parametrize("length_penalty", [0.0, 1.3])
def test_as_wide_as_all_there_is_finds_the_best_of_all(length_penalty):
    """Two tokens: after the first all V stay, so that nothing is lost."""
    for seed in range(4):
        weights, states, prompts = setting(seed, batch=1)
        every = []
        for row in itertools.chain([(END,)], itertools.product(range(V), repeat=2)):
            if END in row[:-1]:
                continue
            s, total, last = states[0], 0.0, prompts[0, 0]
            for w in row:
                s, logs = log_shares(weights, s, last)
                total, last = total + logs[w], w
            every.append((total / ((5 + len(row)) / 6) ** length_penalty, [*row, 0][:2]))
        every.sort(reverse=True)
        given = {"end": END, "max_length": 2, "width": V, "n_best": V, "length_penalty": length_penalty}
        tokens, scores = beam_search(scorer(weights), beginning(states), prompts, **given)
        np.testing.assert_allclose(scores[0], [score for score, _ in every[:V]], rtol=1e-4)
        assert tokens[0].numpy().tolist() == [row for _, row in every[:V]]


def test_width_one_is_greedy():
    for seed in range(6):
        weights, states, prompts = setting(seed, prompt_length=2)
        tokens, _ = beam_search(scorer(weights), beginning(states), prompts, end=END, max_length=9, width=1)
        expected = greedy(scorer(weights), beginning(states), prompts, end=END, max_length=9)
        assert np.all(tokens[:, 0].numpy() == expected.numpy())


def test_stops_when_nothing_open_can_win():
    """END is nearly certain at once: one step, not fifty; with a second answer wanted it goes on until that is safe."""
    logits = np.log(np.array([[0.02, 0.02, 0.95, 0.005, 0.005]], "float32"))

    def steps_of(**arguments):
        calls = []

        def step(tokens, state):
            calls.append(1)
            return tf.repeat(logits, len(tokens), 0), state

        found, scores = beam_search(step, (), np.array([[3]]), end=END, max_length=50, width=3, **arguments)
        return len(calls), found[0, :, :3].numpy().tolist(), np.exp(scores[0].numpy())

    count, tokens, shares = steps_of()
    assert (count, tokens) == (1, [[END, 0, 0]])
    np.testing.assert_allclose(shares, [0.95], rtol=1e-5)
    count, tokens, shares = steps_of(n_best=2)
    assert (count, tokens[0]) == (2, [END, 0, 0])
    assert tokens[1] in ([0, END, 0], [1, END, 0])
    np.testing.assert_allclose(shares, [0.95, 0.02 * 0.95], rtol=1e-5)


def test_one_trace_for_all_batches_and_lengths_of_prompts():
    weights, traces = model(0), []

    @tf.function(input_signature=[tf.TensorSpec((None, U)), tf.TensorSpec((None, None), "int32")])
    def decode(states, prompts):
        traces.append(1)
        state = {"s": states, "count": [tf.zeros_like(states[:, 0])]}
        return beam_search(scorer(weights), state, prompts, end=END, max_length=5, width=3)

    for batch, length in ((1, 1), (4, 2)):
        _, states, prompts = setting(batch, length, batch)
        tokens, _ = decode(tf.constant(states, "float32"), prompts)
        for r in range(batch):
            [(expected, _)] = by_hand(weights, states[r], prompts[r], width=3, n_best=1, max_length=5)
            assert tokens[r, 0].numpy().tolist() == expected
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width: expected a positive integer"),
        ({"width": V + 1}, "width: expected at most the 5 tokens"),
        ({"width": 2, "n_best": 3}, "n_best: expected at most the width 2, got 3"),
        ({"length_penalty": -0.1}, "length_penalty: expected a number of at least 0"),
        ({"length_penalty": "long"}, "length_penalty: expected a number of at least 0"),
        ({"no_repeat": 0}, "no_repeat: expected a positive integer"),
        ({"max_length": 0}, "max_length: expected a positive integer"),
        ({"min_length": 9}, "min_length: expected an integer from 0 to max_length=4, got 9"),
        ({"end": -1}, "end: expected a token of the 5"),
        ({"allowed": np.ones((2, 4), bool)}, "allowed: expected booleans of shape"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    weights, states, prompts = setting(0, batch=2)
    given = {"end": END, "max_length": 4, "width": 2, **arguments}
    with pytest.raises((TypeError, ValueError), match=message):
        beam_search(scorer(weights), beginning(states), prompts, **given)
