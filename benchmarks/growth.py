"""How the cost of a training step of the LSTM grows with the length, the rows and the units: seconds, and memory.

    python benchmarks/growth.py                       # all sweeps: about twenty minutes on two cores
    python benchmarks/growth.py --only length --lengths 1000 4000
    python benchmarks/growth.py --torch /path/to/python     # an interpreter that has torch

Each figure is of a process of its own, which makes the layer, takes one step to compile and one to warm up, and then three:
the least of their times, and the peak memory of the whole process, the framework's own half gigabyte included. A step gives
the gradients of all weights and of the inputs, of the sum of squares of all outputs. What took longer than `--limit` seconds,
or more memory than there is, is not measured at greater sizes. The processes run one after the other, each size's side by side.

The sweep "checkpoint" shows what a step keeps for the backward pass, and what keeps less: the inputs and their gradient grow
with the length in any case, and are the column `inputs alone`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import timing

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FOLDER = pathlib.Path(__file__).parent
OURS, KERAS, TORCH, NONE = "keras_seq", "Keras", "torch", "no layer"
CONTESTANTS = {
    "keras_seq": (OURS, {"jit": True}),
    "keras_seq, checkpoint=True": (OURS, {"jit": True, "checkpoint": True}),
    "keras_seq, truncate=50": (OURS, {"jit": True, "truncate": 50}),
    "inputs alone": (NONE, {"jit": True}),
    "Keras, XLA": (KERAS, {"jit": True}),
    "Keras, graph": (KERAS, {"jit": False}),
    "torch": (TORCH, {}),
}
WAYS = ["keras_seq", "keras_seq, checkpoint=True", "keras_seq, truncate=50", "inputs alone"]
PEERS = ["keras_seq", "keras_seq, checkpoint=True", "Keras, XLA", "Keras, graph", "torch"]
COLOURS = dict(zip(PEERS, ("#1c7ed6", "#74c0fc", "#e03131", "#ffa8a8", "#868e96"), strict=True))
SWEEPS = {  # what grows: who is measured, and each (b, t, d, u)
    "length": (PEERS, [(8, t, 64, 64) for t in (250, 1000, 4000, 16000, 64000)]),
    "rows": (PEERS, [(b, 1000, 64, 64) for b in (1, 8, 64, 256)]),
    "units": (PEERS, [(8, 1000, u, u) for u in (16, 64, 256, 1024)]),
    "checkpoint": (WAYS, [(32, t, 64, 256) for t in (100, 250, 500, 1000, 2000, 4000)]),
}
AXES = {  # of the sweeps that are drawn: the label, and which number of a size
    "length": ("steps", 1),
    "rows": ("rows", 0),
    "units": ("inputs, and units", 3),
}
PICTURES = {"growth.png": ["length"], "growth_rows_units.png": ["rows", "units"]}


# -- one figure, in its own process ----------------------------------------------------------------------------------------


def measure(name, b, t, d, u):
    """`(seconds of a step, MiB of the process at its peak)`."""
    kind, options = CONTESTANTS[name]
    step = torch_step(b, t, d, u) if kind == TORCH else keras_step(kind, b, t, d, u, **options)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times[2:]), peak()


def keras_step(kind, b, t, d, u, jit, **options):
    import keras
    import tensorflow as tf

    import keras_seq

    if kind == NONE:
        layer = keras.layers.Identity()
    else:
        layer = {OURS: keras_seq, KERAS: keras.layers}[kind].LSTM(u, return_sequences=True, **options)
    layer.build((b, t, d))
    x = tf.random.normal((b, t, d))

    @tf.function(jit_compile=jit)
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(result, [x, *layer.trainable_variables])

    return lambda: [g.numpy() for g in gradients(x)]


def torch_step(b, t, d, u):
    import torch

    torch.set_num_threads(os.cpu_count())
    layer = torch.nn.LSTM(d, u, batch_first=True)
    x = torch.randn(b, t, d, requires_grad=True)

    def step():
        layer.zero_grad()
        x.grad = None
        (layer(x)[0] ** 2).sum().backward()

    return step


def peak():
    """Of this process in MiB. Not by `getrusage`: that counts the process it was forked from, too."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


