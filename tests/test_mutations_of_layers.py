"""Faults made on purpose in the layers made of others, in convolutions, streams and configurations."""

import pathlib
import tempfile

import pytest
from conformance import Case
from mutants import (
    argument,
    call,
    calls,
    caught,
    choice,
    crashes,
    display,
    home,
    item,
    module,
    mutate,
    named,
    negated,
    op,
    suite,
    without,
)
from structures import STRUCTURES

import keras_seq
from keras_seq import (
    TCN,
    TDNN,
    Bidirectional,
    MaskedMax,
    MaskedMean,
    Stacked,
    StepForm,
    Stream,
    WaveNet,
    arguments,
    masking,
)
from keras_seq.engine.tensorflow import strategy
from keras_seq.layers import cell_layer, rewriting, ring, streamable, sublayers

pytestmark = [
    pytest.mark.deep,
    pytest.mark.mutation,
    pytest.mark.filterwarnings("ignore:.*receptive field", "ignore:.*does not support masking"),
]


def structure(test, name, *given):
    (found,) = (s for s in STRUCTURES if s.name == name)
    return suite(f"layers/test_structures.py::{test}", found, *given)


def values(name):
    return structure("test_values_are_those_of_the_equations", name, True)


def plain(name):
    return structure("test_values_are_those_of_the_equations", name, False)


def steps(name, masked=True):
    return structure("test_steps_are_the_sequence", name, masked)


RING = suite("layers/test_ring.py::test_what_was_written_is_read", 3, True)


def config(name):
    return structure("test_configs", name)


def inputs(test, *given):
    return suite(f"layers/test_structure_inputs.py::{test}", *given)


def wrong(beginning):
    known = module("layers/test_structure_inputs.py").WRONG
    (message,) = (m for m in known if m.startswith(beginning))
    return inputs("test_wrong_arguments_are_named", message)


def streams(test, *given):
    return suite(f"layers/test_streaming.py::{test}", *given)


def refused(message):
    return streams("test_models_that_cannot_be_streamed_are_refused_by_name", message)


def composed(test, *given):
    return suite(f"layers/test_composition.py::{test}", *given)


def last(name):
    return composed("test_the_last_output_is_that_of_the_last_real_step", name)


REVERSED = composed("test_masks_are_one_for_each_output", True, False)
INTERNALS = composed("test_internals_without_sequences_are_at_masked_steps_what_sequences_would_be", {})
MASKED_STEP = streams("test_a_step_form_reads_the_mask_of_its_sequence", True)
STATEFUL = {kind: inputs("test_stateful_stacks", kind) for kind in ("stack", "both ways", "one both ways")}
ENDED = inputs("test_a_mask_ends_where_time_does")
STATES = inputs("test_states_are_one_flat_list")
DROPPED = inputs("test_dropout_lies_between_the_layers_only")
CHANNELS = inputs("test_dropout_of_channels")
FIELDS = inputs("test_receptive_fields")
MU_LAW = inputs("test_mu_law")
FOLDER = tempfile.TemporaryDirectory()
WHOLE = streams("test_steps_of_a_model_are_the_model", "branches", pathlib.Path(FOLDER.name))
STEP_FLAGS = suite("layers/test_steps.py::test_flags", Case("GRU"), {"zero_output_for_mask": True})
SAVED = "layers/test_saving.py::test_every_argument_survives_the_config"

