"""`RNN(cell)`: any cell over a sequence, and the one mechanism by which a named layer wraps its cell."""

import inspect
import types

import keras
from keras import ops

from keras_seq import engine
from keras_seq.cells.base import Cell, arguments, boolean

_FLAGS = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll", "zero_output_for_mask")


@keras.saving.register_keras_serializable(package="keras_seq")
class RNN(keras.layers.RNN):
    """A sequence layer from one step: `keras.layers.RNN` with an engine of its own.

        y_t, s_t = step(project(x_t), s_{t-1}, constants),   t = 1 .. T

    On the TensorFlow backend a `keras_seq.Cell` runs on the engine: the gradient is exact and derived from the step, one
    product per kernel and sequence, eagerly, in graphs and under XLA. On other backends, with `unroll=True`, and for any
    other Keras cell, Keras's own loop runs the same step.

    A masked step leaves the states as they were and repeats the last output (zeros before the first real step), or gives
    zeros with `zero_output_for_mask`; nothing behind a mask, NaN included, reaches a value or a gradient.

    Args:
        cell: a `keras_seq.Cell`, or any Keras RNN cell.
        return_sequences: return all outputs (b, t, u) rather than the last one (b, u).
        return_state: return the final states too, each (b, u), after the output.
        go_backwards: read time in reverse; outputs come in the order of processing, as in Keras.
        stateful: start each batch from the final states of the one before; needs a static batch size. Gradients stop at
            the borders of batches, so that a learned initial state is used but not trained.
        unroll: write the loop out (Keras's loop; needs a static length).
        zero_output_for_mask: outputs of masked steps are zero.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Call arguments:
        sequences: tensor (b, t, d).
        initial_state: a tensor (b, u) per state, or None: zeros, the learned states, or the kept ones if `stateful`.
        mask: boolean tensor (b, t), True for real steps.
        training: whether dropout acts. It also says that a gradient will be wanted: with `training=True` the forward
            pass keeps what the backward needs, otherwise a gradient is as right but runs the loop again first.
        constants: tensors that do not change in time, for cells that read some; they get gradients.

    Raises:
        TypeError, ValueError: a flag that is not a bool; sequences that are not (b, t, d) or without any step; a mask that is
            not (b, t); initial states of another number, width or batch than the cell's; `stateful` without a static
            batch size; `constants` for a cell that is no `keras_seq.Cell`.

    Example:

    ```python
    import keras_seq
    from keras import ops
    layer = keras_seq.RNN(keras_seq.GRUCell(4), return_sequences=True, return_state=True)
    y, h = layer(ops.ones((2, 5, 3)))   # (2, 5, 4), (2, 4)
    ```
    """

    def __init__(
        self,
        cell,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        zero_output_for_mask=False,
        **kwargs,
    ):
        flags = (return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask)
        super().__init__(
            cell, **{name: boolean(name, value) for name, value in zip(_FLAGS, flags, strict=True)}, **kwargs
        )
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self._constants = ()

    def build(self, sequences_shape, initial_state_shape=None, constants_shape=None):
        if isinstance(self.cell, Cell) and self.cell.constants and not self.cell.built:
            self.cell.build((sequences_shape[0], *sequences_shape[2:]), constants_shape=constants_shape)
            self.cell.built = True
        super().build(sequences_shape, initial_state_shape)
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: sequences_shape[-1]})

    def call(self, sequences, initial_state=None, mask=None, training=False, constants=None):
        self._check(sequences, initial_state, mask, constants)
        self._constants = tuple(constants or ())
        try:
            return super().call(sequences, initial_state=initial_state, mask=mask, training=training)
        finally:
            self._constants = ()

    def inner_loop(self, sequences, initial_state, mask, training=False):
        cell = self.cell
        if not isinstance(cell, Cell):
            return super().inner_loop(sequences, initial_state, mask, training=training)
        if mask is not None:
            mask = ops.cast(mask, "bool")
        if training and cell.dropout:
            sequences = sequences * ops.expand_dims(cell.get_dropout_mask(sequences[:, 0, :]), 1)
        drop = cell.get_recurrent_dropout_mask(initial_state[0]) if training and cell.recurrent_dropout else None
        constants = cell.prepare(self._constants)

        def step(projected, states, constants):
            with engine.dropping(drop):
                return cell.step(projected, states, constants)

        if engine.scan is None or self.unroll:
            return self._keras_loop(step, sequences, initial_state, constants, mask)
        outputs, states = engine.scan(
            cell.project,
            step,
            sequences,
            initial_state,
            constants,
            cell.variables,
            mask,
            go_backwards=self.go_backwards,
            return_sequences=self.return_sequences,
            zero_output_for_mask=self.zero_output_for_mask,
            keep=bool(training),
        )
        last = outputs[:, -1] if self.return_sequences else outputs
        return last, outputs, list(states)

    def _keras_loop(self, step, sequences, initial_state, constants, mask):
        def call(inputs, states):
            output, states = step(self.cell.project(inputs), tuple(states), constants)
            return output, list(states)

        if mask is not None:
            sequences = ops.where(ops.expand_dims(mask, -1), sequences, ops.zeros_like(sequences))
        if self.go_backwards:  # here, as Keras's unrolled loop applies the mask to the outputs in the wrong order
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        flags = {name: getattr(self, name) for name in _FLAGS if name != "go_backwards"}
        loop = types.SimpleNamespace(cell=call, go_backwards=False, **flags)
        return keras.layers.RNN.inner_loop(loop, sequences, initial_state, mask)

    def _maybe_config_dropout_masks(self, cell, input_sequence, input_state):
        # Keras draws masks here even where nothing is dropped; ours are drawn in `inner_loop`, in training alone
        if not isinstance(cell, Cell):
            super()._maybe_config_dropout_masks(cell, input_sequence, input_state)

    def reset_state(self):
        """Put the kept states of a stateful layer back to the initial ones."""
        if self.states is not None:
            initial = self.get_initial_state(self._expected_batch_size)
            for variable, value in zip(self.states, initial, strict=True):
                variable.assign(value)

    def _check(self, sequences, initial_state, mask, constants):
        if sequences.shape[1] == 0:
            raise ValueError(f"sequences: expected at least one time step, got shape {tuple(sequences.shape)}")
        if mask is not None and not _fits(mask.shape, sequences.shape[:2]):
            raise ValueError(
                f"mask: expected shape (b, t) like the sequences', {tuple(sequences.shape[:2])}, got {tuple(mask.shape)}"
            )
        if initial_state is not None:
            given = initial_state if isinstance(initial_state, (list, tuple)) else [initial_state]
            expected = [(sequences.shape[0], size) for size in self.state_size]
            shapes = [tuple(s.shape) for s in given]
            if len(shapes) != len(expected) or not all(map(_fits, shapes, expected)):
                raise ValueError(f"initial_state: expected {len(expected)} of shapes {expected}, got {shapes}")
        if isinstance(self.cell, Cell):
            self.cell.check_constants(constants or ())
        elif constants:
            raise ValueError(f"constants: expected none for a cell that is no keras_seq.Cell, got {len(constants)}")


