"""A whole model, one step at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self, Unpack

import keras
from keras import layers, ops, tree

from keras_seq._keras import run_graph
from keras_seq.arguments import boolean
from keras_seq.layers.rnn import RNN
from keras_seq.layers.streamable import Streamable
from keras_seq.shapes import fits
from keras_seq.typing import Config, LayerArguments, Tensor

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


@keras.saving.register_keras_serializable(package="keras_seq")
class StepForm(keras.layers.Layer):
    """A sequence layer as a layer of one step: `[x (b, 1, d), *state] -> [y, *new state]`; the weights are its own.

    y is (b, 1, u), or (b, u) where the layer does not return sequences. What `keras_seq.streaming` makes models of.

    Args:
        layer: a built sequence layer of keras_seq that has a step form.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: a layer without a step form.

    Example:

    ```python
    import keras_seq
    from keras import ops
    layer = keras_seq.GRU(4)
    layer.build((None, None, 3))
    y, *state = keras_seq.StepForm(layer)([ops.ones((2, 1, 3)), *layer.initial_state(2)])     # (2, 4)
    ```
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Unpack[LayerArguments]) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.supports_masking = True
        self.layer = layer
        if layer.not_stepwise:
            raise ValueError(f"{layer.name}: expected a layer that can be run step by step; {layer.not_stepwise}")

    def build(self, shapes: Any) -> None:
        if not self.layer.built:
            self.layer.build((shapes[0][0], None, *shapes[0][2:]))

    def call(self, inputs: Sequence[Tensor], mask: Tensor | None = None, targets: Tensor | None = None) -> Any:
        sequences, *state = inputs
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        further = {} if targets is None else {"targets": targets[:, 0]}
        outputs, state = self.layer.step(sequences[:, 0], state, None if mask is None else mask[:, 0], **further)
        return [ops.expand_dims(outputs, 1) if self.layer.return_sequences else outputs, *state]

    def compute_output_spec(self, inputs: Any, mask: Any = None, targets: Any = None) -> Any:
        sequences, *state = inputs
        leading = (sequences.shape[0], 1) if self.layer.return_sequences else (sequences.shape[0],)
        outputs = keras.KerasTensor((*leading, self.layer.output_width), self.layer.compute_dtype)
        return [outputs, *[keras.KerasTensor(s.shape, s.dtype) for s in state]]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        return [mask if self.layer.return_sequences else None, *[None for _ in inputs[1:]]]

    def get_config(self) -> Config:
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**{**config, "layer": keras.saving.deserialize_keras_object(config["layer"])})


def streaming(
    model: keras.Model, pointwise: Sequence[str | keras.layers.Layer] = (), jit_compile: bool = False
) -> Stream:
    """A trained model turned into one that takes one step at a time, for endless input in constant memory.

    Every sequence layer of keras_seq (stacks, TDNN, TCN, WaveNet, `LastStep` .. too) and every recurrent layer of Keras is
    replaced by its step form; layers that act on each step alone stay as they are. The weights are those of the model. Masks
    made inside (`Embedding(mask_zero=True)`, `Masking`) act on each step as they do on the sequence. Where the model gives
    one output per sequence, the stream gives at each step what the model would if the sequence ended there.

    Args:
        model: a built Sequential or functional model, all of whose inputs are sequences (b, t, ..); models in it likewise.
        pointwise: further layers of the model (the layers or their names) that act on each step alone.
        jit_compile: whether XLA compiles the step, once for each batch size, here and in what is exported: most of a small
            step is the calling of its operations, and XLA makes one of them.

    Returns:
        A `keras_seq.Stream`.

    Raises:
        TypeError, ValueError: another kind of model; a layer that cannot be run step by step (`Bidirectional`, a context that
            looks ahead), that returns its states, is given initial ones or reads constants, or that is not known to act on
            each step alone.

    Example:

    ```python
    import keras
    import keras_seq
    from keras import ops
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            keras_seq.LSTM(8, return_sequences=True),
            keras_seq.TCN(4, dilations=[1, 2]),
            keras.layers.Dense(2),
        ]
    )
    stream = keras_seq.streaming(model)
    state = stream.initial_state(batch_size=5)
    for _ in range(20):
        y, state = stream.step(ops.ones((5, 3)), state)      # (5, 2); equal to model(first steps) each time
    ```
    """
    trusted = {getattr(p, "name", p) for p in pointwise}
    return Stream(*_stepped(model, trusted), boolean("jit_compile", jit_compile))


