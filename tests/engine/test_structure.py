"""The engine at work, read off the program that XLA is given: which products there are, and where.

All sizes are different primes, so that a product's shapes say what it is.
"""

import collections
import itertools
import os
import pathlib
import re
import sys

import keras
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.engine.tensorflow import lanes, loop

sys.path.append(str(pathlib.Path(__file__).parents[2] / "benchmarks"))
from hlo import Program

B, T, D, U = 13, 7, 5, 11
Product = collections.namedtuple("Product", "left right contracted")

# layer, arguments, columns of the kernel, columns of each `dot` with the state
MEMORIES = [
    ("SimpleRNN", {}, 1, [1]),
    ("LSTM", {}, 4, [4]),
    ("PeepholeLSTM", {}, 4, [4]),
    ("GRU", {"reset_after": True}, 3, [3]),
    ("GRU", {"reset_after": False}, 3, [2, 1]),
]
IDS = ["SimpleRNN", "LSTM", "PeepholeLSTM", "GRU-after", "GRU-before"]


class Products:
    """Products of matrices in each while body of a compiled function, and outside of them."""

    def __init__(self, function, *args):
        self.text = function.experimental_get_compiler_ir(*args)(stage="hlo")
        program = Program(self.text)
        self.computations = program.computations
        instructions = itertools.chain.from_iterable(self.computations.values())
        self.bodies = [found.called("body") for found in instructions if found.kind == "while"]
        self.loops = [self.products(body) for body in self.bodies]
        self.outside = self.products(program.entry, into=("to_apply", "calls"))

    def products(self, name, into=("to_apply", "calls", "body")):
        found = []
        for instruction in self.computations[name]:
            if instruction.kind == "dot":
                found.append(product(instruction.text))
            for callee in filter(None, map(instruction.called, into)):
                found += self.products(callee, into)
        return found


def product(text):
    """The shapes of a product, from the text of its instruction."""
    dot = re.match(r" dot\(\w+\[([\d,]*)\]\S* \S+ \w+\[([\d,]*)\].*lhs_contracting_dims=\{(\d)\}", text)
    assert dot, f"a product of unknown form: {text}"
    left, right = (tuple(map(int, dot[i].split(","))) for i in (1, 2))
    return Product(left, right, left[int(dot[3])])


def training_step(layer, mask=None, **further):
    @tf.function(jit_compile=True)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, mask=mask, training=True, **further) ** 2)
        return tape.gradient(loss, [x, *layer.trainable_variables])

    return step


def of_weight_form(product):
    """Contracting over the batch, or over the batch and time."""
    return product.contracted % B == 0


def result(product):
    return tuple(sorted(n for shape in product[:2] for n in shape if n != product.contracted))


