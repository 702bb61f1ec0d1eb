"""On a backend without an engine, Keras's own loop runs the same steps; TensorFlow is not even imported."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import keras_seq

sys.path.append(str(pathlib.Path(__file__).parent / "models"))
import token_models

pytestmark = pytest.mark.deep

# what runs on both: layer, arguments, whether it is given true outputs
MEMORIES = [
    ("LSTM", {}, False),
    ("LSTM", {"normalize": True, "peepholes": True, "projection": 2, "zoneout": 0.2, "cell_clip": 1.0}, False),
    ("LSTM", {"full_gate_recurrence": True, "candidate_activation": "linear"}, False),
    ("CoupledLSTM", {"peepholes": True}, False),
    ("GRU", {}, False),
    ("GRU", {"reset_after": False, "go_backwards": True}, False),
    ("SimpleRNN", {"outputs": 3, "output_activation": "softplus"}, False),
    ("Elman", {"outputs": 3}, False),
    ("Jordan", {"outputs": 3, "decay": 0.8}, False),
    ("Jordan", {"outputs": 3, "decay": 0.8, "zero_output_for_mask": True}, True),
    ("ResidualRNN", {}, False),
    ("ResidualRNN", {"recurrent": False}, False),
    ("MinGRU", {}, False),
    ("MinLSTM", {"go_backwards": True}, False),
    ("LinearRNN", {"transition": "full", "outputs": 3}, False),
    ("LRU", {"outputs": 3}, False),
    ("NARX", {"outputs": 3, "input_delays": 2, "output_delays": [1, 3]}, True),
    ("NARX", {"outputs": 3, "input_delays": 2, "output_delays": [1, 3], "closed": True}, False),
]
STRUCTURES = [
    "Stacked([LSTM(4, return_sequences=True), GRU(4, return_sequences=True)], skips='residual', return_state=True)",
    "Bidirectional(Stacked(LSTM, [3, 2], return_sequences=True))",
    "TDNN(4, context=[-3, -1, 0], weight_normalization=True)",
    "TDNN(4, context=[-1, 0, 1], subsampling=2)",
    "TCN(3, dilations=[1, 2])",
    "WaveNet(3, dilations=[1, 2], outputs=2)",
    "MaskedMean()",
    "MaskedMax()",
    "LastStep()",
]
READERS = [
    "AttentionCell(GRUCell(4), output_units=3, input_feeding=True)",
    "AttentionCell(LSTMCell(4), query='after', score='multi_head', heads=2)",
]
X, TARGETS = (np.random.default_rng(0).normal(size=(3, 5, n)).astype("float32") for n in (2, 3))
MASK = np.array([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], "bool")

COMMON = """
import numpy as np, keras, keras_seq

def results(name, arguments, forced, x, targets, mask):
    layer = getattr(keras_seq, name)(4, return_sequences=True, return_state=True, return_internals=True, **arguments)
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    for w in layer.weights:
        if "float" in w.dtype:
            w.assign(0.5 * rng.normal(size=w.shape))
    found = layer(x, mask=mask, **({"targets": targets} if forced else {}))
    return [np.asarray(v) for v in keras.tree.flatten(found)]

def structure(expression, x, mask):
    # what it gives, and what its step form does, with a mask and in a stream
    layer = eval(expression, vars(keras_seq))
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    for w in layer.weights:
        if "float" in w.dtype:
            w.assign(0.5 * rng.normal(size=w.shape))
    found = keras.tree.flatten(layer(x, mask=mask))
    if not layer.not_stepwise:
        state = layer.initial_state(len(x))
        for t in range(x.shape[1]):
            y, state = layer.step(x[:, t], state, mask[:, t])
        found.append(y)
        if not getattr(layer, "return_state", False):
            stream = keras_seq.streaming(keras.Sequential([keras.Input((None, x.shape[-1])), layer]))
            state = stream.initial_state(len(x))
            for t in range(2):
                y, state = stream.step(x[:, t], state)
            found.append(y)
    return [np.asarray(v) for v in found]

def reader(expression, x, memory, mask):
    # all that it gives, from a memory under a mask that hides all of it in one row
    layer = keras_seq.RNN(eval(expression, vars(keras_seq)), return_sequences=True, return_internals=True)
    layer.build(x.shape, constants_shape=[memory.shape])
    rng = np.random.default_rng(1)
    for w in layer.weights:
        if "float" in w.dtype:
            w.assign(0.5 * rng.normal(size=w.shape))
    return [np.asarray(v) for v in keras.tree.flatten(layer(x, constants=[memory, mask]))]
