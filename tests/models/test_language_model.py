"""The language model: what it computes, what it writes, files, and what it refuses."""

import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from language_models import (
    CHARACTERS,
    PAD,
    SIZE,
    START,
    WIDTH,
    drawn,
    in_chunks,
    made,
    nats,
    sequences,
)

import keras_seq
from keras_seq.models import LanguageModel, Vocabulary, stream_batches

pytestmark = pytest.mark.filterwarnings("ignore:.*shorter than the receptive field", "ignore:`shuffle=True`")

# -- the model of tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_equations(tied):
    model = made(sequences(keras_seq.SimpleRNN, WIDTH), tied=tied)
    tokens = drawn(3, 4)
    tokens[1, 2:] = PAD
    e, (w, u, b) = model.embedding.embeddings.numpy(), [x.numpy() for x in model.memory.weights]
    v, a = (e.T, model.bias.numpy()) if tied else [x.numpy() for x in model.readout.weights]
    h, expected = np.zeros((3, WIDTH)), []
    for t in range(4):
        h = np.tanh(e[tokens[:, t]] @ w + h @ u + b)
        expected.append(h @ v + a)
    real = tokens != PAD
    np.testing.assert_allclose(model(tokens).numpy()[real], np.stack(expected, 1)[real], rtol=1e-4, atol=1e-5)
    assert len(model.trainable_variables) == 5 + (not tied)


def test_dropout_is_on_both_sides_of_the_memory_in_training_only():
    model, tokens = made(sequences(keras_seq.ResidualRNN, WIDTH, recurrent=False), dropout=0.4), drawn(40, 3)
    seen = []
    model.memory.call, call = lambda x, **k: seen.append(x) or call(x, **k), model.memory.call
    model.logits = lambda x: seen.append(x) or x
    for training in (False, True):
        model(tokens, training=training)
    share = [float(np.mean(np.array(x) == 0)) for x in seen]
    assert share[:2] == [0, 0]
    np.testing.assert_allclose(share[2:], 0.4, atol=0.08)
    kept = np.array(seen[2]) != 0
    np.testing.assert_allclose(np.array(seen[2])[kept], np.array(seen[0])[kept] / 0.6, rtol=1e-5)


def test_padding_is_no_part_of_the_loss_nor_of_the_memory():
    model, tokens = made(), drawn(3, 7)
    tokens[1, 4:], tokens[2, 2:] = PAD, PAD
    model.compile("sgd")
    wide = np.pad(tokens, ((0, 0), (0, 4)), constant_values=PAD)
    first = model.test_on_batch(tokens[:, :-1], tokens[:, 1:])
    second = model.test_on_batch(wide[:, :-1], wide[:, 1:])
    expected = np.mean(nats(model(tokens[:, :-1]), tokens[:, 1:]))
    np.testing.assert_allclose([first, second], expected, rtol=1e-5)


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def writer():
    model = made(keras_seq.Stacked([keras_seq.TDNN(4, context=[-2, 0]), sequences(keras_seq.GRU, 5)]), scale=0.8)
    model.readout.bias.assign(model.readout.bias + np.where(model.writable, 0, 20.0))  # what may not be written
    return model


PROMPTS = ["to be", "", "question.", "th"]


def test_greedy_texts_are_the_likeliest_and_streams_agree(writer):
    texts = writer.generate(PROMPTS, "greedy")
    for prompt, text in zip(PROMPTS, texts, strict=True):
        tokens = np.asarray(CHARACTERS.encode([text]))[0]
        inputs = tokens[:-1]
        best = np.where(writer.writable, writer(inputs[None])[0], -np.inf).argmax(-1)
        begun = len(prompt)
        targets = tokens[1:] if len(text) < 12 else tokens[1:-1]
        assert text.startswith(prompt)
        np.testing.assert_array_equal(best[begun : len(targets)], targets[begun:])
        assert "".join([prompt, *writer.stream(prompt, "greedy", max_length=12)]) == text
        assert len(targets) > begun


