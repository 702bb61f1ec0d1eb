"""A language model of Shakespeare's plays, by characters: how well it predicts what it has not read, and what it writes.

    python examples/shakespeare.py                            # one or two minutes on two cores
    python examples/shakespeare.py --units 512 --dropout 0.3 --epochs 6       # better, in a quarter of an hour
    python examples/shakespeare.py --text FILE --prompts "Once upon"          # any other text

The first nine tenths of the text are learned, the last tenth is held out. An LSTM reads the former in 32 streams side by side,
in chunks of 64 characters, its state carried from each to the next. After each epoch the held-out text is scored in 16
streams, at the end once in one stream from beginning to end; nothing is chosen by it but the example's default arguments.
Beside it stand models that count: of single characters, and of each character after the 2 and the 5 before it (n-grams,
interpolated as by Witten and Bell 1991).

What the first epochs need: vectors of characters from N(0, 1) and a readout that starts at their frequencies, as the model has
them by default (1.55 nats held out after three epochs; 1.68 from Keras's starts), and gradients clipped to a length of 1.

It prints a table and samples, and leaves in --output: shakespeare.png, the learning curve, and the model as shakespeare.keras.
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_seq
from keras_seq.metrics import BitsPerCharacter
from keras_seq.models import LanguageModel, Vocabulary

DATA = pathlib.Path(os.environ.get("KERAS_SEQ_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
PROMPTS = ["ROMEO:\n", "My lord, "]
COUNTED = {"characters": 1, "trigrams": 3, "6-grams": 6}


def ngram(train, held_out, order, size):
    """Probabilities of the held-out tokens, each after the `order` - 1 before it, by counts in the tokens to train.

        p_k(w | h) = (n(h w) + t(h) p_{k-1}(w | h')) / (n(h) + t(h)),   p_0 = 1 / size

    h are the k - 1 tokens before w, h' the last k - 2 of them, n counts and t(h) how many different tokens follow h;
    where h was never read, p_k = p_{k-1}.
    """
    p = np.full(len(held_out), 1 / size)
    for k in range(1, order + 1):
        (grams, counts), found = np.unique(_codes(train, k, size), return_counts=True), _codes(held_out, k, size)
        histories, place = np.unique(grams // size, return_inverse=True)
        n, t = np.bincount(place, counts), np.bincount(place)
        n_h, t_h = (_looked_up(histories, values, found // size) for values in (n, t))
        p = (_looked_up(grams, counts, found) + np.where(n_h, t_h, 1) * p) / np.where(n_h, n_h + t_h, 1)
    return p


def _codes(tokens, k, size):
    """A number for each token with the k - 1 before it, zeros before the first."""
    padded, codes = np.concatenate([np.zeros(k - 1, np.int64), tokens]), 0
    for i in range(k):
        codes = codes * size + padded[i : i + len(tokens)]
    return codes


def _looked_up(keys, values, wanted):
    """The values of the wanted keys, 0 where there is none; the keys rise."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


class Progress(keras.callbacks.Callback):
    """One line for each epoch, kept as `(seconds, loss, held-out loss)`, in nats per character."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_train_begin(self, logs=None):
        self.start, self.cpu = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        nats = [logs[name] * np.log(2) for name in ("bits_per_character", "val_bits_per_character")]
        self.kept.append((time.perf_counter() - self.start, *nats))
        self.cores = time.process_time() - self.cpu
        print(
            f"epoch {epoch + 1:2d}/{self.params['epochs']}  {self.kept[-1][0]:4.0f} s ({self.cores:.0f} s of one core)  "
            f"loss {nats[0]:.4f}  held out {nats[1]:.4f} nats per character",
            flush=True,
        )


def figure(kept, results, path):
    """Losses against minutes of training, the models that count as lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fig, axis = plt.subplots(figsize=(7, 4.4), layout="constrained")
    seconds, loss, held_out = np.transpose(kept)
    axis.plot(seconds / 60, loss, ".-", label="LSTM, while learning (with dropout)")
    axis.plot(seconds / 60, held_out, ".-", label="LSTM, held out")
    for i, name in enumerate(COUNTED):
        axis.axhline(results[name], linestyle=":", color=f"C{i + 2}", label=f"{name}, held out: {results[name]:.3f}")
    axis.plot(seconds[-1] / 60, results["LSTM"], "*", ms=13, color="C1", label=f"in one stream: {results['LSTM']:.3f}")
    axis.set(xlabel="minutes of training", ylabel="nats per character", xlim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8, frameon=False)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text", type=pathlib.Path, default=DATA / "tinyshakespeare" / "input.txt", help="a text, UTF-8"
    )
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--embedding", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=32, help="streams side by side")
    parser.add_argument("--steps", type=int, default=64, help="characters in a chunk")
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="at the start; it falls as a cosine")
    parser.add_argument("--prompts", nargs="+", help=f"what to go on from (default {PROMPTS})")
    parser.add_argument("--length", type=int, default=300, help="characters of a sample")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.5, 0.8])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="compile by XLA")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/shakespeare"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    text = options.text.read_text(encoding="utf-8")
    border = len(text) * 9 // 10
    train, held_out = text[:border], text[border:]
    vocabulary = Vocabulary.of([train], split="characters")
    print(
        f"{len(train):,} characters to learn, {len(held_out):,} held out, {len(vocabulary.words)} different", flush=True
    )
    tokens = [np.asarray(vocabulary.encode([t], start=False, end=False))[0] for t in (train, held_out)]
    results = {name: -np.mean(np.log(ngram(*tokens, n, len(vocabulary)))) for name, n in COUNTED.items()}

    memory = keras_seq.LSTM(options.units, return_sequences=True)
    model = LanguageModel(
        vocabulary, memory, options.embedding, dropout=options.dropout, max_length=options.length, seed=options.seed
    )
    data = model.streams(train, options.rows, options.steps)
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, options.epochs * len(data), alpha=0.01)
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0)
    model.compile(optimizer, metrics=[BitsPerCharacter(vocabulary.pad)], jit_compile=options.jit)
    progress = Progress()
    model.fit(
        data,
        validation_data=model.streams(held_out, 16, min(500, len(held_out) // 16)),
        epochs=options.epochs,
        shuffle=False,  # chunks stay in order
        verbose=0,
        callbacks=[progress],
    )
    whole = model.streams(held_out, 1, min(1000, len(held_out)))
    results["LSTM"] = model.evaluate(whole, verbose=0, return_dict=True)["bits_per_character"] * np.log(2)

    prompts = options.prompts or [p for p in PROMPTS if p in train] or [held_out[:20]]
    for temperature in options.temperatures:
        for sample in model.generate(prompts, temperature=temperature):
            print(f"\n--- temperature {temperature}\n{sample}")
    print("\n| held-out text       | nats per character | bits per character |")
    print("|---|---|---|")
    for name, nats in results.items():
        print(f"| {name:19} | {nats:18.3f} | {nats / np.log(2):18.3f} |")
    minutes = progress.kept[-1][0] / 60, progress.cores / 60
    print(f"\n{model.count_params():,} weights, {minutes[0]:.1f} minutes of training, {minutes[1]:.1f} of one core")
    figure(progress.kept, results, options.output / "shakespeare.png")
    model.save(options.output / "shakespeare.keras")
    print(f"{options.output / 'shakespeare.png'}, {options.output / 'shakespeare.keras'}")
    return results


if __name__ == "__main__":
    main()
