"""What is exported as ONNX runs in onnxruntime with the same results, whatever the batch and the length."""

import importlib.util
import pathlib
import sys

import keras
import numpy as np
import pytest
from exported import difference, onnx, run_steps

import keras_seq
from keras_seq.layers.exporting import export_function

sys.path += [str(pathlib.Path(__file__).parent / folder) for folder in ("layers", "models")]
MISSING = [n for n in ("onnx", "tf2onnx", "onnxruntime") if importlib.util.find_spec(n) is None]
pytestmark = [
    pytest.mark.deep,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (pip install keras_seq[onnx])"),
]

# a layer, and the shapes of what it reads besides the sequences (None for the time)
LAYERS = [
    ("SimpleRNN(4, return_sequences=True)", {}),
    ("SimpleRNN(4, outputs=3, output_activation='softplus', return_sequences=True)", {}),
    ("Elman(4, outputs=3, return_sequences=True)", {}),
    ("Elman(4, blocked=False, return_sequences=True)", {}),
    ("Jordan(4, outputs=3, decay=0.8, return_sequences=True)", {}),
    ("Jordan(4, outputs=3, decay=0.8, return_sequences=True)", {"targets": (None, 3)}),
    ("ResidualRNN(4, return_sequences=True)", {}),
    ("ResidualRNN(4, recurrent=False, return_sequences=True)", {}),
    ("ResidualRNN(4, recurrent=False)", {}),
    ("MinGRU(4, return_sequences=True)", {}),
    ("MinLSTM(4, return_sequences=True)", {}),
    ("LinearRNN(4, return_sequences=True)", {}),
    ("NARX(4, outputs=3, input_delays=2, output_delays=[1, 3], return_sequences=True)", {"targets": (None, 3)}),
    ("NARX(4, outputs=3, input_delays=2, output_delays=[1, 3], closed=True, return_sequences=True)", {}),
    ("AR(outputs=2, output_delays=3, closed=True, return_sequences=True)", {}),
    ("LSTM(4)", {}),
    ("LSTM(4, return_sequences=True, return_state=True, learn_initial_state=True)", {}),
    ("LSTM(4, peepholes=True, normalize=True, projection=2, cell_clip=1.0, return_sequences=True)", {}),
    ("LSTM(4, full_gate_recurrence=True, return_sequences=True)", {}),
    ("LSTM(4, zoneout=0.2, zero_output_for_mask=True, return_sequences=True)", {}),
    ("LSTM(4, checkpoint=True, go_backwards=True, return_sequences=True)", {}),
    ("PeepholeLSTM(4, return_sequences=True)", {}),
    ("CoupledLSTM(4, return_sequences=True)", {}),
    ("CoupledLSTM(4, peepholes=True, return_sequences=True)", {}),
    ("NoForgetLSTM(4, return_sequences=True)", {}),
    ("GRU(4, return_sequences=True)", {}),
    ("GRU(4, reset_after=False, go_backwards=True, return_sequences=True)", {}),
    ("GRU(4, truncate=3, return_internals=True)", {}),
    ("RNN(ConditionedCell(LSTMCell(4)), return_sequences=True)", {"constants": (2,)}),
    (
        "RNN(AttentionCell(GRUCell(4), output_units=3, input_feeding=True), return_sequences=True)",
        {"constants": (7, 2)},
    ),
    ("RNN(AttentionCell(LSTMCell(4), query='after', heads=2, score='multi_head'))", {"constants": (7, 2)}),
    ("Stacked([LSTM(4, return_sequences=True), GRU(4, return_sequences=True)], skips='residual')", {}),
    ("Stacked([TDNN(3, delays=2), PeepholeLSTM(3)], skips='dense', return_state=True)", {}),
    ("Bidirectional(LSTM(3, return_sequences=True, return_state=True))", {}),
    ("Bidirectional(GRU(3), merge_mode='sum')", {}),
    ("TDNN(4, context=[-3, -1, 0], weight_normalization=True)", {}),
    ("TDNN(4, context=[-1, 0, 1], subsampling=2)", {}),
    ("TCN(3, dilations=[1, 2], return_sequences=True)", {}),
    ("WaveNet(3, dilations=[1, 2], outputs=2)", {}),
    ("MaskedMean()", {}),
    ("MaskedMax()", {}),
    ("LastStep()", {}),
]


