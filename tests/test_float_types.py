"""Float types other than float32: every public class under each, by the global setting and by argument.

What a layer says of its results, by `compute_output_spec`, is what they are; values are those of float32, near enough.
"""

import ast
import contextlib
import inspect
import itertools
import pathlib

import conformance
import keras
import numpy as np
import pytest
import structures
import tensorflow as tf
from cases import CASES, QUICK, B, D, T, U
from conformance import MASK, randomised
from structures import STRUCTURES

import keras_seq
from keras_seq import AttentionCell, Bidirectional, ConditionedCell, GRUCell, LSTMCell, Stacked, decoding
from keras_seq.metrics import BitsPerCharacter, Perplexity
from keras_seq.models import ImageCaptioner, InverseSigmoidDecay, LanguageModel, Seq2Seq, Vocabulary
from keras_seq.models.training import TokenCrossEntropy

pytestmark = pytest.mark.filterwarnings("ignore:.*receptive field")
# what `keras.config.set_floatx` and `keras.config.set_dtype_policy` say; in the "late" ones layers stay with float32
SETTINGS = {
    "float32": ("float32", "float32"),
    "float64": ("float64", "float64"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "late float64": ("float64", "float32"),
    "late bfloat16": ("bfloat16", "float32"),
    "mixed_float16": ("float32", "mixed_float16"),
    "mixed_bfloat16": ("float32", "mixed_bfloat16"),
}
OTHERS = [name for name in SETTINGS if name != "float32"]
# a policy and another within it
PAIRS = [
    ("float32", "float64"),
    ("float32", "bfloat16"),
    ("float32", "mixed_bfloat16"),
    ("float64", "mixed_float16"),
    ("bfloat16", "mixed_float16"),
    ("mixed_float16", "float32"),
    ("mixed_bfloat16", "float64"),
]
ERRORS = {
    "float64": 1e-4,
    "late float64": 1e-6,
    "late bfloat16": 1e-6,
    "mixed_float16": 0.02,
    "mixed_bfloat16": 0.1,
    "bfloat16": 0.2,
}


@contextlib.contextmanager
def setting(name):
    floatx, policy = SETTINGS[name]
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


@pytest.fixture
def globally(request):
    """The setting that the test is given, for as long as it runs."""
    with setting(request.param):
        yield request.param


def under(*names):
    return pytest.mark.parametrize("globally", names, indirect=True)


def described(results):
    return [(tuple(r.shape), keras.backend.standardize_dtype(r.dtype)) for r in keras.tree.flatten(results)]


def in_float64(results):
    return [np.asarray(tf.cast(r, "float64")) for r in keras.tree.flatten(results)]


def assert_finite(results):
    assert all(np.all(np.isfinite(r)) for r in in_float64(results))


def assert_near(found, expected, tolerance):
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        error = np.max(np.abs(a - b), initial=0.0) / max(1.0, np.max(np.abs(b), initial=0.0))
        assert error <= tolerance, f"result {i} differs by {error}"


# -- in the source -------------------------------------------------------------------------------------------------------

FOLLOWS = {"arange", "empty", "eye", "full", "identity", "linspace", "normal", "ones", "tri", "uniform", "zeros"}


def test_no_type_is_left_to_the_global_setting():
    """What Keras makes of numbers alone follows `floatx`, integers too: under bfloat16 they are int16."""
    left, found = [], 0
    for path in pathlib.Path(keras_seq.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            made = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FOLLOWS
            if made and ast.unparse(node.func.value) in ("ops", "keras.ops", "keras.random"):
                found += 1
                if not any(k.arg == "dtype" for k in node.keywords):
                    left.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert found > 40
    assert not left


# -- layers --------------------------------------------------------------------------------------------------------------


def check_layer(layer, given, steps=True):
    """Its results in float64: of the types and shapes that it says, their gradients finite, its steps likewise."""
    spec = layer.compute_output_spec(**keras.tree.map_structure(lambda v: keras.KerasTensor(v.shape, v.dtype), given))
    with tf.GradientTape() as tape:
        found = layer(**given)
        total = sum(tf.reduce_sum(tf.cast(f, "float64")) for f in keras.tree.flatten(found))
    slopes = tape.gradient(total, [w.value for w in layer.trainable_variables])
    slopes = [(w, s) for w, s in zip(layer.trainable_variables, slopes, strict=True) if s is not None]
    assert slopes or not layer.trainable_variables
    assert all(s.dtype == w.value.dtype for w, s in slopes)
    assert_finite([found, *(s for _, s in slopes)])
    assert described(spec) == described(found)
    if steps and not layer.not_stepwise:
        check_steps(layer, given)
    return in_float64(found)


def check_steps(layer, given):
    """A step gives a state like the one it is given; one of another type is taken in the layer's own."""
    further = {name: given[name] for name in ("constants",) if name in given}
    if "targets" in given:
        further["targets"] = given["targets"][:, 0]
    x, state = given["sequences"][:, 0], layer.initial_state(B)
    short = [tf.cast(s, "float16") if s.dtype.is_floating else s for s in state]
    for old in (state, short):
        y, new = layer.step(x, old, given["mask"][:, 0], **further)
        assert described(new) == described(state)
    whole = keras.tree.flatten(layer(**given))[0]
    assert y.dtype == whole.dtype


def of_case(case, layer):
    data = conformance.data(case, layer)
    given = {"sequences": data.x, "mask": data.mask, "initial_state": list(data.states)}
    if data.constants:
        given["constants"] = list(data.constants)
    if data.targets is not None:
        given["targets"] = data.targets
    return given


@pytest.mark.deep
@pytest.mark.parametrize(
    ("case", "globally"),
    [
        pytest.param(case, name, id=f"{case.name}-{name}")
        for case, name in itertools.product(CASES, OTHERS)
        if case in QUICK or "late" not in name
    ],
    indirect=["globally"],
)
def test_memories(case, globally):
    def run():
        layer = case(None, return_sequences=True, return_state=True)
        return check_layer(layer, of_case(case, layer))

    found = run()
    with setting("float32"):
        assert_near(found, run(), ERRORS[globally])


@pytest.mark.deep
@under(*OTHERS)
@pytest.mark.parametrize("structure", STRUCTURES, ids=[s.name for s in STRUCTURES])
def test_structures(structure, globally):
    def run():
        layer = structure(None)
        x, mask = structures.data()
        return check_layer(layer, {"sequences": tf.constant(x, layer.compute_dtype), "mask": tf.constant(mask)})

    found = run()
    with setting("float32"):
        assert_near(found, run(), ERRORS[globally])


def test_every_public_layer_and_cell_is_in_a_row():
    covered = {type(s.make("float32")).__name__ for s in STRUCTURES} | {c.layer for c in CASES}
    cells = {type(c.cell("float32")).__name__ for c in CASES if c.cell}
    cells |= {f"{name}Cell" for name in covered}  # a named layer is its cell's
    public = {n for n in keras_seq.__all__ if inspect.isclass(getattr(keras_seq, n))}
    public = {n for n in public if issubclass(getattr(keras_seq, n), keras.layers.Layer)}
    bases = {"Cell", "GatedCell", "ReadoutCell", "FeedbackCell"}
    elsewhere = {
        "CRF",
        "GraphRecurrent",
        "RecursiveNN",
        "TreeLSTM",
    }  # tests/layers/test_crf_layer.py, .._graphs.py, .._trees.py
    assert public - covered - cells - bases - elsewhere == {"StepForm"}, "StepForm is in the row of streams"


# -- a policy within another ----------------------------------------------------------------------------------------------

FLAGS = {"return_sequences": True, "return_state": True}


def lstm(dtype, **flags):
    return keras_seq.LSTM(U, dtype=dtype, **{**FLAGS, **flags})


def attention(inner, outer, **arguments):
    return AttentionCell(LSTMCell(U, dtype=inner), dtype=outer, **arguments)


WITHIN = {
    "RNN": lambda o, i: keras_seq.RNN(LSTMCell(U, dtype=i), dtype=o, **FLAGS),
    "RNN, the last output": lambda o, i: keras_seq.RNN(GRUCell(U, dtype=i), dtype=o),
    "RNN with internals": lambda o, i: keras_seq.RNN(GRUCell(U, dtype=i), dtype=o, return_internals=True, **FLAGS),
    "RNN unrolled": lambda o, i: keras_seq.RNN(LSTMCell(U, dtype=i), dtype=o, unroll=True, **FLAGS),
    "RNN in chunks": lambda o, i: keras_seq.RNN(LSTMCell(U, dtype=i), dtype=o, checkpoint=True, **FLAGS),
    "RNN with a readout": lambda o, i: keras_seq.RNN(keras_seq.ElmanCell(U, outputs=2, dtype=i), dtype=o, **FLAGS),
    "RNN of a cell of Keras": lambda o, i: keras_seq.RNN(
        keras.layers.GRUCell(U, recurrent_initializer="glorot_uniform", dtype=i), dtype=o, **FLAGS
    ),
    "conditioned": lambda o, i: keras_seq.RNN(
        ConditionedCell(GRUCell(U, learn_initial_state=True, dtype=i), dtype=o), dtype=o, **FLAGS
    ),
    "attention before": lambda o, i: keras_seq.RNN(
        attention(i, o, output_units=3, input_feeding=True), dtype=o, **FLAGS
    ),
    "attention after": lambda o, i: keras_seq.RNN(
        attention(i, o, query="after", score="multi_head", heads=2), dtype=i, **FLAGS
    ),
    "NARX": lambda o, i: keras_seq.NARX(cell=keras_seq.NARXCell(U, 2, dtype=i), closed=True, dtype=o, **FLAGS),
    "Stacked": lambda o, i: Stacked([lstm(i), lstm(o)], skips="residual", return_state=True, dtype=o),
    "Stacked, dense": lambda o, i: Stacked(
        [lstm(i), keras_seq.TCN(2, dilations=[1], return_sequences=True, dtype=i), keras_seq.GRU(U, dtype=o)],
        skips="dense",
        return_state=True,
        dtype=o,
    ),
    "Stacked on a TDNN": lambda o, i: Stacked(
        [keras_seq.TDNN(3, delays=2, dtype=o), keras_seq.GRU(U, dtype=i)], dtype=o
    ),
    "Bidirectional, concat": lambda o, i: Bidirectional(lstm(i), dtype=o),
    "Bidirectional, mul": lambda o, i: Bidirectional(lstm(i), merge_mode="mul", dtype=o),
    "Bidirectional, none": lambda o, i: Bidirectional(lstm(i), merge_mode=None, dtype=o),
    "Bidirectional, a layer": lambda o, i: Bidirectional(lstm(i), merge_mode=keras.layers.Add(dtype=i), dtype=o),
    "Bidirectional of two": lambda o, i: Bidirectional(
        keras_seq.LSTM(U, dtype=i), "sum", keras_seq.GRU(U, dtype=o), dtype=o
    ),
    "Bidirectional of a stack": lambda o, i: Bidirectional(
        Stacked([lstm(i), keras_seq.GRU(U, dtype=o)], return_state=True, dtype=i), dtype=o
    ),
}


def check_within(kind, outer, inner):
    layer, rng = WITHIN[kind](outer, inner), np.random.default_rng(0)
    memory = tf.constant(rng.normal(size=(B, T, D)), "float32")
    given = {"sequences": tf.constant(rng.normal(size=(B, T, D)), "float32"), "mask": tf.constant(MASK)}
    if kind == "conditioned":
        given["constants"] = [memory[:, 0]]
    if kind.startswith("attention"):
        given["constants"] = [memory, tf.constant(MASK[::-1].copy())]
    shapes = [c.shape for c in given.get("constants", ())]
    layer.build((B, T, D), **({"constants_shape": shapes} if shapes else {}))
    randomised(layer)
    found = check_layer(layer, given)
    wanted = layer.compute_dtype
    outputs = keras.tree.flatten(layer(**given))
    assert outputs[0].dtype == wanted, "an output is of the type of the outermost layer"
    return found


@pytest.mark.deep
@pytest.mark.parametrize("kind", WITHIN)
def test_a_policy_within_another(kind):
    expected = check_within(kind, "float32", "float32")
    for outer, inner in PAIRS:
        assert_near(check_within(kind, outer, inner), expected, 0.2)


@pytest.mark.parametrize(
    ("kind", "outer", "inner"),
    [
        ("RNN", "float64", "mixed_float16"),
        ("attention before", "float32", "bfloat16"),
        ("Stacked", "mixed_float16", "float32"),
        ("Bidirectional of two", "float32", "mixed_bfloat16"),
    ],
)
def test_some_policies_within_others(kind, outer, inner):
    assert_near(check_within(kind, outer, inner), check_within(kind, "float32", "float32"), 0.1)


# -- what is drawn, summed and counted -------------------------------------------------------------------------------------


ORTHOGONAL = {
    "LSTM": lambda: keras_seq.LSTM(4, full_gate_recurrence=True, projection=3),
    "TDNN": lambda: keras_seq.TDNN(3, delays=3, kernel_initializer="orthogonal", weight_normalization=True),
    "TCN": lambda: keras_seq.TCN(4, dilations=[1], kernel_initializer="orthogonal"),
}


@pytest.mark.parametrize("kind", ORTHOGONAL)
def test_orthogonal_weights_of_sixteen_bits(kind):
    """They are the rounded ones of float32, and what is said of how they were drawn is the same."""
    found = []
    for name in ("bfloat16", "float32"):
        with setting(name):
            keras.utils.set_random_seed(0)
            found.append(ORTHOGONAL[kind]())
            found[-1].build((None, None, D))
    layer, twin = found
    assert {w.dtype for w in layer.weights if "seed" not in w.path} == {"bfloat16"}
    for ours, exact in zip(layer.weights, twin.weights, strict=True):
        np.testing.assert_array_equal(*in_float64([ours.value, tf.cast(exact.value, ours.dtype)]))
    configs = [{k: v for k, v in x.get_config().items() if k not in ("name", "dtype")} for x in (layer, twin)]
    assert configs[0] == configs[1]


def test_weight_normalisation_of_small_kernels_in_float16():
    """Squares that float16 does not hold are taken in float32."""
    layers = [keras_seq.TDNN(4, delays=2, weight_normalization=True, dtype=d) for d in ("mixed_float16", "float32")]
    x = np.random.default_rng(0).normal(size=(2, 5, D)).astype("float32")
    for layer in layers:
        layer(x)
        layer.set_weights([1e-4 * randomised(layer).get_weights()[0], np.ones(4), np.zeros(4)])
    found = [layer(x) for layer in layers]
    assert np.max(np.abs(found[1])) > 0.1
    assert_near(in_float64(found[:1]), in_float64(found[1:]), 2e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "mixed_float16"])
def test_mean_of_many_steps(dtype):
    """Sums and counts go on beyond 256, at once and step by step."""
    layer, x = keras_seq.MaskedMean(dtype=dtype), tf.ones((1, 1000, 1))
    x = tf.concat([x, 2 * x], 1)
    assert float(tf.cast(layer(x), "float32")[0, 0]) == 1.5
    state = layer.initial_state(1)
    for t in range(0, 2000, 2):
        y, state = layer.step(x[:, t], state)
    assert float(tf.cast(y, "float32")[0, 0]) == 1.5


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_classes_of_sound_in_sixteen_bits(dtype):
    """Those of the same numbers in float64."""
    signal = tf.cast(np.linspace(-1, 1, 4001), dtype)
    found = keras_seq.mu_law_encode(signal)
    np.testing.assert_array_equal(found, keras_seq.mu_law_encode(np.asarray(tf.cast(signal, "float64"))))


@pytest.mark.parametrize("name", ["bfloat16", "float64"])
def test_likelihoods_of_many_tokens(name):
    """Numbers of tokens above 256 stay what they are, and so do sums of as many terms."""
    with setting(name):
        check_likelihoods()


def check_likelihoods():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(4, 300, 400)), rng.integers(1, 400, size=(4, 300))
    targets[0, 100:] = 0
    shares = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    nats = -np.take_along_axis(shares, targets[..., None], axis=-1)[..., 0][targets > 0]
    expected = np.mean(nats)
    for metric in (Perplexity(), BitsPerCharacter()):
        metric.update_state(targets, tf.constant(logits, "float32"))
        wanted = np.exp(expected) if isinstance(metric, Perplexity) else expected / np.log(2)
        assert float(metric.result()) == pytest.approx(wanted, rel=1e-4)
    loss = TokenCrossEntropy(from_logits=True, ignore_class=0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    for each in (loss, again):
        assert float(each(targets, tf.constant(logits, "float32"))) == pytest.approx(expected, rel=1e-4)


# -- decoding --------------------------------------------------------------------------------------------------------------

TABLE = np.log([[0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.5, 0.2], [0.3, 0.3, 0.2, 0.2], [0.25] * 4])


UNCHANGED = np.where(np.eye(4), 0.0, -np.inf)


def decoded(dtype):
    """What each decoder makes of logits of a type, `{name: results}`."""
    table, state, prompt = tf.constant(TABLE, dtype), tf.zeros((2, 3), dtype), tf.constant([[1, 0], [1, 2]])

    def step(tokens, state):
        return tf.gather(table, tokens), state

    given = {"end": 3, "max_length": 4, "allowed": np.array([False, True, True, True])}
    limits = {"max_lengths": tf.constant([2, 4]), "min_length": 2}
    covered = {"coverage_penalty": 0.1, "coverage": lambda state: state + 0.5}
    beam = {"width": 3, "n_best": 2, "length_penalty": 0.5, "no_repeat": 2, **covered}
    rng = np.random.default_rng(0)
    logits, mask = tf.constant(rng.normal(size=(2, 6, 4)), dtype), tf.constant(rng.random((2, 6)) < 0.8)
    labels = tf.constant([[1, 2, 0], [3, 3, 1]])
    potentials = tf.where(
        mask[..., None, None], logits[..., None] - logits[..., None, :], tf.constant(UNCHANGED, dtype)
    )
    tags = tf.constant([[1, 2, 0, 0, 3, 1]] * 2)
    return {
        "greedy": lambda: decoding.greedy(step, state, prompt, **given, **limits),
        "sample": lambda: decoding.sample(step, state, prompt, seed=1, **given),
        "sample of few": lambda: decoding.sample(step, state, prompt, seed=1, top_k=2, top_p=0.8, **given),
        "beam_search": lambda: decoding.beam_search(step, state, prompt, **given, **limits, **beam),
        "feed_back": lambda: decoding.feed_back(lambda x, s: (x / 2, s), tf.ones((2, 3), dtype), state, 4),
        "ctc_loss": lambda: decoding.ctc_loss(labels, logits, mask),
        "CTCLoss": lambda: decoding.CTCLoss()(labels, logits),
        "random field": lambda: [
            decoding.CRFLoss()(tags, potentials),
            decoding.crf_marginals(potentials),
            *decoding.viterbi(potentials, n_best=2),
        ],
        "ctc_greedy": lambda: decoding.ctc_greedy(logits, mask),
        "ctc_align": lambda: decoding.ctc_align(logits, labels, mask),
        "ctc_beam_search": lambda: decoding.ctc_beam_search(logits, 3, mask=mask),
        "ctc_beam_search with a model": lambda: decoding.ctc_beam_search(
            logits, 3, mask=mask, language_model=step, state=state, alpha=0.5, beta=0.1
        ),
    }


def check_decoded(name, dtype, compiled):
    def run(dtype):
        function = decoded(dtype)[name]
        return tf.function(function, jit_compile=True)() if compiled else function()

    found = run(dtype)
    floating = {r.dtype for r in keras.tree.flatten(found) if r.dtype.is_floating}
    if name != "feed_back":
        assert floating <= {tf.float32, tf.float64}, "scores are of float32 at least"
    assert {r.dtype for r in keras.tree.flatten(found) if not r.dtype.is_floating} <= {tf.int32}
    with setting("float32"):
        expected = run("float32")
    if name.startswith("sample") and keras.config.floatx() == "float64":  # other random numbers
        assert described(found) == described(expected)
    else:
        assert_near(in_float64(found), in_float64(expected), 0.02)


@under("float64", "bfloat16", "late bfloat16")
@pytest.mark.parametrize("name", decoded("float32"))
def test_decoding(name, globally):
    check_decoded(name, keras.config.floatx(), False)


@pytest.mark.deep
@under(*SETTINGS)
@pytest.mark.parametrize("name", decoded("float32"))
def test_decoding_of_logits_of_any_type(name, globally):
    for dtype, compiled in itertools.product(["float32", "float64", "float16", "bfloat16"], [False, True]):
        check_decoded(name, dtype, compiled)


# -- models ----------------------------------------------------------------------------------------------------------------

SOURCES, TARGETS = ["abca", "d", "bdcab"], ["WXY", "ZZXYW", "Y"]
TEXT = "to be or not to be, that is the question. " * 3
SENTENCES = ["a red square", "a blue circle", "a blue square"]


def seq2seq(dtype, part):
    source, target = Vocabulary(list("abcd"), "characters"), Vocabulary(list("WXYZ"), "characters")
    cell = AttentionCell(GRUCell(5, dtype=part), output_units=6, dtype=part)
    model = Seq2Seq(
        source,
        target,
        encoder=Stacked(keras_seq.GRU, [4, 3], return_sequences=True, dtype=part),
        decoder=keras_seq.RNN(cell, return_sequences=True, dtype=part),
        embedding_size=6,
        dropout=0.1,
        teacher_forcing=InverseSigmoidDecay(10.0),
        max_length=4,
        pad_to=8,
        dtype=dtype,
    )
    return model, *model.example(SOURCES, TARGETS)


def seq2seq_by_default(dtype, part):
    source, target = Vocabulary(list("abcd"), "characters"), Vocabulary(list("WXYZ"), "characters")
    model = Seq2Seq(source, target, embedding_size=6, teacher_forcing=0.5, max_length=4, dtype=dtype)
    return model, *model.example(SOURCES, TARGETS)


def language_model(dtype, part):
    memory = [
        keras_seq.TCN(4, kernel_size=2, dilations=[1, 2], return_sequences=True, dtype=part),
        keras_seq.LSTM(4, return_sequences=True, learn_initial_state=True, dtype=part),
        keras_seq.TDNN(4, delays=2, dtype=part),
    ]
    memory = Stacked(memory, skips="dense", dtype=part)
    vocabulary = Vocabulary.of([TEXT], split="characters")
    model = LanguageModel(vocabulary, memory, embedding_size=5, dropout=0.1, max_length=6, seed=1, dtype=dtype)
    tokens = vocabulary.encode(["to be", "that is", "question"])
    return model, tokens[:, :-1], tokens[:, 1:]


def tied_language_model(dtype, part):
    cell = keras.layers.GRUCell(5, recurrent_initializer="glorot_uniform", dtype=part)
    memory = keras_seq.RNN(cell, return_sequences=True, dtype=part)
    vocabulary = Vocabulary.of([TEXT], split="characters")
    model = LanguageModel(vocabulary, memory, embedding_size=5, tied=True, max_length=6, seed=1, dtype=dtype)
    tokens = vocabulary.encode(["to be", "that is", "question"])
    return model, tokens[:, :-1], tokens[:, 1:]


def captioner(features_as, **arguments):
    def make(dtype, part):
        vocabulary = Vocabulary.of(SENTENCES)
        model = ImageCaptioner(
            vocabulary,
            (12, 12, 3),
            cell=LSTMCell(6, dtype=part),
            features_as=features_as,
            embedding_size=5,
            max_length=4,
            dropout=0.1,
            dtype=dtype,
            **arguments,
        )
        pictures = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3)).astype("uint8")
        tokens = vocabulary.encode(SENTENCES)
        return model, (pictures, tokens[:, :-1]), tokens[:, 1:]

    return make


