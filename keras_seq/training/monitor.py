"""How large gradients are while a model trains: by layer, and by how far back in time they reach."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_seq.analysis.state_gradients import recurrent_layers, watched_states
from keras_seq.arguments import needs_tensorflow, positive_integer
from keras_seq.extras import needed
from keras_seq.training.gradient_norms import norms_by_lag, owners, state_names, sum_of_squares, unique_names

LINES = 6
"""As many measurements a plot can show apart."""
STYLES = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"), ("-", "x"), ("--", "v"))


class Measurement(NamedTuple):
    """What `GradientMonitor` has measured once.

    Attributes:
        step: the updates of this `fit` before it; 0 outside of one.
        epoch: the epoch, from 0.
        loss: of the batch.
        gradient_norm: of the gradient of all trainable weights.
        layers: that of the weights of each layer, by name.
        states: for each watched layer and each of its states, by name, the norms of dL/ds_t against the lag, (t,).
    """

    step: int
    epoch: int
    loss: float
    gradient_norm: float
    layers: dict[str, float]
    states: dict[str, dict[str, np.ndarray]]


class GradientMonitor(keras.callbacks.Callback):
    """Measures gradients every so many steps of training: by layer, and of chosen memories by how far back they reach.

        |dL/dw|                             of all weights, and of those of each layer
        |dL/ds_{T-k}|,  k = 0, 1, ..        of each state of a recurrent layer, k steps before the last one that it read

    A line that falls with the lag k says that the memory learns nothing of what lies further back, one that rises that its
    gradients explode.

    The numbers are of the batches in `data`, at the weights as they stand before the step, and of the loss
    `model.compute_loss(x, y, model(x, training=True), sample_weight)`, penalties included: of what Keras's `train_step` would
    do with these batches, before clipping and without a loss scale. They are computed by a function of their own, compiled as
    the model is, which changes nothing in it: no weight, kept state, moving average or random number. One measurement costs
    about as much as a training step.

    The norm at a lag is the root mean square of the norm of dL/ds_t, all paths included
    (`keras_seq.analysis.state_gradients`), over the rows of the batch that have a step so far back, counted in real steps
    where there is a mask. Where no row has one it is NaN. A layer that is called several times counts as one over all
    their rows.

    Logs (for `History`, `CSVLogger`, `EarlyStopping`, the progress bar) get what was measured last: at the end of each epoch
    "gradient_norm", "gradient_norm/LAYER" and "state_gradient/LAYER/STATE/lag_K", after each batch "gradient_norm" alone.
    Callbacks that read them stand after this one in the list. TensorBoard gets the same at each measurement.

    Args:
        data: a batch `(x, y)` or `(x, y, sample_weight)`, as `fit` takes them; or a `tf.data.Dataset` of such batches, of
            which each measurement takes the next one, from the beginning again after the last.
        layers: recurrent layers of the model, themselves or their names, inside of other layers too; None for all.
        interval: positive integer, steps from measurement to measurement. The first is before the first step.
        lags: list of integers k of at least 0 that the logs show; None for 0, 1, 10, 100 and so on, and the
            last one of the first measurement.
        log_dir: folder for TensorBoard; None for none.

    Attributes:
        measurements: a list of all since training began, each with `step`, `epoch`, `loss`, `gradient_norm`, `layers` and
            `states`.

    Raises:
        TypeError, ValueError: other data; a layer that is not in the model, or is not recurrent; a model without a recurrent
            layer where `layers` is a list, or that is not compiled; an interval or lags that are none.
        RuntimeError: a backend other than TensorFlow.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_seq
    from keras_seq.training import GradientMonitor

    model = keras.Sequential([keras.Input((30, 2)), keras_seq.SimpleRNN(8, name="memory"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x, y = np.random.normal(size=(64, 30, 2)), np.ones((64, 1))
    monitor = GradientMonitor(data=(x[:32], y[:32]), interval=2)
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[monitor])
    print(history.history["state_gradient/memory/h/lag_10"])
    figure = monitor.plot().figure   # figure.savefig("gradients.png")
    ```
    """

    async_safe = True  # what it does after a batch may wait

    def __init__(
        self,
        data: Any,
        layers: Sequence[str | keras.layers.Layer] | None = None,
        interval: int = 100,
        lags: Sequence[int] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        needs_tensorflow("GradientMonitor")
        super().__init__()
        if not (isinstance(data, tf.data.Dataset) or (isinstance(data, (tuple, list)) and 1 <= len(data) <= 3)):
            raise TypeError(
                f"data: expected (x, y), (x, y, sample_weight) or a tf.data.Dataset of batches, got {data!r:.80}"
            )
        if isinstance(layers, (str, keras.layers.Layer)) or not (layers is None or isinstance(layers, (list, tuple))):
            raise TypeError(f"layers: expected a list of recurrent layers or names, or None, got {layers!r:.80}")
        for i, one in enumerate(layers or ()):
            if not isinstance(one, (str, keras.layers.Layer)):
                raise TypeError(f"layers[{i}]: expected a recurrent layer or a name, got {one!r:.80}")
        if not isinstance(log_dir, (str, os.PathLike, type(None))):
            raise TypeError(f"log_dir: expected a path or None, got {log_dir!r:.80}")
        self.data = data
        self.layers = layers
        self.interval = positive_integer("interval", interval)
        self.lags = None if lags is None else _checked_lags(lags)
        self.log_dir = log_dir
        self.measurements: list[Measurement] = []
        self._batches = _batches(data)
        self._writer: Any = None
        self._made_for: tuple[Any, ...] | None = None
        self._function: Callable[..., Any] | None = None
        self._begin()

    def _begin(self):
        """Forget the steps of a training."""
        self._before = self._seen = self._next = self._epoch = self._step = 0

    # -- measuring ----------------------------------------------------------------------------------------------------

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        if not model.compiled:
            raise ValueError(f"{model.name}: expected a compiled model, call compile(optimizer, loss) first")
        made_for = (model, model.optimizer, model.run_eagerly, model.jit_compile)
        if self._made_for is None or any(a is not b for a, b in zip(made_for, self._made_for, strict=True)):
            self._made_for, self._function = made_for, None

    def measure(self) -> Measurement:
        """Measure the next batch now; in `fit` this happens by itself. Outside of it call `set_model(model)` first."""
        if self._made_for is None:
            raise ValueError("model: expected one, call set_model(model) first")
        batch = next(self._batches)
        if self._function is None:
            _built(self.model, batch[0])
            self._watched = self._chosen()
            self._owners = owners(self.model)
            *_, eager, jit = self._made_for
            self._function = self._measured if eager else tf.function(self._measured, jit_compile=jit)
        found = tree.map_structure(np.asarray, self._function(*batch))
        names = unique_names([layer for layer, _ in self._owners])
        layers = dict(zip(names, map(float, found["layers"]), strict=True))
        states = {
            name: dict(zip(state_names(layer), curves, strict=True))
            for (name, layer), curves in zip(self._watched.items(), found["states"], strict=True)
        }
        norm = float(np.sqrt(np.sum(np.square(found["layers"], dtype="float64"))))
        self.measurements.append(Measurement(self._step, self._epoch, float(found["loss"]), norm, layers, states))
        self._write()
        return self.measurements[-1]

    def _chosen(self):
        """The watched layers by name."""
        every = recurrent_layers(self.model)
        names = unique_names(every)
        if self.layers is None:
            return dict(zip(names, every, strict=True))
        chosen = {}
        for i, wanted in enumerate(self.layers):
            meant = [
                (name, layer) for name, layer in zip(names, every, strict=True) if wanted in (name, layer.name, layer)
            ]
            if len(meant) != 1:
                said = wanted if isinstance(wanted, str) else wanted.name
                raise ValueError(
                    f"layers[{i}]: expected one of the recurrent layers {names} of {self.model.name}, got {said!r}"
                )
            chosen.update(meant)
        return chosen

    def _measured(self, x, y=None, sample_weight=None):
        """The norms as tensors; the model is left as it is."""
        model = self.model
        weights = model.trainable_variables
        values = [tf.convert_to_tensor(v) for v in weights]
        layers = list(self._watched.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape, watched_states(tape, layers) as calls:
            tape.watch(values)
            with keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True)), collect_losses=True):
                outputs = model(x, training=True)
                loss = model.compute_loss(x, y, outputs, sample_weight, training=True)
                scaled = model.optimizer.scale_loss(loss)
                scale = tf.cast(model.optimizer.scale_loss(tf.ones_like(loss)), "float32")
        unused = [name for name, layer in self._watched.items() if not any(c.layer is layer for c in calls)]
        if unused:
            raise ValueError(f"layers: expected layers that {model.name} calls, got {unused[0]!r}")
        perturbations = [call.perturbations for call in calls]
        gradients, dstates = tape.gradient(scaled, [values, perturbations], unconnected_gradients="zero")
        squares = {id(v): sum_of_squares(g) for v, g in zip(weights, gradients, strict=True)}
        by_layer = [tf.sqrt(sum((squares[id(v)] for v in own), tf.zeros(()))) / scale for _, own in self._owners]
        found = list(zip(calls, dstates, strict=True))
        states = [tf.stack(norms_by_lag([(c, g) for c, g in found if c.layer is layer])) / scale for layer in layers]
        return {"loss": loss, "layers": tf.stack(by_layer), "states": states}

    # -- where it goes ------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.measurements = []
        self._begin()
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(os.fspath(self.log_dir))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch, self._before = epoch, self._seen

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._step = self._before + batch
        if self._step >= self._next:
            self.measure()
            self._next = self._step + self.interval

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._seen = self._before + batch + 1
        if logs is not None and self.measurements:
            logs["gradient_norm"] = self.measurements[-1].gradient_norm

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None and self.measurements:
            logs.update(self._as_logs(self.measurements[-1]))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _as_logs(self, found):
        """A measurement as numbers by name, with the same names each time."""
        logs = {"gradient_norm": found.gradient_norm}
        logs |= {f"gradient_norm/{name}": norm for name, norm in found.layers.items()}
        for layer, states in found.states.items():
            for state, curve in states.items():
                for lag in self._shown_lags():
                    norm = float(curve[lag]) if lag < len(curve) else float("nan")
                    logs[f"state_gradient/{layer}/{state}/lag_{lag}"] = norm
        return logs

    def _shown_lags(self):
        if self.lags is not None:
            return self.lags
        curves = [c for states in self.measurements[0].states.values() for c in states.values()]
        longest = max(map(len, curves), default=1)
        return sorted({0, longest - 1, *(10**e for e in range(len(str(longest))) if 10**e < longest)})

    def _write(self):
        if self._writer is not None:
            found = self.measurements[-1]
            with self._writer.as_default(step=found.step):
                for name, value in self._as_logs(found).items():
                    tf.summary.write(name, tf.constant(value, "float32"), metadata=_scalar())

    def plot(self, layer: str | None = None, state: str | None = None, ax: Any = None) -> Any:
        """Draw the norms of dL/ds_t against the lag, a line for the last measurement of each epoch.

        Of more than six epochs six are shown, the first and the last among them, and of one epoch six of its measurements.

        Args:
            layer: name of a watched layer; None for the first.
            state: name of its state, such as "h" or "c"; None for the first.
            ax: matplotlib axes to draw on; None for a new figure.

        Returns:
            The axes.

        Raises:
            ValueError: nothing measured yet, of a recurrent layer; another layer or state.
        """
        if not self.measurements or not self.measurements[-1].states:
            raise ValueError("measurements: expected some of a recurrent layer, got none")
        last = self.measurements[-1].states
        layer = next(iter(last)) if layer is None else layer
        if layer not in last:
            raise ValueError(f"layer: expected one of the watched layers {list(last)}, got {layer!r}")
        state = next(iter(last[layer])) if state is None else state
        if state not in last[layer]:
            raise ValueError(f"state: expected one of {list(last[layer])}, got {state!r}")
        if ax is None:
            ax = needed("matplotlib.figure", "plots").Figure(figsize=(6, 4), layout="constrained").subplots()
        shades = needed("matplotlib", "plots").colormaps["viridis"]
        shown = _spread({m.epoch: m for m in self.measurements}.values())
        by_epoch = len(shown) > 1
        shown = shown if by_epoch else _spread(self.measurements)
        longest = max(len(m.states[layer][state]) for m in shown)
        for i, found in enumerate(shown):
            line, marker = STYLES[i % len(STYLES)]
            curve = found.states[layer][state]
            label = f"epoch {found.epoch + 1}" if by_epoch else f"step {found.step}"
            # zero has no place on a scale of logarithms
            curve = np.where(curve > 0, curve, np.nan)
            color = shades(0.85 * i / max(len(shown) - 1, 1))
            every = max(1, longest // 8)
            ax.plot(curve, line, marker=marker, markevery=(i * every // LINES, every), ms=5, color=color, label=label)
        ax.set(xlabel="lag (steps before the last)", ylabel=f"|dL/d{state}|, {layer}", yscale="log")
        ax.set_xlim(0, max(longest - 1, 1))
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
        return ax


def _checked_lags(lags):
    if not isinstance(lags, (list, tuple, range)) or not len(lags):
        raise TypeError(f"lags: expected a list of integers of at least 0, got {lags!r:.80}")
    for i, lag in enumerate(lags):
        if isinstance(lag, bool) or not isinstance(lag, (int, np.integer)):
            raise TypeError(f"lags[{i}]: expected an integer of at least 0, got {lag!r}")
        if lag < 0:
            raise ValueError(f"lags[{i}]: expected an integer of at least 0, got {lag!r}")
    return [int(lag) for lag in lags]


def _batches(data: Any) -> Iterator[Any]:
    """The batches of the data, each `(x, y, sample_weight)` as far as it goes, again and again."""
    if not isinstance(data, tf.data.Dataset):
        data = [tree.map_structure(tf.convert_to_tensor, tuple(data), none_is_leaf=False)]
    while True:
        empty = True
        for batch in data:
            empty = False
            yield batch if isinstance(batch, tuple) else (batch,)
        if empty:
            raise ValueError("data: expected at least one batch, got none")


def _built(model, x):
    """Let a model make its weights, if it has none yet, without running it."""
    if not model.built:
        model(tree.map_structure(lambda v: keras.KerasTensor(v.shape, keras.backend.standardize_dtype(v.dtype)), x))


def _scalar():
    """What says to TensorBoard that a number is a scalar; `tf.summary.scalar` asks for its package to say so."""
    kind = tf.compat.v1.SummaryMetadata(data_class=1)  # DATA_CLASS_SCALAR
    kind.plugin_data.plugin_name = "scalars"
    return kind


def _spread(measurements):
    """At most so many of them, from the first to the last."""
    every = list(measurements)
    if len(every) <= LINES:
        return every
    return [every[round(i)] for i in np.linspace(0, len(every) - 1, LINES)]
