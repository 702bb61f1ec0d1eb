"""What stacks of causal layers share whose distances grow: the TCN and WaveNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_seq.arguments import copied, positive_integer
from keras_seq.cells.floats import drawn_long
from keras_seq.layers.streamable import Streamable
from keras_seq.layers.tdnn import TDNN, warn_if_short
from keras_seq.masking import over_real_steps
from keras_seq.shapes import check_sequences
from keras_seq.typing import Shape, Tensor


class DilatedStack(Streamable, keras.layers.Layer):
    """A stack of causal layers whose parts keep their own states: what TCN and WaveNet share.

    A subclass has `parts`, its time-delay layers in order, and `_apply_layers(inputs, apply, training)`, which makes the
    outputs, calling `apply(part, x)` for each part in that order.
    """

    state_size = ()

    def _convolution(self, width, dilation, **kwargs):
        """A part, not yet built."""
        context = [-k * dilation for k in range(self.kernel_size)]
        return TDNN(width, context=context, dtype=self.dtype_policy, **self._starts(), **kwargs)

    def _product(self, width, **kwargs):
        """A dense layer likewise."""
        starts = {name: drawn_long(start) for name, start in self._starts().items()}
        return keras.layers.Dense(width, dtype=self.dtype_policy, **starts, **kwargs)

    def _starts(self):
        return {name: copied(getattr(self, name)) for name in ("kernel_initializer", "bias_initializer")}

    @property
    def receptive_field(self) -> int:
        """How many steps an output sees, its own counted."""
        return 1 + sum(part.receptive_field - 1 for part in self.parts)

    def call(self, sequences: Tensor, mask: Tensor | None = None, training: bool = False) -> Any:
        check_sequences(sequences, mask)
        warn_if_short(self, sequences)
        sequences = ops.cast(sequences, self.compute_dtype)

        def every_step(sequences):
            return self._apply_layers(sequences, lambda part, x: part.every_step(x), training)

        # no step sees a later one, so that what stands after the real steps need not be hidden again
        zeros = self.zero_output_for_mask and self.return_sequences
        outputs = over_real_steps(every_step, sequences, mask, zeros)
        return outputs if self.return_sequences else outputs[:, -1]

    def first_state(self, batch_size: int | Tensor) -> list[Tensor]:
        return [s for part in self.parts for s in part.first_state(batch_size)]

    def step_states(self, inputs: Tensor, states: Sequence[Tensor], mask: Tensor | None = None) -> tuple[Tensor, Any]:
        left, found = list(states), []

        def one_step(part, x):
            count = len(part.first_state(1))
            y, new = part.step_states(x, [left.pop(0) for _ in range(count)], mask)
            found.extend(new)
            return y

        outputs = self._apply_layers(ops.cast(inputs, self.compute_dtype), one_step, False)
        return outputs, found

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        return mask if self.return_sequences else None

    def compute_output_shape(self, sequences_shape: Shape) -> Any:
        steps = (sequences_shape[1],) if self.return_sequences else ()
        return (sequences_shape[0], *steps, self.output_width)


def positive_integers(name, value):
    """A list of positive integers, at least one."""
    if not isinstance(value, (list, tuple, range)) or not value:
        raise TypeError(f"{name}: expected a list of at least one positive integer, got {value!r}")
    return [positive_integer(name, v) for v in value]