MODELS = {
    "Seq2Seq": seq2seq,
    "Seq2Seq by default": seq2seq_by_default,
    "LanguageModel": language_model,
    "LanguageModel, tied": tied_language_model,
    "captioner, attention": captioner("attention", attention_penalty=0.1),
    "captioner, each step": captioner("each_step"),
}


def check_life(kind, folder, dtype=None, part=None):
    """Trained for a step, written from by every decoder, aligned, streamed, saved and loaded, exported."""
    model, inputs, targets = MODELS[kind](dtype, dtype if part is None else part)
    spec = model.compute_output_spec(
        keras.tree.map_structure(lambda v: keras.KerasTensor(v.shape, keras.backend.standardize_dtype(v.dtype)), inputs)
    )
    logits = model(inputs)
    assert described(spec) == described(logits)
    assert logits.dtype == model.compute_dtype
    model.compile("adam", jit_compile=kind.startswith("captioner"))
    assert_finite([tf.cast(v, "float64") for v in model.fit(inputs, targets, verbose=0).history["loss"]])
    assert_finite([w.value for w in model.trainable_variables])
    write(model, inputs)
    path = folder / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert [w.dtype for w in loaded.weights] == [w.dtype for w in model.weights]
    np.testing.assert_array_equal(*in_float64([loaded(inputs), model(inputs)]))
    assert np.isfinite(float(loaded.evaluate(inputs, targets, verbose=0)))
    export(model, inputs, str(folder / "exported"))


