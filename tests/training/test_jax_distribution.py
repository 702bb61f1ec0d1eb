"""Keras's own distribution on JAX: devices of a process, and processes, learn what one device learns."""

import json
import subprocess
import sys

import numpy as np
import pytest
from clusters import RUN, cluster

pytestmark = pytest.mark.deep

JAX = """
import sys
import jax
if len(sys.argv) > 1:
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import keras, keras_seq
import numpy as np

rng = np.random.default_rng(0)
x, y = (rng.normal(size=(16, 7, n)).astype("float32") for n in (3, 2))

def losses(distribution):
    keras.utils.set_random_seed(1)
    keras.distribution.set_distribution(distribution)
    parts = [keras_seq.LSTM(5, return_sequences=True), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((7, 3)), *parts])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    found = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert distribution is None or len(model.weights[0].value.sharding.device_set) == len(jax.devices())
    return found

if len(sys.argv) == 1:
    assert len(jax.devices()) == 4
    print(losses(None))
print(losses(keras.distribution.DataParallel(devices=keras.distribution.list_devices(), auto_shard_dataset=False)))
"""


def test_on_jax_devices_and_processes_learn_what_one_device_learns():
    pytest.importorskip("jax")
    environment = {**RUN, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    devices = {**environment, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with cluster(1) as ([address], _):
        forms = (([], devices), ([address, "0"], environment), ([address, "1"], environment))
        running = [subprocess.Popen([sys.executable, "-c", JAX, *more], env=env, **pipe) for more, env in forms]
        try:
            said = [process.communicate(timeout=300) for process in running]
        finally:
            for process in running:
                process.kill()
    assert [process.returncode for process in running] == [0, 0, 0], said
    one, *others = [
        json.loads(line) for out, _ in said for line in out.splitlines() if line.startswith("[") and "," in line
    ]
    assert len(others) == 3
    for other in others:
        np.testing.assert_allclose(other, one, atol=1e-5)