@pytest.mark.parametrize("n_best", [None, 3])
@pytest.mark.parametrize("scheme", [None, "BIO"])
def test_tags_are_the_same_in_onnxruntime(scheme, n_best, tmp_path):
    import onnxruntime

    hidden = keras.layers.Masking()(sequences := keras.Input((None, 3)))
    crf = keras_seq.CRF(["O", "B-a", "I-a"], scheme, transition_initializer="random_normal")
    model = keras.Model(sequences, keras_seq.decoding.ViterbiTags(n_best)(crf(hidden)))
    rng = np.random.default_rng(0)
    model(np.ones((1, 4, 3), "float32"))
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for rows, steps in ((2, 5), (3, 40)):
        x = (rng.normal(size=(rows, steps, 3)) * (rng.random((rows, steps, 1)) < 0.7)).astype("float32")
        x[-1] = 0
        (found,) = session.run(None, {session.get_inputs()[0].name: x})
        np.testing.assert_array_equal(found, model(x))


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(("expression", "further"), LAYERS, ids=[f"{e}{f if f else ''}" for e, f in LAYERS])
def test_same_results_in_onnxruntime(expression, further, masked, tmp_path):
    """At two batch sizes and two lengths; masked: with gaps, padding on both sides, and a row without a real step."""
    import onnxruntime

    layer = eval(expression, vars(keras_seq).copy())
    sequences = keras.Input((None, 2))
    hidden = keras.layers.Masking()(sequences) if masked else sequences
    others = {name: keras.Input(shape) for name, shape in further.items()}
    called = {name: [x] if name == "constants" else x for name, x in others.items()}
    model = keras.Model([sequences, *others.values()], layer(hidden, **called))
    rng = np.random.default_rng(0)
    for w in layer.weights:
        if "float" in w.dtype:
            w.assign(0.5 * rng.normal(size=w.shape))

    def inputs(rows, steps):
        x = rng.normal(size=(rows, steps, 2))
        real = rng.random((rows, steps)) < (0.6 if masked else 1.0)
        real[0, 1:3], real[-1] = True, not masked
        shapes = [(rows, *(steps if n is None else n for n in shape)) for shape in further.values()]
        return [v.astype("float32") for v in (x * real[..., None], *(rng.normal(size=s) for s in shapes))]

    model(inputs(1, 4))
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session, worst = onnxruntime.InferenceSession(tmp_path / "model.onnx"), 0.0
    for rows, steps in ((2, 5), (3, 40)):
        given = inputs(rows, steps)
        found = session.run(None, {at.name: x for at, x in zip(session.get_inputs(), given, strict=True)})
        expected = [np.asarray(v) for v in keras.tree.flatten(model(given))]
        for value, wanted in zip(found, expected, strict=True):
            assert value.shape == wanted.shape
            worst = max(worst, float(np.max(np.abs(value - wanted))))
        assert worst <= 1e-4, worst
    print(f"{expression} {further or ''} {'masked' if masked else 'plain'}: {worst:.1e}")


