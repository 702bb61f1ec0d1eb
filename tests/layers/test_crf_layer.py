"""The layer of a conditional random field where users have it: in `fit`, under masks, saved, exported, in other types."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.decoding import CRFLoss, ViterbiTags, crf_loss, viterbi
from keras_seq.metrics import SpanScores

TAGS = ["O", "B-a", "I-a"]


def sentences(seed, rows=48, length=9):
    """Words of which 1 begins a span, 2 is in one after 1 or 2 and outside after others: only the word before says which."""
    rng = np.random.default_rng(seed)
    words = rng.integers(1, 4, (rows, length))
    words[rng.random(rows) < 0.5, : length // 3] = 0  # padding before
    tags = np.zeros_like(words)
    for t in range(length):
        inside = (words[:, t] == 2) & (tags[:, t - 1] > 0) if t else False
        tags[:, t] = np.where(words[:, t] == 1, 1, np.where(inside, 2, 0))
    return words, tags


def layers():
    """No memory but that of the CRF."""
    return [keras.layers.Embedding(4, 6, mask_zero=True), keras.layers.Dense(3), keras_seq.CRF(TAGS, "BIO")]


@keras.saving.register_keras_serializable(package="tests")
class Tagger(keras.Model):
    """A model as users write them, with a step of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = layers()

    def call(self, words):
        for part in self.parts:
            words = part(words)
        return words

    def train_step(self, data):
        words, tags = data
        with tf.GradientTape() as tape:
            y = self(words, training=True)
            loss = self.compute_loss(words, tags, y)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {**self.compute_metrics(words, tags, y), "nll": loss}


MODELS = {
    "sequential": lambda: keras.Sequential(layers()),
    "functional": lambda: keras.Sequential([keras.Input((None,), dtype="int32"), *layers()]),
    "custom": Tagger,
}


@pytest.mark.deep
@pytest.mark.parametrize(
    ("kind", "jit_compile", "policy"),
    [
        ("sequential", False, "float32"),
        ("sequential", True, "float32"),
        ("functional", False, "float32"),
        ("functional", True, "mixed_float16"),
        ("custom", False, "float32"),
        ("custom", True, "float32"),
    ],
)
def test_learns_in_fit_under_masks(kind, jit_compile, policy, request):
    request.addfinalizer(functools.partial(keras.config.set_dtype_policy, keras.config.dtype_policy()))
    keras.config.set_dtype_policy(policy)
    words, tags = sentences(0)
    model = MODELS[kind]()
    model.compile(keras.optimizers.Adam(0.1), CRFLoss(), metrics=[SpanScores(TAGS)], jit_compile=jit_compile)
    alone = [(words[r][words[r] > 0][None], tags[r][words[r] > 0][None]) for r in range(4)]
    each = [crf_loss(y, model(x)) for x, y in alone]
    within = 1e-5 if policy == "float32" else 1e-2
    assert float(CRFLoss()(tags[:4], model(words[:4]))) == pytest.approx(np.mean(each), rel=within)
    pieces = tf.data.Dataset.from_tensor_slices((words, tags)).shuffle(48, seed=0).batch(16, drop_remainder=True)
    history = model.fit(pieces, validation_data=sentences(1), epochs=12, verbose=0).history
    losses = history["nll" if kind == "custom" else "loss"]
    assert losses[-1] < 0.3 * losses[0]
    assert history["val_f1"][-1] > 0.9
    assert {"precision", "recall", "val_precision", "val_recall"} <= set(history)


@pytest.mark.deep
@pytest.mark.parametrize("kind", ["functional", "custom"])
def test_is_saved_and_gives_tags_elsewhere(kind, tmp_path):
    words, tags = sentences(0)
    model = MODELS[kind]()
    model.compile(keras.optimizers.Adam(0.1), CRFLoss(), metrics=[SpanScores(TAGS)], jit_compile=False)
    model.fit(words, tags, epochs=2, batch_size=16, verbose=0)
    expected = viterbi(model.predict(words, verbose=0))[0].numpy()
    assert np.all((expected < 0) == (words == 0))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(
        again.evaluate(words, tags, verbose=0), model.evaluate(words, tags, verbose=0), rtol=1e-5
    )
    again.fit(words, tags, verbose=0)

    tagger = keras.Sequential([keras.Input((None,), dtype="int32"), model, ViterbiTags()])
    np.testing.assert_array_equal(tagger.predict(words, verbose=0), expected)
    tagger.save(tmp_path / "tagger.keras")
    loaded = keras.models.load_model(tmp_path / "tagger.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(words, verbose=0), expected)
    tagger.export(tmp_path / "served", verbose=False)
    np.savez(tmp_path / "data.npz", words=words.astype("int32"), expected=expected)
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(tmp_path)], check=True)