class CellLayer(RNN):
    """A layer that is one cell's, by name; adds no logic of its own.

    A subclass names its `cell_class`. Its constructor takes that class's arguments and those of `RNN`, and hands each on;
    signature and config follow from the two.
    """

    cell_class = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        layers_own = [p for name, p in arguments(RNN).items() if name != "cell"]
        parameters = [*arguments(cls.cell_class).values(), *layers_own]
        positional = [p for p in parameters if p.default is p.empty]
        parameters = [p for p in parameters if p.default is not p.empty]
        rest = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
        cls.__signature__ = _OfClass(inspect.Signature([*positional, *parameters, rest]))

    def __init__(self, *args, **kwargs):
        given = type(self).__signature__.bind(*args, **kwargs).arguments
        given.update(given.pop("kwargs", {}))
        own = arguments(self.cell_class)
        cell = {name: given.pop(name) for name in list(given) if name in own}
        shared = {name: given[name] for name in ("dtype", "trainable") if name in given}
        unknown = sorted(set(given) - set(_FLAGS) - {"name", "dtype", "trainable", "activity_regularizer"})
        if unknown:
            raise TypeError(
                f"{type(self).__name__}: unknown argument {unknown[0]!r}; signature {type(self).__signature__}"
            )
        super().__init__(self.cell_class(**cell, **shared), **given)

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        inner = self.cell.get_config()
        return {**config, **{name: inner[name] for name in arguments(self.cell_class)}}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __getattr__(self, name):
        """The cell's arguments, as in Keras: `layer.units`, `layer.dropout`."""
        if name in arguments(type(self).cell_class):
            return getattr(self.cell, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class _OfClass:
    """An attribute of a class that its instances do not have (`inspect.signature(layer)` is that of `call`)."""

    def __init__(self, value):
        self.value = value

    def __get__(self, instance, owner):
        if instance is not None:
            raise AttributeError
        return self.value


def _fits(shape, expected):
    """Whether two static shapes may be the same at run time."""
    return len(shape) == len(expected) and all(
        a == b or a is None or b is None for a, b in zip(shape, expected, strict=True)
    )
