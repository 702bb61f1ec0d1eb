"""Beam search against all sequences, against a beam written out in Python, and against greedy decoding."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.decoding import beam_search, greedy

END, V, U, S = 2, 5, 4, 3
SIGHT = 4 * np.random.default_rng(9).normal(size=(U, S))  # what a state attends to
SEEN = np.array([[True, True, True], [True, False, True], [False, True, True], [True, True, False]])  # source positions


def model(seed, sharp=1.5, size=V):
    """A random recurrent scorer: s' = tanh(s A + E[w]), logits = s' C; it attends by softmax(s' SIGHT) to what is seen."""
    rng = np.random.default_rng(seed)
    return [sharp * rng.normal(size=shape) for shape in ((U, U), (size, U), (U, size))]


def scorer(weights):
    a, e, c = (tf.constant(w, "float32") for w in weights)

    def step(tokens, state):
        s = tf.tanh(state["s"] @ a + tf.gather(e, tokens))
        read = tf.exp(s @ tf.constant(SIGHT, "float32")) * state["seen"]
        read = state["read"] + read / tf.reduce_sum(read, axis=1, keepdims=True)
        return s @ c, {"s": s, "read": read, "seen": state["seen"], "count": [state["count"][0] + 1]}

    return step


def covered(state):
    return tf.where(state["seen"] > 0, state["read"], 1.0)


def beginning(states):
    rows = len(states)
    seen = tf.constant(SEEN[:rows], "float32")
    return {"s": tf.constant(states, "float32"), "read": 0 * seen, "seen": seen, "count": [tf.zeros(rows, "int32")]}


def log_shares(weights, s, w):
    a, e, c = weights
    s = np.tanh(s @ a + e[w])
    z = s @ c
    return s, z - z.max() - np.log(np.sum(np.exp(z - z.max())))


def attention(s, seen):
    read = np.exp(s @ SIGHT) * seen
    return read / read.sum()


def log_coverage(read, seen):
    return sum(np.log(min(max(r, 1e-6), 1)) for r, there in zip(read, seen, strict=True) if there)


def by_hand(
    weights,
    s,
    prompt,
    *,
    width,
    n_best,
    max_length,
    max_lengths=None,
    penalty=0.0,
    coverage_penalty=0.0,
    no_repeat=None,
    min_length=0,
    allowed=None,
    seen=SEEN[0],
):
    """One row: hypotheses `(score, tokens, state, log p, length, attention)`, the best kept at each step; no early stop."""
    limit = max_lengths or max_length

    def hypothesis(row, s, total, length, read):
        closed = END in row[1:] or len(row) == limit + 1
        cover = coverage_penalty * log_coverage(read, seen) if closed else 0.0
        return total / ((5 + length) / 6) ** penalty + cover, row, s, total, length, read

    beam = [(0.0, [prompt[0]], s, 0.0, 0, np.zeros(S))]
    for index in range(limit):
        candidates = []
        for old in beam:
            _, row, s, total, length, read = old
            if END in row[1:]:
                candidates.append(old)
                continue
            new, logs = log_shares(weights, s, row[-1])
            read = read + attention(new, seen)
            if index + 1 < len(prompt) and prompt[index + 1]:
                candidates.append(hypothesis([*row, prompt[index + 1]], new, total, length, read))
                continue
            for w in range(len(logs)):
                grams = [tuple(row[i : i + (no_repeat or 1)]) for i in range(len(row) - (no_repeat or 1) + 1)]
                forbidden = bool(no_repeat) and tuple([*row, w][len(row) + 1 - no_repeat :]) in grams
                forbidden |= allowed is not None and not allowed[w]
                if forbidden or (w == END and index < min_length - 1):
                    continue
                candidates.append(hypothesis([*row, w], new, total + logs[w], length + 1, read))
        beam = sorted(candidates, key=lambda h: -h[0])[:width]
    return [(h[1][1:] + [0] * (max_length + 1 - len(h[1])), h[0]) for h in beam[:n_best]]


def of_row(arguments, r):
    """What holds for one row, where there is a value for each."""
    of_each = {"allowed": 2, "min_length": 1, "max_lengths": 1}
    return {name: v[r] if np.ndim(v) == of_each.get(name, 9) else v for name, v in arguments.items()}


def check(weights, states, prompts, jit_compile=False, **arguments):
    given = {"end": END, "max_length": 6, "width": 3, "n_best": 2, **arguments}
    cover = {"coverage": covered} if "coverage_penalty" in given else {}
    decode = tf.function(lambda s, p: beam_search(scorer(weights), s, p, **given, **cover), jit_compile=jit_compile)
    tokens, scores = decode(beginning(states), tf.constant(prompts))
    own = {("penalty" if k == "length_penalty" else k): v for k, v in given.items() if k != "end"}
    for r in range(len(states)):
        expected = by_hand(weights, states[r], prompts[r], seen=SEEN[r], **of_row(own, r))
        expected += [(None, -np.inf)] * (given["n_best"] - len(expected))  # nothing else is left
        assert all(list(found) == t for found, (t, _) in zip(tokens[r].numpy(), expected, strict=True) if t)
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
        {"max_lengths": [1, 6, 3, 2]},
        {"max_lengths": [5, 2, 6, 3], "min_length": [5, 0, 4, 2], "length_penalty": 1.5},
        {"coverage_penalty": 2.0},
        {"coverage_penalty": 2.0, "width": 1, "n_best": 1},
        {"coverage_penalty": 1.0, "length_penalty": 0.7, "width": 5, "n_best": 5},
        {"coverage_penalty": 0.5, "max_lengths": [4, 6, 2, 5], "min_length": 2, "no_repeat": 2},
    ],
    ids=str,
)
def test_limits(limits):
    for seed in (1, 2):
        check(*setting(seed), jit_compile=seed == 1, **limits)


