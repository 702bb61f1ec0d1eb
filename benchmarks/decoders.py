"""Our decoders under XLA beside the Python loops that are usually written; CTC beside Keras's and TensorFlow's."""

import keras
import numpy as np
import tensorflow as tf
import timing

import keras_seq
from keras_seq.decoding import beam_search, ctc_beam_search, ctc_loss, greedy

BATCHES, LENGTH = (1, 64), 50
VOCABULARY, EMBEDDING, UNITS = 5000, 64, 256
WIDTH, END = 5, 1
FRAMES, LABELS, SYMBOLS = (32, 200), 20, 32
PREDICT, STEP = "loop over model.predict", "loop over a compiled step"


class Decoder:
    """Word vectors, an LSTM and a readout: as a step, and as a Keras model of whole prefixes."""

    def __init__(self, vocabulary, embedding, units):
        initializer = keras.initializers.RandomNormal(seed=1)
        self.embedding = keras.layers.Embedding(vocabulary, embedding, initializer)
        self.memory = keras_seq.LSTM(units)
        self.readout = keras.layers.Dense(vocabulary, kernel_initializer=initializer)
        self.model = keras.Sequential([keras.Input((None,), dtype="int32"), self.embedding, self.memory, self.readout])
        self.allowed = np.arange(vocabulary) != END  # no row ends before the others

    def step(self, tokens, state):
        outputs, state = self.memory.step(self.embedding(tokens), state)
        return self.readout(outputs), state

    def ours(self, batch, length, width=None):
        """A function that gives tokens (b, length), greedily or the best of a beam, compiled as one."""
        prompt = tf.ones((batch, 1), "int32")
        given = {"end": END, "max_length": length, "allowed": self.allowed}

        def decode(prompt):
            state = self.memory.initial_state(batch)
            if width is None:
                return greedy(self.step, state, prompt, **given)
            return beam_search(self.step, state, prompt, width=width, **given)[0][:, 0]

        compiled = tf.function(decode, jit_compile=True, autograph=False)
        return lambda: compiled(prompt).numpy()

    def by_steps(self, batch, length, width=None):
        """The same in a Python loop over the step, compiled with the choice of the states that stay."""

        def one(tokens, parents, state):
            if width is not None:
                state = [tf.gather(s, parents) for s in state]
            return self.step(tokens, state)

        compiled = tf.function(one, jit_compile=True, autograph=False)

        def decode():
            state = self.memory.initial_state(batch * (width or 1))

            def logits_of(history, parents):
                nonlocal state
                logits, state = compiled(tf.constant(history[:, -1]), tf.constant(parents), state)
                return logits.numpy()

            return in_numpy(logits_of, batch, length, width)

        return decode

    def by_predict(self, batch, length, width=None):
        """The same in a Python loop that runs the whole prefix anew for each token."""
        rows = batch * (width or 1)

        def logits_of(history, parents):
            return self.model.predict(history, batch_size=rows, verbose=0)

        return lambda: in_numpy(logits_of, batch, length, width)


