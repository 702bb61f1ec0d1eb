"""Faults made on purpose in trees, graphs and strings in brackets."""

import pytest
from mutants import call, caught, crashes, module, mutate, named, op, suite

from keras_seq.cells.tree import RecursiveCell, TreeLSTMCell
from keras_seq.engine.tensorflow.levels import _Levels
from keras_seq.layers import GraphRecurrent, brackets, tree

pytestmark = [pytest.mark.deep, pytest.mark.mutation]


def trees(test, *given):
    return crashes(suite(f"layers/test_trees.py::{test}", *given))


def graphs(test, *given):
    return crashes(suite(f"layers/test_graphs.py::{test}", *given))


def values(kind):
    return trees("test_values_are_those_of_the_recursion", kind)


def gradients(kind):
    return trees("test_gradients_are_those_of_the_recursion", kind)


def in_pieces(kind):
    """Beside whole levels, which must be right."""

    def check():
        with pytest.MonkeyPatch.context() as patched:
            module("layers/test_trees.py").test_in_pieces_of_levels_it_gives_the_same(kind, patched)

    return crashes(check)


def by_hand(aggregate, edge_types=None):
    return graphs("test_values_and_gradients_are_those_by_hand", aggregate, edge_types)


SUM, PLACES, PLAIN = "TreeLSTM", "TreeLSTM-arity", "RecursiveNN"
MUTANTS = [
    (RecursiveCell, "step", call("_side_by_side"), "_side_by_side({0}[..., ::-1, :])", [values(PLAIN)]),
    (TreeLSTMCell, "step", call("sum"), "ops.sum(c, axis=-2)", [values(SUM), values(PLACES)]),
    (TreeLSTMCell, "step", op("*", "activation", nth=1), "{1}", [values(SUM)]),
    (TreeLSTMCell, "_of_children", call("dot", nth=1), "dot({0}[..., :1, :], {1})", [values(SUM)]),
    (TreeLSTMCell, "_of_children", call("dot", nth=2), "dot({0}, {1}[:, ::-1])", [values(PLACES)]),
    (_Levels, "backward", call("where", nth=0), "{1}", [in_pieces(SUM)]),
    (_Levels, "backward", call("where", nth=2), "2 * {1}", [gradients(SUM)]),
    (_Levels, "backward", call("tensor_scatter_nd_add"), "{0}", [gradients(PLAIN)]),
    (_Levels, "_rows", call("where"), "{1}", [in_pieces(PLACES)]),
    (tree, "_levels", call("max"), "ops.min({0}, axis=2)", [values(PLACES)]),
    (
        tree,
        "_faults",
        op(">", 1),
        "{0} > 9",
        [trees("test_a_wrong_tree_is_named_and_in_a_graph_it_is_nan", "two parents")],
    ),
    (GraphRecurrent, "_aggregated", op("/"), "{0}", [by_hand("mean")]),
    (GraphRecurrent, "_aggregated", call("where"), "{1}", [by_hand("max")]),
    (GraphRecurrent, "_aggregated", op("+", op("*")), "{0}", [by_hand("sum", 2)]),
    (GraphRecurrent, "call", op("not"), "True", [graphs("test_dropout_acts_in_training_and_is_the_same_at_all_steps")]),
    (brackets, "_parsed", op("-", 1), "{0}", [suite("layers/test_brackets.py::test_arrays_of_a_batch")]),
]


@pytest.fixture(autouse=True)
def nothing_kept():
    """What the tests keep of the layers as they are, or as a fault makes them, is not for the next."""
    kept = module("layers/test_trees.py")

    def forget():
        for found in (kept.eager, kept.wrong_trees_in_a_graph):
            found.cache_clear()

    forget()
    yield
    forget()


def test_nothing_is_caught_without_a_fault():
    for *_, checks in MUTANTS:
        for check in checks:
            check()


@pytest.mark.parametrize(**named(MUTANTS))
def test_killed(owner, name, place, change, checks, monkeypatch):
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        caught(check)