# -- all of them -----------------------------------------------------------------------------------------------------------


def measured(name, size, python, limit):
    """`[seconds, MiB]`, or None: it took too long or too much memory, or its interpreter lacks what it needs."""
    interpreter = python if CONTESTANTS[name][0] == TORCH else sys.executable
    command = [interpreter, __file__, "--one", name, *map(str, size)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5 * limit + 60)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        too_large = done.returncode < 0 or "ResourceExhaustedError" in done.stderr
        if not too_large and CONTESTANTS[name][0] != TORCH:
            raise RuntimeError(done.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def sweep(names, sizes, python, limit, say=lambda text: None):
    """`{size: {name: [seconds, MiB]}}` of these contestants."""
    found, slow = {}, set()
    for size in sizes:
        found[size] = {}
        for name in names:
            if name in slow:
                continue
            say(f"growth: {name} at {','.join(map(str, size))}")
            figure = measured(name, size, python, limit)
            if figure is not None:
                found[size][name] = figure
            if figure is None or figure[0] > limit:
                slow.add(name)
    return found


def text_of(found):
    """A table: a row for each size, a column for each contestant, seconds (MiB)."""
    names = [name for name in CONTESTANTS if any(name in row for row in found.values())]
    rows = [
        (",".join(map(str, size)), *(f"{row[n][0]:.3g} ({row[n][1]:.0f})" if n in row else "-" for n in names))
        for size, row in found.items()
    ]
    return timing.table(("b,t,d,u", *names), rows)


def draw(sweeps, path):
    """Seconds and memory of a step side by side, for each sweep of `{name: found}`."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(sweeps), 2, figsize=(11, 4.2 * len(sweeps)), layout="constrained", squeeze=False)
    for row, (sweep_name, found) in zip(axes, sweeps.items(), strict=True):
        label, place = AXES[sweep_name]
        for i, (axis, title) in enumerate(
            zip(row, ("seconds of a training step", "MiB of the process at its peak"), strict=True)
        ):
            for name, colour in COLOURS.items():
                points = [(size[place], figures[name][i]) for size, figures in found.items() if name in figures]
                if points:
                    axis.plot(*zip(*points, strict=True), "o-", color=colour, label=name, lw=2, ms=5)
            axis.set(xscale="log", yscale="log", xlabel=label, title=title)
            axis.grid(which="major", color="#dee2e6", lw=0.5)
            axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(COLOURS))
    figure.savefig(path, dpi=100)


def draw_all(sweeps, folder):
    """Each picture of which every sweep is there."""
    for name, shown in PICTURES.items():
        if set(shown) <= set(sweeps):
            draw({sweep_name: sweeps[sweep_name] for sweep_name in shown}, folder / name)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", default=list(SWEEPS), choices=SWEEPS, metavar="SWEEP", help=", ".join(SWEEPS)
    )
    parser.add_argument("--lengths", nargs="+", type=int, help="in place of those of the sweeps length and checkpoint")
    parser.add_argument("--limit", type=float, default=60, help="seconds of a step that are too many to go on (60)")
    parser.add_argument("--torch", default=sys.executable, metavar="PYTHON", help="interpreter that has torch")
    parser.add_argument("--pictures", type=pathlib.Path, metavar="FOLDER", help="where to draw: " + ", ".join(PICTURES))
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        name, *size = options.one
        print(json.dumps(measure(name, *map(int, size))))
        return
    drawn = {}
    for name in options.only:
        names, sizes = SWEEPS[name]
        if name in ("length", "checkpoint") and options.lengths:
            sizes = [(b, t, d, u) for t in options.lengths for b, _, d, u in sizes[:1]]
        found = sweep(names, sizes, options.torch, options.limit, lambda text: print(text, file=sys.stderr, flush=True))
        print(f"\n{name}: seconds of a training step of the LSTM (MiB)\n\n{text_of(found)}", flush=True)
        if name in AXES:
            drawn[name] = found
    if options.pictures:
        draw_all(drawn, options.pictures)


if __name__ == "__main__":
    main()
