"""Long short-term memory: one cell whose switches are the variants of the literature, and those that have a name."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import keras
from keras import activations, initializers, ops

from keras_seq.arguments import IMPLEMENTATIONS, boolean, named, one_of, positive_integer
from keras_seq.cells.floats import long_type
from keras_seq.cells.gated import GatedCell
from keras_seq.engine import dot, expose
from keras_seq.typing import Activation, Constraint, Initializer, Regularizer, Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class LSTMCell(GatedCell):
    """One step of the LSTM (Hochreiter and Schmidhuber 1997; Gers et al. 2000) with the switches of its variants.

        i, f, o = sigma(x_t W + h_{t-1} U + b), each with its own columns;   g = tanh(likewise)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t);   y_t = h_t

    Weights as in `keras.layers.LSTM`: `kernel` W (d, 4u), `recurrent_kernel` U (u, 4u), `bias` b (4u,), columns in the
    order i, f, c, o, a missing gate left out. States h and c, each (b, u). Internals: `input_gate`, `forget_gate`,
    `candidate`, `output_gate`, `cell`, `hidden`, those that there are.

    Each switch changes one thing. With G the gates that there are:

        input_gate=False            i = 1 (NIG of Greff et al. 2017)
        forget_gate=False           f = 1, the cell of 1997 (NFG)
        output_gate=False           o = 1 (NOG)
        coupled=True                i = 1 - f (CIFG)
        candidate_activation        g of its sum, e.g. "linear" (NIAF)
        cell_activation             of c_t on its way out, e.g. "linear" (NOAF)
        peepholes=True              p_i * c_{t-1}, p_f * c_{t-1}, p_o * c_t added to the sums of the gates (Gers and
                                    Schmidhuber 2000): o sees the new cell. `peephole_kernel` (|G|, u), rows i, f, o
        full_gate_recurrence=True   [gates of step t-1] R added to the sums of the gates (FGR). `gate_kernel` R
                                    (|G| u, |G| u), both in the order i, f, o; the gates are further states
        normalize=True              LN(x_t W) * a + LN(h_{t-1} U) * a' + b for the sums, and tanh(LN(c_t) * a'' + b'') on the
                                    way out (Ba et al. 2016), each over the whole vector. `input_gain`, `recurrent_gain`
                                    (4u,), `cell_gain`, `cell_bias` (u,)
        projection=r                h_t = (o * tanh(c_t)) P, of width r (LSTMP; Sak et al. 2014). `projection_kernel` P
                                    (u, r), and `recurrent_kernel` (r, 4u)
        cell_clip=s                 c_t cut to [-s, s] before anything reads it
        zoneout, dropout, recurrent_dropout   as in `keras_seq.Cell`: zoneout=[z_h, z_c] as in Krueger et al. 2017

    The paper of FGR starts the gates of step 0 at zero; so does this. Of normalisation it leaves the epsilon open: 1e-5
    here. Its offsets of the sums are left out, as b is one.

    Args:
        units: positive integer, the width u.
        activation: of the candidate g and of c_t on its way out, default tanh.
        recurrent_activation: sigma, of the gates, default the logistic function.
        use_bias: whether there is a bias.
        unit_forget_bias: start the bias of the forget gate, if there is one, at one.
        input_gate, forget_gate, output_gate, coupled, peepholes, full_gate_recurrence, normalize: booleans, as above.
        candidate_activation, cell_activation: as above, default `activation`.
        projection: positive integer up to units, or None.
        cell_clip: positive number, or None.
        implementation: 2, 1 or 0, as Keras has it; changes nothing here.
        peephole_initializer: of the peepholes, default zeros (the paper leaves it open).
        **kwargs: as in `keras_seq.GatedCell`: initializers, regularizers, constraints (those of `recurrent_kernel` serve
            `gate_kernel` and `projection_kernel` too), dropout, `learn_initial_state`.

    Raises:
        TypeError, ValueError: besides what `keras_seq.GatedCell` refuses, switches that contradict each other: coupled
            gates of which one is missing, peepholes or full gate recurrence without any gate, the latter together with
            normalisation (no paper says which sums are normalised), a projection wider than the cell.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.LSTMCell(4, peepholes=True, cell_activation="linear", projection=2)
    y, [h, c] = cell(ops.ones((2, 3)), cell.get_initial_state(batch_size=2))   # (2, 2)
    ```
    """

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        *,
        implementation: int = 2,
        input_gate: bool = True,
        forget_gate: bool = True,
        output_gate: bool = True,
        coupled: bool = False,
        candidate_activation: Activation = None,
        cell_activation: Activation = None,
        peepholes: bool = False,
        peephole_initializer: Initializer = "zeros",
        full_gate_recurrence: bool = False,
        normalize: bool = False,
        projection: int | None = None,
        cell_clip: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **kwargs,
        )
        self.recurrent_activation = named(activations, "recurrent_activation", recurrent_activation)
        self.unit_forget_bias = boolean("unit_forget_bias", unit_forget_bias)
        self.implementation = one_of("implementation", implementation, IMPLEMENTATIONS)
        self.input_gate = boolean("input_gate", input_gate)
        self.forget_gate = boolean("forget_gate", forget_gate)
        self.output_gate = boolean("output_gate", output_gate)
        self.coupled = boolean("coupled", coupled)
        self.candidate_activation = _unless_none("candidate_activation", candidate_activation)
        self.cell_activation = _unless_none("cell_activation", cell_activation)
        self.peepholes = boolean("peepholes", peepholes)
        self.peephole_initializer = named(initializers, "peephole_initializer", peephole_initializer)
        self.full_gate_recurrence = boolean("full_gate_recurrence", full_gate_recurrence)
        self.normalize = boolean("normalize", normalize)
        self.projection = None if projection is None else positive_integer("projection", projection)
        self.cell_clip = _positive_number("cell_clip", cell_clip)
        self._check_switches()
        present = {"input": input_gate and not coupled, "forget": forget_gate, "candidate": True, "output": output_gate}
        self.gates = tuple(name for name, there in present.items() if there)
        self.sigmoid_gates = tuple(name for name in self.gates if name != "candidate")
        self.state_names = ("h", "c", *(self.sigmoid_gates if full_gate_recurrence else ()))

    def _check_switches(self):
        if self.coupled and not (self.input_gate and self.forget_gate):
            raise ValueError("coupled: expected False where input_gate or forget_gate is False, got True")
        for name in ("peepholes", "full_gate_recurrence"):
            if getattr(self, name) and not (self.input_gate or self.forget_gate or self.output_gate):
                raise ValueError(f"{name}: expected False where there is no gate, got True")
        if self.full_gate_recurrence and self.normalize:
            raise ValueError("full_gate_recurrence: expected False with normalize=True, got True")
        if self.projection is not None and self.projection > self.units:
            raise ValueError(f"projection: expected at most units={self.units}, got {self.projection}")

    @property
    def output_size(self) -> int:
        return self.projection or self.units

    @property
    def fed_back_size(self) -> int:
        return self.output_size

    @property
    def state_size(self) -> list[int]:
        return [self.output_size, *[self.units] * (len(self.state_names) - 1)]

    def initial_bias(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        if not (self.unit_forget_bias and self.forget_gate):
            return super().initial_bias(shape, dtype)
        # as in Keras: each part from the initializer, but ones for the forget gate
        before = self.gates.index("forget")
        parts = [
            super().initial_bias((before * self.units,), dtype=dtype),
            ops.ones((self.units,), dtype=dtype),
            super().initial_bias(((len(self.gates) - before - 1) * self.units,), dtype=dtype),
        ]
        return ops.concatenate(parts)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        u, sums, gates = self.units, self.projected_size, len(self.sigmoid_gates)
        recurrent = {
            "initializer": self.recurrent_initializer,
            "regularizer": self.recurrent_regularizer,
            "constraint": self.recurrent_constraint,
        }
        if self.peepholes:
            self.peephole_kernel = self.add_weight(
                name="peephole_kernel", shape=(gates, u), initializer=self.peephole_initializer
            )
        if self.full_gate_recurrence:
            self.gate_kernel = self.add_weight(name="gate_kernel", shape=(gates * u, gates * u), **recurrent)
        if self.projection:
            self.projection_kernel = self.add_weight(name="projection_kernel", shape=(u, self.projection), **recurrent)
        if self.normalize:
            self.input_gain = self.add_weight(name="input_gain", shape=(sums,), initializer="ones")
            self.recurrent_gain = self.add_weight(name="recurrent_gain", shape=(sums,), initializer="ones")
            self.cell_gain = self.add_weight(name="cell_gain", shape=(u,), initializer="ones")
            self.cell_bias = self.add_weight(name="cell_bias", shape=(u,), initializer="zeros")

    def project(self, inputs: Tensor) -> Any:
        if not self.normalize:
            return super().project(inputs)
        sums = _normalized(ops.matmul(inputs, self.kernel)) * self.input_gain
        return sums if self.bias is None else sums + self.bias

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = ()
    ) -> tuple[Any, Sequence[Tensor]]:
        h, c, *last_gates = states
        recurrent = dot(h, self.recurrent_kernel)
        sums = projected + (_normalized(recurrent) * self.recurrent_gain if self.normalize else recurrent)
        parts = dict(zip(self.gates, self.split(sums), strict=True))
        if self.full_gate_recurrence:
            more = dot(ops.concatenate(last_gates, axis=-1), self.gate_kernel, dropout=False)
            for name, part in zip(self.sigmoid_gates, ops.split(more, len(self.sigmoid_gates), axis=-1), strict=True):
                parts[name] = parts[name] + part

        def gate(name, cell):
            """sigma of its sum, with what it sees of the cell."""
            if self.peepholes:
                parts[name] = parts[name] + self.peephole_kernel[self.sigmoid_gates.index(name)] * cell
            return self.recurrent_activation(parts[name])

        gates = {name: gate(name, c) for name in self.sigmoid_gates if name != "output"}
        g = (self.candidate_activation or self.activation)(parts["candidate"])
        if self.coupled:
            gates["input"] = 1 - gates["forget"]
        kept = gates["forget"] * c if self.forget_gate else c
        c = kept + (gates["input"] * g if self.input_gate else g)
        if self.cell_clip is not None:
            c = ops.clip(c, -self.cell_clip, self.cell_clip)
        if self.output_gate:
            gates["output"] = gate("output", c)
        seen = _normalized(c) * self.cell_gain + self.cell_bias if self.normalize else c
        h = (self.cell_activation or self.activation)(seen)
        h = gates["output"] * h if self.output_gate else h
        if self.projection:
            h = dot(h, self.projection_kernel, dropout=False)
        expose(**{f"{name}_gate": value for name, value in gates.items()}, candidate=g, cell=c, hidden=h)
        return h, (h, c, *(gates[name] for name in self.state_names[2:]))


@keras.saving.register_keras_serializable(package="keras_seq")
class NoForgetLSTMCell(LSTMCell, forget_gate=False):
    """One step of the LSTM of 1997, before the forget gate (Hochreiter and Schmidhuber 1997).

        i, o = sigma(x_t W + h_{t-1} U + b);   g = tanh(likewise)
        c_t = c_{t-1} + i * g
        h_t = o * tanh(c_t);   y_t = h_t

    Weights: `kernel` (d, 3u), `recurrent_kernel` (u, 3u), `bias` (3u,), columns in the order i, c, o. States h and c.
    The paper squashes c_t and g to [-1, 1] and [-2, 2] by scaled logistic functions; tanh is what is used since.
    This is `keras_seq.LSTMCell` with `forget_gate=False`, and takes its other arguments.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.NoForgetLSTMCell(4)
    y, [h, c] = cell(ops.ones((2, 3)), cell.get_initial_state(batch_size=2))   # (2, 4)
    ```
    """


@keras.saving.register_keras_serializable(package="keras_seq")
class PeepholeLSTMCell(LSTMCell, peepholes=True):
    """One step of the LSTM whose gates see the cell (Gers and Schmidhuber 2000).

        i = sigma(x_t W_i + h_{t-1} U_i + p_i * c_{t-1} + b_i)
        f = sigma(x_t W_f + h_{t-1} U_f + p_f * c_{t-1} + b_f)
        c_t = f * c_{t-1} + i * tanh(x_t W_c + h_{t-1} U_c + b_c)
        o = sigma(x_t W_o + h_{t-1} U_o + p_o * c_t + b_o)
        h_t = o * tanh(c_t);   y_t = h_t

    The output gate sees the new cell state, the other two the old one. Weights: as the LSTM's, in the order i, f, c, o,
    and `peephole_kernel` (3, u), its rows p_i, p_f, p_o. This is `keras_seq.LSTMCell` with `peepholes=True`, and takes its
    other arguments.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.PeepholeLSTMCell(4, peephole_initializer="glorot_uniform")
    y, [h, c] = cell(ops.ones((2, 3)), cell.get_initial_state(batch_size=2))   # (2, 4)
    ```
    """


@keras.saving.register_keras_serializable(package="keras_seq")
class CoupledLSTMCell(LSTMCell, coupled=True):
    """One step of the LSTM whose input gate is what the forget gate leaves (CIFG; Greff et al. 2017).

        f = sigma(x_t W_f + h_{t-1} U_f [+ p_f * c_{t-1}] + b_f);   i = 1 - f
        c_t = f * c_{t-1} + i * tanh(x_t W_c + h_{t-1} U_c + b_c)
        o = sigma(x_t W_o + h_{t-1} U_o [+ p_o * c_t] + b_o)
        h_t = o * tanh(c_t);   y_t = h_t

    Weights: `kernel` (d, 3u), `recurrent_kernel` (u, 3u), `bias` (3u,), columns in the order f, c, o; with `peepholes` also
    `peephole_kernel` (2, u), its rows p_f, p_o. This is `keras_seq.LSTMCell` with `coupled=True`, and takes its other
    arguments.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.CoupledLSTMCell(4, peepholes=True)
    y, [h, c] = cell(ops.ones((2, 3)), cell.get_initial_state(batch_size=2))   # (2, 4)
    ```
    """


def _normalized(x):
    """`x` with mean 0 and variance 1 over its last axis, in single precision at least."""
    wide = ops.cast(x, long_type(x.dtype))
    centred = wide - ops.mean(wide, axis=-1, keepdims=True)
    return ops.cast(centred * ops.rsqrt(ops.mean(centred * centred, axis=-1, keepdims=True) + 1e-5), x.dtype)


def _unless_none(name, value):
    """An activation, or None for that of the whole cell."""
    return None if value is None else named(activations, name, value)


def _positive_number(name, value):
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a positive number or None, got {value!r}")
    if not value > 0:
        raise ValueError(f"{name}: expected a positive number or None, got {value!r}")
    return float(value)
