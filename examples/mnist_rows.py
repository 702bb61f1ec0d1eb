"""MNIST read row by row, 28 steps of 28 pixels: a stack, both directions, a time-delay network and a TCN side by side.

    python examples/mnist_rows.py                             # four models, five minutes or so on two cores
    python examples/mnist_rows.py --models tdnn tcn --epochs 5
    python examples/mnist_rows.py --data path/to/data         # the folder that holds mnist/train-images-idx3-ubyte.gz ..

Each model reads a picture from its first row to its last and says once, at the end, which digit it was. The last 5,000 of
the training pictures are held out for validation: widths, rates and epochs were chosen by them. The test pictures are looked
at once, when training is over. Where the files are not found, `tensorflow_datasets` is asked for "mnist".

It prints a table and leaves in --output: mnist_rows.png, the accuracy after each epoch against the seconds of training, and
test pictures that models get wrong.
"""

import argparse
import gzip
import os
import pathlib
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_seq

# the TCN's last row sees 29 rows, one more than there are
warnings.filterwarnings("ignore", ".*shorter than the receptive field")

DATA = pathlib.Path(os.environ.get("KERAS_SEQ_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
HELD_OUT = 5000


def stack():
    """Two LSTMs one above the other; the upper one gives what it has at the last row."""
    return [keras_seq.Stacked(keras_seq.LSTM, [80, 80])]


def bidirectional():
    """One GRU reads downwards and one upwards; both give what they have when they have read all."""
    return [keras_seq.Bidirectional(keras_seq.GRU(80))]


def tdnn():
    """Each row with its neighbours, then every second row of that, every fourth ..: at the end a row sees the picture."""
    contexts = [-2, -1, 0, 1, 2], [-2, 0, 2], [-4, 0, 4], [-8, 0, 8]
    layers = [keras_seq.TDNN(80, context=context, activation="relu") for context in contexts]
    return [keras_seq.Stacked(layers, dropout=0.1), keras_seq.MaskedMean()]


def tcn():
    """Causal convolutions at distances 1, 2, 4: the last row sees 29 rows."""
    return [keras_seq.TCN(64, kernel_size=3, dilations=[1, 2, 4], dropout=0.1)]


# what makes the layers between the rows and the scores of the digits; passes through the training pictures
MODELS = {"stack": (stack, 6), "bidirectional": (bidirectional, 6), "tdnn": (tdnn, 6), "tcn": (tcn, 6)}


def idx(path):
    """The array of unsigned bytes in a gzipped idx file."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def mnist(folder):
    """`((pictures (n, 28, 28), digits (n,)) to train, the same to test)`, bytes, from the files or by tensorflow_datasets."""
    if folder.is_dir():
        return [
            (idx(folder / f"{part}-images-idx3-ubyte.gz"), idx(folder / f"{part}-labels-idx1-ubyte.gz"))
            for part in ("train", "t10k")
        ]
    import tensorflow_datasets as tfds

    print(f"no folder {folder}: asking tensorflow_datasets for mnist", flush=True)
    parts = tfds.load("mnist", split=["train", "test"], batch_size=1000, as_supervised=True)
    parts = [[np.concatenate(b) for b in zip(*tfds.as_numpy(part), strict=True)] for part in parts]
    return [(pictures[..., 0], digits) for pictures, digits in parts]


def rows(pictures):
    """Pictures of bytes (n, 28, 28) as sequences of 28 rows, values in [0, 1]."""
    return pictures.astype("float32") / 255


class Progress(keras.callbacks.Callback):
    """One line for each epoch, kept as `(seconds, accuracy on the pictures held out)`."""

    def __init__(self, title):
        super().__init__()
        self.title, self.kept = title, []

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append((time.perf_counter() - self.start, logs["val_accuracy"]))
        print(
            f"{self.title:13}  epoch {epoch + 1:2d}/{self.params['epochs']}  {self.kept[-1][0]:4.0f} s  "
            f"loss {logs['loss']:.4f}  held out {logs['val_accuracy']:.2%}",
            flush=True,
        )


def trained(name, train, held_out, options):
    """`(model, epochs, its Progress)`."""
    keras.utils.set_random_seed(options.seed)
    layers, epochs = MODELS[name]
    epochs = options.epochs or epochs
    model = keras.Sequential([keras.Input((28, 28)), *layers(), keras.layers.Dense(10)], name=name)
    steps = epochs * -(-len(train[0]) // options.batch)
    model.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(options.learning_rate, steps), weight_decay=0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=options.jit,
    )
    progress = Progress(name)
    model.fit(
        *train,
        batch_size=options.batch,
        epochs=epochs,
        validation_data=held_out,
        validation_batch_size=1000,
        verbose=0,
        callbacks=[progress],
    )
    return model, epochs, progress.kept


def figure(curves, answers, test, path):
    """Accuracy against seconds, and the test pictures that most of the models get wrong."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    pictures, digits = test
    fig = plt.figure(figsize=(12, 4.8), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=[1.1, 1])
    axis = left.subplots()
    lowest = 0.98
    for i, (name, kept) in enumerate(curves.items()):
        seconds, accuracy = np.transpose(kept)
        final = np.mean(answers[name] == digits)
        lowest = min(lowest, *accuracy[1:], final)
        axis.plot(seconds, 100 * accuracy, ".-", color=f"C{i}", label=f"{name}, held out")
        axis.plot(seconds[-1], 100 * final, "*", ms=13, color=f"C{i}", label=f"{name}, test: {final:.2%}")
    axis.axhline(98, linestyle=":", color="black")
    axis.set(xlabel="seconds of training", ylabel="accuracy (%)", ylim=(100 * lowest - 0.3, 100), xlim=(0, None))
    axis.set_title("28 steps of 28 pixels")
    axis.grid(alpha=0.3)
    fig.draw_without_rendering()
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=len(curves), fontsize=7.5, frameon=False)

    wrong = np.stack([found != digits for found in answers.values()])
    hardest = np.argsort(-wrong.sum(0), kind="stable")[:18]
    right.suptitle("test pictures that most models get wrong: the digit, and the answers", fontsize=11)
    for i, place in enumerate(right.subplots(3, 6).flat):
        place.axis("off")
        if i < len(hardest) and wrong[:, hardest[i]].any():
            place.imshow(pictures[hardest[i]], cmap="gray_r")
            said = " ".join(str(found[hardest[i]]) for found in answers.values())
            place.set_title(f"{digits[hardest[i]]}:  {said}", fontsize=9)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--epochs", type=int, help="passes through the training pictures (default: each model's own)")
    parser.add_argument("--limit", type=int, help="pictures of each part to use (default all)")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument(
        "--data", type=pathlib.Path, default=DATA, help="folder with mnist/train-images-idx3-ubyte.gz .."
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="compile by XLA")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/mnist_rows"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    (pictures, digits), test = mnist(options.data / "mnist")
    split = max(len(pictures) - HELD_OUT, len(pictures) // 2)
    parts = {
        "train": (pictures[:split], digits[:split]),
        "validation": (pictures[split:], digits[split:]),
        "test": test,
    }
    parts = {name: (p[: options.limit], d[: options.limit]) for name, (p, d) in parts.items()}
    print(", ".join(f"{len(d)} pictures to {name}" for name, (_, d) in parts.items()), flush=True)
    train, held_out = ((rows(parts[name][0]), parts[name][1]) for name in ("train", "validation"))
    test = parts["test"]
    results, curves, answers = {}, {}, {}
    for name in options.models:
        model, epochs, curves[name] = trained(name, train, held_out, options)
        answers[name] = model.predict(rows(test[0]), batch_size=1000, verbose=0).argmax(-1)
        accuracy = float(np.mean(answers[name] == test[1]))
        results[name] = (model.count_params(), epochs, accuracy, curves[name][-1][0])
    print("\n| model         | parameters | epochs | test accuracy | seconds |")
    print("|---|---|---|---|---|")
    for name, (parameters, epochs, accuracy, seconds) in results.items():
        print(f"| {name:13} | {parameters:10,} | {epochs:6} | {accuracy:13.2%} | {seconds:7.1f} |")
    figure(curves, answers, test, options.output / "mnist_rows.png")
    print(f"\n{options.output / 'mnist_rows.png'}")
    return results


if __name__ == "__main__":
    main()
