"""Spoken numbers of two to five digits: from sound to labels by CTC, without being told when which digit is said.

    python examples/spoken_digits.py                               # two minutes or so on two cores
    python examples/spoken_digits.py --held-out-speaker theo       # harder: a voice that was never heard in training
    python examples/spoken_digits.py --data path/to/data           # the folder that holds fsdd/recordings/7_theo_12.wav ..

The Free Spoken Digit Dataset has 3,000 recordings of single digits, ten digits by six speakers in fifty takes each. A number
here is two to five of them by one speaker, any digits, with up to a quarter of a second of faint noise, or none, before, after
and between them. The recordings are turned into log-mel frames once; each batch of training joins others of them. What would
last more than four seconds is drawn anew.

By default takes 0 to 4 of each speaker are for the test, as the data set has it, takes 5 to 9 for validation and 10 to 49 for
training. With a speaker held out all recordings of that one are the test, and the takes of the others are divided so.

Four frames are one step of the model, 40 ms: a time-delay layer sees each with its neighbours, then a bidirectional LSTM reads
them; the loss is CTC's, under the masks of the padded batches. It prints the label error rate, the digits to insert, delete
or replace for each digit that was said, and leaves in --output: spoken_digits.png, the frames of one number with what the
model says and the forced alignment.
"""

import argparse
import os
import pathlib
import time
import wave

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keras_seq
from keras_seq.decoding import CTCLoss, ctc_align, ctc_beam_search, ctc_check_labels, ctc_greedy

