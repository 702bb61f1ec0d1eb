"""The step of a live recurrent layer as a map of its whole state, and where that state has been along data.

All states of a layer, side by side, are one vector of width n: of an LSTM h, then c. Everything that the analysis of a layer
says is made of what is here: a trajectory, the Jacobians of its steps, and how small changes move along it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf
from keras import tree

from keras_seq.analysis.arriving import Of, arriving
from keras_seq.analysis.state_gradients import chosen_layer
from keras_seq.arguments import needs_tensorflow
from keras_seq.cells.base import Cell
from keras_seq.cells.functional import functions_of
from keras_seq.cells.of_keras import functions_of_keras, view
from keras_seq.engine import functional
from keras_seq.engine.backend import scan
from keras_seq.engine.tensorflow import step_jacobian, step_jvp
from keras_seq.engine.tensorflow.arrays import loop, stack, swap
from keras_seq.engine.tensorflow.step import run_step
from keras_seq.layers import RNN
from keras_seq.shapes import check_mask, fits, shapes_of_states
from keras_seq.typing import Tensor

ELEMENTS = 2**24
"""How many numbers the Jacobians are made of that are computed at once."""
LARGEST = 1024
"""The widest state whose Jacobian is written out."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a graph for each kind of its arguments.

    Called as a `tf.function` it would warn where several layers, one after the other, each have one of their own.
    """
    traced = tf.function(function, reduce_retracing=True, autograph=False)
    return lambda *args: traced.get_concrete_function(*args)(*args)


class Trajectory(NamedTuple):
    """What a layer's steps read along data, in the order of processing.

    `projected` is a nest of (t, b, ...), `before` and `after` are the states before and after each step, each (t, b, w);
    `constants` are prepared, each (b, ...); `mask` is (t, b), True for real steps.
    """

    projected: Any
    before: list[tf.Tensor]
    after: list[tf.Tensor]
    constants: list[tf.Tensor]
    mask: tf.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """`(steps, rows)`."""
        steps, rows = self.mask.shape
        return steps, rows


class Dynamics:
    """The step of a recurrent layer, `s_t = step(x_t, s_{t-1})`, and its derivatives.

    Dropout does not act, zoneout is its mean, and a stateful layer keeps the states that it has. Masked steps are those of the
    layer: they leave the state as it was. Weights are read anew at each call.

    Args:
        layer: a built recurrent layer of ours or of Keras, or one that has such layers within.
        of: which of these, as in `state_gradients`.
        as_trained: whether states that are blocked, as Elman's, count as constants, which they are in training.
    """

    def __init__(self, layer: Any, of: Of = None, as_trained: bool = False) -> None:
        needs_tensorflow("the analysis of a layer's steps")
        self.whole, self.layer = layer, chosen_layer(layer, of)
        name = self.layer.name
        if not self.layer.built:
            raise ValueError(f"layer: expected a built layer, got {name}; call it on data first")
        cell = self.layer.cell
        ours = isinstance(cell, Cell)
        if ours and cell.couples_batch:
            raise ValueError(f"layer: expected one whose rows have nothing to do with each other, got {name}")
        if ours and cell.constant_names and not cell.batched_constants:
            raise ValueError(f"layer: expected constants with a row for each row of the batch, got those of {name}")
        if ours and self.layer.needs_targets(_input_width(self.layer)):
            raise ValueError(f"layer: expected one that reads its inputs alone, got {name}, which needs targets")
        self.blocked = ours and cell.blocked
        if self.blocked and not as_trained:
            cell = view(cell, blocked=False)
        self.functions = functions_of(cell) if ours else functions_of_keras(cell)
        self._prepare = functional(cell.run_prepare, self.functions.variables) if ours else lambda weights, given: given
        self.widths = [int(w) for w in tree.flatten(cell.state_size)]
        names = getattr(cell, "state_names", None) or _names_of_keras(len(self.widths))
        self.state_names = list(names)[: len(self.widths)]
        self.reads_constants = bool(ours and cell.constant_names)
        self._independent = not (ours and cell.constant_names)

    @property
    def input_width(self) -> int | None:
        """The width of the inputs that the layer was built for; None where it does not say."""
        return _input_width(self.layer)

    @property
    def width(self) -> int:
        """n, of all states together."""
        return sum(self.widths)

    @functools.cached_property
    def dtype(self) -> str:
        """The type of the states."""
        if isinstance(self.layer, RNN):
            return self.layer.state_dtype
        return keras.backend.standardize_dtype(tree.flatten(self.layer.get_initial_state(batch_size=1))[0].dtype)

    @property
    def input_dtype(self) -> str:
        """What the cell computes in."""
        cell = self.layer.cell
        return self.dtype if isinstance(cell, keras.layers.StackedRNNCells) else cell.compute_dtype

    @property
    def epsilon(self) -> float:
        """The relative precision of a step: a product in a short type decides it."""
        return max(float(ml_dtypes.finfo(d).eps) for d in (self.dtype, self.input_dtype))

    def weights(self) -> list[tf.Tensor]:
        """The values of the weights; an error that names the layer if one is not finite."""
        for v in self.functions.variables:
            if not np.all(np.isfinite(np.asarray(tf.cast(v, "float64")))):
                raise ValueError(f"layer: expected finite weights, got NaN or infinity in {v.path}")
        return [tf.convert_to_tensor(v) for v in self.functions.variables]

    # -- along data --------------------------------------------------------------------------------------------------

    def trajectory(
        self,
        inputs: Tensor,
        initial_state: Sequence[Tensor] | None = None,
        mask: Tensor | None = None,
        constants: Sequence[Tensor] | None = None,
    ) -> Trajectory:
        """Where the layer's states go along inputs (b, t, d) of the whole layer that it is in."""
        return self.along(*self.arrived(inputs, initial_state, mask, constants))

    def arrived(
        self,
        inputs: Tensor,
        initial_state: Sequence[Tensor] | None = None,
        mask: Tensor | None = None,
        constants: Sequence[Tensor] | None = None,
    ) -> tuple[tf.Tensor, Any, tf.Tensor, list[tf.Tensor]]:
        """What `along` is given then: what the layer itself reads, in the order of processing."""
        within = self.layer is not self.whole
        if not isinstance(self.whole, keras.Model):
            inputs = _numbers("inputs", inputs)
        constants = [tf.convert_to_tensor(c) for c in constants or ()]
        states: Any = None if initial_state is None else [tf.convert_to_tensor(s) for s in tree.flatten(initial_state)]
        if states is not None and hasattr(self.whole, "state_size") and within:
            _check_states(states, [(inputs.shape[0], size) for size in self.whole.state_size])
        x, states, mask, constants = arriving(self.whole, self.layer, inputs, states, mask, constants)
        x = _numbers("inputs", x)
        mask = None if mask is None else tf.convert_to_tensor(mask)
        if len(x.shape) != 3 or x.shape[1] == 0:
            raise ValueError(f"inputs: expected shape (b, t, d) with t of 1 or more, got {tuple(x.shape)}")
        check_mask(x, mask)
        if mask is not None:
            x = tf.where(tf.cast(mask, "bool")[..., None], x, tf.zeros_like(x))
        if not np.all(np.isfinite(np.asarray(tf.cast(x, "float64")))):
            raise ValueError("inputs: expected finite numbers, got NaN or infinity")
        width = self.input_width
        if not fits(x.shape[-1:], (width,)):
            raise ValueError(f"inputs: expected width {width}, got shape {tuple(x.shape)}")
        if getattr(self.layer, "go_backwards", False):
            x = tf.reverse(x, [1])
            mask = None if mask is None else tf.reverse(mask, [1])
        rows = x.shape[0]
        states = self.initial_state(rows) if states is None else states
        _check_states(states, [(rows, w) for w in self.widths])
        if self.reads_constants:
            self.layer.cell.check_constants(constants)
        elif constants and not within:
            raise ValueError(f"constants: expected none, as {self.layer.name} reads none, got {len(constants)}")
        mask = tf.ones(x.shape[:2], "bool") if mask is None else tf.cast(mask, "bool")
        return x, states, mask, list(constants) if self.reads_constants else []

    def along(
        self, x: Tensor, states: Sequence[Tensor], mask: Tensor | None = None, constants: Sequence[Tensor] = ()
    ) -> Trajectory:
        """The trajectory of the layer itself along what it reads, in the order of processing, from these states."""
        x = tf.cast(x, self.input_dtype)
        states = [tf.cast(s, self.dtype) for s in states]
        mask = tf.ones(x.shape[:2], "bool") if mask is None else tf.cast(mask, "bool")
        return Trajectory(*self._run(self.weights(), x, states, list(constants), mask))

    def states_along(self, x: Tensor, states: Sequence[Tensor]) -> np.ndarray:
        """The states (b, t, n) after each step of such a trajectory."""
        self.check_no_constants()
        return self.joined_along(self.along(x, states))

    def joined_along(self, along: Trajectory) -> np.ndarray:
        """The states after each step of a trajectory, side by side, (b, t, n)."""
        return np.concatenate([np.asarray(tf.cast(swap(s), "float64")) for s in along.after], axis=-1)

    def check_no_constants(self) -> None:
        """A ValueError if the layer reads constants, where it has none to read."""
        if self.reads_constants:
            raise ValueError(f"layer: expected one that reads no constants, got {self.layer.name}")

    def initial_state(self, rows: int) -> list[tf.Tensor]:
        """The states that a call of the layer begins with."""
        kept = tree.flatten(self.layer.states) if self.layer.stateful and self.layer.states else None
        if kept and kept[0].shape[0] != rows:
            raise ValueError(f"inputs: expected the batch size {kept[0].shape[0]} of the stateful layer, got {rows}")
        return [tf.convert_to_tensor(s) for s in kept] if kept else self.fresh_state(rows)

    def fresh_state(self, rows: int) -> list[tf.Tensor]:
        """Zeros, or the learned states, of a stateful layer too."""
        return [tf.convert_to_tensor(s) for s in tree.flatten(self.layer.get_initial_state(batch_size=rows))]

    @functools.cached_property
    def _run(self):
        project, step = self.functions.project, self.functions.step

        def both(weights, projected, states, constants):
            _, new = run_step(step, weights, projected, states, constants)
            return {"states": new}, new

        @compiled
        def run(weights, inputs, states, constants, mask):
            prepared = tf.nest.flatten(self._prepare(weights, constants))
            inputs = {"inputs": tf.where(mask[..., None], inputs, tf.zeros_like(inputs))}
            results, _ = scan(
                project,
                both,
                inputs,
                states,
                prepared,
                weights,
                mask,
                save_residuals=False,
                independent_rows=self._independent,
            )
            begun = tf.cumsum(tf.cast(mask, "int32"), axis=1) > 0
            after = [tf.where(begun[..., None], a, s[:, None]) for a, s in zip(results["states"], states, strict=True)]
            before = [tf.concat([s[:, None], a[:, :-1]], axis=1) for a, s in zip(after, states, strict=True)]
            projected = tf.nest.map_structure(swap, project(weights, inputs))
            return projected, [swap(s) for s in before], [swap(s) for s in after], prepared, swap(mask)

        return run

    # -- small changes -----------------------------------------------------------------------------------------------

    def jacobians(self, along: Trajectory, reverse: bool = False) -> Iterator[tuple[slice, np.ndarray]]:
        """`(steps, Jacobians of these steps (t, b, n, n))`, many steps at once, from the first on or from the last back.

        Of a masked step it is the identity.
        """
        self.check_width("a number of `leading` exponents, or of `probes`")
        steps, rows = along.shape
        weights = self.weights()
        count = max(1, ELEMENTS // max(1, rows * self.width**2))
        starts = range(0, steps, count)
        for start in reversed(starts) if reverse else starts:
            part = slice(start, min(start + count, steps))
            projected, before = tf.nest.map_structure(lambda x, part=part: x[part], (along.projected, along.before))
            found = self._jacobians(weights, projected, before, along.constants, along.mask[part])
            yield part, np.asarray(tf.cast(found, "float64"))

    @functools.cached_property
    def _jacobians(self):
        @compiled
        def jacobians(weights, projected, before, constants, mask):
            steps, rows = tf.shape(mask)[0], tf.shape(mask)[1]

            def flat(x):
                return tf.reshape(x, tf.concat([[steps * rows], tf.shape(x)[2:]], 0))

            many = [tf.tile(c, tf.concat([[steps], tf.ones(tf.rank(c) - 1, "int32")], 0)) for c in constants]
            projected, before = tf.nest.map_structure(flat, (projected, before))
            before = [tf.ensure_shape(s, (None, w)) for s, w in zip(before, self.widths, strict=True)]
            _, found = step_jacobian(self.functions.step, weights, projected, before, many)
            found = tf.reshape(found, (steps, rows, self.width, self.width))
            return tf.where(mask[..., None, None], found, tf.eye(self.width, dtype=found.dtype))

        return jacobians

    def check_width(self, instead: str) -> None:
        """A ValueError for a state too wide for a Jacobian that is written out."""
        if self.width > LARGEST:
            raise ValueError(
                f"layer: expected a state of at most {LARGEST} numbers where whole Jacobians are computed, got {self.width} "
                f"of {self.layer.name}; give {instead}"
            )

    def moved(self, weights, projected, states, constants, changes):
        """How a step moves small changes (b, n, k) of the states of each row."""
        k = changes.shape[-1]

        def repeated(x):
            return tf.repeat(x, k, axis=0)

        joined = tf.reshape(swap_last(changes), (-1, self.width))
        tangents = {"states": self.split(joined)}
        many = tf.nest.map_structure(repeated, (projected, list(states), list(constants)))
        _, (_, new) = step_jvp(self.functions.step, weights, *many, tangents)
        return swap_last(tf.reshape(tf.concat(new, axis=-1), (-1, k, self.width)))

    def pulled(self, weights, projected, states, constants, cotangents):
        """How a step pulls cotangents (b, n, k) of its new states back to those before it."""
        k = cotangents.shape[-1]

        def repeated(x):
            return tf.repeat(x, k, axis=0)

        joined = tf.reshape(swap_last(cotangents), (-1, self.width))
        projected, states, constants = tf.nest.map_structure(repeated, (projected, list(states), list(constants)))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(states)
            _, new = run_step(self.functions.step, weights, projected, states, constants)
        found = tape.gradient(new, states, output_gradients=self.split(joined), unconnected_gradients="zero")
        return swap_last(tf.reshape(tf.concat(found, axis=-1), (-1, k, self.width)))

    @functools.cached_property
    def _carried(self):
        """By whether it goes backwards."""
        return {backwards: compiled(functools.partial(self._carry, backwards)) for backwards in (False, True)}

    def _carry(self, backwards, weights, along, changes):
        steps = tf.shape(along.mask)[0]
        move = self.pulled if backwards else self.moved

        def body(index, changes, scales):
            place = steps - 1 - index if backwards else index
            projected, before = tf.nest.map_structure(lambda x: x[place], (along.projected, along.before))
            new = move(weights, projected, before, along.constants, tf.cast(changes, before[0].dtype))
            new = tf.where(along.mask[place][:, None, None], tf.cast(new, "float64"), changes)
            if backwards:  # only their length counts
                q, size = _normalised(new)
            else:
                q, r = tf.linalg.qr(new)
                size = tf.abs(tf.linalg.diag_part(r))
            return index + 1, q, scales.write(index, size)

        example = tf.zeros((changes.shape[0], changes.shape[-1]), changes.dtype)
        _, _, scales = loop(steps, body, (changes, stack(example, steps)))
        return scales.stack()

    def carried(self, along: Trajectory, changes: np.ndarray, backwards: bool = False) -> np.ndarray:
        """The lengths (t, b, k) that each step gives changes (b, n, k) of length 1, which are made such again after it.

        Forwards they are made orthogonal to one another as well (QR), so that they span what grows most.
        """
        found = self._carried[backwards](self.weights(), along, tf.cast(changes, "float64"))
        return np.asarray(found)

    # -- at a place --------------------------------------------------------------------------------------------------

    @functools.cached_property
    def step_at(self):
        """`(weights, inputs (b, d), state (b, n), constants) -> new state (b, n)`."""

        @compiled
        def step(weights, inputs, state, constants):
            _, new = run_step(self.functions.step, *self._at(weights, inputs, state, constants))
            return tf.concat(new, axis=-1)

        return step

    @functools.cached_property
    def _jacobian_at(self):
        @compiled
        def jacobian(weights, inputs, state, constants):
            return step_jacobian(self.functions.step, *self._at(weights, inputs, state, constants))[1]

        return jacobian

    def jacobians_at(self, inputs: Any, states: Any, weights: Any = None) -> np.ndarray:
        """The Jacobians (b, n, n) at states (b, n) that read inputs (b, d), as many at once as there is room for."""
        weights = weights or self.weights()
        count = max(1, ELEMENTS // self.width**2)
        found = [
            self._jacobian_at(*self.given(inputs[i : i + count], states[i : i + count], weights))
            for i in range(0, len(states), count)
        ]
        return np.concatenate([np.asarray(tf.cast(f, "float64")) for f in found])

    @functools.cached_property
    def moved_at(self):
        """Likewise how a step moves changes (b, n, k)."""

        @compiled
        def moved(weights, inputs, state, constants, changes):
            return self.moved(*self._at(weights, inputs, state, constants), changes)

        return moved

    def _at(self, weights, inputs, state, constants):
        projected = self.functions.project(weights, {"inputs": inputs})
        return weights, projected, self.split(state), tf.nest.flatten(self._prepare(weights, constants))

    def given(self, inputs: Any, states: Any, weights: Any = None) -> tuple[Any, ...]:
        """What `step_at` and the like are given first: the weights, inputs, states and no constants, in their types."""
        self.check_no_constants()
        return weights or self.weights(), tf.cast(inputs, self.input_dtype), tf.cast(states, self.dtype), []

    def constant_inputs(self, inputs: Tensor | None, name: str = "inputs") -> tf.Tensor:
        """The input (1, d) of a step: one vector (d,), or zeros."""
        width = self.input_width
        if inputs is None:
            if width is None:
                raise ValueError(f"{name}: expected a vector, as the width that {self.layer.name} reads is not known")
            return tf.zeros((1, width), self.input_dtype)
        inputs = _numbers(name, inputs)
        if len(inputs.shape) != 1 or not fits(inputs.shape, (width,)):
            raise ValueError(f"{name}: expected shape ({width or 'd'},), got {tuple(inputs.shape)}")
        if not np.all(np.isfinite(np.asarray(inputs))):
            raise ValueError(f"{name}: expected finite numbers, got {np.asarray(inputs)!r:.80}")
        return tf.cast(inputs, self.input_dtype)[None]

    def joined(self, states: Any, name: str) -> np.ndarray:
        """States as vectors (b, n), from such an array or from a list of an array (b, w) for each state."""
        if isinstance(states, (list, tuple)) and len(states) == len(self.widths) and np.ndim(states[0]) == 2:
            found = np.concatenate([np.asarray(s, "float64") for s in states], axis=-1)
        else:
            found = np.asarray(states, "float64")
        if found.ndim != 2 or found.shape[1] != self.width:
            raise ValueError(
                f"{name}: expected shape (b, {self.width}), or a list of (b, w) with w of {self.widths}, got {found.shape}"
            )
        return found

    def split(self, joined: tf.Tensor) -> list[tf.Tensor]:
        """The states that a vector (b, n) is made of."""
        return tf.split(joined, self.widths, axis=-1)


def swap_last(x: tf.Tensor) -> tf.Tensor:
    """`x` with its last two axes exchanged."""
    return tf.linalg.matrix_transpose(x)


def _normalised(x):
    size = tf.norm(x, axis=-2)
    return tf.math.divide_no_nan(x, size[:, None]), size


def _names_of_keras(count):
    return ["h", "c"][:count] if count <= 2 else [f"state {i}" for i in range(count)]


def _numbers(name, value):
    try:
        found = tf.convert_to_tensor(value if hasattr(value, "dtype") else np.asarray(value, "float64"))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers, got {value!r:.80}") from error
    if not (found.dtype.is_floating or found.dtype.is_integer or found.dtype.is_bool):
        raise TypeError(f"{name}: expected numbers, got a tensor of {found.dtype.name}")
    return found if found.dtype.is_floating else tf.cast(found, "float64")


def _check_states(states, expected):
    shapes = shapes_of_states(states)
    if len(shapes) != len(expected) or not all(map(fits, shapes, expected)):
        raise ValueError(f"initial_state: expected {len(expected)} of shapes {expected}, got {shapes}")


def _input_width(layer):
    """The width of the inputs that a built layer was built for; None where it does not say."""
    config = layer.get_build_config() or {}
    shapes = [config.get("input_shape"), *(config.get("shapes_dict") or {}).values()]
    found = next((s for s in shapes if s), None)
    return found[-1] if found else None
