"""Trees as bracketed strings, and as the arrays that recursive networks take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_seq.arguments import positive_integer


class Trees(NamedTuple):
    """A batch of b trees of up to n nodes, each of which stands after its children; the last node of a tree is its root."""

    children: np.ndarray
    """Integers (b, n, k): the places of the children among the nodes of the tree, -1 for none."""
    labels: np.ndarray
    """Strings (b, n): what stands behind the bracket of a node; "" where there is no node."""
    words: np.ndarray
    """Strings (b, n): the word of a leaf, "" for other nodes."""
    mask: np.ndarray
    """Booleans (b, n): True where there is a node."""


def parse_trees(strings: Sequence[str], arity: int | None = None) -> Trees:
    """Trees from bracketed strings such as "(3 (2 a) (1 b))".

        tree = "(" label word ")"  |  "(" label tree .. tree ")"

    A label and a word are anything without white space and brackets (treebanks write -LRB- for one).

    Args:
        strings: a sequence of b strings.
        arity: how many places for children there are, k; None for as many as the node with most children has.

    Returns:
        A `NamedTuple` of arrays: `children` (b, n, k), `labels` (b, n), `words` (b, n) and `mask` (b, n); n is that of the
        largest tree. A node stands after its children, the root last; trees are padded at their ends.

    Raises:
        TypeError: anything but a sequence of strings.
        ValueError: a bracket that nothing closes or opens, a node without a label, or with two words, or with a word beside
            children, text after a tree, more children than `arity`; each with its position. No string at all.

    Example:

    ```python
    import keras_seq
    trees = keras_seq.parse_trees(["(3 (2 a) (1 b))", "(0 c)"])
    trees.children[0]         # [[-1, -1], [-1, -1], [0, 1]]
    trees.labels[0]           # ["2", "1", "3"]
    keras_seq.format_trees(trees)     # ["(3 (2 a) (1 b))", "(0 c)"]
    ```
    """
    given, strings = strings, _listed(strings)
    if isinstance(given, (str, bytes)) or not all(isinstance(s, str) for s in strings):
        raise TypeError(f"strings: expected a sequence of strings, got {given!r:.80}")
    arity = None if arity is None else positive_integer("arity", arity)
    parsed = [_parsed(string, f"tree {i}", arity) for i, string in enumerate(strings)]
    if not parsed:
        raise ValueError("strings: expected at least one tree, got none")
    b, n = len(parsed), max(map(len, parsed))
    k = arity or max(1, max(len(children) for tree in parsed for _, _, children in tree))
    trees = Trees(
        np.full((b, n, k), -1, "int32"),
        np.full((b, n), "", object),
        np.full((b, n), "", object),
        np.zeros((b, n), bool),
    )
    for row, tree in enumerate(parsed):
        trees.mask[row, : len(tree)] = True
        for node, (label, word, children) in enumerate(tree):
            trees.labels[row, node], trees.words[row, node] = label, word or ""
            trees.children[row, node, : len(children)] = children
    return trees


def format_trees(trees: Trees) -> list[str]:
    """The bracketed strings of trees, as `parse_trees` reads them.

    Args:
        trees: what `parse_trees` returns, or four arrays like it. Labels and words may be of any type; bytes are UTF-8.

    Returns:
        A list of b strings. A place for a child that is empty leaves no trace.

    Raises:
        TypeError: anything but four arrays; children that are no integers.
        ValueError: arrays of other shapes; white space or a bracket in a label or a word; a node without a label; a leaf
            without a word, or a word of another node; a child that does not stand before its node or has two parents, more
            than one root, a tree without a node.

    Example:

    ```python
    import keras_seq
    trees = keras_seq.parse_trees(["(s  (a  b) (c  d))"])
    keras_seq.format_trees(trees)     # ["(s (a b) (c d))"]
    ```
    """
    return [_formatted(row, *arrays) for row, arrays in enumerate(zip(*_checked(trees), strict=True))]


def _checked(trees):
    """The four arrays of trees."""
    if not isinstance(trees, (tuple, list)) or len(trees) != 4:
        raise TypeError(f"trees: expected four arrays, children, labels, words and mask, got {trees!r:.80}")
    children, labels, words, mask = map(np.asarray, trees)
    if children.dtype.kind not in "iu":
        raise TypeError(f"trees: expected children of integers, got {children.dtype}")
    if children.ndim != 3 or any(x.shape != children.shape[:2] for x in (labels, words, mask)):
        shapes = [x.shape for x in (children, labels, words, mask)]
        raise ValueError(f"trees: expected children (b, n, k), and labels, words and mask (b, n), got {shapes}")
    return children, labels, words, mask


def _listed(strings):
    """The strings as a list, also of what can be read only once; `[None]`, which is refused, of what cannot be read."""
    try:
        return list(strings)
    except TypeError:
        return [None]


def _parsed(string, name, arity):
    """A list of `(label, word or None, numbers of the children)`, each node after its children."""

    def refuse(expected, got, position):
        raise ValueError(f"strings: expected {expected}, got {got} at position {position} of {name}")

    nodes = []
    path = []  # the nodes that are open
    for token in re.finditer(r"[()]|[^\s()]+", string):
        text, position = token[0], token.start()
        if not path and (nodes or text != "("):
            refuse("nothing after the tree" if nodes else "an opening bracket", repr(text), position)
        if text == "(":
            if path and path[-1]["label"] is None:
                refuse("a label", repr(text), position)
            if path and path[-1]["word"] is not None:
                refuse("no tree beside the word of a leaf", repr(text), position)
            path.append({"label": None, "word": None, "children": [], "position": position})
        elif text != ")":
            here = path[-1]
            if here["label"] is None:
                here["label"] = text
            elif here["word"] is None and not here["children"]:
                here["word"] = text
            else:
                refuse("one word in a leaf and none beside trees", repr(text), position)
        else:
            here = path.pop()
            if here["label"] is None or (here["word"] is None and not here["children"]):
                refuse("a label and a word or trees", repr(text), position)
            if arity is not None and len(here["children"]) > arity:
                refuse(f"at most {arity} trees in one", len(here["children"]), here["position"])
            nodes.append((here["label"], here["word"], here["children"]))
            if path:
                path[-1]["children"].append(len(nodes) - 1)
    if path:
        refuse("a closing bracket", "none for that", path[-1]["position"])
    if not nodes:
        refuse("a tree", "none", 0)
    return nodes


def _formatted(row, children, labels, words, mask):
    """The string of one tree."""
    texts = {}
    for node in np.flatnonzero(mask):
        inner = [int(c) for c in children[node] if c != -1]
        if len(set(inner)) < len(inner) or any(c not in texts for c in inner):
            raise ValueError(
                f"trees: expected children before their node and of one parent, got {inner} at node {node} of tree {row}"
            )
        label, word = (x.decode() if isinstance(x, bytes) else str(x) for x in (labels[node], words[node]))
        for text in (label, word):
            if re.search(r"[()\s]", text):
                raise ValueError(
                    f"trees: expected labels and words without white space and brackets, got {text!r} at node {node} of "
                    f"tree {row}"
                )
        if not label or bool(word) == bool(inner):
            raise ValueError(
                f"trees: expected a label, and either a word or children, got label {label!r}, word {word!r} and "
                f"children {inner} at node {node} of tree {row}"
            )
        texts[int(node)] = f"({label} {word or ' '.join(texts.pop(c) for c in inner)})"
    if len(texts) != 1:
        raise ValueError(f"trees: expected one root, got {len(texts)} in tree {row}")
    return texts.popitem()[1]
