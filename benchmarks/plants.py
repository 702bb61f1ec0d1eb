"""NARX nets on plants: Levenberg-Marquardt beside Adam, and why a net's free run is as far off as it is.

    python benchmarks/plants.py                      # all, ten minutes
    python benchmarks/plants.py --plant tanks
    python benchmarks/plants.py --plant silverbox --quick
    python benchmarks/plants.py --plant seconds      # where the seconds of a small fit go

    tanks       two cascaded tanks with overflow, their levels from the flow into the first: 1024 steps to learn from, 1024
                others to run freely over after 50 known ones. The equations are those of the benchmark (Schoukens and Noel
                2017), simulated with numbers of ours: its measurements are not to be had here.
    silverbox   an electronic oscillator with a cubic spring, 131,072 measured samples (Wigren and Schoukens 2013): the
                arrow-shaped part, whose last quarter goes further than anything before it, freely from a few known steps.
    tcn         the same arrow, from the input alone, by a TCN
    jacobian    what a Jacobian costs
    seconds     the first fits of a process, on the tanks, and the second ones: imports, tracing and compiling, steps

Errors are roots of mean squares, over all steps that are run freely.
"""

import argparse
import gzip
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_seq
from keras_seq.training import LevenbergMarquardt, free_run_pieces, residuals, sensitivities

HERE = pathlib.Path(__file__).parent
DATA = pathlib.Path(os.environ.get("KERAS_SEQ_DATA", HERE.parents[1] / "shared" / "data"))


class Net:
    """A NARX layer, its model in open loop and its model in closed loop, over the same weights."""

    def __init__(self, units, input_delays, output_delays, seed):
        keras.utils.set_random_seed(seed)
        x, true = keras.Input((None, 1)), keras.Input((None, 1))
        delays = {"input_delays": input_delays, "output_delays": output_delays}
        self.layer = keras_seq.NARX(units, 1, **delays, return_sequences=True)
        self.layer.build((None, None, 1))
        self.w = self.layer.delays
        known = keras.Input((self.w, 1))
        self.opened = keras.Model([x, true], self.layer(x, targets=true)[:, self.w :])
        self.closed = keras.Model([x, known], self.layer.close_loop()(x, targets=known)[:, self.w :])
        self.trainers = {}

    def newton(self, loop, data, epochs, **settings):
        """Steps of Levenberg-Marquardt, by one trainer for all fits of a loop."""
        if (key := (loop, *settings)) not in self.trainers:
            model = self.opened if loop == "open" else self.closed
            self.trainers[key] = LevenbergMarquardt(model, **settings)
        return self.trainers[key].fit(*data, epochs=epochs, verbose=0).history["loss"][-1]

    def pieces(self, series, steps, loop):
        """`(inputs, targets)` of one loop from a series (t, 2)."""
        (x, known), later = free_run_pieces(series[:, :1], series[:, 1:], self.w, steps)
        return ([x, known] if loop == "closed" else [x, np.concatenate([known, later], axis=1)]), later

    def free_run(self, series):
        return self.closed.predict([series[None, :, :1], series[None, : self.w, 1:]], verbose=0)[0, :, 0]


