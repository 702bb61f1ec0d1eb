"""Truncated backpropagation through time, for any model of layers that read forwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from keras_seq.arguments import needs_tensorflow, positive_integer
from keras_seq.layers.chunks import Chunks, first_state
from keras_seq.shapes import fits
from keras_seq.training.carries_states import CarriesStates
from keras_seq.training.stream_chunks import stream_chunks
from keras_seq.typing import Config, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class TruncatedBPTT(CarriesStates, keras.Model):
    """Trains a model on streams longer than memory, chunk by chunk: truncated backpropagation through time.

        y_1 .. y_k, s_k = model(x_1 .. x_k, s_0);   then x_{k+1} .. x_{2k} from s_k, and so on

    After each chunk of k = `steps` steps the weights are updated by the gradient within the chunk; the states go on to the
    next chunk, but no gradient comes back from it. Each row is a stream of its own, which begins and ends while others go on.
    It is a Keras model over the weights of the one it trains, with Keras's losses, metrics, callbacks, progress bar and
    `jit_compile`:

        trainer = TruncatedBPTT(model, steps=50)
        trainer.compile("adam", "mse")
        trainer.fit(x, y, epochs=3, backup="run")       # x (b, T, d), y (b, T, u): b streams of T steps
        model.predict(x)                                 # the model itself, trained

    What each layer carries: a recurrent layer its states, a layer that sees n steps the last n - 1 inputs. Masks made inside
    (`Embedding(mask_zero=True)`, `Masking`) act as they do on the whole sequence. A `stateful` layer is given its states as
    any other, and keeps the last besides. Layers of Keras run on Keras's own loop (never on cuDNN). With k = T it is the
    training of the model itself.

    Source: Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories",
    Neural Computation 2 (1990), their BPTT(h; h'), with h = h' = k. Left open there: what becomes of a row whose stream has
    ended; here the next stream begins in it, at the next chunk.

    Args:
        model: a built Sequential or functional model whose inputs and outputs are sequences (b, t, ..).
        steps: positive integer k, the length of a chunk, by which `fit` and `evaluate` cut arrays.
        pointwise: further layers of the model (the layers or their names) that act on each step alone, as in
            `keras_seq.streaming`.
        **kwargs: `name`, `dtype` (by default the model's).

    Call arguments:
        inputs: `(x, starts)` or `(x, starts, real)`, as `stream_chunks` makes them.
        training: whether the states that are carried on are those of training or those of everything else.

    Raises:
        TypeError, ValueError: another kind of model; a layer that cannot carry its states forwards (`Bidirectional`, a context
            that looks ahead, a convolution that does), that returns its states, is given initial ones or reads constants, or is
            not known to act on each step alone; an output without time.

    Example:

    ```python
    import keras
    import keras_seq
    import numpy as np
    from keras_seq.training import TruncatedBPTT

    model = keras.Sequential(
        [keras.Input((None, 1)), keras_seq.GRU(8, return_sequences=True), keras.layers.Dense(1)]
    )
    trainer = TruncatedBPTT(model, steps=20)
    trainer.compile("adam", "mse")
    wave = np.sin(np.arange(201) / 5).astype("float32")[None, :, None]
    trainer.fit(wave[:, :-1], wave[:, 1:], epochs=2, verbose=0)     # 10 updates an epoch
    ```
    """

    def __init__(
        self,
        model: keras.Model,
        steps: int,
        pointwise: Sequence[str | keras.layers.Layer] = (),
        **kwargs: Any,
    ) -> None:
        needs_tensorflow("TruncatedBPTT")
        super().__init__(**{"dtype": getattr(model, "dtype_policy", None), **kwargs})
        self.steps = positive_integer("steps", steps)
        self.pointwise = [getattr(p, "name", p) for p in pointwise]
        self.model = model
        self._making_forms = threading.Lock()
        form = self._form(ragged=False)
        if not all(tree.flatten(form.timed)):
            raise ValueError("model: expected an output at each step, got one for the whole sequence")
        self.built = True

    def _form(self, ragged):
        """The model in chunks, all of whose steps are real or, if it is ragged, not."""
        with self._making_forms:
            forms = self.__dict__.setdefault("_forms", {})  # behind Keras's back: they have no weights of their own
            if ragged not in forms:
                forms[ragged] = Chunks(set(self.pointwise), ragged).rewrite(self.model)
        return forms[ragged]

    def first_states(self, rows: int) -> list[Tensor]:
        return [s for layer in self._form(ragged=False).layers for s in first_state(layer, rows)]

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not (isinstance(inputs, (list, tuple)) and len(inputs) in (2, 3)):
            raise TypeError(
                f"inputs: expected (x, starts) or (x, starts, real), as stream_chunks makes them, got {inputs!r:.80}; "
                f"{self.model.name} itself takes sequences"
            )
        x, starts, *real = inputs
        form, flat = self._form(bool(real)), tree.flatten(x)
        wanted = [(None, None, *i.shape[2:]) for i in tree.flatten(form.inputs)]
        shapes = [tuple(v.shape) for v in flat]
        if len(shapes) != len(wanted) or not all(map(fits, shapes, wanted)):
            raise ValueError(f"inputs: expected x of shapes {wanted}, got {shapes}")
        if real and not fits(real[0].shape, shapes[0][:2]):
            raise ValueError(f"real: expected shape {shapes[0][:2]}, got {tuple(real[0].shape)}")

        def run(states):
            found = form.model([*flat, *real, *states], training=training)
            count = len(tree.flatten(form.timed))
            return tree.pack_sequence_as(form.timed, found[:count]), found[count:]

        return self.carry(run, shapes[0][0], starts, bool(training))

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        *args: Any,
        sample_weight: Any = None,
        validation_data: Any = None,
        validation_batch_size: int | None = None,
        backup: str | os.PathLike[str] | None = None,
        backup_every: int = 100,
        **kwargs: Any,
    ) -> Any:
        """As any Keras model's, on streams.

        Args:
            x, y, sample_weight: streams, as `stream_chunks` takes them: arrays (b, T, ..) or lists of streams; or a
                `tf.data.Dataset` of chunks, as it makes them.
            batch_size: how many streams run side by side; None for all.
            validation_data: `(x, y)` or `(x, y, sample_weight)`, likewise, or a `tf.data.Dataset` of chunks.
            validation_batch_size: as `batch_size`; None for all.
            backup, backup_every: a folder from which a broken run goes on where it stopped, as in
                `keras_seq.models.LanguageModel.fit`: weights, optimizer, random numbers, states and the place in the data are
                written every so many chunks, and after each epoch.
            *args, **kwargs: `epochs`, `verbose`, `callbacks`, .. as in Keras; nothing is shuffled.
        """
        data = self._chunks(x, y, sample_weight, batch_size)
        if isinstance(validation_data, tuple):
            more = dict(zip(("x", "y", "sample_weight"), validation_data, strict=False))
            validation_data = self._chunks(**{"sample_weight": None, **more}, rows=validation_batch_size)
        further = {"backup": backup, "backup_every": backup_every, "validation_data": validation_data, "shuffle": False}
        return super().fit(data, None, None, *args, **{**kwargs, **further})

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        *args: Any,
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As any Keras model's, on streams, from their beginnings; the arguments are those of `fit`."""
        return super().evaluate(self._chunks(x, y, sample_weight, batch_size), None, None, *args, **kwargs)

    def _chunks(self, x, y, sample_weight, rows):
        if not isinstance(x, tf.data.Dataset):
            return stream_chunks(x, y, sample_weight, steps=self.steps, rows=rows)
        chunk = x.element_spec[0] if isinstance(x.element_spec, tuple) else None
        if not (isinstance(chunk, tuple) and len(chunk) in (2, 3) and len(getattr(chunk[1], "shape", ())) == 1):
            raise ValueError(
                "x: expected a tf.data.Dataset of ((x, starts), y) or ((x, starts, real), y), as stream_chunks makes it, got "
                f"one of {x.element_spec}"
            )
        return x

    def get_config(self) -> Config:
        own = {
            "model": keras.saving.serialize_keras_object(self.model),
            "steps": self.steps,
            "pointwise": self.pointwise,
        }
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: Config) -> TruncatedBPTT:
        return cls(**{**config, "model": keras.saving.deserialize_keras_object(config["model"])})
