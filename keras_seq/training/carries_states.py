"""Models that train on streams: the states of each row go on from chunk to chunk, and a broken run goes on where it stopped."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops, tree

from keras_seq.arguments import positive_integer
from keras_seq.training.backup import Backup
from keras_seq.typing import Tensor

_making = threading.Lock()  # held while the variables of carried states are made


class CarriesStates:
    """What a `keras.Model` adds to train on streams, chunk by chunk.

    A subclass gives `first_states(rows)` and runs a chunk by `carry`. Training and everything else carry states of their own,
    for each number of rows, so that validation in `fit` disturbs nothing. In each replica of a `tf.distribute` strategy they
    are those of its share of the rows.
    """

    train_function: Any
    test_function: Any

    def first_states(self, rows: int) -> list[Tensor]:
        """What is carried before the first chunk: a flat list of tensors, `rows` rows each."""
        raise NotImplementedError

    def carry(
        self,
        run: Callable[[list[Tensor]], tuple[Any, Sequence[Tensor]]],
        rows: int | None,
        starts: Tensor,
        training: bool,
        name: str = "inputs",
    ) -> Any:
        """The outputs of `run(states) -> (outputs, new states)`, from the states in which the chunk before left each row.

        Args:
            run: function that runs a chunk.
            rows: how many rows the chunk has.
            starts: (rows,), true where a row begins anew.
            training: whether these are the states of training.
            name: of the inputs, for errors.
        """
        if rows is None:
            raise ValueError(f"{name}: expected a known number of rows together with starts, got None")
        if tuple(starts.shape) != (rows,):
            raise ValueError(f"starts: expected booleans of shape ({rows},), one per row, got {tuple(starts.shape)}")
        first, starts = self.first_states(rows), ops.cast(starts, "bool")
        kept = self._kept_states(training, rows, first)
        states = [
            ops.where(ops.reshape(starts, (rows, *[1] * (len(f.shape) - 1))), f, k.value)
            for f, k in zip(first, kept, strict=True)
        ]
        outputs, new = run(states)
        for variable, state in zip(kept, new, strict=True):
            variable.assign(state)
        return outputs

    def _kept_states(self, training, rows, like):
        """Variables for the states of so many rows, in each replica its own; made when first asked for."""
        own = {"synchronization": "on_read", "aggregation": "only_first_replica"}
        with _making, tf.init_scope():
            kept = self.__dict__.setdefault("_kept", {})  # behind Keras's back: they are no weights of the model
            if (training, rows) not in kept:
                kept[training, rows] = [
                    keras.Variable("zeros", s.shape, s.dtype, trainable=False, autocast=False, name="carried", **own)
                    for s in like
                ]
        return kept[training, rows]

    # -- Keras's loops ---------------------------------------------------------------------------------------------------

    def make_train_function(self, force: bool = False) -> None:
        if keras.config.backend() != "tensorflow":  # where nothing is carried
            super().make_train_function(force)
        elif self.train_function is None or force:
            train = _by_shape(lambda: self._made("train"))

            def train_or_pass_over(iterator):
                if not self.__dict__.get("_to_pass_over"):
                    return train(iterator)
                self.__dict__["_to_pass_over"] -= self.steps_per_execution
                for _ in range(self.steps_per_execution):
                    next(iterator)
                return self.get_metrics_result()

            self.train_function = train_or_pass_over

    def make_test_function(self, force: bool = False) -> None:
        if keras.config.backend() != "tensorflow":  # where nothing is carried
            super().make_test_function(force)
        elif self.test_function is None or force:
            self.test_function = _by_shape(lambda: self._made("test"))

    def _made(self, kind):
        """What Keras makes to train or test by."""
        maker = _Apart(self)
        getattr(keras.Model, f"make_{kind}_function")(maker, force=True)
        return getattr(maker, f"{kind}_function")

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *args: Any,
        backup: str | os.PathLike[str] | None = None,
        backup_every: int = 100,
        **kwargs: Any,
    ) -> Any:
        """As any Keras model's, and a broken run goes on where it stopped.

        Args:
            x, y, *args, **kwargs: as in Keras; with `backup` x is a `tf.data.Dataset` of chunks, the same in each epoch, and
                endless if there are `steps_per_epoch`.
            backup: folder for weights, optimizer, random numbers, carried states and the place in the data; None for none.
                A run that is broken off, and called anew with the same arguments, goes on from the last backup and ends with
                the weights of an unbroken one. A run that ends removes it. Callbacks see the chunks before that place once
                more, passed over without training; what they remember is not kept, and the metrics of that epoch are of the
                rest of it.
            backup_every: positive integer, chunks between backups; there is one after each epoch too.

        Raises:
            TypeError, ValueError: `backup` with other data; one of another model or number of rows, or a folder that cannot
                be written to.
        """
        if backup is None:
            return super().fit(x, y, *args, **kwargs)
        given = inspect.signature(keras.Model.fit).bind(self, x, y, *args, **kwargs).arguments
        given.pop("self")
        if not isinstance(x, tf.data.Dataset):
            raise TypeError(f"x: expected a tf.data.Dataset of chunks together with backup, got {x!r:.80}")
        callbacks = given.get("callbacks") or []
        if isinstance(callbacks, keras.callbacks.CallbackList):
            raise TypeError("callbacks: expected a list together with backup, got a CallbackList")
        rows = tree.flatten(x.element_spec)[0].shape[0]
        keeper = Backup(self, os.fspath(backup), positive_integer("backup_every", backup_every), rows)
        steps_per_epoch = given.get("steps_per_epoch")
        if steps_per_epoch:
            if x.cardinality() != tf.data.INFINITE_CARDINALITY:
                raise ValueError(
                    "steps_per_epoch: expected None with backup, but for data that repeat() without an end"
                )
            given["x"] = x.skip(keeper.epoch * steps_per_epoch)
        given["callbacks"] = [*(callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]), keeper]
        given["initial_epoch"] = max(given.get("initial_epoch", 0), keeper.epoch)
        self.__dict__["_to_pass_over"] = keeper.batch
        try:
            return super().fit(**given)
        finally:
            self.__dict__["_to_pass_over"] = 0


def _by_shape(make):
    """A function of an iterator that Keras trains or tests by: `make()` gives one for each shape of the data.

    Keras makes one for all, which forgets how many rows there are as soon as it has met two numbers of them: with them it
    would forget whose states they are.
    """
    made, making = {}, threading.Lock()

    def function(iterator):
        key = str(getattr(iterator, "element_spec", None))
        with making:
            if key not in made:
                made[key] = make()
        return made[key](iterator)

    return function


class _Apart:
    """An object to those who read it; what they set is set here."""

    def __init__(self, whole):
        self.__dict__["_whole"] = whole

    def __getattr__(self, name):
        return getattr(self._whole, name)
