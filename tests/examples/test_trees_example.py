"""The example of bracketed logic: its expressions, its arrays, its two recursions, and a small run from the command line."""

import pathlib
import re
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import trees


def depth(text):
    """The deepest nesting, a leaf being 0."""
    opened, deepest = 0, 0
    for bracket in re.findall(r"[()]", text):
        opened += 1 if bracket == "(" else -1
        deepest = max(deepest, opened)
    return deepest - 1


def value(text):
    """By Python's own operators on the text."""
    found = re.findall(r"[()]|[^\s()]+", text)

    def read():
        assert found.pop(0) == "("
        name, inner = found.pop(0), []
        while found[0] != ")":
            inner.append(read() if found[0] == "(" else int(found.pop(0)))
        found.pop(0)
        if name == "leaf":
            return inner[0]
        return int({"not": lambda a: not a, "and": min, "or": max, "xor": lambda a, b: a != b}[name](*inner))

    return read()


def test_expressions_have_the_depth_and_arrays_the_values():
    rng = np.random.default_rng(0)
    for wanted in (0, 1, 4, 12):
        texts = [trees.expression(rng, wanted) for _ in range(30)]
        assert {depth(text) for text in texts} == {wanted}
        symbols, children, mask, values = trees.arrays(texts, nodes=200)
        assert symbols.shape == (30, 200)
        assert children.shape == (30, 200, 2)
        roots = values[np.arange(30), mask.sum(1) - 1]
        assert roots.tolist() == [value(text) for text in texts]
        assert symbols[mask].max() < len(trees.SYMBOLS)
    assert len(set(texts)) == 30
    assert 0.2 < roots.mean() < 0.8


def test_a_small_run(capsys):
    found = trees.main(["--quick"])
    assert list(found) == [1, 2, 3, 4]
    assert found[1] > 0.5
    shown = capsys.readouterr().out
    assert "| 4, deeper than in training |" in shown
    assert len(re.findall(r"\| TreeLSTM, forward.*, (graph|XLA) \| [\d,]+ \|", shown)) == 4
    assert "| recursion in NumPy, forward |" in shown
