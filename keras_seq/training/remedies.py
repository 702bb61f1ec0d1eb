"""What keeps a recurrent kernel from making gradients vanish or explode: starts, a constraint and a penalty.

A recurrent kernel (u, g u) is one matrix (u, u) for each of g gates, side by side, as all cells here and in Keras have it.
With A for one of them, k steps of a linear memory multiply the gradient by A^k: it explodes if the spectral radius r(A), the
largest modulus of an eigenvalue, is above 1, and vanishes if it is below. Of a memory with f' <= 1 it vanishes if the norm of
A is below 1, and can explode only if it is above.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import initializers, ops

from keras_seq.arguments import named, one_of, positive_integer
from keras_seq.cells.floats import long_type
from keras_seq.typing import Config, Initializer, Shape, Tensor

SQUARINGS = 10


@keras.saving.register_keras_serializable(package="keras_seq")
class SpectralRadiusConstraint(keras.constraints.Constraint):
    """A recurrent kernel whose spectral radius is at most r: after each update every gate's matrix is scaled down to it.

        A <- A min(1, r / r^(A)),   r^(A) = |A^k|^(1/k),   k = 2^squarings

    With the Frobenius norm r(A) <= r^(A) <= (c sqrt(u))^(1/k) r(A), c the condition number of A's eigenvectors. So the
    radius never exceeds r, but for rounding. At ten squarings and u = 128 it falls short of r by at most 0.24 % if A is
    normal, by 0.9 % if c is 1,000. An update costs as many products of (u, u) matrices as there are squarings. It compiles
    under XLA.

    It stops gradients that explode in the linear regime; clipping (`global_clipnorm` of Keras's optimizers) stops those that
    do all the same. With r < 1 they vanish, and the memory forgets.

    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, for what the
    radius does.

    Args:
        radius: positive number r.
        squarings: positive integer.

    Raises:
        TypeError, ValueError: a radius or a number of squarings that is not positive; a kernel that is not (u, g u).

    Example:

    ```python
    import keras_seq
    from keras_seq.training import SpectralRadiusConstraint
    layer = keras_seq.SimpleRNN(16, recurrent_constraint=SpectralRadiusConstraint(1.0))
    ```
    """

    def __init__(self, radius: float = 1.0, squarings: int = SQUARINGS) -> None:
        self.radius = _positive("radius", radius)
        self.squarings = positive_integer("squarings", squarings)

    def __call__(self, w: Tensor) -> Tensor:
        blocks, long = _blocks(w)
        return _joined(_scaled(long, self.squarings, self.radius, only_down=True), blocks)

    def get_config(self) -> Config:
        return {"radius": self.radius, "squarings": self.squarings}


@keras.saving.register_keras_serializable(package="keras_seq")
class SpectralRadiusInitializer(initializers.Initializer):
    """The start of a recurrent kernel: that of any initializer, each gate's matrix scaled to the spectral radius r.

        A = r A_0 / r(A_0)

    r(A_0) is found by twenty squarings (`SpectralRadiusConstraint` says how), to about six digits. A matrix of radius 0 stays
    as it is.

    Source: Jaeger, "The echo state approach to analysing and training recurrent neural networks", GMD report 148, 2001.

    Args:
        radius: positive number r.
        initializer: of A_0, by name or as an object, which may have a seed; it draws the matrices of all gates at once.

    Raises:
        TypeError, ValueError: a radius that is not positive; an unknown initializer; a shape that is not (u, g u).

    Example:

    ```python
    import keras_seq
    from keras_seq.training import SpectralRadiusInitializer
    layer = keras_seq.SimpleRNN(16, recurrent_initializer=SpectralRadiusInitializer(0.9))
    ```
    """

    def __init__(self, radius: float = 1.0, initializer: Initializer = "random_normal") -> None:
        self.radius = _positive("radius", radius)
        if initializer is None:
            raise TypeError("initializer: expected a name or an initializer, got None")
        self.initializer = named(initializers, "initializer", initializer)

    def __call__(self, shape: Shape, dtype: str | None = None) -> Tensor:
        _gates(shape)
        dtype = keras.backend.standardize_dtype(dtype)
        w = ops.convert_to_tensor(self.initializer(shape, dtype=long_type(dtype)))
        _, long = _blocks(w)
        return ops.cast(_joined(_scaled(long, 20, self.radius), w), dtype)

    def get_config(self) -> Config:
        return {"radius": self.radius, "initializer": initializers.serialize(self.initializer)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_seq")
class BlockIdentity(initializers.Initializer):
    """The start of a recurrent kernel: a scaled identity for every gate.

        A = a I

    A SimpleRNN with relu, zero biases and a = 1 (IRNN) hands its state on as it is until it has learned better, and with a
    below 1 forgets it slowly. Keras's `Identity` gives a kernel of several gates one identity alone, in the first gate.

    Source: Le, Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear units", 2015.

    Args:
        gain: number a, or a list of one for each gate, in the order of the cell's gates.

    Raises:
        TypeError, ValueError: a gain that is no finite number, or an empty list; as many as there are not gates; a shape that
            is not (u, g u).

    Example:

    ```python
    import keras_seq
    from keras_seq.training import BlockIdentity
    irnn = keras_seq.SimpleRNN(16, activation="relu", recurrent_initializer=BlockIdentity())
    gru = keras_seq.GRU(16, recurrent_initializer=BlockIdentity([0.0, 0.0, 1.0]))   # the candidate's alone
    ```
    """

    def __init__(self, gain: float | Sequence[float] = 1.0) -> None:
        if isinstance(gain, (list, tuple)):
            if not gain:
                raise ValueError(f"gain: expected a number, or one for each gate, got {gain!r}")
            self.gain: float | list[float] = [_number(f"gain[{i}]", a) for i, a in enumerate(gain)]
        else:
            self.gain = _number("gain", gain)

    def __call__(self, shape: Shape, dtype: str | None = None) -> Tensor:
        units, gates = shape[0], _gates(shape)
        gains = self.gain if isinstance(self.gain, list) else [self.gain] * gates
        if len(gains) != gates:
            raise ValueError(f"gain: expected a number, or one for each of the {gates} gates, got {gains}")
        eye = ops.eye(units, dtype=keras.backend.standardize_dtype(dtype))
        return ops.concatenate([eye * a for a in gains], axis=1)

    def get_config(self) -> Config:
        return {"gain": self.gain}


@keras.saving.register_keras_serializable(package="keras_seq")
class SpectralRadiusRegularizer(keras.regularizers.Regularizer):
    """A penalty on what a recurrent kernel's spectral radius, or norm, has above r, summed over the gates' matrices A.

        strength sum_A max(0, m(A) - r)^2,   m(A) = r^(A), as in `SpectralRadiusConstraint`, or |A|_2 = sqrt(r^(A' A))

    It has a gradient wherever m(A) > 0, also where several eigenvalues are of the same modulus, and compiles under XLA. The
    norm, the largest singular value, is never below the radius: if it is below 1, a memory with f' <= 1 is a contraction,
    which the radius alone does not say.

    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, section 2.1, for
    both conditions.

    Args:
        strength: positive number.
        radius: positive number r.
        of: "radius" or "norm": what m is.
        squarings: positive integer.

    Raises:
        TypeError, ValueError: a number that is not positive; another `of`; a kernel that is not (u, g u).

    Example:

    ```python
    import keras_seq
    from keras_seq.training import SpectralRadiusRegularizer
    layer = keras_seq.SimpleRNN(16, recurrent_regularizer=SpectralRadiusRegularizer(0.1, radius=0.95))
    ```
    """

    def __init__(
        self, strength: float = 0.01, radius: float = 0.9, of: str = "radius", squarings: int = SQUARINGS
    ) -> None:
        self.strength, self.radius = _positive("strength", strength), _positive("radius", radius)
        self.of = one_of("of", of, ("radius", "norm"))
        self.squarings = positive_integer("squarings", squarings)

    def __call__(self, x: Tensor) -> Tensor:
        _, long = _blocks(x)
        if self.of == "norm":
            long = ops.matmul(ops.transpose(long, (0, 2, 1)), long)
        measured = spectral_radii(long, self.squarings)
        if self.of == "norm":
            alive = measured > 0
            measured = ops.where(alive, ops.sqrt(ops.where(alive, measured, 1.0)), 0.0)
        excess = ops.maximum(measured - self.radius, 0.0)
        return ops.cast(self.strength * ops.sum(excess**2), keras.config.floatx())  # as losses of Keras are

    def get_config(self) -> Config:
        return {name: getattr(self, name) for name in ("strength", "radius", "of", "squarings")}


def spectral_radii(matrices: Tensor, squarings: int) -> Tensor:
    """For each matrix A (g, u, u) the norm |A^k|^(1/k), k = 2^squarings, which is not below its spectral radius.

    A^k is squared and brought to size by turns; the sizes count as constants in its derivative, which they do not change.
    """
    log, power = 0.0, ops.convert_to_tensor(matrices)
    alive = None
    for j in range(squarings + 1):
        power = power if j == 0 else ops.matmul(power, power)
        size = ops.stop_gradient(ops.max(ops.abs(power), axis=(1, 2)))
        nonzero = size > 0
        alive = nonzero if alive is None else ops.logical_and(alive, nonzero)
        size = ops.where(nonzero, size, ops.ones_like(size))
        power = power / size[:, None, None]
        log = log + ops.log(size) / 2**j
    squares = ops.sum(power * power, axis=(1, 2))
    squares = ops.where(alive, squares, ops.ones_like(squares))
    return ops.where(alive, ops.exp(log + ops.log(squares) / 2 ** (squarings + 1)), ops.zeros_like(squares))


def _scaled(matrices, squarings, radius, only_down=False):
    """The matrices (g, u, u), each scaled to this radius; a smaller one stays if `only_down`, one of radius 0 in any case."""
    found = spectral_radii(matrices, squarings)
    nonzero = found > 0
    factor = ops.where(nonzero, radius / ops.where(nonzero, found, ops.ones_like(found)), ops.ones_like(found))
    if only_down:
        factor = ops.minimum(factor, 1.0)
    return matrices * factor[:, None, None]


def _gates(shape):
    """g of a kernel (u, g u)."""
    if len(shape) != 2 or not shape[0] or shape[1] % shape[0] or not shape[1]:
        raise ValueError(f"shape: expected that of a recurrent kernel (u, g u), got {tuple(shape)}")
    return shape[1] // shape[0]


def _blocks(w):
    """The kernel as a tensor, and its gates' matrices (g, u, u), in float32 at least."""
    w = ops.convert_to_tensor(w)
    gates = _gates(tuple(w.shape))
    long = ops.cast(w, long_type(keras.backend.standardize_dtype(w.dtype)))
    return w, ops.transpose(ops.reshape(long, (-1, gates, w.shape[0])), (1, 0, 2))


def _joined(matrices, like):
    """The matrices (g, u, u) as a kernel (u, g u) like this one."""
    return ops.cast(ops.reshape(ops.transpose(matrices, (1, 0, 2)), like.shape), like.dtype)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def _positive(name: str, value: Any) -> float:
    if _number(name, value) <= 0:
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return float(value)
