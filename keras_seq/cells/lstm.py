"""Long short-term memory: the 1997 cell, today's, with peepholes, with coupled gates."""

import keras
from keras import activations, ops

from keras_seq.cells.base import GatedCell, boolean, named
from keras_seq.engine import dot


class _LSTMFamily(GatedCell):
    """What the cells below share: two states and the activation of the gates."""

    states = ("h", "c")

    def __init__(self, units, activation="tanh", recurrent_activation="sigmoid", use_bias=True, **kwargs):
        super().__init__(units, activation=activation, use_bias=use_bias, **kwargs)
        self.recurrent_activation = named(activations, "recurrent_activation", recurrent_activation)


class _ForgetfulFamily(_LSTMFamily):
    """Those with a forget gate, which starts open."""

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        unit_forget_bias=True,
        **kwargs,
    ):
        super().__init__(units, activation, recurrent_activation, use_bias, **kwargs)
        self.unit_forget_bias = boolean("unit_forget_bias", unit_forget_bias)

    def initial_bias(self, shape, dtype=None):
        if not self.unit_forget_bias:
            return super().initial_bias(shape, dtype)
        # as in Keras: each part from the initializer, but ones for the forget gate
        before = self.gates.index("forget")
        parts = [
            self.bias_initializer((before * self.units,), dtype=dtype),
            ops.ones((self.units,), dtype=dtype),
            self.bias_initializer(((len(self.gates) - before - 1) * self.units,), dtype=dtype),
        ]
        return ops.concatenate(parts)


@keras.saving.register_keras_serializable(package="keras_seq")
class LSTMCell(_ForgetfulFamily):
    """One step of the LSTM with a forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

        i, f, o = sigma(x_t W + h_{t-1} U + b), each with its own columns;   g = tanh(likewise)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t);   y_t = h_t

    Weights as in `keras.layers.LSTM`: `kernel` W (d, 4u), `recurrent_kernel` U (u, 4u), `bias` b (4u,), columns in the
    order i, f, c, o. States h and c, each (b, u).

    Args:
        units: positive integer, the width u.
        activation: of the candidate g and of c_t on its way out, default tanh.
        recurrent_activation: sigma, of the gates, default the logistic function.
        unit_forget_bias: start the bias of the forget gate at one.
        **kwargs: as in `keras_seq.GatedCell`: bias, initializers, regularizers, constraints, dropout, `learn_initial_state`.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.LSTMCell(4)
    y, [h, c] = cell(ops.ones((2, 3)), cell.get_initial_state(batch_size=2))   # (2, 4)
    ```
    """

    gates = ("input", "forget", "candidate", "output")

    def step(self, projected, states, constants=()):
        h, c = states
        i, f, g, o = self.split(projected + dot(h, self.recurrent_kernel))
        c = self.recurrent_activation(f) * c + self.recurrent_activation(i) * self.activation(g)
        h = self.recurrent_activation(o) * self.activation(c)
        return h, (h, c)


@keras.saving.register_keras_serializable(package="keras_seq")
class NoForgetLSTMCell(_LSTMFamily):
    """One step of the LSTM of 1997, before the forget gate (Hochreiter and Schmidhuber 1997).

        i, o = sigma(x_t W + h_{t-1} U + b);   g = tanh(likewise)
        c_t = c_{t-1} + i * g
        h_t = o * tanh(c_t);   y_t = h_t

    Weights: `kernel` (d, 3u), `recurrent_kernel` (u, 3u), `bias` (3u,), columns in the order i, c, o. States h and c.
    The paper squashes c_t and g to [-1, 1] and [-2, 2] by scaled logistic functions; tanh is what is used since.

    Args:
        units: positive integer, the width u.
        activation: of g and of c_t on its way out, default tanh.
        recurrent_activation: sigma, of the gates, default the logistic function.
        **kwargs: as in `keras_seq.GatedCell`.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.NoForgetLSTMCell(4)
    y, [h, c] = cell(ops.ones((2, 3)), cell.get_initial_state(batch_size=2))   # (2, 4)
    ```
    """

    gates = ("input", "candidate", "output")

    def step(self, projected, states, constants=()):
        h, c = states
        i, g, o = self.split(projected + dot(h, self.recurrent_kernel))
        c = c + self.recurrent_activation(i) * self.activation(g)
        h = self.recurrent_activation(o) * self.activation(c)
        return h, (h, c)