@pytest.mark.parametrize("expression", ["TreeLSTM(4)", "TreeLSTM(4, arity=2)", "RecursiveNN(4)"])
def test_trees_of_any_depth(expression, tmp_path):
    """Chains, which are as deep as they have nodes, and trees of two levels, from one file."""
    nodes, children = keras.Input((None, 2), name="nodes"), keras.Input((None, 2), dtype="int32", name="children")
    layer = eval(expression, vars(keras_seq).copy())
    model = keras.Model([nodes, children], layer(nodes, children=children))
    rng = np.random.default_rng(0)

    def given(rows, count, deep):
        below = [[i - 1, -1] if i and deep else [-1, -1] for i in range(count)]
        if not deep:
            below[-1] = [0, 1]
        return [rng.normal(size=(rows, count, 2)).astype("float32"), np.tile(below, (rows, 1, 1)).astype("int32")]

    model(given(2, 3, False))
    model.export(tmp_path / "trees.onnx", format="onnx", verbose=False)
    run = onnx(tmp_path / "trees.onnx")
    for rows, count, deep in ((2, 3, False), (2, 5, True), (1, 12, True)):
        x = given(rows, count, deep)
        assert difference(run(nodes=x[0], children=x[1]), [np.asarray(model(x))]) < 1e-6


@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize("name", ["deep", "of_tokens", "to_one", "branches", "open_loop", "closed_loop"])
def test_steps_of_a_model(name, rows, tmp_path):
    """State in and state out: what a stream writes gives step by step what the model gives."""
    import test_streaming

    model, x = test_streaming.made(name)
    stream = keras_seq.streaming(model)
    stream.export(tmp_path / "step.onnx", format="onnx", batch_size=rows)
    run, wanted = onnx(tmp_path / "step.onnx"), test_streaming.expected(model, x)
    for b in (3, 1) if rows is None else (rows,):
        state = [np.asarray(s) for s in stream.initial_state(b)]
        found = run_steps(run, stream, [v[:b] for v in keras.tree.flatten(x)], state, len(wanted[0][0]))
        assert difference(found, [w[:b] for w in wanted]) < 2e-6


@pytest.mark.parametrize("kind", ["LanguageModel", "Seq2Seq", "ImageCaptioner"])
def test_written_tokens(kind, tmp_path):
    """What a model writes greedily, for any number of rows and any length."""
    import test_litert
    import token_models

    model = token_models.made(kind)
    model.export(tmp_path / "writer.onnx", format="onnx", **test_litert.GREEDY.get(kind, {}))
    run, name = onnx(tmp_path / "writer.onnx"), test_litert.READ[kind][0]
    for inputs in test_litert.given(kind, model):
        for rows in (3, 2):
            expected = test_litert.written(kind, model, inputs[:rows])
            assert kind == "ImageCaptioner" or len(np.unique(expected)) > 2
            np.testing.assert_array_equal(run(**{name: inputs[:rows]})[0], expected)


@pytest.mark.parametrize(
    "name",
    ["LanguageModel", "Seq2Seq", "Seq2Seq, without attention", "ImageCaptioner", "ImageCaptioner, each_step"],
)
def test_steps_of_models_of_tokens(name, tmp_path):
    """What begins and one token after the other, for any number of rows and any length."""
    import test_endpoints

    model, read = test_endpoints.subject(name)
    model.export(tmp_path / "step.onnx", format="onnx", endpoint="step")
    if read == "rows":
        begin = test_endpoints.first_states(model)
    else:
        model.export(tmp_path / "begin.onnx", format="onnx", endpoint="begin")
        begin = onnx(tmp_path / "begin.onnx")
    step = onnx(tmp_path / "step.onnx")
    test_endpoints.check_unknown_tokens(step, *test_endpoints.check(model, read, begin, step, [(3, 5), (2, 9)]))


def test_operations_that_onnx_does_not_have_are_named(tmp_path):
    import tensorflow as tf

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    spec = [tf.TensorSpec((2, 2), name="x")]
    with pytest.raises(ValueError, match=r"format: expected one that has the operations \['Bitcast'\], got 'onnx'"):
        export_function(lambda x: [tf.bitcast(x, "int32")], spec, model, tmp_path / "never.onnx", "onnx", {})
    assert not list(tmp_path.iterdir())
