"""Ids that are none of the vocabulary: each is seen, and none moves a weight."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import token_models
from token_models import INPUTS, MAKE, SIZE, WORDS, batch, made, read, weights

from keras_seq.metrics import BitsPerCharacter, Perplexity

WRONG = (-1, SIZE, 99)
MODES = {
    "eager": {"run_eagerly": True},
    "graph": {"jit_compile": False},
    "XLA": {"jit_compile": True},
}


def spoilt(kind, name, wrong):
    """A batch with one id of its second row exchanged."""
    inputs, targets = batch(kind)
    changed = targets if name == "targets" else inputs[name]
    changed[1, 2] = wrong
    return read(inputs), targets


@pytest.mark.deep
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", MAKE)
def test_no_weight_moves_wherever_such_an_id_is_and_whatever_it_is(kind, mode):
    model = trained(kind, mode)
    for name in (*(name for name in INPUTS[kind] if name != "images"), "targets"):
        for wrong in WRONG:
            check_moves_nothing(model, kind, name, wrong, mode)


def moves_nothing(kind, name, wrong, mode):
    check_moves_nothing(trained(kind, mode), kind, name, wrong, mode)


def trained(kind, mode):
    """A model that has taken two steps, of an optimizer with momentum."""
    model = made(kind)
    model.compile(keras.optimizers.AdamW(0.01), **MODES[mode])
    inputs, targets = batch(kind)
    first, second = [model.train_on_batch(read(inputs), targets) for _ in range(2)]
    assert second < first
    return model


def check_moves_nothing(model, kind, name, wrong, mode):
    before = weights(model)
    data = spoilt(kind, name, wrong)
    if mode == "XLA":
        assert np.isnan(model.train_on_batch(*data))
        assert np.isnan(model.test_on_batch(*data))
    else:
        error = ValueError if mode == "eager" else tf.errors.InvalidArgumentError
        with pytest.raises(error, match=rf"{name}: expected integers from 0 to {SIZE - 1}, got.*{wrong}"):
            model.train_on_batch(*data)
    for now, then in zip(weights(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
    model.reset_metrics()
    inputs, targets = batch(kind)
    assert np.isfinite(model.train_on_batch(read(inputs), targets))  # and it goes on
    assert any(np.any(now != then) for now, then in zip(weights(model), before, strict=True))


@pytest.mark.deep
def test_the_logits_of_such_rows_alone_are_nan_and_send_no_gradient():
    model = made("Seq2Seq")
    inputs, _ = batch("Seq2Seq")
    compiled = tf.function(lambda x, training: model(x, training=training), jit_compile=True)
    right = compiled(read(inputs), False).numpy()
    wrong = {name: tokens.copy() for name, tokens in inputs.items()}
    wrong["source tokens"][0, 1], wrong["target tokens"][2, 1] = -1, 99
    found = compiled(read(wrong), False).numpy()
    assert np.all(np.isnan(found[[0, 2]]))
    np.testing.assert_allclose(found[1], right[1], atol=1e-5)

    @tf.function(jit_compile=True)
    def gradients(x):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(tf.ones(logits.shape[:2], "int32"), logits)
            )
        return loss, tape.gradient(loss, model.trainable_variables)

    loss, found = gradients(read(wrong))
    assert np.isnan(loss)
    assert all(np.all(np.isfinite(tf.convert_to_tensor(g))) for g in found)


@pytest.mark.deep
def test_the_states_that_are_carried_stay_finite():
    model = made("LanguageModel")
    model.compile("sgd", jit_compile=True)
    tokens = token_models.ids()
    data = tf.data.Dataset.from_tensors(((tokens, np.ones(3, "int32")), tokens))
    wrong = tf.data.Dataset.from_tensors(((np.where(tokens == tokens[1, 1], -1, tokens), np.zeros(3, "int32")), tokens))
    on = tf.data.Dataset.from_tensors(((tokens, np.zeros(3, "int32")), tokens))
    losses = [model.fit(d, shuffle=False, verbose=0).history["loss"][0] for d in (data, wrong, on)]
    assert np.isnan(losses).tolist() == [False, True, False]


def test_what_the_loss_ignores_and_targets_of_another_kind_are_left_alone():
    model, (inputs, targets) = made("LanguageModel"), batch("LanguageModel")
    expected = None
    for hidden in (WORDS.pad, -1, 255):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=hidden)
        model.compile("sgd", loss, jit_compile=False)
        found = model.test_on_batch(read(inputs), np.where(targets == WORDS.pad, hidden, targets))
        expected = found if expected is None else expected
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=True)
    assert np.isfinite(model.test_on_batch(read(inputs), np.eye(SIZE, dtype="int32")[targets]))


# -- writing -----------------------------------------------------------------------------------------------------------

PROMPTS = {
    -1: [[WORDS.start, 4], [WORDS.start, -1], [WORDS.start, 6]],
    99: [[WORDS.start, 4], [99, 5], [WORDS.start, 6]],
}


@pytest.mark.parametrize("wrong", PROMPTS)
@pytest.mark.parametrize("kind", MAKE)
def test_prompts_are_checked_eagerly_in_graphs_and_compiled(kind, wrong):
    model, (inputs, _) = made(kind), batch(kind)
    first = None if kind == "LanguageModel" else next(iter(inputs.values()))
    prompt = np.array(PROMPTS[wrong], "int32")
    message = rf"prompt: expected integers from 0 to {SIZE - 1}, got.*{wrong}"
    for write in (model.generate_tokens, model.compiled_tokens):
        with pytest.raises(ValueError, match=message):
            write(first, prompt)
    in_graph = tf.function(lambda p: model.generate_tokens(first, p), autograph=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        in_graph(prompt)
    compiled = tf.function(lambda p: model.generate_tokens(first, p), autograph=False, jit_compile=True)
    found, right = compiled(prompt).numpy(), model.generate_tokens(first, np.where(prompt == wrong, 5, prompt)).numpy()
    assert np.all(found[1] == WORDS.pad)
    np.testing.assert_array_equal(found[[0, 2]], right[[0, 2]])


@pytest.mark.parametrize("decoder", ["greedy", "sample", "beam"])
def test_sources_are_checked_eagerly_in_graphs_and_compiled(decoder):
    model, source = made("Seq2Seq"), token_models.ids()
    right = tf.nest.flatten(
        model.generate_tokens(source, decoder=decoder, **({"seed": 1} if decoder == "sample" else {}))
    )
    source[1, 2] = SIZE
    message = f"source tokens: expected integers from 0 to {SIZE - 1}, got.*{SIZE}"
    for write in (model.generate_tokens, model.compiled_tokens):
        with pytest.raises(ValueError, match=message):
            write(source, decoder=decoder)

    def write(source):
        return model.generate_tokens(source, decoder=decoder, **({"seed": 1} if decoder == "sample" else {}))

    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.function(write, autograph=False)(source)
    found = tf.nest.flatten(tf.function(write, autograph=False, jit_compile=True)(source))
    assert np.all(found[0][1] == WORDS.pad)
    np.testing.assert_array_equal(found[0].numpy()[[0, 2]], right[0].numpy()[[0, 2]])


# -- metrics -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [Perplexity, BitsPerCharacter])
@pytest.mark.parametrize("wrong", [-1, 4])
def test_metrics_refuse_them(metric, wrong):
    targets, logits = tf.constant([[1, wrong, 0]]), tf.zeros((1, 3, 4))
    message = f"y_true: expected integers from 0 to 3, got.*{wrong}"

    def result(metric, targets, weights=None):
        metric.update_state(targets, logits, weights)
        return metric.result()

    with pytest.raises(ValueError, match=message):
        result(metric(), targets)
    one = metric()
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.function(lambda y: result(one, y))(targets)
    other = metric()
    assert np.isnan(tf.function(lambda y: result(other, y), jit_compile=True)(targets))
    # what is hidden may be anything
    assert np.isfinite(result(metric(pad=wrong), targets))
    third = metric()
    weights = tf.constant([[1.0, 0.0, 1.0]])
    assert np.isfinite(tf.function(lambda y: result(third, y, weights))(targets))
