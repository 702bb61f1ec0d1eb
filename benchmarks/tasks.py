"""Small tasks to learn: arrays to train on, arrays held out, and how long and how fast to learn them.

Read from the folder KERAS_SEQ_DATA (characters, plant, system, forecast) or made up (the others). Every array is NumPy's, so
that all libraries learn from the same; token 0 is padding and left out of the loss.
"""

import dataclasses
import functools
import gzip
import os
import pathlib

import numpy as np

DATA = pathlib.Path(os.environ.get("KERAS_SEQ_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))


@dataclasses.dataclass
class Task:
    """Inputs (one or several arrays), targets, the same held out; the loss, and the recipe that all contestants follow.

    `loss` is "tokens" (cross-entropy per token, nats) or "squares" (mean squared error from step `skip` on). `unit` is what
    the root of the squared error is multiplied by; None for nats or the error itself. `floor` is the loss of the simple way
    that `simple` names.
    """

    title: str
    inputs: tuple
    targets: np.ndarray
    held_out: tuple
    loss: str
    epochs: int
    batch: int
    rate: float
    floor: float
    simple: str
    skip: int = 0
    convolves: bool = False  # convolutions are faster without XLA
    sizes: dict = dataclasses.field(default_factory=dict)
    vocabularies: tuple = ()


def tokens(texts, vocabulary, length):
    """START, the tokens, END, padded to (b, length)."""
    numbers = {token: i for i, token in enumerate(vocabulary)}
    rows = np.zeros((len(texts), length), "int32")
    for row, text in zip(rows, texts, strict=True):
        found = [2, *(numbers.get(token, 1) for token in text), 3]
        row[: len(found)] = found
    return rows


def counted(texts):
    """The four special tokens, then all others, the most frequent first."""
    words, counts = np.unique([token for text in texts for token in text], return_counts=True)
    return ["", "[UNK]", "[START]", "[END]", *(str(words[i]) for i in np.argsort(-counts, kind="stable"))]


def entropy_of_frequencies(train, held_out, size):
    """The loss of saying how frequent each token is in training."""
    counts = np.bincount(train[train > 0], minlength=size) + 1.0
    return float(-np.log(counts / counts.sum())[held_out[held_out > 0]].mean())


def characters(quick):
    text = (DATA / "tinyshakespeare" / "input.txt").read_text()
    length, count = 64, 800 if quick else 3200
    pieces = [text[i : i + length] for i in range(0, (count + 400) * length, length)]
    vocabulary = counted(pieces[:count])
    rows = tokens(pieces, vocabulary, length + 2)[:, :-1]  # END is made up: a piece goes on
    train, held = rows[:count], rows[count:]
    floor = entropy_of_frequencies(train[:, 1:], held[:, 1:], len(vocabulary))
    return Task(
        "characters of Shakespeare, LSTM(128)",
        (train[:, :-1],),
        train[:, 1:],
        ((held[:, :-1],), held[:, 1:]),
        "tokens",
        4,
        32,
        3e-3,
        floor,
        "frequencies of characters",
        vocabularies=(vocabulary,),
    )


def made_up_language(count, rng):
    """Pairs of sentences: a source with Zipf's frequencies, and its translation word by word, in another order.

    A noun has one of three genders, which its article and its adjective show in the target alone; there the adjective stands
    behind the noun, and the verb at the end.
    """
    kinds = {"n": 1200, "v": 600, "a": 400, "d": 4, "p": 8}
    shares = {kind: 1 / np.arange(2, size + 2) for kind, size in kinds.items()}

    def word(kind):
        return int(rng.choice(kinds[kind], p=shares[kind] / shares[kind].sum()))

    def phrase():
        article, noun = word("d"), word("n")
        adjectives, gender = [word("a") for _ in range(rng.integers(0, 2))], noun * 7 % 3
        source = [f"d{article}", *(f"a{a}" for a in adjectives), f"n{noun}"]
        return source, [f"D{article}.{gender}", f"N{noun}", *(f"A{a}.{gender}" for a in adjectives)]

    def sentence():
        (first, one), (second, two), verb = phrase(), phrase(), word("v")
        source, target = [*first, f"v{verb}", *second], [*one, *two]
        if rng.random() < 0.5:
            preposition, (third, three) = word("p"), phrase()
            source, target = [*source, f"p{preposition}", *third], [*target, f"P{preposition}", *three]
        return source, [*target, f"V{verb}"]

    return zip(*(sentence() for _ in range(count)), strict=True)


def translation(quick):
    count = 1200 if quick else 2400
    sources, targets = map(list, made_up_language(count + 480, np.random.default_rng(0)))
    vocabularies = counted(sources[:count]), counted(targets[:count])
    x, y = tokens(sources, vocabularies[0], 15)[:, 1:], tokens(targets, vocabularies[1], 15)
    floor = entropy_of_frequencies(y[:count, 1:], y[count:, 1:], len(vocabularies[1]))
    return Task(
        "translation of a made-up language of 2,200 words, GRU(64) with attention",
        (x[:count], y[:count, :-1]),
        y[:count, 1:],
        ((x[count:], y[count:, :-1]), y[count:, 1:]),
        "tokens",
        6,
        32,
        2e-3,
        floor,
        "frequencies of words",
        vocabularies=vocabularies,
    )


def captions(quick):
    from keras_seq.datasets.scenes import describe, draw_scene, sample_scene

    count, rng = 320 if quick else 1280, np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(count + 300)]
    pictures = np.stack([draw_scene(scene, rng) for scene in scenes])
    texts = [describe(scene)[0].split() for scene in scenes]
    vocabulary = counted(texts[:count])
    y = tokens(texts, vocabulary, 14)
    floor = entropy_of_frequencies(y[:count, 1:], y[count:, 1:], len(vocabulary))
    return Task(
        "captions of drawn scenes, CNN and LSTM(128)",
        (pictures[:count], y[:count, :-1]),
        y[:count, 1:],
        ((pictures[count:], y[count:, :-1]), y[count:, 1:]),
        "tokens",
        8,
        32,
        1e-3,
        floor,
        "frequencies of words",
        vocabularies=(vocabulary,),
        convolves=True,
    )


@functools.cache
def silverbox():
    """Input and output of the circuit (t,), standardised by the multisine part, and the output's deviation in mV."""
    with gzip.open(DATA / "silverbox" / "SNLS80mV.csv.gz", "rt") as file:
        rows = np.genfromtxt(file, delimiter=",", names=True)
    u, y = (np.asarray(rows[name], "float64") for name in ("V1", "V2"))
    u, y = ((v - v[40650:].mean(), v[40650:].std()) for v in (u, y))
    return (u[0] / u[1]).astype("float32"), (y[0] / y[1]).astype("float32"), float(1e3 * y[1])


def pieces(signal, first, last, length, stride):
    return np.stack([signal[i : i + length] for i in range(first, last - length + 1, stride)]).astype("float32")


LAGS = 4  # of the plant's inputs and outputs


def plant(quick):
    """The next output of the circuit from 4 inputs and 4 outputs; the held-out part is the arrow-shaped one."""
    u, y, unit = silverbox()
    count = 12_000 if quick else 60_000
    train, held = slice(40650, 40650 + count), slice(0, 40_000)
    parts = [pieces(s[part, None], 0, s[part].size, 400, 400) for part in (train, held) for s in (u, y)]
    past = np.mean((parts[3][:, 1:] - parts[3][:, :-1]) ** 2)
    return Task(
        "Silverbox, the next step, NARX of 10 units",
        (parts[0], parts[1]),
        parts[1],
        ((parts[2], parts[3]), parts[3]),
        "squares",
        6 if quick else 20,
        4,
        1e-2,
        float(past),
        "the last value",
        skip=LAGS,
        sizes={"unit": unit},
    )


def system(quick):
    """The whole output of the circuit from its input alone."""
    u, y, unit = silverbox()
    length, warm_up, count = 512, 128, 12_000 if quick else 50_000
    stride = length - warm_up
    train = [pieces(s[:, None], 40650, 40650 + count, length, stride) for s in (u, y)]
    held = [pieces(s[:, None], 100_000, 120_000, length, stride) for s in (u, y)]
    return Task(
        "Silverbox, the output from the input, TCN of six blocks of 16",
        (train[0],),
        train[1],
        ((held[0],), held[1]),
        "squares",
        10,
        8,
        2e-3,
        float(np.mean(held[1] ** 2)),
        "the mean",
        skip=warm_up,
        convolves=True,
        sizes={"unit": unit},
    )


def forecast(quick):
    """A transformer's oil temperature 24 hours ahead from a week of it and its loads: the change from now."""
    rows = np.genfromtxt(DATA / "timeseries" / "ETTh1.csv", delimiter=",", skip_header=1, usecols=range(1, 8))
    count, week, ahead = 4000 if quick else 8640, 168, 24
    rows = (rows - rows[:count].mean(0)) / rows[:count].std(0)
    change = rows[ahead:, -1:] - rows[:-ahead, -1:]
    train = [pieces(s, 0, count - ahead, week, 24) for s in (rows, change)]
    held = [pieces(s, 8640, 11520 - ahead, week, 24) for s in (rows, change)]
    return Task(
        "ETTh1, 24 hours ahead, GRU(32)",
        (train[0],),
        train[1],
        ((held[0],), held[1]),
        "squares",
        12,
        32,
        3e-3,
        float(np.mean(held[1][:, 24:] ** 2)),
        "as it is now",
        skip=24,
    )


def tagging(quick):
    """The kind of each word, of which a third is ambiguous: its neighbours, also later ones, decide."""
    rng, count, length = np.random.default_rng(0), 600 if quick else 3000, 12
    kinds, words = 6, 300
    follows = rng.dirichlet(np.full(kinds, 0.3), kinds)
    tags = np.zeros((count + 500, length), "int32")
    tags[:, 0] = rng.integers(kinds, size=len(tags))
    for t in range(1, length):
        tags[:, t] = (
            (rng.random(len(tags))[:, None] > np.cumsum(follows[tags[:, t - 1]], axis=1)).sum(1).clip(0, kinds - 1)
        )
    shares = 1 / np.arange(2, words + 2)
    word = rng.choice(words, tags.shape, p=shares / shares.sum())
    # words of a third of the numbers are the same for two kinds
    x = 1 + word * kinds + np.where(word % 3 == 0, tags // 2 * 2, tags)
    y = (tags + 1).astype("int32")
    size = words * kinds + 1
    best = np.zeros((size, kinds + 1)) + 0.1
    np.add.at(best, (x[:count].ravel(), y[:count].ravel()), 1)
    best[:, 0] = 0
    said = best / best.sum(1, keepdims=True)
    floor = -np.log(said[x[count:], y[count:]]).mean()
    return Task(
        "tags of ambiguous words, Bidirectional(LSTM(32)); ours behind vectors from N(0, 1)",
        (x[:count].astype("int32"),),
        y[:count],
        ((x[count:].astype("int32"),), y[count:]),
        "tokens",
        8,
        32,
        3e-3,
        float(floor),
        "each word's own frequencies",
        sizes={"words": size, "tags": kinds + 1},
    )


def memory(quick):
    """The adding problem (Hochreiter and Schmidhuber 1997): the sum of the two numbers marked among 60."""
    rng, count, length = np.random.default_rng(0), 2000 if quick else 7680, 60
    values, marks = rng.random((count + 1000, length)), np.zeros((count + 1000, length))
    for row in marks:
        row[[rng.integers(length // 2), rng.integers(length // 2, length)]] = 1
    x = np.stack([values, marks], axis=-1).astype("float32")
    y = (values * marks).sum(1, keepdims=True).astype("float32")[:, None]
    return Task(
        "adding two of 60 numbers, LSTM(32)",
        (x[:count],),
        y[:count],
        ((x[count:],), y[count:]),
        "squares",
        8,
        32,
        5e-3,
        1 / 6,
        "no memory",
    )


TASKS = {task.__name__: task for task in (characters, translation, captions, plant, system, forecast, tagging, memory)}
