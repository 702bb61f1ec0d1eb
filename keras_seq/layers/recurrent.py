"""The memories by name: each layer is its cell's, and adds nothing."""

import keras

from keras_seq import cells
from keras_seq.layers.cell_layer import USE_CUDNN, CellLayer


@keras.saving.register_keras_serializable(package="keras_seq")
class SimpleRNN(CellLayer):
    """The fully recurrent network over a sequence; see `keras_seq.SimpleRNNCell` for the equations and arguments.

    Weights interchange with `keras.layers.SimpleRNN` by `set_weights`. All other arguments are those of `keras_seq.RNN`; those
    that `keras.layers.SimpleRNN` has stand in its order.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.SimpleRNN(4, activation="relu")(ops.ones((2, 5, 3)))   # (2, 4)
    ```
    """

    cell_class = cells.SimpleRNNCell
    as_in_keras = ("seed",)


@keras.saving.register_keras_serializable(package="keras_seq")
class Elman(CellLayer):
    """Elman's network over a sequence; see `keras_seq.ElmanCell` for the equations and arguments.

    All other arguments are those of `keras_seq.RNN`. State: h, the context.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.Elman(8, outputs=2, return_sequences=True)(ops.ones((2, 5, 3)))   # (2, 5, 2)
    ```
    """

    cell_class = cells.ElmanCell


@keras.saving.register_keras_serializable(package="keras_seq")
class Jordan(CellLayer):
    """Jordan's network over a sequence; see `keras_seq.JordanCell` for the equations and arguments.

    With the call argument `targets`, the true outputs (b, t, k), they are what the memory averages, and there is no loop over
    time. All other arguments are those of `keras_seq.RNN`. State: m, the memory.

    Example:

    ```python
    import keras_seq
    from keras import ops
    layer = keras_seq.Jordan(8, 2, decay=0.9, return_sequences=True)
    y = layer(ops.ones((2, 5, 3)))                                   # (2, 5, 2)
    y = layer(ops.ones((2, 5, 3)), targets=ops.ones((2, 5, 2)))      # teacher forcing
    ```
    """

    cell_class = cells.JordanCell


@keras.saving.register_keras_serializable(package="keras_seq")
class ResidualRNN(CellLayer):
    """A network whose state is a sum, over a sequence; see `keras_seq.ResidualRNNCell` for the equations and arguments.

    All other arguments are those of `keras_seq.RNN`. State: h.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.ResidualRNN(4, recurrent=False, return_sequences=True)(ops.ones((2, 5, 3)))   # (2, 5, 4)
    ```
    """

    cell_class = cells.ResidualRNNCell


@keras.saving.register_keras_serializable(package="keras_seq")
class LSTM(CellLayer):
    """Long short-term memory over a sequence; see `keras_seq.LSTMCell` for the equations and arguments.

    Weights interchange with `keras.layers.LSTM` by `set_weights`. All other arguments are those of `keras_seq.RNN`; those that
    `keras.layers.LSTM` has stand in its order. Of these, `use_cudnn` ("auto", True or False) and `implementation` (2, 1 or 0)
    are kept in the config and change nothing: the engine runs every layer.
    States: h, c.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y, h, c = keras_seq.LSTM(4, return_sequences=True, return_state=True)(ops.ones((2, 5, 3)))   # (2, 5, 4), ...
    ```
    """

    cell_class = cells.LSTMCell
    as_in_keras = ("use_cudnn",)
    unused = USE_CUDNN


@keras.saving.register_keras_serializable(package="keras_seq")
class PeepholeLSTM(CellLayer):
    """The LSTM whose gates see the cell; see `keras_seq.PeepholeLSTMCell` for the equations and arguments.

    All other arguments are those of `keras_seq.RNN`. States: h, c.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.PeepholeLSTM(4, peephole_initializer="glorot_uniform")(ops.ones((2, 5, 3)))   # (2, 4)
    ```
    """

    cell_class = cells.PeepholeLSTMCell


@keras.saving.register_keras_serializable(package="keras_seq")
class CoupledLSTM(CellLayer):
    """The LSTM with i = 1 - f; see `keras_seq.CoupledLSTMCell` for the equations and arguments.

    All other arguments are those of `keras_seq.RNN`. States: h, c.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.CoupledLSTM(4, peepholes=True)(ops.ones((2, 5, 3)))   # (2, 4)
    ```
    """

    cell_class = cells.CoupledLSTMCell


@keras.saving.register_keras_serializable(package="keras_seq")
class NoForgetLSTM(CellLayer):
    """The LSTM of 1997, without a forget gate; see `keras_seq.NoForgetLSTMCell` for the equations and arguments.

    All other arguments are those of `keras_seq.RNN`. States: h, c.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.NoForgetLSTM(4)(ops.ones((2, 5, 3)))   # (2, 4)
    ```
    """

    cell_class = cells.NoForgetLSTMCell


@keras.saving.register_keras_serializable(package="keras_seq")
class GRU(CellLayer):
    """The gated recurrent unit over a sequence; see `keras_seq.GRUCell` for the equations and arguments.

    Weights interchange with `keras.layers.GRU` by `set_weights`. All other arguments are those of `keras_seq.RNN`; those that
    `keras.layers.GRU` has stand in its order. Of these, `use_cudnn` ("auto", True or False) and `implementation` (2, 1 or 0)
    are kept in the config and change nothing: the engine runs every layer.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.GRU(4, reset_after=False)(ops.ones((2, 5, 3)))   # (2, 4)
    ```
    """

    cell_class = cells.GRUCell
    as_in_keras = ("reset_after", "use_cudnn")
    unused = USE_CUDNN


@keras.saving.register_keras_serializable(package="keras_seq")
class LinearRNN(CellLayer):
    """A linear state-space model, all steps at once; see `keras_seq.LinearRNNCell` for the equations and arguments.

    All other arguments are those of `keras_seq.RNN`. State: h.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.LinearRNN(4, transition="full", return_sequences=True)(ops.ones((2, 5, 3)))   # (2, 5, 4)
    ```
    """

    cell_class = cells.LinearRNNCell


@keras.saving.register_keras_serializable(package="keras_seq")
class MinGRU(CellLayer):
    """The minimal GRU, all steps at once; see `keras_seq.MinGRUCell` for the equations and arguments.

    All other arguments are those of `keras_seq.RNN`. State: h.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.MinGRU(4, return_sequences=True)(ops.ones((2, 5, 3)))   # (2, 5, 4)
    ```
    """

    cell_class = cells.MinGRUCell


@keras.saving.register_keras_serializable(package="keras_seq")
class MinLSTM(CellLayer):
    """The minimal LSTM, all steps at once; see `keras_seq.MinLSTMCell` for the equations and arguments.

    All other arguments are those of `keras_seq.RNN`. State: h.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.MinLSTM(4, return_sequences=True)(ops.ones((2, 5, 3)))   # (2, 5, 4)
    ```
    """

    cell_class = cells.MinLSTMCell


@keras.saving.register_keras_serializable(package="keras_seq")
class LRU(CellLayer):
    """The linear recurrent unit, all steps at once; see `keras_seq.LRUCell` for the equations and arguments.

    All other arguments are those of `keras_seq.RNN`. State: h, its real and imaginary part.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.LRU(4, outputs=2, return_sequences=True)(ops.ones((2, 5, 3)))   # (2, 5, 2)
    ```
    """

    cell_class = cells.LRUCell
