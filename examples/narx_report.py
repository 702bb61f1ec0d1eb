"""What examples/narx.py says of its nets: lines while they are trained, the error against the seconds, tables, pictures."""

import time

import keras
import numpy as np

BEFORE, AFTER = "NARX, trained in open loop", "NARX, fine-tuned in closed loop"
LONGER = "NARX, as long, all in open loop"
ADAM, LM = "Adam", "Levenberg-Marquardt"
OPEN, CLOSED = "NARX, Levenberg-Marquardt, open", "NARX, Levenberg-Marquardt, closed"
LAST, YESTERDAY, AR, ARX = (
    "last value",
    "same hour of yesterday",
    "linear AR, least squares",
    "linear ARX, least squares",
)
COLOURS = {
    "truth": "#868e96",
    BEFORE: "#c92a2a",
    LONGER: "#e599f7",
    AFTER: "#087f5b",
    OPEN: "#f783ac",
    CLOSED: "#364fc7",
    LAST: "#1c7ed6",
    YESTERDAY: "#f08c00",
    AR: "#862e9c",
    ARX: "#212529",
}
MARKERS = {BEFORE: "o", LONGER: "s", AFTER: "^", OPEN: "x", CLOSED: "D", LAST: "v", AR: "+", ARX: "*"}


class Progress(keras.callbacks.Callback):
    """Ten lines in all."""

    def __init__(self, title):
        super().__init__()
        self.title = title

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        done, count = epoch + 1, self.params["epochs"]
        if done in (1, count) or done * 9 // count > epoch * 9 // count:
            spent = time.perf_counter() - self.start
            print(f"  {self.title}  epoch {done:3d}/{count}  {spent:4.0f} s  loss {logs['loss']:.5f}", flush=True)


class Clock(keras.callbacks.Callback):
    """The mean squared error of a free run against the seconds of training, those that the run takes left out."""

    def __init__(self, free_run_error):
        super().__init__()
        self.free_run_error, self.seconds, self.curve, self.stages = free_run_error, 0.0, [], []
        free_run_error()  # traced

    def on_train_begin(self, logs=None):
        self.stages.append(len(self.curve))
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += time.perf_counter() - self.start
        done, count = epoch + 1, self.params["epochs"]
        if done <= 8 or done == count or done * 40 // count > epoch * 40 // count:
            self.curve.append((self.seconds, self.free_run_error()))
        self.start = time.perf_counter()


def pyplot():
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt


def rmse(predicted, true):
    """MATLAB: sqrt(perform(net, Ts, Y))."""
    return float(np.sqrt(np.mean(np.square(predicted - true))))


def table(title, unit, columns, rows):
    print(f"\n{title}: root mean squared error ({unit})\n{'':34}" + "".join(f"{c:>18}" for c in columns))
    for name, values in rows.items():
        print(f"{name:34}" + "".join(f"{v:18.3f}" for v in values))
    for column, name in enumerate(columns):
        (first, least), (second, next_best), *_ = sorted(((k, v[column]) for k, v in rows.items()), key=lambda r: r[1])
        print(f"best, {name}: {first}; {next_best / least - 1:.1%} worse: {second}")


def draw_seconds(path, curves, unit):
    """Curves by name: the mean squared error of the free run against seconds of training."""
    from matplotlib import ticker

    figure, axis = pyplot().subplots(figsize=(8, 4.5), layout="constrained")
    for (name, clock), style in zip(curves.items(), ("o-", "s--"), strict=True):
        seconds, errors = np.array(clock.curve).T
        (line,) = axis.plot(seconds, errors, style, ms=3, lw=1.2, label=name)
        place = clock.stages[-1]
        label = "closed loop from here" if line.get_marker() == "o" else None
        axis.plot(seconds[place], errors[place], "k^", ms=8, fillstyle="none", label=label)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="seconds of training, compiling included",
        ylabel=f"mean squared error ({unit})",
    )
    for each in (axis.xaxis, axis.yaxis):
        each.set_minor_locator(ticker.LogLocator(subs=(2, 3, 5)))
        each.set_major_formatter("{x:g}")
        each.set_minor_formatter("{x:g}")
    axis.set_title("free run on held-out steps")
    axis.legend()
    figure.savefig(path, dpi=100)


def draw_plant(path, true, runs, shown=160):
    figure, axes = pyplot().subplots(len(runs), 1, figsize=(10, 8), sharex=True, sharey=True, layout="constrained")
    steps = np.arange(min(shown, len(true)))
    for axis, (name, free) in zip(axes, runs.items(), strict=True):
        axis.plot(steps, true[: len(steps)], color=COLOURS["truth"], lw=3, label="plant")
        axis.plot(steps, free[: len(steps)], color=COLOURS[name], lw=1.2, label="free run")
        axis.set(title=f"{name}: error {rmse(free, true):.3f} over {len(true)} steps", ylabel="output")
        axis.legend(loc="upper left", ncols=2)
    axes[-1].set_xlabel("steps after the warm-up, on held-out inputs")
    figure.savefig(path, dpi=100)


def draw_etth1(path, true, free, days=8):
    """Forecasts of some days, one after the other, and the error of each hour ahead over all windows."""
    figure, axes = pyplot().subplots(2, 1, figsize=(10, 7.5), layout="constrained")
    starts = len(true) // 3 + 24 * np.arange(days)
    starts = starts[starts < len(true)]
    for i, start in enumerate(starts):
        hours = 24 * i + np.arange(true.shape[1])
        for name, values, width in (
            ("truth", true, 3),
            (LAST, free[LAST], 1),
            (BEFORE, free[BEFORE], 1.4),
            (AFTER, free[AFTER], 1.4),
        ):
            axes[0].plot(hours, values[start], color=COLOURS[name], lw=width, label=None if i else name)
        axes[0].axvline(24 * i, color="#ced4da", lw=0.8, zorder=0)
    axes[0].set(
        xlabel="hours of the test part; a new forecast at each line",
        ylabel="oil temperature (deg C)",
        title="24 hours ahead, each forecast from what was measured before it",
    )
    axes[0].legend(ncols=2, fontsize=8)
    hours = np.arange(1, true.shape[1] + 1)
    for name, values in free.items():
        error = np.sqrt(np.mean((values - true) ** 2, axis=0))
        marker, every = MARKERS.get(name, ""), slice(list(free).index(name) % 3, None, 3)
        axes[1].plot(hours, error, label=name, color=COLOURS[name], lw=1.2, marker=marker, markevery=every, ms=5)
    axes[1].set(xlabel="hours ahead", ylabel="root mean squared error (deg C)", xticks=hours[2::3], ylim=(0, None))
    axes[1].legend(ncols=2, fontsize=8)
    figure.savefig(path, dpi=100)
