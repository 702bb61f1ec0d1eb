"""What is exported for service beside SavedModels: LiteRT; what an exported graph holds; and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import QUICK, D
from conformance import randomised
from exported import (
    check_names_no_device,
    data,
    difference,
    functional,
    litert,
    needs_litert,
    results,
    run_steps,
    write_litert,
)
from structures import STRUCTURES
from test_streaming import MODELS, expected, made

import keras_seq
from keras_seq.layers.exporting import export_function

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*receptive field", "ignore:.*does not support masking"),
    pytest.mark.filterwarnings("ignore:.*structure of `inputs`", "ignore:.*Interpreter is deprecated"),
]

# what LiteRT has no operations for
COMPLEX = {"LRU-outputs=2-use_bias=True-r_min=0.5"}
SCANNED = {"LinearRNN-transition=full"}  # with any number of steps
SUBJECTS = [*QUICK, *STRUCTURES[::3]]


def quick(names, first):
    return [pytest.param(name, marks=() if name in first else pytest.mark.deep) for name in names]


@needs_litert
@pytest.mark.parametrize("rows", [None, pytest.param(3, marks=pytest.mark.deep)])
@pytest.mark.parametrize("name", quick(MODELS, ["to_one"]))
def test_litert_steps_of_a_model_are_the_model(name, rows, tmp_path):
    """State in and state out, by built-in operations; without a number of rows, any number of them."""
    model, x = made(name)
    stream = keras_seq.streaming(model)
    stream.export(tmp_path / "step.tflite", format="litert", batch_size=rows)
    run, wanted = litert(tmp_path / "step.tflite"), expected(model, x)
    inputs = keras.tree.flatten(x)
    for b in (rows, 1) if rows is None else (rows,):
        b = b or 3
        state = [np.asarray(s) for s in stream.initial_state(b)]
        found = run_steps(run, stream, [v[:b] for v in inputs], state, len(wanted[0][0]))
        assert difference(found, [w[:b] for w in wanted]) < 1e-6


@pytest.mark.deep
def test_a_step_for_a_number_of_rows_takes_no_other(tmp_path):
    stream = keras_seq.streaming(made("to_one")[0])
    stream.export(tmp_path / "saved", batch_size=2)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    state = loaded.initial_state(tf.constant(3))
    with pytest.raises(TypeError, match=r"TensorSpec\(shape=\(2, 3\), dtype=tf.float32"):
        loaded.step(tf.ones((3, D)), state)


RINGS = {
    "TDNN": lambda: keras_seq.TDNN(4, delays=3),
    "TDNN of one number": lambda: keras_seq.TDNN(4, delays=2),
    "TCN": lambda: keras_seq.TCN(4, dilations=[1, 2]),
    "WaveNet": lambda: keras_seq.WaveNet(4, dilations=[1, 2]),
}


@needs_litert
@pytest.mark.parametrize("kind", [pytest.param("float32", marks=pytest.mark.deep), "int8"])
@pytest.mark.parametrize("name", quick(RINGS, ["TDNN"]))
def test_steps_that_remember_inputs_on_a_microcontroller(name, kind, tmp_path):
    """By operations that TensorFlow Lite for Microcontrollers has; int8 says what the model says, but for rounding."""
    x = np.random.default_rng(0).normal(size=(1, 12, 1 if "one" in name else D)).astype("float32")
    inputs = keras.Input((None, x.shape[-1]))
    model = randomised(keras.Model(inputs, RINGS[name]()(inputs)))
    stream = keras_seq.streaming(model)
    state, observed, wanted = stream.initial_state(1), [], []
    for now in np.moveaxis(x, 1, 0):
        observed.append({"input_0": now, **{f"state_{i}": np.asarray(s) for i, s in enumerate(state)}})
        y, state = stream.step(now, state)
        wanted.append(y)
    wanted = np.stack(wanted, 1)

    further = {"optimizations": [tf.lite.Optimize.DEFAULT], "representative_dataset": lambda: observed}
    stream.export(tmp_path / "step.tflite", format="litert", batch_size=1, **(further if kind == "int8" else {}))
    operations = {op["op_name"] for op in tf.lite.Interpreter(str(tmp_path / "step.tflite"))._get_ops_details()}
    assert not operations & {"SELECT", "SCATTER_ND", "FLOOR_MOD", "ONE_HOT"}, operations
    state = [np.asarray(s) for s in stream.initial_state(1)]
    found = run_steps(litert(tmp_path / "step.tflite"), stream, [x], state, x.shape[1])
    assert difference(found, [wanted]) < (0.05 * np.abs(wanted).max() if kind == "int8" else 1e-6)


@needs_litert
@pytest.mark.deep
@pytest.mark.parametrize("subject", [pytest.param(s, id=s.name) for s in SUBJECTS])
def test_litert_for_one_number_of_rows(subject, tmp_path):
    """By built-in operations: any number of steps, but of what LiteRT cannot loop over; else one."""
    if subject.name in COMPLEX:
        pytest.skip("LiteRT has no complex numbers; the step form has none")
    steps = 6 if subject.name in SCANNED else None
    model = functional(subject, 2, steps)
    write_litert(model, tmp_path / "model.tflite")
    run = litert(tmp_path / "model.tflite")
    for t in (6,) if steps else (6, 9):
        inputs = data(model, 2, t)
        named = dict(zip([x.name for x in model.inputs], inputs, strict=True))
        assert difference(run(**named), results(model, inputs)) < 5e-6


# -- what an exported graph holds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit_compile", [pytest.param(False, marks=pytest.mark.deep), True])
def test_an_exported_model_names_no_device(jit_compile, tmp_path):
    """It runs on a machine without a GPU wherever it was made; XLA compiles a step for the device it runs on, if asked to."""
    model = made("to_one")[0]
    model.export(tmp_path / "model", verbose=False)
    keras_seq.streaming(model, jit_compile=jit_compile).export(tmp_path / "step")
    for name, compiled in (("model", False), ("step", jit_compile)):
        check_names_no_device(tmp_path / name, compiled)


@pytest.mark.deep
def test_what_is_exported_where_there_is_a_gpu_runs_without(monkeypatch, tmp_path):
    """The engine loops in another way there, which needs no GPU to run."""
    model, x = made("deep")
    with monkeypatch.context() as there:
        there.setattr(tf.config, "list_physical_devices", lambda kind=None: [kind])
        model.export(tmp_path / "saved", verbose=False)
    check_names_no_device(tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    assert difference([loaded.serve(x).numpy()], results(model, x)) < 1e-6


@needs_litert
@pytest.mark.deep
def test_a_tensor_of_another_type_is_refused_by_litert(tmp_path):
    stream = keras_seq.streaming(keras.Sequential([keras.Input((None, D)), keras_seq.GRU(2)]))
    stream.export(tmp_path / "step.tflite", format="litert")
    state = {f"state_{i}": np.asarray(s) for i, s in enumerate(stream.initial_state(1))}
    with pytest.raises(ValueError, match=r"Got value of type FLOAT64 but expected type FLOAT32 .*input_0"):
        litert(tmp_path / "step.tflite")(input_0=np.ones((1, D)), **state)


@pytest.mark.parametrize("format", [pytest.param("tf_saved_model", marks=pytest.mark.deep), "step"])
def test_a_tensor_of_another_type_is_answered_by_the_signature(format, tmp_path):
    model = keras.Sequential([keras.Input((None, D), name="x"), keras_seq.GRU(2)])
    if format == "step":
        keras_seq.streaming(model).export(tmp_path / "saved")
        loaded = tf.saved_model.load(str(tmp_path / "saved"))
        call, wanted = loaded.step, r"TensorSpec\(shape=\(None, 3\), dtype=tf.float32, name='input_0'\)"
        given = [tf.ones((2, D), "float64"), loaded.initial_state(tf.constant(2))]
    else:
        model.export(tmp_path / "saved", verbose=False)
        call = tf.saved_model.load(str(tmp_path / "saved")).serve
        given, wanted = [tf.ones((2, 4, D), "float64")], r"TensorSpec\(shape=\(None, None, 3\), dtype=tf.float32"
    with pytest.raises(TypeError, match=wanted):
        call(*given)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"format": "openvino"}, ValueError, "format: expected one of .*'onnx', 'litert'.*, got 'openvino'"),
        ({"format": None}, ValueError, "format: expected one of .*, got None"),
        ({"batch_size": 0}, ValueError, "batch_size: expected a positive integer, got 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size: expected a positive integer, got 2.0"),
        ({"opset_version": 18}, TypeError, r"options: expected none for a SavedModel, got \['opset_version'\]"),
        ({"format": "litert"}, ValueError, r"path: expected one that ends in '\.tflite', got '.*never'"),
        ({"path": None}, TypeError, "path: expected a string or a path, got None"),
        ({"path": b"never", "format": "litert"}, TypeError, "path: expected a string or a path, got b'never'"),
        ({"path": ""}, ValueError, "path: expected the name of a file or a folder, got ''"),
        ({"path": __file__}, ValueError, "path: expected a folder for a SavedModel, got the file '.*py'"),
        (
            {"path": "never.tflite", "format": "litert", "input_signature": [tf.TensorSpec((1, D))]},
            ValueError,
            r"input_signature: expected 3 tensors, \['input_0', 'state_0', 'state_1'\], got \[TensorSpec",
        ),
    ],
)
def test_exports_that_are_refused(given, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stream = keras_seq.streaming(keras.Sequential([keras.Input((None, D)), keras_seq.GRU(2)]))
    with pytest.raises(error, match=message):
        stream.export(**{"path": tmp_path / "never", **given})
    assert not list(tmp_path.iterdir())


@needs_litert
@pytest.mark.parametrize("dtype", quick(["mixed_float16", "mixed_bfloat16", "float64"], ["mixed_bfloat16"]))
def test_floating_point_types_that_litert_does_not_have_are_named_and_what_was_there_stays(dtype, tmp_path):
    layer = keras_seq.GRU(2, dtype=dtype)
    stream = keras_seq.streaming(keras.Sequential([keras.Input((None, D), dtype=layer.variable_dtype), layer]))
    (tmp_path / "good.tflite").write_bytes(b"good")
    for name in ("good.tflite", "never.tflite"):
        with pytest.raises(ValueError, match=f"model: expected one of float32, .* got {layer.compute_dtype} in it"):
            stream.export(tmp_path / name, format="litert")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"good"]


@needs_litert
def test_operations_that_litert_does_not_have_are_named(tmp_path):
    model = keras.Sequential([keras.Input((None, D)), keras.layers.Dense(2)])
    spec = [tf.TensorSpec((2, D), "int32", name="x")]
    with pytest.raises(
        ValueError, match=r"format: expected one that has the operations \['BitwiseAnd'\], got 'litert'"
    ):
        export_function(lambda x: [tf.bitwise.bitwise_and(x, 6)], spec, model, tmp_path / "never.tflite", "litert", {})
    assert not list(tmp_path.iterdir())


@needs_litert
@pytest.mark.deep
def test_a_loop_of_any_number_of_rows_is_refused_by_litert(tmp_path):
    model = keras.Sequential([keras.Input((None, D)), keras_seq.GRU(2, return_sequences=True)])
    spec = [tf.TensorSpec((None, None, D), name="x")]
    with pytest.raises(
        ValueError, match=r"input_signature: expected a known number of rows.*got shapes \[\(None, None, 3\)\]"
    ):
        export_function(lambda x: [model(x)], spec, model, tmp_path / "never.tflite", "litert", {})


def test_litert_of_a_keras_that_does_not_write_it(tmp_path, monkeypatch):
    stream = keras_seq.streaming(keras.Sequential([keras.Input((None, D)), keras_seq.GRU(2)]))
    monkeypatch.setattr(keras, "__version__", "3.12.1")
    with pytest.raises(ValueError, match=r"format: expected 'litert' with Keras 3\.13 .*, got it with 3\.12\.1"):
        stream.export(tmp_path / "never.tflite", format="litert")


def test_a_layer_whose_time_must_be_known_says_so(tmp_path):
    model = keras.Sequential([keras.Input((None, D)), keras_seq.LSTM(2, unroll=True)])
    with pytest.raises(ValueError, match="unroll: expected False where the number of steps is not known, got True"):
        model.export(tmp_path / "never", verbose=False)
