"""A small WaveNet learns one tone sample by sample, then sings it by itself.

    python examples/wavenet_tone.py                          # a minute or two on two cores
    python examples/wavenet_tone.py --steps 1000 --seconds 4 --temperature 0.8

The tone is 220 Hz with two harmonics and a little noise at 8,000 samples per second. The net sees 256 classes of the mu law and
says which class comes next. To generate, the trained model is taken apart into its step form (`keras_seq.streaming`): it
hears a short prompt, then every sample it draws is its next input (`keras_seq.decoding.feed_back`), the whole loop compiled.
A step costs the same however far the net looks back, as each convolution keeps its past in a ring.

It prints how near the generated tone is and leaves in --output: tone.wav and wavenet_tone.png, spectra and waves of both.
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
from keras import ops

import keras_seq
from keras_seq.decoding import feed_back

RATE = 8000
FUNDAMENTAL = 220.0
AMPLITUDES = (0.5, 0.2, 0.1)  # of the fundamental and of two harmonics
NOISE = 0.003
PROMPT = 1024


def tone(rng, count, samples):
    """Pieces (count, samples) of the tone, each beginning anywhere in it."""
    times = (rng.uniform(0, RATE, size=(count, 1)) + np.arange(samples)) / RATE
    waves = [a * np.sin(2 * np.pi * FUNDAMENTAL * (k + 1) * times) for k, a in enumerate(AMPLITUDES)]
    return sum(waves) + NOISE * rng.normal(size=(count, samples))


def classes(signal):
    """A signal in [-1, 1] as classes of the mu law."""
    return ops.convert_to_numpy(keras_seq.mu_law_encode(np.clip(signal, -1, 1).astype("float32")))


def decoded(found):
    """The signal of some classes, up to their rounding."""
    return ops.convert_to_numpy(keras_seq.mu_law_decode(found))


def batches(rng, count, samples):
    """Without end: classes (count, samples), and those one sample later."""
    while True:
        piece = classes(tone(rng, count, samples + 1))
        yield piece[:, :-1], piece[:, 1:]


class Progress(keras.callbacks.Callback):
    """A line for each piece of the training."""

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        steps, seconds = (epoch + 1) * self.params["steps"], time.perf_counter() - self.start
        print(f"step {steps:5d}  {seconds:4.0f} s  loss {logs['loss']:.3f} nats per sample", flush=True)


def trained(options):
    """Classes (b, t) to the scores of the next ones (b, t, 256)."""
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(256, 32),
            keras_seq.WaveNet(32, dilations=[1, 2, 4, 8, 16, 32, 64, 128], skip_filters=64, outputs=256),
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, options.steps)
    model.compile(
        keras.optimizers.Adam(schedule, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=options.jit,
    )
    piece = min(50, options.steps)
    model.fit(
        batches(np.random.default_rng(options.seed), options.batch, options.samples),
        steps_per_epoch=piece,
        epochs=options.steps // piece,
        shuffle=False,  # drawn in order
        verbose=0,
        callbacks=[Progress()],
    )
    return model


def generator(model, samples, temperature, seed):
    """A function of a prompt of classes (b, t), t at least 2, to the `samples` classes after it (b, samples)."""
    stream = keras_seq.streaming(model)
    noise = keras.random.SeedGenerator(seed)

    def draw(scores):
        return ops.cast(keras.random.categorical(scores / temperature, 1, seed=noise)[:, 0], "int32")

    @tf.function(jit_compile=True)
    def generated(prompt):
        def heard(i, state):
            return stream.step(prompt[:, i], state)[1]

        state = ops.fori_loop(0, prompt.shape[1] - 1, heard, stream.initial_state(prompt.shape[0]))
        return feed_back(stream.step, prompt[:, -1], state, samples, feed=draw)

    return generated


def spectrum(signal):
    """`(Hz, energy)` of a signal under a Hann window."""
    return np.fft.rfftfreq(len(signal), 1 / RATE), np.abs(np.fft.rfft(signal * np.hanning(len(signal)))) ** 2


def peak(signal):
    """The frequency of the strongest peak, between the bins by a parabola through the logarithms of three of them."""
    hertz, energy = spectrum(signal)
    i = int(np.clip(np.argmax(energy), 1, len(energy) - 2))
    a, b, c = np.log(energy[i - 1 : i + 2] + 1e-12)
    return hertz[i] + (hertz[1] - hertz[0]) * 0.5 * (a - c) / min(a - 2 * b + c, -1e-12)


def in_tune(signal, width=0.03):
    """The share of energy within `width` of the fundamental and its harmonics."""
    hertz, energy = spectrum(signal)
    harmonics = FUNDAMENTAL * np.arange(1, len(AMPLITUDES) + 1)
    near = np.any(np.abs(hertz[:, None] - harmonics) <= width * harmonics, axis=1)
    return energy[near].sum() / energy.sum()


def write_wav(path, signal):
    """One channel of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(signal, -1, 1) * 32767).astype("<i2").tobytes())


def figure(true, made, path):
    """Spectra of both, and the last 20 ms of both waves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.2), layout="constrained")
    strongest = spectrum(true)[1].max()
    shown = RATE // 50
    for name, signal, colour, width in (("training tone", true, "#adb5bd", 5), ("generated", made, "#c92a2a", 1.2)):
        hertz, energy = spectrum(signal)
        left.plot(hertz, 10 * np.log10(energy / strongest + 1e-9), color=colour, lw=1, alpha=0.7, label=name)
        right.plot(1000 * np.arange(shown) / RATE, signal[-shown:], color=colour, lw=width, label=name)
    left.set(xlabel="Hz", ylabel="dB", xlim=(0, 1500), ylim=(-90, 5), title="spectra")
    right.set(xlabel="ms", title="the last 20 ms", xlim=(0, 20))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500, help="updates of the weights")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--samples", type=int, default=1024, help="of a training piece")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of sound to generate")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="below 1 the likelier classes are drawn more often"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=False, help="train under XLA")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/wavenet_tone"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    model = trained(options)
    samples = round(options.seconds * RATE)
    true = tone(np.random.default_rng(10**6), 1, PROMPT + samples)[0]
    prompt = classes(true[None, :PROMPT])
    generated = generator(model, samples, options.temperature, options.seed)
    generated(prompt)  # compiles
    start = time.perf_counter()
    found = generated(prompt)
    made = decoded(found)[0]
    speed = samples / (time.perf_counter() - start)
    true = decoded(classes(true[PROMPT:]))  # as the net heard it
    results = {
        "true": (peak(true), in_tune(true), float(np.std(true))),
        "generated": (peak(made), in_tune(made), float(np.std(made))),
        "speed": speed,
    }
    print("\n|               | strongest peak (Hz) | energy within 3 % of the harmonics | loudness (rms) |")
    print("|---|---|---|---|")
    for name, title in (("true", "training tone"), ("generated", "generated")):
        hertz, share, loudness = results[name]
        print(f"| {title:13} | {hertz:19.2f} | {share:34.2%} | {loudness:14.3f} |")
    print(f"\nThe peaks are {abs(results['true'][0] - results['generated'][0]):.2f} Hz apart.")
    print(f"{model.count_params():,} parameters; {samples:,} samples generated at {speed:,.0f} per second.")
    write_wav(options.output / "tone.wav", made)
    figure(true, made, options.output / "wavenet_tone.png")
    print(f"\n{options.output / 'tone.wav'}\n{options.output / 'wavenet_tone.png'}")
    return results


if __name__ == "__main__":
    main()
