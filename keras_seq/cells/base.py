"""What every cell shares: its arguments, weights, initial states, dropout and configuration."""

import inspect
import math
import numbers

import keras
from keras import activations, constraints, initializers, ops, regularizers

# The public keras.layers.RNN keeps one dropout mask for all steps only for cells of this class, which Keras exports nowhere.
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from keras_seq.engine import dropping

_KINDS = {
    "activation": activations,
    "initializer": initializers,
    "regularizer": regularizers,
    "constraint": constraints,
}


class Cell(DropoutRNNCell, keras.layers.Layer):
    """One step of a memory, written once: the protocol of all cells.

    A subclass says what its step is,

        project(x_t) -> p_t                          what the inputs alone decide; by default p_t = x_t
        prepare(constants) -> constants              what the constants alone decide, once; by default as they are
        step(p_t, states, constants) -> y_t, states  everything else; `keras_seq.dot` marks the products with states

    and has `state_size`, a list of the widths of its states, `states`, their names, `output_size`, and, if it reads
    constants, `constants`, their names. It is a Keras RNN cell: `call(inputs, states)` is `step(project(inputs), states)`,
    so that it works in `keras.layers.RNN`. In `keras_seq.RNN` it is trained by the engine: exact gradients, one product per
    kernel and sequence.

    `project` takes any number of leading axes. `step` returns as many states as it got, of the same shapes and types.
    A cell with kernels for its gates has less to write as a `keras_seq.GatedCell`.

    Args:
        dropout: share in [0, 1) of the inputs to drop in training; the same ones at all steps.
        recurrent_dropout: share in [0, 1) of the state to drop where a `dot` reads it, the same at all steps and for all
            gates (Gal and Ghahramani 2016, with tied masks; Keras draws one mask per gate, and pays four products).
        seed: integer for the dropout masks.
        learn_initial_state: learn the initial states, as weights `initial_h`, ... of shape (width,), which start at zero.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras layer.

    Raises:
        TypeError: an argument that is unknown or of the wrong type.
        ValueError: a dropout outside [0, 1) or NaN.

    Example:

    ```python
    import keras_seq
    from keras import ops

    class RunningMean(keras_seq.Cell):
        # y_t = m_t = 0.9 m_{t-1} + 0.1 x_t

        states, state_size, output_size = ("m",), [3], 3

        def step(self, projected, states, constants=()):
            m = 0.9 * states[0] + 0.1 * projected
            return m, (m,)

    y = keras_seq.RNN(RunningMean(), return_sequences=True)(ops.ones((2, 5, 3)))   # (2, 5, 3)
    ```
    """

    states = ("h",)
    constants = ()

    def __init__(self, dropout=0.0, recurrent_dropout=0.0, seed=None, learn_initial_state=False, **kwargs):
        _refuse_unknown(type(self), kwargs)
        super().__init__(**kwargs)
        self.dropout = rate("dropout", dropout)
        self.recurrent_dropout = rate("recurrent_dropout", recurrent_dropout)
        if isinstance(seed, bool) or not (seed is None or isinstance(seed, numbers.Integral)):
            raise TypeError(f"seed: expected an integer or None, got {seed!r}")
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.learn_initial_state = boolean("learn_initial_state", learn_initial_state)

    def build(self, input_shape):
        self.initial_states = []
        if self.learn_initial_state:
            self.initial_states = [
                self.add_weight(name=f"initial_{name}", shape=(size,), initializer="zeros")
                for name, size in zip(self.states, self.state_size, strict=True)
            ]

    def project(self, inputs):
        """What the inputs alone decide: (..., d) to a tensor, or a nest of tensors, with the same leading axes."""
        return inputs

    def prepare(self, constants):
        """What the constants alone decide, computed once before the first step."""
        return constants

    def step(self, projected, states, constants=()):
        """`(projected, states, prepared constants) -> (output, new states)`."""
        raise TypeError(f"{type(self).__name__}: expected a method step(projected, states, constants), found none")

    def check_constants(self, constants):
        """A ValueError unless there are as many constants as the cell reads."""
        if len(constants) != len(self.constants):
            raise ValueError(
                f"constants: expected {len(self.constants)} for {type(self).__name__} {self.constants}, got {len(constants)}"
            )

    def call(self, inputs, states, constants=(), training=False):
        self.check_constants(constants)
        if not isinstance(states, (list, tuple)):
            states = (states,)
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        mask = self.get_recurrent_dropout_mask(states[0]) if training and self.recurrent_dropout else None
        with dropping(mask):
            output, states = self.step(self.project(inputs), tuple(states), self.prepare(tuple(constants)))
        return output, list(states)

    def get_initial_state(self, batch_size=None):
        """A list of states (batch_size, width): zeros, or the learned ones."""
        if self.learn_initial_state:
            values = [ops.cast(v, self.compute_dtype) for v in self.initial_states]
            return [ops.broadcast_to(v, (batch_size, v.shape[-1])) for v in values]
        return [ops.zeros((batch_size, size), dtype=self.compute_dtype) for size in self.state_size]

    def get_config(self):
        config = super().get_config()
        for name in arguments(type(self)):
            value = getattr(self, name)
            kind = _KINDS.get(name.rsplit("_", 1)[-1])
            if isinstance(value, keras.layers.Layer):
                value = keras.saving.serialize_keras_object(value)
            config[name] = kind.serialize(value) if kind and value is not None else value
        return config

    @classmethod
    def from_config(cls, config):
        config = {
            k: keras.saving.deserialize_keras_object(v) if isinstance(v, dict) and "class_name" in v else v
            for k, v in config.items()
        }
        return cls(**config)