def test_samples_are_drawn_anew_or_by_their_seed_and_are_only_what_may_be_written():
    writer = made(sequences(keras_seq.ResidualRNN, 6, recurrent=False))
    writer.readout.bias.assign(writer.readout.bias + np.where(writer.writable, 0, 20.0))
    allowed = np.zeros(SIZE, bool)
    allowed[[PAD, CHARACTERS.unknown, START, CHARACTERS.tokens.index("q"), CHARACTERS.tokens.index("u")]] = True
    texts = writer.generate([""] * 6, temperature=3.0, allowed=allowed)
    assert set("".join(texts)) == {"q", "u"}
    assert {len(t) for t in texts} == {12}
    again = [writer.generate([""] * 6, temperature=3.0, allowed=allowed, seed=s) for s in (5, 5, 6)]
    assert again[0] == again[1] != again[2]
    streams = [writer.stream("to", max_length=12, temperature=3.0, seed=s) for s in (5, 5, 6)]
    in_turn = itertools.zip_longest(*streams, fillvalue="")  # each draws its own
    streamed = ["".join(pieces) for pieces in zip(*in_turn, strict=True)]
    assert streamed[0] == streamed[1] != streamed[2]
    assert len(set(streamed[0])) > 1
    other = ["".join(writer.stream("to", max_length=12, temperature=3.0)) for _ in range(2)]
    assert other[0] != other[1]
    assert not set("".join(streamed)) - set(CHARACTERS.words)


def test_a_seed_leaves_the_random_numbers_of_the_model_alone():
    """Nor do they matter to what it gives."""
    writer = made(sequences(keras_seq.ResidualRNN, 6, recurrent=False))
    state, given = writer.seed_generator.state, {"temperature": 3.0, "max_length": 9}
    before = state.numpy()
    seeded = writer.generate(["to", ""], seed=5, **given)
    streamed = "".join(writer.stream("to", seed=5, **given))
    np.testing.assert_array_equal(state, before)
    free = [writer.generate(["to", ""], **given) for _ in range(2)]
    assert free[0] != free[1]
    assert np.any(state.numpy() != before)
    assert writer.generate(["to", ""], seed=5, **given) == seeded
    assert "".join(writer.stream("to", seed=5, **given)) == streamed


def test_streams_end_where_the_text_does_and_go_on_without_a_limit():
    words = Vocabulary(["to", "be"])
    model = made(sequences(keras_seq.ResidualRNN, 6, recurrent=False), words, scale=0.0)
    model.readout.bias.assign(np.eye(len(words))[words.tokens.index("be")])
    assert model.generate(["to", ""], "greedy", max_length=3) == ["to be be", "be be be"]
    assert list(model.stream("", "greedy", max_length=3)) == ["be", " be", " be"]
    pieces = model.stream("to", "greedy")
    assert [next(pieces) for _ in range(40)] == [" be"] * 40
    model.readout.bias.assign(10 * np.eye(len(words))[words.end])
    assert list(model.stream("to be", "greedy")) == []
    assert model.generate(["to"], "greedy") == ["to"]


def test_a_beam_gives_the_best_texts():
    writer = made(sequences(keras_seq.ResidualRNN, 6, recurrent=False))
    found = writer.generate(["to", "be"], "beam", width=3, n_best=2, max_length=5)
    best = writer.generate(["to", "be"], "beam", width=3, max_length=5)
    assert [row[0] for row in found] == best
    assert writer.generate(["to", "be"], "beam", width=3, n_best=1, max_length=5) == best
    assert [len(row) for row in found] == [2, 2]
    assert all(text.startswith(p) for p, row in zip(["to", "be"], found, strict=True) for text in row)


