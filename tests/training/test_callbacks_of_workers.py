"""Keras's callbacks in two workers: both end in the same epoch with the same weights, and the chief alone writes files."""

import importlib.util
import json
import sys

import keras
import numpy as np
import pytest
from clusters import said_by_two_and_one

from keras_seq.training import distributed

WORKERS = """
import csv, http.server, json, pathlib, sys, threading
from importlib.util import find_spec
import numpy as np, tensorflow as tf, keras, keras_seq
from keras import callbacks as c
from keras_seq.training import fit_distributed, worker_strategy

out, sys.stdout = sys.stdout, sys.stderr  # where callbacks write too
strategy = worker_strategy(60)
alone = strategy.num_replicas_in_sync == 1
folder = pathlib.Path(sys.argv[1]) / ("one" if alone else f"worker{strategy.cluster_resolver.task_id}")
folder.mkdir()
rng = np.random.default_rng(0)
x, y = (rng.normal(size=(8, *shape)).astype("float32") for shape in ((5, 3), (1,)))
posted, said = [], {}

class Hears(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["epoch"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Hears)
threading.Thread(target=server.serve_forever, daemon=True).start()
root = f"http://127.0.0.1:{server.server_port}"

def fit(name, callbacks, epochs=4, targets=(y, -y), normalized=False, **compiling):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        moving = [keras.layers.BatchNormalization(momentum=0.5)] if normalized else []
        parts = [keras_seq.GRU(4), *moving, keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((None, 3)), *parts])
        model.compile(keras.optimizers.Adam(0.05, **compiling), "mse", jit_compile=False)
    data, held_out = (tf.data.Dataset.from_tensor_slices((x, each)).batch(4) for each in targets)
    history = fit_distributed(model, data, epochs, validation_data=held_out, callbacks=callbacks, verbose=0).history
    weights = [w.numpy().tolist() for w in model.weights]
    said[name] = {"epochs": len(history["loss"]), "history": history, "weights": weights}

fit("stops", [
    c.ReduceLROnPlateau("val_loss", patience=1, factor=0.1),
    c.EarlyStopping("val_loss", patience=2, restore_best_weights=True),
    c.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
    c.CSVLogger(str(folder / "log.csv")),
    c.RemoteMonitor(root, send_as_json=True),
    c.ModelCheckpoint(str(folder / "{epoch}.keras")),
    c.ModelCheckpoint(str(folder / "best.keras"), save_best_only=True),
    c.ModelCheckpoint(str(folder / "steps.weights.h5"), save_weights_only=True, save_freq=3),
    *([c.TensorBoard(str(folder / "board"), histogram_freq=1, update_freq=1)] if find_spec("tensorboard") else []),
], epochs=12)
nan = y.copy()
nan[3] = np.nan  # of a row in the second worker
fit("ends at once", [c.TerminateOnNaN()], targets=(nan, y))
fit("moving", [c.SwapEMAWeights(swap_on_epoch=True), c.ModelCheckpoint(str(folder / "moving.keras"))],
    epochs=2, normalized=True, use_ema=True, ema_momentum=0.5)
said["files"] = sorted(str(path.relative_to(folder)).split(".out.")[0] for path in folder.rglob("*") if path.is_file())
said["posted"] = posted
if (folder / "log.csv").exists():
    said["log"] = [float(row["val_loss"]) for row in csv.DictReader(open(folder / "log.csv"))]
    best = keras.models.load_model(folder / "best.keras")
    said["best"] = [w.numpy().tolist() for w in best.weights]
    said["moving weights"] = [w.numpy().tolist() for w in keras.models.load_model(folder / "moving.keras").weights]
print(json.dumps(said), file=out, flush=True)
sys.stdin.read()  # lives on until the other has heard of it
"""


FILES = ["1.keras", "2.keras", "3.keras", "best.keras", "log.csv", "moving.keras", "steps.weights.h5"]
BOARD = ["board/train/events", "board/validation/events"] if importlib.util.find_spec("tensorboard") else []


def equal(a, b, atol=0.0):
    for v, w in zip(a, b, strict=True):
        np.testing.assert_allclose(v, w, rtol=0, atol=atol)


@pytest.mark.deep
def test_two_workers_end_alike_and_write_once(tmp_path):
    said, told, _ = said_by_two_and_one([sys.executable, "-c", WORKERS, str(tmp_path)])
    assert all(said), told
    first, second, one = map(json.loads, said)
    assert [run["epochs"] for run in first.values() if "epochs" in run] == [3, 1, 2]
    for run in ("stops", "ends at once", "moving"):
        assert set(first[run]["history"]) == set(second[run]["history"])
        equal(first[run]["history"].values(), second[run]["history"].values())
        equal(first[run]["weights"], second[run]["weights"])
    for run in ("stops", "ends at once"):
        equal(first[run]["history"].values(), one[run]["history"].values(), 1e-5)
        equal(first[run]["weights"], one[run]["weights"], 1e-5)
    assert first["files"] == one["files"] == sorted([*FILES, *BOARD])
    assert first["posted"] == one["posted"] == [0, 1, 2]
    assert second["files"] == second["posted"] == []
    np.testing.assert_allclose(first["log"], first["stops"]["history"]["val_loss"])
    equal(first["best"], first["stops"]["weights"])  # which early stopping has restored
    equal(first["moving weights"], first["moving"]["weights"])


def test_each_callback_of_keras_runs_in_all_workers_or_in_the_chief_alone():
    in_all = {"EarlyStopping", "History", "LambdaCallback", "LearningRateScheduler", "ProgbarLogger"}
    in_all |= {"ReduceLROnPlateau", "SwapEMAWeights", "TerminateOnNaN"}
    others = {"BackupAndRestore", "Callback", "CallbackList"}  # refused, and what the rest is made of
    names = {name for name in vars(keras.callbacks) if name[0].isupper()}
    assert {kind.__name__ for kind in distributed._OF_CHIEF} == names - in_all - others
