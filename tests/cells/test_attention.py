"""Attention: beside Keras's own layers, under masks of the memory, in a model, and what it refuses."""

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import attending
from conformance import MASK, B, D, Data, T, U, assert_close, randomised

import keras_seq
from keras_seq import AttentionCell, GRUCell, LSTMCell

M = 3
FORMS = [
    attending(GRUCell, {}, M, output_units=3, input_feeding=True),
    attending(LSTMCell, {}, M, query="after", score="general"),
    attending(LSTMCell, {}, M, query="after", score="multi_head", heads=2),
    attending(LSTMCell, {}, U, query="after", score="dot", input_feeding=True),
    attending(GRUCell, {}, M, score="multi_head", heads=2, units=3),
]
NAMES = ["additive", "general", "late heads", "dot", "multi-head"]
forms = pytest.mark.parametrize("case", FORMS, ids=NAMES)
# compiled: of one quickly, of the others in depth
compiled_forms = pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=name, marks=pytest.mark.deep if i else ())
        for i, (c, name) in enumerate(zip(FORMS, NAMES, strict=True))
    ],
)
SEEN = MASK[::-1].copy()  # the first row sees nothing, the last one all


def given(case, dtype="float64"):
    """A layer that shows all, its data, and a memory of five places."""
    layer = case(dtype, return_sequences=True, return_state=True, return_internals=True)
    data = conformance.data(case, layer)
    memory = tf.constant(np.random.default_rng(5).normal(size=(B, 5, case.constants[0][-1])), dtype)
    return layer, data._replace(constants=(memory,))


def reading(mask):
    """`conformance.call` with this mask of the memory."""

    def call(layer, given, training=False):
        return conformance.call(layer, given._replace(constants=(*given.constants, tf.constant(mask))), training)

    return call


def cotangents(layer, data, mask):
    """As many as there are results, at random; the internals have the width of this memory."""
    rng = np.random.default_rng(6)
    found = reading(mask)(layer, data)
    return data._replace(cotangents=tuple(tf.constant(rng.normal(size=v.shape), v.dtype) for v in found))


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@forms
def test_what_is_read_is_what_keras_reads(case, masked):
    """Its layers of attention, given the same queries and weights, on all steps at once."""
    layer, data = given(case)
    cell, (memory,) = layer.cell, data.constants
    seen = tf.constant(SEEN if masked else np.ones_like(SEEN))
    _, *_, internals = layer(data.x, initial_state=list(data.states), constants=[memory, seen])
    hidden = internals["hidden"]
    before = tf.concat([data.states[0][:, None], hidden[:, :-1]], 1)
    query = before if cell.query == "before" else hidden
    if cell.score == "multi_head":
        peer = keras.layers.MultiHeadAttention(2, cell.head_size, dtype="float64")
        peer.build(query.shape, memory.shape)
        shapes = [w.shape for w in peer.get_weights()]
        names = ["query", "key", "value", "heads"]
        ours = [getattr(cell, f"{n}_{kind}").numpy() for n in names for kind in ("kernel", "bias")]
        peer.set_weights([w.reshape(s) for w, s in zip(ours, shapes, strict=True)])
        context, weights = peer(query, memory, attention_mask=seen[:, None], return_attention_scores=True)
        each = [internals[f"alignment_{i}"] for i in range(2)]
        tolerance = 1e-7  # Keras takes the root of the width in float32
        assert_close([np.stack(each, 1)[1:]], [weights[1:]], tolerance)
        assert_close([internals["alignment"][1:]], [np.mean(weights, 1)[1:]], tolerance)
    else:
        key = memory if cell.score == "dot" else memory @ cell.key_kernel
        if cell.score == "additive":
            peer = keras.layers.AdditiveAttention(dtype="float64")
            key, query = key + cell.score_bias, query @ cell.query_kernel
            peer.build([query.shape, memory.shape, key.shape])
            peer.scale.assign(cell.score_kernel)
        else:
            peer = keras.layers.Attention(dtype="float64")
        context, weights = peer([query, memory, key], mask=[None, seen], return_attention_scores=True)
        tolerance = 1e-10
        assert_close([internals["alignment"][1:]], [weights[1:]], tolerance)
    assert_close([internals["context"][1:]], [context[1:]], tolerance)
    if masked:  # Keras reads the mean of what is hidden, or NaN; here it is defined
        assert not np.any(internals["context"][0])
        assert not np.any(internals["alignment"][0])


