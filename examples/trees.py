"""Bracketed logic: a TreeLSTM learns from small expressions what deeper ones are worth.

    python examples/trees.py                  # trained to depth 6, tested to depth 12: a minute or two on two cores
    python examples/trees.py --taught nodes --train-depth 3

An expression such as (xor (and (leaf 1) (leaf 0)) (not (leaf 1))) is a tree of "and", "or", "xor" and "not" over ones and
zeros, written as `keras_seq.parse_trees` reads it. Every node has a value. The net, a TreeLSTM with a place for each of two
operands, says the value of every node. It is trained on trees up to --train-depth, by the values of their roots alone or of all
their nodes, and tested on the roots of deeper ones. Children differ in depth: one is as deep as it must be, the other of any
depth below that.

It prints how many roots of each depth are right, and how many nodes per second the layer takes beside a plain recursion in
Python, node by node over the same cell, and one in NumPy.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keras_seq

OPERATORS = {"not": lambda a: 1 - a, "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b}
SYMBOLS = ["0", "1", *OPERATORS]


# -- expressions ---------------------------------------------------------------------------------------------------------


def expression(rng, depth):
    """A random expression of exactly this depth, that of a leaf being 0."""
    if depth == 0:
        return f"(leaf {rng.integers(2)})"
    operator = rng.choice(list(OPERATORS))
    operands = [expression(rng, depth - 1)]
    if operator != "not":
        operands.append(expression(rng, min(depth - 1, rng.geometric(0.4) - 1)))
    rng.shuffle(operands)
    return f"({operator} {' '.join(operands)})"


def arrays(texts, nodes=None):
    """`(symbols (b, n), children (b, n, 2), mask (b, n), values (b, n))` of expressions, padded to this number of nodes."""
    trees = keras_seq.parse_trees(texts, arity=2)
    names = np.where(trees.labels == "leaf", trees.words, trees.labels)
    values = np.zeros(trees.mask.shape, "int32")
    for row, node in zip(*np.nonzero(trees.mask), strict=True):
        name, inner = names[row, node], [values[row, c] for c in trees.children[row, node] if c >= 0]
        values[row, node] = OPERATORS[name](*inner) if inner else int(name)
    symbols = np.where(trees.mask, np.searchsorted(sorted(SYMBOLS), names.astype(str)), 0)
    found = [symbols.astype("int32"), trees.children, trees.mask, values]
    more = (nodes or symbols.shape[1]) - symbols.shape[1]
    pads = [0, -1, False, 0]
    return [
        np.pad(x, [(0, 0), (0, more), *[(0, 0)] * (x.ndim - 2)], constant_values=p)
        for x, p in zip(found, pads, strict=True)
    ]


def batch(rng, count, depths, nodes=None):
    return arrays([expression(rng, rng.choice(depths)) for _ in range(count)], nodes)


# -- the net -------------------------------------------------------------------------------------------------------------


def model(units, learning_rate=0.01):
    """Symbols and trees to the score of a one for every node, (b, n, 1)."""
    symbols = keras.Input((None,), dtype="int32", name="symbols")
    children = keras.Input((None, 2), dtype="int32", name="children")
    mask = keras.Input((None,), dtype="bool", name="mask")
    seen = keras.layers.Embedding(len(SYMBOLS), len(SYMBOLS), embeddings_initializer="identity")(symbols)
    hidden = keras_seq.TreeLSTM(units, arity=2, return_nodes=True)(seen, children=children, mask=mask)
    net = keras.Model([symbols, children, mask], keras.layers.Dense(1)(hidden))
    net.compile(
        keras.optimizers.Adam(learning_rate, global_clipnorm=1.0),
        keras.losses.BinaryCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
        jit_compile=True,
    )
    return net


def right_roots(net, arrays):
    """The share of the roots whose value the net says."""
    *inputs, values = arrays
    scores = net.predict(inputs, batch_size=256, verbose=0)[..., 0]
    rows = np.arange(len(scores))
    roots = inputs[2].sum(1) - 1
    return float(np.mean((scores[rows, roots] > 0) == values[rows, roots]))


# -- how fast ------------------------------------------------------------------------------------------------------------


def recursion(step, project, seen, children, zeros):
    """The states of the root of one tree, node by node."""

    def visit(node):
        inner = [visit(c) if c >= 0 else zeros for c in children[node]]
        return step(project(seen[node]), [np.stack(states) for states in zip(*inner, strict=True)])

    return visit(len(seen) - 1)


def in_numpy(cell):
    """`(project, step)` of the cell, written in NumPy."""
    kernel, recurrent, bias = (np.asarray(w) for w in (cell.kernel, cell.recurrent_kernel, cell.bias))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def step(x, states):
        h, c = states
        x_i, x_f, x_g, x_o = np.split(x, 4)
        i, f_0, f_1, g, o = np.split(h.reshape(-1) @ recurrent, 5)
        c = sigmoid(x_i + i) * np.tanh(x_g + g) + sigmoid(x_f + f_0) * c[0] + sigmoid(x_f + f_1) * c[1]
        return sigmoid(x_o + o) * np.tanh(c), c

    return lambda x: x @ kernel + bias, step


def by_cell(cell):
    """`(project, step)` of the cell itself, run eagerly."""

    def step(x, states):
        return cell.run_step(x, [tf.convert_to_tensor(s)[None] for s in states])[1]

    def first(x, states):
        return tuple(s[0] for s in step(x, states))

    return lambda x: cell.run_project(x[None]), first


def speeds(net, arrays, few):
    """Rows of a table, `(what, nodes per second)`: the layer alone, over the trees; recursions, over the first few."""
    layer = next(x for x in net.layers if isinstance(x, keras_seq.TreeLSTM))
    symbols, children, mask, _ = arrays
    seen = np.eye(len(SYMBOLS), dtype="float32")[symbols]
    given = [tf.constant(x) for x in (seen, children, mask)]

    def forward(seen, children, mask):
        return layer(seen, children=children, mask=mask)

    def train(seen, children, mask):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(forward(seen, children, mask) ** 2)
        return tape.gradient(loss, [w.value for w in layer.weights])

    rows, expected = [], forward(*given).numpy()
    for what, function in (("forward", forward), ("forward and backward", train)):
        for how, jit_compile in (("graph", False), ("XLA", True)):
            compiled = tf.function(function, jit_compile=jit_compile)
            compiled(*given)
            times = []
            for _ in range(5):
                start = time.perf_counter()
                keras.tree.map_structure(np.asarray, compiled(*given))
                times.append(time.perf_counter() - start)
            rows.append((f"TreeLSTM, {what}, {how}", mask.sum() / min(times)))
    zeros = (np.zeros(layer.cell.units, "float32"),) * 2
    for what, (project, step) in (
        ("recursion over its cell, forward", by_cell(layer.cell)),
        ("recursion in NumPy, forward", in_numpy(layer.cell)),
    ):
        start = time.perf_counter()
        for row in range(few):
            n = mask[row].sum()
            h, _ = recursion(step, project, seen[row, :n], children[row], zeros)
            np.testing.assert_allclose(h, expected[row, n - 1], atol=1e-4)
        rows.append((what, mask[:few].sum() / (time.perf_counter() - start)))
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--train-depth", type=int, default=6, help="of the deepest trees in training")
    parser.add_argument("--test-depth", type=int, default=12, help="of the deepest trees in the test")
    parser.add_argument("--trees", type=int, default=6000, help="in training")
    parser.add_argument("--tests", type=int, default=1000, help="of each depth")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--taught", choices=["roots", "nodes"], default="roots", help="whose values are given in training"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few small trees, to see it run")
    args = parser.parse_args(argv)
    if args.quick:
        args.trees, args.tests, args.epochs, args.units, args.train_depth, args.test_depth = 256, 40, 2, 8, 2, 4
    keras.utils.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    start = time.perf_counter()
    *inputs, values = batch(rng, args.trees, np.arange(1, args.train_depth + 1))
    there = inputs[2]
    taught = there if args.taught == "nodes" else np.arange(there.shape[1]) == there.sum(1, keepdims=True) - 1
    net = model(args.units)
    net.fit(
        inputs,
        values[..., None],
        sample_weight=taught[..., None].astype("float32"),
        batch_size=64,
        epochs=args.epochs,
        verbose=2,
    )
    print(
        f"\n{args.trees} trees up to depth {args.train_depth}, taught by {args.taught}, {time.perf_counter() - start:.0f} s\n"
    )
    print("| depth | nodes of a tree | roots that are right |\n|---|---|---|")
    found = {}
    for depth in range(1, args.test_depth + 1):
        tests = batch(rng, args.tests, [depth])
        found[depth] = right_roots(net, tests)
        where = "" if depth <= args.train_depth else ", deeper than in training"
        print(f"| {depth}{where} | {tests[2].sum(1).mean():.0f} | {100 * found[depth]:.1f} % |")
    print("\n| | nodes per second |\n|---|---|")
    for what, speed in speeds(net, batch(rng, 20 if args.quick else 256, [args.test_depth]), 2 if args.quick else 8):
        print(f"| {what} | {speed:,.0f} |")
    return found


if __name__ == "__main__":
    main()
