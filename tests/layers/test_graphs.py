"""Recurrent networks over graphs beside message passing by hand, in NumPy."""

import functools
import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.testing.differences import assert_close, assert_differences

D, U = 3, 4
PATH = [[0, 1], [1, 0], [1, 2], [2, 1], [2, 3], [3, 2]]
# one row is no edge; node 4 has no neighbour; node 2 hears of 0 twice
EDGES = np.array([*PATH, [0, 2], [-1, -1], [0, 2], [3, 0]])
TYPES = np.array([0, 1, 0, 1, 0, 1, 1, 0, 0, 1])
NODES = np.random.default_rng(0).normal(size=(5, D))
WAYS = list(itertools.product(["sum", "mean", "max"], [None, 2]))
ways = pytest.mark.parametrize(("aggregate", "edge_types"), WAYS)
CELLS = {
    "SimpleRNNCell": lambda **given: keras_seq.SimpleRNNCell(U, **given),
    "GRUCell": lambda **given: keras_seq.GRUCell(U, **given),
    "LSTMCell": lambda **given: keras_seq.LSTMCell(U, **given),
    "readout": lambda **given: keras_seq.SimpleRNNCell(U, outputs=2, learn_initial_state=True, **given),
}


@functools.cache
def layer_of(aggregate="sum", edge_types=None, cell="SimpleRNNCell", dtype="float64", steps=3):
    layer = keras_seq.GraphRecurrent(CELLS[cell](dtype=dtype), steps, aggregate, edge_types, dtype=dtype)
    layer.build((None, D), (None, 2), None if edge_types is None else (None,))
    rng = np.random.default_rng(7)
    for w in layer.weights:
        w.assign(0.7 * rng.normal(size=w.shape))
    return layer


def named_weights(layer):
    return {w.name: w.numpy() for w in layer.trainable_weights}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def simple(w, x, states):
    h = np.tanh(x @ w["kernel"] + w["bias"] + states[0] @ w["recurrent_kernel"])
    return h, [h]


