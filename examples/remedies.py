"""What makes a SimpleRNN learn over long gaps: every remedy on the adding problem and on copy memory, beside gated cells.

    python examples/remedies.py                # both tasks, gaps of 50, 100 and 200: a quarter of an hour on two cores
    python examples/remedies.py --task adding --length 100 --remedy irnn lstm
    python examples/remedies.py --quick        # to see that it runs

The tasks are those of memory_tasks.py. Of copy memory only one symbol of eight is to be said again here, and only that answer
counts: who has forgotten it gets a cross entropy of ln 8. Every batch is drawn anew; the scores are of sequences held out.

All memories have about as many weights as the SimpleRNN. All are trained by Adam with a rate that falls as a cosine, from 0.001
for the SimpleRNN and from 0.004 for gated cells, and with gradients clipped to a length of 1 but where there is "no remedy". A
memory has learned a task ("yes") if it leaves less than half of the loss of one that forgets, "a little" if less than nine
tenths.

It prints a table, and leaves in --output: remedies.png, the held-out loss against the updates; gradients.png, how far back
gradients reach before training (`GradientMonitor`), for the first length of the first task.
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import memory_tasks
import numpy as np

import keras_seq
from keras_seq.training import (
    BlockIdentity,
    GradientMonitor,
    SpectralRadiusConstraint,
    SpectralRadiusInitializer,
    SpectralRadiusRegularizer,
)

CLIP = {"global_clipnorm": 1.0}
GATED = {"learning_rate": 4e-3, **CLIP}


def open_for(steps):
    """The start of an LSTM's bias: unit j keeps what it holds for a time drawn from 1 to `steps` (Tallec and Ollivier 2018)."""

    def start(shape, dtype=None):
        units = shape[0] // 4  # input, forget, candidate, output
        forget = np.log(np.random.default_rng(1).uniform(1, steps, units))
        return keras.ops.convert_to_tensor(np.concatenate([-forget, forget, np.zeros(2 * units)]), dtype=dtype)

    return start


def simple(**arguments):
    """A SimpleRNN with these arguments, started at random but for them."""
    arguments = {"recurrent_initializer": "glorot_uniform", **arguments}
    return lambda units, steps: keras_seq.SimpleRNN(units, **arguments, name="memory")


def gated(layer, gates, **arguments):
    """A gated memory with about as many weights as the SimpleRNN."""
    return lambda units, steps: layer(round(units / gates**0.5), **arguments, name="memory")


SMALL = keras.initializers.RandomNormal(stddev=0.1, seed=1)
IRNN = {"recurrent_initializer": BlockIdentity(), "activation": "relu", "kernel_initializer": SMALL}
# how it is called, the memory from units and steps, what the optimizer takes
REMEDIES = {
    "none": ("no remedy", simple(), {}),
    "clipping": ("clipping", simple(), CLIP),
    "decay": ("weight decay", simple(), {"weight_decay": 1e-2, **CLIP}),
    "penalty": ("penalty on radii above 0.9", simple(recurrent_regularizer=SpectralRadiusRegularizer(0.1, 0.9)), CLIP),
    "constraint": ("radius held at 1 or below", simple(recurrent_constraint=SpectralRadiusConstraint(1.0)), CLIP),
    "radius": (
        "start of radius 1",
        simple(recurrent_initializer=SpectralRadiusInitializer(1.0, keras.initializers.RandomNormal(seed=1))),
        CLIP,
    ),
    "orthogonal": ("orthogonal start", simple(recurrent_initializer="orthogonal"), CLIP),
    "identity": ("identity start, tanh", simple(recurrent_initializer=BlockIdentity()), CLIP),
    "irnn": ("identity start, relu", simple(**IRNN), CLIP),
    "held": (
        "the same, radius held at 1",
        simple(**IRNN, recurrent_constraint=SpectralRadiusConstraint(1.0)),
        CLIP,
    ),
    "gru": ("GRU", gated(keras_seq.GRU, 3), GATED),
    "lstm": ("LSTM", gated(keras_seq.LSTM, 4), GATED),
    "open": (
        "LSTM, forget gates open",
        lambda units, steps: gated(keras_seq.LSTM, 4, unit_forget_bias=False, bias_initializer=open_for(steps))(
            units, steps
        ),
        GATED,
    ),
}


