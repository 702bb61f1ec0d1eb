"""Recursive networks beside a recursion in NumPy, written from the equations: values, gradients, masks, files, refusals.

Axes: b trees, n nodes, k children, d input features, u units.
"""

import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.testing.differences import assert_close

B, N, D, U, K = 5, 9, 3, 4, 3
KINDS = {
    "RecursiveNN": lambda **given: keras_seq.RecursiveNN(U, K, **given),
    "TreeLSTM": lambda **given: keras_seq.TreeLSTM(U, **given),
    "TreeLSTM-arity": lambda **given: keras_seq.TreeLSTM(U, K, **given),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def random_tree(rng, nodes, arity):
    """Children (nodes, arity) of a tree whose last node is the root; some places before a child may be empty."""
    while True:
        children, free = np.full((nodes, arity), -1), []
        for node in range(nodes):
            count = min(len(free), rng.integers(0, arity + 1)) if node < nodes - 1 else len(free)
            if count > arity:
                break
            taken = [free.pop(rng.integers(len(free))) for _ in range(count)]
            children[node, rng.permutation(arity)[:count]] = taken
            free.append(node)
        else:
            return children


@functools.cache
def trees(seed=0, arity=K):
    """`(nodes, children, mask)`: trees of one to N nodes, with NaN for the inputs of nodes that are not there."""
    rng = np.random.default_rng(seed)
    children, mask = np.full((B, N, arity), -1), np.zeros((B, N), bool)
    for row, size in enumerate([1, N, *rng.integers(2, N, B - 2)]):
        children[row, :size], mask[row, :size] = random_tree(rng, size, arity), True
    nodes = np.where(mask[..., None], rng.normal(size=(B, N, D)), np.nan)
    return nodes, children, mask


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(layer, weights, nodes, children, mask):
    """The states of all nodes by recursion from the roots; zeros where there is no node."""
    w, u, b = weights

    def recursive(x, inner):
        h = np.tanh(x @ w + b + np.concatenate([h for h, _ in inner]) @ u)
        return h, h

    def child_sum(x, inner):
        (w_i, w_f, w_c, w_o), (u_i, u_f, u_c, u_o), (b_i, b_f, b_c, b_o) = (np.split(v, 4, axis=-1) for v in (w, u, b))
        s = sum(h for h, _ in inner)
        i, o = sigmoid(x @ w_i + s @ u_i + b_i), sigmoid(x @ w_o + s @ u_o + b_o)
        c = i * np.tanh(x @ w_c + s @ u_c + b_c)
        for h_j, c_j in inner:
            c = c + sigmoid(x @ w_f + h_j @ u_f + b_f) * c_j
        return o * np.tanh(c), c

    def by_place(x, inner):
        (w_i, w_f, w_c, w_o), (b_i, b_f, b_c, b_o) = (np.split(v, 4, axis=-1) for v in (w, b))
        u_i, *u_f, u_c, u_o = np.split(u, 3 + len(inner), axis=-1)
        s = np.concatenate([h for h, _ in inner])
        c = sigmoid(x @ w_i + s @ u_i + b_i) * np.tanh(x @ w_c + s @ u_c + b_c)
        for u_j, (_, c_j) in zip(u_f, inner, strict=True):
            c = c + sigmoid(x @ w_f + s @ u_j + b_f) * c_j
        return sigmoid(x @ w_o + s @ u_o + b_o) * np.tanh(c), c

    step = recursive if isinstance(layer, keras_seq.RecursiveNN) else by_place if layer.cell.arity else child_sum
    found = np.zeros((*mask.shape, U), np.result_type(nodes, *weights))
    for row in range(len(mask)):

        def visit(node, row=row):
            inner = [visit(c) if c >= 0 else (np.zeros(U), np.zeros(U)) for c in children[row, node]]
            found[row, node], c = step(nodes[row, node], inner)
            return found[row, node], c

        if mask[row].any():
            visit(np.flatnonzero(mask[row])[-1])
    return found


@functools.cache
def layer_of(kind, dtype="float64", **given):
    """A layer with weights of random numbers."""
    layer = KINDS[kind](dtype=dtype, **given)
    layer.build((None, None, D), (None, None, K))
    rng = np.random.default_rng(7)
    for w in layer.weights:
        w.assign(rng.normal(size=w.shape))
    return layer


def assert_complex_steps(function, values, gradients, tolerance):
    """The gradients are those of an analytic function, along random directions, as steps into the complex plane give them.

    Such a step subtracts nothing, and so is exact to the last digits.
    """
    rng = np.random.default_rng(3)
    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=values[i].shape)
        moved = [v + 1e-30j * direction if i == j else v for j, v in enumerate(values)]
        assert_close([np.sum(gradient * direction)], [function(moved).imag / 1e-30], tolerance, f"value {i}")


