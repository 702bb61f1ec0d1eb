"""Attention: a training step of our layer beside Keras's loop over the very same step."""

import keras
import tensorflow as tf
import timing

import keras_seq

SIZES = [(32, 12, 40, 32, 64), (64, 20, 30, 64, 128), (64, 50, 50, 128, 256)]  # b, t, s, d, u
FORMS = {
    "additive, before": {"score": "additive"},
    "general, after": {"score": "general", "query": "after"},
    "general, after, input feeding": {"score": "general", "query": "after", "input_feeding": True},
    "multi-head, before": {"score": "multi_head"},
}


class Holding(keras.layers.Layer):
    """A cell for Keras's loop that holds what our layer gives as constants, prepared once."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.state_size, self.output_size = cell, cell.state_size, cell.output_size

    def call(self, inputs, states, training=False):
        output, new = self.cell.run_step(self.cell.run_project(inputs), states, self.held)
        return self.cell.run_readout(output, self.held), list(new)


def contestants(size, arguments):
    """`{(whose, mode): function}`: outputs and gradients of inputs, memory and weights of a GRU that reads a masked memory."""
    b, t, s, d, u = size
    cell = keras_seq.AttentionCell(keras_seq.GRUCell(u), output_units=u, **arguments)
    ours = keras_seq.RNN(cell, return_sequences=True)
    ours.build((b, t, d), constants_shape=[(b, s, u)])
    holding = Holding(cell)
    theirs = keras.layers.RNN(holding, return_sequences=True)
    theirs.build((b, t, d))
    x, memory, cotangent = (tf.random.stateless_normal((b, n, k), [n, k]) for n, k in ((t, d), (s, u), (t, u)))
    mask = tf.sequence_mask(s // 2 + tf.range(b) % (s // 2 + 1), s)

    def run(own):
        def outputs(x, memory):
            if own:
                return ours(x, constants=[memory, mask], training=True)
            holding.held = cell.run_prepare([memory, mask])
            return theirs(x)

        def step(x, memory):
            with tf.GradientTape() as tape:
                tape.watch([x, memory])
                y = outputs(x, memory)
                loss = tf.reduce_sum(y * cotangent)
            return y, tape.gradient(loss, [x, memory, *[w.value for w in cell.trainable_variables]])

        return step

    found = {}
    for whose in ("ours", "Keras"):
        for mode, jit in (("XLA", True), ("graph", False)):
            compiled = tf.function(run(whose == "ours"), jit_compile=jit, autograph=False)
            found[whose, mode] = lambda compiled=compiled: [v.numpy() for v in tf.nest.flatten(compiled(x, memory))]
    return found


def measure(runs, say=lambda text: None):
    """`{(form, size): {(whose, mode): milliseconds of each run}}`."""
    found = {}
    for size in SIZES:
        for form, arguments in FORMS.items():
            say(f"attention: {form} at {','.join(map(str, size))}")
            found[form, size] = timing.in_turn(contestants(size, arguments), runs)
    return found


def table(found):
    """`(title, table, {where: Keras's time / ours})` of what `measure` gives."""
    rows, ratios = [], {}
    for (form, size), times in found.items():
        ours, theirs = (min(min(v) for (w, _), v in times.items() if w == who) for who in ("ours", "Keras"))
        size = ",".join(map(str, size))
        ratios[f"{form}, {size}"] = theirs / ours
        rows.append((form, size, f"{theirs / ours:.2f}", *map(timing.least_and_median, times.values())))
    heads = ("ours, XLA", "ours, graph", "Keras's loop, XLA", "Keras's loop, graph")
    columns = ("GRU that reads a memory of s places", "b,t,s,d,u", "Keras / ours", *heads)
    return "Attention: milliseconds of a training step, least (median)", timing.table(columns, rows), ratios
