"""Faults to make in the cells: what to write in place of what, and in which cases a check must see it."""

from cases import BUILT_IN, CASES, KINDS

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


LSTM = keras_seq.LSTMCell
OPEN_NARX = [c for c in layers("NARX", "AR") if not c.arguments.get("closed")]
TAPPED_NARX = [c for c in KINDS if c.layer == "NARX"]
OPEN_JORDAN = [c for c in layers("Jordan") if c.targets]

# owner, name of the function, cases, and [(what is there, what to write)]
GROUPS = [
    (LSTM, "step", having(peepholes=True, output_gate=True), [('gate("output", c)', 'gate("output", states[1])')]),
    (LSTM, "step", having(coupled=True), [('1 - gates["forget"]', 'gates["forget"]')]),
    (LSTM, "step", having(forget_gate=True), [('gates["forget"] * c if', "c if")]),
    (LSTM, "step", having(input_gate=True), [('gates["input"] * g if', "g if")]),
    (LSTM, "step", having(output_gate=True), [('gates["output"] * h if', "h if")]),
    (
        LSTM,
        "step",
        having(cell_clip=bool),
        [
            ("ops.clip(c, -self.cell_clip, self.cell_clip)", "c"),
            ("ops.clip(c, -self.cell_clip,", "ops.clip(c, -99.0,"),
            ("-self.cell_clip, self.cell_clip)", "-self.cell_clip, 99.0)"),
        ],
    ),
    (
        LSTM,
        "step",
        having(normalize=True),
        [
            ("* self.recurrent_gain", ""),
            ("_normalized(recurrent)", "recurrent"),
            ("* self.cell_gain", ""),
            ("+ self.cell_bias", ""),
            ("_normalized(c)", "c"),
        ],
    ),
    (LSTM, "project", having(normalize=True), [("* self.input_gain", ""), ("_normalized(", "(")]),
    (lstm, "_normalized", having(normalize=True), [("1e-5", "1e-3")]),
    (
        LSTM,
        "step",
        having(projection=bool),
        [("dot(h, self.projection_kernel, dropout=False)", "h[:, : self.projection]")],
    ),
    (
        LSTM,
        "step",
        having(candidate_activation=bool),
        [("(self.candidate_activation or self.activation)", "self.activation")],
    ),
    (LSTM, "step", having(cell_activation=bool), [("(self.cell_activation or self.activation)", "self.activation")]),
    (
        LSTM,
        "step",
        having(full_gate_recurrence=True),
        [
            ("parts[name] = parts[name] + part", "pass"),
            ("concatenate(last_gates", "concatenate(last_gates[::-1]"),
            ("in self.states[2:]", "in self.states[:1:-1]"),
            ("zip(self.sigmoid_gates, ops", "zip(self.sigmoid_gates[::-1], ops"),
        ],
    ),
    (
        keras_seq.GRUCell,
        "step",
        having(reset_after=ANY),
        [("h = z * h + (1 - z) * g", "h = (1 - z) * h + z * g")],
    ),
    (
        keras_seq.GRUCell,
        "step",
        having(reset_after=True, use_bias=True),
        [("recurrent + self.bias[1]", "recurrent")],
    ),
    (keras_seq.SimpleRNNCell, "step", layers("SimpleRNN", "Elman"), [("projected + dot", "projected - dot")]),
    (
        keras_seq.ReadoutCell,
        "readout",
        [c for c in layers("SimpleRNN", "Elman") if CELLS[c.name].outputs],
        [("self.output(ops.matmul(outputs, self.output_kernel))", "outputs[..., : self.outputs]")],
    ),
    (
        keras_seq.ReadoutCell,
        "output",
        having(has_readout=True, use_bias=True),
        [("product + self.output_bias", "product")],
    ),
    (
        keras_seq.ReadoutCell,
        "output",
        [c for c in having(has_readout=True) if "output_activation" in c.arguments],
        [("self.output_activation(", "(")],
    ),
    (
        keras_seq.NARXCell,
        "predict",
        [c for c in layers("NARX") if "output_activation" in c.arguments],
        [("self.output_activation(total)", "total")],
    ),
    (
        keras_seq.JordanCell,
        "predict",
        layers("Jordan"),
        [("self.output(dot(h, self.output_kernel, dropout=False))", "h[:, : self.outputs]")],
    ),
    (
        keras_seq.JordanCell,
        "feed",
        having(decay=bool),
        [
            ("self.decay * m + (1 - self.decay) * output", "(1 - self.decay) * m + self.decay * output"),
            ("(1 - self.decay) * output", "output"),
            ("* output", "* m"),
        ],
    ),
    (
        keras_seq.JordanCell,
        "history",
        OPEN_JORDAN,
        [
            ("(1 - self.decay) * targets", "self.decay * targets"),
            ("ops.concatenate([m[None], after[:-1]], axis=0)", "after"),
        ],
    ),
    (keras_seq.ResidualRNNCell, "step", layers("ResidualRNN"), [("h = h + candidate", "h = candidate")]),
    (
        keras_seq.ResidualRNNCell,
        "history",
        having(recurrent=False),
        [("ops.concatenate([h[None], after[:-1]], axis=0)", "after")],
    ),
    (
        keras_seq.FeedbackCell,
        "step",
        [c for c in CASES if c.targets and c.layer != "NARX"],
        [("output if targets is None else targets", "output")],
    ),
    (
        keras_seq.NARXCell,
        "feed",
        [c for c in layers("NARX", "AR") if CELLS[c.name].delays > 1],
        [
            (
                "ops.concatenate([new, window[:, : -new.shape[-1]]], axis=-1)",
                "ops.concatenate([window[:, new.shape[-1] :], new], axis=-1)",
            )
        ],
    ),
    (
        keras_seq.NARXCell,
        "project",
        TAPPED_NARX,
        [("self.kernel[: self.features]", "self.kernel[-self.features :]")],
    ),
    (
        keras_seq.NARXCell,
        "project",
        [c for c in layers("NARX", "AR") if CELLS[c.name].network is None and CELLS[c.name].use_bias],
        [("total + self.bias", "total")],
    ),
    (
        keras_seq.NARXCell,
        "predict",
        TAPPED_NARX,
        [("[*kernels, self.recurrent_kernel]", "[self.recurrent_kernel, *kernels]")],
    ),
    (keras_seq.NARXCell, "predict", having(network=bool), [("[*now, *taps]", "[*taps, *now]")]),
    (narx, "_taps", having(network=bool), [("(d - 1) * width : d * width", "0 : width")]),
    (
        narx,
        "_windows",
        OPEN_NARX,
        [
            ("range(1, depth + 1)", "range(depth, 0, -1)"),
            ("range(first.shape[-1] - width, -1, -width)", "range(0, first.shape[-1], width)"),
        ],
    ),
    (
        keras_seq.ConditionedCell,
        "step",
        [c for c in BUILT_IN if c.cell and "Conditioned" in c.name],
        [("projected + term", "projected")],
    ),
    (
        keras_seq.AttentionCell,
        "step",
        reading("input_feeding"),
        [("[context, output]", "[output, context]"), ("(*new, output)", "(*new, attended)")],
    ),
    (
        keras_seq.AttentionCell,
        "step",
        reading("units=5"),
        [("self.attend(states[0]", "self.attend(states[1]")],
    ),
    (
        keras_seq.AttentionCell,
        "read",
        [c for c in reading() if "score" not in c.name],
        [("ops.expand_dims(keys, 1) + asked", "ops.expand_dims(keys, 1) - asked")],
    ),
    (keras_seq.AttentionCell, "read", reading("multi_head"), [("self.head_size**-0.5", "1.0")]),
]
FAULTS = [(owner, name, old, new, cases) for owner, name, cases, changes in GROUPS for old, new in changes]
