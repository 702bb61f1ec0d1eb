"""What is exported where: sizes of files, and how far off their results are; written to docs/export.md.

    python benchmarks/exports.py                          # five minutes on two idle cores
    python benchmarks/exports.py --only LSTM Stacked      # some rows, nothing written
    python benchmarks/exports.py --all                    # every case of the tests

Each row is a layer with random weights in a functional model, its step form (`keras_seq.streaming`), or a model of tokens.
Written for any number of rows and steps where the format can, it is run on 2 rows of 5 steps and on 3 rows of 9. SavedModels
are run in a process that cannot import keras_seq, StableHLO is written and run by JAX in a process without TensorFlow, from
the `.keras` file. A format whose packages are not installed says so in its column.
"""

import argparse
import collections
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import arena
import keras
import numpy as np
from export_rows import subjects
from exported import difference, litert, onnx

ROOT = pathlib.Path(__file__).parents[1]
SIZES = ((2, 5), (3, 9))
FORMATS = [".keras", "SavedModel", "ONNX", "LiteRT", "StableHLO"]
TOOLS = ("tensorflow", "keras", "onnxruntime", "tf2onnx", "jax")
WANTED = {"ONNX": ["onnx", "tf2onnx", "onnxruntime"], "StableHLO": ["jax"]}

# runs SavedModels where keras_seq and Keras cannot be imported
SERVED = """
import json, sys
sys.modules["keras_seq"] = sys.modules["keras"] = None
import numpy as np, tensorflow as tf

def steps(loaded, x):
    state, said = loaded.initial_state(tf.constant(len(x))), []
    for t in range(x.shape[1]):
        y, state = loaded.step(tf.constant(x[:, t]), state)
        said.append(y)
    return tf.stack(said, 1)

def result(task):
    arrays, worst = np.load(task["data"]), 0.0
    loaded = tf.saved_model.load(task["path"])
    for i in range(task["sizes"]):
        x = [tf.constant(arrays[f"x{i} {j}"]) for j in range(task["inputs"])]
        if task["kind"] == "step":
            found = steps(loaded, x[0])
        elif task["kind"] in ("begin", "token"):
            found = (loaded.begin if task["kind"] == "begin" else loaded.step)(*x)
        else:
            found = loaded.serve(x if len(x) > 1 else x[0])
        for j, y in enumerate(tf.nest.flatten(found)):
            wanted = arrays[f"y{i} {j}"]
            assert y.shape == wanted.shape, (y.shape, wanted.shape)
            worst = max(worst, float(np.max(np.abs(y.numpy().astype("float64") - wanted), initial=0)))
    return worst, None

for line in sys.stdin:
    task = json.loads(line)
    try:
        print(json.dumps([task["name"], *result(task)]), flush=True)
    except Exception as error:
        print(json.dumps([task["name"], f"{type(error).__name__}: {error}", None]), flush=True)
"""

