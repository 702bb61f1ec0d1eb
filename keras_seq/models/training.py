"""How models of tokens are trained: no id outside the vocabulary moves a weight."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import backend, ops, tree

from keras_seq.cells.floats import long_type
from keras_seq.typing import Config, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class TokenCrossEntropy(keras.losses.SparseCategoricalCrossentropy):
    """The cross-entropy per token (nats), in float32 at least.

    Keras casts targets to the type of the loss, by default that of `keras.config.floatx()`: in bfloat16 token 257 is 256.
    """

    def __init__(self, dtype=None, **kwargs):
        super().__init__(dtype=dtype or long_type(keras.config.floatx()), **kwargs)


def as_pair(first, second, names):
    """Two things, given as two arguments or as one dict with these names."""
    if second is not None:
        return first, second
    if not isinstance(first, dict) or not set(names) <= set(first):
        got = f"a dict of {list(first)}" if isinstance(first, dict) else f"{names[0]} alone"
        raise TypeError(f"{names[1]}: expected {names[0]} and {names[1]}, or a dict of the two, got {got}")
    return tuple(first[name] for name in names)


def _check_tokens(**given):
    """A TypeError that names what holds strings, of all that Keras's `fit` takes."""
    for name, data in given.items():
        leaves = tree.flatten(getattr(data, "element_spec", data))
        kinds = [getattr(leaf, "dtype", type(leaf)) for leaf in leaves]
        if any(k in (str, bytes, tf.string) or getattr(k, "kind", "") in ("U", "S") for k in kinds):
            raise TypeError(
                f"{name}: expected tokens, got strings; `model.example` makes tokens of them, of a data set "
                "`dataset.map(model.example)`"
            )


class TokenTraining:
    """What a model from tokens to logits (b, t, v), with a `vocabulary`, adds to the training of Keras.

    An id that is none of the vocabulary is an error eagerly, a failed assertion in a graph, both before anything has moved.
    Under XLA, which drops assertions, it makes the loss NaN; and a step whose loss is NaN, for whatever reason, leaves the
    weights and the optimizer as they were. (Under a strategy of `tf.distribute`, which knows no branches here, the gradients
    are zero instead, and only what an optimizer does without any goes on: momentum, weight decay.)
    """

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any) -> None:
        """As any Keras model's; the default loss is the cross-entropy per token (nats), padding left out."""
        if loss is None:
            loss = TokenCrossEntropy(from_logits=True, ignore_class=self.vocabulary.pad, name="cross_entropy")
        strategy = tf.distribute.get_strategy()
        mirrored = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
        several = isinstance(strategy, mirrored) and strategy.num_replicas_in_sync > 1
        if several and kwargs.get("jit_compile") is True:
            raise ValueError(
                "jit_compile: expected False or 'auto' under a MirroredStrategy of several replicas, as XLA compiles for one "
                "device alone, got True"
            )
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As any Keras model's, on tokens, which `example` makes of text."""
        _check_tokens(x=x)
        return super().predict(x, *args, **kwargs)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As any Keras model's, on tokens, which `example` makes of text."""
        _check_tokens(x=x, y=y, validation_data=kwargs.get("validation_data"))
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As any Keras model's, on tokens, which `example` makes of text."""
        _check_tokens(x=x, y=y)
        return super().evaluate(x, y, *args, **kwargs)

    def compile_from_config(self, config: Config) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """As in Keras, but of integer targets (b, t) each has to be of the vocabulary, or the one that the loss ignores."""
        wrong = None
        if (
            hasattr(y, "dtype")
            and "int" in backend.standardize_dtype(y.dtype)
            and len(y.shape) == len(y_pred.shape) - 1
        ):
            ignored = getattr(self.loss, "ignore_class", None)
            hidden = ops.equal(y, self.vocabulary.pad if ignored is None else ignored)
            ids, wrong = self.vocabulary.check("targets", ops.where(hidden, self.vocabulary.pad, y))
            y = ops.where(hidden, y, ids)
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss if wrong is None else ops.where(ops.any(wrong), float("nan"), loss)

    def train_step(self, *arguments: Any) -> Any:
        """Keras's, but that nothing moves where the loss is NaN."""
        if keras.config.backend() != "tensorflow":
            return super().train_step(*arguments)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(*arguments)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            lost = tf.math.is_nan(loss)
            scaled = self.optimizer.scale_loss(tf.where(lost, tf.zeros_like(loss), loss))
        for metric in self.metrics:
            if metric.name == "loss":
                rows = tf.shape(tf.nest.flatten(x)[0])[0]
                metric.update_state(loss * tf.distribute.get_strategy().num_replicas_in_sync, sample_weight=rows)
        weights = self.trainable_weights
        if weights:
            gradients = tape.gradient(scaled, weights)
            if not self.optimizer.built:
                self.optimizer.build(weights)

            def move():
                self.optimizer.apply_gradients(zip(gradients, weights, strict=True))

            if tf.distribute.has_strategy():
                move()
            else:
                tf.cond(lost, lambda: None, move)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
