"""CTC's decoders against all paths written out, and against a prefix beam search written in Python."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from ctc_paths import beam_by_hand, collapsed, labellings, log_softmax, paths, settings

from keras_seq.decoding.ctc_beam import ctc_beam_search, ctc_greedy

U = 3


def language(seed, size):
    """A random recurrent language model, as a step and, in NumPy, as log p of each next token after some labels."""
    rng = np.random.default_rng(seed)
    a, e, c = (1.5 * rng.normal(size=shape) for shape in ((U, U), (size, U), (U, size)))

    def step(tokens, state):
        s = tf.tanh(tf.cast(state["s"], "float64") @ a + tf.gather(e, tokens))
        return s @ c, {"s": s, "count": [state["count"][0] + 1]}

    def after(s, start):
        def logs(labels):
            memory = s
            for token in (start, *labels):
                memory = np.tanh(memory @ a + e[token])
            return log_softmax(memory @ c)

        return logs

    return step, after


def state(memories):
    return {"s": tf.constant(memories), "count": [tf.zeros(len(memories), "int32")]}


def padded(labels, time, blank):
    return [*labels, *[blank] * (time - len(labels))]


def agrees(tokens, scores, expected, blank):
    """That one row's decoded tokens and scores are the expected `(labels, score)`, in this order."""
    time = tokens.shape[-1]
    assert [list(row) for row in np.array(tokens)] == [padded(labels, time, blank) for labels, _ in expected]
    np.testing.assert_allclose(scores, [score for _, score in expected], rtol=1e-9)


@pytest.mark.parametrize(("seed", "size", "blank"), [(0, 3, 0), (1, 4, 2), (2, 2, 1), (3, 3, 2)])
def test_greedy_is_the_best_path(seed, size, blank):
    logits, mask = settings(seed, 6, 5, size)
    decode = tf.function(lambda x, m: ctc_greedy(x, m, blank), jit_compile=seed % 2 == 0)
    tokens, scores = decode(logits, mask)
    lengths = set()
    for r in range(len(logits)):
        path, labels, logp = max(paths(logits[r], mask[r], blank), key=lambda found: found[2])
        assert tokens[r].numpy().tolist() == padded(collapsed(path, blank), 5, blank)
        assert scores[r].numpy() == pytest.approx(logp, rel=1e-9)
        lengths.add(len(labels))
    assert len(lengths) > 1


@pytest.mark.parametrize(
    ("size", "blank", "time", "width", "jit_compile"),
    [(3, 0, 4, 31, False), (3, 2, 5, 40, True), (2, 0, 6, 4, True), (4, 1, 4, 61, False)],
)
def test_a_beam_that_holds_all_gives_all_labels_with_their_probabilities(size, blank, time, width, jit_compile):
    logits, mask = settings(size, 4, time, size)
    search = tf.function(
        lambda x, m: ctc_beam_search(x, width, n_best=width, mask=m, blank=blank), jit_compile=jit_compile
    )
    tokens, scores = search(logits, mask)
    for r in range(4):
        expected = sorted(labellings(logits[r], mask[r], blank).items(), key=lambda kept: -kept[1])
        agrees(tokens[r][: len(expected)], scores[r][: len(expected)], expected, blank)
        assert np.exp(scores[r]).sum() == pytest.approx(1), "the paths of all labels are all paths"
        assert np.all(np.isneginf(scores[r][len(expected) :]))
        assert np.all(tokens[r][len(expected) :] == blank)


@pytest.mark.parametrize(("width", "beta"), [(1, 0.0), (3, -0.5), (6, 1.0)])
def test_equals_a_beam_written_out(width, beta):
    """Long enough for prefixes to leave the beam, come back, and meet what went on from them."""
    changed = 0
    search = tf.function(lambda x, m: ctc_beam_search(x, width, n_best=width, mask=m, beta=beta), jit_compile=True)
    for seed in range(6):
        logits, mask = settings(seed, 4, 14, 4, sharp=1.0)
        tokens, scores = search(logits, mask)
        greedy, _ = ctc_greedy(logits, mask)
        for r in range(4):
            agrees(tokens[r], scores[r], beam_by_hand(logits[r], mask[r], 0, width, beta=beta), 0)
        changed += np.sum(np.any(greedy != tokens[:, 0], axis=1))
    assert changed > 3, "the best labels are not always those of the best path"


@pytest.mark.parametrize(("alpha", "beta", "start"), [(0.7, 0.0, None), (1.5, 2.0, 3)])
def test_a_language_model(alpha, beta, start):
    step, after = language(5, 4)
    memories = np.random.default_rng(1).normal(size=(4, U))
    given = {"language_model": step, "alpha": alpha, "beta": beta, "start": start, "blank": 2}
    model = [after(s, 2 if start is None else start) for s in memories]

    def search(x, m, s, width):
        return ctc_beam_search(x, width, n_best=width, mask=m, state=s, **given)

    logits, mask = settings(7, 4, 3, 4)
    tokens, scores = tf.function(lambda x, m, s: search(x, m, s, 40))(logits, mask, state(memories))
    for r in range(4):
        expected = [
            (y, logp + beta * len(y) + alpha * sum(model[r](y[:i])[w] for i, w in enumerate(y)))
            for y, logp in labellings(logits[r], mask[r], 2).items()
        ]
        expected = sorted(expected, key=lambda kept: -kept[1])
        agrees(tokens[r][: len(expected)], scores[r][: len(expected)], expected, 2)

    logits, mask = settings(8, 4, 12, 4, sharp=1.0)
    compiled = tf.function(lambda x, m, s: search(x, m, s, 5), jit_compile=True)
    tokens, scores = compiled(logits, mask, state(memories))
    for r in range(4):
        expected = beam_by_hand(logits[r], mask[r], 2, 5, model[r], alpha, beta)
        agrees(tokens[r], scores[r], expected, 2)