def copy_one(rng, count, length):
    """One symbol of eight, a blank and a question, (count, length + 2, 10), and the symbol (count,)."""
    seen, said = memory_tasks.copy(rng, count, length, symbols=1)
    return seen, said[:, -1]


def right_symbols(model, x, y):
    """The share of the symbols that are said right."""
    return np.mean(model.predict(x, batch_size=256, verbose=0).argmax(-1) == y)


# how to draw it, outputs, loss, the loss of one that forgets, share of right answers
TASKS = {
    "adding": (memory_tasks.adding, 1, "mse", 1 / 6, memory_tasks.nearly_right),
    "copy": (copy_one, 10, keras.losses.SparseCategoricalCrossentropy(from_logits=True), np.log(8), right_symbols),
}


def model_of(remedy, task, shape, options):
    """The model of a remedy, compiled, for sequences (t, d)."""
    _, memory, settings = REMEDIES[remedy]
    _, outputs, loss, *_ = TASKS[task]
    keras.utils.set_random_seed(options.seed)
    model = keras.Sequential([keras.Input(shape), memory(options.units, shape[0]), keras.layers.Dense(outputs)])
    settings = {"learning_rate": 1e-3, **settings}
    settings["learning_rate"] = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], options.steps)
    model.compile(keras.optimizers.Adam(**settings), loss, jit_compile=options.jit)
    return model


class HeldOut(keras.callbacks.Callback):
    """`(updates, held-out loss)` after each piece of the training."""

    def on_train_begin(self, logs=None):
        self.kept = []

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append(((epoch + 1) * self.params["steps"], logs["val_loss"]))


def run(task, length, remedy, options):
    """`(weights, held-out loss, share right, seconds, [(updates, held-out loss) ..])`."""
    draw, *_, right = TASKS[task]
    held_out = draw(np.random.default_rng(10**6), 1024, length)
    model = model_of(remedy, task, held_out[0].shape[1:], options)
    rng, curve, piece = np.random.default_rng(options.seed), HeldOut(), options.steps // options.pieces

    def batches():
        while True:
            yield draw(rng, options.batch, length)

    start = time.perf_counter()
    model.fit(
        batches(),
        steps_per_epoch=piece,
        epochs=options.pieces,
        validation_data=held_out,
        validation_batch_size=256,
        shuffle=False,  # drawn in order
        verbose=0,
        callbacks=[curve],
    )
    seconds, loss = time.perf_counter() - start, curve.kept[-1][1]
    return model.count_params(), loss, float(right(model, *held_out)), seconds, curve.kept


def verdict(loss, floor):
    """What a held-out loss says, beside that of one that forgets."""
    if not np.isfinite(loss):
        return "exploded"
    if loss > 0.9 * floor:
        return "no"
    return "yes" if loss < 0.5 * floor else "a little"


