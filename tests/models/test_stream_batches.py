"""Long texts in chunks: what a memory carries from one to the next, and how they are cut."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from language_models import CHARACTERS, MEMORIES, PAD, START, TEXT, drawn, in_chunks, made, nats, sequences

import keras_seq
from keras_seq.metrics import Perplexity
from keras_seq.models import stream_batches

pytestmark = pytest.mark.filterwarnings("ignore:.*shorter than the receptive field", "ignore:`shuffle=True`")


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


def test_training_and_everything_else_carry_states_of_their_own():
    model, tokens, begun = made("LSTM"), drawn(2, 8), np.array([True, True])
    model((tokens[:, :4], begun))
    model((tokens[:, 4:], begun), training=True)
    model((tokens[:1, 4:], begun[:1]))  # nor those of another number of rows
    np.testing.assert_allclose(model((tokens[:, 4:], ~begun)), model(tokens)[:, 4:], atol=2e-5)


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


@pytest.mark.deep
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
    data = stream_batches(np.arange(1, length + 1), rows, steps)
    streams = read_back(data, rows)
    assert all(len(row) == 1 for row in streams)
    tokens, targets = ([token for row in streams for token in row[0][i]] for i in (0, 1))
    assert tokens == list(range(1, length))
    assert targets == list(range(2, length + 1))
    lengths = [len(row[0][0]) for row in streams]
    assert max(lengths) - min(lengths) <= 1
    assert len(data) == -(-max(lengths) // steps), "no chunk of nothing but padding"


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
