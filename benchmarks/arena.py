"""What one step takes on a microcontroller: its file, in flash, and the memory beside it, in RAM.

    pip install tflite-micro
    python benchmarks/arena.py

Each row is the step form of a layer of 32 units over 3 features, `keras_seq.streaming(model).export(path, "litert",
batch_size=1)`, with weights of three types, run by the interpreter of TensorFlow Lite for Microcontrollers. `23,508 + 5,168,
9e-08` says: a file of so many bytes; so many bytes of the memory it is given (its arena) that the interpreter says it uses, for
tensors and its own records, on a machine of 64 bits, where pointers take twice the room; and how far the last of 40 outputs is
off that of the model, there or in LiteRT, whichever is further. Without `tflite-micro` only LiteRT is run.
"""

import argparse
import importlib.util
import os
import pathlib
import re
import sys
import tempfile
import warnings

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from exported import litert

import keras_seq

UNITS, FEATURES, STEPS = 32, 3, 40
INSTALLED = importlib.util.find_spec("tflite_micro") is not None
LAYERS = {
    "SimpleRNN": lambda: keras_seq.SimpleRNN(UNITS),
    "MinGRU": lambda: keras_seq.MinGRU(UNITS),
    "GRU": lambda: keras_seq.GRU(UNITS),
    "LSTM": lambda: keras_seq.LSTM(UNITS),
    "PeepholeLSTM": lambda: keras_seq.PeepholeLSTM(UNITS),
    "NoForgetLSTM": lambda: keras_seq.NoForgetLSTM(UNITS),
    "MinLSTM": lambda: keras_seq.MinLSTM(UNITS),
    "LRU": lambda: keras_seq.LRU(UNITS),
    "Stacked, 2 LSTMs": lambda: keras_seq.Stacked(keras_seq.LSTM, [UNITS, UNITS]),
    "MaskedMean": lambda: keras_seq.MaskedMean(),
    "TDNN": lambda: keras_seq.TDNN(UNITS, delays=4),
    "TCN": lambda: keras_seq.TCN(UNITS, dilations=[1, 2, 4]),
    "WaveNet": lambda: keras_seq.WaveNet(UNITS, dilations=[1, 2, 4]),
}
KINDS = ("float32", "float16", "int8")
HALF = {"supported_types": [tf.float16], "supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
SMALLER = {"optimizations": [tf.lite.Optimize.DEFAULT]}


def made(name):
    """`(model, its stream)` of a layer, with the weights that it starts with."""
    keras.utils.set_random_seed(0)
    x = keras.Input((None, FEATURES))
    model = keras.Model(x, LAYERS[name]()(x))
    return model, keras_seq.streaming(model)


def data(rows=1, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, STEPS, FEATURES)).astype("float32")


def observed(stream):
    """What a converter to int8 looks at to choose its scales: steps, by the names of their inputs."""
    for x in data(5, seed=1):
        state = stream.initial_state(1)
        for now in x[:, None]:
            yield {"input_0": now, **{f"state_{i}": np.asarray(s) for i, s in enumerate(state)}}
            _, state = stream.step(tf.constant(now), state)


def options(kind, stream):
    """Of `Stream.export`, for each type of weights; those of int8 are what TensorFlow Lite calls full-integer."""
    if kind == "float16":
        return {**SMALLER, "target_spec": HALF}
    return {} if kind == "float32" else {**SMALLER, "representative_dataset": lambda: observed(stream)}


def last_output(run, stream, x):
    """The output of a LiteRT file after all steps of x (1, t, d)."""
    state = [np.asarray(s) for s in stream.initial_state(1)]
    for t in range(x.shape[1]):
        y, *state = run(input_0=x[:, t], **{f"state_{i}": s for i, s in enumerate(state)})
    return y


# -- the interpreter for microcontrollers ------------------------------------------------------------------------------


