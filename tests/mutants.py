"""Mutants: a function of the package with one thing changed, which some check must see.

    mutate(monkeypatch, keras_seq.LSTMCell, "step", op("-", "forget"), "{1}")       # i = 1 - f becomes i = f
    mutate(monkeypatch, beam, "beam_search", call("take", 0), "{0}")                # states stay where they were

What is changed is found in the parsed source by what it is, not by how its variables are called. A place is a kind of node
and what stands in it, anywhere below: names of functions, attributes and keywords, constants, other places.

    op("*", ..)      an operation by its sign, a comparison, `and`, `not` ("neg" for the sign of one number)
    call(f, ..)      a call of f, whatever f belongs to; None for any call
    choice(..)       `a if c else b`, or an `if`, with these in c
    item(..)         x[i], with these in x
    display(..)      a list, tuple, set or dict written out
    constant(c)      a number or string
    loop(..), statement(..)     a `for`; an assignment, return, or the like

Of nested ones the innermost is meant, and it must be the only one; `nth` counts all of them, outer ones first, and `within`
looks inside another place only.

A change is a template of source, in which {} is the node, {0}, {1} .. are its parts and {1.0} parts of these (operands;
arguments; the two results, then the test of a choice; x and i of x[i]); or one of the functions below.
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import linecache
import pathlib
import re
import sys
import textwrap
import types
from collections.abc import Callable

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ARITHMETIC = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult, "/": ast.Div, "//": ast.FloorDiv, "%": ast.Mod, "**": ast.Pow}
COMPARISONS = {"<": ast.Lt, "<=": ast.LtE, ">": ast.Gt, ">=": ast.GtE, "==": ast.Eq, "!=": ast.NotEq, "is": ast.Is}
LOGICAL = {"is not": ast.IsNot, "in": ast.In, "not in": ast.NotIn, "and": ast.And, "or": ast.Or, "not": ast.Not}
BITS = {"neg": ast.USub, "|": ast.BitOr, "&": ast.BitAnd, "~": ast.Invert}
SIGNS = ARITHMETIC | COMPARISONS | LOGICAL | BITS
SIMPLE = (ast.Assign, ast.AugAssign, ast.Return, ast.Expr, ast.Raise, ast.Pass)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where something is to change; `fits(node)` says of which nodes, `within` inside of what."""

    name: str
    fits: Callable
    nth: int | None = None
    within: "Place | None" = None

    def __str__(self):
        nth = "" if self.nth is None else f"[{self.nth}]"
        return self.name + nth + (f" in {self.within}" if self.within else "")

    def all(self, tree):
        """Every node of the tree that fits, outer ones first."""
        if self.within is None:
            return [node for node in _walk(tree) if self.fits(node)]
        outer = self.within.all(tree) if self.within.nth is None else self.within.one(tree)
        found = {id(node): node for top in outer for node in _walk(top) if node is not top and self.fits(node)}
        return list(found.values())

    def one(self, tree):
        """The nodes that are meant: a list of one, if there is one."""
        found = self.all(tree)
        if self.nth is not None:
            return found[self.nth :][:1]
        return [node for node in found if not any(other in found for other in _walk(node) if other is not node)]


def _walk(node):
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def _stands(what, node):
    """Whether a name, a constant or a place stands in a node or below it."""
    if isinstance(what, Place):
        return bool(what.all(node))
    for n in _walk(node):
        if isinstance(n, ast.Constant) and type(n.value) is type(what) and n.value == what:
            return True
        names = (getattr(n, "id", None), getattr(n, "attr", None), getattr(n, "arg", None))
        if isinstance(what, str) and what in names:
            return True
    return False


def _place(kind, said, fits, look=lambda node: node, nth=None, within=None):
    def whole(node):
        return fits(node) and all(_stands(what, look(node)) for what in said)

    return Place(f"{kind}({', '.join(str(s) for s in said)})", whole, nth, within)


def op(sign, *said, **where):
    def fits(node):
        operators = node.ops if isinstance(node, ast.Compare) else [getattr(node, "op", None)]
        return any(isinstance(o, SIGNS[sign]) for o in operators)

    return _place(sign, said, fits, **where)


def call(function, *said, **where):
    def fits(node):
        called = getattr(node, "func", None)
        return isinstance(node, ast.Call) and function in (None, getattr(called, "attr", getattr(called, "id", None)))

    return _place(function or "call", said, fits, **where)


def choice(*said, **where):
    return _place("choice", said, lambda n: isinstance(n, (ast.IfExp, ast.If)), look=lambda n: n.test, **where)


def item(*said, **where):
    return _place("item", said, lambda n: isinstance(n, ast.Subscript), **where)


def display(*said, **where):
    return _place("display", said, lambda n: isinstance(n, (ast.List, ast.Tuple, ast.Set, ast.Dict)), **where)


def constant(value, **where):
    return _place("constant", [value], lambda n: isinstance(n, ast.Constant), **where)


def loop(*said, **where):
    return _place("loop", said, lambda n: isinstance(n, (ast.For, ast.While)), **where)


def statement(*said, **where):
    return _place("statement", said, lambda n: isinstance(n, SIMPLE), **where)


# -- changes ---------------------------------------------------------------------------------------------------------------


def parts(node):
    """The operands, arguments or items of a node."""
    kinds = {
        ast.BinOp: lambda n: [n.left, n.right],
        ast.UnaryOp: lambda n: [n.operand],
        ast.BoolOp: lambda n: n.values,
        ast.Compare: lambda n: [n.left, *n.comparators],
        ast.Call: lambda n: [*n.args, *(k.value for k in n.keywords)],
        ast.IfExp: lambda n: [n.body, n.orelse, n.test],
        ast.Subscript: lambda n: [n.value, n.slice],
        ast.Dict: lambda n: n.values,
        ast.Assign: lambda n: [*n.targets, n.value],
    }
    get = kinds.get(type(node), lambda n: getattr(n, "elts", None) or [n.value])
    return get(node)