class Stream:
    """What `keras_seq.streaming` makes of a model: it takes one step and its state, and gives an output and the new state.

    The state is one flat list of tensors, the layers' own one after the other; nothing else grows or is kept.

    Attributes:
        model: the same as a functional Keras model, `[*inputs (b, 1, ..), *state] -> [*outputs, *state]`.

    Example:

    ```python
    import keras
    import keras_seq
    stream = keras_seq.streaming(keras.Sequential([keras.Input((None, 3)), keras_seq.GRU(4)]))
    print([s.shape for s in stream.initial_state(batch_size=1)])      # the memory and the last output, (1, 4) each
    ```
    """

    def __init__(self, model: keras.Model, inputs: Any, outputs: Any, layers: Any, jit_compile: bool) -> None:
        self.model, self._inputs, self._outputs, self._layers = model, inputs, outputs, layers
        self._jit_compile, self._compiled = jit_compile, self._step
        if keras.config.backend() == "tensorflow":
            import tensorflow

            self._compiled = tensorflow.function(self._step, jit_compile=jit_compile or None)

    def initial_state(self, batch_size: int) -> list[Tensor]:
        """The state before the first step: a flat list of tensors, `batch_size` rows each."""
        return [s for layer in self._layers for s in layer.initial_state(batch_size)]

    def step(self, inputs: Any, state: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
        """One step.

        Args:
            inputs: those of the model, in its structure, without the axis of time.
            state: what `initial_state` or the step before gave.

        Returns:
            `(outputs, state)`: the outputs in the structure of the model's, without the axis of time.

        Raises:
            ValueError: inputs or a state of another structure or shape.
        """
        try:
            tree.assert_same_structure(inputs, self._inputs)
        except (TypeError, ValueError) as error:
            wanted = tree.map_structure(lambda x: (None, *x.shape[2:]), self._inputs)
            raise ValueError(f"inputs: expected the structure of the model's, {wanted}, got {inputs!r}") from error
        expected = [tuple(s.shape[1:]) for s in self.model.inputs[len(tree.flatten(self._inputs)) :]]
        shapes = [tuple(s.shape[1:]) for s in state]
        if shapes != expected:
            raise ValueError(f"state: expected {len(expected)} tensors whose rows are {expected}, got {shapes}")
        for x, wanted in zip(tree.flatten(inputs), tree.flatten(self._inputs), strict=True):
            if not fits(ops.shape(x), (None, *wanted.shape[2:])):
                raise ValueError(f"inputs: expected shape {(None, *wanted.shape[2:])} without time, got {ops.shape(x)}")
        return self._compiled(tree.map_structure(ops.convert_to_tensor, inputs), list(state))

    def _step(self, inputs, state):
        found = self.model([*(ops.expand_dims(x, 1) for x in tree.flatten(inputs)), *state])
        timed = tree.flatten(self._outputs)
        outputs = [y[:, 0] if t else y for y, t in zip(found, timed, strict=False)]
        return tree.pack_sequence_as(self._outputs, outputs), list(found[len(timed) :])

    def export(self, path: str | os.PathLike[str]) -> Any:
        """Write a SavedModel with `step(inputs, state) -> (outputs, state)` and `initial_state(batch_size) -> state`.

        It needs TensorFlow alone:

            loaded = tf.saved_model.load(path)
            state = loaded.initial_state(tf.constant(1))
            outputs, state = loaded.step(inputs, state)

        Its signature `serving_default` is the same with names: input_0, .., state_0, .. to output_0, .., state_0, ..
        """
        import tensorflow as tf

        inputs = tree.map_structure(lambda x: tf.TensorSpec((None, *x.shape[2:]), x.dtype), self._inputs)
        state = [tf.TensorSpec((None, *s.shape[1:]), s.dtype) for s in self.initial_state(1)]
        module = tf.Module()
        module.weights = [w.value for w in self.model.weights]
        module.step = tf.function(self._step, [inputs, state], jit_compile=self._jit_compile or None)
        module.initial_state = tf.function(self.initial_state, [tf.TensorSpec((), "int32")])

        def served(**given):
            count = len(tree.flatten(inputs))
            flat = [given[name] for name in names]
            outputs, new = module.step(tree.pack_sequence_as(inputs, flat[:count]), flat[count:])
            outputs = {f"output_{i}": y for i, y in enumerate(tree.flatten(outputs))}
            return {**outputs, **{f"state_{i}": s for i, s in enumerate(new)}}

        flat = {f"input_{i}": x for i, x in enumerate(tree.flatten(inputs))}
        flat.update((f"state_{i}", s) for i, s in enumerate(state))
        names = list(flat)
        signature = tf.function(served).get_concrete_function(
            **{name: tf.TensorSpec(x.shape, x.dtype, name) for name, x in flat.items()}
        )
        tf.saved_model.save(module, path, signatures={"serving_default": signature})


def _stepped(model: Any, trusted: set[Any]) -> tuple[Any, Any, Any, Any]:
    """`(functional model of one step, its inputs in their structure, which outputs have time, the layers with states)`."""
    if isinstance(model, keras.Sequential) and model.built:
        first = outputs = keras.Input(batch_shape=model.input_shape, dtype=model.inputs[0].dtype)
        for layer in model.layers:
            outputs = layer(outputs)
        model = keras.Model(first, outputs, name=model.name)
    if not (isinstance(model, keras.Model) and hasattr(model, "operations")):
        raise TypeError(f"model: expected a built Sequential or functional model, got {model!r}")
    if any(len(x.shape) < 2 for x in model.inputs):
        raise ValueError(f"model: expected inputs (b, t, ..), got {[tuple(x.shape) for x in model.inputs]}")
    inputs = tree.map_structure(lambda x: keras.Input(batch_shape=(None, 1, *x.shape[2:]), dtype=x.dtype), model.input)
    graph = _Graph(trusted)
    outputs = run_graph(model, inputs, graph.call)
    timed = tree.map_structure(lambda y: id(y) not in graph.ended, outputs)
    given, made = [*tree.flatten(inputs), *graph.given], [*tree.flatten(outputs), *graph.made]
    step = keras.Model(given, made, name=f"{model.name}_step")
    return step, inputs, timed, graph.layers


class _Graph:
    """Calls the layers of a functional model on one step each, and collects the states that go in and come out."""

    def __init__(self, trusted):
        self.trusted, self.given, self.made, self.layers = trusted, [], [], []
        self.ours = {}  # by the id of a layer of Keras, ours over the same cell
        self.forms = {}  # by the layer's id: a layer that is called twice has one form and two states
        self.ended = {}  # by id, the tensors that have no time any more

    def call(self, layer, *args, **kwargs):
        tensors = [x for x in tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        ended = [id(x) in self.ended for x in tensors]
        if ended and all(ended):
            return self._end(layer(*args, **kwargs))
        if any(ended):
            raise ValueError(f"{layer.name}: expected inputs that all have steps in time, or none; got both")
        if isinstance(layer, keras.Model):
            return self._nested(layer, *args)
        if isinstance(layer, keras.layers.RNN) and not isinstance(layer, Streamable):
            flags = ("return_sequences", "return_state", "go_backwards", "zero_output_for_mask")
            if id(layer) not in self.ours:
                given = {f: getattr(layer, f) for f in flags}
                self.ours[id(layer)] = RNN(layer.cell, **given, name=layer.name, dtype=layer.dtype_policy)
                self.ours[id(layer)].built = True
            layer = self.ours[id(layer)]
        if isinstance(layer, Streamable):
            return self._step_form(layer, *args, **kwargs)
        known = type(layer) in POINTWISE or type(layer).__name__ in ELEMENTWISE
        known = known and _along_features(layer)
        if not known and layer.name not in self.trusted:
            raise ValueError(
                f"{layer.name}: expected a layer that acts on each step alone, got a {type(layer).__name__}, of which that is "
                "not known; name it in `pointwise` if it does"
            )
        return layer(*args, **kwargs)

    def _step_form(self, layer, sequences, initial_state=None, mask=None, training=None, constants=None, targets=None):
        for name, value in (("initial_state", initial_state), ("constants", constants)):
            if value is not None:
                raise ValueError(f"{layer.name}: expected no {name} in a model that is run step by step, got {value!r}")
        for flag in ("return_state", "return_internals"):
            if getattr(layer, flag, False):
                raise ValueError(f"{layer.name}: expected {flag}=False in a model that is run step by step, got True")
        if id(layer) not in self.forms:
            self.forms[id(layer)] = StepForm(layer, name=f"{layer.name}_step", dtype=layer.dtype_policy)
        outputs, *state = self.forms[id(layer)]([sequences, *self._states(layer)], mask=mask, targets=targets)
        self.made.extend(state)
        return outputs if layer.return_sequences else self._end(outputs)

    def _nested(self, model, *args):
        step, _, timed, owners = _stepped(model, self.trusted)
        given = [s for layer in owners for s in self._states(layer)]
        found = step([*tree.flatten(args[0]), *given])
        count = len(tree.flatten(timed))
        self.made.extend(found[count:])
        outputs = [y if t else self._end(y) for y, t in zip(found, tree.flatten(timed), strict=False)]
        return tree.pack_sequence_as(timed, outputs)

    def _states(self, layer):
        inputs = [keras.Input(tuple(s.shape[1:]), dtype=s.dtype) for s in layer.initial_state(1)]
        self.given.extend(inputs)
        self.layers.append(layer)
        return inputs

    def _end(self, outputs):
        self.ended.update((id(y), y) for y in tree.flatten(outputs))
        return outputs


def _along_features(operation):
    """Whether what is joined, reduced or normalised lies along the last axis, the features of one step."""
    return getattr(operation, "axis", -1) in (-1, (-1,), [-1])