MUTANTS = [
    # stacks
    (Stacked, "_apply_layers", op("and", "dropout"), "{1} and {2}", [DROPPED]),
    (
        Stacked,
        "_apply_layers",
        call("concatenate", nth=0),
        "ops.concatenate([{0.1}, {0.0}], axis=-1)",
        [values("Stacked-dense")],
    ),
    (Stacked, "_apply_layers", op("and", "residual"), "{0}", [plain("Stacked-residual-zeros")]),
    (Stacked, "_apply_layers", op("+"), "{1}", [values("Stacked-residual")]),
    (Stacked, "_apply_layers", call("last_real", nth=0), "{0}[:, -1]", [values("Stacked-residual-zeros")]),
    (Stacked, "_apply_layers", call("last_real", nth=1), "{0}[:, -1]", [values("Stacked-dense-zeros")]),
    (Stacked, "_apply_layers", call("mask_after"), "{2}", [crashes(values("Stacked-splices"))]),
    (
        Stacked,
        "unchecked_step",
        op("and", "zeros"),
        "{0}",
        [steps("Stacked-residual-zeros"), steps("Stacked-dense-zeros")],
    ),
    (Stacked, "_apply_layers", call("extend"), argument(0, "{}[::-1]"), [STATES]),
    (
        Stacked,
        "initial_state",
        item("count", nth=1),
        "{0}",
        [crashes(inputs("test_steps_begin_in_the_states_that_they_are_given"))],
    ),
    (Stacked, "reset_state", choice("stateful"), negated, [STATEFUL["stack"]]),
    (
        Stacked,
        "get_config",
        display("seed"),
        without("seed"),
        [inputs("test_a_stack_of_a_seed_drops_the_same_after_its_config")],
    ),
    (Stacked, "get_config", display("skips"), without("skips"), [config("Stacked-residual")]),
    (Stacked, "get_config", display("return_state"), without("return_state"), [config("Stacked-dense-last")]),
    # both directions
    (Bidirectional, "_read_backwards", choice("go_backwards"), negated, [plain("Bidirectional-LSTM")]),
    (Bidirectional, "_read_backwards", choice("return_sequences"), "{1}", [plain("Bidirectional-LSTM")]),
    (Bidirectional, "_read_backwards", call("flip", "mask"), "{0}", [values("Bidirectional-LSTM")]),
    (Bidirectional, "call", display("states", "further", nth=0), "({0}, {2}, {1})", [plain("Bidirectional-LSTM")]),
    (Bidirectional, "call", display(within=call("_merge")), "({1}, {0})", [plain("Bidirectional-two-kinds")]),
    (Bidirectional, "reset_state", choice("stateful"), negated, [STATEFUL["both ways"], STATEFUL["one both ways"]]),
    (Bidirectional, "stateful", call("getattr"), "False", [STATEFUL["both ways"], STATEFUL["one both ways"]]),
    (Bidirectional, "compute_mask", choice("return_sequences"), "{0}", [ENDED]),
    (Bidirectional, "get_config", choice("callable"), "'concat'", [config("Bidirectional-mul")]),
    (
        Bidirectional,
        "get_config",
        call("serialize_keras_object", "backward_layer"),
        argument(0, "self.forward_layer"),
        [config("Bidirectional-two-kinds")],
    ),
    (
        home(Bidirectional),
        "_like",
        choice(op("==", "stateful")),
        "{1}",
        [crashes(s) for s in list(STATEFUL.values())[1:]],
    ),
    # a layer's call and its states
    (masking, "last_real", op("-", 1), "{0} - 2", [values("LastStep")]),
    (masking, "last_real", op(">"), "{0} >= {1}", [values("LastStep")]),
    (sublayers, "from_widths", op("<"), "{0} <= {1}", [inputs("test_a_stack_from_widths_is_the_stack_of_the_layers")]),
    (sublayers, "checked_states", op("or"), "{1}", [wrong("initial_state: expected 3 tensors")]),
    (masking, "where_rows", call("where"), "{1}", [steps("Stacked-LSTM-GRU")]),
    (streamable.Streamable, "unchecked_step", choice("zeros"), "{1}", [STEP_FLAGS]),
    (streamable.Streamable, "unchecked_step", op("and", "return_sequences"), "{0} and {1}", [last("loop")]),
    (keras_seq.RNN, "compute_mask", call("flip"), "{0}", [REVERSED]),
    (keras_seq.RNN, "_run", call("last_real"), "{0}[:, -1]", [INTERNALS]),
    (keras_seq.RNN, "_read_out", op("and", "_every_step"), "{0}", [last("readout")]),
    (keras_seq.RNN, "_loop_of_keras", op("and", "_every_step"), "{0}", [last("unroll")]),
    (strategy, "scan", op("and", "return_sequences"), "{0}", [last("loop")]),
    (streamable.Streamable, "unchecked_step", call("where"), "{1}", [steps("Stacked-LSTM-GRU")]),
    (
        masking,
        "over_real_steps",
        op(">", nth=0, within=choice("zero_output")),
        "{0} >= {1}",
        [values("TDNN-delays")],
    ),
    (masking, "over_real_steps", call("where", op("+")), "ops.where({0}, {2}, {1})", [values("TDNN-delays")]),
    (masking, "over_real_steps", call("where", call("zeros_like"), nth=0), "{1}", [values("TDNN-splice")]),
    (
        masking,
        "skipped_mask",
        call("less"),
        calls("ops.less_equal"),
        [inputs("test_every_other_step_of_a_masked_model", 7)],
    ),
    # pooling
    (MaskedMean, "call", op("/"), "{0} / sequences.shape[1]", [values("MaskedMean")]),
    (MaskedMean, "update", op("/"), "{0}", [steps("MaskedMean")]),
    (MaskedMax, "call", call("where", nth=-1), "{1}", [values("MaskedMax")]),
    (MaskedMax, "update", call("where"), "{1}", [steps("MaskedMax")]),
    # convolutions
    (TDNN, "every_step", op("+", "distances"), "{0}", [plain("TDNN-ahead")]),
    (TDNN, "every_step", call("conv"), argument("dilation_rate", "1"), [plain("TDNN-past")]),
    (TDNN, "step_states", display("delayed", "seen"), "[{1}, {0}]", [steps("TDNN-uneven")]),
    (TDNN, "_weights", op("/"), "{0}", [plain("TDNN-uneven")]),
    (TDNN, "receptive_field", op("+"), "{0}", [FIELDS]),
    (ring, "read", op("-"), "{1} - 1", [RING]),
    (ring, "write", choice("mask", within=op("+", 1)), "{0}", [RING]),
    (ring, "write", call("where", call("expand_dims")), "{1}", [RING]),
    (ring, "write", call("_chosen"), "vectors", [RING]),
    (ring, "_chosen", call("logical_and"), "{0}", [RING]),
    (ring, "_chosen", op("-"), "{0} - {1} + 1", [RING]),
    (ring, "_wrapped", call("greater_equal"), calls("ops.greater"), [crashes(RING)]),
    (TCN, "_apply_layers", call("_dropped", nth=1), "{0}", [CHANNELS]),
    (TCN, "_apply_layers", op("+"), "{0}", [plain("TCN")]),
    (TCN, "_apply_layers", call("activation"), "{0}", [plain("TCN")]),
    (TCN, "_dropped", display(1), "ops.shape(x)", [CHANNELS]),
    (TCN, "receptive_field", op("-"), "{0}", [FIELDS]),
    (WaveNet, "_apply_layers", call("tanh"), calls("ops.sigmoid"), [plain("WaveNet")]),
    (WaveNet, "_apply_layers", call("relu", call("first")), "{0}", [plain("WaveNet")]),
    (WaveNet, "_apply_layers", op("<"), "{0} < {1} - 1", [plain("WaveNet")]),
    (home(WaveNet), "mu_law_encode", op("+", 1), "{0}", [MU_LAW]),
    (home(WaveNet), "mu_law_decode", op("+"), "{1}", [MU_LAW]),
    # streams of whole models
    (rewriting, "_along_features", call("getattr"), "-1", [refused("a Softmax, of which")]),
    (StepForm, "call", item("mask", nth=0), "mask[-1]", [MASKED_STEP]),
    (StepForm, "compute_mask", choice("return_sequences"), "{1}", [MASKED_STEP]),
    (rewriting.Rewriting, "rewrite", op("not in"), "True", [WHOLE]),
    (rewriting.Rewriting, "_sequence_layer", choice("return_sequences"), "{0}", [refused("got both")]),
    (rewriting.Rewriting, "_sequence_layer", choice("getattr"), negated, [crashes(WHOLE)]),
    (rewriting.Rewriting, "_call", call("any"), "False", [refused("got both")]),
    (Stream, "_step", choice("t"), "{1}", [crashes(WHOLE)]),
    (Stream, "reset", call("where_rows"), "{2}", [streams("test_rows_begin_and_end_on_their_own", "to_one")]),
    # configurations
    (keras_seq.RNN, "get_config", display("truncate"), without("truncate"), [suite(SAVED, "LSTM")]),
    (
        keras_seq.NARX,
        "get_config",
        display("closed", nth=0),
        without("closed"),
        [suite("layers/test_saving.py::test_a_network_survives_the_config", True)],
    ),
    (
        cell_layer.CellLayer,
        "get_config",
        call("arguments"),
        "[n for n in {} if n != 'activation']",
        [suite(SAVED, "GRU")],
    ),
    (arguments, "described", call("arguments"), "[n for n in {} if n != 'seed']", [suite(SAVED, "GRUCell")]),
]
# they change nothing that anyone can see
EQUIVALENTS = [
    (
        Stacked,
        "compute_mask",
        choice("return_sequences"),
        "{0}",
        [ENDED],
        "the last layer says None itself where it returns no sequences",
    ),
]


@pytest.mark.parametrize(**named(MUTANTS))
def test_killed(owner, name, place, change, checks, monkeypatch):
    assert checks
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        caught(check)


@pytest.mark.parametrize(**named(EQUIVALENTS))
def test_equivalents_live(owner, name, place, change, checks, monkeypatch):
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        check()