@pytest.mark.deep
@pytest.mark.parametrize("flags", [{"return_sequences": True}, {"go_backwards": True}], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(("name", "arguments", "columns", "dots"), MEMORIES, ids=IDS)
def test_products_of_a_training_step(name, arguments, columns, dots, masked, flags, monkeypatch):
    monkeypatch.setattr(loop, "lane_count", lambda batch, weights: 1)
    layer = getattr(keras_seq, name)(U, **arguments, **flags)
    layer.build((B, T, D))
    mask = tf.sequence_mask([7, 4, 0, 2, *[5] * 9], T) if masked else None
    program = Products(training_step(layer, mask), tf.ones((B, T, D)))
    assert len(program.loops) == 2
    forward, backward = program.loops
    state_products = [Product((B, U), (U, m * U), U) for m in dots]
    assert sorted(forward) == sorted(state_products)
    assert Product((B * T, D), (D, columns * U), D) in program.outside
    assert sorted(backward) == sorted(Product((B, m * U), (m * U, U), m * U) for m in dots)
    weights = [result(p) for p in program.outside if of_weight_form(p)]
    assert all(p.contracted == B * T for p in program.outside if of_weight_form(p))
    assert sorted(weights) == sorted([tuple(sorted((D, columns * U))), *[(U, m * U) for m in dots]])


@pytest.mark.deep
@pytest.mark.parametrize(("name", "arguments", "columns", "dots"), MEMORIES, ids=IDS)
def test_two_lanes_in_one_loop(name, arguments, columns, dots, monkeypatch):
    """Each product of a step once for the first six rows and once for the other seven, in the same two loops."""
    monkeypatch.setattr(loop, "lane_count", lambda batch, weights: 2)
    layer = getattr(keras_seq, name)(U, **arguments, return_sequences=True)
    layer.build((B, T, D))
    program = Products(training_step(layer), tf.ones((B, T, D)))
    assert len(program.loops) == 2
    forward, backward = program.loops
    assert sorted(forward) == sorted(Product((rows, U), (U, m * U), U) for rows in (6, 7) for m in dots)
    assert all(Product((rows * T, D), (D, columns * U), D) in program.outside for rows in (6, 7))
    assert sorted(backward) == sorted(Product((rows, m * U), (m * U, U), m * U) for rows in (6, 7) for m in dots)


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "XLA"])
def test_how_many_lanes(compiled, monkeypatch):
    """Two on a CPU of two cores or more, where there are two rows and a product of one step is of middling size."""
    tiny, small, middling, large = ([tf.zeros((8, n)), tf.zeros(n)] for n in (8, 1600, 16000, 10**6))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(lanes, "compiled_by_xla", lambda: compiled)
    with tf.Graph().as_default():
        assert [lanes.lane_count(b, tiny) for b in (None, 1, 2, 64)] == [1, 1, 1, 1]
        assert [lanes.lane_count(b, small) for b in (None, 1, 2, 64)] == ([2, 1, 1, 2] if compiled else [1, 1, 1, 1])
        assert [lanes.lane_count(b, middling) for b in (None, 1, 2, 64)] == ([2, 1, 2, 2] if compiled else [2, 1, 1, 2])
        assert [lanes.lane_count(b, large) for b in (None, 1, 2, 64)] == [1, 1, 2, 1]
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
        assert lanes.lane_count(64, middling) == 1
    assert lanes.lane_count(64, middling) == 1  # eagerly, nothing runs side by side


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("backwards", [False, True])
def test_no_stack_is_copied_in_a_loop(backwards, count, monkeypatch):
    """The cotangents of a step take the place of what was kept of it: XLA does so without copying the whole stack."""
    monkeypatch.setattr(loop, "lane_count", lambda batch, weights: count)
    rows = {1: rf"{B}", 2: "[67]"}[count]
    layer = keras_seq.LSTM(U, return_sequences=True, go_backwards=backwards)
    layer.build((B, T, D))
    step, x = training_step(layer), tf.ones((B, T, D))
    text = step.experimental_get_compiler_ir(x)(stage="optimized_hlo")
    bodies = re.findall(r" while\(.*body=(%[\w.\-]+)", text)
    assert len(bodies) == 2
    for body in bodies:
        lines = text.split(f"\n{body} (")[1].split("\n}")[0].splitlines()
        assert any(re.search(rf"f32\[{T},{rows},{4 * U}\]", line) for line in lines)
        assert not any(re.search(rf" = f32\[{T},{rows},\d+\]\S* copy\(", line) for line in lines)


@pytest.mark.deep
@pytest.mark.parametrize(("name", "arguments", "columns", "dots"), MEMORIES, ids=IDS)
def test_inference_keeps_nothing(name, arguments, columns, dots):
    layer = getattr(keras_seq, name)(U, **arguments)
    layer.build((B, T, D))
    inference = Products(tf.function(lambda x: layer(x), jit_compile=True), tf.ones((B, T, D)))
    training = Products(tf.function(lambda x: layer(x, training=True), jit_compile=True), tf.ones((B, T, D)))
    assert len(inference.loops) == 1
    assert "dynamic-update-slice(" in training.text
    assert "dynamic-update-slice(" not in inference.text