COTANGENTS = np.random.default_rng(9).normal(size=(B, N, U))


def differentiated(layer):
    """A function that gives values, and the gradients of their sum with COTANGENTS by the inputs and all weights."""

    def run(nodes, children, mask):
        wanted = [nodes, *[w.value for w in layer.trainable_weights]]
        with tf.GradientTape() as tape:
            tape.watch(nodes)
            found = layer(nodes, children=children, mask=mask)
            loss = tf.reduce_sum(found * (COTANGENTS if layer.return_nodes else COTANGENTS[:, 0]))
        return found, tape.gradient(loss, wanted)

    return run


@functools.cache
def eager(kind):
    nodes, children, mask = map(tf.constant, trees())
    return differentiated(layer_of(kind, return_nodes=True))(nodes, children, mask)


@kinds
def test_values_are_those_of_the_recursion(kind):
    layer, (nodes, children, mask) = layer_of(kind, return_nodes=True), trees()
    expected = reference(layer, [w.numpy() for w in layer.weights], nodes, children, mask)
    assert_close([eager(kind)[0]], [expected], 1e-12)
    roots = [max(row.nonzero()[0]) for row in mask]
    found = layer_of(kind)(nodes, children=children, mask=mask)
    assert_close([found], [expected[np.arange(B), roots]], 1e-12)


@kinds
def test_gradients_are_those_of_the_recursion(kind):
    layer, (nodes, children, mask) = layer_of(kind, return_nodes=True), trees()
    _, gradients = eager(kind)
    hidden = ~mask[..., None]
    assert not np.any(np.where(hidden, gradients[0], 0))
    values = [np.where(hidden, 0, nodes), *[w.numpy() for w in layer.weights]]

    def loss(values):
        return np.sum(reference(layer, values[1:], values[0], children, mask) * COTANGENTS)

    assert [w.name for w in layer.weights] == ["kernel", "recurrent_kernel", "bias"]
    assert_complex_steps(loss, values, gradients, 1e-9)


@kinds
def test_compiled_it_gives_the_same(kind):
    run = tf.function(differentiated(layer_of(kind, return_nodes=True)), jit_compile=True)
    found, gradients = run(*map(tf.constant, trees()))
    expected, of_eager = eager(kind)
    assert_close([found, *gradients], [expected, *of_eager], 1e-12)


@pytest.mark.deep
@pytest.mark.parametrize("jit_compile", [False, True])
@kinds
def test_one_trace_serves_trees_of_any_size(kind, jit_compile):
    layer = layer_of(kind)

    def run(nodes, children, mask):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(nodes, children=children, mask=mask) ** 2)
        return loss, tape.gradient(loss, [w.value for w in layer.weights])

    traced = tf.function(
        run,
        jit_compile=jit_compile,
        input_signature=[
            tf.TensorSpec((None, None, D), "float64"),
            tf.TensorSpec((None, None, K), "int64"),
            tf.TensorSpec((None, None), "bool"),
        ],
    )
    for b, n, seed in ((B, N, 0), (2, N, 1), (1, 1, 0)):
        given = [tf.constant(v[:b, :n]) for v in trees(seed)]
        (loss, gradients), (expected, of_eager) = traced(*given), run(*given)
        assert_close([loss, *gradients], [expected, *of_eager], 1e-12)


def test_as_many_steps_as_levels(monkeypatch):
    """However many nodes a level has."""
    layer, widths = layer_of("TreeLSTM"), []
    step = type(layer.cell).step

    def counted(self, projected, states, constants=()):
        widths.append(len(projected))
        return step(self, projected, states, constants)

    monkeypatch.setattr(type(layer.cell), "step", counted)
    leaves = 9
    children = np.full((2, leaves + 4, K), -1)
    children[:, leaves : leaves + 3] = np.arange(leaves).reshape(3, K)
    children[:, leaves + 3] = leaves + np.arange(3)
    layer(np.ones((2, leaves + 4, D)), children=children)
    assert widths == [18, 6, 2]


