"""What holds for whatever is given: layers, masks, texts and tables drawn by hypothesis."""

import conformance
import numpy as np
import pytest
import structures
import tensorflow as tf
from ctc_paths import beam_by_hand, labellings
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import keras_seq
from keras_seq.decoding import ctc_beam_search, ctc_loss
from keras_seq.models import Vocabulary
from keras_seq.testing.differences import assert_close
from keras_seq.testing.runs import randomised

pytestmark = [pytest.mark.deep, pytest.mark.filterwarnings("ignore:.*receptive field")]
# a first example traces and compiles, and so takes longer than all others
settings.register_profile("slow", deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
settings.load_profile("slow")

D = conformance.D
masks = arrays.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 6)))
flags = st.fixed_dictionaries(
    {name: st.booleans() for name in ("return_sequences", "go_backwards", "zero_output_for_mask")}
)
switches = st.fixed_dictionaries(
    {
        **{
            name: st.booleans()
            for name in ("use_bias", "peepholes", "input_gate", "forget_gate", "output_gate", "coupled")
        },
        "activation": st.sampled_from(["tanh", "softsign", "linear"]),
        "recurrent_activation": st.sampled_from(["sigmoid", "hard_sigmoid"]),
        "projection": st.sampled_from([None, 2]),
        "cell_clip": st.sampled_from([None, 0.3]),
        "normalize": st.booleans(),
        "full_gate_recurrence": st.booleans(),
        "zoneout": st.sampled_from([0.0, 0.25, [0.5, 0.125]]),
    }
)


def check_equations(case, mask, flags):
    """Of a memory: what the equations give, run eagerly and in a graph."""
    layer = case("float64", return_state=True, **flags)
    given = conformance.data(case, layer, *mask.shape)._replace(mask=tf.constant(mask))
    named = {name: flags[name] for name in ("go_backwards", "zero_output_for_mask")}
    expected = conformance.as_returned(conformance.oracle(layer, given, **named), layer)
    assert_close(conformance.call(layer, given), expected, 1e-10)
    assert_close(tf.function(lambda: conformance.call(layer, given, training=False))(), expected, 1e-10)


@given(switches, masks, flags)
def test_every_lstm_is_its_equations(switches, mask, flags):
    coupled, fed_back = switches["coupled"], switches["full_gate_recurrence"]
    gates = switches["input_gate"], switches["forget_gate"], switches["output_gate"]
    assume(not (coupled and not all(gates[:2])))
    assume(any(gates) or not (switches["peepholes"] or fed_back))
    assume(not (switches["normalize"] and fed_back))
    assume(not (fed_back and isinstance(switches["zoneout"], list)))  # a rate for each state, gates too
    check_equations(conformance.Case("LSTM", switches), mask, flags)


@given(st.sampled_from([c for c in conformance.KINDS if c.gated and not c.targets]), masks, flags)
def test_every_memory_is_its_equations(case, mask, flags):
    check_equations(case, mask, flags)


contexts = st.lists(st.integers(-5, 3), min_size=1, max_size=4, unique=True)


@given(contexts, masks, st.booleans(), st.booleans(), st.integers(1, 3))
def test_every_context_of_a_tdnn(context, mask, normalised, zeros, every):
    arguments = {"weight_normalization": normalised, "zero_output_for_mask": zeros, "subsampling": every}
    layer = keras_seq.TDNN(4, context=context, dtype="float64", **arguments)
    layer.build((None, None, D))
    check_reference(randomised(layer), mask)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 3), masks, st.booleans())
def test_every_tcn(dilations, size, mask, sequences):
    layer = keras_seq.TCN(3, size, dilations, return_sequences=sequences, dtype="float64")
    layer.build((None, None, D))
    check_reference(randomised(layer), mask)


kinds = st.sampled_from(["LSTM", "GRU", "SimpleRNN", "CoupledLSTM"])


