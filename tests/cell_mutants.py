"""Mutants of the cells: where something changes and how, and in which cases a check must see it."""

from cases import BUILT_IN, CASES, KINDS
from mutants import argument, call, calls, choice, constant, display, item, loop, op, statement

import keras_seq
from keras_seq.cells import lstm, narx


def cell_of(case):
    """The cell of ours in a case."""
    cell = case().cell
    return getattr(cell, "cell", cell)


CELLS = {case.name: cell_of(case) for case in BUILT_IN}
ANY = object()


def having(**wanted):
    """The cases whose cell has these attributes: an equal one, any at all, or for `bool` one that is true."""

    def fits(cell):
        for name, value in wanted.items():
            found = getattr(cell, name, None)
            if not (found is not None if value is ANY else bool(found) if value is bool else found == value):
                return False
        return True

    return [c for c in BUILT_IN if fits(CELLS[c.name])]


def reading(*words):
    """The cases of attention whose names have these words."""
    return [c for c in BUILT_IN if all(word in c.name for word in ("Attention", *words))]


def layers(*names):
    return [c for c in BUILT_IN if c.layer in names]


LSTM, GRU, NARX = keras_seq.LSTMCell, keras_seq.GRUCell, keras_seq.NARXCell
JORDAN, READOUT, ATTENTION = keras_seq.JordanCell, keras_seq.ReadoutCell, keras_seq.AttentionCell
OPEN_NARX = [c for c in layers("NARX", "AR") if not c.arguments.get("closed")]
TAPPED_NARX = [c for c in KINDS if c.layer == "NARX"]
OPEN_JORDAN = [c for c in layers("Jordan") if c.targets]
READING_OUT = [c for c in layers("SimpleRNN", "Elman") if CELLS[c.name].outputs]
GRUS = [c for c in CASES if c.gated is GRU]
NORMALISED = [c for c in layers("LSTM") if CELLS[c.name].normalize]

