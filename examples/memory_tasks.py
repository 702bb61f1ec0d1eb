"""What a TCN and an LSTM of the same size remember: the adding problem and copy memory.

    python examples/memory_tasks.py                            # both tasks, both models: a few minutes on two cores
    python examples/memory_tasks.py --task copy --length 200 --steps 2000

The adding problem (Hochreiter and Schmidhuber 1997): random numbers in [0, 1] and a marker at two places of a long sequence;
say at the end the sum of the two marked numbers. Always saying 1 gives a squared error of 1/6.

Copy memory (as in Bai, Kolter and Koltun 2018): ten symbols of eight, a long blank, then a sign to say the ten again in their
order. Who knows the task but has forgotten the symbols gets a cross entropy of 10 ln 8 / (length + 20) per step.

Every batch is drawn anew, so that nothing can be learned by heart; the scores are those of sequences held out. The LSTM has
as many units as bring it nearest to the TCN's number of weights.

It prints a table and leaves in --output: memory_tasks.png, the loss against the seconds of training.
"""

import argparse
import os
import pathlib
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_seq

# a last output that sees all steps sees some zeros before the first one too
warnings.filterwarnings("ignore", ".*shorter than the receptive field")


def adding(rng, count, length):
    """Numbers and markers (count, length, 2), and the sums of the two marked numbers (count, 1)."""
    numbers = rng.uniform(size=(count, length))
    places = np.argsort(rng.uniform(size=(count, length)), axis=1)[:, :2]
    markers = np.zeros((count, length))
    np.put_along_axis(markers, places, 1, axis=1)
    sums = np.sum(numbers * markers, axis=1, keepdims=True)
    return np.stack([numbers, markers], axis=-1).astype("float32"), sums.astype("float32")


def copy(rng, count, length, symbols=10):
    """One-hot symbols (count, length + 2 symbols, 10), and the numbers of those to say (count, length + 2 symbols).

    0 is blank, 1 to 8 are symbols; the first 9, one step before the answer, asks for it.
    """
    given = rng.integers(1, 9, size=(count, symbols))
    seen, said = np.zeros((2, count, length + 2 * symbols), np.int32)
    seen[:, :symbols] = said[:, -symbols:] = given
    seen[:, -symbols - 1 :] = 9
    return np.eye(10, dtype="float32")[seen], said


def nearly_right(model, x, y):
    """The share of sums that are less than 0.04 off, as in the paper of 1997."""
    return np.mean(np.abs(model.predict(x, batch_size=128, verbose=0) - y) < 0.04)


def right_symbols(model, x, y):
    """The share of the ten symbols that are said right."""
    return np.mean(model.predict(x, batch_size=128, verbose=0).argmax(-1)[:, -10:] == y[:, -10:])


# how to draw it, outputs, loss, default length, default steps, loss without a memory, share of right answers
TASKS = {
    "adding": (adding, 1, "mse", 200, 3000, lambda length: 1 / 6, nearly_right),
    "copy": (
        copy,
        10,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        100,
        1000,
        lambda length: 10 * np.log(8) / (length + 20),
        right_symbols,
    ),
}

# learning rate at the start; whether XLA makes it faster
MODELS = {"TCN": (4e-3, False), "LSTM": (1e-2, True)}


def tcn(width, outputs, steps, every_step):
    """A TCN whose last output sees all steps."""
    dilations = [1]
    while 1 + 2 * 4 * sum(dilations) < steps:
        dilations.append(2 * dilations[-1])
    layer = keras_seq.TCN(16, kernel_size=5, dilations=dilations, return_sequences=every_step)
    return keras.Sequential([keras.Input((steps, width)), layer, keras.layers.Dense(outputs)])


def lstm(width, outputs, steps, every_step, parameters):
    """An LSTM with the number of weights nearest to `parameters`."""

    def weights(n):
        return 4 * n * (width + n + 1) + outputs * (n + 1)

    units = min(range(1, 1000), key=lambda n: abs(weights(n) - parameters))
    layer = keras_seq.LSTM(units, return_sequences=every_step)
    return keras.Sequential([keras.Input((steps, width)), layer, keras.layers.Dense(outputs)])


