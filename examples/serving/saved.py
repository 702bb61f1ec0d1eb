"""Exported models, each with the one function that a `Batcher` calls."""

import functools
import json
import pathlib
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from serving.export import VOCABULARY, export


def load(path: str | pathlib.Path) -> "Predictor | Stream | Writer | Reader | Captioner":
    """The model of a SavedModel, by its endpoints, or of a `.keras` file, which is exported first.

    Raises:
        ValueError: a path with neither; a model of several inputs or outputs, or for one number of rows; one of sequences that
            keeps a state between its calls.
    """
    path = pathlib.Path(path)
    if path.is_file() and path.suffix == ".keras":
        import keras_seq.models  # noqa: F401 (its classes are needed to load one)

        with tempfile.TemporaryDirectory() as folder:
            export(keras.saving.load_model(path, compile=False), folder)
            return load(folder)
    if not (path / "saved_model.pb").is_file():
        raise ValueError(f"path: expected a SavedModel's folder or a .keras file, got {str(path)!r}")
    loaded = tf.saved_model.load(path)
    if hasattr(loaded, "read"):
        return Reader(loaded)
    if hasattr(loaded, "describe") or hasattr(loaded, "sentences"):
        return Captioner(loaded)
    if hasattr(loaded, "texts"):
        return Writer(loaded, json.loads((path / VOCABULARY).read_text(encoding="utf-8")))
    return Stream(loaded) if hasattr(loaded, "initial_state") else Predictor(loaded)


def _only(what, found):
    """The one element of a dict, or of a nest."""
    found = tf.nest.flatten(found)
    if len(found) != 1:
        raise ValueError(f"model: expected one {what}, got {len(found)}")
    return found[0]


def _row(x):
    if x.shape[0] is not None:
        raise ValueError(f"model: expected one of any number of rows, got one of {x.shape[0]}")
    return tuple(x.shape[1:])


class Predictor:
    """Sequences (t, ..) to answers, of any lengths in one batch.

    The endpoint `predict(sequences, lengths)` hides padding by masks. A SavedModel without it, such as Keras's own
    `export` writes, is asked with sequences of one length at a time.
    """

    kind = "predict"

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded
        self.masks = "predict" in loaded.signatures
        self._call = loaded.signatures["predict" if self.masks else "serving_default"]
        given = {name: x for name, x in self._call.structured_input_signature[1].items() if name != "lengths"}
        self._spec = _only("input", given)
        (self._name,) = given
        self.dtype, (self.length, *self.features) = self._spec.dtype.as_numpy_dtype, _row(self._spec)
        if any(
            n.op == "AssignVariableOp" for f in self._call.graph.as_graph_def().library.function for n in f.node_def
        ):
            raise ValueError(
                "model: expected one whose answer depends on its sequence alone, got one that keeps a state; what "
                "`keras_seq.streaming(model).export(path)` writes has one for each stream"
            )
        shape = _only("output", self._call.structured_outputs).shape
        self.timed = self.masks and shape.rank is not None and shape.rank > 1 and shape[1] is None

    def group(self, sequence: np.ndarray) -> Any:
        """What sequences of one batch have in common."""
        return sequence.shape[1:] if self.masks else sequence.shape

    def run(self, sequences: list[np.ndarray]) -> list[np.ndarray]:
        lengths = [len(s) for s in sequences]
        padded = np.zeros((len(sequences), max(lengths), *sequences[0].shape[1:]), self.dtype)
        for row, sequence in zip(padded, sequences, strict=True):
            row[: len(sequence)] = sequence
        further = {"lengths": tf.constant(lengths, tf.int32)} if self.masks else {}
        answers = _only("output", self._call(**{self._name: tf.constant(padded)}, **further)).numpy()
        return [a[:n] if self.timed else a for a, n in zip(answers, lengths, strict=True)]

    def about(self) -> dict:
        return {"sequence": [self.length, *self.features], "dtype": np.dtype(self.dtype).name, "masks": self.masks}


class _Stepping:
    """A model of one step, `(inputs, state) -> (outputs, state)`, run for streams side by side."""

    @functools.cached_property
    def first(self) -> list[np.ndarray]:
        """The state of one stream before its first step."""
        return [s.numpy()[0] for s in self._loaded.initial_state(tf.constant(1))]

    def run(self, items: list[tuple]) -> list[tuple]:
        inputs, states = zip(*items, strict=True)
        states = [tf.constant(np.stack(s)) for s in zip(*states, strict=True)]
        outputs, state = self._step(tf.constant(np.stack(inputs)), states)
        outputs, state = outputs.numpy(), [s.numpy() for s in state]
        # copies, as a row that is kept would keep its whole batch
        return [(y.copy(), [s[i].copy() for s in state]) for i, y in enumerate(outputs)]