@pytest.mark.deep
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(
    ("layer", "loops"),
    [
        (lambda: keras_seq.Elman(U, outputs=3, return_sequences=True), 1),
        (lambda: keras_seq.Elman(U, outputs=3, blocked=False, return_sequences=True), 2),
        (lambda: keras_seq.Jordan(U, 3, return_sequences=True), 1),
        (lambda: keras_seq.Jordan(U, 3, blocked=False, return_sequences=True), 2),
        (lambda: keras_seq.ResidualRNN(U, return_sequences=True), 2),
        (lambda: keras_seq.ResidualRNN(U, recurrent=False, return_sequences=True), 0),
        # under XLA on processors one forward and one backward, of a multiplication and an addition a step
        (lambda: keras_seq.MinGRU(U, return_sequences=True), 2),
        (lambda: keras_seq.LRU(U, return_sequences=True), 2),
    ],
    ids=[
        *("Elman", "Elman, not blocked", "Jordan", "Jordan, not blocked", "ResidualRNN", "ResidualRNN, not recurrent"),
        *("MinGRU", "LRU"),
    ],
)
def test_loops_of_a_training_step(layer, loops, masked):
    """None in the backward pass of a blocked memory, none at all where the states are known."""
    mask = tf.sequence_mask([7, 4, 0, 2, *[5] * 9], T) if masked else None
    assert loops_of(training_step(layer(), mask)) == loops


@pytest.mark.parametrize(
    ("layer", "loops"),
    [
        (lambda: keras_seq.MinGRU(U), 0),
        (lambda: keras_seq.MinLSTM(U), 0),
        (lambda: keras_seq.LRU(U), 0),
        (lambda: keras_seq.LinearRNN(U), 0),
        (lambda: keras_seq.LinearRNN(U, transition="full"), 2),  # within chunks, then over them
        (lambda: keras_seq.GRU(U), 1),
    ],
    ids=["MinGRU", "MinLSTM", "LRU", "LinearRNN", "LinearRNN, full", "GRU"],
)
def test_loops_of_a_graph(layer, loops):
    """None over all steps where the states are linear in those before, as all are known at once."""
    graph = tf.function(layer()).get_concrete_function(tf.TensorSpec((B, T, D))).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert sum(node.op in ("While", "StatelessWhile") for node in nodes) == loops


@pytest.mark.deep
@pytest.mark.parametrize(
    ("layer", "closed"),
    [
        (lambda: keras_seq.Jordan(U, 3, return_sequences=True), False),
        (lambda: keras_seq.Jordan(U, 3, blocked=False, return_sequences=True), False),
        (lambda: keras_seq.NARX(U, 3, 2, 2, return_sequences=True), False),
        (lambda: keras_seq.NARX(U, 3, 2, 2, closed=True, return_sequences=True), True),
    ],
    ids=["Jordan", "Jordan, not blocked", "NARX, open", "NARX, closed"],
)
def test_loops_of_a_training_step_with_true_outputs(layer, closed):
    """None in open loop; closed, after two known outputs, one forward and one backward."""
    targets = tf.ones((B, 2 if closed else T, 3))
    assert loops_of(training_step(layer(), targets=targets)) == (2 if closed else 0)


def test_readout_is_one_product_over_all_steps():
    program = Products(training_step(keras_seq.SimpleRNN(U, outputs=3, return_sequences=True)), tf.ones((B, T, D)))
    assert all(3 not in (*p.left, *p.right) for loop in program.loops for p in loop)
    assert any(3 in p.right and p.contracted == U for p in program.outside)


def loops_of(step):
    return len(Products(step, tf.ones((B, T, D))).bodies)


def test_keras_multiplies_for_weight_gradients_in_the_loop():
    """A control: what the tests above say is absent would be seen."""
    layer = keras.layers.LSTM(U, return_sequences=True)
    layer.build((B, T, D))
    program = Products(training_step(layer), tf.ones((B, T, D)))
    assert any(of_weight_form(p) for loop in program.loops for p in loop)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras_seq.LSTM(U, return_sequences=True),
        lambda: keras_seq.Elman(U, return_sequences=True),
        lambda: keras_seq.ResidualRNN(U, recurrent=False, return_sequences=True),
    ],
    ids=["LSTM", "Elman", "ResidualRNN"],
)
def test_a_known_number_of_steps_stays_known(layer):
    graph = tf.function(layer()).get_concrete_function(tf.TensorSpec((None, T, D)))
    assert graph.structured_outputs.shape.as_list() == [None, T, U]
