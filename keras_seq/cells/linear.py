"""Cells whose state is linear in the state before it, so that all steps run at once: h_t = a_t h_{t-1} + b_t."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import initializers, ops

from keras_seq.arguments import boolean, named, one_of
from keras_seq.cells.floats import long_type
from keras_seq.cells.gated import GatedCell, ReadoutCell
from keras_seq.engine import dot, expose, linear_recurrence, matrix_recurrence
from keras_seq.typing import Activation, Initializer, Shape, Tensor


def refuse_recurrent_dropout(cell):
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
            return (states_before_steps(linear_recurrence, a, b, states[0]),)

        return before


def states_before_steps(recurrence, a, b, initial):
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
        refuse_recurrent_dropout(self)

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
        refuse_recurrent_dropout(self)

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

    A layer needs no loop over time. With `stable=True` a = tanh(w): each |a| is below 1 whatever is learned (a large w
    rounds to 1 itself), so that bounded inputs have bounded states, |h| <= |h_0| + max |f| / (1 - |a|).
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
            refuse_recurrent_dropout(self)

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
                return (
                    states_before_steps(matrix_recurrence, ops.convert_to_tensor(self.recurrent_kernel), b, states[0]),
                )
            a = ops.broadcast_to(self.diagonal, (ops.shape(b)[0], 1, self.units))
            return (states_before_steps(linear_recurrence, a, b, states[0]),)

        return before