def lstm(w, x, states):
    h, c = states
    i, f, g, o = np.split(x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return h, [h, c]


def gru(w, x, states):
    (h,) = states
    x_z, x_r, x_h = np.split(x @ w["kernel"] + w["bias"][0], 3, axis=-1)
    u_z, u_r, u_h = np.split(h @ w["recurrent_kernel"] + w["bias"][1], 3, axis=-1)
    z, r = sigmoid(x_z + u_z), sigmoid(x_r + u_r)
    h = z * h + (1 - z) * np.tanh(x_h + r * u_h)
    return h, [h]


STEPS = {"SimpleRNNCell": (simple, 1), "LSTMCell": (lstm, 2), "GRUCell": (gru, 1), "readout": (simple, 1)}


def reference(weights, cell, aggregate, nodes, edges, types, steps=3):
    """Node by node, edge by edge."""
    step, count = STEPS[cell]
    first = weights.get("initial_h", np.zeros(U))
    states = [[first, *[np.zeros(U)] * (count - 1)] for _ in nodes]
    combine = {"sum": np.sum, "mean": np.mean, "max": np.max}[aggregate]
    for _ in range(steps):
        new = []
        for v in range(len(nodes)):
            found = []
            for e, (source, target) in enumerate(edges):
                if target == v:
                    h = states[source][0]
                    found.append(h if types is None else h @ weights["message_kernel"][types[e]])
            message = combine(found, axis=0) if found else np.zeros(U)
            new.append(step(weights, np.concatenate([nodes[v], message]), states[v]))
        outputs, states = [y for y, _ in new], [s for _, s in new]
    outputs = np.stack(outputs)
    if "output_kernel" in weights:
        outputs = outputs @ weights["output_kernel"] + weights["output_bias"]
    return outputs


def further(edge_types):
    return {} if edge_types is None else {"types": TYPES}


@ways
def test_values_and_gradients_are_those_by_hand(aggregate, edge_types):
    layer = layer_of(aggregate, edge_types)
    weights = named_weights(layer)
    types = further(edge_types).get("types")
    expected = reference(weights, "SimpleRNNCell", aggregate, NODES, EDGES, types)
    cotangents = np.random.default_rng(5).normal(size=expected.shape)
    nodes = tf.constant(NODES)
    with tf.GradientTape() as tape:
        tape.watch(nodes)
        found = layer(nodes, edges=EDGES, **further(edge_types))
        loss = tf.reduce_sum(found * cotangents)
    assert_close([found], [expected], 1e-12)
    gradients = tape.gradient(loss, [nodes, *[w.value for w in layer.trainable_weights]])

    def loss_of(values):
        named = dict(zip(weights, values[1:], strict=True))
        return float(np.sum(reference(named, "SimpleRNNCell", aggregate, values[0], EDGES, types) * cotangents))

    assert assert_differences(loss_of, [NODES, *weights.values()], gradients, ["nodes", *weights], accepted=1e-7) == []


@pytest.mark.parametrize("cell", CELLS)
def test_any_cell(cell):
    layer = layer_of("mean", 2, cell)
    expected = reference(named_weights(layer), cell, "mean", NODES, EDGES, TYPES)
    assert_close([layer(NODES, edges=EDGES, types=TYPES)], [expected], 1e-12)
    assert layer.compute_output_shape(NODES.shape, EDGES.shape, TYPES.shape) == expected.shape


def test_on_a_path_each_step_reaches_one_node_further():
    nodes = np.zeros((4, D))
    nodes[0] = 1
    for steps in (1, 2, 3, 4):
        layer = layer_of(steps=steps)
        moved = layer(nodes, edges=np.array(PATH)) - layer(0 * nodes, edges=np.array(PATH))
        assert np.any(moved, axis=1).tolist() == [steps > v for v in range(4)]


@ways
def test_other_numbers_of_the_nodes_give_the_outputs_in_their_order(aggregate, edge_types):
    layer, order = layer_of(aggregate, edge_types), np.random.default_rng(2).permutation(len(NODES))
    renamed = np.where(EDGES < 0, -1, np.argsort(order)[EDGES])
    found = layer(NODES[order], edges=renamed, **further(edge_types))
    assert_close([found], [tf.gather(layer(NODES, edges=EDGES, **further(edge_types)), order)], 1e-12)


def test_graphs_side_by_side_are_as_they_are_alone():
    layer = layer_of("max", 2)
    both = layer(
        np.concatenate([NODES[:4], NODES]),
        edges=np.concatenate([PATH, EDGES + 4 * (EDGES >= 0)]),
        types=np.concatenate([TYPES[: len(PATH)], TYPES]),
    )
    alone = layer(NODES[:4], edges=np.array(PATH), types=TYPES[: len(PATH)]), layer(NODES, edges=EDGES, types=TYPES)
    assert_close([both], [tf.concat(alone, 0)], 1e-12)


@pytest.mark.parametrize(("aggregate", "jit_compile"), [("max", True), ("mean", True), ("sum", False)])
def test_compiled_it_gives_the_same(aggregate, jit_compile):
    layer = layer_of(aggregate, 2)

    def run(nodes, edges, types):
        with tf.GradientTape() as tape:
            found = layer(nodes, edges=edges, types=types)
        return [found, *tape.gradient(found, [w.value for w in layer.trainable_weights])]

    given = tf.constant(NODES), tf.constant(EDGES), tf.constant(TYPES)
    signature = [
        tf.TensorSpec((None, D), "float64"),
        tf.TensorSpec((None, 2), "int64"),
        tf.TensorSpec((None,), "int64"),
    ]
    compiled = tf.function(run, jit_compile=jit_compile, input_signature=signature)
    for count in (len(EDGES), len(PATH)):
        here = given[0], given[1][:count], given[2][:count]
        assert_close(compiled(*here), run(*here), 1e-12)


def test_without_edges_every_node_reads_zeros():
    for aggregate in ("sum", "mean", "max"):
        layer = layer_of(aggregate)
        found = layer(NODES, edges=np.zeros((0, 2), "int32"))
        assert_close([found], [layer(NODES, edges=np.array([[-1, -1]]))], 1e-12)
        assert_close([found], [reference(named_weights(layer), "SimpleRNNCell", aggregate, NODES, [], None)], 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_other_float_types(dtype):
    for aggregate in ("mean", "max"):
        found = layer_of(aggregate, 2, dtype=dtype)(NODES.astype("float32"), edges=EDGES, types=TYPES)
        assert keras.backend.standardize_dtype(found.dtype) == layer_of(aggregate, 2, dtype=dtype).compute_dtype
        expected = layer_of(aggregate, 2)(NODES, edges=EDGES, types=TYPES)
        assert_close([tf.cast(found, "float64")], [expected], 1e-5 if dtype == "float32" else 0.06)


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
def test_many_messages_are_added_up_in_float32(aggregate):
    """In bfloat16 a sum of ones stops at 256: the cell adds up what it reads, here one number."""
    cell = keras_seq.SimpleRNNCell(
        1, "linear", kernel_initializer="ones", recurrent_initializer="zeros", dtype="bfloat16"
    )
    layer = keras_seq.GraphRecurrent(cell, steps=2, aggregate=aggregate, dtype="bfloat16")
    star = np.stack([np.arange(1, 1001), np.zeros(1000, int)], axis=1)
    nodes = np.concatenate([np.ones(700), np.zeros(301)]).reshape(-1, 1)
    expected = 1 + {"sum": 699, "mean": 0.699}[aggregate]
    assert float(layer(nodes, edges=star)[0, 0]) == pytest.approx(expected, rel=2**-7)


def test_dropout_acts_in_training_and_is_the_same_at_all_steps():
    cell = keras_seq.LSTMCell(U, dropout=0.5, recurrent_dropout=0.5, zoneout=0.25, seed=3)
    layer = keras_seq.GraphRecurrent(cell, 2)
    plain = layer(NODES, edges=EDGES)
    assert_close([layer(NODES, edges=EDGES)], [plain], 0.0)
    first, second = (layer(NODES, edges=EDGES, training=True) for _ in range(2))
    assert len({np.asarray(y).tobytes() for y in (plain, first, second)}) == 3
    drawn = []
    original = cell.drawn_mask
    cell.drawn_mask = lambda *given: drawn.append(1) or original(*given)
    layer(NODES, edges=EDGES, training=True)
    assert len(drawn) == 2, "one mask of inputs and one of states for both steps"


def model():
    inputs = [
        keras.Input((D,), name="nodes"),
        keras.Input((2,), dtype="int32", name="edges"),
        keras.Input((), dtype="int32", name="types"),
    ]
    nodes, edges, types = inputs
    hidden = keras_seq.GraphRecurrent(keras_seq.GRUCell(U), 3, "mean", 2)(nodes, edges=edges, types=types)
    return keras.Model(inputs, keras.layers.Dense(1)(hidden))


GIVEN = [NODES.astype("float32"), EDGES.astype("int32"), TYPES.astype("int32")]


def test_files(tmp_path):
    made = model()
    made.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert_close([again(GIVEN)], [made(GIVEN)], 0.0)
    made.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    assert_close([served.serve([tf.constant(v) for v in GIVEN])], [made(GIVEN)], 1e-6)


@pytest.mark.deep
@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_learns_how_far_a_node_is_from_the_first(jit_compile):
    """Graphs come from a data set: of arrays Keras asks that all have as many rows."""
    made = model()
    made.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=jit_compile)
    nodes = np.zeros((4, D), "float32")
    nodes[0] = 1
    one = ((nodes, np.array(PATH, "int32"), np.zeros(6, "int32")), np.arange(4, dtype="float32")[:, None] / 3)
    data = tf.data.Dataset.from_tensors(one).repeat(60)
    losses = made.fit(data, epochs=4, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < 0.02 * losses[0]


ON_JAX = """
import sys
import numpy as np
import keras
import keras_seq

sys.modules["tensorflow"] = None  # an import of it fails
data = np.load(sys.argv[1])
for aggregate in ("sum", "mean", "max"):
    layer = keras_seq.GraphRecurrent(keras_seq.SimpleRNNCell(4), 3, aggregate, 2)
    layer.build((None, 3), (None, 2), (None,))
    for w in layer.trainable_weights:
        w.assign(data[w.name])
    found = layer(data["nodes"], edges=data["edges"], types=data["types"])
    np.testing.assert_allclose(found, data[aggregate], atol=1e-5)
try:
    keras_seq.TreeLSTM(2)(np.ones((1, 1, 3)), children=np.array([[[-1]]]))
except RuntimeError as error:
    assert "TreeLSTM: TensorFlow only" in str(error)
    print("as on TensorFlow")
"""


@pytest.mark.deep
def test_on_jax_it_gives_the_same(tmp_path):
    layers = {aggregate: layer_of(aggregate, 2) for aggregate in ("sum", "mean", "max")}
    weights = named_weights(layers["sum"])
    found = {name: np.asarray(layer(NODES, edges=EDGES, types=TYPES)) for name, layer in layers.items()}
    np.savez(tmp_path / "data.npz", nodes=NODES, edges=EDGES, types=TYPES, **weights, **found)
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, tmp_path / "data.npz"],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "as on TensorFlow" in done.stdout


# -- what is refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edges", "types", "message"),
    [
        ([[0, 1], [1, 5]], [0, 0], r"edges: expected a node below n, or \(-1, -1\) for none, got \[1, 5\] at edge 1"),
        ([[-2, 1]], [0], r"edges: expected a node below n, or \(-1, -1\) for none, got \[-2, 1\] at edge 0"),
        ([[0, -1]], [0], r"edges: expected a node below n, or \(-1, -1\) for none, got \[0, -1\] at edge 0"),
        ([[0, 1], [1, 2]], [0, 2], "types: expected a type below 2, got 2 at edge 1"),
        ([[0, 1]], [-1], "types: expected a type below 2, got -1 at edge 0"),
        ([[0, 2**32]], [0], r"edges: expected a node below n, or \(-1, -1\) for none, got \[0, 4294967296\] at edge 0"),
        ([[0, 1]], [2**32 + 1], "types: expected a type below 2, got 4294967297 at edge 0"),
    ],
)
def test_what_there_is_not_is_named_and_in_a_graph_it_is_nan(edges, types, message):
    layer, edges, types = layer_of("sum", 2), np.array(edges), np.array(types)
    with pytest.raises(ValueError, match=message):
        layer(NODES, edges=edges, types=types)
    assert np.isnan(in_a_graph()(NODES, edges, types)).all()


