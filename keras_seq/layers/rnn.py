"""`RNN(cell)`: any cell over a sequence."""

from __future__ import annotations

import inspect
import types
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import keras
from keras import ops, regularizers, tree

from keras_seq import engine
from keras_seq._keras import AutocastScope, kept_batch, loop_of_keras
from keras_seq.arguments import boolean, named, positive_integer, snake_case
from keras_seq.cells.base import Cell
from keras_seq.cells.functional import functions_of
from keras_seq.cells.of_keras import view, with_own_masks, with_perturbations
from keras_seq.layers.newton import Newton, solver_of
from keras_seq.layers.streamable import PreparedConstants, Streamable
from keras_seq.masking import last_real, where_rows
from keras_seq.shapes import as_long, check_sequences, fits, shapes_of_states, spec_of, static
from keras_seq.typing import Config, SequenceArguments, Shape, Tensor

FLAGS = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll", "zero_output_for_mask")


@keras.saving.register_keras_serializable(package="keras_seq")
class RNN(Streamable, keras.layers.RNN):
    """A sequence layer from one step: `keras.layers.RNN` with an engine of its own.

        y_t, s_t = step(project(x_t), s_{t-1}, constants),   t = 1 .. T

    On the TensorFlow backend a `keras_seq.Cell` runs on the engine: the gradient is exact and derived from the step, one
    product per kernel and sequence, eagerly, in graphs and under XLA. On other backends, with `unroll=True`, and for any
    other Keras cell, Keras's own loop runs the same step.

    A masked step leaves the states as they were and repeats the last output (zeros before the first real step), or gives
    zeros with `zero_output_for_mask`; nothing behind a mask, NaN included, reaches a value or a gradient. Without
    return_sequences the output is that of the last real step, zeros for a row without one. The mask goes on with the
    returned sequences, with `go_backwards` reversed as they are (Keras hands on the mask of the inputs). States are of the
    type of the cell's weights: under a mixed policy they come out in float32, and are taken back so. The cell computes by a
    policy of its own; that of the layer says the type of the outputs.

    Args:
        cell: a `keras_seq.Cell`, or any Keras RNN cell; a list of them is one `keras.layers.StackedRNNCells`, whose states are
            one flat list here.
        return_sequences: return all outputs (b, t, u) rather than the last one (b, u).
        return_state: return the final states too, each (b, u), after the output.
        return_internals: return, as the last output, what the cell's step exposes: a dict from names to (b, t, width)
            tensors, at masked steps as the outputs are. They get gradients; without it nothing is computed for them.
        go_backwards: read time in reverse; outputs, and their mask, come in the order of processing.
        stateful: start each batch from the final states of the one before; needs a static batch size. Gradients stop at
            the borders of batches, so that a learned initial state is used but not trained.
        unroll: write the loop out (Keras's loop; needs a static length).
        zero_output_for_mask: outputs of masked steps are zero in returned sequences.
        truncate: truncated backpropagation through time: no gradient passes from step nk to step nk - 1, counted from the
            first step that is read; None for no cut.
        checkpoint: keep for the backward pass only the states of every sqrt(t)-th step, with `truncate` of every k-th, and
            run the steps between again: memory as sqrt(t) (or k + t / k), the same gradients, about a third more time.
        solver: None for a loop over time; "newton" or a `keras_seq.Newton` to find the states of all steps at once, by
            iterations whose depth grows as log(t): see there where it pays. A cell whose states are known without a loop, such
            as `keras_seq.MinGRUCell`, needs none and takes no notice of it.
        **kwargs: `name`, by default with the name of the cell, where Keras has no such cell; `dtype`, `trainable`,
            `activity_regularizer`; and, for the first layer of a `keras.Sequential` without an Input, `input_shape` (t, d), or
            `input_dim` d, with or without `input_length` t.

    Call arguments:
        sequences: tensor (b, t, d).
        initial_state: a tensor (b, u) per state, or None: zeros, the learned states, or the kept ones if `stateful`.
        mask: boolean tensor (b, t), True for real steps.
        training: whether dropout acts. It also says that a gradient will be wanted: with `training=True` the forward
            pass keeps what the backward needs, otherwise a gradient is as right but runs the loop again first.
        constants: tensors that do not change in time, for cells that read some; they get gradients.
        sequences_mask, constants_mask: Keras fills them with the masks that it carries with these; `mask` goes first.
        targets: tensor (b, t, k) of true outputs, for a `keras_seq.FeedbackCell`: fed back in place of its own.
        return_state: whether this call returns the final states; None for what the constructor says.

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
    state = layer.initial_state(2)      # the same step by step: the cell's states, and the last output
    y, state = layer.step(ops.ones((2, 3)), state)   # (2, 4), [(2, 4), (2, 4)]
    ```
    """

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        *,
        return_internals: bool = False,
        truncate: int | None = None,
        checkpoint: bool = False,
        solver: Newton | Literal["newton"] | Config | None = None,
        **kwargs: Unpack[SequenceArguments],
    ) -> None:
        _check_cell(cell)
        if type(self) is RNN and isinstance(cell, Cell) and kwargs.get("name") is None:
            kwargs["name"] = _named_after(type(cell).__name__)
        if isinstance(cell, (list, tuple)):
            cell = keras.layers.StackedRNNCells(cell, dtype=kwargs.get("dtype"))
        given = (return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask)
        flags = {name: boolean(name, value) for name, value in zip(FLAGS, given, strict=True)}
        if "activity_regularizer" in kwargs:
            kwargs["activity_regularizer"] = named(regularizers, "activity_regularizer", kwargs["activity_regularizer"])
        super().__init__(cell, **flags, **{"autocast": False, **kwargs})
        self.return_internals = boolean("return_internals", return_internals)
        if return_internals and not isinstance(cell, Cell):
            raise ValueError(
                f"return_internals: expected False for a cell that is no keras_seq.Cell, {cell!r}, got True"
            )
        if isinstance(cell, Cell) and cell.couples_batch and cell.blocked:
            raise ValueError(f"cell: expected one that is not blocked if it mixes rows, got {cell!r}")
        self.truncate = None if truncate is None else positive_integer("truncate", truncate)
        self.checkpoint = boolean("checkpoint", checkpoint)
        for name in ("truncate", "checkpoint"):
            if getattr(self, name) and (unroll or engine.scan is None or not isinstance(cell, Cell)):
                raise ValueError(
                    f"{name}: expected {None if name == 'truncate' else False} where the engine does not run (another "
                    f"backend than TensorFlow, unroll=True, a cell that is no keras_seq.Cell), got {getattr(self, name)}"
                )
        self.solver = solver_of(solver)
        if self.solver is not None:
            self._check_solver()
        self.input_spec = keras.layers.InputSpec(ndim=3)
        if "constants" not in self.call_signature_parameters:  # a subclass with the call that Keras's layers have
            self.build.__signature__ = inspect.signature(super().build)  # type: ignore[attr-defined]

    @property
    def state_size(self) -> list[int]:
        """The widths of the states."""
        return tree.flatten(self.cell.state_size)

    @state_size.setter
    def state_size(self, value: Any) -> None:
        """Keras's constructor copies the cell's; a cell may know its own only when it is built."""

    def build(self, sequences_shape: Shape, initial_state_shape: Any = None, constants_shape: Any = None) -> None:
        wanted = inspect.signature(self.cell.build).parameters if isinstance(self.cell, Cell) else ()
        if "constants_shape" in wanted and not self.cell.built:
            self.cell.build((sequences_shape[0], *sequences_shape[2:]), constants_shape=constants_shape)
            self.cell.built = True
        super().build(sequences_shape, initial_state_shape)
        self.input_spec = spec_of(sequences_shape)

    def compute_output_spec(self, sequences: Any, *args: Any, return_state: bool | None = None, **kwargs: Any) -> Any:
        if return_state not in (None, self.return_state):
            kwargs["return_state"] = return_state
        if "return_state" in kwargs or self.return_internals or self.compute_dtype != self.state_dtype:
            return keras.Operation.compute_output_spec(self, sequences, *args, **kwargs)
        return super().compute_output_spec(sequences, *args, **kwargs)

    def compute_output_shape(
        self, sequences_shape: Shape, initial_state_shape: Any = None, **further_shapes: Any
    ) -> Any:
        layer = self
        if not (self.return_state or self.return_internals):
            return super().compute_output_shape(sequences_shape)
        if not self.built:  # a cell may know its states only when it is built
            layer = type(self).from_config(self.get_config())
            layer.build(sequences_shape)
        if not self.return_internals:
            return keras.layers.RNN.compute_output_shape(layer, sequences_shape)
        further = {}
        if getattr(layer.cell, "supports_teacher_forcing", False):
            further["targets"] = keras.KerasTensor((*sequences_shape[:2], layer.cell.output_size), layer.compute_dtype)
        sequences = keras.KerasTensor(sequences_shape, layer.compute_dtype)
        return tree.map_structure(lambda x: x.shape, keras.Operation.compute_output_spec(layer, sequences, **further))

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        """That of the outputs, in the order of processing; None for each state."""
        mask = tree.flatten(mask)[0]
        return super().compute_mask(
            sequences, ops.flip(mask, axis=1) if self.go_backwards and mask is not None else mask
        )

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        training: bool = False,
        constants: Sequence[Tensor] | None = None,
        targets: Tensor | None = None,
        sequences_mask: Tensor | None = None,
        constants_mask: Any = None,
        return_state: bool | None = None,
    ) -> Any:
        mask = sequences_mask if mask is None else mask
        ours = isinstance(self.cell, Cell)
        if constants and ours:
            constants = self.cell.masked_constants(list(constants), constants_mask)
        self._check(sequences, initial_state, mask, constants, targets)
        sequences = ops.cast(sequences, self._cell_dtype)
        if self.stateful and None is not sequences.shape[0] != kept_batch(self):
            raise ValueError(
                f"sequences: expected the batch size {kept_batch(self)} of the states of the stateful layer, got "
                f"{sequences.shape[0]}"
            )
        if initial_state is None:
            kept = self.states if self.stateful else None
            initial_state = kept or self.get_initial_state(batch_size=ops.shape(sequences)[0])
        states = [ops.cast(s, self.state_dtype) for s in tree.flatten(initial_state)]
        targets = None if targets is None else ops.cast(targets, self.state_dtype)
        mask = None if mask is None else ops.cast(mask, "bool")
        if ours:
            if training and self.cell.dropout:
                dropped = self.cell.drawn_mask(sequences[:, 0, :], self.cell.dropout)
                sequences = sequences * ops.expand_dims(dropped, 1)
            with AutocastScope(self.state_dtype):
                output, states, internals = self._run(sequences, states, mask, bool(training), constants or (), targets)
        else:
            (output, states), internals = self._run_keras_cell(sequences, states, mask, training), None
        output = ops.cast(output, self.compute_dtype)
        if self.stateful:
            for variable, state in zip(tree.flatten(self.states), states, strict=True):
                variable.assign(state)
        further = list(states) if self._returns_states(return_state) else []
        further += [internals] if self.return_internals else []
        return (output, *further) if further else output

    @property
    def state_dtype(self) -> str:
        """The type of the states: that of the cell's weights, or what a cell of Keras computes in."""
        return self.cell.variable_dtype if isinstance(self.cell, Cell) else self._cell_dtype

    @property
    def _cell_dtype(self):
        """What the cell computes in."""
        return getattr(self.cell, "compute_dtype", self.compute_dtype)

    def _run(self, sequences, states, mask, training, constants, targets):
        """`(output, final states, internals)` of one call."""
        cell = self.cell
        inputs = {"inputs": sequences}
        if targets is not None:
            inputs["targets"] = as_long(targets, sequences)
        kept = cell.zoneout_masks(ops.shape(sequences)[:2]) if training else None
        if kept is not None:
            inputs["kept"] = kept
        perturbations = engine.perturbations(self, states, ops.shape(sequences)[:2], mask)
        if perturbations is not None:
            inputs["perturbations"] = perturbations
        constants = prepared = cell.run_prepare(constants)
        dropping = bool(training and cell.recurrent_dropout)
        if dropping:
            constants = (*constants, cell.drawn_mask(states[0], cell.recurrent_dropout))
        # what a solver asks of a step is how it depends on the states; the engine itself lets no gradient through
        stepping = cell if self.solver is None else view(cell, blocked=False)
        functions = functions_of(stepping, self.return_internals, dropping)
        if engine.scan is None or self.unroll:
            results, states = self._keras_loop(functions, inputs, states, constants, mask)
        else:
            in_chunks = self.checkpoint or self.truncate is not None
            in_loop = in_chunks or cell.couples_batch or any(cell.zoneout_rates()) or perturbations is not None
            known = not in_loop and cell.states_before(targets is not None) is not None
            results, states = engine.scan(
                functions.project,
                functions.step,
                inputs,
                states,
                constants,
                [ops.convert_to_tensor(v) for v in functions.variables],
                mask,
                go_backwards=self.go_backwards,
                return_sequences=self._every_step,
                zero_output_for_mask=self.zero_output_for_mask,
                save_residuals=training,
                detach_states=cell.blocked,
                independent_rows=not cell.couples_batch and (cell.batched_constants or not cell.constant_names),
                truncate=self.truncate,
                checkpoint=self.checkpoint,
                solver=None if self.solver is None else self.solver.computing_in(cell.compute_dtype),
                states_before=functions.states_before if known else None,
            )
        mask = ops.flip(mask, axis=1) if self.go_backwards and mask is not None else mask
        output, found = self._read_out(results["output"], mask, prepared)
        if self._every_step and not self.return_sequences:
            output = last_real(output, mask if self.zero_output_for_mask else None)
        return output, list(states), {**results.get("internals", {}), **(found or {})} or None

    @property
    def _every_step(self):
        """Whether the loop gives what is made at every step, not at the last alone."""
        return self.return_sequences or self.return_internals

    def _read_out(self, outputs, mask, constants):
        """`(the readout, what it exposes)`, with zeros where no real step has been; the mask in the order of processing."""
        with engine.capture_intermediates(self.return_internals) as found:
            read = self.cell.run_readout(outputs, constants)
        if mask is None or read is outputs:
            return read, found
        zeros = self.zero_output_for_mask and self._every_step
        shown = mask if zeros else ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0
        shown = ops.expand_dims(shown if self._every_step else shown[:, -1], -1)
        return tree.map_structure(lambda x: ops.where(shown, x, ops.zeros_like(x)), (read, found or {}))

    def _keras_loop(self, functions, inputs, states, constants, mask):
        """The same by Keras's loop, which takes one sequence and gives one: all of a step side by side in their last axis."""
        layout = {}

        def call(joined, states):
            projected = functions.project(None, _apart(joined, inputs))
            results, states = functions.step(None, projected, states, constants)
            layout["results"] = results
            return _joined(results, self.state_dtype), states

        outputs, states = self._loop_of_keras(call, _joined(inputs, self.state_dtype), states, mask)
        return _apart(outputs, layout["results"]), states

    def _run_keras_cell(self, sequences, states, mask, training):
        """`(output, final states)` of one call with a cell that is no `keras_seq.Cell`."""
        cell = with_own_masks(self.cell, sequences[:, 0], self._packed(states), training)
        takes_training = "training" in inspect.signature(self.cell.call).parameters
        further = {"training": bool(training)} if takes_training else {}

        def call(inputs, states):
            output, new = cell(inputs, self._packed(states), **further)
            return output, tree.flatten(new)

        perturbations = engine.perturbations(self, states, ops.shape(sequences)[:2], mask)
        if perturbations is not None:
            call, sequences = with_perturbations(call, sequences, perturbations)
        outputs, states = self._loop_of_keras(call, sequences, states, mask)
        return outputs, list(states)

    def _packed(self, states):
        """A flat list of states as a cell of Keras takes them: a list, or one of lists for several cells."""
        size = self.cell.state_size
        return tree.pack_sequence_as(list(size) if isinstance(size, (list, tuple)) else [size], list(states))

    def _loop_of_keras(self, step, sequences, states, mask):
        """`(outputs, final states)`; reversed and masked here, as Keras's unrolled loop does the two in the wrong order."""
        if mask is not None:
            sequences = ops.where(ops.expand_dims(mask, -1), sequences, ops.zeros_like(sequences))
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)

        def call(inputs, states):
            output, new = step(inputs, tuple(states[1:]))
            return output, [output, *new]

        flags = {"go_backwards": False, "return_sequences": self._every_step}
        flags |= {name: getattr(self, name) for name in ("stateful", "unroll")}
        flags["zero_output_for_mask"] = self.zero_output_for_mask and self._every_step
        loop = types.SimpleNamespace(cell=call, **flags)
        # the last output goes along as the first state: Keras's loop on JAX takes that for the output of a masked step
        output, _ = step(sequences[:, 0], tuple(states))
        last, outputs, states = loop_of_keras(loop, sequences, [ops.zeros_like(output), *states], mask)
        return outputs if self._every_step else last, states[1:]

    @property
    def output_width(self) -> int:
        """u of the outputs (b, t, u)."""
        return getattr(self.cell, "output_size", None) or self.state_size[0]

    @property
    def not_stepwise(self) -> str | None:
        return "it reads time in reverse (go_backwards=True)" if self.go_backwards else None

    def first_state(self, batch_size: int | Tensor) -> list[Tensor]:
        return tree.flatten(self.get_initial_state(batch_size))

    def prepare_constants(self, constants: Sequence[Tensor]) -> PreparedConstants:
        """What `step` makes of its constants; given in their place, it is not made anew at every step."""
        return PreparedConstants(tuple(self.cell.run_prepare(constants)))

    def step_states(
        self,
        inputs: Tensor,
        states: Sequence[Tensor],
        mask: Tensor | None = None,
        constants: Any = (),
        targets: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        inputs = ops.cast(inputs, self._cell_dtype)
        if isinstance(self.cell, Cell):
            targets = None if targets is None else ops.cast(targets, self.state_dtype)
            with AutocastScope(self.state_dtype):
                projected = self.cell.run_project(inputs)
                constants = (
                    constants if isinstance(constants, PreparedConstants) else self.prepare_constants(constants)
                ).tensors
                output, new = self.cell.run_step(projected, states, constants, targets)
            output = self.cell.run_readout(ops.cast(output, self._cell_dtype), constants)
        else:
            output, new = self.cell(inputs, self._packed(states))
            new = tree.flatten(new)
        return ops.cast(output, self.compute_dtype), where_rows(mask, new, states)

    def reset_state(self) -> None:
        """Put the kept states of a stateful layer back to the initial ones."""
        if self.states is not None:
            initial = self.first_state(kept_batch(self))
            for variable, value in zip(tree.flatten(self.states), initial, strict=True):
                variable.assign(value)

    def get_config(self) -> Config:
        own = {name: getattr(self, name) for name in ("return_internals", "truncate", "checkpoint")}
        solver = None if self.solver is None else keras.saving.serialize_keras_object(self.solver)
        return {**super().get_config(), **own, "solver": solver}

    def _check_solver(self):
        """A ValueError where the states cannot be found by iterations over all steps."""
        wrong = {
            "where the engine does not run (another backend than TensorFlow, a cell that is no keras_seq.Cell)": (
                engine.scan is None or not isinstance(self.cell, Cell)
            ),
            "with unroll=True": self.unroll,
            "with checkpoint=True, as no loop keeps anything": self.checkpoint,
            "with truncate, as all steps are one": self.truncate is not None,
            "for a cell whose rows are not independent": getattr(self.cell, "couples_batch", False),
            "for a cell whose constants have no batch axis": (
                bool(getattr(self.cell, "constant_names", ())) and not self.cell.batched_constants
            ),
        }
        for reason in (reason for reason, holds in wrong.items() if holds):
            raise ValueError(f"solver: expected None {reason}, got {self.solver}")

    def _check(self, sequences, initial_state, mask, constants, targets):
        if self.unroll and static(sequences.shape[1]) is None:
            raise ValueError("unroll: expected False where the number of steps is not known, got True")
        check_sequences(sequences, mask)
        if initial_state is not None:
            given = tree.flatten(initial_state)
            expected = [(sequences.shape[0], size) for size in self.state_size]
            shapes = shapes_of_states(given)
            if len(shapes) != len(expected) or not all(map(fits, shapes, expected)):
                raise ValueError(f"initial_state: expected {len(expected)} of shapes {expected}, got {shapes}")
        if targets is not None:
            if not getattr(self.cell, "supports_teacher_forcing", False):
                raise ValueError(
                    f"targets: expected None, as {type(self.cell).__name__} feeds no outputs back, got {targets.shape}"
                )
            expected = (*sequences.shape[:2], self.cell.output_size)
            if not hasattr(targets, "shape"):
                raise TypeError(f"targets: expected a tensor, got {targets!r:.80}")
            if not fits(targets.shape, expected):
                raise ValueError(f"targets: expected shape {tuple(expected)}, got {tuple(targets.shape)}")
        if isinstance(self.cell, Cell):
            self.cell.check_constants(constants or ())
            rows = [c.shape[0] for c in constants or () if self.cell.batched_constants]
            if any(None not in (n, sequences.shape[0]) and n != sequences.shape[0] for n in rows):
                raise ValueError(f"constants: expected a batch of {sequences.shape[0]} like the sequences', got {rows}")
        elif constants:
            raise ValueError(f"constants: expected none for a cell that is no keras_seq.Cell, got {len(constants)}")


def _named_after(kind):
    """The name of a layer over a class of cells, so that a summary says which; None, Keras's choice, where Keras has it too."""
    if hasattr(keras.layers, kind):
        return None
    name = f"rnn_{snake_case(kind)}"
    number = keras.backend.get_uid(name) - 1
    return f"{name}_{number}" if number else name


def _check_cell(cell):
    """An error that says what was given in place of a cell, or of a list of cells."""
    if isinstance(cell, (list, tuple)) and cell:
        for one in cell:
            _check_cell(one)
    elif isinstance(cell, type):
        raise TypeError(f"cell: expected a cell, got the class {cell.__name__}; make one of it, as {cell.__name__}(32)")
    elif isinstance(cell, keras.layers.RNN):
        raise TypeError(f"cell: expected a cell, got {cell.name}, a layer that has one")
    elif not (callable(cell) and hasattr(cell, "call") and hasattr(cell, "state_size")):
        raise TypeError(f"cell: expected a keras_seq.Cell, a cell of Keras or a list of cells, got {cell!r}")


def _joined(nest, dtype):
    """The tensors of a nest side by side in their last axis."""
    return ops.concatenate([ops.cast(x, dtype) for x in tree.flatten(nest)], axis=-1)


def _apart(joined, nest):
    """What `_joined` made of a nest, taken apart again."""
    flat, parts, at = tree.flatten(nest), [], 0
    for x in flat:
        parts.append(ops.cast(joined[..., at : at + x.shape[-1]], x.dtype))
        at += x.shape[-1]
    return tree.pack_sequence_as(nest, parts)