@kinds
def test_in_pieces_of_levels_it_gives_the_same(kind, monkeypatch):
    """As under XLA, which wants steps of one size: at most eight more than there are levels."""
    layer, taken = layer_of(kind, return_nodes=True), []
    step = type(layer.cell).step

    def counted(self, projected, states, constants=()):
        taken.append(len(projected))
        return step(self, projected, states, constants)

    given = list(map(tf.constant, trees()))
    expected = eager(kind)
    levels = len({*tree_levels(trees()[1], trees()[2])})
    monkeypatch.setattr(type(layer.cell), "step", counted)
    monkeypatch.setattr("keras_seq.engine.tensorflow.levels.compiled_by_xla", lambda: True)
    found = differentiated(layer)(*given)
    assert_close([found[0], *found[1]], [expected[0], *expected[1]], 1e-12)
    *steps, last = taken
    assert last == B * N, "in the end all nodes at once, for the gradients of weights"
    assert set(steps) == {-(-B * N // 8)}
    assert levels < len(steps) / 2 <= levels + 8


def tree_levels(children, mask):
    """Those of all nodes that are there."""
    found = np.zeros(mask.shape, int)
    for row, node in zip(*np.nonzero(mask), strict=True):
        found[row, node] = max([found[row, c] + 1 for c in children[row, node] if c >= 0], default=0)
    return found[mask].tolist()


@pytest.mark.parametrize("arity", [None, 1])
def test_a_chain_is_the_lstm(arity):
    x = np.random.default_rng(3).normal(size=(2, 7, D))
    lstm = keras_seq.LSTM(U, return_sequences=True, dtype="float64", bias_initializer="normal")
    expected = lstm(x)
    layer = keras_seq.TreeLSTM(U, arity, return_nodes=True, dtype="float64")
    chain = np.broadcast_to(np.arange(-1, 6)[:, None], (2, 7, 1))
    layer.build(x.shape, chain.shape)
    layer.set_weights(lstm.get_weights())
    assert_close([layer(x, children=chain)], [expected], 1e-13)


def test_the_order_of_children_counts_only_where_they_have_places():
    nodes, children, mask = trees()
    for kind in KINDS:
        here = layer_of(kind)(nodes, children=children, mask=mask)
        there = layer_of(kind)(nodes, children=children[:, :, ::-1], mask=mask)
        assert np.allclose(here, there) == (kind == "TreeLSTM")


@kinds
def test_a_second_gradient(kind):
    """Of a gradient along a direction, beside differences of the first gradient."""
    layer, (nodes, children, mask) = layer_of(kind), trees()
    kernel = layer.cell.recurrent_kernel
    direction = np.random.default_rng(4).normal(size=kernel.shape)

    def first():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(nodes, children=children, mask=mask) ** 3)
        return tape.gradient(loss, kernel.value)

    with tf.GradientTape() as tape:
        along = tf.reduce_sum(first() * direction)
    found = tape.gradient(along, kernel.value)
    moved = []
    for sign in (1, -1):
        kernel.assign_add(sign * 1e-5 * direction)
        moved.append(first())
        kernel.assign_add(-sign * 1e-5 * direction)
    assert_close([tf.reduce_sum(found * direction)], [tf.reduce_sum((moved[0] - moved[1]) * direction) / 2e-5], 1e-7)


def test_a_tree_without_a_node_is_zero():
    nodes, children, _ = trees()
    for kind in KINDS:
        found, gradients = differentiated(layer_of(kind))(
            tf.constant(nodes), tf.constant(children), tf.zeros((B, N), "bool")
        )
        assert not np.any(found)
        assert not any(np.any(g) for g in gradients)


def test_no_tree_at_all():
    nodes, children, mask = (v[:0] for v in trees())
    assert layer_of("TreeLSTM")(nodes, children=children, mask=mask).shape == (0, U)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed_float16", "mixed_bfloat16"])
def test_other_float_types(dtype):
    nodes, children, mask = trees()
    nodes = np.where(mask[..., None], nodes, 0)
    for kind in KINDS:
        layer, tolerance = layer_of(kind, dtype, return_nodes=True), 1e-5 if dtype == "float32" else 0.06
        with tf.GradientTape() as tape:
            found = layer(nodes.astype("float32"), children=children, mask=mask)
            loss = tf.reduce_sum(tf.cast(found, "float64") * COTANGENTS)
        assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype
        gradients = tape.gradient(loss, [w.value for w in layer.weights])
        expected, (_, *of_weights) = eager(kind)
        assert_close([tf.cast(found, "float64")], [expected], tolerance)
        assert_close([tf.cast(g, "float64") for g in gradients], of_weights, tolerance)


def test_the_mask_goes_on_with_the_nodes():
    nodes, children, mask = trees()
    masked = keras.layers.Masking(dtype="float64")(tf.constant(np.where(mask[..., None], nodes, 0)))
    found = layer_of("TreeLSTM", return_nodes=True)(masked, children=children)
    assert_close([found], [eager("TreeLSTM")[0]], 1e-12)
    np.testing.assert_array_equal(found._keras_mask, mask)
    assert getattr(layer_of("TreeLSTM")(masked, children=children), "_keras_mask", None) is None


# -- models and files ------------------------------------------------------------------------------------------------------


def model_of(kind, **given):
    inputs = [
        keras.Input((None, D), name="nodes"),
        keras.Input((None, K), dtype="int32", name="children"),
        keras.Input((None,), dtype="bool", name="mask"),
    ]
    nodes, children, mask = inputs
    hidden = KINDS[kind](**given)(nodes, children=children, mask=mask)
    return keras.Model(inputs, keras.layers.Dense(2)(hidden))


def given():
    nodes, children, mask = trees()
    return [np.nan_to_num(nodes).astype("float32"), children.astype("int32"), mask]


@kinds
def test_files(kind, tmp_path):
    model = model_of(kind, activation="softsign", bias_initializer="normal", use_bias=True, return_nodes=True)
    expected = model(given())
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert_close([again(given())], [expected], 0.0)
    assert again.layers[3].get_config() == model.layers[3].get_config()
    if kind == "TreeLSTM":
        model.export(tmp_path / "saved", verbose=False)
        served = tf.saved_model.load(tmp_path / "saved")
        for rows in (B, 2):
            found = served.serve([tf.constant(v[:rows]) for v in given()])
            assert_close([found], [expected[:rows]], 1e-6)


@pytest.mark.deep
@pytest.mark.parametrize("jit_compile", [False, True])
@kinds
def test_it_learns(kind, jit_compile):
    """How many nodes a tree has, up to what a linear readout of the start says of it."""
    model = model_of(kind)
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=jit_compile)
    count = np.stack([given()[2].sum(1), given()[2].sum(1) % 3], axis=1) / 4.0
    losses = model.fit(given(), count, epochs=60, verbose=0, batch_size=B).history["loss"]
    assert losses[-1] < 0.05 * losses[0]


