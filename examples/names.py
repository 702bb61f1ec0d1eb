"""Which of 18 languages a family name is from, by its letters: many to one, a memory that reads in both directions.

    python examples/names.py                              # about a minute on two cores
    python examples/names.py --pooling last --units 128 --epochs 20
    python examples/names.py --data path/to/data          # the folder that holds names/Arabic.txt, names/Chinese.txt ..

The names of each language are its file's lines, each counted once, whether in capitals or not. Some stand in several files
(Adam is English, French, German, Irish and Russian): such a name is one example for each of its languages, so that no
answer is right for all of them; the table says how many are right at the most. A fifth of the names is tested on, drawn among
the names of each combination of languages, so that all are in both parts and no name is in both. Half of all names are Russian:
in training a name of a language with n names weighs as 1 / n^balance, balance = 1 for languages that all count the same,
0 for names that do, and scores are both accuracy and the mean of the languages' F1. The default arguments were chosen by the
tenth of the names to train that is held out for validation; the names to test on are looked at once, at the end.

A Bidirectional GRU reads the letters; its outputs are averaged (`MaskedMean`), or both halves give what they have when they
have read all (--pooling last). Beside it stand always the most frequent language, and naive Bayes on the 1, 2 and 3 letters
in a row, smoothed as does best on a tenth of the names to train.

It prints a table and leaves in --output: names.png, which languages are taken for which.
"""

import argparse
import os
import pathlib
import time
import unicodedata

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_seq
from keras_seq.models import Vocabulary

DATA = pathlib.Path(os.environ.get("KERAS_SEQ_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
SHOWN = ["Rossi", "Nakamura", "MacDonald", "Papadopoulos", "Dubois", "Nguyen"]


def read_names(folder):
    """`{name: {language, ..}}` of the files of a folder, one for each language, one name a line."""
    found = {}
    for path in sorted(folder.glob("[A-Z]*.txt")):
        if path.stem == "SOURCE":
            continue
        spelled = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            name = unicodedata.normalize("NFC", line).strip()
            if name:
                spelled.setdefault(name.casefold(), name)
        for folded in spelled:
            found.setdefault(folded, {})[path.stem] = spelled[folded]
    return {next(iter(languages.values())): set(languages) for languages in found.values()}


def split(names, share, rng):
    """Two such dicts, the second with a `share` of the names of each combination of languages, rounded by chance."""
    kinds, held_out = {}, set()
    for name, languages in names.items():
        kinds.setdefault(tuple(sorted(languages)), []).append(name)
    for kind in sorted(kinds):
        count = int(share * len(kinds[kind]) + rng.uniform())
        held_out.update(rng.permutation(kinds[kind])[:count].tolist())
    parts = {False: {}, True: {}}
    for name, languages in names.items():
        parts[name in held_out][name] = languages
    return parts[False], parts[True]


def examples(names, languages):
    """`(list of names, numbers of their languages)`, a name once for each of its languages."""
    pairs = [(name, languages.index(language)) for name in names for language in sorted(names[name])]
    return [name for name, _ in pairs], np.array([label for _, label in pairs])


def scores(labels, answers, count):
    """`(accuracy, mean F1 of the languages, confusion (count, count))`: rows are the true languages, columns the answers."""
    confusion = np.bincount(labels * count + answers, minlength=count**2).reshape(count, count)
    right = np.diag(confusion)
    f1 = 2 * right / np.maximum(confusion.sum(0) + confusion.sum(1), 1)
    return right.sum() / len(labels), f1.mean(), confusion


class NaiveBayes:
    """argmax_l ln P(l) + sum_g ln P(g | l), g all runs of 1 to `order` letters of a name, its edges marked.

    P(g | l) = (n(g, l) + alpha) / (n(l) + alpha (number of different g + 1)), P(l) the share of the names.
    """

    def __init__(self, names, labels, count, alpha, order=3):
        self.order = order
        runs = [self.runs(name) for name in names]
        self.place = {g: i for i, g in enumerate(sorted({g for found in runs for g in found}))}
        n = np.zeros((len(self.place) + 1, count))  # the last row: what was never read
        for found, label in zip(runs, labels, strict=True):
            np.add.at(n, ([self.place[g] for g in found], label), 1)
        self.given = np.log((n + alpha) / (n.sum(0) + alpha * len(n)))
        self.prior = np.log(np.bincount(labels, minlength=count) / len(labels))

    def runs(self, name):
        marked = f"^{name.casefold()}$"
        return [marked[i : i + n] for n in range(1, self.order + 1) for i in range(len(marked) - n + 1)]

    def answers(self, names):
        rows = [[self.place.get(g, -1) for g in self.runs(name)] for name in names]
        return np.array([np.argmax(self.prior + self.given[row].sum(0)) for row in rows])


def classifier(vocabulary, count, options):
    """Letters (b, t) to scores of the languages (b, count)."""
    memory = keras_seq.GRU(options.units, return_sequences=options.pooling == "mean", dropout=0.2)
    pooling = [keras_seq.MaskedMean()] if options.pooling == "mean" else []
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(len(vocabulary), 48, mask_zero=True),
            keras_seq.Bidirectional(memory),
            *pooling,
            keras.layers.Dropout(0.3),
            keras.layers.Dense(count),
        ]
    )


