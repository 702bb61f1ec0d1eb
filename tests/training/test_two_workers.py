"""Two workers learn what one process learns, end together, and go on after one was killed."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from clusters import ROOT, RUN, said_by_two_and_one

pytestmark = pytest.mark.deep


def example(*more):
    sizes = ("--units", 6, "--batches", 4, "--timeout", 60)
    command = [sys.executable, ROOT / "examples" / "distributed.py", *map(str, (*sizes, *more))]
    return subprocess.run(command, capture_output=True, text=True, env=RUN, timeout=300)


def test_two_workers_one_of_which_is_killed_learn_what_one_process_learns():
    done = example("--workers", 2, "--kill")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"worker 1 ended with {-signal.SIGKILL}; all start again from the backup" in done.stdout
    *counts, largest = re.search(
        r"(\d+) steps, (\d+) restarts, (\d+) steps trained again, largest difference (.*)", done.stdout
    ).groups()
    assert counts == ["8", "1", "1"]  # it dies at step 7, the backup is of step 6
    assert float(largest) < 1e-5


WORKERS = """
import json, sys
import numpy as np, tensorflow as tf, keras, keras_seq
import replicas
from keras_seq.models import LanguageModel, Vocabulary
from keras_seq.training import fit_distributed, worker_strategy

folder, *cases = sys.argv[1:]
strategy = worker_strategy(60)
number = strategy.cluster_resolver.task_id or 0
alone = strategy.num_replicas_in_sync == 1
said = {}

def refused(*args, **kwargs):
    try:
        fit_distributed(*args, verbose=0, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

keras.utils.set_random_seed(1)
text = "to be or not to be, that is the question." * 2
with strategy.scope():
    memory = keras_seq.GRU(6, return_sequences=True)
    model = LanguageModel(Vocabulary.of([text], split="characters"), memory, embedding_size=5)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
said["losses"] = fit_distributed(model, model.streams(text[:80], 4, 10), 2, verbose=0).history["loss"]
if alone:
    print(json.dumps(said))
    sys.exit()

other = tf.data.Dataset.from_tensors((np.full((4, 3), 4 + number, "int32"), np.full((4, 3), 4, "int32")))
said["other data"] = refused(model, other)
said["other epochs"] = refused(model, model.streams(text[:80], 4, 10), epochs=1 + number)
said["apart"] = [replicas.differences(case, strategy) for case in cases]
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse", jit_compile=False)
x, y = replicas.X[:, 0], replicas.Y[:, 0]
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)

class Stops(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.seen = [*getattr(self, "seen", []), batch]
        if number == 1 and len(self.seen) == 3:
            self.model.stop_training = True

# one worker decides alone, by its clock say; both have the same files to write
stops = Stops()
writes = [keras.callbacks.CSVLogger(folder + "/log.csv"), keras.callbacks.ModelCheckpoint(folder + "/{epoch}.keras")]
said["lengths"] = len(fit_distributed(model, data, 5, verbose=0, callbacks=[stops, *writes]).history["loss"]), stops.seen
late = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", number == 1))
said["epochs"] = len(fit_distributed(model, data, 5, verbose=0, callbacks=[late]).history["loss"])

def some():
    for _ in range(2 + number):
        yield x[:4], y[:4]

spec = tuple(tf.TensorSpec(a[:4].shape, a.dtype) for a in (x, y))
said["as many"] = refused(model, tf.data.Dataset.from_generator(some, output_signature=spec))

class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if number == 1 and batch == 1:
            raise RuntimeError("no space left")

said["failed"] = refused(model, data, callbacks=[Fails()])
print(json.dumps(said), flush=True)
sys.stdin.read()  # lives on until the other has heard of it, and SIGTERM comes
"""


def test_two_workers_learn_what_one_learns_and_end_together(tmp_path):
    command = [sys.executable, "-c", WORKERS, str(tmp_path), "masks", "rows and masks", "infinite gradients"]
    said, told, codes = said_by_two_and_one(command)
    assert all(said), told
    assert codes[:2] == [-signal.SIGTERM, -signal.SIGTERM]
    first, second, one = map(json.loads, said)
    np.testing.assert_allclose(first["losses"], one["losses"], atol=1e-5)
    assert np.max(first["apart"]) < 1e-5
    assert first["lengths"] == second["lengths"] == [2, [0, 1, 0]]
    assert first["epochs"] == 1
    for worker in (first, second):
        assert "CommonError: data: expected the same batches in each worker" in worker["other data"]
        assert (
            "CommonError: epochs: expected the same in each worker, got others in replicas [1]"
            in worker["other epochs"]
        )
        assert "CommonError: data: expected as many batches in each worker" in worker["as many"]
        assert {**worker, "failed": None} == {**first, "failed": None}
    assert second["failed"] == "RuntimeError: no space left"
    assert "worker 1 ended with RuntimeError: no space left" in first["failed"]
    assert (tmp_path / "log.csv").read_text().count("\n") == 3
    assert sorted(path.name for path in tmp_path.glob("*.keras")) == ["1.keras", "2.keras"]
