"""From sequence to sequence: what the model computes, how it is trained, saved and exported, and what it refuses."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from shares import shares_of_zeros

import keras_seq
from keras_seq import AttentionCell, GRUCell, LSTMCell
from keras_seq.models import InverseSigmoidDecay, Seq2Seq, Vocabulary

SOURCE, TARGET = Vocabulary(list("abcd"), "characters"), Vocabulary(list("WXYZ"), "characters")
SOURCES, TARGETS = ["abca", "d", "bdcab"], ["WXY", "ZZXYW", "Y"]


def attending(cell, **arguments):
    return keras_seq.RNN(AttentionCell(cell, **arguments), return_sequences=True)


PARTS = {
    "additive": lambda: {"decoder": attending(GRUCell(5), output_units=6)},
    "no attention": lambda: {
        "encoder": keras_seq.LSTM(4, return_sequences=True),
        "decoder": keras_seq.PeepholeLSTM(5, return_sequences=True),
    },
    "stack": lambda: {
        "encoder": keras_seq.Stacked(keras_seq.GRU, [4, 3], return_sequences=True),
        "decoder": keras_seq.Stacked(
            [
                keras_seq.LSTM(5, return_sequences=True),
                attending(LSTMCell(5), score="general", query="after", input_feeding=True),
            ]
        ),
    },
    "convolutions": lambda: {
        "encoder": keras_seq.TCN(5, kernel_size=2, dilations=[1, 2], return_sequences=True),
        "decoder": attending(GRUCell(5), score="multi_head", heads=5),
    },
}


SEEDS = {"additive": 7, "no attention": 8, "stack": 8, "convolutions": 3}  # that write more than one token


def model(kind="additive", scale=0.8, **arguments):
    keras.utils.set_random_seed(3)
    found = Seq2Seq(SOURCE, TARGET, **PARTS[kind](), embedding_size=6, max_length=7, pad_to=4, **arguments)
    rng = np.random.default_rng(SEEDS[kind])
    for weight in found.trainable_variables:
        weight.assign(rng.normal(scale=scale, size=weight.shape))
    found.readout.kernel.assign(4 * found.readout.kernel)  # not one token all the time
    found.readout.bias.assign(-3.0 * (np.arange(8) < 4))
    return found


@pytest.fixture(scope="module")
def served():
    return model()


@pytest.mark.filterwarnings("ignore:.*receptive")
@pytest.mark.parametrize("kind", PARTS)
def test_generate_agrees_with_teacher_forcing(kind):
    """Each token is the likeliest one after those before it, read off the model as it is trained; padding is nothing."""
    translator = model(kind)
    source = translator.tokens(SOURCES)
    assert source.shape == (3, 8)
    written = translator.generate_tokens(source).numpy()
    inputs = np.concatenate([np.full((3, 1), TARGET.start), written[:, :-1]], axis=1).astype("int32")
    logits = translator((source, inputs)).numpy()
    real = (inputs != TARGET.pad) & (np.cumsum(inputs == TARGET.end, axis=1) == 0)
    assert len(np.unique(written[real])) > 1
    assert real.sum() > 6
    logits[:, :, [TARGET.pad, TARGET.start]] = -np.inf  # what no text is made of
    assert (logits.argmax(-1)[real] == written[real]).all()
    for row in range(3):
        count = len(SOURCES[row]) + 1
        alone = translator((source[row : row + 1, :count], inputs[row : row + 1])).numpy()
        np.testing.assert_allclose(alone[0][real[row]][:, 3:], logits[row][real[row]][:, 3:], atol=1e-5)


def test_the_source_comes_over_both_ways():
    """By the bridge, and by attention: without either, every source gives the same."""
    translator = model()
    source, target = translator.tokens(SOURCES, TARGETS)
    inputs = target[:1, :-1].numpy().repeat(3, 0)

    def spread():
        return np.ptp(translator((source, inputs)).numpy(), axis=0).max()

    by_both = spread()
    kernels = [translator.bridges[0].kernel, translator.decoder.cell.context_kernel]
    before = [k.numpy() for k in kernels]
    output = translator.decoder.cell.output_kernel
    kept = output.numpy()
    for kernel, value in zip(kernels, before, strict=True):
        kernel.assign(0 * value)
        assert 1e-2 < spread() != by_both
        kernel.assign(value)
    for kernel in kernels:
        kernel.assign(0 * kernel)
    output.assign(np.where(np.arange(len(kept))[:, None] < translator.encoder.output_width, 0, kept))
    assert spread() < 1e-5


def test_decoders_and_their_options(served):
    greedy = served.generate(SOURCES)
    assert served.generate(SOURCES, decoder="beam", width=1) == greedy
    beams = served.generate(SOURCES, decoder="beam", width=4, n_best=3)
    assert [len(b) for b in beams] == [3, 3, 3]
    assert served.generate(SOURCES, decoder="beam", width=4, n_best=1) == [b[0] for b in beams]
    drawn = [served.generate(SOURCES, decoder="sample", temperature=9.0, seed=s) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    free = [served.generate(SOURCES, decoder="sample", temperature=9.0) for _ in range(4)]
    assert any(f != free[0] for f in free)
    assert all(t.startswith("ZW") for t in served.generate(SOURCES, prompts=["ZW", "ZWY", "ZW"]))
    for limits in ([1, 2, 7], [3, 1, 2]):
        written = served.generate(SOURCES, max_lengths=np.array(limits))
        assert written == [text[:most] for text, most in zip(greedy, limits, strict=True)]
    assert served._programs.cache_info().currsize == 6  # no values of arrays, seeds and temperatures among them


def test_padding_and_start_are_never_written():
    translator = model()
    translator.readout.bias.assign(30.0 * np.isin(np.arange(8), (TARGET.pad, TARGET.start)))
    source = translator.tokens(SOURCES)
    for decoder in ("greedy", "sample"):
        written = translator.generate_tokens(source, decoder=decoder).numpy()
        before_end = np.cumsum(written == TARGET.end, axis=1) == 0
        assert np.any(before_end)
        assert not np.any(np.isin(written[before_end], (TARGET.pad, TARGET.start)))


def test_what_has_been_read_is_summed_up(served):
    """The coverage of a beam's state is the sum of the alignments that the layer shows on the same tokens."""
    source, target = served.tokens(SOURCES, TARGETS)
    states, constants = served.encode(source)
    words = served.target_embedding(target[:, :-1])
    shown = keras_seq.RNN(served.decoder.cell, return_sequences=True, return_internals=True)
    _, internals = shown(words, initial_state=states, constants=constants)
    state, prepared = served.begin(source, 3)
    for t in range(words.shape[1]):
        _, state = served.next_token(target[:, t], state, prepared)
    hidden = (source == SOURCE.pad).numpy()
    expected = internals["alignment"].numpy().sum(1) + hidden
    np.testing.assert_allclose(state["coverage"], expected, atol=1e-5)
    _, plain = served.generate_tokens(source, decoder="beam", width=3)
    _, covered = served.generate_tokens(source, decoder="beam", width=3, coverage_penalty=0.5)
    assert (covered.numpy() <= plain.numpy()).all()
    assert (covered.numpy() < plain.numpy()).any()
    weights = served.alignment(SOURCES[:1], TARGETS[:1])
    assert weights.shape == (1, 4, 5)
    np.testing.assert_allclose(weights, internals["alignment"][:1, :4, :5], atol=1e-5)


