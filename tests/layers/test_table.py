"""Every public layer and cell is in the table of cases."""

import inspect

import conformance
import keras

import keras_seq

ABSTRACT = {"Cell", "GatedCell", "ReadoutCell", "FeedbackCell"}
PENDING = {n + s for n in ("AR", "NARX", "Elman", "Jordan", "ResidualRNN") for s in ("", "Cell")}


def test_every_public_layer_and_cell_is_in_the_table():
    covered = set(ABSTRACT)
    for case in conformance.CASES:
        layer = case()
        covered.add(case.layer)
        found = [layer.cell, getattr(layer.cell, "cell", None)]
        covered.update(type(cell).__name__ for cell in found if cell is not None)
    public = {name: getattr(keras_seq, name) for name in keras_seq.__all__}
    layers = {name for name, cls in public.items() if inspect.isclass(cls) and issubclass(cls, keras.layers.Layer)}
    assert layers - covered - PENDING == set(), "public classes without a case in tests/conformance.py"


def test_abstract_cells_have_no_step_of_their_own():
    assert all("step" not in vars(getattr(keras_seq, name)) for name in ABSTRACT - {"Cell", "FeedbackCell"})


def test_names_of_the_cases_are_distinct():
    names = [case.name for case in conformance.CASES]
    assert len(set(names)) == len(names)
