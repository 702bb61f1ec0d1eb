"""NARX: a net that sees the last inputs and the last outputs through delays; and AR, which sees outputs alone."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_seq.arguments import boolean, positive_integer
from keras_seq.cells.base import Cell
from keras_seq.cells.feedback import FeedbackCell
from keras_seq.engine import dot, expose
from keras_seq.typing import Initializer, Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class NARXCell(FeedbackCell):
    """One step of a nonlinear autoregressive network with exogenous inputs (Lin et al. 1996).

        y_t = F(x_t, .., x_{t-p+1}, y_{t-1}, .., y_{t-q})

    F is linear, has one hidden layer, or is any Keras layer. With u = [x taps, y taps] side by side, by rising delay:

        linear (units=None)    y_t = g(u W + b)
        one hidden layer       y_t = g(f(u W + b) V + b_y)
        network                y_t = network(u)

    In closed loop y_{t-k} are its own outputs, in open loop the true ones. Weights: `kernel` (the rows of W for the x taps)
    and `recurrent_kernel` (those for the y taps), `bias`; with a hidden layer `output_kernel` V, `output_bias` b_y.
    States: y, the last outputs, newest first, (b, q k), and, where an input is delayed, x, the last inputs, likewise. They
    start at zero. Internals: `hidden`, if there is, and `output`. Under a mixed policy what is fed back, and the products
    with it, are float32; a network has a policy of its own.

    Args:
        units: width of the hidden layer; None for none.
        outputs: positive integer, the width k of y.
        input_delays: p for the delays 0 .. p-1, or a list of delays of at least 0.
        output_delays: q for the delays 1 .. q, or a list of delays of at least 1.
        network: a Keras layer from (b, taps) to (b, k) that draws no random numbers and keeps no statistics, or None.
        exogenous: whether there are inputs; without, `input_delays` has no meaning, and an input's values are not read.
        activation: f, default tanh.
        output_activation: g, default none.
        kernel_initializer, recurrent_initializer: of the weights of x and y taps; None for uniform numbers up to 1 / sqrt(n), n
            the number of all taps. (Taps of one signal are nearly alike and add up.)
        **kwargs: as in `keras_seq.GatedCell`, and `output_initializer`, `output_regularizer`, `output_constraint`.

    Raises:
        TypeError, ValueError: besides what `keras_seq.GatedCell` refuses, delays that are no positive integer or list of
            distinct ones, output delays below 1, a network together with units, one of another width than outputs, or with
            dropout or batch normalisation; zoneout, recurrent dropout.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.NARXCell(units=8, outputs=1, input_delays=2, output_delays=[1, 2, 7])
    cell.build((None, 3))
    y, states = cell(ops.ones((2, 3)), cell.get_initial_state(batch_size=2))   # (2, 1)
    ```
    """

    def __init__(
        self,
        units: int | None = None,
        outputs: int = 1,
        input_delays: int | Sequence[int] = 1,
        output_delays: int | Sequence[int] = 1,
        network: keras.layers.Layer | None = None,
        exogenous: bool = True,
        kernel_initializer: Initializer = None,
        recurrent_initializer: Initializer = None,
        **kwargs: Any,
    ) -> None:
        outputs = positive_integer("outputs", outputs)
        kwargs.update(kernel_initializer=kernel_initializer, recurrent_initializer=recurrent_initializer)
        super().__init__(outputs if units is None else units, outputs, **kwargs)
        self.units = None if units is None else self.units
        self.exogenous = boolean("exogenous", exogenous)
        self.input_delays = delays_of("input_delays", input_delays, 0)
        self.output_delays = delays_of("output_delays", output_delays, 1)
        self.network = network
        if network is not None and not isinstance(network, keras.layers.Layer):
            raise TypeError(f"network: expected a Keras layer or None, got {network!r}")
        if network is not None and units is not None:
            raise ValueError(f"units: expected None with a network, got {units!r}")
        for name in ("recurrent_dropout", "zoneout"):
            if getattr(self, name):
                raise ValueError(f"{name}: expected 0 for {type(self).__name__}, got {getattr(self, name)}")
        self.past = [d for d in self.input_delays if d > 0] if exogenous else []
        self.state_names = ("y", "x") if self.past else ("y",)
        self.features: Any = None

    @property
    def delays(self) -> int:
        """How many steps the longest delay reaches back."""
        return max(*self.output_delays, *self.past, 1)

    @property
    def state_size(self) -> list[int]:
        window = self.features and max(self.past, default=0) * self.features
        return [max(self.output_delays) * self.outputs, window][: len(self.state_names)]

    @property
    def projected_size(self) -> int:
        return self.units or self.outputs

    @property
    def input_size(self) -> int:
        return self.features * len(self.input_delays) if self.exogenous else 0

    @property
    def fed_back_size(self) -> int:
        return self.outputs * len(self.output_delays)

    @property
    def has_readout(self) -> bool:
        return self.units is not None

    def build(self, input_shape: Shape) -> None:
        self.features = input_shape[-1]
        if self.network is None:
            super().build(input_shape)
            return
        taps = self.input_size + self.fed_back_size
        if not self.network.built:
            self.network.build((None, taps))
        width = tuple(self.network.compute_output_shape((None, taps)))[-1]
        if width != self.outputs:
            raise ValueError(f"network: expected one from width {taps} to outputs={self.outputs}, got width {width}")
        found = [v.path for v in self.network.variables if "seed_generator" in v.path or "moving_" in v.path]
        if found:
            raise ValueError(f"network: expected one without dropout or batch normalisation, got one with {found}")
        Cell.build(self, input_shape)

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        if kwargs.get("initializer") is None and kwargs.get("name") in ("kernel", "recurrent_kernel"):
            bound = (self.input_size + self.fed_back_size) ** -0.5
            kwargs["initializer"] = keras.initializers.RandomUniform(-bound, bound)
        return super().add_weight(*args, **kwargs)

    def project(self, inputs: Tensor) -> Any:
        """The sum that the input of this step gives, and the input itself where it is needed later."""
        seen = {"x": inputs} if self.past or self.network is not None else {}
        if self.network is not None:
            return seen
        if self.exogenous and 0 in self.input_delays:
            total = ops.matmul(inputs, self.kernel[: self.features])
        else:
            total = ops.zeros((*ops.shape(inputs)[:-1], self.projected_size), dtype=inputs.dtype)
        return {"sum": total if self.bias is None else total + self.bias, **seen}

    def predict(self, projected: Any, states: Sequence[Tensor]) -> Tensor:
        taps = [_taps(states[1], self.past, self.features)] if self.past else []
        taps = [*taps, _taps(states[0], self.output_delays, self.outputs)]
        if self.network is not None:
            now = [projected["x"]] if self.exogenous and 0 in self.input_delays else []
            y = ops.cast(self.network(ops.concatenate([*now, *taps], axis=-1)), self.variable_dtype)
            expose(output=y)
            return y
        kernels = [self.kernel[self.input_size - len(self.past) * self.features :]] if self.past else []
        kernel = ops.concatenate([*kernels, self.recurrent_kernel], axis=0)
        # in float32 under a mixed policy too: a prediction is often the last output and a little more
        total = projected["sum"] + dot(ops.concatenate(taps, axis=-1), kernel, short=False)
        if self.units is None:
            y = self.output_activation(total)
            expose(output=y)
            return y
        h = self.activation(total)
        y = self.output(dot(h, self.output_kernel, short=False))
        expose(hidden=h, output=y)
        return y

    def feed(self, projected: Any, states: Sequence[Tensor], output: Tensor) -> Sequence[Tensor]:
        fed = (output, projected["x"]) if self.past else (output,)
        return tuple(
            ops.concatenate([new, window[:, : -new.shape[-1]]], axis=-1)
            for new, window in zip(fed, states, strict=True)
        )

    def states_before(self, forced: bool) -> Callable[..., Any] | None:
        if not forced:
            return None

        def windows(projected, states, targets):
            fed = (targets, projected["x"]) if self.past else (targets,)
            return tuple(_windows(new, window) for new, window in zip(fed, states, strict=True))

        return windows


@keras.saving.register_keras_serializable(package="keras_seq")
class ARCell(NARXCell, exogenous=False, input_delays=1):
    """One step of an autoregressive model: `keras_seq.NARXCell` without inputs.

        y_t = F(y_{t-1}, .., y_{t-q})

    Linear by default: the AR model. The values of a step's input are not read. Arguments, weights and state y are those
    of `keras_seq.NARXCell`, without `kernel`.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.ARCell(outputs=2, output_delays=3)
    y, [last] = cell(ops.zeros((1, 1)), [ops.ones((1, 6))])   # (1, 2)
    ```
    """


def delays_of(name, value, least):
    """The delays, rising: `value` of them from `least` on, or those listed."""
    several = isinstance(value, (list, tuple, range))
    numbers_given = list(value) if several else [value]
    if any(isinstance(v, bool) or not isinstance(v, numbers.Integral) for v in numbers_given):
        raise TypeError(f"{name}: expected a positive integer or a list of integers from {least} on, got {value!r}")
    if not several:
        if value < 1:
            raise ValueError(
                f"{name}: expected a positive integer or a list of integers from {least} on, got {value!r}"
            )
        return list(range(least, least + int(value)))
    found = sorted({int(v) for v in value})
    if not found or found[0] < least or len(found) != len(value):
        raise ValueError(f"{name}: expected distinct integers from {least} on, at least one, got {value!r}")
    return found


def _taps(window, delays, width):
    """The parts of a window (b, D * width), newest first, at these delays."""
    if delays == list(range(1, window.shape[-1] // width + 1)):
        return window
    return ops.concatenate([window[:, (d - 1) * width : d * width] for d in delays], axis=-1)


def _windows(sequence, first):
    """The window before each step of a sequence (t, b, n), the one before the first being `first` (b, D * n)."""
    width = sequence.shape[-1]
    past = [first[None, :, i : i + width] for i in range(first.shape[-1] - width, -1, -width)]
    joined = ops.concatenate([*past, sequence], axis=0)
    depth = len(past)
    return ops.concatenate([joined[depth - d : -d] for d in range(1, depth + 1)], axis=-1)