ELSEWHERE = """
import sys, numpy as np, tensorflow as tf
data, served = np.load(sys.argv[1] + "/data.npz"), tf.saved_model.load(sys.argv[1] + "/served")
assert not [name for name in sys.modules if name.startswith("keras_seq")]
for rows in (slice(None), slice(0, 1)):
    tags = served.serve(tf.constant(data["words"][rows]))
    np.testing.assert_array_equal(tags, data["expected"][rows])
short = served.serve(tf.constant(data["words"][:, -2:]))
assert short.shape == (len(data["words"]), 2) and short.dtype == tf.int32
"""


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("float64", "float64"), ("mixed_bfloat16", "float32"), ("mixed_float16", "float32"), ("float16", "float32")],
)
def test_potentials_of_sixteen_bits_are_float32(policy, expected):
    layer = keras_seq.CRF(3, dtype=policy, transition_initializer="random_normal", boundary_initializer="random_normal")
    scores = keras.ops.cast(np.random.default_rng(0).normal(size=(2, 4, 3)), layer.compute_dtype)
    symbolic = layer(keras.Input((None, 3), dtype=layer.compute_dtype))
    potentials = layer(scores)
    assert keras.backend.standardize_dtype(potentials.dtype) == symbolic.dtype == expected
    assert symbolic.shape == (None, None, 3, 3)
    transitions, start, end = (keras.ops.cast(w, expected) for w in layer.weights)
    np.testing.assert_allclose(
        potentials[:, 0], (start + keras.ops.cast(scores[:, 0, None], expected)) + np.zeros((3, 1)), rtol=1e-6
    )
    np.testing.assert_allclose(
        potentials[:, -1], transitions + keras.ops.cast(scores[:, -1, None], expected) + end, rtol=1e-6
    )


def test_a_row_without_a_real_step():
    layer = keras_seq.CRF(TAGS, "BIO")
    scores, mask = np.full((2, 3, 3), np.nan), np.zeros((2, 3), bool)
    potentials = layer(scores, mask=mask)
    assert np.all(crf_loss(np.zeros((2, 3), int), potentials) == 0)
    assert np.all(viterbi(potentials)[0] == -1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: keras_seq.CRF(3)(np.zeros((2, 4, 5))),
            ValueError,
            r"sequences: expected scores \(b, t, 3\), one for each",
        ),
        (lambda: keras_seq.CRF(3)(np.zeros((2, 3))), ValueError, "sequences: expected scores"),
        (lambda: keras_seq.CRF(3)(np.zeros((2, 4, 3)), mask=np.ones((2, 3), bool)), ValueError, "mask: expected shape"),
        (lambda: keras_seq.CRF(3, units=2), TypeError, "CRF: unknown argument 'units'"),
        (
            lambda: keras_seq.CRF(3, transition_initializer="none"),
            ValueError,
            "transition_initializer: expected a name",
        ),
    ],
)
def test_wrong_inputs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_config_and_its_arguments():
    layer = keras_seq.CRF(TAGS, "BIO", "ones", "random_normal", "l2", "non_neg", name="own", dtype="float64")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    assert (again.tags, again.scheme, again.name, again.dtype) == (TAGS, "BIO", "own", "float64")
    layer(np.zeros((1, 2, 3)))
    assert [w.shape for w in layer.weights] == [(3, 3), (3,), (3,)]
    assert np.all(layer.transitions.numpy() == 1)
    assert len(set(layer.start_scores.numpy())) == 3
    assert float(layer.losses[0]) == pytest.approx(9 * 0.01)
    assert layer.transitions.constraint is not None


def test_as_the_wrapped_layer_of_a_bidirectional_or_a_stack_it_is_refused():
    told = "expected a sequence layer of keras_seq, got <CRF .*, which stands before or behind one"
    with pytest.raises(TypeError, match="layer: " + told):
        keras_seq.Bidirectional(keras_seq.CRF(3))
    with pytest.raises(TypeError, match=r"layers\[1\]: " + told):
        keras_seq.Stacked([keras_seq.LSTM(3, return_sequences=True), keras_seq.CRF(3)])
