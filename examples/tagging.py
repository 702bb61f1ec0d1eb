"""Find day, month and year in written dates, letter by letter: a BiLSTM with a conditional random field, and without one.

    python examples/tagging.py                                 # about a minute on two cores
    python examples/tagging.py --dates 1000 --epochs 40
    python examples/tagging.py --conll path/to/train.txt --test path/to/test.txt

The dates are those of HumanDates ("Wednesday, March 3rd, '21"), few to learn from, so that what the letters say is not enough
everywhere. Both models have the same layers but for the last, `CRF`, and are trained alike. Without it each letter's tag is the
likeliest for itself, whatever stands beside it; with it the tags of a date are chosen together, and cannot break the scheme.

A CoNLL file has a word a line, its tag in the last column, and an empty line after each sentence. Its tags are of IOB, BIO or
BIOES, and are learned in --scheme. Without --test a fifth of the sentences is tested on. Words that occur once in training
stand for those that are unknown.

It prints precision, recall and F1 of whole spans, counted as conlleval and seqeval do, how many answers break the scheme, some
answers side by side, and with the CRF how sure it is of each.
"""

import argparse
import collections
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_seq
from keras_seq.decoding import CRFLoss, crf_check_labels, crf_loss, viterbi
from keras_seq.layers.spans import allowed_transitions
from keras_seq.metrics import SpanScores

UNKNOWN = 1  # 0 is padding


def read_conll(path):
    """`[(words, spans), ..]` of the sentences of a file."""
    sentences, words, tags = [], [], []
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        columns = line.split()
        if not columns or columns[0] == "-DOCSTART-":
            if words:
                sentences.append((words, keras_seq.tags_to_spans(tags)))
            words, tags = [], []
            continue
        if len(columns) < 2:
            raise ValueError(f"{path}, line {number}: expected a word and its tag, got {line!r}")
        words.append(columns[0])
        tags.append(columns[-1])
    return sentences


def read_dates(split, count):
    """`[(letters, spans), ..]` of the first dates of a split."""
    import tensorflow_datasets as tfds

    import keras_seq.datasets  # registers human_dates

    found = []
    for date in tfds.as_numpy(tfds.load("human_dates", split=split).take(count)):
        places = zip(date["spans"].tolist(), keras_seq.datasets.dates.PARTS, strict=True)
        found.append((list(date["human"].decode()), [(start, stop, part) for (start, stop), part in places]))
    return found


def names_of_tags(sentences, scheme):
    """All tags that the spans of some sentences may need, "O" first."""
    types = sorted({kind for _, spans in sentences for _, _, kind in spans})
    return ["O", *(f"{prefix}-{kind}" for kind in types for prefix in scheme if prefix != "O")]


def numbers_of_words(sentences, least):
    """`{word: number}`, from 2, of the words that occur so often at least."""
    counts = collections.Counter(word for words, _ in sentences for word in words)
    return {word: place for place, word in enumerate(sorted(w for w, n in counts.items() if n >= least), UNKNOWN + 1)}


def arrays(sentences, numbers, names, scheme):
    """`(words (b, t), tags (b, t))`, integers, zeros after the end."""
    x = np.zeros((len(sentences), max(len(words) for words, _ in sentences)), "int32")
    y = np.zeros_like(x)
    for row, (words, spans) in enumerate(sentences):
        x[row, : len(words)] = [numbers.get(word, UNKNOWN) for word in words]
        y[row, : len(words)] = [names.index(tag) for tag in keras_seq.spans_to_tags(spans, len(words), scheme)]
    return x, y


def tagger(size, names, scheme, options, crf):
    """Words (b, t) to scores of the tags, or to the potentials of a CRF over them."""
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(size, options.embedding, mask_zero=True),
            keras.layers.Dropout(options.dropout),
            keras_seq.Bidirectional(keras_seq.LSTM(options.units, return_sequences=True)),
            keras.layers.Dropout(options.dropout),
            keras.layers.Dense(len(names)),
            *([keras_seq.CRF(names, scheme)] if crf else []),
        ]
    )


def trained(model, loss, data, names, options):
    steps = options.epochs * -(-len(data[0]) // options.batch)
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=[SpanScores(names)], jit_compile=options.jit)
    model.fit(*data, batch_size=options.batch, epochs=options.epochs, verbose=0)
    return model


