"""Learning at every step of a stream that does not end."""

from __future__ import annotations

import threading
from typing import Any, Unpack

import keras
import tensorflow as tf
from keras import ops

from keras_seq._keras import report_loss
from keras_seq.arguments import one_of, positive_integer
from keras_seq.cells.base import Cell
from keras_seq.shapes import fits
from keras_seq.training.rtrl import RTRL
from keras_seq.training.rtrl_approximations import UORO, SnAp1
from keras_seq.typing import Config, LayerArguments, Tensor

RULES = {"rtrl": RTRL, "snap1": SnAp1, "uoro": UORO}


@keras.saving.register_keras_serializable(package="keras_seq")
class OnlineLearner(keras.Model):
    """A memory that predicts, learns and goes on at each sample that arrives, in memory that does not grow.

    One step is one batch: `learner.learn(x_t, target_t)` gives the prediction of the weights before the step, changes the
    weights by the gradient that reaches back through all steps before, and keeps the states for the next one.
    `train_on_batch` and `fit` do the same, with Keras's losses, metrics, callbacks and progress bar: a data set has one step
    of each of the `rows` in a batch, and is not shuffled. `learner(x_t)` predicts from where the stream stands and changes
    nothing. A saved learner goes on where it stood: its states, what the rule carries and the optimizer's moments are saved.

    Args:
        cell: a `keras_seq.Cell` that the rule takes; what it puts out is the prediction.
        features: positive integer d, the width of a step.
        rows: positive integer, how many streams run side by side.
        rule: "rtrl", "snap1" or "uoro": `RTRL`, `SnAp1` or `UORO` of keras_seq.training.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras layer.

    Raises:
        TypeError, ValueError: another cell, width, number of rows or rule; inputs that are not (rows, d); a cell that the
            rule does not take, or that was built for another width; `learn` before `compile`.

    Example:

    ```python
    import keras_seq
    import numpy as np
    from keras_seq.training import OnlineLearner

    learner = OnlineLearner(keras_seq.SimpleRNNCell(8, outputs=1), features=1)
    learner.compile("adam", "mse")
    stream = np.sin(np.arange(50) / 3).astype("float32").reshape(50, 1, 1)
    for x, target in zip(stream[:-1], stream[1:]):
        prediction = learner.learn(x, target)   # (1, 1)
    ```
    """

    def __init__(
        self, cell: Cell, features: int, rows: int = 1, rule: str = "rtrl", **kwargs: Unpack[LayerArguments]
    ) -> None:
        if not isinstance(cell, Cell):
            raise TypeError(f"cell: expected a keras_seq.Cell, got {cell!r:.80}")
        super().__init__(**kwargs)
        self.cell, self.features = cell, positive_integer("features", features)
        self.rows, self.rule = positive_integer("rows", rows), one_of("rule", rule, tuple(RULES))
        if not cell.built:
            cell.build((None, self.features))
            cell.built = True
        width = cell.get_build_config()["input_shape"][-1]
        if width != self.features:
            raise ValueError(f"features: expected {width}, for which {cell.name} is built, got {features}")
        self._rule = RULES[self.rule](cell)
        state = self._rule.initial_state(self.rows)
        self._kept = [
            self.add_weight(name=f"kept_{i}", shape=s.shape, dtype=s.dtype, initializer="zeros", trainable=False)
            for i, s in enumerate(state)
        ]
        self.built = True
        self._making, self._made_for = threading.Lock(), None
        self.reset_stream()

    def call(self, inputs: Tensor) -> Tensor:
        states = [ops.convert_to_tensor(v) for v in self._kept[: len(self.cell.state_size)]]
        output, _ = self.cell(inputs, states)
        return output

    def train_step(self, data: Any) -> dict[str, Tensor]:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        output, loss = self._advance(self._checked(x), y, weight)
        report_loss(self, loss)
        return self.compute_metrics(x, y, output, weight)

    def _checked(self, inputs):
        """The inputs as a tensor; a ValueError unless they are (rows, d)."""
        inputs = tf.convert_to_tensor(inputs)
        if not fits(inputs.shape, (self.rows, self.features)):
            raise ValueError(
                f"inputs: expected shape {(self.rows, self.features)}, a step of each row, got {tuple(inputs.shape)}"
            )
        return inputs

    def _advance(self, x, y, weight):
        """`(the prediction, its loss)`; the weights are changed, and the stream goes on by a step."""
        loss, output, gradients, state = self._rule.step(x, self._kept, lambda p: self.compute_loss(x, y, p, weight))
        self.optimizer.apply(gradients, self._rule.weights)
        for variable, value in zip(self._kept, state, strict=True):
            variable.assign(value)
        return output, loss

    def learn(self, inputs: Tensor, target: Tensor) -> Tensor:
        """The prediction (rows, outputs) for one step (rows, d); then the weights are changed by the target."""
        if not self.compiled:
            raise ValueError(f"{self.name}: expected a compiled model, call compile(optimizer, loss) first")
        inputs = self._checked(inputs)
        with self._making:
            if self._made_for is not self.optimizer:
                self.optimizer.build(self.trainable_variables)
                jit = False if self.jit_compile == "auto" else self.jit_compile
                self._made_for, self._learn = self.optimizer, tf.function(self._learned, jit_compile=jit)
        return self._learn(inputs, tf.convert_to_tensor(target))

    def _learned(self, inputs, target):
        return self._advance(inputs, target, None)[0]

    def reset_stream(self) -> None:
        """Begin a new stream: the states, and what the rule carries, as before the first step; the weights stay."""
        for variable, value in zip(self._kept, self._rule.initial_state(self.rows), strict=True):
            variable.assign(value)

    def get_config(self) -> Config:
        cell = keras.saving.serialize_keras_object(self.cell)
        return {**super().get_config(), "cell": cell, **{n: getattr(self, n) for n in ("features", "rows", "rule")}}

    @classmethod
    def from_config(cls, config: Config) -> OnlineLearner:
        return cls(**{**config, "cell": keras.saving.deserialize_keras_object(config["cell"])})
