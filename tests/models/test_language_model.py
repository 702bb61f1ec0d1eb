"""The language model: what it computes, what streams carry, what it writes, files, and what it refuses."""

import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.metrics.likelihood import Perplexity
from keras_seq.models.language_model import LanguageModel
from keras_seq.models.streams import stream_batches
from keras_seq.models.vocabulary import Vocabulary

TEXT = "to be or not to be, that is the question. " * 3
CHARACTERS = Vocabulary.of([TEXT], split="characters")
PAD, START, END = CHARACTERS.pad, CHARACTERS.start, CHARACTERS.end
SIZE, WIDTH = len(CHARACTERS), 5


def sequences(layer, *arguments, **named):
    return layer(*arguments, return_sequences=True, **named)


def mixture():
    """A stack of memories that carry a state and of layers that see so many steps, some within another stack."""
    convolutions = sequences(keras_seq.TCN, 4, kernel_size=2, dilations=[1, 2])
    inner = keras_seq.Stacked(
        [keras_seq.TDNN(3, context=[-2, 0]), sequences(keras_seq.GRU, 4), keras_seq.TDNN(4, delays=1)]
    )
    return keras_seq.Stacked([convolutions, sequences(keras_seq.LSTM, 4), inner], skips="dense")


MEMORIES = {
    "LSTM": lambda: sequences(keras_seq.LSTM, 6, learn_initial_state=True),
    "cell": lambda: sequences(keras_seq.RNN, keras_seq.PeepholeLSTMCell(6)),
    "Keras's cell": lambda: sequences(keras_seq.RNN, keras.layers.GRUCell(6)),
    "Jordan": lambda: sequences(keras_seq.Jordan, 6, outputs=4),
    "residual": lambda: keras_seq.Stacked(keras_seq.GRU, [6, 6], skips="residual", return_sequences=True),
    "TCN": lambda: sequences(keras_seq.TCN, 6, dilations=[1, 2]),
    "WaveNet": lambda: keras_seq.WaveNet(4, dilations=[1, 2]),
    "mixture": mixture,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*shorter than the receptive field", "ignore:`shuffle=True`")


def made(memory=None, vocabulary=CHARACTERS, scale=0.5, **arguments):
    memory = MEMORIES.get(memory, MEMORIES["LSTM"])() if memory is None or isinstance(memory, str) else memory
    model = LanguageModel(vocabulary, memory, **{"embedding_size": WIDTH, "max_length": 12, "seed": 1, **arguments})
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(scale=scale, size=weight.shape))
    return model


def drawn(rows, steps, seed=0):
    return np.random.default_rng(seed).integers(END + 1, SIZE, (rows, steps)).astype("int32")


def in_chunks(model, tokens, starts, steps):
    """Logits of tokens (b, t) given in chunks; `starts` (chunks, b)."""
    chunks = np.split(tokens, tokens.shape[1] // steps, axis=1)
    return np.concatenate([model((c, s)).numpy() for c, s in zip(chunks, np.array(starts, bool), strict=True)], axis=1)


def nats(logits, targets):
    """-ln softmax(logits) of targets that are no padding, by NumPy in float64."""
    logits, targets = np.asarray(logits, "float64"), np.asarray(targets)
    logits = logits - logits.max(-1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -np.log(np.take_along_axis(p, targets[..., None], axis=-1)[..., 0][targets != PAD])


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


# -- streams -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", MEMORIES)
def test_chunks_are_the_whole_and_documents_do_not_know_of_each_other(memory):
    """Row 0: a text of 12. Row 1: one of 6, so that its second chunk is padded, then one of 4. The latter once more alone."""
    model, tokens = made(memory), drawn(2, 12)
    tokens[1, 6:8] = PAD
    got = in_chunks(model, tokens, [[1, 1], [0, 0], [0, 1]], 4)
    np.testing.assert_allclose(got[0], model(tokens[:1])[0], atol=2e-5)
    np.testing.assert_allclose(got[1, :6], model(tokens[1:, :6])[0], atol=2e-5)
    np.testing.assert_allclose(got[1, 8:], model(tokens[1:, 8:])[0], atol=2e-5)
    again = in_chunks(model, tokens, [[1, 1], [0, 0], [0, 0]], 4)
    assert np.abs(got - again)[1, 8:].max() > 1e-3, "without a start the text before it is known"


def test_hidden_steps_within_a_stream_are_skipped():
    model, tokens = made("mixture"), drawn(2, 12)
    gaps = np.array([[0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]], bool)
    whole = np.where(gaps, PAD, tokens)
    got = in_chunks(model, whole, [[1, 1], [0, 0], [0, 0]], 4)
    for row in range(2):
        alone = model(tokens[row][~gaps[row]][None])[0]
        np.testing.assert_allclose(got[row][~gaps[row]], alone, atol=2e-5)


def test_the_gradient_stops_between_chunks():
    """The sum over chunks is the gradient of one pass whose memory cuts it every four steps."""
    tokens, model = drawn(2, 13), made(sequences(keras_seq.LSTM, 6))
    cut = made(sequences(keras_seq.LSTM, 6, truncate=4))

    def gradients(of, inputs, targets):
        with tf.GradientTape() as tape:
            z = of(inputs, training=True)
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, z))
        return [np.array(tf.convert_to_tensor(g)) for g in tape.gradient(loss, of.trainable_variables)]

    chunks = [
        gradients(model, (tokens[:, t : t + 4], np.array([t == 0] * 2)), tokens[:, t + 1 : t + 5]) for t in (0, 4, 8)
    ]
    expected, uncut = (gradients(of, tokens[:, :-1], tokens[:, 1:]) for of in (cut, model))
    far = 0
    for found, want, whole in zip(map(sum, zip(*chunks, strict=True)), expected, uncut, strict=True):
        np.testing.assert_allclose(found, want, atol=1e-4, rtol=1e-4)
        far = max(far, np.abs(want - whole).max())
    assert far > 0.01