class Stream(_Stepping):
    """What `keras_seq.streaming(model).export` writes."""

    kind = "stream"

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded
        call = loaded.signatures["serving_default"]
        spec = _only("input", [x for n, x in call.structured_input_signature[1].items() if n.startswith("input_")])
        _only("output", [x for n, x in call.structured_outputs.items() if n.startswith("output_")])
        self.dtype, self.features = spec.dtype.as_numpy_dtype, _row(spec)

    def _step(self, inputs, state):
        outputs, state = self._loaded.step(inputs, state)
        return _only("output", outputs), state

    def about(self) -> dict:
        return {"step": list(self.features), "dtype": np.dtype(self.dtype).name}


class Writer(_Stepping):
    """What `LanguageModel.export` writes, with its vocabulary beside it: one token after the other."""

    kind = "write"

    def __init__(self, loaded: Any, vocabulary: dict) -> None:
        from keras_seq.models import Vocabulary

        self._loaded, self.vocabulary = loaded, Vocabulary(**vocabulary)
        words = self.vocabulary
        self._never = [words.pad, words.unknown, words.start]

    def _step(self, tokens, state):
        logits, *state = self._loaded.step(tokens, *state)
        return logits, state

    def tokens(self, prompt: str) -> np.ndarray:
        """int32 (p,), from START on.

        Raises:
            ValueError: words or characters that the vocabulary does not have.
        """
        known = set(self.vocabulary.tokens)
        (plain,) = self.vocabulary.plain([prompt])
        pieces = plain if self.vocabulary.separator == "" else plain.split()
        strange = sorted({piece for piece in pieces if piece not in known})
        if strange:
            raise ValueError(f"prompt: expected what the vocabulary has, got {''.join(strange[:10])!r}")
        return self.vocabulary.encode([prompt], end=False).numpy()[0]

    def draw(self, logits: np.ndarray, temperature: float, random: np.random.Generator) -> np.int32:
        """The next token: the likeliest at temperature 0, else drawn from softmax(logits / temperature)."""
        logits = logits.astype("float64")
        logits[self._never] = -np.inf
        if not np.isfinite(logits.max()):
            raise FloatingPointError("logits: expected numbers, got none")
        if temperature == 0:
            return np.int32(logits.argmax())
        p = np.exp((logits - logits.max()) / temperature)
        return np.int32(random.choice(len(p), p=p / p.sum()))

    def about(self) -> dict:
        return {"vocabulary": len(self.vocabulary), "split": self.vocabulary.split}


class Reader:
    """A `Seq2Seq` with attention: what it says, and what it read for each piece."""

    kind = "read"

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded

    def run(self, texts: list[str]) -> list[dict]:
        said, source, target, weights = (x.numpy() for x in self._loaded.read(tf.constant(texts)))
        return [self._one(*row) for row in zip(said, source, target, weights, strict=True)]

    @staticmethod
    def _one(said, source, target, weights):
        source, target = ([piece.decode() for piece in row if piece] for row in (source, target))
        return {
            "text": said.decode(),
            "source": source,
            "target": target,
            "weights": weights[: len(target), : len(source)].tolist(),
        }

    def about(self) -> dict:
        return {}


class Captioner:
    """An `ImageCaptioner`: what it says of a picture and, if it attends, where it looked for each word."""

    kind = "caption"

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded
        self.attends = hasattr(loaded, "describe")
        call = loaded.signatures["describe" if self.attends else "sentences"]
        spec = _only("input", call.structured_input_signature[1])
        self.dtype, self.shape = spec.dtype.as_numpy_dtype, _row(spec)

    def run(self, pictures: list[np.ndarray]) -> list[dict]:
        images = tf.constant(np.stack(pictures))
        if not self.attends:
            said = [sentence.decode() for sentence in self._loaded.sentences(images).numpy()]
            return [{"text": text, "words": text.split(), "weights": None} for text in said]
        said, words, weights = (x.numpy() for x in self._loaded.describe(images))
        return [self._one(*row) for row in zip(said, words, weights, strict=True)]

    @staticmethod
    def _one(said, words, weights):
        words = [word.decode() for word in words if word]
        return {"text": said.decode(), "words": words, "weights": weights[: len(words)].tolist()}

    def about(self) -> dict:
        return {"picture": list(self.shape), "attends": self.attends, "scenes": self.scenes is not None}

    @functools.cached_property
    def scenes(self) -> Any:
        """The module that draws scenes; None where it is not installed, or the pictures have another shape."""
        try:
            from keras_seq.datasets import scenes
        except ModuleNotFoundError:
            return None
        return scenes if self.shape == (scenes.SIDE, scenes.SIDE, 3) else None