@compiled_forms
def test_gradients_under_a_mask_of_the_memory(case):
    layer, data = given(case)
    data = cotangents(layer, data, SEEN)
    apply = reading(SEEN)
    loss_of = tf.function(lambda *moved: conformance.loss(apply(layer, Data(*moved)), data.cotangents))
    assert not conformance.check_against_differences(layer, data, loss_of=loss_of, apply=apply)
    gradients = conformance.differentiated(layer, apply=apply)(*data)[1]
    compiled = tf.function(conformance.differentiated(layer, apply=apply), jit_compile=True)
    assert_close(compiled(*data)[1], gradients, 1e-10)
    behind = gradients[1 + len(data.states)].numpy()[~SEEN]
    assert behind.size
    assert not np.any(behind)


@forms
def test_what_the_mask_hides_is_not_there(case):
    """NaN behind it changes nothing, and a row reads what it would of a memory without its hidden places."""
    layer, data = given(case)
    data = cotangents(layer, data, SEEN)
    function = conformance.differentiated(layer, apply=reading(SEEN))
    poison = tf.where(SEEN[:, :, None], data.constants[0], np.nan)
    assert_close(tf.nest.flatten(function(*data._replace(constants=(poison,)))), tf.nest.flatten(function(*data)), 0.0)
    results = function(*data)[0]
    for row in (1, 2):
        shown = data.constants[0][row : row + 1].numpy()[:, SEEN[row]]
        alone = layer(
            data.x[row : row + 1],
            initial_state=[s[row : row + 1] for s in data.states],
            mask=data.mask[row : row + 1],
            constants=[shown],
        )
        count = 1 + len(data.states)
        assert_close(tf.nest.flatten(alone)[:count], [r[row : row + 1] for r in results[:count]], 1e-12)


