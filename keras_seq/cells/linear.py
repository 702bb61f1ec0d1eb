"""Cells whose state is linear in the state before it, so that all steps run at once: h_t = a_t h_{t-1} + b_t."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import initializers, ops

from keras_seq.arguments import boolean, named, one_of, positive_integer
from keras_seq.cells.floats import long_type
from keras_seq.cells.gated import GatedCell, ReadoutCell
from keras_seq.engine import complex_of, dot, expose, linear_recurrence, matrix_recurrence
from keras_seq.typing import Activation, Initializer, Shape, Tensor


def _no_recurrent_dropout(cell):
    """An error that names the argument if it is asked for, where no product reads the state."""
    if cell.recurrent_dropout:
        raise ValueError(f"recurrent_dropout: expected 0, as no product reads the state, got {cell.recurrent_dropout}")


class _Elementwise:
    """What a cell adds that says a and b of h_t = a * h_{t-1} + b."""

    def coefficients(self, projected: Any) -> tuple[Tensor, Tensor]:
        """`(a, b)` of what the inputs alone decide."""
        raise NotImplementedError

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = ()
    ) -> tuple[Any, Sequence[Tensor]]:
        (h,) = states
        a, b = self.coefficients(projected)
        h = a * h + b
        expose(hidden=h)
        return h, (h,)

    def states_before(self, forced: bool) -> Callable[..., Any] | None:
        def before(projected, states, targets):
            a, b = self.coefficients(projected)
            return (_before(linear_recurrence, a, b, states[0]),)

        return before


def _before(recurrence, a, b, initial):
    """The states before all steps, of those that a recurrence finds, which adds up in float32 at least."""
    dtype = long_type(initial.dtype)
    after = recurrence(*(ops.cast(x, dtype) for x in (a, b, initial)))
    return ops.concatenate([initial[None], ops.cast(after[:-1], initial.dtype)], axis=0)


@keras.saving.register_keras_serializable(package="keras_seq")
class MinGRUCell(_Elementwise, GatedCell):
    """One step of the minimal GRU, whose gate and candidate see the input alone (Feng et al. 2024).

        z_t = sigma(x_t W_z + b_z);   h~_t = f(x_t W_h + b_h);   h_t = (1 - z_t) * h_{t-1} + z_t * h~_t;   y_t = h_t

    A layer needs no loop over time: the states of all steps are found at once (`keras_seq.RNN`). Note that z_t is the share
    of what is new, as in the paper; in Keras's GRU it is that of the old.
    Weights: `kernel` (d, 2u), the columns z, h, `bias` (2u,). State h (b, u). Internals: `update_gate`, `candidate`, `hidden`.

    Source: Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, "Were RNNs all we needed?", 2024. Their form in logarithms, which
    keeps h positive, is left out: the recurrence is found in float32 without it, as 0 < 1 - z < 1.

    Args:
        units: positive integer, the width u.
        activation: f, default none.
        use_bias: whether there is a bias.
        **kwargs: as in `keras_seq.GatedCell`; there is no recurrent kernel.

    Raises:
        ValueError: besides what `keras_seq.GatedCell` refuses, `recurrent_dropout`, as no product reads the state.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.MinGRUCell(4)
    y, [h] = cell(ops.ones((2, 3)), [ops.zeros((2, 4))])   # (2, 4)
    ```
    """

    gates = ("z", "h")
    fed_back_size = 0

    def __init__(self, units: int, activation: Activation = None, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(units, activation=activation, use_bias=use_bias, **kwargs)
        _no_recurrent_dropout(self)

    def coefficients(self, projected: Any) -> tuple[Tensor, Tensor]:
        z, candidate = self.split(projected)
        z, candidate = ops.sigmoid(z), self.activation(candidate)
        expose(update_gate=z, candidate=candidate)
        return 1 - z, z * candidate


@keras.saving.register_keras_serializable(package="keras_seq")
class MinLSTMCell(_Elementwise, GatedCell):
    """One step of the minimal LSTM, whose gates and candidate see the input alone (Feng et al. 2024).

        i_t = sigma(x_t W_i + b_i);   f_t = sigma(x_t W_f + b_f);   h~_t = g(x_t W_h + b_h)
        h_t = f'_t * h_{t-1} + i'_t * h~_t;   y_t = h_t
        f' = f / (f + i), i' = i / (f + i), or with normalize=False f' = f, i' = i

    Normalised, the state is a mean of the candidates, whatever the length. A layer needs no loop over time.
    Weights: `kernel` (d, 3u), the columns i, f, h, `bias` (3u,). State h (b, u). Internals: `input_gate`, `forget_gate` (as
    they are used, i' and f'), `candidate`, `hidden`.

    Source: as `keras_seq.MinGRUCell`.

    Args:
        units: positive integer, the width u.
        activation: g, default none.
        use_bias: whether there is a bias.
        normalize: which of the two.
        **kwargs: as in `keras_seq.GatedCell`; there is no recurrent kernel.

    Raises:
        ValueError: besides what `keras_seq.GatedCell` refuses, `recurrent_dropout`, as no product reads the state.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.MinLSTMCell(4)
    y, [h] = cell(ops.ones((2, 3)), [ops.zeros((2, 4))])   # (2, 4)
    ```
    """

    gates = ("i", "f", "h")
    fed_back_size = 0

    def __init__(
        self,
        units: int,
        activation: Activation = None,
        use_bias: bool = True,
        normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation=activation, use_bias=use_bias, **kwargs)
        self.normalize = boolean("normalize", normalize)
        _no_recurrent_dropout(self)

    def coefficients(self, projected: Any) -> tuple[Tensor, Tensor]:
        i, f, candidate = self.split(projected)
        if self.normalize:  # f / (f + i) = sigma(log f - log i)
            ratio = ops.log_sigmoid(f) - ops.log_sigmoid(i)
            i, f = ops.sigmoid(-ratio), ops.sigmoid(ratio)
        else:
            i, f = ops.sigmoid(i), ops.sigmoid(f)
        candidate = self.activation(candidate)
        expose(input_gate=i, forget_gate=f, candidate=candidate)
        return f, i * candidate


@keras.saving.register_keras_serializable(package="keras_seq")
class LinearRNNCell(ReadoutCell):
    """One step of a linear state-space model.

        transition="diagonal":   h_t = a * h_{t-1} + f(x_t W + b)
        transition="full":       h_t = h_{t-1} U + f(x_t W + b)
        y_t = h_t, or with `outputs` y_t = g(h_t V + b_y)

    A layer needs no loop over time. With `stable=True` a = tanh(w): each |a| is below 1 whatever is learned, so that bounded
    inputs have bounded states, |h| <= |h_0| + max |f| / (1 - |a|).
    Weights: `kernel` W (d, u), `recurrent_diagonal` (u,), a or w, or `recurrent_kernel` U (u, u), `bias` (u,); with `outputs`
    also `output_kernel` V (u, k), `output_bias` (k,). State h (b, u). Internals: `hidden`.

    Args:
        units: positive integer, the width u.
        activation: f, default none.
        use_bias: whether there are biases.
        transition: "diagonal" or "full".
        stable: whether a is kept within (-1, 1); of a diagonal one alone.
        recurrent_initializer: of a, or of U; None for uniform in (0, 1), or orthogonal.
        outputs: positive integer, the width k of a readout; None for none.
        output_activation: g, default none.
        **kwargs: as in `keras_seq.GatedCell`, and `output_initializer`, `output_regularizer`, `output_constraint`.

    Raises:
        ValueError: besides what `keras_seq.GatedCell` refuses, another `transition`; `stable` of a full one; a start of a
            stable one with some |a| of 1 or more; `recurrent_dropout` of a diagonal one.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.LinearRNNCell(4, stable=True)
    y, [h] = cell(ops.ones((2, 3)), [ops.zeros((2, 4))])   # (2, 4)
    ```
    """

    def __init__(
        self,
        units: int,
        activation: Activation = None,
        use_bias: bool = True,
        transition: str = "diagonal",
        stable: bool = False,
        recurrent_initializer: Initializer = None,
        outputs: int | None = None,
        output_activation: Activation = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, use_bias, outputs, output_activation, recurrent_initializer=None, **kwargs)
        self.transition = one_of("transition", transition, ("diagonal", "full"))
        self.stable = boolean("stable", stable)
        self.recurrent_initializer = named(initializers, "recurrent_initializer", recurrent_initializer)
        if self.stable and transition == "full":
            raise ValueError("stable: expected False with transition='full', got True")
        if transition == "diagonal":
            _no_recurrent_dropout(self)

    @property
    def fed_back_size(self) -> int:
        return self.units if self.transition == "full" else 0

    def build(self, input_shape: Shape) -> None:
        given = self.recurrent_initializer
        if given is None:
            full = self.transition == "full"
            self.recurrent_initializer = initializers.Orthogonal() if full else initializers.RandomUniform(0.0, 1.0)
        super().build(input_shape)
        if self.transition == "diagonal":
            self.recurrent_diagonal = self.add_weight(
                name="recurrent_diagonal",
                shape=(self.units,),
                initializer=self._start,
                regularizer=self.recurrent_regularizer,
                constraint=self.recurrent_constraint,
            )
        self.recurrent_initializer = given

    def _start(self, shape, dtype=None):
        """a, or the w that a stable one is the tanh of."""
        a = self.recurrent_initializer(shape, dtype=dtype)
        if not self.stable:
            return a
        largest = float(ops.max(ops.abs(a)))
        if largest >= 1:
            raise ValueError(
                f"recurrent_initializer: expected values within (-1, 1) of a stable recurrence, got {largest:.4g}"
            )
        return ops.arctanh(a)

    @property
    def diagonal(self) -> Tensor:
        """a (u,)."""
        return ops.tanh(self.recurrent_diagonal) if self.stable else ops.convert_to_tensor(self.recurrent_diagonal)

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = ()
    ) -> tuple[Any, Sequence[Tensor]]:
        (h,) = states
        kept = dot(h, self.recurrent_kernel) if self.transition == "full" else self.diagonal * h
        h = kept + self.activation(projected)
        expose(hidden=h)
        return h, (h,)

    def states_before(self, forced: bool) -> Callable[..., Any] | None:
        if self.recurrent_dropout:
            return None

        def before(projected, states, targets):
            b = self.activation(projected)
            if self.transition == "full":
                return (_before(matrix_recurrence, ops.convert_to_tensor(self.recurrent_kernel), b, states[0]),)
            a = ops.broadcast_to(self.diagonal, (ops.shape(b)[0], 1, self.units))
            return (_before(linear_recurrence, a, b, states[0]),)

        return before


@keras.saving.register_keras_serializable(package="keras_seq")
class LRUCell(GatedCell):
    """One step of the linear recurrent unit: a diagonal recurrence of complex numbers (Orvieto et al. 2023).

        h_t = lambda * h_{t-1} + gamma * (x_t B + b);   y_t = f(Re(h_t C) + x_t D)
        lambda = exp(-exp(nu) + i exp(theta)),   gamma = exp(log gamma)

    |lambda| = exp(-exp(nu)) is below 1 whatever is learned: bounded inputs have bounded states. It starts uniform on a ring of
    the complex plane, and gamma at sqrt(1 - |lambda|^2), which keeps the size of h. A layer needs no loop over time.
    Weights: `kernel` (d, 2u), the real and the imaginary part of B, `bias` (2u,), `nu`, `theta`, `log_gamma` (u,),
    `output_kernel` (2u, k), that C is made of: Re(h C) = [Re h, Im h] output_kernel, and `skip_kernel` D (d, k).
    State h (b, 2u), its real and its imaginary part. Internals: `hidden`, of the same form.

    Source: Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu and De, "Resurrecting recurrent neural networks for long
    sequences", ICML 2023. There D is diagonal and k = d; here it is a matrix, so that k is free.

    Args:
        units: positive integer, u, complex numbers of the state.
        activation: f, default none.
        use_bias: whether there is b.
        outputs: positive integer, the width k of the output; None for u.
        r_min, r_max: the radii of the ring in which lambda starts, 0 <= r_min < r_max <= 1.
        max_phase: the largest angle of a lambda at the start, in radians, within (0, 2 pi].
        nu_initializer, theta_initializer, log_gamma_initializer: of these weights in place of the ring; None for the ring.
        output_initializer: of `output_kernel`; None for N(0, 1 / u).
        skip_initializer: of `skip_kernel`.
        **kwargs: as in `keras_seq.GatedCell`; there is no recurrent kernel.

    Raises:
        ValueError: besides what `keras_seq.GatedCell` refuses, radii that are no ring within the unit circle, a phase outside
            its range; `recurrent_dropout`, as no product reads the state.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.LRUCell(4, outputs=2, r_min=0.9)
    y, [h] = cell(ops.ones((2, 3)), [ops.zeros((2, 8))])   # (2, 2)
    ```
    """

    gates = ("real", "imaginary")
    fed_back_size = 0

    def __init__(
        self,
        units: int,
        activation: Activation = None,
        use_bias: bool = False,
        outputs: int | None = None,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        nu_initializer: Initializer = None,
        theta_initializer: Initializer = None,
        log_gamma_initializer: Initializer = None,
        output_initializer: Initializer = None,
        skip_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation=activation, use_bias=use_bias, **kwargs)
        self.outputs = None if outputs is None else positive_integer("outputs", outputs)
        for name, value in (("r_min", r_min), ("r_max", r_max), ("max_phase", max_phase)):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name}: expected a number, got {value!r}")
        if not 0 <= r_min < r_max <= 1:
            raise ValueError(f"r_max: expected 0 <= r_min < r_max <= 1, got r_min={r_min}, r_max={r_max}")
        if not 0 < max_phase <= 2 * math.pi + 1e-6:
            raise ValueError(f"max_phase: expected an angle in (0, 2 pi], got {max_phase}")
        self.r_min, self.r_max, self.max_phase = float(r_min), float(r_max), float(max_phase)
        self.nu_initializer = named(initializers, "nu_initializer", nu_initializer)
        self.theta_initializer = named(initializers, "theta_initializer", theta_initializer)
        self.log_gamma_initializer = named(initializers, "log_gamma_initializer", log_gamma_initializer)
        self.output_initializer = named(initializers, "output_initializer", output_initializer)
        self.skip_initializer = named(initializers, "skip_initializer", skip_initializer)
        _no_recurrent_dropout(self)

    @property
    def state_size(self) -> list[int]:
        return [2 * self.units]

    @property
    def output_size(self) -> int:
        return self.units if self.outputs is None else self.outputs

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        radii = self.nu_initializer or self._ring_radii(initializers.RandomUniform(1e-6, 1 - 1e-6))
        starts = {
            "nu": radii,
            "theta": self.theta_initializer or self._ring_angles,
            "log_gamma": self.log_gamma_initializer or self._size_kept(radii),
        }
        self.nu, self.theta, self.log_gamma = (
            self.add_weight(name=name, shape=(self.units,), initializer=start) for name, start in starts.items()
        )
        spread = self.output_initializer or initializers.RandomNormal(stddev=self.units**-0.5)
        self.output_kernel = self.add_weight(
            name="output_kernel", shape=(2 * self.units, self.output_size), initializer=spread
        )
        self.skip_kernel = self.add_weight(
            name="skip_kernel", shape=(input_shape[-1], self.output_size), initializer=self.skip_initializer
        )

    def _ring_radii(self, drawn):
        """A start of nu, of radii that fill the ring evenly."""

        def start(shape, dtype=None):
            square = drawn(shape, dtype=dtype) * (self.r_max**2 - self.r_min**2) + self.r_min**2
            return ops.log(-0.5 * ops.log(square))

        return start

    def _ring_angles(self, shape, dtype=None):
        return ops.log(self.max_phase * initializers.RandomUniform(1e-6, 1.0)(shape, dtype=dtype))

    def _size_kept(self, radii):
        """A start of log gamma, the logarithm of sqrt(1 - |lambda|^2); an initializer of Keras gives the same values again."""

        def start(shape, dtype=None):
            return 0.5 * ops.log1p(-ops.exp(-2 * ops.exp(radii(shape, dtype=dtype))))

        return start

    def project(self, inputs: Tensor) -> Any:
        return super().project(inputs), ops.matmul(inputs, self.skip_kernel)

    @property
    def multiplier(self) -> tuple[Tensor, Tensor]:
        """The real and the imaginary part of lambda, (u,) each."""
        radius, angle = ops.exp(-ops.exp(self.nu)), ops.exp(self.theta)
        return radius * ops.cos(angle), radius * ops.sin(angle)

    def _driven(self, drive):
        """gamma * (x B + b), its two parts."""
        gamma = ops.exp(self.log_gamma)
        return [gamma * part for part in self.split(drive)]

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = ()
    ) -> tuple[Any, Sequence[Tensor]]:
        (h,), (drive, skip) = states, projected
        (real, imaginary), (a, b), (more_real, more_imaginary) = self.split(h), self.multiplier, self._driven(drive)
        h = ops.concatenate([a * real - b * imaginary + more_real, b * real + a * imaginary + more_imaginary], axis=-1)
        expose(hidden=h)
        return ops.concatenate([h, skip], axis=-1), (h,)

    def readout(self, outputs: Tensor) -> Tensor:
        h, skip = outputs[..., : 2 * self.units], outputs[..., 2 * self.units :]
        return self.activation(ops.matmul(h, self.output_kernel) + skip)

    def states_before(self, forced: bool) -> Callable[..., Any] | None:
        def before(projected, states, targets):
            (h,), (drive, _) = states, projected
            dtype = long_type(h.dtype)

            def joined(parts):
                return complex_of(*(ops.cast(p, dtype) for p in parts))

            b = joined(self._driven(drive))
            a = joined(ops.broadcast_to(part, (ops.shape(b)[0], 1, self.units)) for part in self.multiplier)
            after = linear_recurrence(a, b, joined(self.split(h)))
            after = ops.concatenate([ops.real(after), ops.imag(after)], axis=-1)
            return (ops.concatenate([h[None], ops.cast(after[:-1], h.dtype)], axis=0),)

        return before
