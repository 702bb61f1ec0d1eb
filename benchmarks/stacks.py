"""What stacks, both directions and convolutions in time cost, and a step of a stream."""

import pathlib
import tempfile
import time

import keras
import steps
import tensorflow as tf
import timing

import keras_seq

SEQUENCES = {"return_sequences": True}


def depth_and_directions(size):
    """Contestants `(what, pass)` over inputs as wide as the units, so that all layers of a stack are alike."""
    b, t, _, u = size
    x, _ = steps.data((b, t, u, u))
    layers = {
        "one": keras_seq.LSTM(u, **SEQUENCES),
        "three": keras_seq.Stacked(keras_seq.LSTM, [u] * 3, **SEQUENCES),
        "both": keras_seq.Bidirectional(keras_seq.LSTM(u, **SEQUENCES)),
    }
    return _both_passes(layers, x)


def beside_keras_tcn(size):
    """Contestants `(whose, pass, jit or graph)`; None without keras-tcn. Six blocks of kernel 3, as wide as the units."""
    try:
        import tcn
    except ImportError:
        return None
    b, t, d, u = size
    x, _ = steps.data((b, t, d, u))
    dilations = [1, 2, 4, 8, 16, 32]
    layers = {
        "ours": keras_seq.TCN(u, 3, dilations, weight_normalization=False, **SEQUENCES),
        "keras-tcn": tcn.TCN(u, 3, dilations=dilations, use_skip_connections=False, **SEQUENCES),
        "ours, weight-normalised": keras_seq.TCN(u, 3, dilations, **SEQUENCES),
    }
    found = {}
    for jit in (True, False):
        functions = _both_passes(layers, x, jit)
        found.update({(*key, "jit" if jit else "graph"): function for key, function in functions.items()})
    counts = {name: layer.count_params() for name, layer in layers.items()}
    assert counts["ours"] == counts["keras-tcn"], counts
    return found


def _both_passes(layers, x, jit=True):
    functions = {}
    for name, layer in layers.items():
        cotangent = tf.random.stateless_normal(layer(x).shape, [1, 2])
        functions[name, "train"], _ = steps.compiled(steps.training_step(layer, cotangent), x, jit)
        functions[name, "infer"], _ = steps.compiled(layer, x, jit)
    return functions


# -- streams -------------------------------------------------------------------------------------------------------------


def stream_of(layer, d=8, jit_compile=False):
    return keras_seq.streaming(keras.Sequential([keras.Input((None, d)), layer]), jit_compile=jit_compile)


def one_step(d=8):
    """Functions that take one step of batch 1 of an exported stream, and of exported identities: the floor."""
    layers = {
        "LSTM(32)": keras_seq.LSTM(32),
        "Stacked, three LSTM(32)": keras_seq.Stacked(keras_seq.LSTM, [32] * 3),
        "TCN(32), dilations 1, 2, 4, sees 29": keras_seq.TCN(32, dilations=[1, 2, 4]),
        "TCN(32), dilations 64, 128, 256, sees 1793": keras_seq.TCN(32, dilations=[64, 128, 256]),
    }
    x, functions = tf.ones((1, d)), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, layer in layers.items():
            for jit_compile, how in ((False, "graph"), (True, "XLA")):
                stream, path = (
                    stream_of(layer, jit_compile=jit_compile),
                    str(pathlib.Path(folder) / str(len(functions))),
                )
                stream.export(path)
                functions[f"{name}, {how}"] = _calling(tf.saved_model.load(path), x, stream.initial_state(1))
        state = layers["LSTM(32)"].initial_state(1)
        functions["identity of x and the LSTM's state"] = _exported(lambda x, s: (x, s), folder, x, state)
        functions["identity of x"] = _exported(lambda x, s: (x, s), folder, x, [])
    return functions


def _exported(function, folder, x, state):
    module = tf.Module()
    specs = [tf.TensorSpec((None, *v.shape[1:])) for v in (x, *state)]
    module.step = tf.function(function, [specs[0], specs[1:]])
    path = str(pathlib.Path(folder) / f"identity{len(state)}")
    tf.saved_model.save(module, path)
    return _calling(tf.saved_model.load(path), x, state)


def _calling(loaded, x, state):
    (step,) = loaded.step.concrete_functions
    return lambda: _kept(step(x, state), loaded)


def _kept(result, _loaded):
    """The loaded model has to outlive its function."""
    return result


def in_microseconds(functions, calls):
    """`{name: (least, median)}` over so many calls of each, in turn by tens."""
    times = {name: [] for name in functions}
    for function in functions.values():
        for _ in range(20):
            function()
    for _ in range(calls // 10):
        for name, function in functions.items():
            for _ in range(10):
                start = time.perf_counter()
                function()
                times[name].append(1e6 * (time.perf_counter() - start))
    return {name: (min(v), timing.median(v)) for name, v in times.items()}


def memory_over_steps(total, parts=5):
    """Rows `(steps so far, MiB of the process, seconds)` of one stream, in a compiled loop and by single calls."""
    rows = []
    for name, layer in (("LSTM(32)", keras_seq.LSTM(32)), ("TCN(16), sees 253", keras_seq.TCN(16))):
        stream = stream_of(layer)

        @tf.function(jit_compile=True)
        def run(state, count, stream=stream):
            x = tf.ones((1, 8))
            step = lambda i, y, s: (i + 1, *stream._step(x * tf.sin(tf.cast(i, "float32")), s))  # noqa: E731
            return tf.while_loop(lambda i, y, s: i < count, step, (0, stream._step(x, state)[0], state))[1:]

        state, begun = stream.initial_state(1), time.perf_counter()
        _, state = run(state, 10)
        for part in range(parts + 1):
            rows.append((name, f"{part * total // parts:,}", f"{resident():.0f}", f"{time.perf_counter() - begun:.0f}"))
            if part < parts:
                _, state = run(state, total // parts)
    return rows


def resident():
    """Memory of this process now, in MiB."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