def write(model, inputs):
    """By every decoder; sampled and greedy ones in a stream too."""
    texts = isinstance(model, LanguageModel)
    source, prompt = (None, model.vocabulary.encode(["to", "b"], end=False)) if texts else (inputs[0], None)
    beam = {"width": 3, "n_best": 2, "length_penalty": 0.5}
    if isinstance(model, Seq2Seq):
        beam["coverage_penalty"] = 0.2
    for decoder, options in {
        "greedy": {},
        "sample": {"temperature": 0.7, "top_p": 0.9, "seed": 1},
        "beam": beam,
    }.items():
        found = model.generate_tokens(source, prompt, decoder, **options)
        assert described(found)[0][1] == "int32"
    if texts:
        assert len(model.generate(["to", "b"], seed=1)) == 2
        assert isinstance("".join(model.stream("to", max_length=5, seed=1)), str)
        streams = model.streams(TEXT, rows=2, steps=20)
        assert_finite([tf.cast(v, "float64") for v in model.fit(streams, shuffle=False, verbose=0).history["loss"]])
    elif isinstance(model, Seq2Seq):
        assert len(model.generate(SOURCES)) == 3
        np.testing.assert_allclose(np.sum(model.alignment(SOURCES, TARGETS), axis=-1), 1.0, atol=0.02)
    else:
        assert len(model.generate(inputs[0])) == 3
        if model.attends:
            weights = np.asarray(model.alignment(inputs[0], SENTENCES), "float64")
            np.testing.assert_allclose(np.sum(weights, axis=(2, 3)), 1.0, atol=0.02)