def answers(model, x, crf):
    """`(tags (b, t), -1 after the end; how likely each row's are, or None)`."""
    y = model.predict(x, batch_size=500, verbose=0)
    if not crf:
        return np.where(x > 0, y.argmax(-1), -1), None
    tags = np.asarray(viterbi(y)[0])
    return tags, np.exp(-np.asarray(crf_loss(tags, y)))


def broken(tags, names, scheme):
    """How many rows break the scheme."""
    first, transitions, last = allowed_transitions(names, scheme)
    rows = [row[row >= 0] for row in tags]
    return sum(not (first[r[0]] and last[r[-1]] and np.all(transitions[r[:-1], r[1:]])) for r in rows if len(r))


def marked(words, tags, names):
    """The text with its spans in brackets: "the [day 3rd] of [month march]"."""
    join = "".join if all(len(word) == 1 for word in words) else " ".join
    pieces, end = [], 0
    for start, stop, kind in keras_seq.tags_to_spans([names[tag] for tag in tags if tag >= 0]):
        pieces += [*words[end:start], f"[{kind} {join(words[start:stop])}]"]
        end = stop
    return join([*pieces, *words[end:]])


def data(options):
    """`(sentences to learn from, sentences to test on, how often a word occurs at least)`."""
    if options.conll is None:
        return read_dates("train", options.dates), read_dates("test", options.tested), 1
    learned = read_conll(options.conll)
    if options.test is not None:
        return learned, read_conll(options.test), 2
    order = np.random.default_rng(options.seed).permutation(len(learned))
    tested = set(order[: len(learned) // 5].tolist())
    parts = {chosen: [s for i, s in enumerate(learned) if (i in tested) == chosen] for chosen in (False, True)}
    return parts[False], parts[True], 2


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dates", type=int, default=60, help="to learn from")
    parser.add_argument("--tested", type=int, default=2000, help="dates to test on")
    parser.add_argument("--conll", type=pathlib.Path, help="a file to learn from in place of the dates")
    parser.add_argument("--test", type=pathlib.Path, help="a CoNLL file to test on")
    parser.add_argument("--scheme", default="BIO", choices=["BIO", "BIOES"])
    parser.add_argument("--units", type=int, default=16, help="of each direction")
    parser.add_argument("--embedding", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.01, help="at the start; it falls as a cosine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="compile by XLA")
    options = parser.parse_args(arguments)

    learned, tested, least = data(options)
    names, numbers = names_of_tags([*learned, *tested], options.scheme), numbers_of_words(learned, least)
    print(f"{len(learned)} sequences to learn from, {len(tested)} to test; tags {' '.join(names)}", flush=True)
    train, test = (arrays(part, numbers, names, options.scheme) for part in (learned, tested))
    crf_check_labels(train[1], names, options.scheme, mask=train[0] > 0)

    results = {}
    for name, crf in (("BiLSTM", False), ("BiLSTM-CRF", True)):
        keras.utils.set_random_seed(options.seed)
        begun = time.perf_counter()
        loss = CRFLoss() if crf else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = tagger(len(numbers) + 2, names, options.scheme, options, crf)
        trained(model, loss, train, names, options)
        seconds = time.perf_counter() - begun
        tags, likely = answers(model, test[0], crf)
        metric = SpanScores(names)
        metric.update_state(test[1], tags)
        scores = {key: float(value) for key, value in metric.result().items()}
        results[name] = {**scores, "broken": broken(tags, names, options.scheme), "tags": tags, "likely": likely}
        print(f"{name} trained in {seconds:.0f} s", flush=True)

    print("\n|            | precision | recall |    F1 | answers that break the scheme |\n|---|---|---|---|---|")
    for name, own in results.items():
        shown = f"| {name:10} | {own['precision']:9.1%} | {own['recall']:6.1%} | {own['f1']:5.1%} |"
        print(f"{shown} {own['broken']:29d} |")
    shown = 0
    for row, (words, _) in enumerate(tested):
        texts = {name: marked(words, own["tags"][row], names) for name, own in results.items()}
        if len(set(texts.values())) < 2 or shown == 5:
            continue
        shown += 1
        print(f"\n  right       {marked(words, test[1][row, : len(words)], names)}")
        for name, text in texts.items():
            likely = results[name]["likely"]
            print(f"  {name:10}  {text}" + ("" if likely is None else f"   (p = {likely[row]:.2f})"))
    return results


if __name__ == "__main__":
    main()