@functools.cache
def in_a_graph():
    signature = [tf.TensorSpec((5, D), "float64"), tf.TensorSpec((None, 2), "int64"), tf.TensorSpec((None,), "int64")]
    return tf.function(
        lambda nodes, edges, types: layer_of("sum", 2)(nodes, edges=edges, types=types), input_signature=signature
    )


@pytest.mark.parametrize(
    ("nodes", "edges", "further", "error", "message"),
    [
        (NODES[0], EDGES, {}, ValueError, r"nodes: expected shape \(n, 3\), got \(3,\)"),
        (NODES[:, :2], EDGES, {}, ValueError, r"nodes: expected shape \(n, 3\), got \(5, 2\)"),
        (NODES, EDGES[:, :1], {}, ValueError, r"edges: expected shape \(e, 2\), got \(10, 1\)"),
        (NODES, EDGES * 1.0, {}, TypeError, "edges: expected a tensor of integers, got one of float"),
        (NODES, EDGES, {"types": TYPES}, ValueError, "types: expected None without edge_types"),
        (NODES.astype(str), EDGES, {}, TypeError, "nodes: expected real numbers, got string"),
        (
            NODES,
            EDGES.astype("uint64") + 2**63,
            {},
            ValueError,
            r"edges: expected a node below n, .*, got \[92233720368",
        ),
    ],
)
def test_wrong_inputs_are_named(nodes, edges, further, error, message):
    with pytest.raises(error, match=message):
        layer_of()(nodes, edges=edges, **further)


def test_types_are_wanted_and_as_many_as_edges():
    with pytest.raises(ValueError, match="types: expected the type of each edge"):
        layer_of("sum", 2)(NODES, edges=EDGES)
    with pytest.raises(ValueError, match=r"types: expected shape \(10,\) like the edges, got \(3,\)"):
        layer_of("sum", 2)(NODES, edges=EDGES, types=TYPES[:3])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cell": keras.layers.GRUCell(2)}, TypeError, "cell: expected a keras_seq.Cell, got"),
        (
            {"cell": keras_seq.ConditionedCell(keras_seq.GRUCell(2))},
            ValueError,
            "cell: expected one that reads no constants, got ConditionedCell",
        ),
        ({"steps": 0}, ValueError, "steps: expected a positive integer, got 0"),
        ({"aggregate": "median"}, ValueError, r"aggregate: expected one of \['sum', 'mean', 'max'\], got 'median'"),
        ({"edge_types": 0}, ValueError, "edge_types: expected a positive integer, got 0"),
        ({"edges": 3}, TypeError, "GraphRecurrent: unknown argument 'edges'"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        keras_seq.GraphRecurrent(**{"cell": keras_seq.GRUCell(2), "steps": 2, **arguments})