# owner, name of the function, cases, and [(place, change)]
GROUPS = [
    (LSTM, "step", having(peepholes=True, output_gate=True), [(call(None, "output"), argument(1, "states[1]"))]),
    (LSTM, "step", having(coupled=True), [(op("-", 1, "forget"), "{1}")]),
    (LSTM, "step", having(forget_gate=True), [(op("*", "forget"), "{1}")]),
    (LSTM, "step", having(input_gate=True), [(op("*", "input"), "{1}")]),
    (LSTM, "step", having(output_gate=True), [(op("*", "output"), "{1}")]),
    (
        LSTM,
        "step",
        having(cell_clip=bool),
        [(call("clip"), "{0}"), (call("clip"), argument(1, "-99.0")), (call("clip"), argument(2, "99.0"))],
    ),
    (
        LSTM,
        "step",
        NORMALISED,
        [
            (op("*", "recurrent_gain"), "{0}"),
            (call(None, within=op("*", "recurrent_gain")), "{0}"),
            (op("*", "cell_gain"), "{0}"),
            (op("+", "cell_bias"), "{0}"),
            (call(None, within=op("*", "cell_gain")), "{0}"),
        ],
    ),
    (
        LSTM,
        "project",
        NORMALISED,
        [(op("*", "input_gain"), "{0}"), (call(None, nth=0, within=op("*", "input_gain")), "{0}")],
    ),
    (lstm, "_normalized", NORMALISED, [(constant(1e-5), "1e-3")]),
    (LSTM, "step", having(projection=bool), [(call("dot", "projection_kernel"), "{0}[:, : self.projection]")]),
    (LSTM, "step", having(candidate_activation=bool), [(op("or", "candidate_activation"), "{1}")]),
    (LSTM, "step", having(cell_activation=bool), [(op("or", "cell_activation"), "{1}")]),
    (
        LSTM,
        "step",
        having(full_gate_recurrence=True),
        [
            (statement(within=loop()), "pass"),
            (call("concatenate"), argument(0, "{}[::-1]")),
            (item("state_names", 2), "{0}[:1:-1]"),
            (call("zip", "sigmoid_gates"), argument(0, "{}[::-1]")),
        ],
    ),
    (GRU, "step", having(reset_after=ANY), [(op("+", op("-", 1)), "{1.0} * {0.1} + {0.0} * {1.1}")]),
    (GRU, "step", having(reset_after=True, use_bias=True), [(op("+", "bias"), "{0}")]),
    # the reset gate acts at the other place: before the product, or after it
    (
        GRU,
        "step",
        [c for c in GRUS if CELLS[c.name].reset_after],
        [
            (
                op("*", within=call("activation", nth=0)),
                "dot({0} * states[0], self.recurrent_kernel[:, 2 * self.units :])"
                " + (0 if self.bias is None else self.bias[1][2 * self.units :])",
            )
        ],
    ),
    (
        GRU,
        "step",
        [c for c in GRUS if not CELLS[c.name].reset_after],
        [(call("dot", within=call("activation")), "{0.0} * dot({0.1}, {1})")],
    ),
    (keras_seq.SimpleRNNCell, "step", layers("SimpleRNN", "Elman"), [(op("+", "recurrent_kernel"), "{0} - {1}")]),
    (READOUT, "readout", READING_OUT, [(call("output"), "{0.0}[..., : self.outputs]")]),
    (READOUT, "output", having(has_readout=True, use_bias=True), [(op("+", "output_bias"), "{0}")]),
    (
        READOUT,
        "output",
        [c for c in having(has_readout=True) if "output_activation" in c.arguments],
        [(call("output_activation"), "{0}")],
    ),
    (
        NARX,
        "predict",
        [c for c in layers("NARX") if "output_activation" in c.arguments],
        [(call("output_activation"), "{0}")],
    ),
    (JORDAN, "predict", layers("Jordan"), [(call("output"), "{0.0}[:, : self.outputs]")]),
    (
        JORDAN,
        "feed",
        having(decay=bool),
        [
            (op("+", "decay"), "{1.0} * {0.1} + {0.0} * {1.1}"),
            (op("*", "decay", 1), "{1}"),
            (op("*", "decay", 1), "{0} * states[0]"),
        ],
    ),
    (
        JORDAN,
        "states_before",
        OPEN_JORDAN,
        [(op("*", "decay", 1), "self.decay * {1}"), (call("concatenate"), "{0.1.0}")],
    ),
    (keras_seq.ResidualRNNCell, "step", layers("ResidualRNN"), [(op("+", nth=1), "{1}")]),
    (keras_seq.ResidualRNNCell, "states_before", having(recurrent=False), [(call("concatenate"), "{0.1.0}")]),
    (keras_seq.MinGRUCell, "coefficients", layers("MinGRU"), [(op("-"), "{1}"), (op("*"), "{1}")]),
    (
        keras_seq.MinLSTMCell,
        "coefficients",
        layers("MinLSTM")[:1],
        [(op("-", "log_sigmoid"), "{1} - {0}"), (op("*"), "{1}")],
    ),
    (keras_seq.LinearRNNCell, "step", having(stable=True), [(op("*"), "{1}")]),
    (keras_seq.LRUCell, "step", layers("LRU"), [(op("-"), "{0} + {1}")]),
    (keras_seq.LRUCell, "multiplier", layers("LRU"), [(call("cos"), calls("ops.sin")), (op("neg"), "{0}")]),
    (keras_seq.LRUCell, "_driven", layers("LRU"), [(op("*"), "{1}")]),
    (
        keras_seq.FeedbackCell,
        "step",
        [c for c in CASES if c.targets and c.layer != "NARX"],
        [(choice("targets"), "{0}")],
    ),
    (
        NARX,
        "feed",
        [c for c in layers("NARX", "AR") if CELLS[c.name].delays > 1],
        [(call("concatenate"), "ops.concatenate([{0.1.0}[:, {0.0}.shape[-1] :], {0.0}], axis=-1)")],
    ),
    (NARX, "project", TAPPED_NARX, [(item("kernel"), "{0}[-self.features :]")]),
    (
        NARX,
        "project",
        [c for c in layers("NARX", "AR") if CELLS[c.name].network is None and CELLS[c.name].use_bias],
        [(op("+", "bias"), "{0}")],
    ),
    (NARX, "predict", TAPPED_NARX, [(display("recurrent_kernel"), "[{1}, {0}]")]),
    (NARX, "predict", having(network=bool), [(display(within=call("network")), "[{1}, {0}]")]),
    (narx, "_taps", having(network=bool), [(item(op("*")), "{0}[:, 0:width]")]),
    (
        narx,
        "_windows",
        OPEN_NARX,
        [(call("range", nth=0), "reversed({})"), (call("range", nth=1), "reversed({})")],
    ),
    (
        keras_seq.ConditionedCell,
        "step",
        [c for c in BUILT_IN if c.cell and "Conditioned" in c.name],
        [(op("+"), "{0}")],
    ),
    (
        ATTENTION,
        "step",
        reading("input_feeding"),
        [
            (display(within=call("concatenate")), "[{1}, {0}]"),
            (display(within=choice("input_feeding", nth=1)), "({0}, ops.zeros_like({1}))"),
        ],
    ),
    (ATTENTION, "step", reading("units=5"), [(call("attend", "states"), argument(0, "states[1]"))]),
    (
        ATTENTION,
        "read",
        [c for c in reading() if "score" not in c.name],
        [(op("+", within=call("tanh")), "{0} - {1}")],
    ),
    (ATTENTION, "read", reading("multi_head"), [(op("**"), "1.0")]),
]
MUTANTS = [(owner, name, place, change, cases) for owner, name, cases, changes in GROUPS for place, change in changes]
