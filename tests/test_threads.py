"""What several threads call at the same time gives what one thread gets: no call leaves anything on what it calls."""

import dataclasses
import sys
import threading
from collections.abc import Callable

import conformance
import keras
import numpy as np
import pytest
import structures
import tensorflow as tf
from cases import BUILT_IN, Case, D, T, U
from conformance import ONE_OF_EACH, assert_close
from structures import STEPS, STRUCTURES

import keras_seq
from keras_seq import decoding
from keras_seq.models import ImageCaptioner, LanguageModel, Seq2Seq, Vocabulary

THREADS, CALLS = 8, 2
pytestmark = pytest.mark.filterwarnings("ignore:.*receptive field")


@dataclasses.dataclass(frozen=True)
class Subject:
    """Something to call: `make()` gives `(the object that is shared, a function of a number)`.

    The function calls the object with the inputs of that number, 0 .. 7, each with a batch size of its own or not, and
    returns a nest of arrays.
    """

    name: str
    make: Callable


def inputs(number, t=STEPS):
    """`(sequences, mask)`, of one to three rows."""
    x, mask = structures.data(1 + number % 3, t, seed=number)
    return tf.constant(x), tf.constant(mask)


# -- the table: whoever adds something that can be called adds a row -------------------------------------------------------


def of_case(case, training=False, compiled=False, **flags):
    def make():
        layer = case("float64", return_sequences=True, return_state=True, **flags)
        data = [conformance.data(case, layer, b=1 + i % 3, t=T, seed=i) for i in range(THREADS)]

        def call(*given):
            return conformance.call(layer, conformance.Data(*given), training)

        call = tf.function(call) if compiled else call
        return layer, lambda number: call(*data[number])

    return Subject(
        "-".join([case.name, *(["compiled"] if compiled else []), *(f"{k}={v}" for k, v in flags.items())]), make
    )


def of_structure(structure, compiled=False):
    def make():
        layer = structure()
        call = tf.function(layer) if compiled else layer

        def function(number):
            x, mask = inputs(number)
            return call(x, mask=mask)

        return layer, function

    return Subject(structure.name + "-compiled" * compiled, make)


def with_gradients(structure):
    def make():
        layer = structure()

        def function(number):
            x, mask = inputs(number)
            with tf.GradientTape() as tape:
                tape.watch(x)
                found = keras.tree.flatten(layer(x, mask=mask, training=True))
                loss = sum(tf.reduce_sum(y * y) for y in found)
            return tape.gradient(loss, [x, *[w.value for w in layer.trainable_variables]])

        return layer, function

    return Subject(structure.name + "-gradients", make)


def steps_of(structure):
    def make():
        layer = structure()

        def function(number):
            x, mask = inputs(number)
            state, outputs = layer.initial_state(len(x)), []
            for t in range(3):
                y, state = layer.step(x[:, t], state, mask[:, t])
                outputs.append(y)
            return [outputs, state]

        return layer, function

    return Subject(structure.name + "-steps", make)


def of_cell_of_keras(name):
    def make():
        layer = keras_seq.RNN(getattr(keras.layers, name)(U, dtype="float64"), return_sequences=True, dtype="float64")
        layer.build((None, None, D))

        def function(number):
            x, mask = inputs(number)
            return layer(x, mask=mask)

        return layer, function

    return Subject(f"RNN({name} of Keras)", make)


def stream():
    model = keras.Sequential(
        [
            keras.Input((None, D)),
            keras_seq.Stacked(keras_seq.LSTM, [4, 4], skips="residual", return_sequences=True),
            keras_seq.TCN(4, dilations=[1, 2]),
            keras.layers.Dense(2),
        ]
    )
    stepped = keras_seq.streaming(model)

    def function(number):
        x = tf.cast(inputs(number)[0], "float32")
        state, outputs = stepped.initial_state(len(x)), []
        for t in range(3):
            y, state = stepped.step(x[:, t], state)
            outputs.append(y)
        return [outputs, state]

    return model, function


def tagged(compiled):
    """All that is asked of a conditional random field, gradient included."""

    def make():
        layer = keras_seq.CRF(D, boundary_initializer="random_normal", dtype="float64")
        layer.build((None, None, D))

        def all_of_it(x, mask):
            with tf.GradientTape() as tape:
                tape.watch(x)
                potentials = layer(x, mask=mask)
                loss = decoding.crf_loss(tf.zeros_like(mask, "int32"), potentials)
            found = decoding.crf_marginals(potentials), *decoding.viterbi(potentials), *decoding.viterbi(potentials, 3)
            return loss, tape.gradient(loss, x), *found

        call = tf.function(all_of_it) if compiled else all_of_it
        return layer, lambda number: call(*inputs(number))

    return Subject("CRF" + "-compiled" * compiled, make)


