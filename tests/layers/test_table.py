"""Every public layer and cell is in the table of cases."""

import inspect
import re

import conformance
import keras
import pytest

import keras_seq
from keras_seq.arguments import arguments

AROUND = {"AttentionCell", "ConditionedCell"}
ABSTRACT = {"Cell", "GatedCell", "ReadoutCell", "FeedbackCell"}


def test_every_public_memory_is_in_the_table():
    covered = set(ABSTRACT)
    for case in conformance.CASES:
        layer = case()
        covered.add(case.layer)
        found = [layer.cell, getattr(layer.cell, "cell", None)]
        covered.update(type(cell).__name__ for cell in found if cell is not None)
    public = {name: getattr(keras_seq, name) for name in keras_seq.__all__}
    memories = (keras_seq.RNN, keras_seq.Cell)  # the other layers stand in tests/structures.py
    layers = {name for name, cls in public.items() if inspect.isclass(cls) and issubclass(cls, memories)}
    assert layers - covered == set(), "public classes without a case in tests/cases.py"


def test_abstract_cells_have_no_equations_of_their_own():
    """A step of theirs is made of what a subclass says."""
    assert all("step" not in vars(getattr(keras_seq, name)) for name in ("GatedCell", "ReadoutCell"))
    layers = [keras_seq.RNN(cls(2)) for cls in (keras_seq.GatedCell, keras_seq.ReadoutCell)]
    for layer in [*layers, keras_seq.RNN(keras_seq.FeedbackCell(2, 1))]:
        with pytest.raises(TypeError, match=r"expected a method (step|predict)\("):
            layer(keras.ops.ones((1, 3, 2)))


# held to elsewhere: widths, random numbers, starts and penalties of weights, what changes nothing; NARX refuses zoneout
ELSEWHERE = re.compile(
    "units|seed|learn_initial_state|(recurrent_)?dropout|unit_forget_bias|implementation|.*_(initi|regul|constr).*"
)


def test_every_switch_of_a_cell_is_in_the_table():
    """With a value that is not the default."""
    missing = []
    for name in (n for n in keras_seq.__all__ if n.endswith("Cell") and n not in ABSTRACT | AROUND):
        cls = getattr(keras_seq, name)
        related = [c for c in conformance.BUILT_IN if issubclass(cls, c.gated) or issubclass(c.gated, cls)]
        for switch, parameter in arguments(cls).items():
            given = [{**c.gated.settings, **c.arguments}.get(switch, parameter.default) for c in related]
            refused = switch == "zoneout" and issubclass(cls, keras_seq.NARXCell)
            if not ELSEWHERE.fullmatch(switch) and not refused and all(v == parameter.default for v in given):
                missing.append((name, switch))
    assert missing == []


def test_every_switch_of_attention_is_in_the_table():
    cells = [c("float32") for c in (case.cell for case in conformance.CASES) if c and "Attention" in c.__name__]
    for switch, parameter in arguments(keras_seq.AttentionCell).items():
        if switch not in ("cell", *arguments(keras_seq.Cell)) and not ELSEWHERE.fullmatch(switch):
            assert any(getattr(cell, switch) != parameter.default for cell in cells), switch
    assert {cell.score for cell in cells} == {"additive", "dot", "general", "multi_head"}


def test_names_of_the_cases_are_distinct():
    names = [case.name for case in conformance.CASES]
    assert len(set(names)) == len(names)