"""

CODE = """
import sys
sys.modules["tensorflow"] = None  # an import of it fails
data = np.load(sys.argv[1])
assert keras_seq.engine.scan is None
for i, (name, arguments, forced) in enumerate(eval(sys.argv[2])):
    found = results(name, arguments, forced, data["x"], data["targets"], data["mask"])
    for j, value in enumerate(found):
        np.testing.assert_allclose(value, data[f"{i} {j}"], atol=1e-5, err_msg=f"{name} {arguments} {j}")
    print(name, len(found))

for i, expression in enumerate(eval(sys.argv[3])):
    found = structure(expression, data["x"], data["mask"])
    for j, value in enumerate(found):
        np.testing.assert_allclose(value, data[f"s{i} {j}"], atol=1e-5, err_msg=f"{expression} {j}")
    print(expression, len(found))

for i, expression in enumerate(eval(sys.argv[4])):
    found = reader(expression, data["x"], data["targets"], data["mask"])
    for j, value in enumerate(found):
        np.testing.assert_allclose(value, data[f"r{i} {j}"], atol=1e-5, err_msg=f"{expression} {j}")
    print(expression, len(found))

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x, inputs, vector = data["x"], keras.Input((5, 2)), keras.Input((3,))
cell = keras_seq.ConditionedCell(keras_seq.PeepholeLSTMCell(4, dropout=0.1, recurrent_dropout=0.1, zoneout=0.1))
hidden = keras_seq.RNN(cell, return_sequences=True)(inputs, constants=[vector])
hidden = keras_seq.Bidirectional(keras_seq.Stacked(keras_seq.GRU, [3, 3], dropout=0.1, return_sequences=True))(hidden)
hidden = keras_seq.TCN(3, dilations=[1], dropout=0.1, return_sequences=True)(hidden)
outputs = keras.layers.Dense(1)(keras_seq.Elman(4)(hidden))
model = keras.Model([inputs, vector], outputs)
model.compile("adam", "mse")
before = [np.array(w) for w in model.get_weights()]
model.fit([x, rng.normal(size=(3, 3))], np.ones((3, 1)), epochs=3, verbose=0)
for old, new in zip(before, model.trainable_variables):
    assert np.isfinite(new).all() and not np.array_equal(old, new), new.path
print("fitted on", keras.config.backend())
"""


def test_jax_is_served_by_the_loop_of_keras(tmp_path):
    """The same values there as from the engine, for outputs, states and internals; and it trains."""
    scope = {}
    exec(COMMON, scope)
    expected = {"x": X, "targets": TARGETS, "mask": MASK}
    counts = []
    for i, (name, arguments, forced) in enumerate(MEMORIES):
        found = scope["results"](name, arguments, forced, X, TARGETS, MASK)
        expected |= {f"{i} {j}": value for j, value in enumerate(found)}
        counts.append(f"{name} {len(found)}")
    for i, expression in enumerate(STRUCTURES):
        found = scope["structure"](expression, X, MASK)
        expected |= {f"s{i} {j}": value for j, value in enumerate(found)}
        counts.append(f"{expression} {len(found)}")
    for i, expression in enumerate(READERS):
        found = scope["reader"](expression, X, TARGETS, MASK)
        expected |= {f"r{i} {j}": value for j, value in enumerate(found)}
        counts.append(f"{expression} {len(found)}")
    np.savez(tmp_path / "expected.npz", **expected)
    root = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    code = [
        sys.executable,
        "-c",
        COMMON + CODE,
        str(tmp_path / "expected.npz"),
        *map(repr, (MEMORIES, STRUCTURES, READERS)),
    ]
    done = subprocess.run(code, capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == [*counts, "fitted on jax"], done.stderr[-3000:]
    assert keras_seq.engine.scan is not None


MODELS = """
import numpy as np, keras, keras_seq
from keras_seq.models import ImageCaptioner, LanguageModel, Seq2Seq, Vocabulary
words = Vocabulary.of(["ab ba"], split="characters")
tokens, ones = np.full((2, 4), 4, "int32"), np.ones(2, bool)
captioner, translator = ImageCaptioner(words, (12, 12, 3)), Seq2Seq(words, words)
model = LanguageModel(words, keras_seq.GRU(4, return_sequences=True), embedding_size=4)
for each, inputs in (
    (captioner, [np.zeros((2, 12, 12, 3), "uint8"), tokens]), (translator, [tokens, tokens]), (model, tokens)
):
    each.compile("sgd")
    losses = each.fit(inputs, tokens, epochs=2, verbose=0).history["loss"]
    print(type(each).__name__, "learns", bool(losses[1] < losses[0]))