@kinds
def test_every_weight_has_an_initializer_a_regularizer_and_a_constraint(kind):
    weights = ("kernel", "recurrent", "bias")
    given = {f"{w}_initializer": keras.initializers.Constant(0.25) for w in weights}
    given |= {f"{w}_regularizer": keras.regularizers.L2(1.0) for w in weights}
    given |= {f"{w}_constraint": keras.constraints.MaxNorm(2.0) for w in weights}
    layer = KINDS[kind](**given)
    layer.build((None, None, D), (None, None, K))
    assert all(np.all(np.isin(w.numpy(), (0.25, 1.0) if w.name == "bias" else 0.25)) for w in layer.weights)
    assert len(layer.losses) == 3
    assert all(w.constraint is not None for w in layer.weights)


def test_forget_gates_start_open():
    for arity, start in ((None, True), (2, True), (None, False)):
        layer = keras_seq.TreeLSTM(2, arity, unit_forget_bias=start)
        layer.build((None, None, D), (None, None, 2))
        np.testing.assert_array_equal(layer.cell.bias, [0, 0, start, start, 0, 0, 0, 0])


def test_config_says_all():
    layer = keras_seq.TreeLSTM(
        3, 2, "hard_sigmoid", False, activation="relu", use_bias=False, kernel_regularizer="l2", return_nodes=True
    )
    again = keras_seq.TreeLSTM.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.cell.recurrent_activation is keras.activations.hard_sigmoid
    assert (again.cell.unit_forget_bias, again.cell.use_bias, again.return_nodes) == (False, False, True)
    layer.build((None, 5, D), (None, 5, 2))
    assert [w.shape for w in layer.weights] == [(D, 12), (6, 15)]


# -- what is refused ---------------------------------------------------------------------------------------------------------

FINE = [[-1, -1], [-1, -1], [0, 1], [2, -1]]


def changed(node, *children):
    return [list(children) if i == node else row for i, row in enumerate(FINE)]


WRONG_TREES = {
    "a child after its node": (changed(1, 2, -1), "every child before its node, got 2 at node 1 of tree 1"),
    "a cycle": (changed(2, 0, 3), "every child before its node, got 3 at node 2 of tree 1"),
    "a child of its own": (changed(3, 3, -1), "every child before its node, got 3 at node 3 of tree 1"),
    "no such node": (changed(3, 4, -1), "a node's number below n, or -1 for none, got 4 at node 3 of tree 1"),
    "beyond 32 bits": (
        changed(3, 2**32 + 2, -1),
        "a node's number below n, or -1 for none, got 4294967298 at node 3 of tree 1",
    ),
    "below -1": (changed(3, -2, 2), "a node's number below n, or -1 for none, got -2 at node 3 of tree 1"),
    "two parents": (changed(3, 2, 0), "one parent of a node, got 0 at node 2 of tree 1"),
    "a child twice": (changed(2, 1, 1), "one parent of a node, got 1 at node 2 of tree 1"),
    "a second root": (changed(3, -1, -1), "one root, the last node (or return_nodes=True), got no parent at node 2 of"),
}


