"""The stubs of the layers whose constructors are made at run time, from which editors and type checkers read these.

    python tests/stubs.py

writes them anew. A stub is the public part of a module: its classes, each with the constructor that `inspect.signature` tells
of written out, and their methods without bodies.
"""

import ast
import importlib
import inspect
import pathlib
import subprocess

from keras_seq.layers.cell_layer import CellLayer
from keras_seq.typing import SequenceArguments

MODULES = ["keras_seq.layers.recurrent", "keras_seq.layers.narx"]
HEAD = "# Written by tests/stubs.py, from constructors that are made at run time.\n"
FURTHER = """
from collections.abc import Sequence
from typing import Literal
import keras
from keras_seq.layers.newton import Newton
from keras_seq.typing import Activation, Config, Constraint, DType, Initializer, Regularizer, Shape
"""
"""What the annotations of these constructors may name, besides what their modules import."""


def signature(cls):
    """The constructor's, with what `**kwargs` stands for written out."""
    *named, rest = inspect.signature(cls).parameters.values()
    assert rest.annotation == "Unpack[SequenceArguments]"
    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    further = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=of.__forward_arg__)
        for name, of in SequenceArguments.__annotations__.items()
        if name not in {p.name for p in named}
    ]
    return inspect.Signature([me, *named, *further])


def constructor(cls):
    """`def __init__(...) -> None: ...` of this signature."""
    parts, before = [], None
    for p in signature(cls).parameters.values():
        if p.kind is p.KEYWORD_ONLY and before is not p.KEYWORD_ONLY:
            parts.append("*")
        before = p.kind
        said = p.name if p.annotation is p.empty else f"{p.name}: {p.annotation}"
        default = "..." if p.default is ... else repr(p.default)
        parts.append(said if p.default is p.empty else f"{said} = {default}")
    return ast.parse(f"def __init__({', '.join(parts)}) -> None: ...").body[0]


def outline(function):
    """A function without its body."""
    function.body = [ast.Expr(ast.Constant(...))]
    return function


def stub(module):
    """The text of the stub of a module."""
    module = importlib.import_module(module)
    tree = ast.parse(inspect.getsource(module))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in classes:
        cls = getattr(module, node.name)
        assert issubclass(cls, CellLayer)
        methods = [n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
        node.decorator_list, node.body = [], [constructor(cls), *map(outline, methods)]
    names = {n.id for c in classes for n in ast.walk(c) if isinstance(n, ast.Name)}
    imports = [n for n in [*tree.body, *ast.parse(FURTHER).body] if isinstance(n, ast.Import | ast.ImportFrom)]
    found, seen = [], set()
    for node in imports:
        node.names = [a for a in node.names if (a.asname or a.name) in names - seen]
        seen |= {a.asname or a.name for a in node.names}
        found += [node] if node.names else []
    return ast.unparse(ast.Module([*found, *classes], type_ignores=[]))


def place(module):
    """The file of a stub."""
    return pathlib.Path(importlib.import_module(module).__file__).with_suffix(".pyi")


if __name__ == "__main__":
    for module in MODULES:
        place(module).write_text(HEAD + stub(module) + "\n")
    places = [str(place(module)) for module in MODULES]
    subprocess.run(["ruff", "check", "--quiet", "--fix", "--select", "I", *places], check=True)
    subprocess.run(["ruff", "format", "--quiet", *places], check=True)