# writes and runs StableHLO of one table: where TensorFlow cannot be imported, but for models. They have a process of their
# own, as Keras does not look for TensorFlow again once a layer has found that there is none
COMPILED = """
import json, os, sys, warnings
if sys.argv[1] != "Models":
    sys.modules["tensorflow"] = None
os.environ.update(KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
warnings.simplefilter("ignore")
import jax, keras, keras_seq, numpy as np
from jax import export
if sys.argv[1] == "Models":  # they import TensorFlow, and do not run on it here
    import keras_seq.models

B, T = export.symbolic_shape("b, t")

def specs(task):
    named = [[B if n is None and k == 0 else T if n is None else n for k, n in enumerate(s)] for s, _ in task["specs"]]
    return [jax.ShapeDtypeStruct(tuple(s), d) for s, (_, d) in zip(named, task["specs"])]

def written(function, given):
    return bytes(export.export(jax.jit(function))(*given).serialize())

def one_token(model, kind, read):
    # `begin` or `step` on flat lists, as they are exported
    def begin(x):
        return model.begin(x, x.shape[0])

    def flat(function):
        return lambda *x: keras.tree.flatten(function(*x))

    if kind == "begin":
        return written(flat(begin), [read])
    shown = hasattr(model, "image_shape")
    source = jax.ShapeDtypeStruct((B, *model.image_shape) if shown else (B, T), "uint8" if shown else "int32")
    nests = jax.eval_shape(begin, source)
    step = flat(lambda tokens, *x: model.next_token(tokens, *keras.tree.pack_sequence_as(nests, x)))
    return written(step, [jax.ShapeDtypeStruct((B,), "int32"), *keras.tree.flatten(nests)])

def result(task):
    model, arrays = keras.models.load_model(task["path"]), np.load(task["data"])
    if task["kind"] in ("begin", "token"):
        blob = one_token(model, task["kind"], *specs(task)[:1])
    elif task["kind"] == "step":
        stream = keras_seq.streaming(model)
        one = [jax.ShapeDtypeStruct((B, *s.shape[1:]), s.dtype) for s in stream.initial_state(1)]
        blob = written(stream.step, [jax.ShapeDtypeStruct((B, *task["specs"][0][0][2:]), "float32"), one])
    else:
        blob = written(lambda *x: model(list(x) if len(x) > 1 else x[0]), specs(task))
    run, worst = jax.jit(export.deserialize(bytearray(blob)).call), 0.0
    for i in range(task["sizes"]):
        x = [arrays[f"x{i} {j}"] for j in range(task["inputs"])]
        if task["kind"] == "step":
            state, said = stream.initial_state(len(x[0])), []
            for t in range(x[0].shape[1]):
                y, state = run(x[0][:, t], state)
                said.append(y)
            found = [np.stack(said, 1)]
        else:
            found = keras.tree.flatten(run(*x))
        for j, y in enumerate(found):
            wanted = arrays[f"y{i} {j}"]
            assert y.shape == wanted.shape, (y.shape, wanted.shape)
            worst = max(worst, float(np.max(np.abs(np.asarray(y, "float64") - wanted), initial=0)))
    return worst, len(blob)

for line in sys.stdin:
    task = json.loads(line)
    try:
        print(json.dumps([task["name"], *result(task)]), flush=True)
    except Exception as error:
        print(json.dumps([task["name"], f"{type(error).__name__}: {error}", None]), flush=True)
"""


ELSEWHERE = {"SavedModel": SERVED, "StableHLO": COMPILED}

# -- one row -----------------------------------------------------------------------------------------------------------


def size(path):
    """Bytes of a file, or of all files of a folder."""
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


def reason(error):
    """Why something does not go, in a few words; the standard error has many."""
    text = str(error)
    print(text[:2000], file=sys.stderr)
    if "TensorFlow only" in text:
        return "TensorFlow only"
    lacking = set(re.findall(r"'tf\.(\w+)' op", text) + re.findall(r"No Op registered for (\w+)", text))
    for listed in re.findall(r"has the operations \[(.*?)\]", text):
        lacking |= set(re.findall(r"\w+", listed))
    if "Invalid tensor data type 0" in text:  # what onnxruntime says of the file that is left then
        return "tf2onnx does not convert its loop"
    if "known number of rows" in text:
        return "a known number of rows is needed"
    if lacking:
        return f"has no {', '.join(sorted(lacking))}"
    line = re.sub(r"\s+", " ", text.strip().partition("\n")[0]).replace("|", "/")
    return line if len(line) <= 90 else line[:87] + "..."


def attempt(function, *arguments):
    """A cell: `(bytes, largest difference, remark)`, or why there is none."""
    try:
        return function(*arguments)
    except Exception as error:
        return reason(error)


def worst_of(subject, model, given, expected, function):
    runs = [subject.run(model, function, x) for x in given]
    return max(difference(found, wanted) for found, wanted in zip(runs, expected, strict=True))


def in_keras(subject, model, given, expected, path):
    model.save(path)
    again = keras.models.load_model(path)
    pairs = zip(given, expected, strict=True)
    return size(path), max(difference(subject.results(again, x), wanted) for x, wanted in pairs), ""


def in_onnx(subject, model, given, expected, path):
    subject.write(model, path, "onnx")
    return size(path), worst_of(subject, model, given, expected, onnx(path)), ""


