"""Nine LSTMs side by side: the variants of Greff et al., "LSTM: A Search Space Odyssey" (2017), on one task.

    python examples/odyssey.py                         # nine cells, five seeds each: a few minutes on two cores
    python examples/odyssey.py --seeds 10 --steps 3000

The task is the continual embedded Reber grammar (Gers, Schmidhuber and Cummins 2000): strings of a small automaton, one after
the other in a stream without end, in which each string's second symbol comes again as its last but one. The net reads a
symbol and says which comes next. Most of that is local; the last but one asks for a memory of about ten steps, and the
stream asks for one that can be cleared. All cells have the same width, optimiser and streams of each seed: unlike in the
paper, no cell has its own search for a learning rate.

It prints a table and leaves in --output: odyssey.png, each seed's result as a dot.
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_seq

# in the paper's order and names; the vanilla cell has peepholes
CELLS = {
    "V": {"peepholes": True},
    "NIG": {"peepholes": True, "input_gate": False},
    "NFG": {"peepholes": True, "forget_gate": False},
    "NOG": {"peepholes": True, "output_gate": False},
    "NIAF": {"peepholes": True, "candidate_activation": "linear"},
    "NOAF": {"peepholes": True, "cell_activation": "linear"},
    "CIFG": {"peepholes": True, "coupled": True},
    "NP": {},
    "FGR": {"peepholes": True, "full_gate_recurrence": True},
}
MEANING = {
    "V": "vanilla",
    "NIG": "no input gate",
    "NFG": "no forget gate",
    "NOG": "no output gate",
    "NIAF": "no input activation",
    "NOAF": "no output activation",
    "CIFG": "coupled gates",
    "NP": "no peepholes",
    "FGR": "full gate recurrence",
}

SYMBOLS = "BTPSXVE"
# state of the inner automaton -> symbols and the states they lead to; state 5 is the end
ARROWS = [
    (("T", 1), ("P", 2)),
    (("S", 1), ("X", 3)),
    (("T", 2), ("V", 4)),
    (("X", 2), ("S", 5)),
    (("P", 3), ("V", 5)),
]


def string(rng, inner):
    """An outer string around some inner ones: its symbols, and of how many equally likely ones each was one."""
    outer = "TP"[rng.integers(2)]
    symbols, choices = ["B", outer], [1, 2]
    for _ in range(inner):
        symbols.append("B")
        choices.append(1)
        state = 0
        while state != 5:
            symbol, state = ARROWS[state][rng.integers(2)]
            symbols.append(symbol)
            choices.append(2)
        symbols.append("E")
        choices.append(1)
    return [*symbols, outer, "E"], [*choices, 1, 1]


def streams(rng, count, length, inner):
    """`(symbols, choices, remembered)`, each (count, length + 1): numbers of symbols; of how many each was one, by one who
    knows the grammar and remembers; and whether it is the one that must be remembered."""
    made = [np.zeros((count, length + 1), kind) for kind in (np.int32, np.int32, bool)]
    for row in range(count):
        found = [], [], []
        while len(found[0]) <= length:
            symbols, choices = string(rng, inner)
            remembered = [False] * len(symbols)
            remembered[-2] = True
            for parts, new in zip(found, ([SYMBOLS.index(s) for s in symbols], choices, remembered), strict=True):
                parts.extend(new)
        for array, parts in zip(made, found, strict=True):
            array[row] = parts[: length + 1]
    return made


def model(name, units, learning_rate, clip=1.0):
    """Symbols (b, t) to scores of the next ones (b, t, 7)."""
    net = keras.Sequential(
        [
            keras.layers.Embedding(len(SYMBOLS), len(SYMBOLS), embeddings_initializer="identity", trainable=False),
            keras_seq.LSTM(units, return_sequences=True, **CELLS[name]),
            keras.layers.Dense(len(SYMBOLS)),
        ]
    )
    net.compile(
        keras.optimizers.Adam(learning_rate, global_clipnorm=clip),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
        steps_per_execution=50,
    )
    return net


def score(net, test):
    """Nats per symbol, and how often the right one of the two symbols to remember is the likelier."""
    symbols, _, remembered = test
    scores = net.predict(symbols[:, :-1], batch_size=64, verbose=0)
    loss = keras.losses.sparse_categorical_crossentropy(symbols[:, 1:], scores, from_logits=True)
    t, p = scores[..., SYMBOLS.index("T")], scores[..., SYMBOLS.index("P")]
    right = (t > p) == (symbols[:, 1:] == SYMBOLS.index("T"))
    return float(np.mean(loss)), float(np.mean(right[remembered[:, 1:]]))


def trained(name, seed, options, test):
    """`(nats, share of right memories, parameters, seconds)` of one net."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    symbols, _, _ = streams(rng, options.steps * options.batch // options.epochs, options.length, options.inner)
    net = model(name, options.units, options.learning_rate)
    start = time.perf_counter()
    net.fit(symbols[:, :-1], symbols[:, 1:], batch_size=options.batch, epochs=options.epochs, verbose=0)
    return (*score(net, test), net.count_params(), time.perf_counter() - start)


def figure(results, floor, path):
    """A dot for each seed of each cell."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    titles = ("nats per symbol", "symbols remembered")
    for i, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        for place, found in enumerate(results.values()):
            values = [f[i] for f in found]
            axis.plot([place] * len(values), values, "o", alpha=0.6, color="C0")
            axis.plot([place - 0.3, place + 0.3], [np.mean(values)] * 2, color="C1")
        axis.set_xticks(range(len(results)), list(results))
        axis.set_title(title)
        axis.grid(axis="y", alpha=0.3)
    axes[0].axhline(floor, linestyle=":", color="black")
    axes[0].margins(y=0.1)
    axes[0].text(len(results) - 0.7, floor, "knows the grammar and remembers", ha="right", va="top", fontsize=8)
    axes[1].axhline(0.5, linestyle=":", color="black")
    axes[1].text(0, 0.5, "guessing", va="bottom", fontsize=8)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500, help="updates of the weights")
    parser.add_argument("--epochs", type=int, default=3, help="how often each stream is read")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=100, help="symbols of a stream")
    parser.add_argument("--inner", type=int, default=3, help="inner strings between the two symbols")
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/odyssey"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    test = streams(np.random.default_rng(10**6), 256, 2 * options.length, options.inner)
    floor = float(np.mean(np.log(test[1][:, 1:])))
    results = {name: [] for name in options.cells}
    for seed in range(options.seeds):
        for name in options.cells:
            results[name].append(trained(name, seed, options, test))
            nats, right, *_ = results[name][-1]
            print(f"seed {seed + 1} of {options.seeds}, {name:4}: {nats:.3f} nats, {right:.1%} remembered", flush=True)
    print(
        f"\nOne who knows the grammar and remembers: {floor:.3f} nats. Tested on streams twice as long as in training.\n"
    )
    print("| cell |                      | parameters | nats per symbol | remembered    | seconds |")
    print("|---|---|---|---|---|---|")
    for name, found in results.items():
        nats, right, parameters, seconds = np.transpose(found)
        print(
            f"| {name:4} | {MEANING[name]:20} | {int(parameters[0]):10,} | {nats.mean():.3f} ± {nats.std():.3f}   "
            f"| {right.mean():6.1%} ± {right.std():5.1%}| {seconds.mean():7.1f} |"
        )
    figure(results, floor, options.output / "odyssey.png")
    print(f"\n{options.output / 'odyssey.png'}")
    return results, floor


if __name__ == "__main__":
    main()