@pytest.mark.parametrize("what", WRONG_TREES)
def test_a_wrong_tree_is_named_and_in_a_graph_it_is_nan(what):
    wrong, message = WRONG_TREES[what]
    layer, nodes, children = wrong_trees_layer(), np.ones((2, 4, D)), np.array([FINE, wrong])
    with pytest.raises(ValueError, match=re.escape(f"children: expected {message}")):
        layer(nodes, children=children)
    found = wrong_trees_in_a_graph()(tf.constant(nodes), tf.constant(children), tf.ones((2, 4), "bool"))
    assert np.isnan(found).all(1).tolist() == [False, True]
    assert_close([found[0]], [layer(nodes[:1], children=children[:1])[0]], 1e-12)


@functools.cache
def wrong_trees_layer():
    return keras_seq.RecursiveNN(U, dtype="float64")


@functools.cache
def wrong_trees_in_a_graph():
    def run(nodes, children, mask):
        return wrong_trees_layer()(nodes, children=children, mask=mask)

    return tf.function(run)


def test_a_hidden_child_is_refused():
    mask = np.array([[True, False, True, True]])
    with pytest.raises(ValueError, match="children that the mask shows, got 1 at node 2 of tree 0"):
        wrong_trees_layer()(np.ones((1, 4, D)), children=np.array([FINE]), mask=mask)


def test_a_forest_has_states_and_no_root():
    forest = np.array([changed(3, -1, -1)])
    layer = keras_seq.RecursiveNN(U, return_nodes=True)
    assert np.isfinite(layer(np.ones((1, 4, D)), children=forest)).all()


@pytest.mark.parametrize(
    ("nodes", "children", "error", "message"),
    [
        ((2, 4), (2, 4, 2), ValueError, r"nodes: expected shape \(b, n, d\)"),
        ((2, 0, 3), (2, 0, 2), ValueError, r"nodes: expected shape \(b, n, d\), n and d of 1 or more, got \(2, 0, 3\)"),
        ((2, 4, 3), (2, 4), ValueError, r"children: expected shape \(2, 4, 2\) like that of the nodes, got \(2, 4\)"),
        ((2, 4, 3), (2, 5, 2), ValueError, r"children: expected shape \(2, 4, 2\)"),
        ((2, 4, 3), (2, 4, 3), ValueError, r"children: expected shape \(2, 4, 2\)"),
        ((2, 4, 3), None, TypeError, "children: expected a tensor of integers, got one of float"),
    ],
)
def test_wrong_shapes_are_named(nodes, children, error, message):
    children = np.zeros((2, 4, 2)) if children is None else np.full(children, -1)
    with pytest.raises(error, match=message):
        keras_seq.RecursiveNN(U)(np.ones(nodes), children=children)


@pytest.mark.parametrize("nodes", [np.full((1, 4, D), "a"), np.ones((1, 4, D), complex)], ids=["strings", "complex"])
def test_nodes_that_are_no_real_numbers_are_named(nodes):
    with pytest.raises(TypeError, match=r"nodes: expected real numbers, got (string|complex128)"):
        wrong_trees_layer()(nodes, children=np.array([FINE]))


def test_a_symbolic_shape_is_checked_too():
    with pytest.raises(ValueError, match=r"children: expected shape \(None, 4, 2\)"):
        keras_seq.TreeLSTM(U, 2)(keras.Input((4, D)), children=keras.Input((4, 3), dtype="int32"))


def test_a_mask_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"mask: expected shape \(b, n\) like the nodes', \(1, 4\), got \(1, 3\)"):
        wrong_trees_layer()(np.ones((1, 4, D)), children=np.array([FINE]), mask=np.ones((1, 3), bool))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"units": 0}, ValueError, "units: expected a positive integer, got 0"),
        ({"arity": 0}, ValueError, "arity: expected a positive integer, got 0"),
        ({"arity": "two"}, TypeError, "arity: expected a positive integer, got 'two'"),
        ({"return_nodes": 1}, TypeError, "return_nodes: expected True or False, got 1"),
        ({"recurrent_activation": "sigmund"}, ValueError, "recurrent_activation: expected a name or an object"),
        ({"dropout": 0.5}, TypeError, "TreeLSTM: unknown argument 'dropout'"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        keras_seq.TreeLSTM(**{"units": U, **arguments})
