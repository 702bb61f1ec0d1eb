"""NARX and AR as layers: open loop on true outputs, closed loop on their own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops, tree

from keras_seq import cells
from keras_seq.arguments import arguments, boolean, positive_integer
from keras_seq.layers.cell_layer import CellLayer
from keras_seq.shapes import fits, static
from keras_seq.typing import Config, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class NARX(CellLayer):
    """A nonlinear autoregressive network with exogenous inputs; see `keras_seq.NARXCell` for the equations and arguments.

    In open loop (series-parallel; the default) it takes the true outputs as a second input, `targets`, and predicts each
    step from those before it: a feed-forward net over all steps at once, without a loop. In closed loop (parallel) it
    feeds its own outputs back: a simulation, trained by backpropagation through time. `close_loop()` and `open_loop()` give
    the one from the other, with the same weights, in a saved model too (`keras.models.clone_model` gives each layer of the
    clone its own). Step 0 sees zeros for what was before it: leave the first d = `layer.delays` steps out of the loss, or
    give `initial_state`.

    | MATLAB | here |
    |---|---|
    | `net = narxnet(0:1, 1:2, 10)` | `layer = NARX(10, 1, input_delays=2, output_delays=2, return_sequences=True)` |
    | `[Xs, Xi, Ai, Ts] = preparets(net, X, {}, T)` | nothing: the layer shifts by itself |
    | `net = train(net, Xs, Ts, Xi, Ai)` | `model = keras.Model([x, y], layer(x, targets=y)[:, d:])`; `fit([X, T], T[:, d:])` |
    | `netc = closeloop(net)` | `closed = layer.close_loop()` |
    | `netc(Xc, Xic, Aic)` | `closed(X, targets=T[:, :w])`: after w known outputs its own |
    | `netc = train(netc, Xc, Tc, Xic, Aic)` | `keras.Model([x, k], closed(x, targets=k)[:, w:])`, fit to `T[:, w:]` |
    | `[Y, Xf, Af] = net(...)`; continue from `Xf, Af` | `return_state=True`; `initial_state=` |

    All other arguments are those of `keras_seq.RNN`.

    Args:
        closed: start in closed loop.

    Call arguments:
        targets: the true outputs: in open loop all (b, t, k); in closed loop none, or those of the first w steps (b, w, k),
            the warm-up, which must be as long as the longest delay.

    Raises:
        ValueError: besides what `keras_seq.RNN` refuses, `targets` missing in open loop, of another width, or of another
            length; a warm-up shorter than the delays, or reversed in time.

    Example:

    ```python
    import keras_seq
    from keras import ops
    layer = keras_seq.NARX(8, 1, input_delays=2, output_delays=2, return_sequences=True)
    x, y = ops.ones((2, 6, 3)), ops.ones((2, 6, 1))
    predicted = layer(x, targets=y)                               # (2, 6, 1), each step from true ones
    simulated = layer.close_loop()(x, targets=y[:, :2])           # (2, 6, 1), from the third on from its own
    future = layer.forecast(y, sequences=ops.ones((2, 10, 3)))    # (2, 4, 1), the four steps after y
    ```
    """

    cell_class = cells.NARXCell

    def __init__(self, *args: Any, closed: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.closed = boolean("closed", closed)

    @property
    def delays(self) -> int:
        """How many steps the longest delay reaches back."""
        return self.cell.delays

    def close_loop(self, **flags: Any) -> Self:
        """This layer in closed loop, the weights shared; `flags`, such as `return_sequences`, changed."""
        return self._twin(True, flags)

    def open_loop(self, **flags: Any) -> Self:
        """This layer in open loop, likewise."""
        return self._twin(False, flags)

    def _twin(self, closed, flags):
        same = {"dtype": self.dtype_policy, "activity_regularizer": self.activity_regularizer}
        config = {**self.get_config(), **same, "closed": closed}
        del config["name"], config["trainable"], config["cell"]
        return self._over(self.cell, {**config, **flags})

    @classmethod
    def _over(cls, cell, config):
        """A layer over this cell; beside it the arguments that a constructor of a subclass names."""
        named = inspect.signature(cls.__init__).parameters
        inner = {name: value for name, value in cls._inner(cell).items() if name in named}
        return cls(**{**inner, **config, "cell": cell})

    def needs_targets(self, width: int | None = None) -> bool:
        return not self.closed

    def forecast(self, targets: Tensor, sequences: Tensor | None = None, steps: int | None = None) -> Tensor:
        """What comes after known outputs.

        Args:
            targets: the known outputs (b, w, k).
            sequences: inputs of the w known steps and the n after them, (b, w + n, d).
            steps: n, for a layer without inputs.

        Returns:
            Tensor (b, n, k).

        Raises:
            TypeError, ValueError: sequences for a layer without inputs or none for one with, steps likewise; no step to
                forecast; known outputs fewer than the delays, or of another width.
        """
        needed, other = ("sequences", "steps") if self.cell.exogenous else ("steps", "sequences")
        given = {"sequences": sequences, "steps": steps}
        if given[needed] is None or given[other] is not None:
            raise ValueError(f"{needed}: expected it, and no {other}, for {type(self).__name__}, got {given[needed]}")
        self._check_warm_up(targets)
        known = targets.shape[1]
        if sequences is None:
            steps = known + positive_integer("steps", steps)
            sequences = ops.repeat(ops.zeros_like(targets[:, :1, :1]), steps, axis=1)
        elif static(sequences.shape[1]) is not None and sequences.shape[1] <= known:
            raise ValueError(f"sequences: expected more steps than the {known} of targets, got {sequences.shape[1]}")
        whole = {"return_sequences": True, "return_state": False, "stateful": False, "return_internals": False}
        return self.close_loop(**whole)(sequences, targets=targets)[:, known:]

    def _check(self, sequences, initial_state, mask, constants, targets):
        if not self.closed:
            if targets is None:
                raise ValueError("targets: expected the true outputs in open loop, got None (close_loop() needs none)")
            super()._check(sequences, initial_state, mask, constants, targets)
            return
        super()._check(sequences, initial_state, mask, constants, None)
        if targets is None:
            return
        if self.go_backwards:
            raise ValueError("targets: expected None in closed loop with go_backwards, got a warm-up")
        self._check_warm_up(targets, *sequences.shape[:2])

    def step_states(
        self,
        inputs: Tensor,
        states: Sequence[Tensor],
        mask: Tensor | None = None,
        constants: Any = (),
        targets: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        if self.closed and targets is not None:
            raise ValueError(f"targets: expected None in closed loop, step by step, got {tuple(targets.shape)}")
        if not self.closed:
            shape, expected = None if targets is None else tuple(targets.shape), (inputs.shape[0], self.cell.outputs)
            if shape is None or not fits(shape, expected):
                raise ValueError(f"targets: expected the true outputs {expected} in open loop, got {shape}")
        return super().step_states(inputs, states, mask, constants, targets)

    def _check_warm_up(self, targets, batch=None, steps=None):
        shape, k = tuple(targets.shape), self.cell.outputs
        if not fits(shape, (batch, None, k)):
            raise ValueError(f"targets: expected shape ({'b' if batch is None else batch}, w, {k}), got {shape}")
        known, steps = static(shape[1]), static(steps)
        if known is None or known < self.delays or (steps is not None and known > steps):
            most = "" if steps is None else f", and no more than the {steps} of the sequences"
            raise ValueError(
                f"targets: expected as a warm-up a known number of steps, at least the {self.delays} of the delays{most}, "
                f"got {shape[1]}"
            )

    def _run(self, sequences, states, mask, training, constants, targets):
        if not self.closed or targets is None:
            return super()._run(sequences, states, mask, training, constants, targets)
        known = targets.shape[1]
        first_mask, later_mask = (None, None) if mask is None else (mask[:, :known], mask[:, known:])
        first, states, internals = super()._run(sequences[:, :known], states, first_mask, training, constants, targets)
        if sequences.shape[1] == known:
            return first, states, internals
        later, states, further = super()._run(sequences[:, known:], states, later_mask, training, constants, None)
        begun = None  # where the later part has had a real step; until then it repeats the last of the first
        if mask is not None:
            begun = ops.expand_dims(ops.cumsum(ops.cast(later_mask, "int32"), axis=1) > 0, -1)

        def joined(a, b):
            repeats = begun is not None and not self.zero_output_for_mask
            return ops.concatenate([a, ops.where(begun, b, a[:, -1:]) if repeats else b], axis=1)

        if internals is not None:
            internals = tree.map_structure(joined, internals, further)
        if self.return_sequences:
            return joined(first, later), states, internals
        return later if begun is None else ops.where(begun[:, -1], later, first), states, internals

    def get_config(self) -> Config:
        # the cell as an object, so that layers which share one do so when they are loaded together
        config = super().get_config()
        config = {name: value for name, value in config.items() if name not in arguments(self.cell_class)}
        return {**config, "cell": keras.saving.serialize_keras_object(self.cell), "closed": self.closed}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls._over(keras.saving.deserialize_keras_object(config["cell"]), config)


@keras.saving.register_keras_serializable(package="keras_seq")
class AR(NARX):
    """An autoregressive model; see `keras_seq.ARCell` for the equations and arguments, `keras_seq.NARX` for its two loops.

    In open loop its input is the series itself: y = layer(series) predicts each step from those before it. In closed loop
    only the number of steps of the input counts.

    Example:

    ```python
    import keras_seq
    from keras import ops
    layer = keras_seq.AR(outputs=1, output_delays=3, return_sequences=True)
    series = ops.ones((2, 6, 1))
    predicted = layer(series)                    # (2, 6, 1)
    future = layer.forecast(series, steps=4)     # (2, 4, 1)
    ```
    """

    cell_class = cells.ARCell

    def needs_targets(self, width: int | None = None) -> bool:  # which are the series itself, where it is as wide
        return not self.closed and width not in (None, self.cell.outputs)

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        training: bool = False,
        constants: Sequence[Tensor] | None = None,
        targets: Tensor | None = None,
        sequences_mask: Tensor | None = None,
        return_state: bool | None = None,
    ) -> Any:
        targets = sequences if targets is None and not self.closed else targets
        further = {"sequences_mask": sequences_mask, "return_state": return_state}
        return super().call(sequences, initial_state, mask, training, constants, targets, **further)

    def step_states(
        self,
        inputs: Tensor,
        states: Sequence[Tensor],
        mask: Tensor | None = None,
        constants: Any = (),
        targets: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        targets = inputs if targets is None and not self.closed else targets
        return super().step_states(inputs, states, mask, constants, targets)
