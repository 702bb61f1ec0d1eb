"""The rows of the table of exports: layers, their step forms and models of tokens, each as it is written and run.

All are made of the tables of cases and structures that the tests run over.
"""

import collections
import functools
import os
import sys

sys.path.extend(os.path.join(os.path.dirname(__file__), "..", "tests", folder) for folder in ("", "models"))

import keras
import numpy as np
import tensorflow as tf
import token_models
from cases import CASES, Case, D
from exported import data, functional, run_steps
from structures import STRUCTURES

import keras_seq
from keras_seq.decoding import ViterbiTags
from keras_seq.testing.runs import randomised


class Layer:
    """A functional model, made for so many rows and steps (None for any)."""

    kind = "sequence"
    loops = True  # over time, or a source: LiteRT wants a number of rows

    def __init__(self, name, make, data=data):
        self.name, self.make, self.data = name, make, data

    def given(self, model, rows, steps):
        return self.data(model, rows, steps)

    def specs(self, model):
        return [tf.TensorSpec(x.shape, x.dtype, x.name) for x in model.inputs]

    def results(self, model, x):
        return [np.asarray(y) for y in keras.tree.flatten(model(x if len(x) > 1 else x[0]))]

    def write(self, model, path, format):
        signature = self.specs(model)
        further = {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}} if format == "litert" else {}
        signature = [signature] if len(signature) > 1 else signature
        keras.Model.export(model, path, format=format, verbose=False, input_signature=signature, **further)

    def run(self, model, function, x):
        return function(**{s.name: v for s, v in zip(self.specs(model), x, strict=True)})


class Step(Layer):
    """The step form of such a model of one input, step after step; the size of `.keras` is that of the model."""

    kind, loops = "step", False

    def results(self, model, x):
        stream, said = keras_seq.streaming(model), []
        state = stream.initial_state(len(x[0]))
        for t in range(x[0].shape[1]):
            y, state = stream.step(tf.constant(x[0][:, t]), state)
            said.append(np.asarray(y))
        return [np.stack(said, axis=1)]

    def write(self, model, path, format):
        keras_seq.streaming(model).export(path, format=format)

    def run(self, model, function, x):
        stream = keras_seq.streaming(model)
        state = [np.asarray(s) for s in stream.initial_state(len(x[0]))]
        return run_steps(function, stream, x, state, x[0].shape[1])


class Forward(Layer):
    """A model of tokens as a function of all that it reads while it learns."""

    kind = "forward"

    def __init__(self, kind):
        super().__init__(f"{kind}, forward", self._made)
        self.what, self.rows = kind, None

    def _made(self, rows, steps):
        self.rows = rows
        return token_models.made(
            self.what, scale=0.1
        )  # larger weights make chaos of rounding in a memory of many units

    def specs(self, model):
        known = {"images": ((self.rows, *token_models.SHAPE), "uint8")}
        read = [(n, *known.get(n, ((self.rows, None), "int32"))) for n in token_models.INPUTS[self.what]]
        return [tf.TensorSpec(shape, dtype, name.replace(" ", "_")) for name, shape, dtype in read]

    def given(self, model, rows, steps):
        names = token_models.INPUTS[self.what]
        return [token_models.pictures(rows) if n == "images" else token_models.ids(rows, steps) for n in names]


class Written(Layer):
    """What a model of tokens writes greedily."""

    kind, loops = "written", False

    def __init__(self, kind):
        super().__init__(f"{kind}, what it writes", lambda rows, steps: token_models.made(kind))
        self.what = kind

    def specs(self, model):
        shapes = {"LanguageModel": ("prompt", (3, None)), "Seq2Seq": ("tokens", (3, None))}
        name, shape = shapes.get(self.what, ("images", (None, *token_models.SHAPE)))
        return [tf.TensorSpec(shape, "uint8" if name == "images" else "int32", name)]

    def given(self, model, rows, steps):
        if self.what == "ImageCaptioner":
            return [token_models.pictures()]
        start = model.vocabulary.start if self.what == "LanguageModel" else model.source.start
        return [np.pad(token_models.ids(steps=steps)[:, : steps - 1], ((0, 0), (1, 0)), constant_values=start)]

    def results(self, model, x):
        return [model.generate_tokens(*([None, *x] if self.what == "LanguageModel" else x)).numpy()]

    def write(self, model, path, format):
        further = {"decoder": "greedy"} if self.what == "LanguageModel" else {}
        if format == "litert" and self.what != "ImageCaptioner":
            further["input_signature"] = self.specs(model)
        model.export(path, format=format, verbose=False, **further)


class Begun(Forward):
    """What a model that reads before it writes begins from: the state and the constants of its steps."""

    kind, endpoint, called = "begin", "begin", "what it begins from"

    def __init__(self, kind):
        super().__init__(kind)
        self.name, self.loops = f"{kind}, {self.called}", kind == "Seq2Seq"

    def specs(self, model):
        if self.what == "Seq2Seq":
            return [tf.TensorSpec((self.rows, None), "int32", "tokens")]
        return [tf.TensorSpec((self.rows, *token_models.SHAPE), "uint8", "images")]

    def given(self, model, rows, steps):
        return super().given(model, rows, steps)[:1]

    def results(self, model, x):
        return [np.asarray(y) for y in keras.tree.flatten(model.begin(tf.constant(x[0]), len(x[0])))]

    def write(self, model, path, format):
        further = {} if format == "tf_saved_model" else {"endpoint": self.endpoint}
        if format == "litert" and self.loops:
            further["input_signature"] = self.specs(model)
        model.export(path, format=format, verbose=False, **further)