def export(model, inputs, folder):
    """What it writes from its folder is what it writes itself."""
    if isinstance(model, LanguageModel):
        model.export(folder, decoder="greedy", verbose=False)
        loaded = tf.saved_model.load(folder)
        assert loaded.texts(tf.constant(["to"]))[0].numpy().decode() == model.generate(["to"], decoder="greedy")[0]
        loaded.step(tf.constant([4, 5]), *loaded.initial_state(tf.constant(2)))
        return
    model.export(folder, verbose=False)
    loaded = tf.saved_model.load(folder)
    np.testing.assert_array_equal(loaded.serve(tf.constant(inputs[0])), model.generate_tokens(inputs[0]))


@pytest.mark.deep
@under("float64", "late float64", "bfloat16", "mixed_float16", "mixed_bfloat16")
@pytest.mark.parametrize("kind", ["Seq2Seq", "LanguageModel", "captioner, attention"])
def test_life_of_models(kind, globally, tmp_path):
    check_life(kind, tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("dtype", "part"),
    [
        ("bfloat16", "bfloat16"),
        ("mixed_float16", "mixed_float16"),
        ("mixed_bfloat16", "float32"),
        ("float32", "mixed_float16"),
    ],
)
@pytest.mark.parametrize("kind", ["Seq2Seq by default", "LanguageModel, tied", "captioner, each step"])
def test_life_of_models_by_argument(kind, dtype, part, tmp_path):
    check_life(kind, tmp_path, dtype, part)