@keras.saving.register_keras_serializable(package="keras_seq")
class PeepholeLSTMCell(_ForgetfulFamily):
    """One step of the LSTM whose gates see the cell (Gers and Schmidhuber 2000).

        i = sigma(x_t W_i + h_{t-1} U_i + p_i * c_{t-1} + b_i)
        f = sigma(x_t W_f + h_{t-1} U_f + p_f * c_{t-1} + b_f)
        c_t = f * c_{t-1} + i * tanh(x_t W_c + h_{t-1} U_c + b_c)
        o = sigma(x_t W_o + h_{t-1} U_o + p_o * c_t + b_o)
        h_t = o * tanh(c_t);   y_t = h_t

    The output gate sees the new cell state, the other two the old one. Weights: as the LSTM's, in the order i, f, c, o,
    and `peephole_kernel` (3, u), its rows p_i, p_f, p_o.

    Args:
        units: positive integer, the width u.
        activation: of the candidate and of c_t on its way out, default tanh.
        recurrent_activation: sigma, of the gates, default the logistic function.
        unit_forget_bias: start the bias of the forget gate at one.
        peephole_initializer: of the peepholes, default zeros (the paper leaves it open).
        **kwargs: as in `keras_seq.GatedCell`.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.PeepholeLSTMCell(4, peephole_initializer="glorot_uniform")
    y, [h, c] = cell(ops.ones((2, 3)), cell.get_initial_state(batch_size=2))   # (2, 4)
    ```
    """

    gates = ("input", "forget", "candidate", "output")

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        unit_forget_bias=True,
        peephole_initializer="zeros",
        **kwargs,
    ):
        super().__init__(units, activation, recurrent_activation, use_bias, unit_forget_bias, **kwargs)
        self.peephole_initializer = named(keras.initializers, "peephole_initializer", peephole_initializer)

    def build(self, input_shape):
        super().build(input_shape)
        self.peephole_kernel = self.add_weight(
            name="peephole_kernel", shape=(3, self.units), initializer=self.peephole_initializer
        )

    def step(self, projected, states, constants=()):
        h, c = states
        p_i, p_f, p_o = (self.peephole_kernel[row] for row in range(3))
        i, f, g, o = self.split(projected + dot(h, self.recurrent_kernel))
        i = self.recurrent_activation(i + p_i * c)
        f = self.recurrent_activation(f + p_f * c)
        c = f * c + i * self.activation(g)
        o = self.recurrent_activation(o + p_o * c)
        h = o * self.activation(c)
        return h, (h, c)


@keras.saving.register_keras_serializable(package="keras_seq")
class CoupledLSTMCell(_ForgetfulFamily):
    """One step of the LSTM whose input gate is what the forget gate leaves (CIFG; Greff et al. 2017).

        f = sigma(x_t W_f + h_{t-1} U_f [+ p_f * c_{t-1}] + b_f);   i = 1 - f
        c_t = f * c_{t-1} + i * tanh(x_t W_c + h_{t-1} U_c + b_c)
        o = sigma(x_t W_o + h_{t-1} U_o [+ p_o * c_t] + b_o)
        h_t = o * tanh(c_t);   y_t = h_t

    Weights: `kernel` (d, 3u), `recurrent_kernel` (u, 3u), `bias` (3u,), columns in the order f, c, o; with peepholes also
    `peephole_kernel` (2, u), its rows p_f, p_o.

    Args:
        units: positive integer, the width u.
        activation: of the candidate and of c_t on its way out, default tanh.
        recurrent_activation: sigma, of the gates, default the logistic function.
        unit_forget_bias: start the bias of the forget gate at one.
        peepholes: whether the gates see the cell, default False.
        peephole_initializer: of the peepholes, default zeros.
        **kwargs: as in `keras_seq.GatedCell`.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.CoupledLSTMCell(4, peepholes=True)
    y, [h, c] = cell(ops.ones((2, 3)), cell.get_initial_state(batch_size=2))   # (2, 4)
    ```
    """

    gates = ("forget", "candidate", "output")

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        unit_forget_bias=True,
        peepholes=False,
        peephole_initializer="zeros",
        **kwargs,
    ):
        super().__init__(units, activation, recurrent_activation, use_bias, unit_forget_bias, **kwargs)
        self.peepholes = boolean("peepholes", peepholes)
        self.peephole_initializer = named(keras.initializers, "peephole_initializer", peephole_initializer)

    def build(self, input_shape):
        super().build(input_shape)
        if self.peepholes:
            self.peephole_kernel = self.add_weight(
                name="peephole_kernel", shape=(2, self.units), initializer=self.peephole_initializer
            )

    def step(self, projected, states, constants=()):
        h, c = states
        p_f, p_o = (self.peephole_kernel[row] if self.peepholes else 0.0 for row in range(2))
        f, g, o = self.split(projected + dot(h, self.recurrent_kernel))
        f = self.recurrent_activation(f + p_f * c)
        c = f * c + (1 - f) * self.activation(g)
        o = self.recurrent_activation(o + p_o * c)
        h = o * self.activation(c)
        return h, (h, c)
