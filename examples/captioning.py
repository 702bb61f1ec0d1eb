"""Describe pictures in words: train an ImageCaptioner, score it on combinations it has never seen, export it.

The drawn scenes have two tests: pairs of objects that never stood together in training, and, harder, objects whose kind
(small green square, say) was never drawn there.

    python examples/captioning.py                                   # drawn scenes, three minutes on two cores
    python examples/captioning.py --memory GRU --features-as initial_state
    python examples/captioning.py --features-as attention           # and attention_0.png ..: where it looked for each word
    python examples/captioning.py --folder ../shared/data/coco_mini --epochs 30
    python examples/captioning.py --dataset coco_captions           # any TFDS set with images and captions

It leaves in --output: captions.png (pictures with a true and the generated sentence), history.png (loss by epoch),
captioner.keras, and saved_model/, which a fresh process then runs without keras_seq and compares.
"""

import argparse
import collections
import os
import pathlib
import subprocess
import sys
import textwrap
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keras_seq
from keras_seq.analysis import plot_attended
from keras_seq.metrics import cider_d, corpus_bleu
from keras_seq.models import ImageCaptioner, Vocabulary

MEMORIES = ("SimpleRNN", "LSTM", "PeepholeLSTM", "CoupledLSTM", "NoForgetLSTM", "GRU")

SERVE = """
import sys, numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
sentences = [s for i in range(0, len(images), 100) for s in loaded.sentences(tf.constant(images[i:i + 100])).numpy()]
assert "keras_seq" not in sys.modules
sys.stdout.buffer.write(b"\\n".join(sentences))
"""


def load(options):
    """A dict from `train`, `validation` (maybe) and `test` to datasets of {"image", "captions"}."""
    side = (options.side, options.side)
    if options.folder:
        from keras_seq.datasets import caption_folder

        return caption_folder(options.folder, image_size=side)
    import tensorflow_datasets as tfds

    import keras_seq.datasets  # noqa: F401 (registers drawn_scenes)

    found = tfds.load(options.dataset)
    if options.dataset == "drawn_scenes":
        return found

    def resized(example):
        captions = example["captions"]
        image = tf.image.resize(example["image"], side, antialias=True)
        return {
            "image": tf.cast(tf.round(image), tf.uint8),
            "captions": captions["text"] if isinstance(captions, dict) else captions,
        }

    # coco_captions has no sentences for its test pictures: its validation split is the test here
    validation = found["val" if "val" in found else "validation"].map(resized)
    return {"train": found["train"].map(resized), "validation": validation, "test": validation}


class Clock(keras.callbacks.Callback):
    """One line per epoch, and the end of training when the time is up."""

    def __init__(self, minutes):
        super().__init__()
        self.minutes = minutes

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        spent = time.perf_counter() - self.start
        scores = "  ".join(f"{name} {value:.3f}" for name, value in logs.items())
        print(f"epoch {epoch + 1:3d}/{self.params['epochs']}  {spent:5.0f} s  {scores}", flush=True)
        if spent > 60 * self.minutes:
            print(f"stopped after {self.minutes} minutes")
            self.model.stop_training = True


def train(captioner, data, options):
    length = captioner.max_length

    def batches(dataset, shuffle):
        if shuffle:
            dataset = dataset.shuffle(10000, seed=options.seed)
        examples = dataset.map(captioner.example, num_parallel_calls=2)
        examples = examples.map(lambda inputs, targets: ((inputs[0], inputs[1][:length]), targets[:length]))
        shapes = ((captioner.image_shape, (length,)), (length,))
        return examples.padded_batch(options.batch, padded_shapes=shapes, drop_remainder=shuffle).prefetch(2)

    steps = options.epochs * (int(data["train"].cardinality()) // options.batch)
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, max(1, steps))
    captioner.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0),
        jit_compile=options.jit,
    )
    return captioner.fit(
        batches(data["train"].cache(), True),
        validation_data=batches(data["validation"].cache(), False) if "validation" in data else None,
        epochs=options.epochs,
        verbose=0,
        callbacks=[Clock(options.minutes)],
    ).history


def describe(captioner, images, **decoding):
    return [s for i in range(0, len(images), 100) for s in captioner.generate(images[i : i + 100], **decoding)]


def arrays(dataset, vocabulary):
    """All pictures of a data set, and for each its sentences in the spelling of the vocabulary."""
    examples = list(dataset)
    images = np.stack([e["image"].numpy() for e in examples])
    return images, [vocabulary.plain(e["captions"].numpy()) for e in examples]


def serve_elsewhere(folder, images):
    """The sentences of the exported model, said by a process that never imports keras_seq."""
    np.save(folder / "images.npy", images)
    command = [sys.executable, "-c", SERVE, str(folder / "saved_model"), str(folder / "images.npy")]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=folder).stdout
    return said.decode().split("\n")