@pytest.mark.parametrize("kind", ["Seq2Seq by default", "LanguageModel", "captioner, attention"])
def test_the_type_of_a_model_is_that_of_its_parts(kind):
    """One step of each decoder in short types; every part that the model makes has its policy, a loaded one too."""
    model, inputs, _ = MODELS[kind]("mixed_float16", "mixed_float16")
    again = type(model).from_config(model.get_config())
    for each in (model, again):
        parts = [
            layer for layer in each._flatten_layers() if not isinstance(layer, (Vocabulary, keras.layers.StringLookup))
        ]
        parts = [p for p in parts if not isinstance(p, (keras.Model, keras.layers.InputLayer))]
        policies = {p.name: p.dtype_policy.name for p in parts}
        assert set(policies.values()) == {"mixed_float16"}, policies
    assert model(inputs).dtype == tf.float16
    write_one = {"max_length": 1}
    texts = isinstance(model, LanguageModel)
    source, prompt = (None, model.vocabulary.encode([""], end=False)) if texts else (inputs[0], None)
    for decoder in ("greedy", "sample", "beam"):
        model.generate_tokens(source, prompt, decoder, **write_one)


@pytest.mark.deep
@under(*OTHERS)
def test_streams(globally, tmp_path):
    """A whole model step by step, saved for service."""
    model = keras.Sequential(
        [
            keras.Input((None, D)),
            keras_seq.TCN(4, dilations=[1, 2], return_sequences=True),
            Stacked(keras_seq.LSTM, [4, 4], skips="residual", return_sequences=True),
            keras_seq.MaskedMean(),
        ]
    )
    stream, x = keras_seq.streaming(model), np.random.default_rng(0).normal(size=(2, 4, D)).astype("float32")
    state = stream.initial_state(2)
    kinds = described(state)
    for t in range(4):
        y, state = stream.step(tf.constant(x[:, t], keras.config.floatx()), state)
        assert described(state) == kinds
    whole = model(tf.constant(x, keras.config.floatx()))
    assert y.dtype == whole.dtype
    assert_near(in_float64([y]), in_float64([whole]), 0.02)
    stream.export(str(tmp_path / "stream"))
    loaded = tf.saved_model.load(str(tmp_path / "stream"))
    assert described(loaded.initial_state(tf.constant(2))) == kinds
