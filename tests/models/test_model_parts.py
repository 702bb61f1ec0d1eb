"""Every model with every kind of part: what it trains is what it writes, or it says no by name."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_seq
from keras_seq import GRU, LSTM, RNN, TCN, TDNN, AttentionCell, Bidirectional, GRUCell, LSTMCell, Stacked, WaveNet
from keras_seq.models import ImageCaptioner, LanguageModel, Seq2Seq, Vocabulary

pytestmark = pytest.mark.filterwarnings("ignore:.*receptive field")
WORDS = Vocabulary(list("abcd"), "characters")
PAD, START, END = WORDS.pad, WORDS.start, WORDS.end
U, LENGTH = 4, 4  # as wide as the embeddings


def memory(kind, *arguments, **named):
    return lambda: kind(*arguments, **{"return_sequences": True, **named})


def attending(cell=GRUCell, **arguments):
    return lambda: RNN(AttentionCell(cell(U), **{"output_units": U, **arguments}), return_sequences=True)


def stack(*parts, **arguments):
    return lambda: Stacked([part() for part in parts], **arguments)


gru = memory(GRU, U)
PARTS = {
    "plain": memory(LSTM, U),
    "return_state": memory(LSTM, U, return_state=True),
    "last": memory(LSTM, U, return_sequences=False),
    "stateful": memory(LSTM, U, stateful=True),
    "go_backwards": memory(LSTM, U, go_backwards=True),
    "zero_output_for_mask": memory(LSTM, U, zero_output_for_mask=True),
    "unroll": memory(LSTM, U, unroll=True),
    "truncate": memory(LSTM, U, truncate=2),
    "checkpoint": memory(LSTM, U, checkpoint=True),
    "dropout": memory(LSTM, U, dropout=0.2, recurrent_dropout=0.3),
    "zoneout": memory(LSTM, U, zoneout=0.2),
    "learn_initial_state": memory(LSTM, U, learn_initial_state=True),
    "return_internals": memory(LSTM, U, return_internals=True),
    "conditioned": lambda: RNN(keras_seq.ConditionedCell(GRUCell(U)), return_sequences=True),
    "attention": attending(),
    "attention, return_state": lambda: RNN(AttentionCell(LSTMCell(U)), return_sequences=True, return_state=True),
    "attention, input_feeding": attending(query="after", input_feeding=True),
    "attention, late": attending(query="after", score="general"),
    "attention above": stack(gru, attending()),
    "attention below": stack(attending(), gru, skips="residual"),
    "attention above and below": stack(attending(), attending(score="dot", query="after")),
    "attention within": stack(gru, stack(attending(), gru, skips="dense")),
    "Jordan": memory(keras_seq.Jordan, U, U),
    "Elman": memory(keras_seq.Elman, U, outputs=U),
    "NARX": memory(keras_seq.NARX, U, U, output_delays=2),
    "NARX, closed": memory(keras_seq.NARX, U, U, output_delays=2, closed=True),
    "AR": memory(keras_seq.AR, outputs=U, output_delays=2),
    "AR, wider": memory(keras_seq.AR, outputs=U + 1, output_delays=2),
    "cell of Keras": lambda: RNN(layers.LSTMCell(U), return_sequences=True),
    "cells of Keras": lambda: RNN([layers.LSTMCell(U), layers.GRUCell(U)], return_sequences=True),
    "layer of Keras": lambda: layers.LSTM(U, return_sequences=True),
    "Stacked, return_state": stack(gru, memory(LSTM, U, return_state=True), return_state=True),
    "Stacked, residual": stack(gru, gru, skips="residual"),
    "Stacked, dense": stack(gru, memory(LSTM, U, zero_output_for_mask=True), skips="dense"),
    "Stacked, a stateful layer": stack(gru, memory(GRU, U, stateful=True)),
    "Stacked, an unrolled layer": stack(gru, memory(GRU, U, unroll=True)),
    "Bidirectional": lambda: Bidirectional(gru()),
    "Bidirectional, return_state": lambda: Bidirectional(memory(LSTM, U, return_state=True)()),
    "Bidirectional, pair": lambda: Bidirectional(gru(), merge_mode=None),
    "Bidirectional below": stack(lambda: Bidirectional(gru()), gru),
    "TDNN": lambda: TDNN(U, delays=3),
    "TDNN, ahead": lambda: TDNN(U, context=[-1, 0, 1]),
    "TDNN, subsampling": lambda: TDNN(U, delays=2, subsampling=2),
    "TCN": memory(TCN, U, dilations=[1, 2]),
    "WaveNet": lambda: WaveNet(U, dilations=[1, 2]),
    "convolutions below": stack(lambda: TDNN(U, delays=2), gru),
}
READING = [part for part in PARTS if part.startswith(("attention", "conditioned"))]
REVERSED = ("go_backwards", *[part for part in PARTS if part.startswith("Bidirectional")], "TDNN, ahead")
REFUSED = {  # what each role says of a part, by role and part; what stands for a role stands for all its parts
    "encoder": {
        "last": "encoder: expected return_sequences=True, got lstm.* without",
        "stateful": "encoder: expected stateful=False, as each source begins anew, got lstm.* with True",
        "Stacked, a stateful layer": "encoder: expected stateful=False, as each source begins anew, got stacked.* with",
        "unroll": "encoder: expected unroll=False, as sequences are of any length, got lstm.* with True",
        "Stacked, an unrolled layer": "encoder: expected unroll=False, as sequences are of any length, got stacked",
        "return_internals": "encoder: expected a layer with return_internals=False, got lstm",
        "NARX": "encoder: expected a layer that reads its inputs alone, got narx.*, which needs targets",
        "AR, wider": "encoder: expected a layer that reads inputs of width 4 alone, got ar",
        "layer of Keras": "encoder: expected a sequence layer of keras_seq, got <LSTM",
        "Bidirectional, pair": "encoder: expected a layer with one output, got bidirectional.* with merge_mode=None",
        "TDNN, subsampling": "encoder: expected as many outputs as inputs, got tdnn",
        **dict.fromkeys(READING, "encoder: expected a layer that reads no constants, got"),
    },
    "decoder": {
        **dict.fromkeys(REVERSED, "decoder: expected a layer that can be run step by step; (its|it reads)"),
        "Bidirectional below": "decoder: expected a layer that can be run step by step; of bidirectional.*, its backward",
        "Bidirectional, pair": "decoder: expected a layer with one output, got bidirectional.* with merge_mode=None",
        "TDNN, subsampling": "decoder: expected a layer that can be run step by step; it gives one step of 2 only",
        "conditioned": "constants: expected one of shape",
        **dict.fromkeys(("TDNN", "TCN", "WaveNet"), "decoder: expected a layer with states or attention, which read"),
    },
    "memory": {
        **dict.fromkeys(REVERSED, "memory: expected a layer that reads forwards step by step, got .*; (its|it reads)"),
        "Bidirectional below": "memory: expected a layer that reads forwards step by step, got stacked.*; of bidirectional",
        "Bidirectional, pair": "memory: expected a layer with one output, got bidirectional.* with merge_mode=None",
        "TDNN, subsampling": "memory: expected a layer that reads forwards step by step, got .*; it gives one step of 2",
        "stateful": "memory: expected stateful=False, as the model carries the states, got lstm",
        "Stacked, a stateful layer": "memory: expected stateful=False, as the model carries the states, got stacked",
        **dict.fromkeys(READING, "memory: expected a layer that reads no constants, got"),
    },
}
for role in ("decoder", "memory"):  # said of each by its own name
    for part in ("last", "return_internals", "NARX", "AR, wider", "layer of Keras"):
        REFUSED[role][part] = REFUSED["encoder"][part].replace("encoder", role)
for part in ("stateful", "Stacked, a stateful layer", "unroll", "Stacked, an unrolled layer"):
    REFUSED["decoder"][part] = REFUSED["encoder"][part].replace("encoder", "decoder")

MODELS = {
    "encoder": lambda part: Seq2Seq(WORDS, WORDS, part(), attending()(), embedding_size=U, max_length=LENGTH),
    "encoder of states": lambda part: Seq2Seq(WORDS, WORDS, part(), gru(), embedding_size=U, max_length=LENGTH),
    "decoder": lambda part: Seq2Seq(WORDS, WORDS, gru(), part(), embedding_size=U, max_length=LENGTH),
    "memory": lambda part: LanguageModel(WORDS, part(), embedding_size=U, max_length=LENGTH, seed=1),
}


def refused(role, part):
    return REFUSED[role.split()[0]].get(part)


GRID = [(role, part) for role in MODELS for part in PARTS]
RIGHT = [pair for pair in GRID if not refused(*pair)]
QUICK = [("encoder", "return_state"), ("decoder", "attention above and below"), ("decoder", "attention within")]


def rows(pairs):
    return {"argnames": ("role", "part"), "argvalues": pairs, "ids": ["-".join(pair) for pair in pairs]}


@pytest.mark.parametrize(**rows([pair for pair in GRID if refused(*pair)]))
def test_a_part_that_does_not_fit_is_refused_by_name(role, part):
    with pytest.raises((TypeError, ValueError), match=refused(role, part)):
        MODELS[role](PARTS[part])


@pytest.mark.parametrize(**rows(QUICK))
def test_what_a_model_trains_is_what_it_writes(role, part):
    check(MODELS[role](PARTS[part]))


@pytest.mark.deep
@pytest.mark.parametrize(**rows(RIGHT))
def test_what_every_model_trains_is_what_it_writes(role, part):
    check(MODELS[role](PARTS[part]))


def drawn(model, scale=0.6):
    rng = np.random.default_rng(2)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(scale=scale, size=weight.shape))
    return model


def tokens(seed, steps):
    """Three rows, padded at the end."""
    found = np.random.default_rng(seed).integers(END + 1, len(WORDS), (3, steps)).astype("int32")
    found[0, steps - 3 :], found[1, steps - 1 :] = PAD, PAD
    return found


def padded(tokens, more=2):
    return np.pad(tokens, ((0, 0), (0, more)), constant_values=PAD)


def check(model):
    drawn(model)
    source, target = tokens(0, 6), np.pad(tokens(1, 6), ((0, 0), (1, 0)), constant_values=START)
    check_written(model, source, target, lambda source, target: target if source_free(model) else (source, target))


def source_free(model):
    return isinstance(model, LanguageModel)


def check_written(model, source, target, inputs):
    logits = model(inputs(source, target)).numpy()
    assert np.ptp(logits, axis=0).max() > 1e-2, "the rows say the same"
    # padding changes nothing, nor do other rows
    close(model(inputs(source, padded(target)))[:, : target.shape[1]], logits)
    close(model(inputs(source[:1], target[:1, :4])), logits[:1, :4])
    if source.ndim == 2 and not source_free(model):
        close(model(inputs(padded(source), target)), logits)
        close(model(inputs(source[:1, :3], target[:1])), logits[:1])
    check_trained(model, source, target, inputs)
    check_steps(model, source, target, inputs)
    check_decoders(model, source, inputs)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def check_trained(model, source, target, inputs):
    """A step of training moves the weights, keeps them finite, and is in the file."""
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    before = [w.numpy() for w in model.trainable_variables]
    model.fit(inputs(source, target), np.pad(target[:, 1:], ((0, 0), (0, 1)), constant_values=END), verbose=0)
    after = [w.numpy() for w in model.trainable_variables]
    assert all(np.isfinite(a).all() for a in after)
    assert any((a != b).any() for a, b in zip(after, before, strict=True))
    if source_free(model):
        model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        model.fit(model.streams("abcdabdcacdb" * 2, rows=2, steps=4), shuffle=False, verbose=0)


def check_steps(model, source, target, inputs):
    """Token by token, what it is when all are given at once."""
    expected = model(inputs(source, target)).numpy()
    state, constants = model.begin(source, len(target))
    for t in range(4):
        logits, state = model.next_token(tf.constant(target[:, t]), state, constants)
        close(logits, expected[:, t])


def check_decoders(model, source, inputs):
    """Each writes what its own logits say; a beam's scores are the sums of their logarithms."""
    prompt = tf.fill([3, 1], START)
    greedy = model.generate_tokens(source, prompt, "greedy").numpy()
    close(model.generate_tokens(source, prompt, "beam", width=1)[0][:, 0], greedy)
    assert model.generate_tokens(source, prompt, "sample", seed=1).shape == (3, LENGTH)
    found, scores = model.generate_tokens(source, prompt, "beam", width=3, n_best=2, length_penalty=0.0)
    for best in range(2):
        written = found[:, best].numpy()
        read = np.pad(written[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        log = tf.nn.log_softmax(model(inputs(source, read))).numpy()
        log = np.take_along_axis(log, written[:, :, None], axis=2)[:, :, 0]
        close(scores[:, best], np.where(written != PAD, log, 0).sum(1))
    if getattr(model, "attends", False) and isinstance(model, Seq2Seq):
        covered, _ = model.generate_tokens(source, prompt, "beam", width=3, coverage_penalty=0.5)
        assert covered.shape == (3, 1, LENGTH)
        weights = model.alignment(["abc", "d"], ["ab", "dd"])
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


@pytest.mark.deep
@pytest.mark.parametrize(**rows([pair for pair in RIGHT if pair[0] != "encoder of states"]))
def test_a_model_of_any_part_survives_its_file(role, part, tmp_path):
    model = drawn(MODELS[role](PARTS[part]))
    source, target = tokens(0, 6), tokens(1, 6)
    inputs = target if source_free(model) else (source, target)
    model.save(tmp_path / "model.keras")
    close(keras.models.load_model(tmp_path / "model.keras")(inputs), model(inputs))


@pytest.mark.deep
@pytest.mark.parametrize("part", ["attention above and below", "attention within", "NARX, closed", "cells of Keras"])
def test_compiled_writing(part):
    model = drawn(MODELS["decoder"](PARTS[part]))
    sources = ["abca", "d", "bdcab"]
    for decoder, options in (("greedy", {}), ("beam", {"width": 2}), ("sample", {"seed": 3})):
        texts = model.generate(sources, decoder=decoder, **options)
        assert len(texts) == 3
    prompt = tf.fill([3, 1], START)
    eager = model.generate_tokens(model.tokens(sources), prompt, "greedy")
    np.testing.assert_array_equal(model.compiled_tokens(model.tokens(sources), prompt, "greedy"), eager)


def test_what_several_layers_read_counts_as_their_mean():
    model = drawn(MODELS["decoder"](stack(attending(), attending(query="after"))))
    source, token = tokens(0, 6), tf.fill([3], START)
    state, constants = model.begin(source, 3)
    _, new = model.next_token(token, state, constants)
    states, memory = model.encode(source)
    lower, upper = model.decoder.layers
    x = model.target_embedding(token)[:, None]
    read = []
    for layer, first in ((lower, states[0]), (upper, states[1])):
        shown = RNN(layer.cell, return_sequences=True, return_internals=True)
        x, internals = shown(x, initial_state=[first], constants=memory)
        read.append(internals["alignment"][:, 0])
    close(new["coverage"] - state["coverage"], (read[0] + read[1]) / 2)


# -- captions --------------------------------------------------------------------------------------------------------------

CELLS = {
    "LSTM": lambda: LSTMCell(U),
    "zoneout": lambda: GRUCell(U, zoneout=0.2),
    "learn_initial_state": lambda: GRUCell(U, learn_initial_state=True),
    "dropout": lambda: LSTMCell(U, dropout=0.1, recurrent_dropout=0.2),
    "readout": lambda: keras_seq.SimpleRNNCell(U, outputs=3),
    "Elman": lambda: keras_seq.ElmanCell(U, outputs=U),
    "Jordan": lambda: keras_seq.JordanCell(U, U),
    "NARX": lambda: keras_seq.NARXCell(U, U, output_delays=2),
    "AR": lambda: keras_seq.ARCell(outputs=U, output_delays=2),
    "ResidualRNN": lambda: keras_seq.ResidualRNNCell(U),
    "attention": lambda: AttentionCell(GRUCell(U)),
    "attention, late": lambda: AttentionCell(GRUCell(U), query="after", score="general"),
    "conditioned": lambda: keras_seq.ConditionedCell(GRUCell(U)),
    "cell of Keras": lambda: layers.GRUCell(U),
}
OUTPUTS_OF_ITS_OWN = (
    r"cell: expected one without zoneout or outputs of its own where the output is made of what is read"
)
NO_CELLS = {
    "initial_state": {
        **dict.fromkeys(("attention", "attention, late", "conditioned"), "cell: expected one that reads no constants"),
        "cell of Keras": "cell: expected a keras_seq.Cell with features_as='initial_state', got <GRUCell",
    },
    "each_step": {
        **dict.fromkeys(("NARX", "AR"), "cell: expected one whose `project` gives one tensor, got (NARX|AR)Cell"),
        **dict.fromkeys(
            ("attention", "attention, late", "conditioned", "cell of Keras"),
            "cell: expected a keras_seq.GatedCell with features_as='each_step', got <",
        ),
    },
    "attention": {
        **dict.fromkeys(("zoneout", "readout", "Elman", "Jordan", "NARX", "AR"), OUTPUTS_OF_ITS_OWN),
        "conditioned": "cell: expected a keras_seq.GatedCell with query='before' or input_feeding, got <ConditionedCell",
        "cell of Keras": "cell: expected a keras_seq.Cell with features_as='attention', got <GRUCell",
    },
}
CAPTIONERS = [(features_as, cell) for features_as in NO_CELLS for cell in CELLS]


def captioner(features_as, cell):
    encoder = [keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layers.Conv2D(3, 3, strides=4)]
    encoder = keras.Sequential([*encoder, *([] if features_as == "attention" else [layers.Flatten()])])
    arguments = {"encoder": encoder, "features_as": features_as, "embedding_size": U, "max_length": LENGTH}
    return ImageCaptioner(WORDS, (8, 8, 3), CELLS[cell](), **arguments)


@pytest.mark.parametrize(("features_as", "cell"), [(f, c) for f, c in CAPTIONERS if c in NO_CELLS[f]])
def test_a_cell_that_does_not_fit_is_refused_by_name(features_as, cell):
    with pytest.raises((TypeError, ValueError), match=NO_CELLS[features_as][cell]):
        captioner(features_as, cell)


@pytest.mark.deep
@pytest.mark.parametrize(("features_as", "cell"), [(f, c) for f, c in CAPTIONERS if c not in NO_CELLS[f]])
def test_what_a_captioner_trains_is_what_it_writes(features_as, cell, tmp_path):
    model = drawn(captioner(features_as, cell))
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("uint8")
    target = np.pad(tokens(1, 6), ((0, 0), (1, 0)), constant_values=START)
    check_written(model, pictures, target, lambda pictures, target: (pictures, target))
    model.save(tmp_path / "model.keras")
    close(keras.models.load_model(tmp_path / "model.keras")((pictures, target)), model((pictures, target)))


def test_every_refusal_names_what_is_refused():
    for role, found in REFUSED.items():
        assert all(re.match(f"({role}|constants): ", message) for message in found.values())