def micro(path):
    from tflite_micro.python.tflite_micro import runtime

    return runtime.Interpreter.from_file(str(path), arena_size=1 << 20)


def places(path):
    """Where the inputs and outputs of a file stand among all, by their names: the interpreter knows no names."""
    interpreter = tf.lite.Interpreter(str(path))
    runner = interpreter.get_signature_runner()
    given, said = interpreter.get_input_details(), interpreter.get_output_details()

    def of(named, listed):
        order = [x["index"] for x in listed]
        return {name: order.index(x["index"]) for name, x in named.items()}

    return of(runner.get_input_details(), given), of(runner.get_output_details(), said)


def on_micro(path):
    """A file as a function of arrays by name, which gives a list."""
    interpreter, (inputs, outputs) = micro(path), places(path)

    def run(**given):
        for name, value in given.items():
            interpreter.set_input(np.ascontiguousarray(value), inputs[name])
        interpreter.invoke()
        return [np.array(interpreter.get_output(outputs[f"output_{i}"])) for i in range(len(outputs))]

    return run


def said_below(function):
    """`(result or error, what the interpreter wrote to the streams of the process)`; it is written below Python."""
    with tempfile.TemporaryFile() as log:
        kept = [os.dup(n) for n in (1, 2)]
        for n in (1, 2):
            os.dup2(log.fileno(), n)
        try:
            found = function()
        except Exception as error:
            found = error
        finally:
            for n, old in zip((1, 2), kept, strict=True):
                os.dup2(old, n)
                os.close(old)
        log.seek(0)
        return found, log.read().decode(errors="replace")


def arena(path, function):
    """`(the bytes of it that are used once the interpreter stands, function())`; or why it does not stand or run, and None."""

    def run():
        micro(path).print_allocations()
        return function()

    found, said = said_below(run)
    used = re.findall(r"Arena allocation total (\d+) bytes", said)
    if not isinstance(found, Exception) and used:
        return int(used[0]), found
    lacking, refused = (
        re.findall(p, said) for p in (r"op for builtin opcode '(\w+)'", r"Node (\w+) \(number \d+\) failed")
    )
    reason = f"has no {lacking[0]}" if lacking else f"its {refused[0]} has no such type" if refused else "not taken"
    return reason, None


# -- the table ---------------------------------------------------------------------------------------------------------


def cell(name, kind, folder):
    """`(what a step in this type takes, in words; what is lacking, or None)`."""
    model, stream = made(name)
    path, x = pathlib.Path(folder) / f"{kind}.tflite", data()
    stream.export(path, format="litert", batch_size=1, **options(kind, stream))
    wanted = np.asarray(model(x))
    wanted = wanted[:, -1] if wanted.ndim == 3 else wanted
    found = [last_output(litert(path), stream, x)]
    needed, said = "not installed", None
    if INSTALLED:
        needed, said = arena(path, lambda: last_output(on_micro(path), stream, x))
    found += [] if said is None else [said]
    worst = max(float(np.abs(y - wanted).max()) for y in found)
    ram, lacking = (f" + {needed:,}", None) if isinstance(needed, int) else ("", needed)
    return f"{path.stat().st_size:,}{ram}, {worst:.0e}", lacking


def table(names=LAYERS, kinds=KINDS):
    """Lines of Markdown."""
    lines = [f"| | {' | '.join(kinds)} | microcontroller |", "|---" * (2 + len(kinds)) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            cells, lacking = zip(*(cell(name, kind, folder) for kind in kinds), strict=True)
            reasons = {k: why for k, why in zip(kinds, lacking, strict=True) if why}
            if len(reasons) == len(kinds) and len(set(lacking)) == 1:
                reasons = {"all": lacking[0]}
            lines.append(f"| {name} | {' | '.join(cells)} | {'; '.join(f'{k}: {why}' for k, why in reasons.items())} |")
            keras.backend.clear_session()
    return lines


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    print("\n".join(table(given.only)))


if __name__ == "__main__":
    main()