WORDS = Vocabulary(list("abcd"), "characters")


def tokens(number, t=5):
    """Some of them padding at the end."""
    found = np.random.default_rng(number).integers(4, len(WORDS), (1 + number % 3, t)).astype("int32")
    found[0, t - number % 3 :] = WORDS.pad
    return tf.constant(found)


def seq2seq():
    model = Seq2Seq(WORDS, WORDS, embedding_size=4, max_length=5)
    return model, lambda number: model((tokens(number, 6), tokens(number)))


def language_model():
    model = LanguageModel(WORDS, keras_seq.Stacked(keras_seq.GRU, [4, 4], return_sequences=True), embedding_size=4)
    return model, lambda number: model(tokens(number))


def captioner(features_as):
    def make():
        model = ImageCaptioner(WORDS, (8, 8, 3), keras_seq.GRUCell(4), features_as=features_as, embedding_size=4)

        def function(number):
            count = 1 + number % 3
            pictures = np.random.default_rng(number).integers(0, 256, (count, 8, 8, 3)).astype("uint8")
            return model((tf.constant(pictures), tokens(number)))

        return model, function

    return Subject(f"ImageCaptioner-{features_as}", make)


TEXTS = ["a", "dcb", "", "abcd", "bb", "c", "da", "acbd"]


def writing(kind, way, **options):
    """Texts of one or two rows, by a seed of the thread's own if they are sampled; all from a first call on."""

    def make():
        if kind is LanguageModel:
            memory = keras_seq.Stacked(keras_seq.GRU, [4, 4], return_sequences=True)
            model = LanguageModel(WORDS, memory, embedding_size=4, max_length=6)
        elif kind is Seq2Seq:
            model = Seq2Seq(WORDS, WORDS, embedding_size=4, max_length=6)
        else:
            model = ImageCaptioner(
                WORDS, (8, 8, 3), keras_seq.GRUCell(4), features_as="attention", embedding_size=4, max_length=6
            )
        spread(model)

        def function(number):
            texts = TEXTS[number : number + 1 + number % 2]
            shown = np.random.default_rng(number).integers(0, 256, (len(texts), 8, 8, 3)).astype("uint8")
            first = {Seq2Seq: texts, ImageCaptioner: shown}.get(kind)
            seed = {"seed": number} if options.get("decoder") == "sample" else {}
            if way == "generate":
                prompts = texts if kind is LanguageModel else [text[:1] for text in texts]
                given = (prompts,) if first is None else (first, prompts)
                return told(model.generate(*given, **options, **seed))
            if way == "tokens":
                prompt = np.array([[WORDS.start, 4 + number % 4]] * len(texts), "int32")
                source = model.tokens(texts) if kind is Seq2Seq else first
                return model.generate_tokens(source, prompt, **options, **seed)
            if way == "stream":
                return told(list(model.stream(texts[0], max_length=8, **options, **seed)))
            return model.alignment(first, texts)

        return model, function

    return Subject("-".join([kind.__name__, way, *map(str, options.values())]), make)


def spread(model):
    """Weights far enough apart for texts that differ."""
    rng = np.random.default_rng(4)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape))


def told(texts):
    """Strings, or lists of them, as numbers."""
    return [np.array([ord(c) for c in text]) for text in keras.tree.flatten(texts)]


def free_streams():
    """Each draws from the model's own random numbers: that they are asked in turn is all that can be said."""
    model = LanguageModel(WORDS, keras_seq.GRU(4, return_sequences=True), embedding_size=4, seed=1)

    def function(number):
        assert len("".join(model.stream("a", max_length=5))) <= 5
        assert len(model.generate(["a"] * (1 + number % 2), max_length=5)) == 1 + number % 2
        return []

    return model, function


BY_NAME = {s.name: s for s in STRUCTURES}
QUICK = [of_structure(BY_NAME[name]) for name in ("Stacked-LSTM-GRU", "Bidirectional-LSTM", "Stacked-of-Bidirectional")]
SUBJECTS = [
    *[of_case(case) for case in BUILT_IN],
    *[of_case(case, training=True, compiled=True) for case in ONE_OF_EACH],
    *[of_case(Case("LSTM"), **{flag: True}) for flag in ("unroll", "checkpoint", "go_backwards", "return_internals")],
    *[of_cell_of_keras(name) for name in ("LSTMCell", "GRUCell", "SimpleRNNCell")],
    *[of_structure(structure) for structure in STRUCTURES],
    *[of_structure(structure, compiled=True) for structure in STRUCTURES],
    *[
        with_gradients(BY_NAME[name])
        for name in ("Stacked-LSTM-GRU", "Bidirectional-LSTM", "TDNN-uneven", "TCN", "WaveNet", "MaskedMax")
    ],
    *[steps_of(structure) for structure in STRUCTURES if structure.stepwise],
    Subject("streaming", stream),
    *[tagged(compiled) for compiled in (False, True)],
    Subject("Seq2Seq", seq2seq),
    Subject("LanguageModel", language_model),
    *[captioner(features_as) for features_as in ("initial_state", "each_step", "attention")],
    *[
        writing(kind, way, decoder=decoder, **({"width": 2, "n_best": 2} if decoder == "beam" else {}))
        for kind in (LanguageModel, Seq2Seq, ImageCaptioner)
        for way in ("generate", "tokens")
        for decoder in ("greedy", "sample", "beam")
    ],
    *[writing(LanguageModel, "stream", decoder=decoder) for decoder in ("greedy", "sample")],
    *[writing(kind, "alignment") for kind in (Seq2Seq, ImageCaptioner)],
    Subject("LanguageModel-free", free_streams),
]


