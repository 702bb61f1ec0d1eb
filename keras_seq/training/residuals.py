"""The residuals of a model as a function of one vector of weights, in float64, and how they change with it."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_seq._keras import carried_mask
from keras_seq.arguments import finite_array, float64_array
from keras_seq.shapes import fits
from keras_seq.training.float64_copy import check_certain, check_loss, check_model, float64_copy
from keras_seq.training.sensitivities import Outline, Sensitivities, outline
from keras_seq.typing import Tensor

CHUNK_BYTES = 2**26
"""How much the derivatives of the largest tensor of a run may take, where those of a single row take no more."""
COPIES = 5
"""As many arrays of the sizes of these derivatives and of J^T J are held at a time."""
ENTRIES_OF_A_STEP = 1600
"""Numbers of a Jacobian that take as long without XLA as a step of a loop over time does, beyond what both take with it."""
FAR = 1e6
"""Times the largest target, or 1 if that is larger: an output further from zero diverges."""
LARGEST = 1e150
"""A target further from zero has a square that no float64 holds."""


class Batch(NamedTuple):
    """Rows of data in float64, the last batch filled up with rows that are not real.

    Attributes:
        x: the inputs, a flat list.
        y: the targets.
        weight: of each entry of the targets.
        real: 1 for a row of the data, 0 for one that fills up.
    """

    x: list[Tensor]
    y: Tensor
    weight: Tensor
    real: Tensor


class Sums(NamedTuple):
    """The outputs; over all entries the weighted squares of the residuals, and how many entries the mask shows."""

    outputs: Any
    squares: Any
    count: Any


class Normal(NamedTuple):
    """What `Sums` has, and the normal equations of the residuals r with the Jacobian J: J^T J, J^T r."""

    outputs: Any
    squares: Any
    count: Any
    product: Any
    gradient: Any


class Data(NamedTuple):
    """All rows in batches of one size.

    Attributes:
        batches: a list of `Batch`.
        bound: how far from zero an output may be.
        entries: how many numbers the whole Jacobian has.
        work: what one Jacobian costs without XLA and not with it, in steps of a loop.
    """

    batches: list[Batch]
    bound: float
    entries: int
    work: float


class Residuals:
    """r(w) = sqrt(weight) (f(x; w) - y) of a Sequential or functional model f with one output, over its trainable weights.

    The model is copied in float64. A product of the Jacobian with a direction v of the weights is the derivative, by u, of the
    product u^T J with a cotangent u, which is linear in it:

        J v = d/du (u^T J) v

    so that any layer with a gradient has it, recurrent ones too. J has a column for each weight; J^T J is summed over batches.

    Args:
        model: the model; it is not changed.
    """

    def __init__(self, model: keras.Model) -> None:
        check_model(model)
        self.model, self.trained = model, model.trainable_variables
        self.copy = float64_copy(model)
        self.weights = self.copy.trainable_variables
        self.sizes = [math.prod(w.shape) for w in self.weights]
        self.size = sum(self.sizes)
        self._programs: dict[Any, Programs] = {}
        self._certain = False

    def check_certain(self, x: list[Tensor]) -> None:
        """A ValueError, at the first of all fits, for a layer that does not say the same in training and at inference."""
        if not self._certain:
            check_certain(self.copy, [v[:8] for v in x])
        self._certain = True

    def programs(self, data: Data, jit_compile: bool) -> Programs:
        """What is compiled for data of these shapes, by XLA or not."""
        batch = data.batches[0]
        key = jit_compile, *(tuple(v.shape) for v in tree.flatten(batch))
        if key not in self._programs:
            self._programs[key] = Programs(self, batch, jit_compile)
        return self._programs[key]

    # -- weights ------------------------------------------------------------------------------------------------------

    def current(self) -> np.ndarray:
        """The weights of the model as one vector; the copy is given those that are not trained.

        A ValueError for a model that since has another loss, or other weights that are trained.
        """
        check_loss(self.model)
        now = self.model.trainable_variables
        if [id(v) for v in now] != [id(v) for v in self.trained]:
            raise ValueError(
                f"model: expected the {len(self.trained)} trained variables that it had when its trainer was made, got "
                f"{len(now)} or others; make a new trainer"
            )
        for ours, theirs in zip(self.copy.variables, self.model.variables, strict=True):
            ours.assign(keras.ops.cast(theirs, ours.dtype))
        return self._joined(self.model)

    def drawn(self, times: int) -> list[np.ndarray]:
        """So many times newly drawn weights, each as one vector, by the initializers of the model."""
        found = [self._joined(float64_copy(self.model, weights=False)) for _ in range(max(times, 2) if times else 0)]
        if found and np.array_equal(found[0], found[1]):
            raise ValueError(
                "restarts: expected a model whose weights are drawn anew, got the same twice, as by initializers with a seed"
            )
        return found[:times]

    def _joined(self, model):
        found = [np.asarray(keras.ops.convert_to_numpy(v), "float64").ravel() for v in model.trainable_variables]
        return np.concatenate(found)

    def assign(self, vector: np.ndarray) -> None:
        """Give the model these weights."""
        parts = np.split(vector, np.cumsum(self.sizes)[:-1])
        for variable, part in zip(self.model.trainable_variables, parts, strict=True):
            variable.assign(part.reshape(variable.shape).astype(variable.dtype))

    # -- what a program computes ---------------------------------------------------------------------------------------------

    def _values(self, vector):
        return [tf.reshape(p, w.shape) for p, w in zip(tf.split(vector, self.sizes), self.weights, strict=True)]

    def _run(self, values, x, training):
        with keras.StatelessScope(state_mapping=list(zip(self.weights, values, strict=True))):
            return self.copy(tree.pack_sequence_as(self.copy.input, list(x)), training=training)

    def _weighted(self, outputs, batch):
        """`(the residuals, flat, the roots of their weights, how many entries the mask shows)`."""
        shown, mask = batch.real, carried_mask(outputs)
        if mask is not None:
            shown = _beside(shown, mask) * tf.cast(mask, outputs.dtype)
        shown = tf.ones_like(outputs) * _beside(shown, outputs)
        scale = tf.sqrt(batch.weight) * shown
        # a masked target may be NaN
        residuals = tf.where(scale > 0, outputs - batch.y, tf.zeros_like(outputs)) * scale
        return tf.reshape(residuals, (-1,)), scale, tf.reduce_sum(shown)

    def sums(self, vector, batch):
        outputs = self._run(self._values(vector), batch.x, training=True)
        residuals, _, count = self._weighted(outputs, batch)
        return Sums(outputs, tf.reduce_sum(residuals**2), count)

    def jacobian(self, vector, batch):
        """`(J^T (p, n), r (n,), how many entries the mask shows, the outputs)`."""
        values = self._values(vector)
        with keras.StatelessScope(state_mapping=list(zip(self.weights, values, strict=True))):
            run = Sensitivities(self.weights, values)
            outputs = run.run(self.copy, batch.x)
        residuals, scale, count = self._weighted(outputs, batch)
        derivatives = run.of(outputs)
        jacobian = tf.where(scale > 0, derivatives, tf.zeros_like(derivatives)) * scale
        return tf.reshape(jacobian, (self.size, -1)), residuals, count, outputs

    def normal(self, vector, batch):
        jacobian, residuals, count, outputs = self.jacobian(vector, batch)
        product = tf.matmul(jacobian, jacobian, transpose_b=True)
        gradient = tf.linalg.matvec(jacobian, residuals)
        return Normal(outputs, tf.reduce_sum(residuals**2), count, product, gradient)


class Programs:
    """Functions `(vector of weights, batch)` of the residuals for batches like one, each traced when it is first used."""

    def __init__(self, residuals: Residuals, batch: Batch, jit_compile: bool) -> None:
        self.residuals, self.jit_compile = residuals, jit_compile
        batch = tree.map_structure(lambda v: tf.TensorSpec(v.shape, v.dtype), batch)
        self.signature = [tf.TensorSpec((residuals.size,), "float64"), batch]

    @cached_property
    def sums(self) -> Any:
        """A `Sums`."""
        return self._compiled(self.residuals.sums)

    @cached_property
    def normal(self) -> Any:
        """A `Normal`."""
        return self._compiled(self.residuals.normal)

    @cached_property
    def jacobian(self) -> Any:
        """`(J^T, r, ..)`."""
        return self._compiled(self.residuals.jacobian)

    def _compiled(self, function):
        further = {"autograph": False, "jit_compile": self.jit_compile}
        return tf.function(function, self.signature, **further).get_concrete_function()


def total(program: Any, vector: np.ndarray, data: Data) -> Any:
    """What the program says of all batches together, as arrays; the outputs without those of filled up rows."""
    each = [program(tf.constant(vector), batch) for batch in data.batches]
    sums = [sum(v.numpy() for v in values) for values in zip(*(one[1:] for one in each), strict=True)]
    outputs = [one.outputs.numpy()[batch.real.numpy() > 0] for one, batch in zip(each, data.batches, strict=True)]
    return type(each[0])(np.concatenate(outputs), *sums)


def _beside(x, like):
    """`x`, which has the first axes of `like`, with as many axes; or, where they are as many, `x` itself."""
    return tf.reshape(x, tf.concat([tf.shape(x), tf.ones(len(like.shape) - len(x.shape), tf.int32)], 0))


# -- data ----------------------------------------------------------------------------------------------------------------


def prepared(residuals: Residuals, name: str, x: Any, y: Any, sample_weight: Any, max_bytes: int) -> Data:
    """Arrays as batches of one size; a TypeError or ValueError, its words after `name`, if they do not fit the model.

    As many rows as the Jacobian has room for in `CHUNK_BYTES` go into a batch.
    """
    flat = inputs_of(residuals, name, x)
    rows = len(flat[0])
    run = outline_of(residuals, flat)
    shape = output_shape(run)
    y = float64_array(f"{name}y", y)
    y = y[..., None] if y.shape == shape[:-1] and shape[-1] == 1 else y
    if y.shape != shape:
        raise ValueError(f"{name}y: expected shape {shape} like the output, got {y.shape}")
    if not y.size:
        raise ValueError(f"{name}y: expected at least one step, got {y.shape}")
    weight = np.ones(rows) if sample_weight is None else finite_array(f"{name}sample_weight", sample_weight)
    if weight.shape != shape[: weight.ndim] or not weight.ndim:
        raise ValueError(f"{name}sample_weight: expected the first axes of {shape}, got {weight.shape}")
    if np.any(weight < 0):
        raise ValueError(f"{name}sample_weight: expected numbers of at least 0, got {weight.min()}")
    weight = np.broadcast_to(weight.reshape(*weight.shape, *[1] * (len(shape) - weight.ndim)), shape)
    if not weight.any():
        raise ValueError(f"{name}sample_weight: expected some above 0, got none")
    y = np.where(weight > 0, y, 0)
    if not np.isfinite(y).all():
        raise ValueError(f"{name}y: expected finite numbers, got NaN or infinity")
    largest = float(np.abs(y).max())
    if largest > LARGEST:
        raise ValueError(f"{name}y: expected numbers of at most {LARGEST:.0e}, got {largest:.3g}")
    of_one = 8 * residuals.size * run.widest
    size = max(1, min(rows, CHUNK_BYTES // of_one))
    wanted = COPIES * (size * of_one + 8 * residuals.size**2)
    if wanted > max_bytes:
        raise ValueError(
            f"model: expected a fit that takes at most {max_bytes} bytes, got {wanted}: {residuals.size} weights, "
            f"{run.widest} numbers of a row that change with each"
        )
    bound = FAR * max(largest, 1.0)
    batches = list(_batches(flat, y, weight, -(-rows // -(-rows // size))))
    entries = residuals.size * y.size
    return Data(batches, bound, entries, run.steps * len(batches) + entries / ENTRIES_OF_A_STEP)


def outline_of(residuals: Residuals, flat: list[np.ndarray]) -> Outline:
    """That of a run of the copy on these inputs."""
    return outline(residuals.copy, [keras.KerasTensor(v.shape, v.dtype) for v in flat], residuals.size)


def output_shape(run: Outline) -> tuple[int, ...]:
    """That of the one output."""
    return tuple(tree.flatten(run.output)[0].shape)


def divergence(outputs: np.ndarray, bound: float) -> str | None:
    """Where an output is first not finite or beyond the bound, as words; None if all is well."""
    wrong = ~(np.abs(outputs) <= bound)
    if not wrong.any():
        return None
    row = int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))
    where = f"row {row}"
    if outputs.ndim > 2:
        where = f"step {int(np.argmax(wrong[row].reshape(wrong.shape[1], -1).any(axis=1)))} of {where}"
    return f"diverges at {where}: beyond {bound:.3g}, {FAR:.0e} times the largest target or 1"


def inputs_of(residuals: Residuals, name: str, x: Any) -> list[np.ndarray]:
    """The inputs of the model as a flat list of arrays, those of floating type in float64."""
    wanted = tree.flatten(residuals.copy.input)
    flat = _flat_inputs(residuals.copy, name, x, [spec.name for spec in wanted])
    found = []
    for number, (spec, value) in enumerate(zip(wanted, flat, strict=True)):
        which = f"{name}x" if len(wanted) == 1 else f"{name}x[{number}]"
        array = float64_array(which, value)
        if "int" in spec.dtype and not np.array_equal(array, np.floor(array)):
            raise ValueError(f"{which}: expected integers, got others: {value!r:.80}")
        if array.ndim == 1 and spec.shape[1:] == (1,):
            array = array[:, None]
        if not fits(array.shape, spec.shape):
            raise ValueError(f"{which}: expected shape {tuple(spec.shape)}, got {array.shape}")
        if not len(array):
            raise ValueError(f"{which}: expected at least one row, got shape {array.shape}")
        if "float" in spec.dtype and not np.isfinite(array).all():
            raise ValueError(f"{which}: expected finite numbers, got NaN or infinity")
        found.append(array if "float" in spec.dtype else array.astype(spec.dtype))
    if len({len(v) for v in found}) > 1:
        raise ValueError(f"{name}x: expected as many rows in each array, got {[len(v) for v in found]}")
    return found


def _flat_inputs(model, name, x, names):
    if isinstance(x, dict) and not isinstance(model.input, dict):
        if set(x) != set(names):
            raise ValueError(f"{name}x: expected a dict with the names of the inputs, {names}, got {list(x)}")
        return [x[one] for one in names]
    flat = tree.flatten(x)
    if len(names) == 1 and len(flat) != 1:
        return [x]
    if len(flat) != len(names):
        raise ValueError(f"{name}x: expected {len(names)} arrays, got {len(flat)}")
    return flat


def _batches(flat, y, weight, size):
    for begin in range(0, len(y), size):
        part = [v[begin : begin + size] for v in (*flat, y, weight)]
        missing = size - len(part[0])
        real = np.concatenate([np.ones(size - missing), np.zeros(missing)])
        *x, targets, weights = [tf.constant(np.concatenate([v, np.repeat(v[-1:], missing, axis=0)])) for v in part]
        yield Batch(x, targets, weights, tf.constant(real))
