"""What every cell shares: its protocol, weights, initial states, dropout and configuration."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, Unpack

import keras
from keras import ops, tree

from keras_seq._keras import AutocastScope, DropoutRNNCell
from keras_seq.arguments import arguments, boolean, described, integer_or_none, rate, refuse_unknown
from keras_seq.cells.floats import drawn_long
from keras_seq.engine import dot_dtype, events, recurrent_dropout_mask, replace_exposed
from keras_seq.typing import Config, LayerArguments, Shape, Tensor


class Cell(DropoutRNNCell, keras.layers.Layer):
    """One step of a memory, written once: the protocol of all cells.

    A subclass says what its step is,

        project(x_t) -> p_t                          what the inputs alone decide; by default p_t = x_t
        prepare(constants) -> constants              what the constants alone decide, once; by default as they are
        step(p_t, states, constants) -> z_t, states  everything else; `keras_seq.dot` marks the products with states
        readout(z_t) -> y_t                          what no next step needs, for all steps at once; by default y_t = z_t

    and has `state_size`, a list of the widths of its states, `state_names`, `output_size`, and, if it reads constants,
    `constant_names`. It is a Keras RNN cell, so that it works in `keras.layers.RNN`. In `keras_seq.RNN`
    it is trained by the engine: exact gradients, one product per kernel and sequence.

    `project` and `readout` take any number of leading axes. `step` returns as many states as it got, of the same shapes.
    A row's result must not depend on other rows of the batch, as the engine may run them apart, unless the class says
    `couples_batch = True`.
    `keras_seq.expose` in it names values that a layer may return. A cell with kernels for its gates has less to write as
    a `keras_seq.GatedCell`, one whose output is fed back as a `keras_seq.FeedbackCell`.

    Under a mixed policy `project`, `prepare`, `readout` and each `dot` are computed in the short type; all else in a
    step, and every state, is float32: what a memory adds up over many steps would stall in sixteen bits.

    Args:
        dropout: share in [0, 1) of the inputs to drop in training; the same ones at all steps.
        recurrent_dropout: share in [0, 1) of the state to drop where a `dot` reads it, the same at all steps and for all
            gates (Gal and Ghahramani 2016, with tied masks; Keras draws one mask per gate, and pays four products).
        zoneout: share in [0, 1) of the new states to leave as they were, drawn anew at each step in training; at other
            times the mean of the two (Krueger et al. 2017). One rate for all states, or a list of one for each.
        seed: integer for the random numbers of these three.
        learn_initial_state: learn the initial states, as weights `initial_h`, ... of shape (width,), which start at zero.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras layer.

    Raises:
        TypeError: an argument that is unknown or of the wrong type.
        ValueError: a rate outside [0, 1) or NaN; as many rates of zoneout as there are not states; a learned initial
            state of a memory that lets no gradient through its states.

    Example:

    ```python
    import keras_seq
    from keras import ops

    class RunningMean(keras_seq.Cell):
        # y_t = m_t = 0.9 m_{t-1} + 0.1 x_t

        state_names, state_size, output_size = ("m",), [3], 3

        def step(self, projected, states, constants=()):
            m = 0.9 * states[0] + 0.1 * projected
            return m, (m,)

    y = keras_seq.RNN(RunningMean(), return_sequences=True)(ops.ones((2, 5, 3)))   # (2, 5, 3)
    ```
    """

    state_names: tuple[str, ...] = ("h",)
    constant_names: tuple[str, ...] = ()
    blocked = False
    """Whether a step lets no gradient through the states it reads; its constants then are (b, ...)."""
    couples_batch = False
    """Whether a row's result depends on other rows of the batch, as with batch normalisation; else they may run apart."""
    batched_constants = False
    """Whether every constant is (b, ...), a row of it for each row of the batch; else they keep rows together."""
    readout_reads_constants = False
    """Whether `readout` reads the constants too, prepared, as `readout(outputs, constants)`; they then are (b, ...)."""
    supports_teacher_forcing = False
    """Whether `step` takes `targets`, true outputs to feed back; see `keras_seq.FeedbackCell`."""
    settings: Mapping[str, Any] = types.MappingProxyType({})
    """Arguments of the constructor that this class settles, from the keywords of the class statement."""

    def __init_subclass__(cls, **settings):
        super().__init_subclass__()
        if not settings:
            return
        if "__init__" in vars(cls):
            raise TypeError(
                f"{cls.__name__}: expected no constructor in a class that settles {sorted(settings)}; a constructor hands "
                "them to super().__init__"
            )
        cls.settings = {**cls.settings, **settings}
        _settle(cls, settings)

    def __init__(
        self,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | Sequence[float] = 0.0,
        seed: int | None = None,
        learn_initial_state: bool = False,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        refuse_unknown(type(self), kwargs)
        super().__init__(**{"autocast": False, **kwargs})
        self.dropout = rate("dropout", dropout)
        self.recurrent_dropout = rate("recurrent_dropout", recurrent_dropout)
        several = zoneout if isinstance(zoneout, (list, tuple)) else None
        self.zoneout = rate("zoneout", zoneout) if several is None else [rate("zoneout", z) for z in several]
        self.seed = integer_or_none("seed", seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.learn_initial_state = boolean("learn_initial_state", learn_initial_state)

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("initializer") is not None:
            kwargs["initializer"] = drawn_long(kwargs["initializer"])
        return super().add_weight(*args, **kwargs)

    def build(self, input_shape: Shape) -> None:
        if self.blocked and self.learn_initial_state:
            raise ValueError("learn_initial_state: expected False where blocked=True, as no gradient reaches it")
        self.zoneout_rates()
        self.initial_states = []
        if self.learn_initial_state:
            self.initial_states = [
                self.add_weight(name=f"initial_{name}", shape=(size,), initializer="zeros")
                for name, size in zip(self.state_names, self.state_size, strict=True)
            ]

    # -- what a cell is ----------------------------------------------------------------------------------------------

    def project(self, inputs: Tensor) -> Any:
        """What the inputs alone decide: (..., d) to a tensor, or a nest of tensors, with the same leading axes."""
        return inputs

    def prepare(self, constants: Sequence[Tensor]) -> Sequence[Any]:
        """What the constants alone decide, computed once before the first step."""
        return constants

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = ()
    ) -> tuple[Any, Sequence[Tensor]]:
        """`(projected, states, prepared constants) -> (output, new states)`."""
        raise TypeError(f"{type(self).__name__}: expected a method step(projected, states, constants), found none")

    def readout(self, outputs: Tensor) -> Tensor:
        """What is made of the outputs of `step`, (..., w), and not needed by a next step."""
        return outputs

    def states_before(self, forced: bool) -> Callable[..., Any] | None:
        """How the states before every step follow without a loop; None if they do not.

        Else a function `(projected, states, targets) -> states before each step`, of (t, b, ...) tensors and the initial
        states; `targets` are the true outputs if `forced`, else None. All steps are then taken at once.
        """

    # -- how it is run -----------------------------------------------------------------------------------------------

    def run_project(self, inputs: Tensor) -> Any:
        """`project`, in the short type under a mixed policy, its results in that of the states."""
        with AutocastScope(self.compute_dtype):
            return self._long(self.project(inputs))

    def run_prepare(self, constants: Sequence[Tensor]) -> Sequence[Any]:
        """`prepare`, likewise."""
        self.check_constants(constants)
        with AutocastScope(self.compute_dtype):
            return self._long(self.prepare(self._short(tuple(constants))))

    def run_step(
        self,
        projected: Any,
        states: Sequence[Tensor],
        constants: Sequence[Tensor] = (),
        targets: Tensor | None = None,
        dropped: Tensor | None = None,
        kept: Any = None,
        perturbations: Sequence[Tensor] | None = None,
    ) -> tuple[Any, Sequence[Tensor]]:
        """A step under recurrent dropout with the mask `dropped`, and zoneout with the masks `kept`, None at inference.

        `perturbations` are added to the new states in the end. An output that is a state changes with it.
        """
        states = tuple(ops.stop_gradient(s) for s in states) if self.blocked else tuple(states)
        forced = {} if targets is None else {"targets": targets}
        short = self.compute_dtype if self.compute_dtype != self.variable_dtype else None
        dropped = None if dropped is None else ops.stop_gradient(dropped)
        with AutocastScope(self.variable_dtype), dot_dtype(short), recurrent_dropout_mask(dropped):
            output, new = self.step(projected, states, constants, **forced)
        new = tuple(new) if isinstance(new, (list, tuple)) else (new,)
        rates = self.zoneout_rates()
        if not any(rates):
            mixed = new
        elif kept is None:
            mixed = tuple(n + r * (s - n) for r, n, s in zip(rates, new, states, strict=True))
        else:
            mixed = tuple(ops.where(k, s, n) for k, n, s in zip(kept, new, states, strict=True))
        if perturbations is not None:
            mixed = tuple(m + p for m, p in zip(mixed, perturbations, strict=True))
        if mixed is new:
            return output, new
        for n, m in zip(new, mixed, strict=True):
            output = m if output is n else output
            replace_exposed(n, m)
        return output, mixed

    def run_readout(self, outputs: Tensor, constants: Sequence[Any] = ()) -> Any:
        """`readout`, in the short type under a mixed policy; the very same tensor where there is none."""
        with AutocastScope(self.compute_dtype):
            short = self._short(outputs)
            read = self.readout(short, *([constants] if self.readout_reads_constants else []))
        return outputs if read is short else read

    def call(
        self, inputs: Tensor, states: Any, constants: Sequence[Tensor] = (), training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        given = states if isinstance(states, (list, tuple)) else (states,)
        inputs, states = self._short(inputs), self._long(tuple(given))
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        dropped = self.get_recurrent_dropout_mask(states[0]) if training and self.recurrent_dropout else None
        kept = self.zoneout_masks(ops.shape(inputs)[:1]) if training else None
        constants = self.run_prepare(constants)
        output, states = self.run_step(self.run_project(inputs), states, constants, None, dropped, kept)
        return self.run_readout(output, constants), [ops.cast(s, g.dtype) for s, g in zip(states, given, strict=True)]

    def drawn_mask(self, x: Tensor, share: float) -> Tensor:
        """What dropout multiplies tensors like `x` by, drawn anew; that of Keras's `get_dropout_mask` stays on the cell."""
        return keras.random.dropout(ops.ones_like(x), share, seed=self.seed_generator)

    def zoneout_rates(self) -> list[float]:
        """The rate of each state."""
        if not isinstance(self.zoneout, list):
            return [self.zoneout] * len(self.state_names)
        if len(self.zoneout) != len(self.state_names):
            raise ValueError(f"zoneout: expected a rate for each of the states {self.state_names}, got {self.zoneout}")
        return self.zoneout

    def zoneout_masks(self, leading: Sequence[Any]) -> tuple[Tensor, ...] | None:
        """What to leave as it was, for each state, with these leading axes; None without zoneout."""
        rates = self.zoneout_rates()
        if not any(rates):
            return None
        sizes = zip(rates, self.state_size, strict=True)
        return tuple(events((*leading, size), r, self.seed_generator) for r, size in sizes)

    def check_constants(self, constants: Sequence[Tensor]) -> None:
        """A ValueError unless there are as many constants as the cell reads."""
        if len(constants) != len(self.constant_names):
            raise ValueError(
                f"constants: expected {len(self.constant_names)} for {type(self).__name__} {self.constant_names}, "
                f"got {len(constants)}"
            )

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        """A list of states (batch_size, width): zeros, or the learned ones."""
        if self.learn_initial_state:
            values = [ops.cast(v, self.variable_dtype) for v in self.initial_states]
            return [ops.broadcast_to(v, (batch_size, v.shape[-1])) for v in values]
        return [ops.zeros((batch_size, size), dtype=self.variable_dtype) for size in self.state_size]

    def masked_constants(self, constants: Sequence[Tensor], masks: Any) -> Sequence[Tensor]:
        """The constants, given the masks that Keras carries with them; override it to use the masks."""
        return constants

    def _short(self, tensors):
        return _cast(tensors, self.compute_dtype)

    def _long(self, tensors):
        return _cast(tensors, self.variable_dtype)

    # -- configuration -----------------------------------------------------------------------------------------------

    def get_config(self) -> Config:
        return {**super().get_config(), **described(self)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        config = {
            k: keras.saving.deserialize_keras_object(v) if isinstance(v, dict) and "class_name" in v else v
            for k, v in config.items()
        }
        return cls(**config)


def _settle(cls, settings):
    """Give a class the constructor of the one above it, with these arguments settled. (In its body, tools take it for all.)"""

    def settled(self, *args, **kwargs):
        given = signature.bind_partial(self, *args, **kwargs).arguments
        given.update(given.pop("kwargs", {}))
        refused = sorted(set(settings) & set(given))
        if refused:
            raise TypeError(
                f"{cls.__name__}: unknown argument {refused[0]!r}; expected some of {sorted(arguments(cls))}"
            )
        del given["self"]
        super(cls, self).__init__(**settings, **given)

    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    rest = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
    signature = settled.__signature__ = inspect.Signature([me, *arguments(cls).values(), rest])
    cls.__init__ = settled


def _cast(tensors, dtype):
    """The tensors of a nest, those of floating type in this one."""

    def cast(x):
        x = ops.convert_to_tensor(x)
        return ops.cast(x, dtype) if keras.backend.is_float_dtype(x.dtype) else x

    return tree.map_structure(cast, tensors)
