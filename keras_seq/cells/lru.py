"""The linear recurrent unit, whose states are complex numbers that turn and fade."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import initializers, ops

from keras_seq.arguments import named, positive_integer
from keras_seq.cells.floats import long_type
from keras_seq.cells.gated import GatedCell
from keras_seq.cells.linear import refuse_recurrent_dropout
from keras_seq.engine import complex_of, expose, linear_recurrence
from keras_seq.typing import Activation, Initializer, Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class LRUCell(GatedCell):
    """One step of the linear recurrent unit: a diagonal recurrence of complex numbers (Orvieto et al. 2023).

        h_t = lambda * h_{t-1} + gamma * (x_t B + b);   y_t = f(Re(h_t C) + x_t D)
        lambda = exp(-exp(nu) + i exp(theta)),   gamma = exp(log gamma)

    |lambda| = exp(-exp(nu)) is below 1 whatever is learned (a nu far below 0 rounds it to 1): bounded inputs have bounded
    states. It starts uniform on a ring of the complex plane, and gamma at sqrt(1 - |lambda|^2), which keeps the size of h. A
    layer needs no loop over time.
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
        refuse_recurrent_dropout(self)

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