def test_mixed_precision_carries_its_states():
    memory = sequences(keras_seq.LSTM, WIDTH, learn_initial_state=True, dtype="mixed_bfloat16")
    model = made(memory, tied=True, dtype="mixed_bfloat16")
    tokens = drawn(2, 8)
    got, whole = in_chunks(model, tokens, [[1, 1], [0, 0]], 4), model(tokens)
    assert whole.dtype == tf.bfloat16
    np.testing.assert_allclose(got.astype("float32"), tf.cast(whole, "float32"), atol=0.02)
    assert model.generate(["to"], "greedy", max_length=4)[0].startswith("to")


# -- files -------------------------------------------------------------------------------------------------------------

FRESH = """
import sys, numpy as np, tensorflow as tf
model = tf.saved_model.load('served')
for texts in (['to be', ''], ['that']):
    print(*[s.decode() for s in model.texts(tf.constant(texts)).numpy()], sep=';')
prompt = np.load('prompt.npy')
print(model.serve(tf.constant(prompt)).numpy().tolist())
state, logits = model.initial_state(tf.constant(2)), []
for t in range(prompt.shape[1]):
    z, *state = model.step(tf.constant(prompt[:, t]), *state)
    logits.append(z)
np.save('logits.npy', np.stack(logits, 1))
assert 'keras_seq' not in sys.modules
"""


def test_saved_loaded_and_exported(tmp_path, writer):
    texts = writer.generate(["to be", "", "that"], "greedy")
    writer((drawn(2, 4), np.array([True, True])))  # kept states are no weights
    writer.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    prompt = np.concatenate([[[START], [START]], drawn(2, 3)], axis=1).astype("int32")
    np.testing.assert_allclose(again(prompt), writer(prompt), atol=1e-6)
    writer.export(tmp_path / "served", decoder="greedy", options={"max_length": 12}, verbose=False)
    np.save(tmp_path / "prompt.npy", prompt)
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    tokens = writer.compiled_tokens(None, np.pad(prompt, ((0, 0), (0, 9))), "greedy", max_length=12).numpy().tolist()
    assert done.stdout.split("\n")[:3] == [";".join(texts[:2]), texts[2], str(tokens)]
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), writer(prompt), atol=2e-5)


