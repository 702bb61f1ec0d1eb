"""Simulate and forecast with a NARX network: in open loop, then in closed loop, by Adam and by Levenberg-Marquardt.

Two tasks:

    plant   a nonlinear plant with a noisy sensor; the net must reproduce it from its input alone, over thousands of steps
    etth1   the oil temperature of a transformer (ETTh1, hourly, two years), 24 hours ahead, given its loads

    python examples/narx.py                       # both, one to two minutes on two cores
    python examples/narx.py --task plant --units 30 --epochs 400
    python examples/narx.py --data path/to/data   # the folder that holds timeseries/ETTh1.csv

It leaves in --output: plant.png and etth1.png, free runs against the truth before and after fine-tuning; plant_seconds.png and
etth1_seconds.png, the error of the free run against the seconds of training.

Who comes from MATLAB finds narxnet, preparets, train, closeloop and the rest by these names in the comments below.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from narx_report import (
    ADAM,
    AFTER,
    AR,
    ARX,
    BEFORE,
    CLOSED,
    LAST,
    LM,
    LONGER,
    OPEN,
    YESTERDAY,
    Clock,
    Progress,
    draw_etth1,
    draw_plant,
    draw_seconds,
    rmse,
    table,
)

import keras_seq
from keras_seq.training import LevenbergMarquardt

DATA = pathlib.Path(os.environ.get("KERAS_SEQ_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))


# -- the steps of the work, in MATLAB's order ----------------------------------------------------------------------------


def windows(sequence, length, stride):
    """(t, d) to pieces (n, length, d), one beginning every `stride` steps.

    MATLAB: preparets shifts the series by the delays and fills the first states from its beginning. Here the layer shifts by
    itself; all that is left to do is to leave its first steps, whose past is missing, out of the loss: `open_model`.
    """
    starts = range(0, len(sequence) - length + 1, stride)
    return np.stack([sequence[i : i + length] for i in starts]).astype("float32")


def open_model(layer, features, skip):
    """MATLAB: net = narxnet(...), as it comes: the true outputs are its second input.

    From (b, t, d) inputs and (b, t, 1) true outputs to predictions of each step from `skip` on, all steps at once.
    """
    x, y = keras.Input((None, features)), keras.Input((None, 1))
    return keras.Model([x, y], layer(x, targets=y)[:, skip:])


def closed_model(layer, features, warm_up):
    """MATLAB: netc = closeloop(net), which copies the weights; here both loops have the very same ones.

    From (b, t, d) inputs and the first `warm_up` true outputs (MATLAB: the states Xic and Aic that preparets gives) to the
    steps after them, each from the net's own outputs.
    """
    x, known = keras.Input((None, features)), keras.Input((warm_up, 1))
    return keras.Model([x, known], layer.close_loop()(x, targets=known)[:, warm_up:])


def train(model, inputs, targets, title, epochs, rate, options, clock):
    """MATLAB: net = train(net, Xs, Ts, Xi, Ai), with net.trainFcn = 'traingdx' or the like: here by AdamW."""
    steps = max(1, epochs * -(-len(targets) // options.batch))
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.01, clipnorm=1.0), "mse", jit_compile=options.jit)
    callbacks = [Progress(title), clock]
    model.fit(inputs, targets, batch_size=options.batch, epochs=epochs, verbose=0, callbacks=callbacks)


def train_both(layer, x, y, warm_up, options, epochs, fine_epochs, rate, fine_rate, score, clock):
    """Open loop, then from there the same epochs in open loop and in closed loop; what `score(layer)` says after each."""
    opened = open_model(layer, x.shape[-1], warm_up)
    train(opened, [x, y], y[:, warm_up:], "open loop  ", epochs, rate, options, clock)
    before, weights = score(layer), layer.get_weights()
    train(opened, [x, y], y[:, warm_up:], "as long    ", fine_epochs, fine_rate, options, Clock(lambda: 0.0))
    longer = score(layer)
    layer.set_weights(weights)
    # one weight, two loops: what closed loop learns, open loop has learned too
    closed = closed_model(layer, x.shape[-1], warm_up)
    train(closed, [x, y[:, :warm_up]], y[:, warm_up:], "closed loop", fine_epochs, fine_rate, options, clock)
    return before, longer, score(layer)


def train_by_levenberg_marquardt(layer, x, y, warm_up, options, epochs, score, clock, held=None):
    """MATLAB: train with net.trainFcn = 'trainlm', its default, in open loop and then in closed loop: each of few steps.

    With held-out windows `(x, y)` it stops where it gets worse on them, as MATLAB does of its own.
    """
    found = []
    for title, make, known in (("LM, open   ", open_model, None), ("LM, closed ", closed_model, warm_up)):
        trainer = LevenbergMarquardt(make(layer, x.shape[-1], warm_up), jit_compile="auto" if options.jit else False)
        further = {"epochs": epochs, "verbose": 0, "callbacks": [Progress(title), clock]}
        if held is not None:
            further["validation_data"] = [held[0], held[1][:, :known]], held[1][:, warm_up:]
        trainer.fit([x, y[:, :known]], y[:, warm_up:], **further)
        found.append(score(layer))
    return found


def same_start(layers, x, known, true):
    """The layers with the weights of the first, and a clock for each."""
    for layer in layers:
        layer.build((None, None, x.shape[-1]))
        layer.set_weights(layers[0].get_weights())
    return [Clock(free_run_error(layer, x, known, true)) for layer in layers]


def free_run_error(layer, x, known, true):
    """A function that says the mean squared error of the steps after the known ones, by the layer as it is then."""
    run = tf.function(lambda: tf.reduce_mean((layer.forecast(known, sequences=x) - tf.cast(true, "float32")) ** 2))
    return lambda: float(run())


def least_squares(layer, x, y, skip):
    """Put into a linear layer the weights of least squares, from windows of inputs (n, t, d) and outputs (n, t, 1)."""
    layer.build((None, None, x.shape[-1]))
    cell, t = layer.cell, x.shape[1]
    lagged = [x[:, skip - delay : t - delay] for delay in cell.input_delays] if cell.exogenous else []
    lagged += [y[:, skip - delay : t - delay] for delay in cell.output_delays]
    rows = np.concatenate([*lagged, np.ones_like(y[:, skip:])], axis=-1)
    found = np.linalg.lstsq(rows.reshape(-1, rows.shape[-1]), y[:, skip:].reshape(-1, 1), rcond=None)[0]
    n = rows.shape[-1] - 1 - len(cell.output_delays)
    if cell.exogenous:
        cell.kernel.assign(found[:n])
    cell.recurrent_kernel.assign(found[n:-1])
    cell.bias.assign(found[-1])
    return layer


def predictions(layer, x, y, warm_up):
    """Of the steps after a warm-up: one step ahead, from true outputs, and free, from the net's own.

    MATLAB: Y = net(Xs, Xi, Ai) and Yc = netc(Xc, Xic, Aic). What one gets there by removedelay, the output of the next step
    before it is measured, a layer whose input delays begin at 1 gives as it is.
    """
    x, further = (x, {"sequences": x}) if layer.cell.exogenous else (y, {"steps": x.shape[1] - warm_up})
    one_step = tf.function(layer)(x, targets=y)[:, warm_up:]
    return one_step.numpy(), tf.function(layer.forecast)(y[:, :warm_up], **further).numpy()


# -- a simulated plant ---------------------------------------------------------------------------------------------------


def plant(u, rng, process_noise=0.02, sensor_noise=0.3):
    """The second-order plant of Narendra and Parthasarathy 1990 (IEEE Trans. Neural Networks 1, example 2), with noise.

        y_t = y_{t-1} y_{t-2} (y_{t-1} + 2.5) / (1 + y_{t-1}^2 + y_{t-2}^2) + u_{t-1}

    The noise of the process goes round the loop, that of the sensor is only in what is measured.

    Args:
        u: inputs (t,).

    Returns:
        What the sensor measures (t,) and what the plant does (t,).
    """
    y = np.zeros(len(u))
    for t in range(1, len(u)):
        a, b = y[t - 1], y[t - 2] if t > 1 else 0.0
        y[t] = a * b * (a + 2.5) / (1 + a**2 + b**2) + u[t - 1] + process_noise * rng.normal()
    return y + sensor_noise * rng.normal(size=len(u)), y


def staircase(steps, rng, size=2.0, longest=8):
    """Random levels in [-size, size], each held for 1 to `longest` steps."""
    lengths = rng.integers(1, longest + 1, size=steps)
    return np.repeat(rng.uniform(-size, size, size=steps), lengths)[:steps]


def run_plant(options, folder):
    print(f"\n== a simulated plant: {options.steps} steps, the last third held out")
    rng = np.random.default_rng(options.seed)
    u = staircase(options.steps, rng)
    measured, clean = plant(u, rng)
    series = np.stack([u, measured], axis=-1)
    split = 2 * options.steps // 3
    # MATLAB: mapminmax, which narxnet applies unseen, and net.divideFcn = 'divideblock'
    mean, scale = series[:split].mean(0), series[:split].std(0)
    series = ((series - mean) / scale).astype("float32")
    warm_up, length = 10, 50
    x, y = np.split(windows(series[:split], length, 5), 2, axis=-1)
    x_test, y_test = series[None, split:, :1], series[None, split:, 1:]
    true = ((clean - mean[1]) / scale[1])[None, split + warm_up :, None]

    # MATLAB: net = narxnet(1:2, 1:2, 20)
    delays = {"input_delays": [1, 2], "output_delays": [1, 2], "return_sequences": True}
    layers = [keras_seq.NARX(options.units, 1, **delays) for _ in range(2)]
    clocks = same_start(layers, x_test, y_test[:, :warm_up], true)

    def score(net):
        return predictions(net, x_test, y_test, warm_up)

    found = train_both(
        *(layers[0], x, y, warm_up, options, options.epochs, options.fine_epochs, 2e-2, 5e-3), score, clocks[0]
    )
    found += tuple(
        train_by_levenberg_marquardt(layers[1], x, y, warm_up, options, options.newton_epochs, score, clocks[1])
    )
    linear = keras_seq.NARX(None, 1, **delays)
    last = y_test[:, warm_up - 1 : -1]
    ways = {
        LAST: (last, last[:, :1]),
        ARX: predictions(least_squares(linear, x, y, warm_up), x_test, y_test, warm_up),
        **dict(zip((BEFORE, LONGER, AFTER, OPEN, CLOSED), found, strict=True)),
    }
    rows = {name: [scale[1] * rmse(p, true) for p in each] for name, each in ways.items()}
    columns = ["one step ahead", f"free, {true.shape[1]} steps"]
    noise = rmse(measured, clean)
    table(
        f"plant, held-out steps against its output without the sensor's noise ({noise:.2f})", "its units", columns, rows
    )
    shown = {name: scale[1] * ways[name][1][0, :, 0] + mean[1] for name in (BEFORE, AFTER, CLOSED)}
    draw_plant(folder / "plant.png", scale[1] * true[0, :, 0] + mean[1], shown)
    draw_seconds(folder / "plant_seconds.png", dict(zip((ADAM, LM), clocks, strict=True)), "standardised")
    return rows


# -- the oil temperature of a transformer --------------------------------------------------------------------------------


def relative(pieces, warm_up):
    """Windows relative to the level of their warm-ups, and level and scale: (n, t, d), (n, 1, d), (n, 1, d).

    The oil is 17 degrees warm in the first 60 % of the two years and 8 in the last 20 %: a net that has learned levels has
    learned nothing. This uses nothing that is not known when the forecast is made.
    """
    known = pieces[:, :warm_up]
    level, scale = known.mean(1, keepdims=True), known.std(1, keepdims=True) + 0.1
    return (pieces - level) / scale, level, scale


def read_etth1(path):
    """Hourly loads (t, 6) and oil temperature (t, 1), degrees Celsius, side by side."""
    return np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, 8))


def run_etth1(options, folder):
    path = options.data / "timeseries" / "ETTh1.csv"
    if not path.is_file():
        print(f"\n== ETTh1 is left out: no file {path} (name its data folder by --data or KERAS_SEQ_DATA)")
        return None
    values = read_etth1(path)[: options.rows]
    ends = int(0.6 * len(values)), int(0.8 * len(values))
    mean, scale = values[: ends[0]].mean(0), values[: ends[0]].std(0)
    standard = (values - mean) / scale
    warm_up, ahead = 48, 24
    length = warm_up + ahead
    parts = {
        "train": windows(standard[: ends[0]], length, options.stride),
        "validation": windows(standard[ends[0] : ends[1]], length, 1),
        "test": windows(standard[ends[1] :], length, 1),
    }
    print(f"\n== ETTh1: {len(values)} hours; " + ", ".join(f"{len(p)} windows to {name}" for name, p in parts.items()))
    parts = {name: relative(pieces, warm_up) for name, pieces in parts.items()}
    x, y = np.split(parts["train"][0], [6], axis=-1)

    def score(net, part="test"):
        """One step ahead and 24 hours free, in degrees relative to the mean of the first part."""
        pieces, level, spread = parts[part]
        found = predictions(net, pieces[..., :6], pieces[..., 6:], warm_up)
        return [scale[6] * (spread[..., 6:] * p + level[..., 6:]) for p in found]

    def true(part="test"):
        pieces, level, spread = parts[part]
        return scale[6] * (spread[..., 6:] * pieces[..., 6:] + level[..., 6:])

    # delays may have gaps: now and an hour ago of the loads; the last three hours and yesterday's hour of the temperature
    delays = {"input_delays": [0, 1], "output_delays": [1, 2, 3, 24], "return_sequences": True}
    layers = [keras_seq.NARX(options.units, 1, **delays) for _ in range(2)]
    pieces = parts["validation"][0][::7]
    clocks = same_start(layers, pieces[..., :6], pieces[:, :warm_up, 6:], pieces[:, warm_up:, 6:])
    checked = []

    def score_both(net):
        checked.append(rmse(score(net, "validation")[1], true("validation")[:, warm_up:]))
        return score(net)

    found = train_both(
        *(layers[0], x, y, warm_up, options, -(-options.epochs // 20), -(-options.fine_epochs // 16), 5e-3, 3e-3),
        *(score_both, clocks[0]),
    )
    few = slice(None, None, 6)  # windows for Levenberg-Marquardt, whose step costs as much as some epochs of Adam
    found += tuple(
        train_by_levenberg_marquardt(
            *(layers[1], x[few], y[few], warm_up, options, -(-options.newton_epochs // 3), score_both, clocks[1]),
            held=np.split(pieces, [6], axis=-1),
        )
    )
    names = ("before", "as long", "fine-tuned", "Levenberg-Marquardt open", "closed")
    said = ", ".join(f"{value:.3f} {name}" for name, value in zip(names, checked, strict=True))
    print(f"free on the validation part: {said} (degrees)")
    whole = true()
    later, last = whole[:, warm_up:], whole[:, warm_up - 1 : -1]
    linear = keras_seq.NARX(None, 1, **delays)
    without = keras_seq.AR(None, 1, output_delays=[1, 2, 3, 24], return_sequences=True)
    yesterday = whole[:, warm_up - 24 : -24]
    ways = {
        LAST: (last, last[:, :1] + 0 * later),
        YESTERDAY: (yesterday, yesterday),
        AR: score(least_squares(without, y, y, warm_up)),
        ARX: score(least_squares(linear, x, y, warm_up)),
        **dict(zip((BEFORE, LONGER, AFTER, OPEN, CLOSED), found, strict=True)),
    }
    rows = {
        name: [rmse(one, later), rmse(free, later), rmse(free[:, -1], later[:, -1])]
        for name, (one, free) in ways.items()
    }
    columns = ["one hour ahead", "24 hours free", "the 24th hour"]
    table("ETTh1, the last 20 % (the loads of the 24 hours are given)", "degrees Celsius", columns, rows)
    draw_seconds(folder / "etth1_seconds.png", dict(zip((ADAM, LM), clocks, strict=True)), "standardised")
    draw_etth1(folder / "etth1.png", later[..., 0] + mean[6], {k: v[1][..., 0] + mean[6] for k, v in ways.items()})
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="both", choices=["plant", "etth1", "both"])
    parser.add_argument("--data", type=pathlib.Path, default=DATA, help="folder with timeseries/ETTh1.csv")
    parser.add_argument("--units", type=int, default=20, help="width of the hidden layer")
    parser.add_argument("--epochs", type=int, default=200, help="in open loop on the plant; a twentieth on ETTh1")
    parser.add_argument(
        "--fine-epochs", type=int, default=200, help="in closed loop on the plant; a sixteenth on ETTh1"
    )
    parser.add_argument(
        "--newton-epochs", type=int, default=30, help="steps of Levenberg-Marquardt in each loop; a third on ETTh1"
    )
    parser.add_argument("--steps", type=int, default=6000, help="of the plant")
    parser.add_argument("--rows", type=int, help="hours of ETTh1 to use (default all)")
    parser.add_argument("--stride", type=int, default=3, help="hours between training windows of ETTh1")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="compile by XLA")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/narx"))
    options = parser.parse_args(arguments)
    tf.get_logger().setLevel("ERROR")  # of functions that are traced for each layer
    options.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    results = {}
    if options.task in ("plant", "both"):
        results["plant"] = run_plant(options, options.output)
    if options.task in ("etth1", "both"):
        results["etth1"] = run_etth1(options, options.output)
    drawn = [f"{name}{what}.png" for name, rows in results.items() if rows for what in ("", "_seconds")]
    print(f"\nwritten to {options.output.resolve()}: {', '.join(drawn) or 'nothing'}")
    return results


if __name__ == "__main__":
    main()