def test_coverage_matters_here():
    """Otherwise the cases above would show little: it changes what is found first."""
    given = {"width": 3, "n_best": 1, "max_length": 6}
    differ = []
    for seed in (1, 2):
        weights, states, prompts = setting(seed)
        for r in range(4):
            row = [weights, states[r], prompts[r]]
            found = [by_hand(*row, coverage_penalty=c, seen=SEEN[r], **given)[0][0] for c in (0.0, 2.0)]
            differ.append(found[0] != found[1])
    assert sum(differ) >= 4


def test_prompts_of_different_lengths():
    weights, states, prompts = setting(3, prompt_length=4)
    prompts[0, 1:] = 0
    prompts[1, 3:] = 0
    for arguments in (
        {},
        {"no_repeat": 2, "length_penalty": 0.5},
        {"max_lengths": [2, 6, 4, 3], "coverage_penalty": 0.4},  # one ends with its prompt
    ):
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


@pytest.mark.parametrize(("coverage_penalty", "length_penalty"), [(0.4, 0.0), (2.0, 1.3)])
def test_with_coverage_too_the_best_of_all_is_found(coverage_penalty, length_penalty):
    """Three tokens, each END or one of two, and a beam as wide as there are open sequences: nothing is lost."""
    allowed, seen, ends_early = np.isin(np.arange(8), (END, 3, 4)), SEEN[0], 0
    for seed in range(3):
        weights, states = model(seed, size=8), np.random.default_rng(seed).normal(size=(1, U))
        every = []
        for count in (1, 2, 3):
            for row in itertools.product((END, 3, 4), repeat=count):
                if END in row[:-1] or (count < 3 and row[-1] != END):
                    continue
                s, total, read = states[0], 0.0, np.zeros(S)
                for last, w in itertools.pairwise((5, *row)):
                    s, logs = log_shares(weights, s, last)
                    total, read = total + logs[w], read + attention(s, seen)
                score = total / ((5 + count) / 6) ** length_penalty + coverage_penalty * log_coverage(read, seen)
                every.append((score, [*row, 0, 0][:3]))
        every.sort(reverse=True)
        assert len(every) == 15
        ends_early += every[0][1][2] == 0
        given = {"end": END, "max_length": 3, "width": 8, "n_best": 8, "allowed": allowed, "coverage": covered}
        penalties = {"coverage_penalty": coverage_penalty, "length_penalty": length_penalty}
        tokens, scores = beam_search(scorer(weights), beginning(states), [[5]], **given, **penalties)
        np.testing.assert_allclose(scores[0], [score for score, _ in every[:8]], rtol=1e-4)
        assert tokens[0].numpy().tolist() == [row for _, row in every[:8]]
        first, _ = beam_search(scorer(weights), beginning(states), [[5]], **{**given, "n_best": 1}, **penalties)
        assert first[0, 0].numpy().tolist() == every[0][1]  # stopping early loses nothing


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


