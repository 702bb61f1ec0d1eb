"""Adding over a thousand steps: a memory whose gates read the inputs alone beside the plain recurrence.

    python examples/thousand_steps.py           # five minutes on two busy cores
    python examples/thousand_steps.py --steps 600 --seed 1

Of a thousand random numbers two are marked; say their sum at the end. Always saying 1 gives a squared error of 1/6. Neither
model learns it from sequences of a thousand steps at once: at first all that they sum up is noise. So both begin with 20 steps,
and go on, with the weights that they have, to 50, 100, 200, 500 and 1,000.

MinGRU needs no loop over time, and forgets only where an input tells it to. A SimpleRNN has to carry what it
has seen through a product and a tanh a thousand times; it is given about as many weights.

It prints a table and leaves thousand_steps.png in --output.
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

FLOOR = 1 / 6


def min_gru(units):
    """Two MinGRUs, each behind a dense layer that says what is worth keeping."""
    dense = [keras.layers.Dense(units, "gelu") for _ in range(2)]
    return [dense[0], keras_seq.MinGRU(units, return_sequences=True), dense[1], keras_seq.MinGRU(units)]


def simple_rnn(units):
    return [keras_seq.SimpleRNN(int(2.2 * units))]  # about as many weights


# the layers, and Adam's rate at the start of each length: of 0.005, 0.002, 0.001 and 0.0003 the one that each learns best with
MODELS = {"MinGRU": (min_gru, 0.005), "SimpleRNN": (simple_rnn, 0.0003)}


def train(name, options):
    """`(weights, [(length, seconds so far, squared error, share within 0.04)])`, the errors those of sequences held out."""
    keras.utils.set_random_seed(options.seed)
    layers, rate = MODELS[name]
    model = keras.Sequential([keras.Input((None, 2)), *layers(options.units), keras.layers.Dense(1)])
    rng, begun, found = np.random.default_rng(options.seed), time.perf_counter(), []
    for length in options.lengths:
        falling = keras.optimizers.schedules.CosineDecay(rate, options.steps)
        model.compile(keras.optimizers.Adam(falling, global_clipnorm=1.0), "mse", jit_compile=True)
        for step in range(1, options.steps + 1):
            loss = model.train_on_batch(*memory_tasks.adding(rng, options.batch, length))
            if step % 100 == 0:
                print(f"{name:9}  {length:5,} steps long  update {step:4}  error {float(loss):.4f}", flush=True)
        x, y = memory_tasks.adding(np.random.default_rng(10**6), 512, length)
        error = model.evaluate(x, y, batch_size=128, verbose=0)
        found.append((length, time.perf_counter() - begun, error, memory_tasks.nearly_right(model, x, y)))
    return model.count_params(), found


def table(results):
    """The results as lines to print."""
    lines = ["| model | weights | length | seconds so far | squared error | within 0.04 |", "|---|---|---|---|---|---|"]
    for name, (weights, found) in results.items():
        for length, seconds, error, right in found:
            lines.append(f"| {name} | {weights:,} | {length:,} | {seconds:.0f} | {error:.5f} | {right:.0%} |")
    return "\n".join(lines)


def draw(results, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, (_, found)), marker in zip(results.items(), "os", strict=True):
        lengths, _, errors, _ = zip(*found, strict=True)
        axes.plot(lengths, errors, marker=marker, label=name)
    axes.axhline(FLOOR, color="gray", linestyle=":", label="always saying 1")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="steps of the sequences, seen in this order",
        ylabel="squared error, held out",
    )
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths], minor=False)
    axes.minorticks_off()
    axes.set_title("The sum of two marked numbers")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[20, 50, 100, 200, 500, 1000])
    parser.add_argument("--steps", type=int, default=300, help="updates at each length")
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("thousand_steps"))
    options = parser.parse_args(arguments)
    results = {name: train(name, options) for name in MODELS}
    print("\n" + table(results))
    options.output.mkdir(parents=True, exist_ok=True)
    draw(results, options.output / "thousand_steps.png")
    return results


if __name__ == "__main__":
    main()
