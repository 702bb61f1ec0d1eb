"""On a backend without an engine, Keras's own loop runs the same steps; TensorFlow is not even imported."""

import os
import pathlib
import subprocess
import sys

CODE = """
import sys
sys.modules["tensorflow"] = None  # an import of it fails
import keras, keras_seq, numpy as np
assert keras_seq.engine.scan is None
rng = np.random.default_rng(0)
x = rng.normal(size=(3, 5, 2)).astype("float32")
mask = np.array([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], "bool")
for name, arguments in [("LSTM", {}), ("GRU", {}), ("GRU", {"reset_after": False}), ("SimpleRNN", {})]:
    ours = getattr(keras_seq, name)(4, return_sequences=True, return_state=True, **arguments)
    theirs = getattr(keras.layers, name)(4, return_sequences=True, return_state=True, **arguments)
    ours.build(x.shape), theirs.build(x.shape)
    ours.set_weights([rng.normal(size=w.shape) for w in ours.get_weights()])
    theirs.set_weights(ours.get_weights())
    for a, b in zip(ours(x, mask=mask), theirs(x, mask=mask)):
        np.testing.assert_allclose(a, b, atol=1e-5)

inputs, vector = keras.Input((5, 2)), keras.Input((3,))
cell = keras_seq.ConditionedCell(keras_seq.PeepholeLSTMCell(4, dropout=0.1, recurrent_dropout=0.1))
outputs = keras.layers.Dense(1)(keras_seq.RNN(cell)(inputs, constants=[vector]))
model = keras.Model([inputs, vector], outputs)
model.compile("adam", "mse")
before = [np.array(w) for w in model.get_weights()]
model.fit([x, rng.normal(size=(3, 3))], np.ones((3, 1)), epochs=3, verbose=0)
for old, new in zip(before, model.trainable_variables):
    assert np.isfinite(new).all() and not np.array_equal(old, new), new.path
print("fitted on", keras.config.backend())
"""


def test_jax_is_served_by_the_loop_of_keras():
    root = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment)
    assert done.stdout == "fitted on jax\n", done.stderr[-3000:]