def table(runs, options):
    """A Markdown table: a row for each remedy, a column for each task and length."""
    columns = [(task, length) for task in options.task for length in options.length]
    names = [f"{task} {length}" for task, length in columns]
    lines = ["| memory | weights | " + " | ".join(names) + " |", "|---" * (2 + len(columns)) + "|"]
    floors = [TASKS[task][3] for task, _ in columns]
    lines.append("| (one that forgets) | | " + " | ".join(f"{f:.4f}" for f in floors) + " |")
    for remedy in options.remedy:
        found = [runs[task, length, remedy] for task, length in columns]
        cells = [
            f"{loss:.4f} {verdict(loss, f)}".removeprefix("nan ")
            for (_, loss, *_), f in zip(found, floors, strict=True)
        ]
        lines.append(f"| {REMEDIES[remedy][0]} | {found[0][0]:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gradients(options):
    """`{remedy: norms of dL/dh_t against the lag}` before training, for the first length of the first task."""
    task, length, found = options.task[0], options.length[0], {}
    batch = TASKS[task][0](np.random.default_rng(options.seed), options.batch, length)
    for remedy in options.remedy:
        monitor = GradientMonitor(batch)
        monitor.set_model(model_of(remedy, task, batch[0].shape[1:], options))
        found[remedy] = monitor.measure().states["memory"]["h"]
    return found


# apart without colour too
STYLES = [(line, marker) for line in ("-", "--", ":", "-.") for marker in ("o", "s", "^", "x")]


def draw_lines(axis, lines):
    """Draw `{remedy: (x, y)}`, each remedy in the same style in every panel."""
    from matplotlib import colormaps

    for remedy, (x, y) in lines.items():
        place = list(REMEDIES).index(remedy)
        line, marker = STYLES[place]
        axis.plot(
            x,
            y,
            line,
            marker=marker,
            markevery=max(1, len(x) // 6),
            ms=4,
            lw=1.2,
            color=colormaps["tab20"](place),
            label=REMEDIES[remedy][0],
        )
    axis.set_yscale("log")
    axis.grid(alpha=0.3)


def figures(runs, before, options):
    """remedies.png and gradients.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    size = (4.2 * len(options.length), 3.4 * len(options.task) + 1.2)
    fig, axes = plt.subplots(len(options.task), len(options.length), figsize=size, layout="constrained", squeeze=False)
    units = {"adding": "squared error", "copy": "cross entropy (nats)"}
    for row, task in zip(axes, options.task, strict=True):
        for axis, length in zip(row, options.length, strict=True):
            draw_lines(axis, {r: np.transpose(runs[task, length, r][-1]) for r in options.remedy})
            axis.axhline(TASKS[task][3], color="black", lw=1, label="one that forgets")
            axis.set(title=f"{task}, {length} steps", xlabel="updates", xlim=(0, None))
            axis.set_ylim(bottom=max(axis.get_ylim()[0], 1e-4 * TASKS[task][3]))
        row[0].set_ylabel(f"held-out {units[task]}")
    columns = min(4, len(options.length) + 1)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)
    fig.savefig(options.output / "remedies.png", dpi=120)
    plt.close(fig)
    fig, axis = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    draw_lines(axis, {r: (np.arange(len(g)), np.where(g > 0, g, np.nan)) for r, g in before.items()})
    axis.set(xlabel="lag (steps before the last)", ylabel="|dL/dh| before training", xlim=(0, None))
    axis.set_title(f"{options.task[0]}, {options.length[0]} steps")
    fig.legend(*axis.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    fig.savefig(options.output / "gradients.png", dpi=120)
    plt.close(fig)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument(
        "--length", nargs="+", type=int, default=[50, 100, 200], help="of the sequences, or of the blank"
    )
    parser.add_argument("--remedy", nargs="+", default=list(REMEDIES), choices=REMEDIES)
    parser.add_argument("--steps", type=int, default=1200, help="updates of the weights")
    parser.add_argument("--units", type=int, default=64, help="of the SimpleRNN")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pieces", type=int, default=10, help="how often the held-out loss is taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="train under XLA")
    parser.add_argument("--quick", action="store_true", help="short gaps, few updates, small memories")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/remedies"))
    options = parser.parse_args(arguments)
    if options.quick:
        options.length, options.steps, options.units, options.pieces = [5, 10], 20, 8, 2
    options.output.mkdir(parents=True, exist_ok=True)
    before, runs = gradients(options), {}
    for task in options.task:
        for length in options.length:
            floor = TASKS[task][3]
            for remedy in options.remedy:
                runs[task, length, remedy] = _, loss, share, seconds, _ = run(task, length, remedy, options)
                said = f"held out {loss:.5f} ({loss / floor:.0%} of one that forgets), {share:.0%} right"
                print(f"{task:6} {length:4}  {REMEDIES[remedy][0]:26} {said}, {seconds:.0f} s", flush=True)
    print(f"\n{table(runs, options)}")
    figures(runs, before, options)
    for name in ("remedies.png", "gradients.png"):
        print(f"\n{options.output / name}")
    return runs, before


if __name__ == "__main__":
    main()