for attempt in (
    lambda: model((tokens, ones)),
    lambda: model.streams("ab ba", rows=1, steps=2),
    lambda: translator.generate(["ab"]),
    lambda: translator.export("never"),
):
    try:
        attempt()
    except RuntimeError as error:
        print(error)
"""
LEARNING = ["ImageCaptioner", "Seq2Seq", "LanguageModel"]
TENSORFLOW_ONLY = [
    "LanguageModel on tokens with starts",
    "LanguageModel.streams",
    "Seq2Seq.generate",
    "Seq2Seq.export",
]


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_models_learn_and_say_what_runs_on_tensorflow_alone(backend):
    pytest.importorskip(backend)
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", MODELS], capture_output=True, text=True, env=environment, check=False)
    alone = f"TensorFlow only, expected Keras on the TensorFlow backend, got {backend!r}"
    expected = [*(f"{name} learns True" for name in LEARNING), *(f"{what}: {alone}" for what in TENSORFLOW_ONLY)]
    assert [line for line in expected if line not in done.stdout] == [], done.stderr[-2000:]


MADE = """
import numpy as np, keras, keras_seq

def made(expression):
    layer = eval(expression, vars(keras_seq))
    layer.build((None, None, 2))
    rng = np.random.default_rng(1)
    for w in layer.weights:
        if "float" in w.dtype:
            w.assign(0.5 * rng.normal(size=w.shape))
    return layer
"""
STABLEHLO = """
import sys
sys.modules["tensorflow"] = None
import jax
from jax import export

data = np.load(sys.argv[1])
b, t = export.symbolic_shape("b, t")

def written(function, *specs):
    return jax.jit(export.deserialize(bytearray(export.export(jax.jit(function))(*specs).serialize())).call)

for i, expression in enumerate(eval(sys.argv[2])):
    layer = made(expression)
    whole = written(layer, jax.ShapeDtypeStruct((b, t, 2), "float32"))
    now = [jax.ShapeDtypeStruct((b, *s.shape[1:]), s.dtype) for s in layer.initial_state(1)]
    one = written(layer.step, jax.ShapeDtypeStruct((b, 2), "float32"), now)
    for rows, steps in ((3, 5), (2, 4)):
        x, wanted = data["x"][:rows, :steps], data[f"{i} {rows}"]
        np.testing.assert_allclose(whole(x), wanted, atol=1e-5, err_msg=expression)
        state = layer.initial_state(rows)
        for n in range(steps):
            y, state = one(x[:, n], state)
        np.testing.assert_allclose(y, wanted[:, -1], atol=1e-5, err_msg=expression)
    print(expression)
"""


def test_stablehlo_of_layers_and_of_their_steps(tmp_path):
    """Written by JAX for any number of rows and steps, it gives read back what the engine gives."""
    pytest.importorskip("jax")
    scope, expected = {}, {"x": X}
    exec(MADE, scope)
    expressions = [
        "LSTM(4, return_sequences=True)",
        "GRU(4, reset_after=False, return_sequences=True)",
        "TCN(3, dilations=[1, 2], return_sequences=True)",
        "Stacked([PeepholeLSTM(3, return_sequences=True), MinGRU(3, return_sequences=True)], skips='residual')",
    ]
    for i, expression in enumerate(expressions):
        layer = scope["made"](expression)
        expected |= {f"{i} {rows}": layer(X[:rows, :steps]).numpy() for rows, steps in ((3, 5), (2, 4))}
    np.savez(tmp_path / "expected.npz", **expected)
    root = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    code = [sys.executable, "-c", MADE + STABLEHLO, str(tmp_path / "expected.npz"), repr(expressions)]
    done = subprocess.run(code, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.splitlines() == expressions, done.stderr[-3000:]


ONE_TOKEN = """
import sys
import numpy as np, keras, keras_seq
import jax
from jax import export
from token_models import SHAPE, made

data = np.load(sys.argv[1])
b, s, t = export.symbolic_shape("b, s, t")
pictures, source, target, token = (
    jax.ShapeDtypeStruct(shape, dtype)
    for shape, dtype in (((b, *SHAPE), "uint8"), ((b, s), "int32"), ((b, t), "int32"), ((b,), "int32"))
)

def written(function, *specs):
    return jax.jit(export.deserialize(bytearray(export.export(jax.jit(function))(*specs).serialize())).call)

