"""Trees as bracketed strings: to arrays and back, and what is wrong with a string."""

import re

import numpy as np
import pytest

import keras_seq

TEXTS = ["(3 (2 a) (1 b))", "(0 c)", "(s (np (d the) (n cat)) (vp (v sat)))"]


def test_arrays_of_a_batch():
    trees = keras_seq.parse_trees(TEXTS)
    assert trees.children.tolist()[:2] == [
        [[-1, -1], [-1, -1], [0, 1], *[[-1, -1]] * 3],
        [[-1, -1]] * 6,
    ]
    assert trees.labels[2].tolist() == ["d", "n", "np", "v", "vp", "s"]
    assert trees.words[2].tolist() == ["the", "cat", "", "sat", "", ""]
    assert trees.mask.sum(1).tolist() == [3, 1, 6]
    assert trees.children.dtype == np.int32
    assert trees.mask.dtype == bool
    assert trees.labels[1].tolist() == ["0", *[""] * 5]


def test_there_and_back():
    trees = keras_seq.parse_trees(TEXTS)
    assert keras_seq.format_trees(trees) == TEXTS
    spaced = [text.replace("(", " ( ").replace(")", " )\n") for text in TEXTS]
    assert keras_seq.format_trees(keras_seq.parse_trees(spaced)) == TEXTS


def random_text(rng, depth):
    label = rng.choice(["1", "label", "+", "é"])
    if depth == 0 or rng.random() < 0.3:
        return f"({label} {rng.choice(['w', 'word', '-LRB-'])})"
    return f"({label} {' '.join(random_text(rng, depth - 1) for _ in range(rng.integers(1, 5)))})"


def test_what_can_be_read_once_is_read_once():
    read, again = keras_seq.parse_trees(iter(TEXTS)), keras_seq.parse_trees(TEXTS)
    for found, expected in zip(read, again, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_bytes_are_text():
    trees = keras_seq.parse_trees(["(ü (a é) (b c))"])
    encoded = trees._replace(**{name: np.char.encode(getattr(trees, name).astype(str)) for name in ("labels", "words")})
    assert keras_seq.format_trees(encoded) == ["(ü (a é) (b c))"]


def test_random_trees_there_and_back():
    rng = np.random.default_rng(0)
    texts = [random_text(rng, 4) for _ in range(50)]
    trees = keras_seq.parse_trees(texts)
    assert keras_seq.format_trees(trees) == texts
    again = keras_seq.parse_trees(keras_seq.format_trees(trees))
    for a, b in zip(trees, again, strict=True):
        np.testing.assert_array_equal(a, b)
    layer = keras_seq.TreeLSTM(2)  # takes them as they are
    assert layer(np.ones((*trees.mask.shape, 3)), children=trees.children, mask=trees.mask).shape == (50, 2)


def test_a_tree_may_be_deep():
    depth = 5000
    text = "(a " * depth + "(a b)" + ")" * depth
    assert keras_seq.format_trees(keras_seq.parse_trees([text])) == [text]


def test_places_for_children():
    assert keras_seq.parse_trees(TEXTS, arity=3).children.shape == (3, 6, 3)
    assert keras_seq.parse_trees(["(0 c)"]).children.shape == (1, 1, 1)
    with pytest.raises(ValueError, match="strings: expected at most 1 trees in one, got 2 at position 0 of tree 0"):
        keras_seq.parse_trees(TEXTS, arity=1)
    with pytest.raises(ValueError, match="arity: expected a positive integer, got 0"):
        keras_seq.parse_trees(TEXTS, arity=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(3 (2 a) (1 b)", "a closing bracket, got none for that at position 0"),
        ("(3 (2 a (1 b))", "no tree beside the word of a leaf, got '(' at position 8"),
        ("(3 (2 a) (1 b", "a closing bracket, got none for that at position 9"),
        ("(3 (2 a)) (1 b))", "nothing after the tree, got '(' at position 10"),
        ("(3 a))", "nothing after the tree, got ')' at position 5"),
        (")", "an opening bracket, got ')' at position 0"),
        ("  a", "an opening bracket, got 'a' at position 2"),
        ("((2 a))", "a label, got '(' at position 1"),
        ("(3)", "a label and a word or trees, got ')' at position 2"),
        ("(3 (2 a) ())", "a label and a word or trees, got ')' at position 10"),
        ("(3 a b)", "one word in a leaf and none beside trees, got 'b' at position 5"),
        ("(3 (2 a) b)", "one word in a leaf and none beside trees, got 'b' at position 9"),
        ("", "a tree, got none at position 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_position(text, message):
    with pytest.raises(ValueError, match=re.escape(f"strings: expected {message} of tree 1")):
        keras_seq.parse_trees(["(0 c)", text])


@pytest.mark.parametrize("strings", ["(0 c)", None, 3, ["(0 c)", 4]])
def test_what_is_no_list_of_strings(strings):
    with pytest.raises(TypeError, match="strings: expected a sequence of strings, got"):
        keras_seq.parse_trees(strings)


def test_no_tree_at_all():
    with pytest.raises(ValueError, match="strings: expected at least one tree, got none"):
        keras_seq.parse_trees([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": (0, "")}, "expected a label, and either a word or children, got label '', word 'a'"),
        ({"words": (0, "")}, "expected a label, and either a word or children, got label '2', word ''"),
        ({"words": (2, "x")}, "expected a label, and either a word or children, got label '3', word 'x'"),
        ({"children": (0, [2, -1])}, "expected children before their node and of one parent, got [2] at node 0 of"),
        ({"children": (2, [1, 1])}, "expected children before their node and of one parent, got [1, 1] at node 2 of"),
        ({"children": (2, [1, -1])}, "expected one root, got 2 in tree 0"),
        ({"mask": (slice(None), False)}, "expected one root, got 0 in tree 0"),
        (
            {"labels": (2, "a b")},
            "expected labels and words without white space and brackets, got 'a b' at node 2 of tree 0",
        ),
        (
            {"words": (1, "(b")},
            "expected labels and words without white space and brackets, got '(b' at node 1 of tree 0",
        ),
    ],
)
def test_arrays_that_are_no_trees(changes, message):
    trees = keras_seq.parse_trees(TEXTS[:1])
    for name, (place, value) in changes.items():
        getattr(trees, name)[0, place] = value
    with pytest.raises(ValueError, match=re.escape(f"trees: {message}")):
        keras_seq.format_trees(trees)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda trees: None, TypeError, "expected four arrays, children, labels, words and mask, got None"),
        (lambda trees: trees[:3], TypeError, "expected four arrays, children, labels, words and mask, got (array"),
        (
            lambda trees: trees._replace(children=trees.children / 1),
            TypeError,
            "expected children of integers, got float64",
        ),
        (
            lambda trees: trees._replace(words=trees.words[:, :2]),
            ValueError,
            "expected children (b, n, k), and labels, words and mask (b, n), got [(1, 3, 2), (1, 3), (1, 2), (1, 3)]",
        ),
        (
            lambda trees: [x[0] for x in trees],
            ValueError,
            "expected children (b, n, k), and labels, words and mask (b, n)",
        ),
    ],
)
def test_what_are_no_four_arrays(change, error, message):
    with pytest.raises(error, match=re.escape(f"trees: {message}")):
        keras_seq.format_trees(change(keras_seq.parse_trees(TEXTS[:1])))