class GatedCell(Cell):
    """A cell whose gates each have columns in one input kernel, one recurrent kernel and one bias.

    A subclass names its `gates`, in the order of the columns, and its `states`, and defines `step`. From them this class
    makes the weights, and the projection `project(x_t) = x_t kernel + bias`:

        kernel            (d, gates * units)
        recurrent_kernel  (units, gates * units)
        bias              (gates * units,)

    Args:
        units: positive integer, the width of the output and of each state.
        activation: activation of the candidate and the output.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: initializers of the weights.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: their regularizers.
        kernel_constraint, recurrent_constraint, bias_constraint: their constraints.
        **kwargs: as in `keras_seq.Cell`: `dropout`, `recurrent_dropout`, `seed`, `learn_initial_state`, `name`, `dtype`.

    Raises:
        TypeError: an argument that is unknown or of the wrong type.
        ValueError: units below 1, a dropout outside [0, 1) or NaN, an unknown activation.

    Example:

    ```python
    import keras_seq
    from keras import ops

    class LeakyCell(keras_seq.GatedCell):
        # h_t = h_{t-1} / 2 + tanh(x_t W + b + h_{t-1} U) / 2

        def step(self, projected, states, constants=()):
            (h,) = states
            h = h / 2 + self.activation(projected + keras_seq.dot(h, self.recurrent_kernel)) / 2
            return h, (h,)

    y = keras_seq.RNN(LeakyCell(8), return_sequences=True)(ops.ones((2, 5, 3)))   # (2, 5, 8)
    ```
    """

    gates = ("candidate",)

    def __init__(
        self,
        units,
        activation="tanh",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = positive_integer("units", units)
        self.activation = named(activations, "activation", activation)
        self.use_bias = boolean("use_bias", use_bias)
        self.kernel_initializer = named(initializers, "kernel_initializer", kernel_initializer)
        self.recurrent_initializer = named(initializers, "recurrent_initializer", recurrent_initializer)
        self.bias_initializer = named(initializers, "bias_initializer", bias_initializer)
        self.kernel_regularizer = named(regularizers, "kernel_regularizer", kernel_regularizer)
        self.recurrent_regularizer = named(regularizers, "recurrent_regularizer", recurrent_regularizer)
        self.bias_regularizer = named(regularizers, "bias_regularizer", bias_regularizer)
        self.kernel_constraint = named(constraints, "kernel_constraint", kernel_constraint)
        self.recurrent_constraint = named(constraints, "recurrent_constraint", recurrent_constraint)
        self.bias_constraint = named(constraints, "bias_constraint", bias_constraint)

    @property
    def state_size(self):
        return [self.units] * len(self.states)

    @property
    def output_size(self):
        return self.units

    @property
    def projected_size(self):
        """Width of what `project` makes of an input."""
        return len(self.gates) * self.units

    @property
    def bias_shape(self):
        return (self.projected_size,)

    def initial_bias(self, shape, dtype=None):
        return self.bias_initializer(shape, dtype=dtype)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.projected_size),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, self.projected_size),
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=self.bias_shape,
                initializer=self.initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        super().build(input_shape)

    def project(self, inputs):
        projected = ops.matmul(inputs, self.kernel)
        return projected if self.bias is None else projected + self.bias

    def split(self, tensor):
        """The columns of each gate."""
        return ops.split(tensor, len(self.gates), axis=-1)


def arguments(cls):
    """The constructor's own arguments, outermost class first, as `inspect.Parameter`s by name.

    Read off the signatures along the class hierarchy, as far as each hands its `**kwargs` on.
    """
    found = {}
    for base in cls.__mro__:
        if base is keras.layers.Layer or base is keras.layers.RNN:
            break
        if "__init__" in vars(base):
            parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
            for p in parameters:
                if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                    found.setdefault(p.name, p)
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return found


LAYER_ARGUMENTS = frozenset({"name", "dtype", "trainable", "activity_regularizer", "autocast"})


def _refuse_unknown(cls, kwargs):
    unknown = sorted(set(kwargs) - LAYER_ARGUMENTS)
    if unknown:
        raise TypeError(f"{cls.__name__}: unknown argument {unknown[0]!r}; expected some of {sorted(arguments(cls))}")


def positive_integer(name, value):
    """`value` as an int; a TypeError or ValueError that names the argument if it is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected a positive integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")
    return int(value)


def boolean(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


def rate(name, value):
    """`value` as a float in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number in [0, 1), got {value!r}")
    if math.isnan(value) or not 0 <= value < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value!r}")
    return float(value)


def named(registry, name, value):
    """An activation, initializer, regularizer or constraint from its name, config or self."""
    try:
        return registry.get(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: expected a name or an object of {registry.__name__}, got {value!r}") from error