# -- the check -------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def often_interrupted():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(function):
    """What each of eight threads gets that calls `function(its number)` again and again; the first error is raised."""
    found, errors, together = {}, [], threading.Barrier(THREADS)

    def work(number):
        try:
            together.wait(60)
            found[number] = [arrays(function(number)) for _ in range(CALLS)]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive(), "a thread waits for ever"
    if errors:
        raise errors[0]
    return found


def arrays(nest):
    return [np.asarray(keras.ops.convert_to_numpy(x), "float64") for x in keras.tree.flatten(nest)]


def attributes(layer):
    """All that the layer, its parts and their cells hold, by name; objects by which they are."""

    def told(value):
        if isinstance(value, (list, tuple)):
            return [told(v) for v in value]
        if isinstance(value, dict):
            return {str(k): told(v) for k, v in value.items()}
        return value if isinstance(value, (bool, int, float, str, type(None))) else id(value)

    parts = list(layer._flatten_layers())
    parts += [part.cell for part in parts if hasattr(part, "cell")]
    return {f"{part.name} {name}": told(value) for part in parts for name, value in vars(part).items()}


def check(subject):
    shared, function = subject.make()
    expected = [arrays(function(number)) for number in range(THREADS)]
    before = attributes(shared)
    for number, found in in_threads(function).items():
        for results in found:
            assert_close(results, expected[number], 1e-6, f"{subject.name}, thread {number}")
    after = attributes(shared)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []


def rows(subjects):
    return {"argnames": "subject", "argvalues": subjects, "ids": [s.name for s in subjects]}


@pytest.mark.parametrize(**rows(QUICK))
def test_threads_get_what_one_gets(subject):
    check(subject)


@pytest.mark.deep
@pytest.mark.parametrize(**rows(SUBJECTS))
def test_threads_get_what_one_gets_whatever_they_call(subject):
    check(subject)


@pytest.mark.deep
@pytest.mark.parametrize(
    **rows([s for s in SUBJECTS if any(way in s.name for way in ("generate-sample", "generate-beam", "stream-"))])
)
def test_threads_that_compile_at_the_same_time(subject):
    _, function = subject.make()
    found = in_threads(function)
    for number in range(THREADS):
        expected = arrays(function(number))
        for results in found[number]:
            assert_close(results, expected, 1e-6, f"{subject.name}, thread {number}")


@pytest.mark.deep
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    "cell",
    [
        keras_seq.SimpleRNNCell,
        keras.layers.SimpleRNNCell,
        lambda units, **arguments: keras.layers.StackedRNNCells([keras.layers.SimpleRNNCell(units, **arguments)] * 1),
    ],
    ids=["ours", "Keras's", "several of Keras's"],
)
def test_threads_do_not_share_dropout_masks(cell, compiled):
    """A linear network of ones shows its masks: each call draws one of its own batch size, the same for all its steps."""
    cell = cell(6, activation="linear", use_bias=False, dropout=0.5, recurrent_dropout=0.5)
    layer = keras_seq.RNN(cell, return_sequences=True)
    layer.build((None, None, 6))
    layer.set_weights([np.eye(6), 0 * np.eye(6)])
    call = tf.function(lambda x: layer(x, training=True)) if compiled else lambda x: layer(x, training=True)
    call(tf.ones((1, T, 6)))
    before, seen = attributes(layer), []

    def function(number):
        y = call(tf.ones((20 + number, T, 6))).numpy()
        np.testing.assert_array_equal(y, np.repeat(y[:, :1], T, axis=1))
        assert set(np.unique(y)) == {0.0, 2.0}
        seen.append(y[:20, 0].tobytes())
        return y

    for number, found in in_threads(function).items():
        assert all(y.shape == (20 + number, T, 6) for (y,) in found)
    # Keras's generator is read and advanced in two steps: calls at the very same time may draw alike
    assert len(set(seen)) > 1
    assert attributes(layer) == before