def test_a_learned_initial_state_learns_where_streams_begin():
    model, tokens = made("LSTM"), drawn(2, 4)
    learned = [w for w in model.trainable_variables if "initial" in w.path]
    for starts, moves in (([True, False], True), ([False, False], False)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model((tokens, np.array(starts)), training=True) ** 2)
        assert [bool(np.abs(g).max() > 1e-3) for g in tape.gradient(loss, learned)] == [moves, moves]


def test_compiled_training_on_streams_and_exact_evaluation():
    """Validation leaves training alone; the loss of a stream is that of one call on all of it, whatever the chunks."""
    model, tokens = made(sequences(keras_seq.SimpleRNN, 6), scale=0.2), np.asarray(CHARACTERS.encode([TEXT]))[:, 1:-1]
    model.compile(keras.optimizers.Adam(0.02), metrics=[Perplexity(PAD)], jit_compile=True)
    data, held_out = model.streams(TEXT, 2, 9), model.streams(TEXT, 1, 50)
    history = model.fit(data, epochs=3, validation_data=held_out, verbose=0).history
    assert model.jit_compile is True
    assert history["loss"][-1] < history["loss"][0]
    left = [k.numpy() for k in model._kept[True, 2]]
    expected = np.exp(np.mean(nats(model(np.concatenate([[[START]], tokens[:, :-1]], axis=1)), tokens)))
    np.testing.assert_allclose(history["val_perplexity"][-1], expected, rtol=1e-4)
    pieces = np.array_split(tokens[0], 2)  # another number of rows than the model has met
    expected = [nats(model(np.concatenate([[START], p[:-1]])[None]), p[None]) for p in pieces]
    found = model.evaluate(model.streams(TEXT, 2, 20), verbose=0, return_dict=True)["perplexity"]
    np.testing.assert_allclose(found, np.exp(np.mean(np.concatenate(expected))), rtol=1e-4)
    assert sorted(model._kept) == [(False, 1), (False, 2), (True, 2)]
    assert [k.numpy().tolist() for k in model._kept[True, 2]] == [s.tolist() for s in left]
    assert np.abs(left[0]).min() > 0


def read_back(data, count):
    """The streams of each row: a list of (tokens, targets) without padding, begun where the batches say so."""
    streams = [[] for _ in range(count)]
    for (tokens, starts), targets in data:
        assert tokens.dtype == targets.dtype == tf.int32
        for row in range(count):
            if starts[row]:
                streams[row].append(([], []))
            for kept, new in zip(streams[row][-1], (tokens[row].numpy(), targets[row].numpy()), strict=True):
                kept.extend(new[new != PAD].tolist())
    return [[s for s in row if s[0]] for row in streams]


@pytest.mark.parametrize(("length", "rows", "steps"), [(13, 2, 3), (14, 3, 4), (30, 4, 5), (9, 8, 1), (20, 1, 19)])
def test_one_array_in_streams(length, rows, steps):
    streams = read_back(stream_batches(np.arange(1, length + 1), rows, steps), rows)
    assert all(len(row) == 1 for row in streams)
    tokens, targets = ([token for row in streams for token in row[0][i]] for i in (0, 1))
    assert tokens == list(range(1, length))
    assert targets == list(range(2, length + 1))
    lengths = [len(row[0][0]) for row in streams]
    assert max(lengths) - min(lengths) <= 1


def test_documents_in_streams():
    documents = [np.arange(10 * i, 10 * i + n) for i, n in enumerate([7, 3, 2, 9, 4], start=1)]
    streams = read_back(stream_batches(documents, 2, 4), 2)
    # chunks of each: 2, 1, 1, 2, 1; each goes where there are fewest
    assert streams == [
        [(d[:-1].tolist(), d[1:].tolist()) for d in np.array(documents, object)[list(places)]]
        for places in ((0, 3), (1, 2, 4))
    ]


def test_streams_of_texts():
    model = made()
    (row,) = read_back(model.streams(["to be", "or not"], 1, 4), 1)
    assert ["".join(CHARACTERS.tokens[i] for i in tokens) for tokens, _ in row] == ["[START]to be", "[START]or not"]
    assert ["".join(CHARACTERS.tokens[i] for i in targets) for _, targets in row] == ["to be[END]", "or not[END]"]
    rows = read_back(model.streams("question", 3, 2), 3)
    expected = ["[START]qu", "[START]st", "[START]o"]
    assert ["".join(CHARACTERS.tokens[i] for i in row[0][0]) for row in rows] == expected
    assert ["".join(CHARACTERS.tokens[i] for i in row[0][1]) for row in rows] == ["que", "sti", "on"]


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
    with pytest.raises(ValueError, match=r"memory: .*embedding_size=128, got one for 7"):
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
        (lambda m: m.stream(["to"]), TypeError, "prompts: expected a list of strings"),
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