def test_configuration():
    model = made("residual", embedding_size=6, tied=True, dropout=0.25, max_length=7, seed=3)
    again = LanguageModel.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    names = ("embedding_size", "tied", "dropout", "max_length", "seed")
    assert [getattr(again, n) for n in names] == [6, True, 0.25, 7, 3]
    assert again.vocabulary.tokens == CHARACTERS.tokens


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"vocabulary": ["a"]}, TypeError, "vocabulary: expected"),
        ({"memory": keras.layers.LSTM(3, return_sequences=True)}, TypeError, "memory: expected a sequence layer"),
        ({"memory": keras_seq.LSTM(3)}, ValueError, "memory: expected return_sequences=True"),
        ({"memory": sequences(keras_seq.LSTM, 3, go_backwards=True)}, ValueError, "memory: .* forwards"),
        ({"memory": keras_seq.Bidirectional(sequences(keras_seq.GRU, 3))}, ValueError, "memory: .* forwards"),
        ({"memory": keras_seq.TDNN(3, context=[-1, 1])}, ValueError, "memory: .* ahead"),
        ({"memory": sequences(keras_seq.LSTM, 3, stateful=True)}, ValueError, "memory: expected stateful=False"),
        ({"memory": sequences(keras_seq.LSTM, 3, return_internals=True)}, ValueError, "memory: .*return_internals"),
        ({"embedding_size": 0}, ValueError, "embedding_size"),
        ({"tied": 1}, TypeError, "tied"),
        ({"tied": True, "embedding_size": 4}, ValueError, "tied: .* as wide as embedding_size=4, got 3"),
        ({"dropout": 1.0}, ValueError, "dropout"),
        ({"max_length": 2.5}, TypeError, "max_length"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        LanguageModel(**{"vocabulary": CHARACTERS, "memory": sequences(keras_seq.LSTM, 3), **arguments})


def test_a_memory_built_for_another_width_is_named():
    memory = sequences(keras_seq.LSTM, 3)
    memory.build((None, None, 7))
    with pytest.raises(ValueError, match=r"memory: expected a layer for inputs of width 128, got .*, built for 7"):
        LanguageModel(CHARACTERS, memory)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.arange(1, 5), 4, 1), ValueError, "rows: expected at most the 3 tokens"),
        ((np.arange(1, 9), 2, 5), ValueError, "steps: expected at most 4, .* got 5"),
        (([[1, 2, 3], [4, 5]], 3, 1), ValueError, "rows: .* 2 documents, got 3"),
        (([[1, 2, 3], [4]], 1, 1), ValueError, r"documents\[1\]: expected two tokens"),
        (([[1, 2, 3], [4, 0, 5]], 1, 1), ValueError, r"documents\[1\]: expected no padding \(0\), got it at place 1"),
        ((np.ones((2, 3)), 1, 1), TypeError, "documents: expected integers"),
        ((np.ones(3), 1, 1), TypeError, "documents: expected integers"),
        (([], 1, 1), TypeError, "documents: expected integers"),
        ((np.arange(1, 9), 0, 5), ValueError, "rows"),
        ((np.arange(1, 9), 1, 2.0), TypeError, "steps"),
    ],
)
def test_wrong_streams_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        stream_batches(*arguments)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(np.array([[1, SIZE]])), ValueError, "tokens: expected integers from 0"),
        (lambda m: m(np.array([[1, -1]])), ValueError, "tokens: expected integers from 0"),
        (lambda m: m(np.array([1, 2])), ValueError, r"tokens: expected shape \(b, t\)"),
        (lambda m: m((drawn(2, 3), np.array([True]))), ValueError, r"starts: expected .*\(2,\)"),
        (lambda m: m.streams([1, 2], 1, 1), TypeError, "texts: expected a list of strings"),
        (lambda m: m.streams([], 1, 1), ValueError, "texts: expected at least one"),
        (lambda m: m.streams("to", 3, 1), ValueError, "rows: expected at most the 2 tokens"),
        (lambda m: m.streams("to be", 1, 9), ValueError, "steps: expected at most 5"),
        (lambda m: m.generate("to be"), TypeError, "prompts: expected a list of strings"),
        (lambda m: m.generate([]), ValueError, "prompts: expected at least one"),
        (lambda m: m.generate(["to be or not to be"]), ValueError, "prompts: expected at most max_length=12"),
        (lambda m: m.generate(["to"], "likeliest"), ValueError, "decoder: expected one of"),
        (lambda m: m.generate(["to"], allowed=np.ones(3, bool)), ValueError, "allowed: expected booleans"),
        (lambda m: m.generate(["to"], temperature=0.0), ValueError, "temperature"),
        (lambda m: m.generate_tokens(None), ValueError, "prompt: expected"),
        (lambda m: m.stream("to", "beam"), ValueError, "decoder: expected 'sample' or 'greedy'"),
        (lambda m: m.stream("to", top_k=0), ValueError, "top_k"),
        (lambda m: m.stream("to", "greedy", seed=3), ValueError, "seed: expected None"),
        (lambda m: m.stream("to be", max_length=4), ValueError, "prompts: expected at most max_length=4"),
        (lambda m: m.stream(["to"]), TypeError, "prompt: expected a string"),
        (lambda m: m.export("x", decoder="beam"), ValueError, "decoder: expected 'sample' or 'greedy'"),
    ],
)
def test_wrong_inputs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(REFUSING)


REFUSING = made(sequences(keras_seq.SimpleRNN, 3))


def test_rows_that_are_not_known_are_named():
    model = made(sequences(keras_seq.SimpleRNN, 3))
    specs = tf.TensorSpec((None, 4), tf.int32), tf.TensorSpec((None,), tf.bool)
    with pytest.raises(ValueError, match="tokens: expected a known number of rows"):
        tf.function(lambda tokens, starts: model((tokens, starts))).get_concrete_function(*specs)