def test_what_the_language_model_forbids_is_not_given():
    logits = np.log(np.array([[[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]]))
    table = np.zeros((3, 3))
    table[1, 2] = -np.inf  # no 2 after 1
    tokens, scores = ctc_beam_search(logits, 5, n_best=5, language_model=lambda w, s: (tf.gather(table, w), s))
    rows = [
        tuple(row[row > 0]) for row, score in zip(tokens[0].numpy(), scores[0].numpy(), strict=True) if score > -np.inf
    ]
    assert (1, 2) not in rows
    assert set(rows) == {(), (1,), (2,), (2, 1)}
    free, _ = ctc_beam_search(logits, 5, n_best=5, language_model=lambda w, s: (tf.gather(table, w), s), alpha=0.0)
    np.testing.assert_array_equal(free, ctc_beam_search(logits, 5, n_best=5)[0])


def test_one_trace_for_all_batches_and_times():
    traces = []

    @tf.function(input_signature=[tf.TensorSpec((None, None, 4), "float64"), tf.TensorSpec((None, None), "bool")])
    def decode(x, m):
        traces.append(1)
        return *ctc_beam_search(x, 3, n_best=2, mask=m), *ctc_greedy(x, m)

    for batch, time in itertools.product((2, 4), (1, 6)):
        logits, mask = settings(batch, batch, max(time, 3), 4)
        tokens, scores, best, shares = decode(logits, mask)
        for r in range(batch):
            agrees(tokens[r], scores[r], beam_by_hand(logits[r], mask[r], 0, 3)[:2], 0)
        greedy = ctc_greedy(logits, mask)
        np.testing.assert_array_equal(best, greedy[0])
        np.testing.assert_allclose(shares, greedy[1])
    assert len(traces) == 1


def test_rows_that_show_nothing_have_no_labels():
    logits, mask = np.full((2, 3, 4), np.nan), np.zeros((2, 3), bool)
    for tokens, scores in (ctc_greedy(logits, mask), ctc_beam_search(logits, 3, mask=mask)):
        assert not np.any(tokens)
        np.testing.assert_array_equal(scores, np.zeros(scores.shape))


LOGITS = np.zeros((2, 3, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width: expected a positive integer, got 0"),
        ({"width": 2.5}, "width: expected a positive integer, got 2.5"),
        ({"width": 41}, "width: expected at most 40, all sequences of up to 3 labels of 3, got 41"),
        ({"logits": LOGITS[:, :, :1], "width": 2}, "width: expected at most 1"),
        ({"width": 2, "n_best": 3}, "n_best: expected at most the width 2, got 3"),
        ({"blank": 4}, "blank: expected the index of one of the 4 logits, got 4"),
        ({"blank": -1}, "blank: expected the index of one of the 4 logits, got -1"),
        ({"blank": True}, "blank: expected a token, an integer, got True"),
        ({"logits": LOGITS[0]}, r"logits: expected shape \(b, t, v\) with b and t of 1 or more, got \(3, 4\)"),
        ({"logits": LOGITS[:, :0]}, r"logits: expected shape \(b, t, v\) with b and t of 1 or more, got \(2, 0, 4\)"),
        ({"mask": np.ones((2, 4), bool)}, r"mask: expected booleans of shape \(2, 3\), got bool \(2, 4\)"),
        ({"mask": np.ones((2, 3))}, "mask: expected booleans of shape"),
        ({"alpha": -1.0, "language_model": 1}, "alpha: expected a number, at least 0, got -1.0"),
        ({"beta": float("nan")}, "beta: expected a number, finite, got nan"),
        ({"beta": "long"}, "beta: expected a number, finite, got 'long'"),
        ({"state": [np.zeros(2)]}, "language_model: expected one for the state, start or alpha"),
        ({"start": 1}, "language_model: expected one for the state, start or alpha"),
        ({"start": 4, "language_model": lambda w, s: (LOGITS[:, 0], s)}, "start: expected a token from 0 to 3, got 4"),
        ({"language_model": lambda w, s: (LOGITS[:, 0, :3], s)}, r"language_model: expected logits \(rows, 4\)"),
        ({"language_model": lambda w, s: (LOGITS[:, 0], [s])}, "step: expected a state of the structure"),
    ],
    ids=lambda v: v if isinstance(v, str) else " ".join(v),
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ctc_beam_search(**{"logits": LOGITS, "width": 2, **arguments})
    if not set(arguments) - {"logits", "mask", "blank"}:
        with pytest.raises((TypeError, ValueError), match=message):
            ctc_greedy(**{"logits": LOGITS, **arguments})