class Token(Begun):
    """One step of a model of tokens: logits and the state after it."""

    kind, endpoint, called = "token", "step", "a step"

    def __init__(self, kind):
        super().__init__(kind)
        self.loops = False

    def begun(self, model, rows, steps):
        """`(state, constants)`, nests of arrays."""
        (read,) = super().given(model, rows, steps)
        return keras.tree.map_structure(np.asarray, model.begin(tf.constant(read), rows))

    def specs(self, model):
        named = zip(("state", "constant"), self.begun(model, 1, 5), strict=True)
        arrays = [(f"{name}_{i}", x) for name, nest in named for i, x in enumerate(keras.tree.flatten(nest))]
        carried = [tf.TensorSpec((None, *x.shape[1:]), x.dtype, name) for name, x in arrays]
        return [tf.TensorSpec((None,), "int32", "tokens"), *carried]

    def given(self, model, rows, steps):
        return [token_models.ids(rows)[:, 0], *keras.tree.flatten(self.begun(model, rows, steps))]

    def results(self, model, x):
        tokens, *carried = [tf.constant(v) for v in x]
        logits, state = model.next_token(tokens, *keras.tree.pack_sequence_as(self.begun(model, 1, 5), carried))
        return [np.asarray(v) for v in (logits, *keras.tree.flatten(state))]


def tagger(rows, steps):
    x = keras.Input((steps, D), batch_size=rows, name="x")
    scores = keras.layers.Dense(3)(x)
    return randomised(keras.Model(x, ViterbiTags()(keras_seq.CRF(["O", "B-day", "I-day"], scheme="BIO")(scores))))


def tree(kind, **arguments):
    def make(rows, steps):
        nodes = keras.Input((steps, D), batch_size=rows, name="nodes")
        children = keras.Input((steps, 2), batch_size=rows, dtype="int32", name="children")
        layer = getattr(keras_seq, kind)(4, return_nodes=True, **arguments)
        return randomised(keras.Model([nodes, children], layer(nodes, children=children)))

    return make


def chain(model, rows, steps):
    """Trees whose every node has the one before it as a child."""
    children = np.stack([np.arange(-1, steps - 1), np.full(steps, -1)], -1)
    nodes = np.random.default_rng(0).normal(size=(rows, steps, D)).astype("float32")
    return [nodes, np.tile(children, (rows, 1, 1)).astype("int32")]


def graph(rows, steps):
    nodes = keras.Input(batch_shape=(None, D), name="nodes")
    edges = keras.Input(batch_shape=(None, 2), dtype="int32", name="edges")
    return randomised(
        keras.Model([nodes, edges], keras_seq.GraphRecurrent(keras_seq.GRUCell(4), steps=3)(nodes, edges=edges))
    )


def ring(model, rows, steps):
    at = np.arange(steps)
    nodes = np.random.default_rng(0).normal(size=(steps, D)).astype("float32")
    return [nodes, np.stack([at, (at + 1) % steps], -1).astype("int32")]


def streamed(subject, rows, steps):
    layer = subject(return_sequences=True) if isinstance(subject, Case) else subject("float32")
    x = keras.Input((steps, D), batch_size=rows, name="x")
    return keras.Model(x, layer(x))


def subjects(every):
    """All rows by their table. One case of each layer, but with `every`."""
    found = collections.defaultdict(list)
    of_layers = {(c.layer, c.cell and c.cell.__name__.partition("(")[0]): c for c in reversed(CASES)}
    for case in [c for c in (CASES if every else list(of_layers.values())[::-1]) if c.gated]:
        name = case.name if every else short(case.name)
        name += ", true outputs fed back" if case.targets and not every else ""
        found["Layers"].append(Layer(name, functools.partial(functional, case)))
        if not case.constants and not case.targets:
            found["Steps"].append(Step(name, functools.partial(streamed, case)))
    firsts = {s.name.partition("-")[0]: s for s in reversed(STRUCTURES) if not returns_state(s)}
    for structure in STRUCTURES if every else list(firsts.values())[::-1]:
        name = structure.name if every else short(structure.name)
        found["Layers"].append(Layer(name, functools.partial(functional, structure)))
        if structure.stepwise and not returns_state(structure):
            found["Steps"].append(Step(name, functools.partial(streamed, structure)))
    found["Layers"] += [
        Layer("CRF and ViterbiTags", tagger),
        Layer("TreeLSTM", tree("TreeLSTM", arity=2), chain),
        Layer("RecursiveNN", tree("RecursiveNN"), chain),
        Layer("GraphRecurrent", graph, ring),
    ]
    for kind in token_models.INPUTS:
        begun = [] if kind == "LanguageModel" else [Begun(kind)]  # which begins from zeros
        found["Models"] += [Forward(kind), Written(kind), *begun, Token(kind)]
    return found


def short(name):
    """Without arguments."""
    name = name.partition("-")[0]
    return name + ")" * (name.count("(") - name.count(")"))


def returns_state(structure):
    return getattr(structure("float32"), "return_state", False)
