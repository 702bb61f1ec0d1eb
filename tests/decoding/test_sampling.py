"""Drawn tokens: their shares are the probabilities, the cuts are exact, and limits are kept; greedy's too."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq.decoding import beam_search, greedy, sample
from keras_seq.decoding.sampling import drawn_tokens

LOGITS = np.log(np.array([0.02, 0.08, 0.4, 0.2, 0.3], "float32"))
END, PAD = 0, 1


def still(tokens, state):
    """The same logits whatever came before."""
    return tf.repeat(LOGITS[None], tf.shape(tokens)[0], 0), state


def shares(tokens):
    """How often each token was drawn as the first one."""
    return np.bincount(np.asarray(tokens)[:, 0], minlength=5) / len(tokens)


def first(**arguments):
    prompt = tf.ones((20_000, 1), "int32")
    draw = tf.function(
        lambda p: sample(still, (), p, end=END, pad=PAD, max_length=1, seed=3, **arguments), jit_compile=True
    )
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
        sample(still, (), tf.ones((400, 1), "int32"), end=END, pad=PAD, max_length=50, seed=1, allowed=LOGITS > -3)
    )
    assert set(np.unique(tokens)) == {1, 2, 3, 4}
    np.testing.assert_allclose(
        np.bincount(tokens.ravel(), minlength=5)[1:] / tokens.size, powered(1)[1:] / 0.98, atol=0.02
    )
    follows = np.mean(tokens[:, 1:] == tokens[:, :-1])
    assert abs(follows - np.sum((powered(1)[1:] / 0.98) ** 2)) < 0.02
    assert len({tuple(row) for row in tokens}) == 400


def test_which_number_stands_for_which_token():
    """The first whose cumulated share exceeds the number; none of share 0, not even for the number 0."""
    logits = tf.constant([[-np.inf, 0.0, -np.inf, 0.0, 0.0, 0.0, -np.inf]])  # four quarters, exactly
    numbers = np.array([0.0, 0.2, 0.25, 0.4, 0.5, 0.75, 1 - 2**-23, np.nextafter(np.float32(1), 0)], "float32")
    for cut, expected in (
        ({}, [1, 1, 3, 3, 4, 5, 5, 5]),
        ({"top_k": 2}, [1, 1, 1, 1, 3, 3, 3, 3]),
        ({"top_p": 0.75}, [1, 1, 1, 3, 3, 4, 4, 4]),  # those that make three quarters, and no fourth
        ({"top_p": 0.76}, [1, 1, 3, 3, 4, 5, 5, 5]),
        ({"top_k": 3, "top_p": 0.25}, [1] * 8),
    ):
        found = drawn_tokens(tf.repeat(logits, len(numbers), 0), numbers[:, None], **cut)
        assert found.numpy().tolist() == expected, cut


def test_seeds():
    prompt = tf.ones((3, 1), "int32")
    draw = lambda seed: np.asarray(sample(still, (), prompt, end=END, pad=PAD, max_length=30, seed=seed))  # noqa: E731
    assert np.all(draw(5) == draw(5))
    assert np.any(draw(5) != draw(6))
    generator = keras.random.SeedGenerator(1)
    compiled = tf.function(
        lambda: sample(still, (), prompt, end=END, pad=PAD, max_length=30, seed=generator), jit_compile=True
    )
    assert np.any(np.asarray(compiled()) != np.asarray(compiled()))
    assert np.any(draw(None) != draw(None))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_seed_says_what_a_row_gets_compiled_or_not_whatever_stands_below_it(jit_compile):
    def draw(rows, seed, longest=20):
        return sample(still, (), tf.ones((rows, 1), "int32"), end=END, pad=PAD, max_length=longest, seed=seed)

    expected = np.asarray(draw(4, 7))
    found = tf.function(draw, jit_compile=jit_compile, autograph=False)(4, tf.constant(7))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(draw(2, 7), expected[:2])
    np.testing.assert_array_equal(draw(4, 7, 9), expected[:, :9])


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


TENSORS = {
    "temperature": (sample, [0.5, 1.0, 3.0]),
    "top_p": (sample, [0.3, 0.71, 1.0]),
    "seed": (sample, [1, 2, 3]),
    "length_penalty": (beam_search, [0.0, 0.7, 3.0]),
    "min_length": (sample, [0, 2, 6]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_one_trace_for_all_numbers(name):
    decode, values = TENSORS[name]
    given = {"end": END, "pad": PAD, "max_length": 6, **({"seed": 1} if decode is sample and name != "seed" else {})}
    traces = []

    @tf.function(jit_compile=True, autograph=False)
    def run(value):
        traces.append(1)
        return decode(still, (), tf.fill((40, 1), 2), **given, **{name: value})

    found = [tf.nest.map_structure(np.asarray, run(tf.constant(v))) for v in values]
    for value, tokens in zip(values, found, strict=True):
        expected = decode(still, (), tf.fill((40, 1), 2), **given, **{name: value})
        tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), tokens, expected)
    assert np.any(tf.nest.flatten(found[0])[-1] != tf.nest.flatten(found[-1])[-1])
    assert len(traces) == 1


DECODERS = {"greedy": greedy, "sample": partial(sample, seed=1), "beam": partial(beam_search, width=3, n_best=2)}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("prompt", [[[2, 9, 1], [2, 3, 1]], [[2, 4, 9], [2, 3, 1]], [[-1, 1, 1], [2, 3, 1]]], ids=str)
def test_prompts_in_graphs_are_checked(decode, prompt):
    """By an assertion that names them when the graph runs; under XLA the row is padding, its score NaN, and the others are
    what they are."""

    def run(prompt):
        return decode(still, (), prompt, end=END, pad=PAD, max_length=4)

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"prompt: expected integers from 0 to 4, got.*(9|-1)"):
        tf.function(run, autograph=False)(tf.constant(prompt))
    found = tf.nest.map_structure(np.asarray, tf.function(run, autograph=False, jit_compile=True)(tf.constant(prompt)))
    right = tf.nest.map_structure(np.asarray, run(tf.constant([[2, 1, 1], [2, 3, 1]])))
    for wrong, whole in zip(tf.nest.flatten(found), tf.nest.flatten(right), strict=True):
        assert np.all(wrong[0] == PAD) if wrong.dtype == np.int32 else np.all(np.isnan(wrong[0]))
        np.testing.assert_array_equal(wrong[1], whole[1])


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("place", [0, 2])
def test_a_row_ends_where_its_logits_are_nan(decode, place):
    """In its prompt of two, too."""

    def step(tokens, state):
        logits = tf.repeat(tf.constant([[-9.0, -9.0, 3.0, 2.0, 1.0]]), tf.shape(tokens)[0], 0)
        lost = tf.logical_and(state["count"] == place, state["row"] == 1)
        return tf.where(lost[:, None], np.nan, logits), {"count": state["count"] + 1, "row": state["row"]}

    state = {"count": tf.zeros((2,), "int32"), "row": tf.range(2)}
    tokens, *scores = tf.nest.flatten(decode(step, state, [[2, 2], [2, 2]], end=END, pad=PAD, max_length=5))
    tokens = np.reshape(tokens, (2, -1, 5))
    assert np.all(tokens[0] > 1)
    assert np.all(tokens[1, :, place:] == PAD)
    for score in scores:
        assert np.all(np.isnan(score[1]))
        assert np.all(tokens[1] == PAD)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": np.array([1.0, 2.0])}, r"temperature: expected a number, .*, got float64 \(2,\)"),
        ({"temperature": np.array(-1.0)}, "temperature: expected a number, positive and finite, got -1.0"),
        ({"top_p": np.array(True)}, "top_p: expected a number, .*, got bool"),
        ({"seed": -1}, "seed: expected an integer from 0"),
        ({"temperature": 0}, "temperature: expected a number, positive and finite, got 0"),
        ({"temperature": -1.0}, "temperature: expected"),
        ({"temperature": float("nan")}, "temperature: expected"),
        ({"temperature": "warm"}, "temperature: expected"),
        ({"top_p": 0}, r"top_p: expected a number, in \(0, 1\], got 0"),
        ({"top_p": 1.1}, "top_p: expected"),
        ({"top_k": 0}, "top_k: expected a positive integer"),
        ({"top_k": 6}, "top_k: expected at most the 5 tokens"),
        ({"max_length": 0}, "max_length: expected a positive integer, got 0"),
        ({"min_length": 4}, "min_length: expected integers from 0 to max_length=3, got 4"),
        ({"min_length": 1.5}, "min_length: expected integers, got 1.5"),
        ({"min_length": True}, "min_length: expected integers, got True"),
        ({"min_length": [0, -1]}, "min_length: expected integers from 0 to max_length=3, got -1"),
        ({"min_length": [[1], [2]]}, r"min_length: expected integers of shape \(\) or \(2,\), got shape \(2, 1\)"),
        (
            {"min_length": [1, 3], "max_lengths": [1, 2]},
            r"min_length: expected at most max_lengths \[1 2\], row by row",
        ),
        ({"max_lengths": [0, 1]}, "max_lengths: expected integers from 1 to max_length=3, got 0"),
        ({"max_lengths": [3, 4]}, "max_lengths: expected integers from 1 to max_length=3, got 4"),
        ({"max_lengths": 3}, r"max_lengths: expected integers of shape \(2,\), got shape \(\)"),
        ({"max_lengths": [1, 2, 3]}, r"max_lengths: expected integers of shape \(2,\), got shape \(3,\)"),
        ({"max_lengths": [1.0, 2.0]}, "max_lengths: expected integers, got"),
        ({"max_length": 2.0}, "max_length: expected a positive integer, got 2.0"),
        ({"end": 1}, "end: expected another token than pad, got 1 for both"),
        ({"end": -1}, "end: expected a token of the 5 .*, got -1"),
        ({"end": None}, "end: expected a token, an integer, got None"),
        ({"pad": 5}, "pad: expected a token of the 5 .*, got 5"),
        ({"pad": True}, "pad: expected a token, an integer, got True"),
        ({"allowed": np.ones((3, 5), bool)}, r"allowed: expected booleans of shape .* got bool \(3, 5\)"),
        ({"prompt": [[1, 5], [1, 1]]}, "prompt: expected tokens 0 .. 4, as the step gives logits for, got 5"),
        ({"prompt": [[1, 1], [-2, 1]]}, "prompt: expected tokens 0 .. 4, .*, got -2"),
        ({"prompt": [[1.0]]}, "prompt: expected a tensor of integers, got one of float32"),
        ({"end": 5}, "end: expected a token of the 5"),
        ({"allowed": np.ones(4, bool)}, r"allowed: expected booleans of shape \(5,\)"),
        ({"allowed": np.ones(5)}, "allowed: expected booleans"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    """Of all three decoders, each as far as it has the argument."""
    given = {"prompt": [[1], [1]], "end": END, "pad": PAD, "max_length": 3, **arguments}
    decoders = [sample] if {"temperature", "top_k", "top_p", "seed"} & set(arguments) else [greedy, sample, beam_search]
    for decode in decoders:
        with pytest.raises((TypeError, ValueError), match=message):
            decode(still, (), **given)


def test_a_prompt_that_the_step_cannot_look_up_is_named():
    """The step itself fails on it, and says nothing of the prompt."""
    table = tf.eye(5)
    for prompt in ([[1], [5]], [[1, 1], [1, 7]]):
        for decode in (greedy, sample, beam_search):
            with pytest.raises(ValueError, match=r"prompt: expected tokens 0 .. 4, .*, got [57]"):
                decode(lambda w, s: (tf.gather(table, w), s), (), prompt, end=END, pad=PAD, max_length=3)


def test_an_error_of_the_step_itself_comes_through():
    def broken(tokens, state):
        raise KeyError("its own")

    for prompt in ([[1]], [[9]]):
        with pytest.raises(KeyError, match="its own"):
            greedy(broken, (), prompt, end=END, pad=PAD, max_length=3)


STATE = {"a": tf.ones((2, 3)), "b": [tf.zeros((2,), "int32")]}
STEPS = {  # what a step makes of this state, and what is said of it
    "structure": (lambda s: (s, s), "step: expected a state of the structure that it was given"),
    "key": (lambda s: {"a": s["a"], "c": s["b"]}, "step: expected a state of the structure"),
    "shape": (lambda s: {**s, "a": s["a"][:, :2]}, r"tensor 0 of 2 is float32 \(\d+, 3\), got float32 \(\d+, 2\)"),
    "axes": (lambda s: {**s, "a": s["a"][..., None]}, r"tensor 0 of 2 .*, got float32 \(\d+, 3, 1\)"),
    "rows": (lambda s: {**s, "a": s["a"][:1]}, r"tensor 0 of 2 is float32 \(\d+, 3\), got float32 \(1, 3\)"),
    "type": (lambda s: {**s, "b": [tf.cast(s["b"][0], "float32")]}, r"tensor 1 of 2 is int32 .*, got float32"),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("change", "message"), STEPS.values(), ids=STEPS)
def test_a_step_that_changes_its_state_is_named(change, message, compiled):
    for decode in (greedy, sample, beam_search):

        def run(prompt, decode=decode):
            step = lambda w, s: (still(w, s)[0], change(s))  # noqa: E731
            return decode(step, STATE, prompt, end=END, pad=PAD, max_length=3)

        with pytest.raises(ValueError, match=message):
            (tf.function(run, autograph=False) if compiled else run)(tf.ones((2, 1), "int32"))


@pytest.mark.parametrize("logits", [tf.ones((5,)), tf.ones((2, 1, 5))])
def test_logits_of_another_shape_are_named(logits):
    for decode in (greedy, sample, beam_search):
        with pytest.raises(ValueError, match=r"step: expected logits \(rows, v\) with v known, got shape"):
            decode(lambda w, s: (logits, s), (), [[1], [1]], end=END, pad=PAD, max_length=3)


# -- limits of each row ------------------------------------------------------------------------------------------------


def test_each_row_has_its_own_limits():
    """END is the likeliest: it comes where the row's minimum lets it, and the row stops at its maximum."""
    logits = tf.constant([[5.0, 1.0, 2.0, 3.0]])
    step = lambda w, s: (tf.repeat(logits, tf.shape(w)[0], 0), s)  # noqa: E731
    prompt = [[2, 1, 1], [2, 3, 1], [2, 2, 2], [2, 1, 1], [2, 2, 3]]
    expected = [[3, 3, 3, 0, 1], [3, 0, 1, 1, 1], [2, 2, 1, 1, 1], [3, 3, 1, 1, 1], [2, 1, 1, 1, 1]]
    given = {"end": 0, "pad": 1, "max_length": 5, "max_lengths": [5, 5, 2, 2, 1], "min_length": [4, 0, 2, 2, 0]}
    given["min_length"][3] = 2
    given["allowed"] = np.array([[True] * 4] * 3 + [[False, True, True, True]] + [[True] * 4])
    assert greedy(step, (), prompt, **given).numpy().tolist() == expected
    assert sample(step, (), prompt, top_k=1, **given).numpy().tolist() == expected
    assert beam_search(step, (), prompt, width=1, **given)[0][:, 0].numpy().tolist() == expected


@pytest.mark.parametrize("decode", [greedy, partial(sample, seed=1), lambda *a, **k: beam_search(*a, **k)[0][:, 0]])
def test_one_trace_for_all_limits(decode):
    traces = []

    @tf.function(jit_compile=True, autograph=False)
    def run(prompt, most, least):
        traces.append(1)
        limits = {"max_length": 6, "max_lengths": most, "min_length": least}
        return decode(still, (), prompt, end=END, pad=PAD, allowed=np.arange(5) != 1, **limits)

    for most, least in (([6, 1, 3], [6, 1, 2]), ([2, 5, 6], [2, 5, 6]), ([4, 4, 4], [4, 4, 4])):
        found = run(tf.fill((3, 1), 2), tf.constant(most), tf.constant(least)).numpy()
        lengths = (found != PAD).sum(axis=1)
        assert np.all(lengths <= most)
        assert np.all(lengths >= least)
    assert len(traces) == 1