def counted(logits, *arguments, **named):
    """`(steps, what beam_search gives)` for the same logits at each step; step i reads source position i only."""
    calls = []

    def step(tokens, read):
        read = read + tf.one_hot([len(calls)] * len(tokens), S)
        calls.append(1)
        return tf.repeat(tf.constant(logits[None], "float32"), len(tokens), 0), read

    tokens, scores = beam_search(step, tf.zeros((1, S)), [[3]], end=END, width=3, **named)
    return len(calls), tokens[0].numpy().tolist(), scores[0].numpy()


def test_the_limit_of_a_row_decides_what_an_open_sequence_can_still_reach():
    logits = np.log([0.05, 0.05, 0.6, 0.15, 0.15])
    short, tokens, scores = counted(logits, max_length=50, max_lengths=[3], length_penalty=1.0)
    assert (short, tokens[0][:2]) == (1, [END, 0])
    np.testing.assert_allclose(scores, [np.log(0.6)], rtol=1e-5)
    assert counted(logits, max_length=3, length_penalty=1.0)[0] == 1
    assert counted(logits, max_length=50, length_penalty=1.0)[0] > 1


def test_it_goes_on_for_what_may_still_be_covered():
    """To end at once is likeliest by far, and reads but one source position of three."""
    logits = np.log([0.03, 0.03, 0.9, 0.03, 0.01])
    cover = {"coverage": lambda read: read, "coverage_penalty": 1.0}
    count, tokens, scores = counted(logits, max_length=9, **cover)
    assert (tokens[0][2], count) == (END, 3)
    assert END not in tokens[0][:2]
    np.testing.assert_allclose(scores, [2 * np.log(0.03) + np.log(0.9)], rtol=1e-5)
    # at the limit what is open counts with the coverage that it has
    count, tokens, scores = counted(logits, max_length=9, max_lengths=[2], **cover)
    assert tokens[0][1] == END
    np.testing.assert_allclose(scores, [np.log(0.03) + np.log(0.9) + np.log(1e-6)], rtol=1e-5)
    # what has ended keeps the coverage that it had
    count, tokens, scores = counted(logits, max_length=9, max_lengths=[2], n_best=3, **cover)
    ended_at_once = [score for row, score in zip(tokens, scores, strict=True) if row[0] == END]
    assert all(np.isclose(score, np.log(0.9) + 2 * np.log(1e-6)) for score in ended_at_once)


def test_one_trace_for_all_batches_and_lengths_of_prompts():
    weights, traces = model(0), []

    @tf.function(input_signature=[tf.TensorSpec((None, U)), tf.TensorSpec((None, None), "int32")])
    def decode(states, prompts):
        traces.append(1)
        seen = tf.ones((tf.shape(states)[0], S))
        state = {"s": states, "read": 0 * seen, "seen": seen, "count": [tf.zeros_like(states[:, 0])]}
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
        ({"length_penalty": -0.1}, "length_penalty: expected a number, at least 0 and finite"),
        ({"length_penalty": "long"}, "length_penalty: expected a number, at least 0 and finite"),
        ({"no_repeat": 0}, "no_repeat: expected a positive integer"),
        ({"max_length": 0}, "max_length: expected a positive integer"),
        ({"min_length": 9}, "min_length: expected integers from 0 to max_length=4, got 9"),
        ({"end": -1}, "end: expected a token of the 5"),
        ({"coverage_penalty": -1, "coverage": covered}, "coverage_penalty: expected a number, at least 0 and finite"),
        ({"coverage_penalty": 0.2}, "coverage: expected a function with coverage_penalty=0.2, got None"),
        ({"coverage": 0.2}, "coverage: expected a function of the step's state, or None, got 0.2"),
        (
            {"coverage_penalty": 0.2, "coverage": lambda state: state["read"][:, 0]},
            r"coverage: expected attention of shape \(rows, s\), got \(4,\)",
        ),
        ({"allowed": np.ones((2, 4), bool)}, "allowed: expected booleans of shape"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    weights, states, prompts = setting(0, batch=2)
    given = {"end": END, "max_length": 4, "width": 2, **arguments}
    with pytest.raises((TypeError, ValueError), match=message):
        beam_search(scorer(weights), beginning(states), prompts, **given)