# -- training ------------------------------------------------------------------------------------------------------------


def sharp(share):
    """A model that says Z whatever it is asked."""
    translator = model(scale=0.3, teacher_forcing=share)
    translator.readout.bias.assign(50.0 * (np.arange(8) == 7))
    return translator


def test_share_of_true_tokens():
    translator = sharp(0.7)
    source, target = translator.tokens(["ab"] * 400, ["WXYWXY"] * 200 + ["WX"] * 200)
    mixed = tf.function(translator._mixed, jit_compile=True)(target, *translator.encode(source)).numpy()
    target = target.numpy()
    assert (mixed[:, 0] == TARGET.start).all()
    assert (mixed[target == TARGET.pad] == TARGET.pad).all()
    open_ = (target != TARGET.pad) & (np.arange(target.shape[1]) > 0)
    assert set(mixed[open_ & (mixed != target)]) == {7}
    assert abs(np.mean(mixed[open_] == target[open_]) - 0.7) < 0.03


def test_what_is_fed_is_never_padding_nor_start():
    translator = model(teacher_forcing=0.0)
    translator.readout.bias.assign(30.0 * np.isin(np.arange(8), (TARGET.pad, TARGET.start)))
    source, target = translator.tokens(["ab", "d"] * 20, ["WXYWXY", "Z"] * 20)
    mixed = translator._mixed(target, *translator.encode(source)).numpy()
    assert (mixed[:, 0] == TARGET.start).all()
    np.testing.assert_array_equal(mixed == TARGET.pad, target == TARGET.pad)
    assert (mixed[:, 1:] != TARGET.start).all()


