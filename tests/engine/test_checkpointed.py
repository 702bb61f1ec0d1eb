"""Checkpoints change nothing but the memory; truncation is the cut that one makes by hand."""

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import ONE_OF_EACH, assert_close, call, differentiated, named

import keras_seq

SEQUENCES = {"return_sequences": True, "return_state": True}
VARIANTS = [{}, {"go_backwards": True}, {"zero_output_for_mask": True}, {"return_sequences": False}]


@pytest.mark.parametrize(**named([c for c in ONE_OF_EACH if c.layer in ("LSTM", "RNN")], quick=[]))
def test_checkpoints_change_no_value_and_no_gradient(case):
    """Five steps: chunks of three, the last one not full."""
    masked = ONE_OF_EACH.index(case) % 3 > 0  # most with a mask
    for flags in VARIANTS[1:]:
        plain, checkpointed = (case("float64", checkpoint=c, **{**SEQUENCES, **flags}) for c in (False, True))
        given = conformance.data(case, plain, mask=masked)
        assert_close(differentiated(checkpointed)(*given), differentiated(plain)(*given), 1e-11, str(flags))


@pytest.mark.deep
@pytest.mark.parametrize("steps", [1, 2, 4, 5, 7])
def test_checkpoints_of_all_lengths_eager_graph_and_compiled(steps):
    case = conformance.Case("PeepholeLSTM")
    plain, checkpointed = (case("float64", checkpoint=c, **SEQUENCES) for c in (False, True))
    given = conformance.data(case, plain, t=steps)
    expected = differentiated(plain)(*given)
    for run in (lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)):
        assert_close(run(differentiated(checkpointed))(*given), expected, 1e-11)


@pytest.mark.parametrize("arguments", [{"checkpoint": True}, {"truncate": 2}], ids=str)
def test_one_graph_serves_all_sizes(arguments):
    case = conformance.Case("LSTM")
    layer = case("float64", **arguments, **SEQUENCES)
    examples = [conformance.data(case, layer, b, t, seed=t) for b, t in [(4, 5), (2, 3), (1, 1), (3, 8)]]
    graph = conformance.of_any_size(differentiated(layer), case, examples[0])
    for given in examples:
        assert_close(graph(*given), differentiated(layer)(*given), 1e-11)


def cut_by_hand(layer, k):
    """The layer over k steps at a time, the states handed on without their gradients."""

    def apply(_, given, training):
        outputs, states = [], given.states
        for start in range(0, given.x.shape[1], k):
            mask = None if given.mask is None else given.mask[:, start : start + k]
            part = given._replace(x=given.x[:, start : start + k], mask=mask, states=states)
            found = call(layer, part, training)
            outputs.append(found[0])
            states = [tf.stop_gradient(s) for s in found[1:]]
        return [tf.concat(outputs, 1), *found[1:]]

    return apply


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_truncation_is_the_cut_made_by_hand(k):
    case = conformance.Case("LSTM")
    truncated, plain = case("float64", truncate=k, **SEQUENCES), case("float64", **SEQUENCES)
    given = conformance.data(case, plain, mask=False)
    results, gradients = differentiated(truncated)(*given)
    expected = differentiated(plain, apply=cut_by_hand(plain, k))(*given)
    assert_close((results, gradients), expected, 1e-11)
    whole = differentiated(plain)(*given)[1]
    blocked = getattr(truncated.cell, "blocked", False)
    differs = any(np.any(np.abs(a - b) > 1e-6) for a, b in zip(gradients, whole, strict=True))
    assert differs == (k < conformance.T and not blocked), "the cut is not where it should be"


def test_truncation_with_masks_and_reversed():
    """Zeros at masked steps, as by hand a chunk does not know the last output of the one before."""
    case = conformance.Case("GRU", {"reset_after": False})
    flags = {**SEQUENCES, "zero_output_for_mask": True}
    truncated, plain = case("float64", truncate=2, **flags), case("float64", **flags)
    given = conformance.data(case, plain)
    expected = differentiated(plain, apply=cut_by_hand(plain, 2))(*given)
    assert_close(differentiated(truncated)(*given), expected, 1e-11)
    backwards = case("float64", truncate=2, go_backwards=True, **flags)
    reversed_ = given._replace(x=given.x[:, ::-1], mask=given.mask[:, ::-1])
    results, gradients = differentiated(backwards)(*reversed_)
    assert_close((results, [gradients[0][:, ::-1], *gradients[1:]]), expected, 1e-11)


@pytest.mark.deep
def test_truncation_compiled_and_trained():
    x = np.random.default_rng(0).normal(size=(16, 7, 3)).astype("float32")
    layer = keras_seq.LSTM(4, truncate=3, recurrent_dropout=0.1, zoneout=0.1, return_sequences=True)
    model = keras.Sequential([layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.03), "mse", jit_compile=True)
    losses = model.fit(x, np.cumsum(x[..., :1], axis=1), epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("arguments", [{"checkpoint": True}, {"truncate": 2}], ids=str)
def test_second_derivatives(arguments):
    case = conformance.Case("SimpleRNN")
    layer, plain = case("float64", **arguments, **SEQUENCES), case("float64", **SEQUENCES)
    given = conformance.data(case, plain, mask=False)
    by_hand = cut_by_hand(plain, arguments.get("truncate", conformance.T))

    def second(layer, apply):
        with tf.GradientTape() as tape:
            tape.watch(given.x)
            _, gradients = differentiated(layer, apply=apply)(*given)
            loss = sum(tf.reduce_sum(g * g) for g in gradients)
        return tape.gradient(loss, [given.x, *[w.value for w in layer.trainable_variables]])

    assert_close(second(layer, call), second(plain, by_hand), 1e-10)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"truncate": 0}, ValueError, "truncate: expected a positive integer, got 0"),
        ({"truncate": 2.0}, TypeError, "truncate: expected a positive integer, got 2.0"),
        ({"checkpoint": 1}, TypeError, "checkpoint: expected True or False, got 1"),
        ({"checkpoint": True, "unroll": True}, ValueError, "checkpoint: expected False where the engine does not run"),
        ({"truncate": 3, "unroll": True}, ValueError, "truncate: expected None where the engine does not run"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        keras_seq.LSTM(4, **arguments)