class Progress(keras.callbacks.Callback):
    """`(seconds, held-out loss)` after each piece of the training, and ten lines in all."""

    def __init__(self, title):
        super().__init__()
        self.title, self.kept = title, []

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        done, count = epoch + 1, self.params["epochs"]
        self.kept.append((time.perf_counter() - self.start, logs["val_loss"]))
        if done * 10 // count > epoch * 10 // count:
            steps = done * self.params["steps"]
            print(
                f"{self.title}  step {steps:5d}  {self.kept[-1][0]:4.0f} s  held out {logs['val_loss']:.6f}", flush=True
            )


def run(task, options):
    """`({model: (parameters, steps, loss, share right, seconds)}, {model: [(seconds, loss) ..]}, floor)`."""
    draw, outputs, loss, length, steps, floor, right = TASKS[task]
    length, steps = options.length or length, options.steps or steps
    held_out = draw(np.random.default_rng(10**6), 2048, length)
    shape = (held_out[0].shape[-1], outputs, held_out[0].shape[1], task == "copy")
    print(f"{task}: {shape[2]} steps, held-out loss without a memory {floor(length):.6f}", flush=True)

    def batches():
        rng = np.random.default_rng(options.seed)
        while True:
            yield draw(rng, options.batch, length)

    results, curves = {}, {}
    for name, (rate, jit) in MODELS.items():
        keras.utils.set_random_seed(options.seed)
        model = tcn(*shape) if name == "TCN" else lstm(*shape, parameters=results["TCN"][0])
        schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate or rate, steps)
        jit = jit if options.jit is None else options.jit
        model.compile(keras.optimizers.Adam(schedule, global_clipnorm=options.clip), loss, jit_compile=jit)
        progress = Progress(f"{task:6} {name:4}")
        piece = min(50, steps)
        model.fit(
            batches(),
            steps_per_epoch=piece,
            epochs=steps // piece,
            validation_data=held_out,
            validation_batch_size=128,
            shuffle=False,  # drawn in order
            verbose=0,
            callbacks=[progress],
        )
        curves[name] = progress.kept
        seconds, final = progress.kept[-1]
        results[name] = (model.count_params(), steps // piece * piece, final, right(model, *held_out), seconds)
    return results, curves, floor(length)


def figure(runs, path):
    """Held-out loss against seconds, a panel for each task, the loss without a memory beside."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, len(runs), figsize=(5.5 * len(runs), 4.4), layout="constrained", squeeze=False)
    units = {"adding": "squared error", "copy": "cross entropy per step (nats)"}
    for axis, (task, (_, curves, floor)) in zip(axes[0], runs.items(), strict=True):
        for name, kept in curves.items():
            axis.plot(*np.transpose(kept), label=name)
        axis.axhline(floor, linestyle=":", color="black", label="without a memory")
        axis.set(
            xlabel="seconds of training", ylabel=f"held-out {units[task]}", yscale="log", title=task, xlim=(0, None)
        )
        axis.grid(alpha=0.3)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--steps", type=int, help="updates of the weights (default: each task's own)")
    parser.add_argument("--length", type=int, help="of the sequences, or of the blank (default: each task's own)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, help="at the start (default: each model's own)")
    parser.add_argument("--clip", type=float, default=0.1, help="longest gradient; the LSTM learns little with 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--jit", action=argparse.BooleanOptionalAction, help="train under XLA (default: each model's own)"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/memory_tasks"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    runs = {task: run(task, options) for task in options.task}
    print("\n| task   | model | parameters | steps | held-out loss | without memory | answers right | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for task, (results, _, floor) in runs.items():
        for name, (parameters, steps, loss, right, seconds) in results.items():
            print(
                f"| {task:6} | {name:5} | {parameters:10,} | {steps:5} | {loss:13.6f} | {floor:14.6f} | {right:13.1%} "
                f"| {seconds:7.1f} |"
            )
    for task, (results, _, floor) in runs.items():
        for name, (*_, loss, _, _) in results.items():
            if loss > 0.9 * floor:
                print(f"{task}: the {name} has learned no more than what can be said without a memory.")
    figure(runs, options.output / "memory_tasks.png")
    print(f"\n{options.output / 'memory_tasks.png'}")
    return runs


if __name__ == "__main__":
    main()