@pytest.mark.deep
@pytest.mark.parametrize("query", ["before", "after"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_float16", "mixed_bfloat16"])
def test_scores_of_any_size_under_a_mask(dtype, query):
    """Far below what any number could stand for; those that are alike get the same weight, and all has finite gradients."""
    cell = AttentionCell(keras_seq.SimpleRNNCell(U, activation="linear", dtype=dtype), "dot", query=query, dtype=dtype)
    layer = keras_seq.RNN(cell, return_sequences=True, return_internals=True, dtype=dtype)
    layer.build((B, 2, U), constants_shape=[(B, 5, U)])
    for w in layer.weights:
        w.assign(tf.eye(*w.shape) if w.path.endswith("/recurrent_kernel") else tf.zeros(w.shape))
    memory, states = tf.fill((B, 5, U), -6e4), [tf.fill((B, U), 6e4)]

    def differentiated(memory):
        with tf.GradientTape() as tape:
            tape.watch(memory)
            y, internals = layer(tf.zeros((B, 2, U)), initial_state=states, constants=[memory, tf.constant(SEEN)])
            total = tf.reduce_sum(tf.cast(y, "float64")) + tf.reduce_sum(tf.cast(internals["context"], "float64"))
        return internals["alignment"], tape.gradient(total, memory)

    expected = SEEN / np.maximum(1, SEEN.sum(1, keepdims=True))
    for function in (differentiated, tf.function(differentiated, jit_compile=True)):
        alignment, slopes = function(memory)
        np.testing.assert_allclose(alignment[:, 0], expected, rtol=1e-6)
        assert np.all(np.isfinite(slopes))
        assert np.all(slopes.numpy()[~SEEN] == 0)


def test_a_mask_that_keras_carries_is_read():
    """Through a model of an encoder under Masking, saved and loaded."""
    layer = keras_seq.RNN(AttentionCell(GRUCell(U), score="general"), return_sequences=True)
    source, target = keras.Input((None, 2)), keras.Input((None, D))
    encoded = keras_seq.Bidirectional(keras_seq.LSTM(3, return_sequences=True))(keras.layers.Masking()(source))
    model = keras.Model([source, target], layer(target, constants=[encoded]))
    randomised(model)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(B, 5, 2)).astype("float32"), rng.normal(size=(B, T, D)).astype("float32")
    x[~SEEN] = 0
    encoder = keras.Model(source, encoded)
    explicit = layer(y, constants=[encoder(x), tf.constant(SEEN)])
    blind = layer(y, constants=[encoder.predict(x, verbose=0)])
    assert_close([model([x, y])], [explicit], 1e-6)
    assert np.max(np.abs(explicit - blind)) > 1e-3


@forms
def test_step_by_step_with_the_memory_prepared_once(case):
    layer = case("float64", return_sequences=True)
    _, data = given(case)
    constants = [*data.constants, tf.constant(SEEN)]
    whole = layer(data.x, mask=data.mask, constants=constants)
    state, prepared = layer.initial_state(B), layer.prepare_constants(constants)
    for t in range(T):
        y, state = layer.step(data.x[:, t], state, data.mask[:, t], constants=prepared)
        assert_close([y], [whole[:, t]], 1e-12)


def test_on_top_of_a_stack():
    """The lower layer reads no memory; the whole is its layers one after the other, and step by step the same."""
    cell = AttentionCell(GRUCell(U, dtype="float64"), query="after", dtype="float64")
    top = keras_seq.RNN(cell, return_sequences=True, dtype="float64")
    below = keras_seq.LSTM(U, return_sequences=True, dtype="float64")
    stack = keras_seq.Stacked([below, top], skips="residual", return_state=True, dtype="float64")
    stack.build((None, None, D), constants_shape=[(None, 5, M)])
    randomised(stack)
    x, memory = tf.random.normal((B, T, D), dtype="float64"), tf.random.normal((B, 5, M), dtype="float64")
    constants = [memory, tf.constant(SEEN)]
    y, *states = stack(x, constants=constants, mask=tf.constant(MASK))
    lower = below(x, mask=tf.constant(MASK))
    assert_close([y], [lower + top(lower, constants=constants, mask=tf.constant(MASK))], 1e-12)
    state, prepared = stack.initial_state(B), stack.prepare_constants(constants)
    for t in range(T):
        for given in (prepared, constants):
            z, new = stack.step(x[:, t], state, tf.constant(MASK[:, t]), constants=given)
            assert_close([z], [y[:, t]], 1e-12)
        state = new
    assert len(states) == 3
    with pytest.raises(ValueError, match="constants: expected some, as a layer reads them, got 0"):
        stack(x)
    with pytest.raises(ValueError, match="constants: expected none, as no layer reads any, got 1"):
        keras_seq.Stacked([below])(x, constants=[memory])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"score": "cosine"}, ValueError, "score: expected one of"),
        ({"query": "during"}, ValueError, "query: expected one of .*'before', 'after'.*, got 'during'"),
        ({"units": 0}, ValueError, "units: expected a positive integer"),
        ({"units": 3, "score": "dot"}, ValueError, "units: expected None with score='dot'"),
        ({"heads": 2}, ValueError, "heads: expected 1 with score='additive'"),
        ({"input_feeding": True}, ValueError, "input_feeding: expected output_units"),
        ({"input_feeding": 1}, TypeError, "input_feeding: expected True or False"),
        ({"zoneout": 0.1}, TypeError, "give it to the cell within"),
        ({"cell": 3}, TypeError, "cell: expected a keras_seq.Cell"),
        ({"cell": keras_seq.AttentionCell(GRUCell(2))}, TypeError, "cell: expected a keras_seq.GatedCell with query"),
        ({"cell": GRUCell(2, zoneout=0.1), "query": "after"}, ValueError, "cell: expected one without zoneout"),
        ({"cell": keras_seq.ElmanCell(2, outputs=3), "output_units": 2}, ValueError, "cell: expected one without"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        AttentionCell(**{"cell": GRUCell(4), **arguments})


@pytest.mark.parametrize(
    ("arguments", "shapes", "words"),
    [
        ({}, [], "expected a memory"),
        ({}, [(B, 3)], r"expected a memory \(b, s, m\)"),
        ({}, [(B, 5, 2), (B, 4)], r"expected a mask \(4, 5\) like the memory's, got \(4, 4\)"),
        ({}, [(2, 5, 2)], "expected a batch of 4 like the sequences'"),
        ({"score": "dot"}, [(B, 5, 3)], "as wide as the query, 4"),
        ({"score": "multi_head", "heads": 3}, [(B, 5, 3)], "heads: expected a divisor of the query's width 4"),
    ],
    ids=str,
)
def test_wrong_memories_are_named(arguments, shapes, words):
    layer = keras_seq.RNN(AttentionCell(GRUCell(4), **arguments))
    with pytest.raises(ValueError, match=words):
        layer(tf.ones((B, T, D)), constants=[tf.ones(s) for s in shapes])
