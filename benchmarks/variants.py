"""Our memories beside our LSTM, its options, and products of the same arithmetic: what is timed."""

import dataclasses

import numpy as np
import steps
import tensorflow as tf
import timing

import keras_seq

PEEPHOLES = {"peepholes": True}
MEMORIES = {
    "LSTM": lambda u, **f: keras_seq.LSTM(u, **f),
    "SimpleRNN": lambda u, **f: keras_seq.SimpleRNN(u, **f),
    "SimpleRNN, readout of u": lambda u, **f: keras_seq.SimpleRNN(u, outputs=u, **f),
    "Elman": lambda u, **f: keras_seq.Elman(u, outputs=u, **f),
    "Elman, blocked=False": lambda u, **f: keras_seq.Elman(u, outputs=u, blocked=False, **f),
    "Jordan": lambda u, **f: keras_seq.Jordan(u, u, **f),
    "Jordan, blocked=False": lambda u, **f: keras_seq.Jordan(u, u, blocked=False, **f),
    "Jordan, targets": lambda u, **f: keras_seq.Jordan(u, u, **f),
    "ResidualRNN": lambda u, **f: keras_seq.ResidualRNN(u, **f),
    "ResidualRNN, recurrent=False": lambda u, **f: keras_seq.ResidualRNN(u, recurrent=False, **f),
    "NARX(u, u), 2 delays, open": lambda u, **f: keras_seq.NARX(u, u, 2, 2, **f),
    "NARX(u, u), 2 delays, closed": lambda u, **f: keras_seq.NARX(u, u, 2, 2, closed=True, **f),
    "GRU": lambda u, **f: keras_seq.GRU(u, **f),
    "GRU, reset before": lambda u, **f: keras_seq.GRU(u, reset_after=False, **f),
    "LSTM V (peepholes)": lambda u, **f: keras_seq.PeepholeLSTM(u, **f),
    "LSTM NIG": lambda u, **f: keras_seq.LSTM(u, input_gate=False, **PEEPHOLES, **f),
    "LSTM NFG": lambda u, **f: keras_seq.LSTM(u, forget_gate=False, **PEEPHOLES, **f),
    "LSTM NOG": lambda u, **f: keras_seq.LSTM(u, output_gate=False, **PEEPHOLES, **f),
    "LSTM NIAF": lambda u, **f: keras_seq.LSTM(u, candidate_activation="linear", **PEEPHOLES, **f),
    "LSTM NOAF": lambda u, **f: keras_seq.LSTM(u, cell_activation="linear", **PEEPHOLES, **f),
    "LSTM CIFG": lambda u, **f: keras_seq.LSTM(u, coupled=True, **PEEPHOLES, **f),
    "LSTM FGR": lambda u, **f: keras_seq.LSTM(u, full_gate_recurrence=True, **PEEPHOLES, **f),
    "LSTM, layer normalisation": lambda u, **f: keras_seq.LSTM(u, normalize=True, **f),
    "LSTM, projection to u/2": lambda u, **f: keras_seq.LSTM(u, projection=u // 2, **f),
    "LSTM, clipped cell": lambda u, **f: keras_seq.LSTM(u, cell_clip=3.0, **f),
    "LSTM, recurrent dropout": lambda u, **f: keras_seq.LSTM(u, recurrent_dropout=0.1, **f),
    "LSTM, zoneout": lambda u, **f: keras_seq.LSTM(u, zoneout=0.1, **f),
    "LSTM, internals": lambda u, **f: keras_seq.LSTM(u, return_internals=True, **f),
    "own cell (README)": lambda u, **f: keras_seq.RNN(steps.MinimalGatedCell(u), **f),
}


class First:
    """A layer of which the first result counts, with further arguments of its call."""

    def __init__(self, layer, **further):
        self.layer, self.further = layer, further

    @property
    def trainable_variables(self):
        return self.layer.trainable_variables

    def __call__(self, x, training=False):
        return tf.nest.flatten(self.layer(x, training=training, **self.further))[0]


def fed(name, size):
    """A memory of the table, built, with true outputs where it wants them."""
    x, targets = steps.data(size)
    layer = MEMORIES[name](size[-1], return_sequences=True)
    layer.build(x.shape)
    return First(layer, **({"targets": targets} if "targets" in name or "open" in name else {}))


def training(layer, size, **options):
    """A function that runs a compiled training step once."""
    layer = layer if isinstance(layer, First) else First(layer, **options)
    x, cotangent = steps.data(size, layer.layer.cell.output_size)
    return steps.compiled(steps.training_step(layer, cotangent), x)[0]


@dataclasses.dataclass
class Row:
    parameters: int
    ratio: float
    times: list


def measure(size, runs, say=lambda text: None):
    """Every memory, and the LSTM before each: `{name: Row}`."""
    functions, parameters = {}, {}
    say("compiling the LSTM")
    lstm = training(fed("LSTM", size), size)
    for name in MEMORIES:
        say(f"compiling {name}")
        layer = fed(name, size)
        parameters[name] = layer.layer.count_params()
        functions[name, "beside"] = lstm
        functions[name, "own"] = training(layer, size)
    say(f"all memories at {size}")
    times = timing.in_turn(functions, runs)
    return {
        name: Row(parameters[name], min(times[name, "own"]) / min(times[name, "beside"]), times[name, "own"])
        for name in MEMORIES
    }


def with_extras(size):
    """The LSTM's training step, plain and with what a user may switch on."""
    b, t, _, u = size
    sizes = np.random.default_rng(0).integers(t // 2, t + 1, size=b)
    mask = tf.constant(np.arange(t) < sizes[:, None])

    def lstm(**arguments):
        return keras_seq.LSTM(u, return_sequences=True, **arguments)

    return {
        "plain": training(lstm(), size),
        "recurrent dropout": training(lstm(recurrent_dropout=0.2), size),
        "mask": training(lstm(), size, mask=mask),
        "reversed": training(lstm(go_backwards=True), size),
        "zoneout": training(lstm(zoneout=0.1), size),
        "checkpoint=True": training(lstm(checkpoint=True), size),
        "truncate=20": training(lstm(truncate=20), size),
    }


def without_loop(size):
    """`{memory: {"train", "forward", "products"}}`: the products are those of the backward pass, alone."""
    b, t, d, u = size
    x, _ = steps.data(size)
    rows = b * t

    def products(*shapes):
        """Of each shape (n, m), y^T d and d U^T over all rows."""
        rng = np.random.default_rng(0)
        made = [
            tuple(tf.constant(rng.normal(size=s), tf.float32) for s in ((rows, n), (rows, m), (n, m)))
            for n, m in shapes
        ]

        def run(x):
            # what comes in must matter, or nothing is left to compute at run time
            scale = 1 + 0 * x[0, 0, 0]
            return [
                y
                for a, g, k in made
                for y in (tf.matmul(scale * a, g, transpose_a=True), tf.matmul(g, scale * k, transpose_b=True))
            ]

        return steps.compiled(run, x)[0]

    shapes = {
        "Elman": [(d, u), (u, u), (u, u)],  # W, U and the readout V
        "Jordan": [(d, u), (u, u), (u, u)],
        "NARX(u, u), 2 delays, open": [(2 * d, u), (2 * u, u), (u, u)],
    }
    found = {}
    for name, of in shapes.items():
        layer = fed(name, size)
        found[name] = {
            "train": training(layer, size),
            "forward": steps.compiled(lambda x, layer=layer: layer(x, training=True), x)[0],
            "products": products(*of),
        }
    return found


def beside_product(size):
    """The LSTM's training step, and its forward arithmetic as one product, and as one of each step."""
    b, t, d, u = size
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(t, b, d + u)), tf.float32)
    kernel = tf.constant(rng.normal(size=(d + u, 4 * u)), tf.float32)

    def product(x):
        return tf.matmul(tf.reshape(x, (-1, d + u)), kernel)

    def each(x):
        """The next step reads the last one's result, as in a loop over time."""

        def body(i, total):
            return i + 1, tf.matmul(x[i] + total[:, : d + u] * 1e-9, kernel)

        return tf.while_loop(lambda i, _: i < t, body, (0, tf.zeros((b, 4 * u))), maximum_iterations=t)[1]

    return {
        "train": training(keras_seq.LSTM(u, return_sequences=True), size),
        "product": steps.compiled(product, x)[0],
        "product, step by step": steps.compiled(each, x)[0],
    }


def traces():
    """`{layer: (shapes seen, traces with a signature, traces without)}`."""
    shapes = [(2, 5), (3, 5), (2, 7), (4, 9), (3, 5)]
    layers = {
        "LSTM": keras_seq.LSTM(8, return_sequences=True),
        "PeepholeLSTM, truncate=3": keras_seq.PeepholeLSTM(8, return_sequences=True, truncate=3),
        "GRU, checkpoint": keras_seq.GRU(8, return_sequences=True, checkpoint=True),
        "Elman, blocked": keras_seq.Elman(8, outputs=8, return_sequences=True),
        "own cell (README)": keras_seq.RNN(steps.MinimalGatedCell(8), return_sequences=True),
    }
    found = {}
    for name, layer in layers.items():
        layer.build((None, None, 4))

        def step(x, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(layer(x, training=True))
            return tape.gradient(loss, [x, *layer.trainable_variables])

        counts = []
        for signature in ([tf.TensorSpec((None, None, 4))], None):
            traced = tf.function(step, jit_compile=True, input_signature=signature, reduce_retracing=True)
            for b, t in shapes:
                traced(tf.ones((b, t, 4)))
            counts.append(traced.experimental_get_tracing_count())
        found[name] = (len(shapes), *counts)
    return found