def in_litert(subject, path):
    """For 2 rows and any number of steps, else for one number of them."""
    try:
        return in_litert_of(subject, path, None)
    except Exception:
        if not subject.loops:
            raise
        return in_litert_of(subject, path, SIZES[0][1])


def in_litert_of(subject, path, steps):
    fixed = subject.loops
    model = subject.make(2 if fixed else None, steps)
    sizes = [(2 if fixed else b, t) for b, t in SIZES if steps is None or t == steps]
    given = [subject.given(model, *s) for s in sizes]
    expected = [subject.results(model, x) for x in given]
    subject.write(model, path, "litert")
    remark = "" if not fixed else "2 rows" if steps is None else f"2 rows of {steps} steps"
    return size(path), worst_of(subject, model, given, expected, litert(path)), remark


def row(subject, folder, missing):
    """What goes in this process, and what the others have to do."""
    model = subject.make(None, None)
    given = [subject.given(model, *s) for s in SIZES]
    expected = [subject.results(model, x) for x in given]
    cells = {".keras": attempt(in_keras, subject, model, given, expected, folder / "model.keras")}
    if "ONNX" not in missing:
        cells["ONNX"] = attempt(in_onnx, subject, model, given, expected, folder / "model.onnx")
    np.savez(
        folder / "data.npz",
        **{f"x{i} {j}": v for i, x in enumerate(given) for j, v in enumerate(x)},
        **{f"y{i} {j}": v for i, y in enumerate(expected) for j, v in enumerate(y)},
    )
    task = {
        "name": folder.name,
        "kind": subject.kind,
        "data": str(folder / "data.npz"),
        "sizes": len(given),
        "inputs": len(given[0]),
        "specs": [[list(s.shape), s.dtype.name] for s in subject.specs(model)],
    }
    tasks = {}
    if subject.kind == "written":
        cells["StableHLO"] = "TensorFlow only"
    elif isinstance(cells[".keras"], tuple) and "StableHLO" not in missing:
        tasks["StableHLO"] = {**task, "path": str(folder / "model.keras")}
    try:
        subject.write(model, folder / "saved", "tf_saved_model")
        tasks["SavedModel"] = {**task, "path": str(folder / "saved")}
    except Exception as error:
        cells["SavedModel"] = reason(error)
    cells["LiteRT"] = attempt(in_litert, subject, folder / "model.tflite")
    return cells, tasks


def elsewhere(code, table, tasks):
    """What another process says of all tasks of a table, by their names."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    given = "".join(json.dumps(t) + "\n" for t in tasks)
    done = subprocess.run(
        [sys.executable, "-c", code, table],
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    if len(found) < len(tasks):
        print(done.stderr[-2000:], file=sys.stderr)
    return {name: (worst, held) for name, worst, held in found}


def measured(every=False, only=()):
    """`{table: {row: {format: cell}}}`."""
    missing = {f for f, names in WANTED.items() if any(importlib.util.find_spec(n) is None for n in names)}
    tables, later = {}, collections.defaultdict(dict)
    with tempfile.TemporaryDirectory() as kept:
        for table, rows in subjects(every).items():
            tables[table] = {}
            for i, subject in enumerate(rows):
                if only and not any(o in subject.name for o in only):
                    continue
                folder, start = pathlib.Path(kept) / f"{table}-{i}", time.perf_counter()
                folder.mkdir()
                cells, tasks = row(subject, folder, missing)
                tables[table][subject.name] = cells
                for format, task in tasks.items():
                    later[format, table][subject.name] = task
                keras.backend.clear_session()
                print(f"{table} {subject.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        for (format, table), tasks in later.items():
            said = elsewhere(ELSEWHERE[format], table, tasks.values())
            for name, task in tasks.items():
                worst, held = said.get(task["name"], ("no answer", None))
                held = size(pathlib.Path(task["path"])) if held is None else held
                tables[table][name][format] = reason(worst) if isinstance(worst, str) else (held, worst, "")
    for rows in tables.values():
        for cells in rows.values():
            cells.update(dict.fromkeys(missing, "not installed"))
    return tables


# -- the page ----------------------------------------------------------------------------------------------------------


def shown(cell):
    if not isinstance(cell, tuple):
        return cell or "-"
    held, worst, remark = cell
    if worst > 1e-4:
        return f"**wrong by {worst:.0e}**"
    return f"{held / 1024:.0f} kB, {f'{worst:.0e}' if worst else '0'}{f', {remark}' if remark else ''}"


def page(tables):
    """The page on exports as Markdown."""
    versions = [
        f"{n} {importlib.metadata.version(n)}"
        for n in ("tensorflow", "keras", "onnxruntime", "tf2onnx", "jax")
        if has_version(n)
    ]
    lines = [HEAD.format(versions=", ".join(versions))]
    for table, rows in tables.items():
        if rows:
            lines += [f"\n## {table}\n\n{ABOUT[table]}\n", f"| | {' | '.join(FORMATS)} |", "|---" * 6 + "|"]
            lines += [f"| {name} | {' | '.join(shown(c.get(f)) for f in FORMATS)} |" for name, c in rows.items()]
    return "\n".join(lines) + "\n"


def microcontrollers():
    """The page's part on the memory of one step, by arena.py."""
    return "\n".join([f"\n## Microcontrollers\n\n{ON_MICROCONTROLLERS}\n", *arena.table()]) + "\n"