class Progress(keras.callbacks.Callback):
    """One line for each epoch."""

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        print(
            f"epoch {epoch + 1:2d}/{self.params['epochs']}  {time.perf_counter() - self.start:4.0f} s  "
            f"loss {logs['loss']:.4f}  validation {logs['val_accuracy']:.2%}",
            flush=True,
        )


def figure(confusion, languages, title, path):
    """The share of each language's names (rows) that are taken for each language (columns)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    counts = confusion.sum(1)
    share = 100 * confusion / np.maximum(counts, 1)[:, None]
    fig, axis = plt.subplots(figsize=(8.6, 7.6), layout="constrained")
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(share >= 0.5):
        color = "white" if share[row, column] > 60 else "black"
        axis.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", fontsize=7.5, color=color)
    places = range(len(languages))
    axis.set_xticks(places, languages, rotation=60, ha="right")
    axis.set_yticks(places, [f"{name} ({n})" for name, n in zip(languages, counts, strict=True)])
    axis.set(xlabel="answer", ylabel="language of the name (names tested)", title=title)
    fig.colorbar(image, label="% of the language's names", shrink=0.8)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=DATA, help="folder with names/Arabic.txt ..")
    parser.add_argument("--units", type=int, default=96, help="of each direction")
    parser.add_argument("--pooling", default="mean", choices=["mean", "last"])
    parser.add_argument("--balance", type=float, default=0.2, help="weights in training, from 0 to 1")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="at the start; it falls as a cosine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="compile by XLA")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/names"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)

    names = read_names(options.data / "names")
    languages = sorted(set().union(*names.values()))
    size, rng = len(languages), np.random.default_rng(options.seed)
    learned, tested = split(names, 0.2, rng)
    learned, validated = split(learned, 0.1, rng)
    parts = [examples(part, languages) for part in (learned, validated, tested)]
    (train_names, train_labels), (validation_names, validation_labels), (test_names, test_labels) = parts
    several = sum(len(found) > 1 for found in names.values())
    print(
        f"{len(names)} names of {size} languages, {several} in several; {len(train_names)} examples to learn, "
        f"{len(validation_names)} for validation, {len(test_names)} to test",
        flush=True,
    )

    counts = np.bincount(train_labels, minlength=size)
    answers = {"most frequent": np.full(len(test_labels), counts.argmax())}
    counted = [NaiveBayes(train_names, train_labels, size, alpha) for alpha in (0.01, 0.03, 0.1, 0.3, 1.0)]
    best = max(counted, key=lambda bayes: np.mean(bayes.answers(validation_names) == validation_labels))
    answers["naive Bayes"] = best.answers(test_names)

    vocabulary = Vocabulary.of([*train_names, *validation_names], split="characters")
    longest = max(map(len, [*names, *SHOWN])) + 2

    def letters(names):
        tokens = np.asarray(vocabulary.encode(names))
        return np.pad(tokens, ((0, 0), (0, longest - tokens.shape[1])), constant_values=vocabulary.pad)

    model = classifier(vocabulary, size, options)
    steps = options.epochs * -(-len(train_names) // options.batch)
    weights = (counts[train_labels] / np.mean(counts)) ** -options.balance
    model.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(options.learning_rate, steps), weight_decay=0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=options.jit,
    )
    model.fit(
        letters(train_names),
        train_labels,
        sample_weight=weights / weights.mean(),
        validation_data=(letters(validation_names), validation_labels),
        batch_size=options.batch,
        validation_batch_size=500,
        epochs=options.epochs,
        verbose=0,
        callbacks=[Progress()],
    )
    answers["Bidirectional GRU"] = model.predict(letters(test_names), batch_size=500, verbose=0).argmax(-1)

    results = {name: scores(test_labels, found, size) for name, found in answers.items()}
    print("\n| answers           | accuracy | mean F1 |")
    print("|---|---|---|")
    for name, (accuracy, f1, _) in results.items():
        print(f"| {name:17} | {accuracy:8.2%} | {f1:7.3f} |")
    print(f"| right at the most | {len(tested) / len(test_labels):8.2%} |         |")
    shown = np.exp(keras.ops.log_softmax(model.predict(letters(SHOWN), verbose=0)))
    for name, p in zip(SHOWN, shown, strict=True):
        likely = ", ".join(f"{languages[i]} {p[i]:.0%}" for i in np.argsort(-p)[:3])
        print(f"{name:14} {likely}")
    accuracy, f1, confusion = results["Bidirectional GRU"]
    figure(confusion, languages, f"{accuracy:.1%} right, mean F1 {f1:.2f}", options.output / "names.png")
    print(f"\n{options.output / 'names.png'}")
    return results


if __name__ == "__main__":
    main()
