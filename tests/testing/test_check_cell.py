"""`check_cell` passes our cells and strangers', and names what is wrong with cells made faulty on purpose."""

import copy
import json
import os
import pathlib
import random
import re
import subprocess
import sys

import keras
import pytest
import tensorflow as tf
from cases import ReaderCell
from faulty_cells import WRONG, Plain, WrongGradient
from keras import ops
from strange_cells import StrangeCell

import keras_seq
from keras_seq.engine.tensorflow import checkpointed, loop
from keras_seq.layers import rnn
from keras_seq.testing import check_cell
from keras_seq.testing.checks import CHECKS
from keras_seq.testing.differences import assert_close
from keras_seq.testing.subject import CellUnderTest

pytestmark = pytest.mark.deep

NAMES = [check.name for check in CHECKS]


# -- cells that are right ------------------------------------------------------------------------------------------------

RIGHT = {
    "LSTM": (lambda: keras_seq.LSTMCell(4, peepholes=True, projection=3, zoneout=[0.1, 0.2], dropout=0.2), ()),
    "GRU": (lambda: keras_seq.GRUCell(4, reset_after=False, learn_initial_state=True, dtype="mixed_float16"), ()),
    "Elman": (lambda: keras_seq.ElmanCell(4, outputs=2), ()),
    "Jordan": (lambda: keras_seq.JordanCell(4, outputs=2), ()),
    "Conditioned": (lambda: keras_seq.ConditionedCell(keras_seq.SimpleRNNCell(4)), [(None, 2)]),
    "Strange": (StrangeCell, ()),
    "Reader": (ReaderCell, [(None, 3, 2), (4, 4), keras.KerasTensor((None,), "int32")]),
}
# what is slow; each is passed by one of them at least
COSTLY = ["eager, graph, XLA", "dropout", "checkpoint, truncate", "any size", "saved model", ".keras file"]
SKIPPED = {
    "LSTM": COSTLY[:1] + COSTLY[2:],
    "GRU": COSTLY,
    "Elman": COSTLY,
    "Jordan": COSTLY[:4],
    "Conditioned": COSTLY,
    "Strange": [],
    "Reader": COSTLY[:4],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_cells_pass(name, capsys):
    make, constants = RIGHT[name]
    skipped = SKIPPED[name]
    assert check_cell(make(), constants=constants, skip=skipped) is None
    table = capsys.readouterr().out
    marked = re.findall(r"^  (\S+) (.*?): ", table, re.MULTILINE)
    assert [found for _, found in marked] == [found for found in NAMES if found not in skipped]
    assert {sign for sign, _ in marked} <= {"✓", "ok", "-"}
    assert sum(sign == "-" for sign, _ in marked) <= 2


def test_built_cells_are_checked_at_their_width_and_left_as_they_are(capsys):
    cell = keras_seq.GRUCell(4, recurrent_dropout=0.25, name="mine")
    cell.build((None, 2))
    before = [w.copy() for w in cell.get_weights()], cell.get_config(), set(vars(cell))
    state = random.getstate()
    check_cell(cell, skip=NAMES[6:], verbose=True)
    assert CellUnderTest(cell).features == 2
    assert_close(cell.get_weights(), before[0], 0.0)
    assert (cell.get_config(), set(vars(cell))) == before[1:]
    assert random.getstate() == state
    assert len(re.findall(r"^  \S+ +\d+\.\d s ", capsys.readouterr().out, re.MULTILINE)) == 6
    unbuilt = keras_seq.GRUCell(4)
    check_cell(unbuilt, skip=NAMES[2:])
    assert not unbuilt.built


def test_what_no_gradient_reaches_is_said(capsys):
    check_cell(keras_seq.ARCell(2), skip=[n for n in NAMES if n != "finite differences"])
    assert "no gradient reaches the inputs" in capsys.readouterr().out


# -- cells that are wrong ------------------------------------------------------------------------------------------------

# what is slow, and finds none of these but those that are to be found by it
LEFT_OUT = [
    "checkpoint, truncate",
    "eager, graph, XLA",
    "dropout",
    "masked run",
    "Keras's loop, masked",
    "any size",
    "learned initial states",
]


@pytest.mark.parametrize(("make", "name", "found"), WRONG, ids=lambda v: getattr(v, "__name__", None))
def test_wrong_cells_fail_by_name(make, name, found, capsys):
    cell = make(4)
    with pytest.raises(AssertionError) as caught:
        check_cell(cell, skip=[n for n in LEFT_OUT if n != name])
    message = str(caught.value)
    assert message.startswith(f"{type(cell).__name__} fails the check {name!r}")
    assert found in message
    assert caught.value.__cause__ is not None
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.match(rf"  (✗|FAILED) {re.escape(name)}: ", last)


def test_skipped_checks_are_left_out(capsys):
    check_cell(WrongGradient(4), skip=["finite differences", *NAMES[12:], *LEFT_OUT[:2]])
    assert "finite differences" not in capsys.readouterr().out


# -- faults of the engine, which no cell can have -------------------------------------------------------------------------


def run_check(name, cell, constants=()):
    (check,) = (c for c in CHECKS if c.name == name)
    return check.run(CellUnderTest(cell, constants=constants))


def check_found(name, cell, found):
    with pytest.raises(AssertionError, match=re.escape(found)):
        run_check(name, cell)


def proxy(**changed):
    names = {name: getattr(rnn.engine, name) for name in dir(rnn.engine)}
    return type("proxy", (), {**names, **{k: staticmethod(v) for k, v in changed.items()}})


def test_a_wrong_backward_pass_is_found(monkeypatch):
    for name in ("Keras's loop", "Keras's loop, masked", "finite differences"):
        run_check(name, keras_seq.GRUCell(4))
    outer = loop.outer
    monkeypatch.setattr(loop, "outer", lambda *args: 1.001 * outer(*args))
    check_found("Keras's loop", keras_seq.GRUCell(4), "the gradient of weight 'gru_cell")
    check_found("Keras's loop, masked", keras_seq.GRUCell(4), "the gradient of weight 'gru_cell")
    check_found("finite differences", keras_seq.GRUCell(4), "recurrent_kernel' along a random direction")


def test_a_mask_off_by_one_is_found(monkeypatch):
    run_check("masked run", keras_seq.GRUCell(4))
    scan = rnn.engine.scan

    def shifted(project, step, inputs, states, constants, weights, mask, **flags):
        mask = None if mask is None else tf.roll(mask, 1, axis=1)
        return scan(project, step, inputs, states, constants, weights, mask, **flags)

    monkeypatch.setattr(rnn, "engine", proxy(scan=shifted))
    check_found("masked run", keras_seq.GRUCell(4), "of mask [1 0 1 1 0]")


@pytest.mark.parametrize("make", [lambda: keras_seq.ElmanCell(4), lambda: keras_seq.JordanCell(4, 2)])
def test_a_gradient_through_blocked_states_is_found(make, monkeypatch):
    run_check("blocked", make())
    scan = rnn.engine.scan
    monkeypatch.setattr(
        rnn, "engine", proxy(scan=lambda *args, **flags: scan(*args, **{**flags, "detach_states": False}))
    )
    monkeypatch.setattr(ops, "stop_gradient", lambda x: x)
    check_found("blocked", make(), "has a gradient, up to")


@pytest.mark.parametrize("wrong", ["checkpoint=True", "truncate=2"])
def test_a_wrong_gradient_of_chunks_is_found(wrong, monkeypatch):
    run_check("checkpoint, truncate", keras_seq.GRUCell(4))
    backward = checkpointed._backward

    def faulty(recurrence, size, cut, *given):
        scale = 1.001 if cut == (wrong == "truncate=2") else 1.0
        return [scale * g for g in backward(recurrence, size, cut, *given)]

    monkeypatch.setattr(checkpointed, "_backward", faulty)
    check_found("checkpoint, truncate", keras_seq.GRUCell(4), f"{wrong}: the gradient of the inputs: differs by")


def test_an_export_of_something_else_is_found(monkeypatch):
    export = keras.Model.export

    def changed(model, *args, **kwargs):
        weights = model.get_weights()
        model.set_weights([w + 0.001 for w in weights])
        export(model, *args, **kwargs)
        model.set_weights(weights)

    monkeypatch.setattr(keras.Model, "export", changed)
    check_found("saved model", keras_seq.GRUCell(4), "(b, t) = (4, 5): outputs: differs by")


# -- arguments, and the tools ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cell": keras.layers.LSTMCell(4)}, TypeError, "cell: expected a keras_seq.Cell, got <LSTMCell"),
        ({"features": 0}, ValueError, "features: expected a positive integer"),
        (
            {"constants": [(None, 2)]},
            ValueError,
            "constants: expected a shape for each of (), which Plain reads, got 1",
        ),
        ({"cell": ReaderCell()}, ValueError, "('memory', 'kernel', 'count'), which ReaderCell reads, got 0"),
        ({"constants": [3]}, TypeError, "constants: expected shapes, or a keras.Input for another type, got 3"),
        ({"skip": ["speed"]}, ValueError, "skip: expected some of ['config', "),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        check_cell(**{"cell": Plain(4), **arguments})


def test_on_another_backend_it_says_so():
    code = "import keras_seq, keras_seq.testing as t; t.check_cell(keras_seq.GRUCell(4))"
    root = pathlib.Path(__file__).parents[2]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "RuntimeError: check_cell: expected Keras on the TensorFlow backend, got 'jax'" in done.stderr


def test_settings_reach_inner_cells_and_nothing_else():
    inner = keras_seq.GRUCell(4, dropout=0.5, kernel_initializer=keras.initializers.RandomUniform(seed=3))
    subject = CellUnderTest(keras_seq.ConditionedCell(inner), constants=[(None, 2)])
    before = copy.deepcopy(subject.config)
    cell = subject.cell("mixed_float16", recurrent_dropout=0.25)
    assert (cell.dropout, cell.cell.dropout, cell.cell.recurrent_dropout) == (0.0, 0.0, 0.25)
    assert (cell.dtype_policy.name, cell.cell.dtype_policy.name) == ("mixed_float16", "mixed_float16")
    assert cell.cell.kernel_initializer.seed == 3
    assert subject.config == before == json.loads(json.dumps(before))
