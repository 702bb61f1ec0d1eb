"""A functional model with its sequence layers in another form: of one step, or of a chunk of steps."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import keras
from keras import layers, tree

from keras_seq._keras import run_graph
from keras_seq.layers.rnn import RNN
from keras_seq.layers.streamable import Streamable
from keras_seq.typing import Tensor

# layers of Keras that act on each step alone, whatever stands at other steps
POINTWISE = (
    layers.Activation,
    layers.Add,
    layers.AlphaDropout,
    layers.Average,
    layers.BatchNormalization,
    layers.Concatenate,
    layers.Dense,
    layers.Dropout,
    layers.ELU,
    layers.Embedding,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.InputLayer,
    layers.LayerNormalization,
    layers.LeakyReLU,
    layers.Masking,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Normalization,
    layers.ReLU,
    layers.Rescaling,
    layers.RMSNormalization,
    layers.Softmax,
    layers.SpatialDropout1D,
    layers.Subtract,
    layers.TimeDistributed,
    layers.UnitNormalization,
)
# operations on the tensors of a functional model, likewise; those with an axis only along the features
ELEMENTWISE = (
    *(
        "Absolute",
        "Add",
        "Cast",
        "Clip",
        "Cos",
        "Divide",
        "Exp",
        "Gelu",
        "LeakyRelu",
        "Log",
        "Log1p",
        "Maximum",
        "Minimum",
    ),
    *(
        "Multiply",
        "Negative",
        "Power",
        "Relu",
        "Sigmoid",
        "Sign",
        "Silu",
        "Sin",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Square",
    ),
    *("Subtract", "Tanh", "TrueDivide", "Softmax", "Concatenate"),
    *("NotEqual", "Any", "LogicalAnd", "LogicalNot"),  # masks
)


class Rewritten(NamedTuple):
    """`model` maps `[*inputs, *further, *states]` to `[*outputs, *states]`.

    `inputs` are the model's in their structure, `timed` says which outputs have time, `layers` whose states they are.
    """

    model: keras.Model
    inputs: Any
    timed: Any
    layers: list[Any]


class Rewriting(abc.ABC):
    """Calls the layers of a functional model in another form, and collects the states that go in and come out.

    A subclass says what a sequence layer becomes (`form`), a layer `[x, *further, *state] -> [y, *state]`, what its state is
    (`first_state`), how long its inputs are (`steps`, None for any length), and for errors how the model is then run (`way`).
    `further` are inputs that it adds to those of the model, for every form. `suffix` goes behind the model's name.

    Args:
        trusted: names of layers that act on each step alone, besides those that are known to.
    """

    way: str
    suffix: str
    steps: int | None

    def __init__(self, trusted: set[Any]) -> None:
        self.trusted, self.further = trusted, self.new_inputs()
        self._given: list[Any] = []
        self._made: list[Any] = []
        self._layers: list[Any] = []
        self._ours: dict[int, Any] = {}  # by the id of a layer of Keras, ours over the same cell
        self._forms: dict[int, Any] = {}  # by the layer's id: a layer that is called twice has one form and two states
        self._ended: dict[int, Any] = {}  # by id, the tensors that have no time any more

    @abc.abstractmethod
    def form(self, layer: Any) -> keras.layers.Layer:
        """What a sequence layer becomes."""

    @abc.abstractmethod
    def first_state(self, layer: Any) -> list[Tensor]:
        """What a sequence layer carries before its first step, of one row."""

    def new_inputs(self) -> list[Any]:
        """Inputs that the rewritten model has besides those of the model."""
        return []

    def like(self) -> Rewriting:
        """Another one of the same kind, for a model within the model."""
        return type(self)(self.trusted)

    def output(self, outputs: Tensor) -> Tensor:
        """What becomes of an output that has time."""
        return outputs

    def rewrite(self, model: Any) -> Rewritten:
        """The model in the other form; a TypeError or ValueError where it has none."""
        if isinstance(model, keras.Sequential) and model.built:
            first = outputs = keras.Input(batch_shape=model.input_shape, dtype=model.inputs[0].dtype)
            for layer in model.layers:
                outputs = layer(outputs)
            model = keras.Model(first, outputs, name=model.name)
        if not (isinstance(model, keras.Model) and hasattr(model, "operations")):
            raise TypeError(f"model: expected a built Sequential or functional model, got {model!r}")
        if any(len(x.shape) < 2 for x in model.inputs):
            raise ValueError(f"model: expected inputs (b, t, ..), got {[tuple(x.shape) for x in model.inputs]}")
        inputs = tree.map_structure(
            lambda x: keras.Input(batch_shape=(None, self.steps, *x.shape[2:]), dtype=x.dtype), model.input
        )
        outputs = run_graph(model, inputs, self._call)
        timed = tree.map_structure(lambda y: id(y) not in self._ended, outputs)
        outputs = tree.map_structure(lambda y, t: self.output(y) if t else y, outputs, timed)
        given = [*tree.flatten(inputs), *self.further, *self._given]
        rewritten = keras.Model(given, [*tree.flatten(outputs), *self._made], name=f"{model.name}_{self.suffix}")
        return Rewritten(rewritten, inputs, timed, self._layers)

    def _call(self, layer, *args, **kwargs):
        tensors = [x for x in tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        ended = [id(x) in self._ended for x in tensors]
        if ended and all(ended):
            return self._end(layer(*args, **kwargs))
        if any(ended):
            raise ValueError(f"{layer.name}: expected inputs that all have steps in time, or none; got both")
        if isinstance(layer, keras.Model):
            return self._nested(layer, *args)
        if isinstance(layer, keras.layers.RNN) and not isinstance(layer, Streamable):
            flags = ("return_sequences", "return_state", "go_backwards", "zero_output_for_mask")
            if id(layer) not in self._ours:
                given = {f: getattr(layer, f) for f in flags}
                self._ours[id(layer)] = RNN(layer.cell, **given, name=layer.name, dtype=layer.dtype_policy)
                self._ours[id(layer)].built = True
            layer = self._ours[id(layer)]
        if isinstance(layer, Streamable):
            return self._sequence_layer(layer, *args, **kwargs)
        known = type(layer) in POINTWISE or type(layer).__name__ in ELEMENTWISE
        known = known and _along_features(layer)
        if not known and layer.name not in self.trusted:
            raise ValueError(
                f"{layer.name}: expected a layer that acts on each step alone, got a {type(layer).__name__}, of which that is "
                "not known; name it in `pointwise` if it does"
            )
        return layer(*args, **kwargs)

    def _sequence_layer(
        self, layer, sequences, initial_state=None, mask=None, training=None, constants=None, targets=None
    ):
        for name, value in (("initial_state", initial_state), ("constants", constants)):
            if value is not None:
                raise ValueError(f"{layer.name}: expected no {name} in a model that is run {self.way}, got {value!r}")
        for flag in ("return_state", "return_internals"):
            if getattr(layer, flag, False):
                raise ValueError(f"{layer.name}: expected {flag}=False in a model that is run {self.way}, got True")
        layer._check_stepwise()
        if id(layer) not in self._forms:
            self._forms[id(layer)] = self.form(layer)
        given = [sequences, *self.further, *self._states(layer)]
        outputs, *state = self._forms[id(layer)](given, mask=mask, targets=targets)
        self._made.extend(state)
        return outputs if layer.return_sequences else self._end(outputs)

    def _nested(self, model, *args):
        inner = self.like().rewrite(model)
        given = [s for layer in inner.layers for s in self._states(layer)]
        found = inner.model([*tree.flatten(args[0]), *self.further, *given])
        count = len(tree.flatten(inner.timed))
        self._made.extend(found[count:])
        outputs = [y if t else self._end(y) for y, t in zip(found, tree.flatten(inner.timed), strict=False)]
        return tree.pack_sequence_as(inner.timed, outputs)

    def _states(self, layer):
        inputs = [keras.Input(tuple(s.shape[1:]), dtype=s.dtype) for s in self.first_state(layer)]
        self._given.extend(inputs)
        self._layers.append(layer)
        return inputs

    def _end(self, outputs):
        self._ended.update((id(y), y) for y in tree.flatten(outputs))
        return outputs


def _along_features(operation):
    """Whether what is joined, reduced or normalised lies along the last axis, the features of one step."""
    return getattr(operation, "axis", -1) in (-1, (-1,), [-1])