DATA = pathlib.Path(os.environ.get("KERAS_SEQ_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
RATE, STRIDE, WINDOW, MELS = 8000, 80, 200, 32
FRAMES = 400  # four seconds
STEP = 4  # frames to one step of the model
SILENCE = 25  # frames at the most
SHAPE = (FRAMES // STEP, STEP * MELS)
MOST = 5  # digits
HIDDEN = -99.0  # what a padded step holds


def sound(path):
    """The samples of a mono file of 16 bits, in [-1, 1)."""
    with wave.open(str(path)) as file:
        kind = (file.getnchannels(), file.getsampwidth(), file.getframerate())
        if kind != (1, 2, RATE):
            raise ValueError(f"{path}: expected one channel of 2 bytes at {RATE} Hz, got {kind}")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype("float32") / 32768


def log_mel(sounds, at_once=100):
    """Log-mel frames (n, MELS) in dB of each sound, one every 10 ms."""
    layer = keras.layers.MelSpectrogram(
        256, STRIDE, WINDOW, "hann", RATE, MELS, min_freq=60, top_db=200, min_power=1e-4
    )
    found = []
    longest = -(-max(map(len, sounds)) // STRIDE) * STRIDE
    for i in range(0, len(sounds), at_once):
        piece = sounds[i : i + at_once]
        padded = np.stack([np.pad(s, (0, longest - len(s))) for s in piece])
        frames = np.swapaxes(keras.ops.convert_to_numpy(layer(padded)), 1, 2)
        found += [f[: len(s) // STRIDE] for f, s in zip(frames, piece, strict=True)]
    return found


def recordings(folder):
    """A dict from `(speaker, digit, take)` to log-mel frames."""
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise FileNotFoundError(
            f"no .wav files in {folder}: expected those of the Free Spoken Digit Dataset, see --data"
        )
    keys = [path.stem.split("_") for path in paths]
    frames = log_mel([sound(path) for path in paths])
    return {(speaker, int(digit), int(take)): f for (digit, speaker, take), f in zip(keys, frames, strict=True)}


def divided(frames, held_out=None):
    """The recordings `train`, `validation` and `test`."""
    parts = {"train": {}, "validation": {}, "test": {}}
    for (speaker, digit, take), f in frames.items():
        if held_out is None:
            part = "test" if take < 5 else "validation" if take < 10 else "train"
        else:
            part = "test" if speaker == held_out else "validation" if take < 10 else "train"
        parts[part][speaker, digit, take] = f
    return parts


class Numbers:
    """Numbers made of recordings: `batch(rng, n)` gives steps (n, FRAMES / STEP, STEP * MELS), padded, and labels (n, MOST).

    From each band its mean over the number is taken off: what differs between microphones and voices at all times.

    A label is its digit and 1; 0 is CTC's blank and the padding.
    """

    def __init__(self, frames, noise, deviation):
        self.by_speaker = {}
        for (speaker, digit, _), f in frames.items():
            self.by_speaker.setdefault(speaker, []).append((digit, f))
        self.speakers = sorted(self.by_speaker)
        self.noise, self.deviation = noise, deviation

    def one(self, rng):
        while True:
            spoken = self.by_speaker[self.speakers[rng.integers(len(self.speakers))]]
            chosen = [spoken[i] for i in rng.integers(len(spoken), size=rng.integers(2, MOST + 1))]
            noise = self.noise[rng.integers(len(self.noise))]
            pieces = []
            for _, f in [*chosen, (None, noise[:0])]:
                start = rng.integers(len(noise) - SILENCE)
                pieces += [noise[start : start + rng.integers(SILENCE + 1)], f]
            rest = -sum(map(len, pieces)) % STEP
            frames = np.concatenate([*pieces, noise[:rest]])
            if len(frames) <= FRAMES:
                steps = np.reshape((frames - frames.mean(0)) / self.deviation, (-1, STEP * MELS))
                return steps, [digit + 1 for digit, _ in chosen]

    def batch(self, rng, count):
        x, labels = np.full((count, *SHAPE), HIDDEN, "float32"), np.zeros((count, MOST), "int32")
        for r in range(count):
            steps, said = self.one(rng)
            x[r, : len(steps)], labels[r, : len(said)] = steps, said
        return x, labels

    def endless(self, rng, count):
        while True:
            yield self.batch(rng, count)


def numbers(parts, rng):
    """The three parts as `Numbers`, on the scale of the training recordings."""
    deviation = np.concatenate(list(parts["train"].values())).std(0)
    loudness = 10 ** rng.uniform(-3.5, -2.5, size=20)
    noise = log_mel([(a * rng.normal(size=RATE)).astype("float32") for a in loudness])
    return {name: Numbers(frames, noise, deviation) for name, frames in parts.items()}


def model_of(options):
    """Steps to the scores of the blank and of ten digits at each."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Masking(HIDDEN),
            keras_seq.TDNN(options.units, context=[-1, 0, 1], activation="relu"),
            keras_seq.Bidirectional(keras_seq.LSTM(options.units, return_sequences=True)),
            keras.layers.Dense(11),
        ],
        name="spoken_digits",
    )


def shown(x):
    """Which steps are real."""
    return np.any(x != HIDDEN, axis=-1)


def error_rate(tokens, labels):
    """Digits to insert, delete or replace, for each one that was said."""
    edits = tf.edit_distance(tf.sparse.from_dense(tokens), tf.sparse.from_dense(labels), normalize=False)
    return float(tf.reduce_sum(edits)) / np.sum(labels > 0)


def constant(train, test):
    """The error rate of the best answer that does not listen: one digit so many times, chosen by the training labels."""
    answers = [[digit] * n + [0] * (MOST - n) for digit in range(1, 11) for n in range(1, MOST + 1)]
    best = min(answers, key=lambda answer: error_rate(np.tile(np.int32(answer), (len(train), 1)), train))
    return error_rate(np.tile(np.int32(best), (len(test), 1)), test)


class Progress(keras.callbacks.Callback):
    """One line for each piece of the training."""

    def __init__(self, validation):
        super().__init__()
        self.x, self.labels = validation
        self.greedy = tf.function(lambda x, m: ctc_greedy(x, m)[0], jit_compile=True)

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        scores = self.model.predict(self.x, batch_size=100, verbose=0)
        rate = error_rate(self.greedy(scores, shown(self.x)), self.labels)
        print(
            f"step {(epoch + 1) * self.params['steps']:5d}  {time.perf_counter() - self.start:4.0f} s  "
            f"loss {logs['loss']:6.3f}  label error rate, validation {rate:.1%}",
            flush=True,
        )


def trained(parts, options):
    """`(model, seconds)`."""
    model = model_of(options)
    batches = parts["train"].endless(np.random.default_rng(options.seed + 1), options.batch)
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(options.learning_rate, options.steps),
            weight_decay=1e-3,
            clipnorm=1.0,
        ),
        CTCLoss(),
        jit_compile=options.jit,
    )
    progress = Progress(parts["validation"].batch(np.random.default_rng(options.seed + 2), min(options.count, 200)))
    epochs = max(1, options.steps // 100)
    each = options.steps // epochs
    model.fit(batches, steps_per_epoch=each, epochs=epochs, shuffle=False, verbose=0, callbacks=[progress])
    return model, time.perf_counter() - progress.start


def figure(frames, labels, scores, path):
    """Frames of one number, the shares of blank and digits at each step, and which steps the alignment gives each digit."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shares = np.array(keras.ops.softmax(scores, axis=-1))
    columns = np.array(ctc_align(scores[None], labels[None])[0][0])
    ends = STEP * STRIDE / RATE * len(scores)
    fig, (top, below) = plt.subplots(2, 1, figsize=(10, 5.5), sharex=True, layout="constrained")
    top.imshow(frames.T, origin="lower", aspect="auto", extent=(0, STRIDE / RATE * len(frames), 0, MELS), cmap="magma")
    top.set(ylabel="mel band", title=f'"{" ".join(str(w - 1) for w in labels if w)}": frames, and the forced alignment')
    times = STEP * STRIDE / RATE * (np.arange(len(scores)) + 0.5)
    below.plot(times, shares[:, 0], color="0.7", label="blank")
    for digit in range(10):
        said = digit + 1 in labels
        below.plot(times, shares[:, digit + 1], color=f"C{digit}", lw=2 if said else 0.7, label=str(digit))
    for column, label in enumerate(labels[labels > 0]):
        steps = np.nonzero(columns == column)[0]
        begin, end = STEP * STRIDE / RATE * steps[0], STEP * STRIDE / RATE * (steps[-1] + 1)
        for axis, colour in ((top, "white"), (below, f"C{label - 1}")):
            axis.axvspan(begin, end, color=colour, alpha=0.35, lw=0)
        top.text((begin + end) / 2, MELS - 1, str(label - 1), color="white", ha="center", va="top", fontsize=15)
    below.set(xlabel="seconds", ylabel="share", ylim=(0, 1.02), xlim=(0, ends))
    below.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=DATA, help="folder with fsdd/recordings/7_theo_12.wav ..")
    parser.add_argument("--held-out-speaker", help="test on all recordings of this speaker, train on the others")
    parser.add_argument("--steps", type=int, default=500, help="batches to train on")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--width", type=int, default=10, help="of the beam")
    parser.add_argument("--count", type=int, default=500, help="numbers to test on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="compile by XLA")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/spoken_digits"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    frames = recordings(options.data / "fsdd" / "recordings")
    speakers = sorted({speaker for speaker, _, _ in frames})
    if options.held_out_speaker not in (None, *speakers):
        parser.error(f"--held-out-speaker: expected one of {', '.join(speakers)}, got {options.held_out_speaker}")
    parts = divided(frames, options.held_out_speaker)
    print(", ".join(f"{len(part)} recordings to {name}" for name, part in parts.items()), flush=True)
    parts = numbers(parts, np.random.default_rng(options.seed))
    x, labels = parts["test"].batch(np.random.default_rng(options.seed + 3), options.count)
    mask = shown(x)
    ctc_check_labels(labels, mask, vocabulary=11)
    model, seconds = trained(parts, options)
    scores = model.predict(x, batch_size=100, verbose=0)
    _, train_labels = parts["train"].batch(np.random.default_rng(options.seed + 4), 500)
    results = {"one answer to all": (0, constant(train_labels, labels), 0.0)}
    decoders = {
        "greedy": lambda x, m: ctc_greedy(x, m)[0],
        f"beam of {options.width}": lambda x, m: ctc_beam_search(x, options.width, mask=m)[0][:, 0],
    }
    for name, decode in decoders.items():
        compiled = tf.function(decode, jit_compile=True)
        compiled(scores, mask)
        start = time.perf_counter()
        tokens = compiled(scores, mask).numpy()
        results[name] = (model.count_params(), error_rate(tokens, labels), time.perf_counter() - start)
    print(f"\ntrained in {seconds:.0f} s; {len(labels)} numbers to test, {np.sum(labels > 0)} digits")
    print("| decoding          | parameters | label error rate | seconds to decode |")
    print("|---|---|---|---|")
    for name, (parameters, rate, spent) in results.items():
        print(f"| {name:17} | {parameters:10,} | {rate:16.2%} | {spent:17.3f} |")
    row = int(np.argmax(np.sum(labels > 0, axis=1) == 4))
    seen = mask[row]
    figure(x[row][seen].reshape(-1, MELS), labels[row], scores[row][seen], options.output / "spoken_digits.png")
    print(f"\n{options.output / 'spoken_digits.png'}")
    return results


if __name__ == "__main__":
    main()