def adam(model, data, epochs, rate, batch=4):
    steps = epochs * -(-len(data[1]) // batch)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)), "mse", jit_compile=True)
    return model.fit(*data, batch_size=batch, epochs=epochs, verbose=0).history["loss"][-1]


def clocks():
    """Seconds, and those of processors that this process and its children had."""
    return np.array([time.perf_counter(), sum(os.times()[:4])])


def timed(stage, *given, **further):
    start = time.perf_counter()
    loss = stage(*given, **further)
    return loss, time.perf_counter() - start


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


# -- the cascaded tanks --------------------------------------------------------------------------------------------------


def tanks(u, rng, noise=0.02, within=20):
    """Levels, in V, of the lower of two tanks of 10 V each, 4 seconds between samples.

    dx1/dt = -k1 sqrt(x1) + k4 u,    dx2/dt = k2 sqrt(x1) - k3 sqrt(x2) + k5 u where x1 overflows
    """
    k1, k2, k3, k4, k5 = 0.1, 0.1, 0.1, 0.09, 0.09
    x1, x2, found = 3.0, 5.0, []
    for flow in u:
        found.append(x2)
        for _ in range(within):
            over = k5 * flow if x1 >= 10 else 0.0
            d1, d2 = k4 * flow - k1 * np.sqrt(x1), k2 * np.sqrt(x1) - k3 * np.sqrt(x2) + over
            x1, x2 = (float(np.clip(x + 4 / within * d, 0, 10)) for x, d in ((x1, d1), (x2, d2)))
    return np.array(found) + noise * rng.normal(size=len(found))


def multisine(steps, rng, highest=30):
    """Sines of random phases, of `highest` frequencies, around 2.8 V and up to 2.8 V apart from it."""
    phases, t = rng.uniform(0, 2 * np.pi, highest), np.arange(steps)
    u = sum(np.cos(2 * np.pi * k * t / steps + phase) for k, phase in enumerate(phases, start=1))
    return 2.8 + 2.8 * u / np.abs(u).max()


def tank_parts():
    """What is learned from and what is held out, (1024, 2), standardised by the former; its deviations."""
    parts = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        u = multisine(1024, rng)
        parts.append(np.stack([u, tanks(u, rng)], axis=-1))
    mean, scale = parts[0].mean(0), parts[0].std(0)
    return *((p - mean) / scale for p in parts), scale


def run_tanks(quick):
    """Rows of NARX nets of 3 delays and 6 units: the median and the range over seeds."""
    train, test, scale = tank_parts()
    ways = {
        "linear ARX, least squares": None,
        "Adam, open loop, 200 epochs": lambda net: adam(net.opened, net.pieces(train, 61, "open"), 200, 1e-2),
        "and then in closed loop, 100 epochs over 61 steps": lambda net: adam(
            net.closed, net.pieces(train, 61, "closed"), 100, 3e-3
        ),
        "Levenberg-Marquardt, open loop, 30 steps": lambda net: net.newton("open", net.pieces(train, 1021, "open"), 30),
        "in closed loop over 61 steps, 30 steps": lambda net: net.newton("closed", net.pieces(train, 61, "closed"), 30),
        "over all 1021, 60 steps": lambda net: net.newton("closed", net.pieces(train, 1021, "closed"), 60),
        "from there, Bayesian, 30 steps": lambda net: net.newton(
            "closed", net.pieces(train, 1021, "closed"), 30, bayesian=True
        ),
    }
    found = {name: [] for name in ways}
    for seed in range(1 if quick else 3):
        for name, way in ways.items():
            if name.startswith("linear"):
                net, seconds = Net(None, [1, 2, 3], 3, seed), np.zeros(2)
                least_squares(net, train)
            else:
                if name.startswith(("Adam", "Levenberg")):
                    net, seconds = Net(6, [1, 2, 3], 3, seed), np.zeros(2)
                before = clocks()
                way(net)
                seconds = seconds + clocks() - before
            errors = [scale[1] * rms((net.free_run(p) - p[net.w :, 1])[50 - net.w :]) for p in (train, test)]
            found[name].append((*errors, *seconds))
            print(
                f"tanks, seed {seed}: {name}: {errors[0]:.3f} V, held out {errors[1]:.3f} V, {seconds[0]:.1f} s",
                flush=True,
            )
    lines = [
        "| | training part, V | held-out part, V | over the seeds | seconds | of the processor |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        train_error, error, seconds, busy = np.median(rows, axis=0)
        low, high = np.min(rows, axis=0)[1], np.max(rows, axis=0)[1]
        spread = f"{low:.3f} to {high:.3f}"
        lines.append(f"| {name} | {train_error:.3f} | {error:.3f} | {spread} | {seconds:.1f} | {busy:.1f} |")
    return lines


def least_squares(net, series):
    """The weights of a linear net, one step ahead."""
    w, delays = net.w, net.layer.cell.input_delays
    u, y = series.T
    rows = np.stack(
        [*(u[w - d : len(u) - d] for d in delays), *(y[w - d : len(y) - d] for d in range(1, w + 1))], axis=-1
    )
    found = np.linalg.lstsq(np.append(rows, np.ones((len(rows), 1)), axis=1), y[w:], rcond=None)[0][:, None]
    net.layer.set_weights([found[: len(delays)], found[len(delays) : -1], found[-1]])


# -- the Silverbox -------------------------------------------------------------------------------------------------------


def silverbox():
    """The multisine part and the arrow, (t, 2), standardised by the former; the output's deviation in mV."""
    with gzip.open(DATA / "silverbox" / "SNLS80mV.csv.gz", "rt") as file:
        rows = np.genfromtxt(file, delimiter=",", skip_header=1, usecols=(0, 1))
    mean, scale = rows[40650:127400].mean(0), rows[40650:127400].std(0)
    rows = (rows - mean) / scale
    return rows[40650:127400], rows[:40575], 1e3 * scale[1]


def run_silverbox(quick):
    train, arrow, unit = silverbox()
    short, whole = train[:12_000], train[: 20_000 if quick else len(train)]
    lines = [
        "| units, delays | trained | samples | one step, mV | arrow, mV | its quarters | seconds |",
        "|---|---|---|---|---|---|---|",
    ]

    def row(net, name, samples, loss, seconds):
        error = unit * (net.free_run(arrow) - arrow[net.w :, 1])
        quarters = ", ".join(f"{rms(part):.2f}" for part in np.array_split(error, 4))
        shape = f"{net.layer.cell.units}, {net.w}"
        lines.append(
            f"| {shape} | {name} | {samples:,} | {unit * loss**0.5:.2f} | {rms(error):.2f} | {quarters} | {seconds:.0f} |"
        )
        print("silverbox:", lines[-1], flush=True)

    def net(units=10, delays=4, seed=0):
        return Net(units, list(range(delays)), delays, seed)

    for name, part, epochs in (
        ("Adam, open loop, 20 epochs", short, 20),
        ("Adam, open loop, 20 epochs", whole, 20),
        ("Adam, open loop, 200 epochs", whole, 20 if quick else 200),
    ):
        one = net()
        loss, seconds = timed(adam, one.opened, one.pieces(part, 400, "open"), epochs, 1e-2)
        row(one, name, len(part), loss, seconds)
    loss, more = timed(adam, one.closed, one.pieces(short, 200, "closed"), 20 if quick else 100, 1e-3)
    row(one, "and then in closed loop over 200 steps, 100 epochs", len(short), loss, seconds + more)
    for units, delays, part in ((10, 4, short), (10, 2, whole), (10, 4, whole), (20, 4, whole)):
        if quick and (units, delays) != (10, 4):
            continue
        one = net(units, delays)
        loss, seconds = timed(one.newton, "open", one.pieces(part, 2000, "open"), 20 if quick else 60)
        row(one, "Levenberg-Marquardt, open loop, 60 steps", len(part), loss, seconds)
        few = part[:20_000]
        loss, more = timed(one.newton, "closed", one.pieces(few, 200, "closed"), 10 if quick else 25)
        row(one, "and then in closed loop over 200 steps, 25 steps", len(few), loss, seconds + more)
    return lines


def finite_memory(series, taps, arrow):
    """The error of the best linear filter of so many inputs, fitted to a series, on the quietest quarter of the arrow."""

    def rows(part):
        return np.lib.stride_tricks.sliding_window_view(part[:, 0], taps), part[taps - 1 :, 1]

    x, y = rows(series)
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    x, y = rows(arrow[: len(arrow) // 4])
    return rms(x @ weights - y)


def run_tcn(quick):
    """A TCN that sees the input alone: how its error falls with training, and what its finite memory costs."""
    train, arrow, unit = silverbox()
    x, y = (np.stack([s[i : i + 512, None] for i in range(0, len(s) - 511, 384)]).astype("float32") for s in train.T)
    lines = ["| epochs | first step of Adam | arrow, mV | its quarters | seconds |", "|---|---|---|---|---|"]
    for epochs, rate in ((10, 2e-3), (2, 1e-2)) if quick else ((10, 2e-3), (10, 1e-2), (60, 1e-2)):
        keras.utils.set_random_seed(0)
        layer = keras_seq.TCN(16, kernel_size=3, dilations=[1, 2, 4, 8, 16, 32], return_sequences=True)
        model = keras.Sequential([keras.Input((None, 1)), layer, keras.layers.Dense(1)])
        # the first steps of a window lack their past
        later = keras.Model(model.inputs, model.outputs[0][:, layer.receptive_field :])
        _, seconds = timed(adam, later, (x, y[:, layer.receptive_field :]), epochs, rate, batch=8)
        error = unit * (model.predict(arrow[None, :, :1], verbose=0)[0, :, 0] - arrow[:, 1])
        quarters = ", ".join(f"{rms(part):.2f}" for part in np.array_split(error, 4))
        lines.append(f"| {epochs} | {rate} | {rms(error):.2f} | {quarters} | {seconds:.0f} |")
        print("tcn:", lines[-1], flush=True)
    for taps in (32, 64, 128, layer.receptive_field, 512):
        error = unit * finite_memory(train[: 20_000 if quick else 40_000], taps, arrow)
        lines.append(f"the best linear filter of {taps} inputs, first quarter: {error:.2f} mV")
        print("tcn:", lines[-1], flush=True)
    return lines


# -- what a Jacobian costs -------------------------------------------------------------------------------------------------


def run_jacobian(quick):
    """Milliseconds for J^T J and J^T r, carried forward or by products with one direction after the other; and those of r."""
    lines = [
        "| | rows, steps | weights | r | carried forward | without XLA | one direction after the other |",
        "|---|---|---|---|---|---|---|",
    ]
    delays = {"input_delays": 3, "output_delays": 3, "return_sequences": True}
    models = {
        "NARX of 6 units, closed loop": lambda: keras_seq.NARX(6, 1, closed=True, **delays),
        "GRU of 8 units": lambda: keras_seq.GRU(8, return_sequences=True),
        "LSTM of 16 units": lambda: keras_seq.LSTM(16, return_sequences=True),
    }
    for name, make in models.items():
        for rows, steps in ((1, 1024), (16, 64)):
            model = keras.Sequential([keras.Input((None, 1)), make(), keras.layers.Dense(1)])
            x = np.random.default_rng(0).normal(size=(rows, steps, 1))
            ways = {}
            for way, has_memory in (("forward", sensitivities.has_memory), ("each", lambda model: False)):
                fit, before = residuals.Residuals(model), sensitivities.has_memory
                prepared = residuals.prepared(fit, "", x, x, None, 2**31)
                compiled, batch = fit.programs(prepared, True), prepared.batches[0]
                vector = tf.constant(fit.current())
                sensitivities.has_memory = has_memory
                try:
                    compiled.normal(vector, batch)
                finally:
                    sensitivities.has_memory = before
                ways[way] = lambda normal=compiled.normal, v=vector, b=batch: normal(v, b).squares.numpy()
            plain = fit.programs(prepared, False).normal
            ways["plain"] = lambda normal=plain, v=vector, b=batch: normal(v, b).squares.numpy()
            ways["r"] = lambda sums=compiled.sums, v=vector, b=batch: sums(v, b).squares.numpy()
            least = dict.fromkeys(ways, np.inf)
            for _ in range(3 if quick else 6):
                for way, call in ways.items():
                    least[way] = min(least[way], 1e3 * timed(call)[1])
            shown = " | ".join(f"{least[way]:.1f}" for way in ("r", "forward", "plain", "each"))
            lines.append(f"| {name} | {rows}, {steps} | {fit.size} | {shown} |")
            print(lines[-1], flush=True)
    return lines


# -- the seconds of a small fit ------------------------------------------------------------------------------------------


def run_seconds(quick):
    """Seconds by the clock and of the processor: imports, and the stages of a NARX of 3 delays and 6 units on the tanks."""
    lines = ["| | seconds | of the processor | held-out part, V |", "|---|---|---|---|"]

    def row(name, spent, error=""):
        lines.append(f"| {name} | {spent[0]:.2f} | {spent[1]:.2f} | {error} |")
        print("seconds:", lines[-1], flush=True)

    before = clocks()
    subprocess.run(
        [sys.executable, "-c", "import tensorflow, keras, keras_seq.training"], check=True, capture_output=True
    )
    row("imports, in a process of their own", clocks() - before)
    train, test, scale = tank_parts()
    first, second = Net(6, [1, 2, 3], 3, 0), Net(6, [1, 2, 3], 3, 1)
    start = second.layer.get_weights()
    for name, net, further in (
        ("first fit", first, {}),
        ("a second net", second, {}),
        ("its trainer again", second, {}),
        ("all by XLA", second, {"jit_compile": True}),
    ):
        if net is second:
            net.layer.set_weights(start)
        for loop, steps, epochs in (("open", 1021, 30), ("closed", 61, 30), ("closed", 1021, 60))[: 2 if quick else 3]:
            before = clocks()
            net.newton(loop, net.pieces(train, steps, loop), 3 if quick else epochs, **further)
            spent = clocks() - before
            error = scale[1] * rms((net.free_run(test) - test[net.w :, 1])[50 - net.w :])
            row(f"{name}, {loop} loop over {steps} steps", spent, f"{error:.3f}")
    return lines


RUNS = {
    "seconds": run_seconds,  # first, as it is of the first fits of a process
    "tanks": run_tanks,
    "silverbox": run_silverbox,
    "tcn": run_tcn,
    "jacobian": run_jacobian,
}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plant", default="all", choices=[*RUNS, "all"])
    parser.add_argument(
        "--quick", action="store_true", help="fewer seeds, samples and steps, to try it; writes nothing"
    )
    options = parser.parse_args(arguments)
    found = {name: run(options.quick) for name, run in RUNS.items() if options.plant in (name, "all")}
    for name, lines in found.items():
        print(f"\n{name}\n" + "\n".join(lines))
    return found


if __name__ == "__main__":
    main()
