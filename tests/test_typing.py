"""What editors and type checkers see: annotations, the stubs beside the layers, and jedi's answers."""

import ast
import importlib
import importlib.resources
import inspect

import jedi
import pytest
import stubs
from test_public import PUBLIC

import keras_seq
from keras_seq.arguments import LAYER_ARGUMENTS
from keras_seq.layers.cell_layer import CellLayer
from keras_seq.typing import LayerArguments, SequenceArguments

NAMED = [
    n for n in keras_seq.layers.__all__ if inspect.isclass(c := getattr(keras_seq, n)) and issubclass(c, CellLayer)
]
CELLS = [n for n in keras_seq.cells.__all__ if n.endswith("Cell")]


def functions(module, name):
    """The functions of a public name that the package has written, by their names: itself, or its public methods."""
    found = getattr(importlib.import_module(module), name)
    if not inspect.isclass(found):
        return {name: found}
    written = {}
    for cls in reversed(found.__mro__):
        if cls.__module__.startswith("keras_seq."):
            own = {n: v for n, v in vars(cls).items() if not n.startswith("_") or n in ("__init__", "__call__")}
            written.update({f"{cls.__name__}.{n}": v for n, v in own.items()})
    written = {n: v.fget if isinstance(v, property) else getattr(v, "__func__", v) for n, v in written.items()}
    return {n: v for n, v in written.items() if inspect.isfunction(v) and "<locals>" not in v.__qualname__}


def unannotated(function):
    """Its parameters without a type, and `return`."""
    signature = inspect.signature(function)
    bare = [n for n, p in signature.parameters.items() if p.annotation is p.empty and n not in ("self", "cls")]
    return bare + ["return"] * (signature.return_annotation is signature.empty)


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_public_functions_say_their_types(module, name):
    found = functions(module, name)
    assert {n: bare for n, f in found.items() if (bare := unannotated(f))} == {}


def test_what_has_no_type_is_seen():
    class Own(keras_seq.LSTMCell):
        def step(self, projected, states: list, constants=()) -> list: ...

    assert unannotated(Own.step) == ["projected", "constants"]
    assert len({n for module, name in PUBLIC for n in functions(module, name)}) > 200


def test_the_package_is_marked_as_typed():
    assert (importlib.resources.files("keras_seq") / "py.typed").is_file()


def test_arguments_of_every_layer_are_those_that_are_taken():
    assert set(LayerArguments.__annotations__) == LAYER_ARGUMENTS
    assert set(SequenceArguments.__annotations__) == {*LAYER_ARGUMENTS, "input_length"}


# -- stubs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", stubs.MODULES)
def test_stubs_are_those_that_would_be_written_now(module):
    there = ast.parse(stubs.place(module).read_text())
    wanted = ast.parse(stubs.stub(module))

    def without_imports(tree):
        return [ast.dump(node) for node in tree.body if isinstance(node, ast.ClassDef)]

    assert without_imports(there) == without_imports(wanted), "python tests/stubs.py"


@pytest.mark.parametrize("name", NAMED)
def test_every_layer_made_at_run_time_has_a_stub(name):
    assert getattr(keras_seq, name).__module__ in stubs.MODULES


def test_a_stub_has_every_parameter():
    tree = ast.parse(stubs.place("keras_seq.layers.recurrent").read_text())
    lstm = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "LSTM")
    arguments = lstm.body[0].args
    runtime = inspect.signature(keras_seq.LSTM).parameters.values()
    by_position = [p.name for p in runtime if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [a.arg for a in arguments.args] == ["self", *by_position]
    assert {a.arg for a in arguments.kwonlyargs} == (
        {p.name for p in runtime if p.kind is p.KEYWORD_ONLY} | SequenceArguments.__annotations__.keys()
    ) - set(by_position)
    assert next(ast.unparse(a.annotation) for a in arguments.args if a.arg == "units") == "int"


# -- jedi --------------------------------------------------------------------------------------------------------------


def answer(call):
    """The parameters that jedi shows at `call(`, by name."""
    program = jedi.Script(f"import keras_seq\n{call}(", environment=jedi.InterpreterEnvironment())
    (found,) = program.get_signatures()
    return {p.name: p for p in found.params}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("LSTM", "NARX") else pytest.mark.deep) for n in NAMED]
)
def test_an_editor_shows_what_a_layer_takes(name):
    shown = answer(f"keras_seq.{name}")
    *taken, kwargs = inspect.signature(getattr(keras_seq, name)).parameters
    assert kwargs == "kwargs"
    assert list(shown) == [*taken, *(n for n in SequenceArguments.__annotations__ if n not in taken)]
    assert shown.keys() >= {"units", "activation", "return_sequences", "dtype", "name"}


@pytest.mark.parametrize("name", CELLS)
def test_an_editor_shows_what_a_cell_takes(name):
    shown = answer(f"keras_seq.{name}")
    assert shown.keys() >= {n for n in inspect.signature(getattr(keras_seq, name)).parameters if n != "kwargs"}


@pytest.mark.parametrize(
    ("call", "first"),
    [
        ("keras_seq.RNN", "cell: Any"),
        ("keras_seq.dot", "x: Tensor"),
        ("keras_seq.decoding.greedy", "step: Step"),
        ("keras_seq.models.Seq2Seq", "source: Vocabulary"),
    ],
)
def test_an_editor_shows_types(call, first):
    shown = answer(call)
    assert next(iter(shown.values())).to_string() == first
