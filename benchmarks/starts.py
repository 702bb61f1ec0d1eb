"""How large outputs and gradients are at the start, over depth and length; sections for benchmarks/LEARNING.md.

python benchmarks/starts.py [--quick]
"""

import argparse
import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import learners
import numpy as np
import tasks
import tensorflow as tf
import timing

import keras_seq

WIDTH, ROWS = 32, 8
LENGTHS, DEPTHS = (10, 100, 1000), (1, 2, 4, 8)

MEMORIES = {
    name: getattr(keras_seq, name)
    for name in ("SimpleRNN", "Elman", "LSTM", "PeepholeLSTM", "CoupledLSTM", "NoForgetLSTM", "GRU", "ResidualRNN")
}
ALONE = {
    **{name: lambda cls=cls: cls(WIDTH, return_sequences=True) for name, cls in MEMORIES.items()},
    "Jordan": lambda: keras_seq.Jordan(WIDTH, WIDTH, return_sequences=True),
    "Jordan, blocked=False": lambda: keras_seq.Jordan(WIDTH, WIDTH, blocked=False, return_sequences=True),
    "Elman, blocked=False": lambda: keras_seq.Elman(WIDTH, blocked=False, return_sequences=True),
    "ResidualRNN, recurrent=False": lambda: keras_seq.ResidualRNN(WIDTH, recurrent=False, return_sequences=True),
    "NARX, closed loop": lambda: keras_seq.NARX(
        10, WIDTH, input_delays=2, output_delays=2, closed=True, return_sequences=True
    ),
    "AR, closed loop": lambda: keras_seq.AR(WIDTH, output_delays=2, closed=True, return_sequences=True),
    "LSTM, read by AttentionCell": lambda: keras_seq.RNN(
        keras_seq.AttentionCell(keras_seq.LSTMCell(WIDTH), output_units=WIDTH), return_sequences=True
    ),
    "LSTM in a ConditionedCell": lambda: keras_seq.RNN(
        keras_seq.ConditionedCell(keras_seq.LSTMCell(WIDTH)), return_sequences=True
    ),
    "Bidirectional(LSTM)": lambda: keras_seq.Bidirectional(keras_seq.LSTM(WIDTH // 2, return_sequences=True)),
    "TDNN": lambda: keras_seq.TDNN(WIDTH, delays=3),
    "TCN": lambda: keras_seq.TCN(WIDTH, return_sequences=True),
    "TCN, He's start as before": lambda: keras_seq.TCN(WIDTH, return_sequences=True, kernel_initializer="he_normal"),
    "WaveNet": lambda: keras_seq.WaveNet(WIDTH, dilations=(1, 2, 4, 8, 16, 32)),
}


def stack(cls, depth, **kwargs):
    return keras_seq.Stacked([cls(WIDTH, return_sequences=True) for _ in range(depth)], **kwargs)


def tcn(depth, **kwargs):
    dilations = [2 ** (i % 6) for i in range(depth)]
    return keras_seq.TCN(WIDTH, dilations=dilations, return_sequences=True, **kwargs)


DEEP = {
    **{f"Stacked {name}": lambda n, c=MEMORIES[name]: stack(c, n) for name in ("SimpleRNN", "LSTM", "GRU")},
    **{
        f"Stacked {name}, residual": lambda n, c=MEMORIES[name]: stack(c, n, skips="residual")
        for name in ("SimpleRNN", "LSTM", "GRU")
    },
    "TDNN one after the other": lambda n: keras_seq.Stacked([keras_seq.TDNN(WIDTH, delays=3) for _ in range(n)]),
    "TCN": tcn,
    "TCN, He's start as before": lambda n: tcn(n, kernel_initializer="he_normal"),
    "WaveNet": lambda n: keras_seq.WaveNet(WIDTH, dilations=[2 ** (i % 6) for i in range(n)]),
}


def sizes(layer, length):
    """`(of the last output, of the gradient of the last input, of that of an input 50 steps before it)`: deviations.

    Inputs are standard normal, and so is the cotangent of the last output.
    """
    rng = np.random.default_rng(0)
    further, cell = {}, getattr(layer, "cell", None)
    if cell is not None and cell.constant_names:
        shape = (ROWS, 20, WIDTH) if isinstance(cell, keras_seq.AttentionCell) else (ROWS, WIDTH)
        further["constants"] = [tf.constant(rng.standard_normal(shape), tf.float32)]
    x = tf.Variable(rng.standard_normal((ROWS, length, WIDTH)), dtype=tf.float32)
    with tf.GradientTape() as tape:
        last = layer(x, **further)[:, -1]
        loss = tf.reduce_sum(last * rng.standard_normal(last.shape).astype("float32"))
    gradient = tape.gradient(loss, x)
    far = float(np.std(gradient[:, -51])) if length > 50 else None
    return float(np.std(last)), float(np.std(gradient[:, -1])), far


def shown(value):
    return "-" if value is None else "0" if value == 0 else f"{value:.2g}"


def over_length(lengths):
    rows = []
    for name, make in ALONE.items():
        keras.utils.set_random_seed(0)
        layer = make()
        found = [sizes(layer, length) for length in lengths]
        rows.append((name, *(shown(f[0]) for f in found), *(shown(v) for v in found[-1][1:])))
    columns = ("layer", *(f"output, {n} steps" for n in lengths), "gradient, same step", "50 steps before")
    return timing.table(columns, rows)


def over_depth(depths):
    rows = []
    for name, make in DEEP.items():
        found = []
        for depth in depths:
            keras.utils.set_random_seed(0)
            found.append(sizes(make(depth), 100))
        rows.append((name, *(shown(f[0]) for f in found), *(shown(f[1]) for f in found)))
    columns = ("layers", *(f"output, {n}" for n in depths), *(f"gradient, {n}" for n in depths))
    return timing.table(columns, rows)


def of_models(quick):
    """Vectors, first sums of the memory, logits, loss and gradients of the models, as they start and as they did."""
    rows = []
    for name in ("characters", "translation", "captions"):
        task = tasks.TASKS[name](True)
        count = 64 if quick else 256
        inputs = [x[:count] for x in task.inputs]
        for before in (True, False):
            keras.utils.set_random_seed(0)
            model = learners.OURS[name](task, before=before)
            model.compile("sgd")
            with tf.GradientTape() as tape:
                logits = model(inputs[0] if len(inputs) == 1 else inputs, training=True)
                loss = model.loss(task.targets[:count], logits)
            embedding = model.target_embedding if name == "translation" else model.embedding
            memory = model.decoder if name == "translation" else model.memory
            cell = getattr(memory.cell, "cell", memory.cell)
            watched = [embedding.embeddings, cell.kernel, cell.recurrent_kernel, model.readout.kernel]
            gradients = tape.gradient(loss, [w.value for w in watched])
            sums = tf.linalg.matmul(embedding.embeddings, cell.kernel)
            rows.append(
                (
                    type(model).__name__,
                    "before" if before else "now",
                    *(shown(float(np.std(v))) for v in (embedding.embeddings, sums, logits - logits[..., :1])),
                    f"{float(loss):.2f} ({task.floor:.2f})",
                    *(shown(float(tf.linalg.global_norm([tf.convert_to_tensor(g)]))) for g in gradients),
                )
            )
    columns = (
        *("model", "start", "vectors", "first sums", "logits", "first loss (of frequencies)"),
        *("gradient: vectors", "kernel", "recurrent kernel", "readout"),
    )
    return timing.table(columns, rows)


def sections(quick=False):
    warnings.filterwarnings("ignore", message=".*shorter than the receptive field")
    lengths, depths = (LENGTHS[:2], DEPTHS[:2]) if quick else (LENGTHS, DEPTHS)
    return [
        "## Sizes at the start",
        f"Deviations over {ROWS} rows of standard normal inputs of width {WIDTH}, every layer as wide, seed 0. Gradients are "
        "those of the inputs for a standard normal cotangent of the last output.",
        "### Over length",
        over_length(lengths),
        "### Over depth, 100 steps",
        over_depth(depths),
        "### Models",
        "On the first rows of their tasks; gradients are lengths.",
        of_models(quick),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    print("\n\n".join(sections(parser.parse_args().quick)))