def has_version(name):
    return importlib.util.find_spec(name) is not None


HEAD = """# What is exported where

Each cell has the size of the file and the largest difference of any result from that of the model it was made of, or says why
there is none. `python benchmarks/exports.py` ([exports.py](../benchmarks/exports.py)) writes this page: float32, random
weights, 4 units or so; {versions}.
How each file is written and run is in [deployment.md](deployment.md), how a stream goes on in [streams.md](streams.md).

[layers](#layers) · [steps](#steps) · [models](#models) · [microcontrollers](#microcontrollers)

- `.keras` is loaded in safe mode; what it gives is that of the same code.
- A SavedModel is run in a process that cannot import keras_seq or Keras.
- ONNX is run by onnxruntime, LiteRT by its own kernels with built-in operations alone, StableHLO by JAX from the bytes of
  `jax.export`, in a process without TensorFlow (models of tokens import it, and run on JAX).
- All take any number of rows and of steps, but where the cell says what they take. A loop over time in LiteRT takes one number
  of rows."""

ABOUT = {
    "Layers": """One case of each: 2 rows of 5 steps, 3 rows of 9; outputs of all steps and final states. The `LinearRNN` has
a full transition matrix.""",
    "Steps": """State in and state out, `keras_seq.streaming(model).export(path, format=)`, called step by step from the initial
state. Layers that read constants or true outputs, and those that look ahead, have no step to export.""",
    "Models": """`forward` is the function that is trained, logits of all steps. What a model writes is compared as
integers, so that 0 is the only difference that will do. Writing needs TensorFlow, and so has no StableHLO. What it begins from
and a step are for whoever samples or searches outside; a SavedModel has them all.""",
}


ON_MICROCONTROLLERS = """A step of 32 units over 3 features as LiteRT, for one row: bytes of the file + bytes of memory beside
it (the arena, of TensorFlow Lite for Microcontrollers by its Python package, on 64 bits), and how far the 40th output is off.
`python benchmarks/arena.py` ([arena.py](../benchmarks/arena.py)) writes these rows alone. float16 and int8 are options of
TensorFlow Lite's converter, which `Stream.export` hands on; int8 wants a sample of inputs and states, as arena.py gives it. The
last column says what that interpreter does not take; LiteRT's own takes all. In int8 the state itself is rounded to 256 values
after each step: that suits states that stay within bounds, not a sum that grows with each step, such as those of `NoForgetLSTM`
and `MaskedMean`."""


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every case of the tests, not one of each layer")
    parser.add_argument("--only", nargs="+", default=(), help="parts of the names of rows; writes nothing")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs" / "export.md", help="what is written")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    text = page(measured(given.all, given.only))
    if not given.only:
        text += microcontrollers()
    print(text)
    if not given.only:
        given.page.write_text(text)


if __name__ == "__main__":
    main()