for kind, read in (("Seq2Seq", source), ("ImageCaptioner", pictures)):
    model = made(kind, 0.1)

    def begin(x):
        return keras.tree.flatten(model.begin(x, x.shape[0]))

    nests = jax.eval_shape(lambda x: model.begin(x, x.shape[0]), read)

    def step(tokens, *carried):
        logits, state = model.next_token(tokens, *keras.tree.pack_sequence_as(nests, carried))
        return [logits, *keras.tree.flatten(state)]

    whole, first = written(lambda x, y: model((x, y)), read, target), written(begin, read)
    one = written(step, token, *keras.tree.flatten(nests))
    for rows, steps in ((3, 5), (2, 3))[: 2 if kind == "Seq2Seq" else 1]:
        x, tokens = data[kind][:rows], data["tokens"][:rows, :steps]
        wanted = data[f"{kind} {rows}"]
        np.testing.assert_allclose(whole(x, tokens), wanted, atol=1e-5, err_msg=kind)
        state = first(x)
        count = len(keras.tree.flatten(nests[0]))
        state, constants = state[:count], state[count:]
        for n in range(steps):
            logits, *state = one(tokens[:, n], *state, *constants)
            np.testing.assert_allclose(logits, wanted[:, n], atol=1e-5, err_msg=kind)
    print(kind)
"""


def test_stablehlo_of_models_and_of_their_steps(tmp_path):
    """The forward pass, `begin` and `step`, for any number of rows and tokens."""
    pytest.importorskip("jax")
    kinds = ["Seq2Seq", "ImageCaptioner"]
    given = {
        "Seq2Seq": token_models.ids(),
        "ImageCaptioner": token_models.pictures(),
        "tokens": token_models.ids(3, 6)[:, :5],
    }
    expected = {
        f"{kind} {rows}": token_models.made(kind, 0.1)((given[kind][:rows], given["tokens"][:rows, :steps])).numpy()
        for kind in kinds
        for rows, steps in ((3, 5), (2, 3))
    }
    np.savez(tmp_path / "expected.npz", **given, **expected)
    root = pathlib.Path(__file__).parents[1]
    path = os.pathsep.join([str(root), str(root / "tests" / "models")])
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    code = [sys.executable, "-c", ONE_TOKEN, str(tmp_path / "expected.npz")]
    done = subprocess.run(code, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.splitlines() == kinds, done.stderr[-3000:]


SUMS = """
import sys
import numpy as np, keras, keras_seq
from keras_seq import decoding

def sums(x, mask, tags):
    # loss and slopes of both sums over all ways, and all else that a conditional random field is asked for
    layer = keras_seq.CRF(["O", "B-a", "I-a"], "BIO")
    layer.build(x.shape)
    for w in layer.weights:
        w.assign(np.random.default_rng(1).normal(size=w.shape))
    potentials = np.asarray(keras.ops.stop_gradient(layer(x, mask=mask)))
    found = [potentials, decoding.crf_marginals(potentials), *decoding.viterbi(potentials), *decoding.viterbi(potentials, 3)]
    losses = [
        lambda p: keras.ops.sum(decoding.crf_loss(tags, p) * keras.ops.convert_to_tensor([1.0, 2.0, 3.0])),
        lambda p: keras.ops.sum(decoding.ctc_loss(np.array([[1, 2], [0, 0], [2, 0]]), p, mask=mask)),
    ]
    for loss, given in zip(losses, (potentials, x)):
        found += [loss(keras.ops.convert_to_tensor(given)), slopes(loss, given)]
    return [keras.ops.convert_to_numpy(y) for y in found]

def slopes(loss, x):
    if keras.config.backend() == "jax":
        import jax
        return jax.grad(loss)(keras.ops.convert_to_tensor(x))
    if keras.config.backend() == "torch":
        import torch
        x = torch.tensor(x, requires_grad=True)
        loss(x).backward()
        return x.grad
    import tensorflow as tf
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = loss(x)
    return tape.gradient(total, x)
"""
COMPARED = """
data = np.load(sys.argv[1])
for j, value in enumerate(sums(data["x"], data["mask"], data["tags"])):
    np.testing.assert_allclose(value, data[str(j)], atol=1e-5, err_msg=str(j))
print("the same on", keras.config.backend())
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_sums_over_all_ways_and_their_slopes(backend, tmp_path):
    pytest.importorskip(backend)
    x = np.random.default_rng(0).normal(size=(3, 5, 3)).astype("float32")
    tags = np.array([[1, 2, 0, 0, 1], [0] * 5, [0, 1, 2, 0, 0]])
    exec(SUMS, scope := {})
    expected = {str(j): value for j, value in enumerate(scope["sums"](x, MASK, tags))}
    np.savez(tmp_path / "expected.npz", x=x, mask=MASK, tags=tags, **expected)
    root = str(pathlib.Path(__file__).parents[1])
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    code = [sys.executable, "-c", SUMS + COMPARED, str(tmp_path / "expected.npz")]
    done = subprocess.run(code, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.splitlines()[-1:] == [f"the same on {backend}"], done.stderr[-3000:]