def _filled(template, node):
    """The node that a template makes of another one."""

    def source(match):
        found = node
        for k in filter(None, match[1].split(".")):
            found = parts(found)[int(k)]
        text = ast.unparse(found)
        return f"({text})" if isinstance(found, ast.expr) and not isinstance(found, ast.Starred) else text

    (made,) = ast.parse(re.sub(r"\{([\d.]*)\}", source, template)).body
    return made.value if isinstance(node, ast.expr) else made


def argument(key, template):
    """One argument of a call, by place or by keyword, made of itself ({})."""

    def change(node):
        if isinstance(key, int):
            node.args[key] = _filled(template, node.args[key])
        else:
            (keyword,) = (k for k in node.keywords if k.arg == key)
            keyword.value = _filled(template, keyword.value)
        return node

    change.__name__ = f"{key}: {template}"
    return change


def without(name):
    """A call without a keyword, a display without a constant, a dict without a key."""

    def is_it(node):
        return isinstance(node, ast.Constant) and node.value == name

    def change(node):
        if isinstance(node, ast.Call):
            node.keywords = [k for k in node.keywords if k.arg != name]
        elif isinstance(node, ast.Dict):
            kept = [(k, v) for k, v in zip(node.keys, node.values, strict=True) if not is_it(k)]
            node.keys, node.values = [k for k, _ in kept], [v for _, v in kept]
        else:
            node.elts = [e for e in node.elts if not is_it(e)]
        return node

    change.__name__ = f"without {name}"
    return change


def calls(function):
    """A call of another function with the same arguments."""

    def change(node):
        node.func = ast.parse(function, mode="eval").body
        return node

    change.__name__ = function
    return change


def negated(node):
    """A choice of the other."""
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return node


# -- what is run -----------------------------------------------------------------------------------------------------------


def mutate(monkeypatch, owner, name, place, change):
    """Let a function of a class or module be another, wherever the package and the tests use it; of a base class, there."""
    owner = next((base for base in getattr(owner, "__mro__", ()) if name in vars(base)), owner)
    original = inspect.getattr_static(owner, name)
    function = getattr(original, "fget", None) or getattr(original, "__func__", original)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found, before = place.one(tree), ast.dump(tree)
    where = f"{owner.__name__}.{name}: {place}"
    assert len(found) == 1, f"{where} is there {len(found)} times, expected once: say anew what is to change"

    class Change(ast.NodeTransformer):
        def visit(self, node):
            if node is not found[0]:
                return super().generic_visit(node)
            return _filled(change, node) if isinstance(change, str) else change(node)

    tree = ast.fix_missing_locations(Change().visit(tree))
    assert ast.dump(tree) != before, f"{where}: nothing is changed by {change}"
    # inside a function with this name, `super()` knows its class
    outer = ast.parse("def make(__class__):\n    pass")
    outer.body[0].body = [*tree.body, ast.Return(ast.Name(name, ast.Load()))]
    source, file = ast.unparse(ast.fix_missing_locations(outer)), f"<mutant of {where}: {change}>"
    linecache.cache[file] = (
        len(source),
        None,
        source.splitlines(keepends=True),
        file,
    )  # for AutoGraph, and for tracebacks
    namespace = dict(vars(inspect.getmodule(function)))
    exec(compile(source, file, "exec"), namespace)
    made = namespace["make"](owner)
    monkeypatch.setattr(owner, name, made)
    if isinstance(owner, types.ModuleType):
        for module in [m for m in sys.modules.values() if str(ROOT) in str(getattr(m, "__file__", ""))]:
            for key, value in list(vars(module).items()):
                if value is original:
                    monkeypatch.setattr(module, key, made)
                elif isinstance(value, dict) and not key.startswith("__"):
                    for inner in [k for k, v in value.items() if v is original]:
                        monkeypatch.setitem(value, inner, made)


def caught(check, *given, **arguments):
    """The check must fail, by an assertion, not by another error."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(*given, **arguments)


def crashes(check):
    """The same check where a fault makes the package itself fail."""

    @functools.wraps(check)
    def checked():
        try:
            check()
        except Exception as error:
            raise AssertionError from error

    return checked


def module(path):
    """A module of the tests, by its path under tests/."""
    path = ROOT / "tests" / path
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    return importlib.import_module(path.stem)


def suite(test, *given, **arguments):
    """A check: a test of the suite, such as "decoding/test_beam.py::test_width_one_is_greedy", with these arguments."""
    path, name = test.split("::")
    function = getattr(module(path), name)
    return functools.wraps(function)(lambda: function(*given, **arguments))


def home(thing):
    """The module of a class or function."""
    return sys.modules[thing.__module__]


def named(mutants):
    """Arguments of `pytest.mark.parametrize` for rows of (owner, name of the function, place, change, checks)."""
    rows = [pytest.param(*mutant[:5], id=label(*mutant[:4])) for mutant in mutants]
    return {"argnames": ("owner", "name", "place", "change", "checks"), "argvalues": rows}


def proxy(module, **changed):
    """A module with some names replaced."""
    names = {name: getattr(module, name) for name in dir(module)}
    return types.SimpleNamespace(**{**names, **changed})


def label(owner, name, place, change):
    """A name for a mutant."""
    change = change if isinstance(change, str) else change.__name__
    return f"{owner.__name__.split('.')[-1]}.{name}-{place}-{change}"
