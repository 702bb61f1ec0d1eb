"""Models of the tables of cases and structures, and what was exported of them as other programs run it.

Axes: b batch, t time, d input features.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import Case, D

needs_litert = pytest.mark.skipif(keras.__version__.startswith("3.12."), reason="Keras writes LiteRT since 3.13")


def functional(subject, rows=None, steps=None):
    """A case or a structure as a functional model of so many rows and steps, None for any: outputs and final states."""
    inputs, further = [keras.Input((steps, D), batch_size=rows, name="x")], {}
    if isinstance(subject, Case):
        layer = subject(return_sequences=True, return_state=True, batch=rows)
        shapes = [[rows if n is None else n for n in s.shape] for s in subject.constant_specs]
        types = [s.dtype.name for s in subject.constant_specs]
        constants = [
            keras.Input(batch_shape=shape, dtype=dtype, name=f"v{i}")
            for i, (shape, dtype) in enumerate(zip(shapes, types, strict=True))
        ]
        inputs += constants
        further = {"constants": constants} if constants else {}
        if subject.targets:
            further["targets"] = keras.Input((steps, layer.cell.output_size), batch_size=rows, name="y")
            inputs.append(further["targets"])
    else:
        layer = subject("float32")
    return keras.Model(inputs, keras.tree.flatten(layer(inputs[0], **further)), name="exported")


def data(model, b, t, seed=0):
    """Random inputs of a `functional` model; integers are 1 to 3."""
    rng = np.random.default_rng(seed)
    found = []
    for x in model.inputs:
        sizes = [b if x.shape[0] is None else x.shape[0], *x.shape[1:]]
        shape = [t if n is None else n for n in sizes]
        found.append(rng.normal(size=shape) if "float" in x.dtype else rng.integers(1, 4, size=shape))
    return [np.asarray(v, x.dtype) for v, x in zip(found, model.inputs, strict=True)]


def results(model, inputs):
    return [np.asarray(y) for y in keras.tree.flatten(model(inputs))]


def difference(found, expected):
    """The largest of all differences of two lists of arrays, which must have the same shapes."""
    assert [a.shape for a in found] == [b.shape for b in expected]
    pairs = zip(found, expected, strict=True)
    return max(float(np.max(np.abs(a.astype("float64") - b), initial=0)) for a, b in pairs)


def write_litert(model, path):
    """A model for its own number of rows and steps as LiteRT, with built-in operations alone."""
    signature = [tf.TensorSpec(x.shape, x.dtype, x.name) for x in model.inputs]
    model.export(
        path,
        format="litert",
        verbose=False,
        input_signature=[signature] if len(signature) > 1 else signature,
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
    )


def by_place(outputs):
    """Tensors by the names that a LiteRT file gives them, output_0, output_1, .., as a list."""
    return [outputs[name] for name in sorted(outputs, key=lambda name: int(name.rsplit("_", 1)[1]))]


def litert(path):
    """A LiteRT file as a function of arrays by name, which gives a list; by the kernels of LiteRT, without XNNPACK's."""
    plain = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    runner = tf.lite.Interpreter(str(path), experimental_op_resolver_type=plain).get_signature_runner()
    return lambda **inputs: by_place(runner(**inputs))


def onnx(path):
    """An ONNX file as a function of arrays by name, which gives a list."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return lambda **inputs: session.run(None, inputs)


def run_steps(run, stream, inputs, state, steps):
    """What an exported step gives one step after the other: for each step a list of the outputs."""
    count, said = len(stream.model.outputs) - len(state), []
    for t in range(steps):
        now = {f"input_{i}": x[:, t] for i, x in enumerate(inputs)}
        found = run(**now, **{f"state_{i}": s for i, s in enumerate(state)})
        said.append(found[:count])
        state = found[count:]
    return [np.stack(column, axis=1) for column in zip(*said, strict=True)]


def nodes(folder):
    """All nodes of a SavedModel, and the attributes of its functions."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    functions = [f for graph in saved.meta_graphs for f in graph.graph_def.library.function]
    top = [n for graph in saved.meta_graphs for n in graph.graph_def.node]
    return [*top, *(n for f in functions for n in f.node_def)], functions


def check_names_no_device(folder, compiled=False):
    """A SavedModel runs on a processor wherever it was made; XLA compiles some of it for the device it runs on, or nothing."""
    found, functions = nodes(folder)
    assert len(found) > 100
    assert {n.device for n in found} <= {"", "/device:CPU:0", "/device:CPU:*"}
    assert not [n.op for n in found if "cudnn" in n.op.lower()]
    assert all(n.attr["data_format"].s in (b"", b"NHWC") for n in found)  # processors have no other convolutions
    assert any(f.attr["_XlaMustCompile"].b for f in functions) == compiled
