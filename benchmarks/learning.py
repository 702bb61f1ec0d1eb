"""What each model learns at the first try, beside the same in plain Keras and in torch; written to benchmarks/LEARNING.md.

    python benchmarks/learning.py                     # eight tasks, three seeds: half an hour at most on two cores
    python benchmarks/learning.py --quick             # three minutes: fewer data, one seed, nothing written
    python benchmarks/learning.py --only system memory --seeds 5
    python benchmarks/learning.py --torch /path/to/python     # an interpreter that has torch

All contestants of a task have the same data, sizes and recipe: Adam, its rate falling as a cosine, gradients clipped to a
length of 1. Each has the starts that its library gives it. Where ours have changed, "ours, started as Keras does" stands
beside: vectors from Keras's uniform numbers, no frequencies in the readout, He's start in the TCN. A curve is the held-out
loss after each epoch, against the seconds spent in training, compiling included, evaluation not. Torch has one thread, the
others all cores; how fast each is, RESULTS.md says.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import learners
import numpy as np
import report
import starts
import tasks
import timing
from keras import ops

from keras_seq.models.training import TokenCrossEntropy

FOLDER = pathlib.Path(__file__).parent
OURS, BEFORE, KERAS, TORCH = "ours", "ours, started as Keras does", "plain Keras", "torch"
COLOURS = {OURS: "#087f5b", BEFORE: "#96f2d7", KERAS: "#c92a2a", TORCH: "#f08c00"}


class Curve(keras.callbacks.Callback):
    """`[seconds of training, held-out loss]` after each epoch."""

    def __init__(self, inputs, targets):
        super().__init__()
        self.inputs, self.targets, self.spent, self.kept = inputs, targets, 0.0, []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.spent += time.perf_counter() - self.start
        found = self.model.evaluate(self.inputs, self.targets, batch_size=len(self.targets), verbose=0)
        self.kept.append([self.spent, float(found)])


def loss_of(task):
    if task.loss == "tokens":
        return TokenCrossEntropy(from_logits=True, ignore_class=0)
    return lambda true, said: ops.mean(ops.square(true - said)[:, task.skip :])


def learn(model, task, inputs, held_out, seed):
    """The curve of a model of Keras."""
    steps = len(task.targets) // task.batch
    rate = keras.optimizers.schedules.CosineDecay(task.rate, steps * task.epochs)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), loss_of(task), jit_compile=not task.convolves)
    curve = Curve(single(held_out[0]), held_out[1])
    model.fit(single(inputs), task.targets, task.batch, task.epochs, verbose=0, callbacks=[curve])
    return curve.kept


def single(arrays):
    return arrays[0] if len(arrays) == 1 else list(arrays)


def prepared(name, quick):
    """The task, its training part cut to whole batches, and the inputs of the contestants that see lagged ones."""
    task = tasks.TASKS[name](quick)
    task.epochs = min(task.epochs, 3) if quick else task.epochs
    count = len(task.targets) // task.batch * task.batch
    task.inputs, task.targets = tuple(x[:count] for x in task.inputs), task.targets[:count]
    lagged = None
    if name == "plant":
        lagged = [(learners.lagged(*x, tasks.LAGS),) for x in (task.inputs, task.held_out[0])]
    return task, lagged or [task.inputs, task.held_out[0]]


def of_keras(name, task, seed, make, inputs):
    """`(curve, squared error of a free run or None)`."""
    keras.utils.set_random_seed(seed)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = make(task)
    curve = learn(model, task, inputs[0], (inputs[1], task.held_out[1]), seed)
    return curve, free_run(model, task, inputs[1]) if name == "plant" else None


def free_run(model, task, inputs):
    """The squared error of its own outputs fed back, after the first true ones."""
    (u, y), lags = task.held_out[0], tasks.LAGS
    if len(inputs) == 2:
        narx = next(layer for layer in model.layers if hasattr(layer, "close_loop"))
        said = np.asarray(narx.close_loop()(u, targets=y[:, :lags]))
    else:
        said = y.copy()
        for t in range(lags, y.shape[1]):
            said[:, t] = np.asarray(model(learners.lagged(u, said, lags)[:, t : t + 1]))[:, 0]
    return float(np.mean((said - y)[:, lags:] ** 2))


class Torch:
    """A process that has torch, told what to learn."""

    def __init__(self, python):
        pipe, worker = subprocess.PIPE, FOLDER / "torch_learners.py"
        self.process = subprocess.Popen([python, worker], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.versions = self._ask(None)

    def _ask(self, question):
        with contextlib.suppress(BrokenPipeError):
            if question is not None:
                self.process.stdin.write(json.dumps(question) + "\n")
                self.process.stdin.flush()
            return json.loads(self.process.stdout.readline() or "null")

    def learn(self, name, task, inputs, seeds):
        """For each seed `(curve, free run)`; nothing where there is no torch."""
        if self.versions is None:
            return []
        recipe = {key: getattr(task, key) for key in ("loss", "epochs", "batch", "rate", "skip", "sizes")}
        recipe["vocabularies"] = [len(words) for words in task.vocabularies]
        arrays = {f"train{i}": x for i, x in enumerate((*inputs[0], task.targets))}
        arrays |= {f"held{i}": x for i, x in enumerate((*inputs[1], task.held_out[1]))}
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "task.npz")
            np.savez(file, recipe=json.dumps(recipe), **arrays)
            found = [self._ask({"task": name, "seed": seed, "file": file}) for seed in range(seeds)]
        return [(each["curve"], each["free"]) for each in found if each]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def contest(name, options, torch):
    """`(task, {contestant: [(curve, free run), one for each seed]})`."""
    task, seen = prepared(name, options.quick)
    own = [task.inputs, task.held_out[0]]
    runs = {}
    for whose, make, inputs in (
        (OURS, learners.OURS[name], own),
        (BEFORE, (lambda t: learners.OURS[name](t, before=True)) if name in learners.CHANGED else None, own),
        (KERAS, learners.KERAS[name], seen),
    ):
        if make is not None:
            runs[whose] = [of_keras(name, task, seed, make, inputs) for seed in range(options.seeds)]
            say(name, whose, task, runs[whose])
    found = torch.learn(name, task, seen, options.seeds)
    if found:
        runs[TORCH] = found
        say(name, TORCH, task, found)
    return task, runs


def say(name, whose, task, runs):
    finals = " ".join(figure(task, curve[-1][1]) for curve, _ in runs)
    print(f"{name:12} {whose:28} {finals}   {statistics.median(c[-1][0] for c, _ in runs):.0f} s", flush=True)


def figure(task, loss):
    """A loss as it is read: nats, a squared error, or the root of one in mV."""
    unit = task.sizes.get("unit")
    return f"{loss**0.5 * unit:.2f} mV" if unit else f"{loss:.4f}"


def rows_of(task, runs):
    for whose, each in runs.items():
        finals = sorted(curve[-1][1] for curve, _ in each)
        first = statistics.median(curve[0][1] for curve, _ in each)
        seconds = statistics.median(curve[-1][0] for curve, _ in each)
        free = sorted(f for _, f in each if f is not None)
        yield (
            whose,
            figure(task, first),
            figure(task, statistics.median(finals)),
            f"{figure(task, finals[0])} to {figure(task, finals[-1])}",
            figure(task, statistics.median(free)) if free else "-",
            f"{seconds:.0f}",
        )


COLUMNS = ("start", "after the first epoch", "at the end, median", "over the seeds", "free run", "seconds")


def draw(found, path):
    """A panel for each task, a line for each seed."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    count = len(found)
    grid, axes = plt.subplots(-(-count // 3), min(3, count), figsize=(13, 3.6 * -(-count // 3)), squeeze=False)
    for axis, (task, runs) in zip(axes.flat, found.values(), strict=False):
        for whose, each in runs.items():
            for i, (curve, _) in enumerate(each):
                label = whose if i == 0 else None
                axis.plot(*np.transpose(curve), color=COLOURS[whose], lw=1.4, marker=".", ms=3, label=label)
        axis.axhline(task.floor, ls=":", color="#868e96")
        axis.set(title=task.title, xlabel="seconds of training", yscale="log" if task.loss == "squares" else "linear")
        axis.title.set_fontsize(8)
        axis.grid(color="#dee2e6", lw=0.5)
    for axis in list(axes.flat)[count:]:
        axis.axis("off")
    lines = {line.get_label(): line for axis in axes.flat for line in axis.lines if line.get_label() in COLOURS}
    grid.legend(lines.values(), lines, loc="lower center", ncols=len(COLOURS), fontsize=9)
    grid.tight_layout(rect=(0, 0.06, 1, 1))
    grid.savefig(path, dpi=80)
    plt.close(grid)


def page(found, table, command, versions):
    body = [
        "# What is learned at the first try",
        report.made_by(command, versions),
        __doc__.strip().split("\n\n", 2)[2],
        "![held-out losses against seconds](learning.png)",
        "Dotted: the simple way. One line for each seed.",
    ]
    for task, runs in found.values():
        simple = f"Held out: {'nats for each token' if task.loss == 'tokens' else 'squared error'}"
        simple = "Held out: root of the mean squared error" if "unit" in task.sizes else simple
        body += [
            f"## {task.title}",
            f"{simple}; {task.simple}: {figure(task, task.floor)}. {len(task.targets)} rows, {task.epochs} epochs, batches "
            f"of {task.batch}, Adam from {task.rate:g}.",
            timing.table(COLUMNS, rows_of(task, runs)),
        ]
    return "\n\n".join([*body, *table]) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer data, three epochs, one seed")
    parser.add_argument("--only", nargs="+", default=list(tasks.TASKS), choices=tasks.TASKS, metavar="TASK")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--torch", default=sys.executable, metavar="PYTHON", help="interpreter that has torch")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder of LEARNING.md and learning.png (default: benchmarks/, none if --quick or --only)",
    )
    options = parser.parse_args(arguments)
    options.seeds = options.seeds or (1 if options.quick else 3)
    torch = Torch(options.torch)
    folder = options.output or (FOLDER if options.only == list(tasks.TASKS) and not options.quick else None)
    command = report.command("learning.py", sys.argv[1:] if arguments is None else arguments)
    found = {}

    def write(table):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            draw(found, folder / "learning.png")
            text = page(found, table, command, torch.versions or {"torch": "none found"})
            (folder / "LEARNING.md").write_text(text)

    for name in options.only:
        found[name] = contest(name, options, torch)
        write([])  # after each task, so that nothing is lost where it is stopped
    torch.close()
    if folder is not None:
        write(starts.sections(options.quick))
        print(f"written to {folder.resolve()}: LEARNING.md, learning.png")
    return found


if __name__ == "__main__":
    main()