def contact_sheet(path, images, references, sentences, columns=6, rows=4):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    count = min(columns * rows, len(images))
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 3.1 * rows + 0.4), layout="constrained")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    for axis, image, true, said in zip(axes.flat, images, references, sentences, strict=False):
        axis.imshow(image)
        axis.set_title(textwrap.fill(true[0], 34), fontsize=8)
        axis.set_xlabel(textwrap.fill(said, 34), fontsize=8, color="#087f5b" if said in true else "#c92a2a")
    figure.suptitle("above: a true sentence; below: the generated one, green if it is true to the word", fontsize=11)
    figure.savefig(path, dpi=100)


def loss_curve(path, history):
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5, 3.2))
    for name, values in history.items():
        axis.plot(
            range(1, len(values) + 1), values, label={"loss": "training", "val_loss": "validation"}.get(name, name)
        )
    axis.set(xlabel="epoch", ylabel="cross-entropy per word (nats)", yscale="log")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="drawn_scenes", help="TFDS name (default drawn_scenes)")
    parser.add_argument("--folder", help="a folder with images and captions.jsonl, instead of --dataset")
    parser.add_argument("--memory", default="LSTM", choices=MEMORIES)
    parser.add_argument("--features-as", default="each_step", choices=["initial_state", "each_step", "attention"])
    parser.add_argument(
        "--attention-penalty", type=float, default=0.0, help="of places left out of sight (Xu et al. 2015)"
    )
    parser.add_argument("--units", type=int, default=160)
    parser.add_argument("--embedding-size", type=int, default=16)
    parser.add_argument("--recurrent-dropout", type=float, default=0.4)
    parser.add_argument("--side", type=int, default=96, help="pixels, for pictures other than drawn_scenes")
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--minutes", type=float, default=4.0, help="stop training after so long")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--max-words", type=int, help="keep only the most frequent words")
    parser.add_argument("--max-length", type=int, default=16, help="tokens per sentence, END included")
    parser.add_argument("--width", type=int, default=5, help="of the beam")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--jit", action=argparse.BooleanOptionalAction, default=False, help="compile by XLA: slower on a CPU"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/captioning"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    folder = options.output.resolve()
    keras.utils.set_random_seed(options.seed)

    data = load(options)
    known = [s.decode() for example in data["train"] for s in example["captions"].numpy()]
    vocabulary = Vocabulary.of(known, options.max_words)
    shape = tuple(next(iter(data["train"]))["image"].shape)
    print(
        f"{len(known)} sentences, {len(vocabulary)} tokens, pictures {shape}, {options.memory}, {options.features_as}"
    )

    captioner = ImageCaptioner(
        vocabulary,
        shape,
        getattr(keras_seq, f"{options.memory}Cell")(options.units, recurrent_dropout=options.recurrent_dropout),
        features_as=options.features_as,
        attention_penalty=options.attention_penalty,
        embedding_size=options.embedding_size,
        max_length=options.max_length,
    )
    lengths = np.array([len(s.split()) + 1 for s in vocabulary.plain(known)])
    if (lengths > options.max_length).any():
        print(f"{(lengths > options.max_length).sum()} sentences are longer than --max-length and are cut in training")
    history = train(captioner, data, options)

    frequent = collections.Counter(vocabulary.plain(known)).most_common(1)[0][0]
    print(f"\n{'':36} pictures  BLEU-4  CIDEr-D  true to the word")
    for split, meaning in (("test_kinds", " (objects never seen)"), ("test", "")):
        if split not in data:
            continue
        images, references = arrays(data[split], vocabulary)
        sentences = describe(captioner, images)
        for name, said in (
            (f"{split}{meaning}", sentences),
            (f"  by a beam of {options.width}", describe(captioner, images, decoder="beam", width=options.width)),
            ("  always the most frequent sentence", [frequent] * len(images)),
        ):
            hits = np.mean([s in true for s, true in zip(said, references, strict=True)])
            scores = f"{corpus_bleu(said, references):7.3f}  {cider_d(said, references):7.3f}  {hits:16.1%}"
            print(f"{name:36} {len(images):8} {scores}")
    print(f"the most frequent sentence: {frequent!r}\n")
    for true, said in list(zip(references, sentences, strict=True))[:6]:
        print(f"true: {true[0]}\nsaid: {said}\n")

    contact_sheet(folder / "captions.png", images, references, sentences)
    loss_curve(folder / "history.png", history)
    if captioner.attends:
        weights = captioner.alignment(images[:3], sentences[:3])
        for i, said in enumerate(sentences[:3]):
            words = [*said.split(), "END"]
            found = weights[i, : len(words)].reshape(len(words), -1)
            plot_attended(images[i], words, found, captioner.map_shape).savefig(folder / f"attention_{i}.png", dpi=90)
    captioner.save(folder / "captioner.keras")
    captioner.export(folder / "saved_model", verbose=False)
    same = sum(a == b for a, b in zip(serve_elsewhere(folder, images), sentences, strict=True))
    print(f"the exported model, in a fresh process, says the same sentence for {same} of {len(images)} pictures")
    print(f"written to {folder}: captions.png, history.png, captioner.keras, saved_model/")


if __name__ == "__main__":
    main()
