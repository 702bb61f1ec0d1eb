"""Zoneout: in training a drawn share of the states stays as it was, anew at each step; at other times the mean."""

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import EVERYTHING, Case, T, U, assert_close, differentiated, named, repeated
from oracles import Oracle

import keras_seq

SEQUENCES = {"return_sequences": True, "return_state": True}
CASES = [
    Case("SimpleRNN", {"outputs": 2, "zoneout": 0.4}),
    Case("Elman", {"outputs": 2, "blocked": False, "zoneout": 0.4}),
    Case("Jordan", {"outputs": 2, "blocked": False, "zoneout": 0.4}),
    Case("Jordan", {"outputs": 2, "blocked": False, "zoneout": 0.4}, targets=True),
    Case("ResidualRNN", {"recurrent": False, "zoneout": 0.4}),
    Case("LSTM", {"zoneout": [0.5, 0.25]}),
    Case("LSTM", {"peepholes": True, "full_gate_recurrence": True, "projection": 3, "zoneout": 0.4}),
    Case("LSTM", {**EVERYTHING, "zoneout": [0.5, 0.25]}),
    Case("GRU", {"reset_after": False, "zoneout": 0.4}),
]


def seeded(case, **flags):
    case = Case(case.layer, {**case.arguments, "seed": 5}, targets=case.targets)
    layer = case("float64", **SEQUENCES, **flags)
    return layer, conformance.data(case, layer)


@pytest.mark.parametrize(**named(CASES))
def test_every_state_is_the_old_one_or_what_the_equations_make(case):
    """Step by step from the states that came out; both happen; what is returned and shown is what stayed."""
    layer, given = seeded(case, stateful=False)
    cell = Oracle(layer.cell)
    cell.zoneout = [0.0] * 9
    kept, made = 0, 0
    states = [s.numpy() for s in given.states]
    for t in range(T):
        now = given._replace(x=given.x[:, t : t + 1], states=tuple(map(tf.constant, states)), mask=None)
        now = now._replace(targets=None if given.targets is None else given.targets[:, t : t + 1])
        output, *new = conformance.call(layer, now, training=True)
        for row in range(len(output)):
            target = None if now.targets is None else now.targets[row, 0].numpy()
            old = [s[row] for s in states]
            expected_output, expected, _ = cell.step(now.x[row, 0].numpy(), old, None, target)
            for found, before, after in zip(new, old, expected, strict=True):
                stays, changes = found[row].numpy() == before, np.isclose(found[row], after)
                assert np.all(stays | changes)
                kept, made = kept + np.sum(stays & ~changes), made + np.sum(changes & ~stays)
            if case.layer in ("LSTM", "GRU", "ResidualRNN"):  # the output is the state
                np.testing.assert_array_equal(output[row, 0], new[0][row])
            elif case.layer == "Jordan":
                np.testing.assert_allclose(output[row, 0], expected_output, atol=1e-10)
            else:
                np.testing.assert_allclose(output[row, 0], cell.readout(new[0][row].numpy()), atol=1e-10)
        states = [s.numpy() for s in new]
    assert kept > 5
    assert made > 5


@pytest.mark.deep
@pytest.mark.parametrize(**named(CASES))
def test_gradients_are_finite_differences(case):
    layer, given = seeded(case)
    conformance.check_differences_in_training(layer, given)


@pytest.mark.deep
@pytest.mark.parametrize(**named([*CASES[::2], Case("Elman", {"outputs": 2, "zoneout": 0.4})]))
def test_the_same_written_out_and_compiled(case):
    """The same random state gives the same masks, for a mask of real steps and internals too. XLA draws others."""
    layer, given = seeded(case, return_internals=True)
    unrolled, _ = seeded(case, return_internals=True, unroll=True)
    unrolled.cell.seed_generator.state.assign(layer.cell.seed_generator.state)

    def results(layer, **compiled):
        function = differentiated(layer, training=True)
        return repeated(layer, tf.function(function, **compiled) if compiled else function, *given)

    assert_close(results(unrolled), results(layer), 1e-10, "written out")
    if case.layer in ("Elman", "GRU"):
        assert_close(results(layer, jit_compile=False), results(layer), 1e-10, "in a graph")
        assert_close(results(layer, jit_compile=True), results(unrolled, jit_compile=True), 1e-10, "compiled")


@pytest.mark.parametrize("rates", [0.3, [0.6, 0.15]], ids=str)
def test_share_of_what_stays(rates):
    conformance.check_share_that_stays(rates)


@pytest.mark.deep
@pytest.mark.parametrize("jit", [None, False, True], ids=["eager", "graph", "jit"])
def test_the_same_seed_gives_the_same(jit):
    def results():
        keras.utils.set_random_seed(7)
        layer = keras_seq.LSTM(U, zoneout=[0.3, 0.1], seed=11, **SEQUENCES)
        layer.build((None, None, 3))
        function = differentiated(layer, training=True)
        if jit is not None:
            function = tf.function(function, jit_compile=jit)
        given = conformance.data(Case("LSTM"), layer)
        return function(*given), function(*given)

    (first, second), (again, _) = results(), results()
    assert_close(again, first, 0.0)
    assert np.abs(first[0][0] - second[0][0]).max() > 0.01, "two batches share a mask"


def test_nothing_is_drawn_when_not_training_nor_for_a_rate_of_zero():
    for rate, training, drawn in [
        (0.5, False, False),
        (0.0, True, False),
        ([0.0, 0.0], True, False),
        (0.5, True, True),
    ]:
        layer = keras_seq.LSTM(U, zoneout=rate)
        layer.build((None, None, 3))
        before = layer.cell.seed_generator.state.numpy()
        layer(tf.ones((2, T, 3)), training=training)
        assert (layer.cell.seed_generator.state.numpy() != before).any() == drawn


def test_one_state_alone():
    """A list with a rate of zero leaves its state alone."""
    layer = keras_seq.LSTM(U, zoneout=[0.0, 0.5], return_internals=True)
    _, internals = layer(tf.random.normal((8, T, 3)), training=True)
    stays = {name: internals[name][:, 1:] == internals[name][:, :-1] for name in ("hidden", "cell")}
    assert np.any(stays["cell"])
    assert not np.any(stays["hidden"])


def test_the_mean_at_inference_is_about_that_of_many_draws():
    case = Case("LSTM", {"zoneout": [0.1, 0.05], "seed": 1})
    layer = case("float64", return_sequences=True)
    given = conformance.data(case, layer)
    draws = [conformance.call(layer, given, training=True)[0] for _ in range(60)]
    assert np.std(draws, axis=0).max() > 0.01
    assert np.abs(np.mean(draws, axis=0) - conformance.call(layer, given)[0]).mean() < 0.01


def test_together_with_dropout_and_a_readout():
    case = Case("SimpleRNN", {"outputs": 2, "zoneout": 0.3, "dropout": 0.3, "recurrent_dropout": 0.3})
    layer, given = seeded(case)
    unrolled, _ = seeded(case, unroll=True)
    unrolled.cell.seed_generator.state.assign(layer.cell.seed_generator.state)
    expected = repeated(layer, differentiated(layer, training=True), *given)
    assert_close(repeated(unrolled, differentiated(unrolled, training=True), *given), expected, 1e-10)
