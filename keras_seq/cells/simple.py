"""The fully recurrent network: h_t = f(x_t W + h_{t-1} U + b)."""

import keras

from keras_seq.cells.base import GatedCell
from keras_seq.engine import dot


@keras.saving.register_keras_serializable(package="keras_seq")
class SimpleRNNCell(GatedCell):
    """One step of the fully recurrent state-space model (Elman 1990, with gradients through the state).

        h_t = f(x_t W + h_{t-1} U + b);   y_t = h_t

    Weights as in `keras.layers.SimpleRNN`: `kernel` W (d, units), `recurrent_kernel` U (units, units), `bias` (units,).

    Args:
        units: positive integer, the width u of the state.
        activation: f, default tanh.
        **kwargs: as in `keras_seq.GatedCell`: bias, initializers, regularizers, constraints, dropout, `learn_initial_state`.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.SimpleRNNCell(4)
    y, [h] = cell(ops.ones((2, 3)), [ops.zeros((2, 4))])   # (2, 4)
    ```
    """

    gates = ("candidate",)
    states = ("h",)

    def step(self, projected, states, constants=()):
        (h,) = states
        h = self.activation(projected + dot(h, self.recurrent_kernel))
        return h, (h,)
