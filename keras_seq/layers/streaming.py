"""A whole model, one step at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self, Unpack

import keras
from keras import backend, ops, tree

from keras_seq.arguments import boolean, needs_tensorflow, positive_integer
from keras_seq.layers.rewriting import Rewriting
from keras_seq.masking import where_rows
from keras_seq.shapes import fits
from keras_seq.typing import Config, LayerArguments, Tensor

FORMATS = ("tf_saved_model", "onnx", "litert")


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
    return Stream(*_Steps(trusted).rewrite(model), boolean("jit_compile", jit_compile))


class Stream:
    """What `keras_seq.streaming` makes of a model: it takes one step and its state, and gives an output and the new state.

    The state is one flat list of tensors, the layers' own one after the other; nothing else grows or is kept. Rows are streams
    of their own: with `starts` some of them begin anew while the others go on.

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

    def reset(self, state: Sequence[Tensor], starts: Tensor) -> list[Tensor]:
        """The state, with that before the first step in the rows where `starts`, booleans (b,), is true."""
        return where_rows(starts, self.initial_state(ops.shape(state[0])[0]), list(state)) if state else []

    def step(self, inputs: Any, state: Sequence[Tensor], starts: Tensor | None = None) -> tuple[Any, list[Tensor]]:
        """One step.

        Args:
            inputs: those of the model, in its structure, without the axis of time.
            state: what `initial_state` or the step before gave.
            starts: booleans (b,), the rows that begin a new stream with this step; None for none.

        Returns:
            `(outputs, state)`: the outputs in the structure of the model's, without the axis of time.

        Raises:
            ValueError: inputs, a state or starts of another structure, type or shape.
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
        if starts is not None:
            starts, rows = ops.convert_to_tensor(starts), ops.shape(tree.flatten(inputs)[0])[:1]
            if backend.standardize_dtype(starts.dtype) != "bool" or not fits(ops.shape(starts), rows):
                raise ValueError(
                    f"starts: expected booleans of shape {rows}, one for each row, got {starts.dtype} {ops.shape(starts)}"
                )
        return self._compiled(tree.map_structure(ops.convert_to_tensor, inputs), list(state), starts)

    def _step(self, inputs, state, starts=None):
        if starts is not None:
            state = self.reset(state, starts)
        found = self.model([*(ops.expand_dims(x, 1) for x in tree.flatten(inputs)), *state])
        timed = tree.flatten(self._outputs)
        outputs = [y[:, 0] if t else y for y, t in zip(found, timed, strict=False)]
        return tree.pack_sequence_as(self._outputs, outputs), list(found[len(timed) :])

    def export(
        self,
        path: str | os.PathLike[str],
        format: str = "tf_saved_model",
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        """Write one step for service, state in and state out, in a format that needs keras_seq no more.

        "tf_saved_model", which needs TensorFlow alone, has `step(inputs, state) -> (outputs, state)`,
        `initial_state(batch_size) -> state` and `reset(state, starts) -> state`:

            loaded = tf.saved_model.load(path)
            state = loaded.initial_state(tf.constant(2))
            outputs, state = loaded.step(inputs, state)
            state = loaded.reset(state, tf.constant([True, False]))     # the first row begins anew

        Its signature `serving_default` is the same with names: input_0, .., state_0, .. to output_0, .., state_0, ..

        "onnx" and "litert" have the step alone. Their inputs have the same names; their outputs are in order, those of the
        model and then the new state. The state before the first step is that of `initial_state`: keep it beside the file.

        Args:
            path: a folder to write; for "onnx" a file, for "litert" one that ends in `.tflite`.
            format: "tf_saved_model", "onnx" or "litert", as in `keras.Model.export`. A LiteRT file has built-in operations
                only.
            batch_size: the number of rows that the step takes, None for any. A microcontroller wants a number.
            **options: of Keras's exporter of "onnx" (`opset_version`) and of "litert" (`optimizations`, ..).

        Raises:
            ValueError: another format, a batch size below 1, or a model with operations that LiteRT does not have, or of other
                types than float32; a path that is a file for a SavedModel, or does not end in `.tflite` for LiteRT. A file
                that was there before stays as it was.
            TypeError: a batch size that is no integer, a path that is none, or options for a SavedModel.
        """
        needs_tensorflow("Stream.export")
        if format not in FORMATS:
            raise ValueError(f"format: expected one of {list(FORMATS)}, got {format!r}")
        rows = None if batch_size is None else positive_integer("batch_size", batch_size)
        if options and format == "tf_saved_model":
            raise TypeError(f"options: expected none for a SavedModel, got {sorted(options)}")
        from keras_seq.layers.exporting import export_function, file_path

        if format == "tf_saved_model" and file_path(path, format).is_file():
            raise ValueError(f"path: expected a folder for a SavedModel, got the file {os.fspath(path)!r}")
        specs = self._specs(rows)
        flat = tree.flatten(specs)

        def step(*given):
            return tree.flatten(self._step(*tree.pack_sequence_as(specs, given)))

        if format == "tf_saved_model":
            self._export_saved_model(path, *specs)
        else:
            export_function(step, flat, self.model, path, format, options)

    def _specs(self, rows):
        """What a step of this number of rows takes, by name: the inputs in their structure, and the state."""
        import tensorflow as tf

        names = iter(range(len(self.model.inputs)))
        inputs = tree.map_structure(
            lambda x: tf.TensorSpec((rows, *x.shape[2:]), x.dtype, f"input_{next(names)}"), self._inputs
        )
        first = enumerate(self.initial_state(1))
        return inputs, [tf.TensorSpec((rows, *s.shape[1:]), s.dtype, f"state_{i}") for i, s in first]

    def _export_saved_model(self, path, inputs, state):
        import tensorflow as tf

        module = tf.Module()
        module.weights = [w.value for w in self.model.weights]
        module.step = tf.function(lambda x, s: self._step(x, s), [inputs, state], jit_compile=self._jit_compile or None)
        module.initial_state = tf.function(self.initial_state, [tf.TensorSpec((), "int32")])
        starts = tf.TensorSpec(tree.flatten(inputs)[0].shape[:1], "bool")
        module.reset = tf.function(self.reset, [state, starts])

        def served(**given):
            outputs, new = module.step(*tree.map_structure(lambda x: given[x.name], (inputs, state)))
            outputs = {f"output_{i}": y for i, y in enumerate(tree.flatten(outputs))}
            return {**outputs, **{f"state_{i}": s for i, s in enumerate(new)}}

        named = {x.name: x for x in tree.flatten((inputs, state))}
        signature = tf.function(served).get_concrete_function(**named)
        tf.saved_model.save(module, path, signatures={"serving_default": signature})


class _Steps(Rewriting):
    """A model of one step."""

    way, suffix, steps = "step by step", "step", 1

    def form(self, layer: Any) -> keras.layers.Layer:
        return StepForm(layer, name=f"{layer.name}_step", dtype=layer.dtype_policy)

    def first_state(self, layer: Any) -> list[Tensor]:
        return layer.initial_state(1)