def in_numpy(logits_of, batch, length, width):
    """Tokens (b, length) by `logits_of(tokens so far (rows, t), rows that these go on from)`, chosen in NumPy."""
    rows = batch * (width or 1)
    history = np.ones((rows, 1), "int32")
    parents = np.arange(rows, dtype="int32")
    first = parents[:: width or 1]
    total = np.where(np.arange(width or 1) == 0, np.zeros((batch, 1), "float32"), -np.inf)
    for _ in range(length):
        logits = logits_of(history, parents)
        logits[:, END] = -np.inf
        if width is None:
            tokens = logits.argmax(axis=1)
        else:
            logits -= logits.max(axis=1, keepdims=True)
            logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
            size = logits.shape[1]
            scores = (total.reshape(-1, 1) + logits).reshape(batch, -1)
            best = np.argpartition(-scores, width, axis=1)[:, :width]
            total = np.take_along_axis(scores, best, axis=1)
            order = np.argsort(-total, axis=1)
            total, best = (np.take_along_axis(x, order, axis=1) for x in (total, best))
            parents = (first[:, None] + best // size).ravel().astype("int32")
            tokens = (best % size).ravel()
        history = np.concatenate([history[parents], tokens[:, None].astype("int32")], axis=1)
    return history[first, 1:]


def measure(runs, predicted, say=lambda text: None):
    """`{(search, batch): {who: tokens per second of each run}}`; `model.predict` is asked for `predicted` tokens of a row."""
    decoder, found = Decoder(VOCABULARY, EMBEDDING, UNITS), {}
    for search, width in (("greedy", None), (f"beam of {WIDTH}", WIDTH)):
        for batch in BATCHES:
            say(f"decoding: {search}, batch {batch}")
            lengths = {"ours": LENGTH, STEP: LENGTH, PREDICT: predicted}
            functions = {
                "ours": decoder.ours(batch, LENGTH, width),
                STEP: decoder.by_steps(batch, LENGTH, width),
                PREDICT: decoder.by_predict(batch, predicted, width),
            }
            times = timing.in_turn(functions, runs, warm_up=1)
            found[search, batch] = {who: [1e3 * batch * lengths[who] / t for t in v] for who, v in times.items()}
    return found


def table(found, predicted):
    """`(title, table, {(who, where): ours / theirs})` of what `measure` found."""
    rows, ratios, whose = [], {}, (STEP, PREDICT)
    for (search, batch), rates in found.items():
        best = {who: max(v) for who, v in rates.items()}
        ratios |= {(who, f"{search}, {batch}"): best["ours"] / best[who] for who in whose}
        cells = [f"{best[who]:,.0f} ({timing.median(v):,.0f})" for who, v in rates.items()]
        rows.append((search, batch, *(f"{best['ours'] / best[who]:.1f}" for who in whose), *cells))
    columns = ("search", "batch", *(f"ours / {who}" for who in whose), "ours, XLA", *whose)
    size = f"Embedding({EMBEDDING}), LSTM({UNITS}), Dense({VOCABULARY})"
    title = f"Decoding: tokens per second, most (median); {size}, {LENGTH} tokens a row, {predicted} by predict"
    return title, timing.table(columns, rows), ratios


def ctc(runs):
    """`{(what, whose): milliseconds of each run}`: the loss of CTC with its gradient, and its prefix beams."""
    logits = tf.random.stateless_normal((*FRAMES, SYMBOLS), [1, 2])
    labels = tf.random.stateless_uniform((FRAMES[0], LABELS), [3, 4], 1, SYMBOLS, "int32")
    counts = tf.fill(FRAMES[:1], LABELS), tf.fill(FRAMES[:1], FRAMES[1])

    def peer(x):
        return keras.ops.ctc_loss(labels, x, *counts, mask_index=0)

    def differentiated(loss):
        def function(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                total = tf.reduce_sum(loss(x))
            return tape.gradient(total, x)

        return function

    def run(function, jit):
        compiled = tf.function(function, jit_compile=jit, autograph=False)
        return lambda: tf.nest.map_structure(lambda v: v.numpy(), compiled(logits))

    functions = {}
    for mode, jit in (("XLA", True), ("graph", False)):
        functions["loss and gradient", f"ours, {mode}"] = run(differentiated(lambda x: ctc_loss(labels, x)), jit)
        functions["loss and gradient", f"Keras, {mode}"] = run(differentiated(peer), jit)
    for width in (10, 50):
        what = f"beam of {width}"
        functions[what, "ours, XLA"] = run(lambda x, width=width: ctc_beam_search(x, width)[0], True)

        def theirs(x, width=width):  # its blank is the last symbol, and it does not compile under XLA
            rolled = tf.transpose(tf.roll(x, -1, axis=-1), [1, 0, 2])
            return tf.nn.ctc_beam_search_decoder(rolled, counts[1], width)[0][0].values

        functions[what, "tf.nn, graph"] = run(theirs, False)
    return timing.in_turn(functions, runs)


def ctc_table(times):
    """`(title, table, {what: theirs / ours})` of what `ctc` measured."""
    rows, ratios = [], {}
    for what in dict.fromkeys(what for what, _ in times):
        found = {whose: v for (w, whose), v in times.items() if w == what}
        ours, theirs = (
            min(min(v) for whose, v in found.items() if whose.startswith("ours") is own) for own in (True, False)
        )
        ratios[what] = theirs / ours
        cells = "; ".join(f"{whose} {timing.least_and_median(v)}" for whose, v in found.items())
        rows.append((what, f"{theirs / ours:.1f}", cells))
    title = f"CTC: milliseconds, least (median); {FRAMES[0]} rows of {FRAMES[1]} frames, {LABELS} labels of {SYMBOLS}"
    return title, timing.table(("what", "theirs / ours", "times"), rows), ratios