@pytest.mark.filterwarnings("ignore:.*receptive")
@pytest.mark.parametrize("kind", PARTS)
def test_fed_with_nothing_but_what_it_draws_it_draws_what_generate_samples(kind):
    """By the same random numbers; up to END, after which the true text goes on."""
    translator = model(kind, scale=0.3, teacher_forcing=0.0)
    translator.readout.bias.assign(1.5 * (np.arange(8) == TARGET.end))
    source, target = translator.tokens(SOURCES * 10, ["WXYZWXY"] * 30)
    translator.seed_generator.state.assign([5, 0])
    mixed = tf.function(translator._mixed, jit_compile=True)(target, *translator.encode(source)).numpy()[:, 1:8]
    written = translator.generate_tokens(source, decoder="sample", seed=5).numpy()
    ended = np.cumsum(written == TARGET.end, axis=1) - (written == TARGET.end) > 0
    assert 0.02 < ended.mean() < 0.9
    assert len(np.unique(written)) > 4
    np.testing.assert_array_equal(mixed[~ended], written[~ended])


def test_what_is_drawn_is_drawn_anew_at_each_place():
    translator = model("no attention", scale=0.0, teacher_forcing=0.0)  # four letters, all alike
    source, target = translator.tokens(["a"] * 50, ["WWWWWWW"] * 50)
    mixed = translator._mixed(target, *translator.encode(source)).numpy()[:, 1:8]
    assert set(np.unique(mixed)) >= {4, 5, 6, 7}
    assert np.mean(mixed[:, 1:] == mixed[:, :-1]) < 0.45


def test_tokens_are_mixed_in_training_alone_and_its_steps_are_counted():
    translator, plain = model(teacher_forcing=InverseSigmoidDecay(1.0)), model()
    source, target = translator.tokens(SOURCES, TARGETS)
    np.testing.assert_array_equal(translator((source, target)), plain((source, target)))
    assert int(translator.training_step.value) == 0
    assert np.any(translator((source, target), training=True) != plain((source, target), training=True))
    translator((source, target), training=True)
    assert int(translator.training_step.value) == 2
    plain((source, target), training=True)
    assert int(plain.training_step.value) == 0


def test_words_and_outputs_are_dropped_in_training_alone():
    translator = model("no attention", dropout=0.4)
    arrays = translator.tokens(["abcd"] * 60, ["WXYZWXY"] * 60)
    for name, (outside, within) in shares_of_zeros(translator, ["encoder", "decoder", "readout"], arrays).items():
        assert outside == 0, name
        assert abs(within - 0.4) < 0.06, name


def test_arrays_are_padded_to_multiples():
    """Of the source, and of what is read and asked for of the target, which are one token shorter."""
    translator = Seq2Seq(SOURCE, TARGET, **PARTS["no attention"](), pad_to=(4, 3))
    for texts, wide, target in ((["abcd", "a"], 8, 6), (["abc", ""], 4, 6), (["ab", "b"], 4, 3)):
        (source, inputs), targets = translator.example(
            texts, [t.translate(str.maketrans("abcd", "WXYZ")) for t in texts]
        )
        assert source.shape == (2, wide)
        assert np.count_nonzero(source, axis=1).tolist() == [len(t) + 1 for t in texts]  # END, and then padding
        assert inputs.shape == targets.shape == (2, target)
        np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
        assert np.all(inputs[:, 0] == TARGET.start)