@given(st.lists(kinds, min_size=1, max_size=3), st.sampled_from([None, "residual", "dense"]), masks, st.booleans())
def test_every_stack_and_both_directions_of_it(kinds, skips, mask, sequences):
    def layers():
        last = len(kinds) - 1
        return [
            getattr(keras_seq, kind)(3, return_sequences=i < last or sequences, dtype="float64")
            for i, kind in enumerate(kinds)
        ]

    for layer in (
        keras_seq.Stacked(layers(), skips=skips, dtype="float64"),
        keras_seq.Bidirectional(keras_seq.Stacked(layers(), skips=skips, dtype="float64"), dtype="float64"),
    ):
        layer.build((None, None, D))
        check_reference(randomised(layer), mask)


def check_reference(layer, mask):
    """Of a structure: what its equations give, with NaN behind the mask."""
    x = np.random.default_rng(0).normal(size=(*mask.shape, D))
    found = layer(tf.constant(np.where(mask[..., None], x, np.nan)), mask=tf.constant(mask))
    assert_close(tf.nest.flatten(found), structures.reference(layer, x, mask), 1e-10)


words = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=8
)


@given(st.lists(words, min_size=1, max_size=6))
def test_characters_come_back(texts):
    vocabulary = Vocabulary.of(texts, split="characters")
    assert [t.decode() for t in vocabulary.decode(vocabulary.encode(texts)).numpy()] == texts


@given(st.lists(st.lists(st.from_regex(r"[a-z]{1,5}", fullmatch=True), max_size=5), min_size=1, max_size=4))
def test_words_come_back(sentences):
    assume(any(sentences))
    texts = [" ".join(words) for words in sentences]
    vocabulary = Vocabulary.of(texts)
    assert [t.decode() for t in vocabulary.decode(vocabulary.encode(texts)).numpy()] == texts


@given(arrays.arrays("float64", st.integers(1, 20), elements=st.floats(-1, 1)), st.integers(1, 1023))
def test_companding_is_undone_up_to_its_rounding(signal, mu):
    classes = keras_seq.mu_law_encode(signal, mu).numpy()
    assert classes.min() >= 0
    assert classes.max() <= mu
    places = 1 + mu * np.abs(signal)
    step = places * np.log1p(mu) / mu / mu  # the width of a class at this place
    error = np.abs(keras_seq.mu_law_decode(classes, mu).numpy() - signal)
    assert np.all(error <= 1.5 * step + 1e-5)


logits = arrays.arrays(
    "float64", st.tuples(st.just(1), st.integers(1, 5), st.integers(2, 3)), elements=st.floats(-4, 4)
)


@given(logits, st.data())
def test_ctc_is_the_sum_over_all_paths(logits, data):
    time, size = logits.shape[1:]
    mask = data.draw(arrays.arrays(bool, (1, time)))
    blank = data.draw(st.integers(0, size - 1))
    labels = data.draw(st.lists(st.sampled_from([i for i in range(size) if i != blank]), max_size=time))
    expected = labellings(logits[0], mask[0], blank).get(tuple(labels), -np.inf)
    padded = np.array([[*labels, blank]])
    found = ctc_loss(padded, tf.constant(logits), tf.constant(mask), blank)
    np.testing.assert_allclose(-found.numpy(), [expected], rtol=1e-9, atol=1e-9)


@given(logits, st.integers(1, 6))
def test_prefixes_are_those_of_a_beam_by_hand(logits, width):
    time, size = logits.shape[1:]
    width = min(width, sum((size - 1) ** n for n in range(time + 1)))  # as many as there are labels at all
    jittered = logits + 1e-3 * np.random.default_rng(0).normal(size=logits.shape)  # no two scores alike
    expected = beam_by_hand(jittered[0], np.ones(logits.shape[1], bool), 0, width)
    tokens, scores = ctc_beam_search(tf.constant(jittered), width=width)
    best = max(expected, key=lambda found: found[1])
    assert [t for t in tokens.numpy()[0, 0] if t] == list(best[0])
    np.testing.assert_allclose(scores.numpy()[0, 0], best[1], rtol=1e-5, atol=1e-6)
