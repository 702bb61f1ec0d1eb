"""Translate dates as people write them into ISO form, character by character, with attention.

    python examples/date_translation.py                               # about a minute and a half on two cores
    python examples/date_translation.py --score dot --teacher-forcing 0.9
    python examples/date_translation.py --no-attention                # the same without attention: the states carry all

"Wednesday, March 3rd, '21" becomes "2021-03-03". The dates of the test never occur in training, in any form. It prints how
many are right to the last character, beside what is right without reading (the most frequent character at each place), and
leaves in --output: alignment_0.png .. (what was read for each character written), history.png, translator.keras.
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow_datasets as tfds

import keras_seq
import keras_seq.datasets  # registers human_dates
from keras_seq.analysis import plot_alignment
from keras_seq.models import Seq2Seq, Vocabulary

SHOWN = ("Wednesday, March 3rd, 2021", "the 21st of june '87", "05/11/63", "17.9.2004")


def load(split, count=None):
    """`(human, ISO)`: two lists of strings."""
    found = list(tfds.as_numpy(tfds.load("human_dates", split=split)))[:count]
    return [e["human"].decode() for e in found], [e["iso"].decode() for e in found]


class Progress(keras.callbacks.Callback):
    """One line an epoch, with the share of validation dates that are right."""

    def __init__(self, human, iso):
        super().__init__()
        self.human, self.iso, self.kept = human, iso, []

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        right = share_right(self.model.generate(self.human), self.iso)
        seconds = time.perf_counter() - self.start
        self.kept.append((seconds, logs["loss"], right))
        print(
            f"epoch {epoch + 1:2d}/{self.params['epochs']}  {seconds:4.0f} s  loss {logs['loss']:.4f}  "
            f"validation dates right {right:.1%}",
            flush=True,
        )


def share_right(said, true):
    return float(np.mean([a == b for a, b in zip(said, true, strict=True)]))


def without_reading(true, test):
    """The share right of always writing the characters that are the most frequent at their places."""
    columns = zip(*true, strict=True)
    said = "".join(max(set(column), key=column.count) for column in map(list, columns))
    return said, share_right([said] * len(test), test)


def translator(source, target, options):
    encoder = keras_seq.Bidirectional(keras_seq.GRU(options.units, return_sequences=True))
    if options.attention:
        cell = keras_seq.GRUCell(options.units)
        further = {"query": options.query, "output_units": options.units, "input_feeding": options.input_feeding}
        if options.score == "dot":  # the memory has to be as wide as the query
            cell = keras_seq.GRUCell(2 * options.units)
        cell = keras_seq.AttentionCell(cell, score=options.score, **further)
    else:
        cell = keras_seq.GRUCell(2 * options.units)
    return Seq2Seq(
        source,
        target,
        encoder,
        keras_seq.RNN(cell, return_sequences=True),
        embedding_size=options.embedding_size,
        dropout=options.dropout,
        teacher_forcing=options.teacher_forcing,
        max_length=11,
        pad_to=(40, 11),
    )


def pictures(folder, model, progress):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    seconds, losses, right = zip(*progress.kept, strict=True)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    axes[0].plot(seconds, losses)
    axes[0].set(xlabel="seconds", ylabel="training loss per character (nats)", yscale="log")
    axes[1].plot(seconds, 100 * np.array(right))
    axes[1].set(xlabel="seconds", ylabel="validation dates right (%)", ylim=(0, 101))
    figure.savefig(folder / "history.png", dpi=110)
    plt.close(figure)
    if not model.attends:
        return
    said = model.generate(SHOWN)
    for i, (source, target) in enumerate(zip(SHOWN, said, strict=True)):
        weights = model.alignment([source], [target])[0]
        labels = [[*text, "END"] for text in (source, target)]
        plot_alignment(weights, *labels).savefig(folder / f"alignment_{i}.png", dpi=80)


def options_of(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--score", default="additive", choices=["additive", "dot", "general", "multi_head"])
    parser.add_argument("--query", default="before", choices=["before", "after"])
    parser.add_argument("--input-feeding", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--attention", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--embedding-size", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--teacher-forcing", type=float, default=1.0, help="share of true characters fed in training")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--examples", type=int, help="use only so many of each split")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--width", type=int, default=5, help="of the beam")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="compile by XLA")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/date_translation"))
    return parser.parse_args(arguments)


def main(arguments=None):
    options = options_of(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)

    train, validation, test = (load(split, options.examples) for split in ("train", "validation", "test"))
    source, target = (Vocabulary.of(texts, split="characters") for texts in train)
    model = translator(source, target, options)
    print(
        f"{len(train[0])} dates to learn from, {len(source)} and {len(target)} tokens, {model.count_params():,} weights"
    )
    (inputs, fed), asked = model.example(*train)
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, options.epochs * len(asked) // options.batch)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), jit_compile=options.jit)
    progress = Progress(*validation)
    rest = len(asked) % options.batch  # a smaller last batch would be compiled for on its own
    count = len(asked) - rest if len(asked) > options.batch else len(asked)
    arrays = [a.numpy()[:count] for a in (inputs, fed, asked)]
    model.fit(arrays[:2], arrays[2], options.batch, epochs=options.epochs, verbose=0, callbacks=[progress])

    human, iso = test
    table = {"greedy": model.generate(human)}
    table[f"beam of {options.width}"] = model.generate(human, decoder="beam", width=options.width)
    constant, baseline = without_reading(train[1], iso)
    print(f"\n| {len(human)} unseen dates | right to the last character |\n|---|---|")
    results = {name: share_right(said, iso) for name, said in table.items()}
    for name, right in (*results.items(), (f"always {constant}", baseline)):
        print(f"| {name} | {right:.2%} |")
    print(f"{progress.kept[-1][0]:.0f} s of training")
    wrong = [(h, s, t) for h, s, t in zip(human, table["greedy"], iso, strict=True) if s != t]
    for h, s, t in wrong[:5]:
        print(f"wrong: {h!r} -> {s}, not {t}")
    pictures(options.output, model, progress)
    model.save(options.output / "translator.keras")
    print(f"written to {options.output}")
    return results


if __name__ == "__main__":
    main()