def test_gradients_are_those_of_the_tokens_that_were_fed():
    translator = model(teacher_forcing=0.5)
    source, target = translator.tokens(SOURCES, TARGETS)
    seeds = translator.seed_generator.state

    def gradients(inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(translator((source, inputs), training=True) ** 2)
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, translator.trainable_variables)]

    before = seeds.numpy()
    found = gradients(target)
    seeds.assign(before)
    mixed = translator._mixed(target, *translator.encode(source))
    assert (mixed.numpy() != target.numpy()).any()
    translator.teacher_forcing = 1.0
    for a, b in zip(found, gradients(mixed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * (1 + np.abs(b).max()))
    assert any(np.abs(a - b).max() > 1e-2 for a, b in zip(found, gradients(target), strict=True))


@pytest.fixture(scope="module")
def trained():
    """One that has learned to write each letter in the other alphabet, backwards, under a falling share of true tokens."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    sources = ["".join(rng.choice(list("abcd"), size=rng.integers(1, 4))) for _ in range(256)]
    targets = [s[::-1].translate(str.maketrans("abcd", "WXYZ")) for s in sources]
    found = Seq2Seq(
        SOURCE,
        TARGET,
        encoder=keras_seq.Bidirectional(keras_seq.GRU(24, return_sequences=True)),
        decoder=attending(GRUCell(32), output_units=24),
        teacher_forcing=InverseSigmoidDecay(15.0),
        max_length=8,
        pad_to=4,
    )
    found.compile(keras.optimizers.Adam(0.02), jit_compile=True)
    data = tf.data.Dataset.from_tensor_slices((sources, targets)).batch(64).map(found.example)
    history = found.fit(data, epochs=20, verbose=0).history["loss"]
    return found, history


@pytest.mark.deep
def test_learns_to_translate(trained):
    found, history = trained
    assert int(found.training_step.value) == 80
    assert history[-1] < 0.1 < 1.0 < history[0]
    assert found.generate(["abc", "da", "b"]) == ["YXW", "WZ", "X"]
    weights = found.alignment(["abc"], ["YXW"])[0]
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-4)


@pytest.mark.deep
def test_saved_and_served(trained, tmp_path):
    """The file of Keras, compiled as it was; and a SavedModel of tokens and of text, where keras_seq is not."""
    found, _ = trained
    sources = ["cab", "dd", "a"]
    expected = found.generate(sources)
    found.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.generate(sources) == expected
    assert loaded.compiled
    assert (loaded.teacher_forcing.k, loaded.source.words, loaded._multiples) == (15.0, list("abcd"), (4, 4))
    found.export(tmp_path / "saved", verbose=False)
    script = (
        "import sys, tensorflow as tf\n"
        "loaded = tf.saved_model.load(sys.argv[1])\n"
        "print([t.decode() for t in loaded.texts(tf.constant(sys.argv[2:])).numpy()])\n"
        "print(loaded.serve(tf.constant([[4, 5, 3, 0], [7, 3, 0, 0]])).numpy().tolist())\n"
        "assert 'keras_seq' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "saved"), *sources]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=tmp_path, text=True).stdout.splitlines()
    assert said[0] == str(expected)
    assert said[1] == str(found.generate_tokens(np.array([[4, 5, 3, 0], [7, 3, 0, 0]], "int32")).numpy().tolist())


def test_every_argument_survives_the_configuration():
    given = {"embedding_size": 6, "dropout": 0.25, "max_length": 7, "pad_to": [4, 2], "name": "own"}
    first = Seq2Seq(SOURCE, TARGET, **PARTS["stack"](), teacher_forcing=InverseSigmoidDecay(7.0), **given)
    config = json.dumps(first.get_config())
    again = Seq2Seq.from_config(json.loads(config))
    assert {name: getattr(again, name) for name in given} == given
    assert again.teacher_forcing.k == 7.0
    assert (again.source.tokens, again.target.tokens) == (SOURCE.tokens, TARGET.tokens)
    assert json.dumps(again.get_config()) == config
    assert [w.shape for w in again.weights] == [w.shape for w in first.weights]


def test_schedules():
    share = InverseSigmoidDecay(10.0)
    steps = np.array([0, 10, 23, 100])
    np.testing.assert_allclose(share(steps), 10 / (10 + np.exp(steps / 10)), rtol=1e-5)
    assert float(share(10**9)) == 0
    assert InverseSigmoidDecay.from_config(share.get_config()).k == 10
    schedules = keras.optimizers.schedules
    np.testing.assert_allclose(schedules.ExponentialDecay(1.0, 1, 0.9)(5), 0.9**5, rtol=1e-5)  # as its docstring says
    np.testing.assert_allclose(schedules.PolynomialDecay(0.9, (0.9 - 0.2) / 0.1, 0.2)(3), 0.6, rtol=1e-5)
    np.testing.assert_allclose(schedules.PolynomialDecay(0.9, (0.9 - 0.2) / 0.1, 0.2)(30), 0.2, rtol=1e-5)
    for wrong, error in (("1", TypeError), (0.5, ValueError), (float("nan"), ValueError)):
        with pytest.raises(error, match="k: expected a number of at least 1"):
            InverseSigmoidDecay(wrong)


# -- what it refuses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"source": ["a"]}, TypeError, "source: expected a keras_seq.models.Vocabulary"),
        ({"encoder": keras.layers.LSTM(3)}, TypeError, "encoder: expected a sequence layer"),
        ({"encoder": keras_seq.LSTM(3)}, ValueError, "encoder: expected return_sequences=True"),
        ({"decoder": keras_seq.LSTM(3)}, ValueError, "decoder: expected return_sequences=True"),
        (
            {"decoder": keras_seq.LSTM(3, return_sequences=True, go_backwards=True)},
            ValueError,
            "decoder: expected a layer that can be run step by step",
        ),
        ({"teacher_forcing": 1.5}, ValueError, r"teacher_forcing: expected a number in \[0, 1\]"),
        ({"teacher_forcing": "all"}, TypeError, "teacher_forcing"),
        ({"max_length": 0}, ValueError, "max_length: expected a positive integer"),
        ({"pad_to": (4, 4, 4)}, ValueError, "pad_to"),
        ({"dropout": 1.0}, ValueError, "dropout"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        Seq2Seq(**{"source": SOURCE, "target": TARGET, **arguments})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m((np.array([[9]]), np.array([[2]]))), "source tokens: expected integers from 0 to 7, got 9"),
        (lambda m: m((np.array([[4]]), np.array([[-1]]))), "target tokens: expected integers from 0 to 7, got -1"),
        (lambda m: m.generate(["a"], prompts=["W", "W"]), "prompts: expected 1, one for each row, got 2"),
        (lambda m: m.example(["a", "b"], ["W"]), "target: expected 2, one for each source, got 1"),
        (lambda m: m.alignment(["a", "b"], ["W"]), "targets: expected 2, one for each source, got 1"),
        (lambda m: m.generate(["a"], decoder="best"), "decoder: expected one of"),
        (lambda m: m.generate(["a"], decoder="beam", width=9), "width: expected at most the 8 tokens"),
        (lambda m: m.generate(["a"], decoder="beam", width=0), "width: expected a positive integer, got 0"),
        (lambda m: m.generate(["a"], max_length=0), "max_length"),
        (lambda m: model("no attention").alignment(["a"], ["W"]), "decoder: expected one with attention"),
        (
            lambda m: model("no attention").generate(["a"], decoder="beam", coverage_penalty=0.1),
            "coverage_penalty: expected 0",
        ),
    ],
)
def test_wrong_calls_are_named(call, words, served):
    with pytest.raises(ValueError, match=words):
        call(served)
