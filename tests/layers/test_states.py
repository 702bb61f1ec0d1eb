"""Initial states (given, kept, learned), loops written out, cells of Keras, and what a layer shows of itself."""

import dataclasses
import inspect

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import GAPS, KINDS, QUICK, Case, D, T, U, assert_close, differentiated, named

import keras_seq

SEQUENCES = {"return_sequences": True, "return_state": True}
MEMORIES = ["SimpleRNN", "LSTM", "PeepholeLSTM", "CoupledLSTM", "NoForgetLSTM", "GRU"]
# every memory that can learn its initial state
LEARNING = [
    *[Case(name) for name in MEMORIES],
    Case("SimpleRNN", {"outputs": 2}),
    Case("Elman", {"blocked": False}),
    Case("Jordan", {"outputs": 2, "blocked": False}),
    Case("Jordan", {"outputs": 2, "blocked": False}, targets=True),
    Case("ResidualRNN"),
    Case("ResidualRNN", {"recurrent": False}),
    Case("NARX", {**GAPS, "closed": True}),
    Case("NARX", GAPS, targets=True),
    Case("AR", {"outputs": D, "output_delays": [2, 3]}),
    Case("LSTM", {"peepholes": True, "full_gate_recurrence": True, "projection": 3}),
]


def learning(case):
    return dataclasses.replace(case, arguments={**case.arguments, "learn_initial_state": True})


def some_steps(given, time=slice(None)):
    """The data of these steps, without initial states."""
    mask = None if given.mask is None else given.mask[:, time]
    targets = None if given.targets is None else given.targets[:, time]
    return given._replace(x=given.x[:, time], mask=mask, targets=targets, states=())


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(**named(KINDS, quick=QUICK))
def test_stateful_batches_are_one_long_batch(case, masked):
    stateful, whole = case("float64", batch=4, stateful=True, **SEQUENCES), case("float64", **SEQUENCES)
    given = conformance.data(case, whole, t=2 * T, mask=masked)
    expected = conformance.call(whole, some_steps(given))
    first, second = (some_steps(given, half) for half in (slice(None, T), slice(T, None)))
    halves = [conformance.call(stateful, half) for half in (first, second)]
    assert_close(halves[1][1:], expected[1:], 1e-10, "state")
    if not masked:  # the second half of a batch does not know the first one's last output, which a mask would repeat
        assert_close([tf.concat([half[0] for half in halves], 1)], expected[:1], 1e-10, "output")
    stateful.reset_state()
    assert_close(conformance.call(stateful, first), halves[0], 1e-10)


def test_stateful_under_compilation():
    case = Case("LSTM")
    stateful, whole = case("float64", batch=4, stateful=True), case("float64")
    given = conformance.data(case, whole, t=2 * T, mask=False)
    compiled = tf.function(stateful, jit_compile=True)
    compiled(given.x[:, :T])
    assert_close([compiled(given.x[:, T:])], [whole(given.x)], 1e-10)


@pytest.mark.parametrize(**named(LEARNING, quick=LEARNING[-1:]))
def test_stateful_starts_from_the_learned_state_and_returns_to_it(case):
    case = learning(case)
    stateful = case("float64", batch=4, stateful=True, return_sequences=True)
    plain = case("float64", return_sequences=True)
    given = some_steps(conformance.data(case, plain, mask=False))
    stateful.reset_state()
    first = conformance.call(stateful, given)
    assert_close(first, conformance.call(plain, given), 1e-10)
    assert np.abs(conformance.call(stateful, given)[0] - first[0]).max() > 1e-3
    stateful.reset_state()
    assert_close(conformance.call(stateful, given), first, 0.0)


@pytest.mark.parametrize(**named(LEARNING, quick=LEARNING[-1:]))
def test_learned_initial_state(case):
    """It has names and zeros at first, is used, and its gradient is that of finite differences."""
    case = learning(case)
    layer = case("float64", **SEQUENCES)
    fresh = type(layer).from_config(layer.get_config())
    fresh.build((None, None, D))
    learned = {w.name: w for w in fresh.trainable_weights if w.name.startswith("initial")}
    assert list(learned) == [f"initial_{s}" for s in fresh.cell.state_names]
    assert [w.shape for w in learned.values()] == [(size,) for size in fresh.cell.state_size]
    assert not any(np.any(w.numpy()) for w in learned.values())

    for masked in (False, True):
        given = conformance.data(case, layer, mask=masked)._replace(states=())
        assert not conformance.check_against_differences(layer, given, directions=1)
    tiled = given._replace(states=tuple(tf.repeat(w.value[None], 4, 0) for w in layer.cell.initial_states))
    assert_close(conformance.call(layer, given), conformance.call(layer, tiled), 1e-12)


@pytest.mark.parametrize("inner", ["GRU", "LSTM"])
def test_conditioned_cell_keeps_its_cells_learned_state(inner):
    cell = getattr(keras_seq, inner + "Cell")(U, learn_initial_state=True, recurrent_dropout=0.25)
    layer = keras_seq.RNN(keras_seq.ConditionedCell(cell))
    layer(tf.ones((2, T, D)), constants=[tf.ones((2, 3))])
    names = [w.name for w in layer.trainable_weights]
    assert [n for n in names if n.startswith("initial")] == [f"initial_{s}" for s in cell.state_names]
    assert layer.cell.recurrent_dropout == 0.25


FLAGS = [
    {},
    {"go_backwards": True},
    {"zero_output_for_mask": True},
    {"go_backwards": True, "zero_output_for_mask": True},
]


@pytest.mark.deep
@pytest.mark.parametrize("flags", FLAGS, ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize(
    **named([Case("SimpleRNN", {"outputs": 2}), Case("PeepholeLSTM")], quick=[Case("PeepholeLSTM")])
)
def test_unrolled_is_the_loop(case, return_sequences, masked, flags):
    arguments = {"return_sequences": return_sequences, "return_state": True, **flags}
    layer, unrolled = case("float64", **arguments), case("float64", unroll=True, **arguments)
    given = conformance.data(case, layer, mask=masked)
    assert_close(differentiated(unrolled)(*given), differentiated(layer)(*given), 1e-10)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_cell_of_keras_in_our_layer(name, masked):
    cell = getattr(keras.layers, name + "Cell")(U, dtype="float64")
    ours = keras_seq.RNN(cell, dtype="float64", **SEQUENCES)
    theirs = keras.layers.RNN(cell, dtype="float64", **SEQUENCES)
    ours.build((None, None, D))
    conformance.randomised(ours)
    given = conformance.data(Case(name), _sized(ours), mask=masked)
    assert_close(differentiated(ours)(*given), differentiated(theirs)(*given), 1e-12)


def _sized(layer):
    layer.cell.output_size = layer.cell.units
    return layer


def test_stacked_cells_in_our_layer():
    cells = [keras_seq.LSTMCell(U), keras_seq.GRUCell(U)]
    layer = keras_seq.RNN(keras.layers.StackedRNNCells(cells), return_sequences=True)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, T, D)), "float32")
    lower, upper = keras_seq.RNN(cells[0], return_sequences=True), keras_seq.RNN(cells[1], return_sequences=True)
    assert_close([layer(x)], [upper(lower(x))], 1e-6)


@pytest.mark.parametrize("name", [*MEMORIES, "Elman", "Jordan", "ResidualRNN"])
def test_arguments_are_attributes_and_make_the_signature(name):
    cls = getattr(keras_seq, name)
    layer = cls(8, *([2] if name == "Jordan" else []), use_bias=False, recurrent_dropout=0.25, seed=3)
    assert (layer.units, layer.use_bias, layer.recurrent_dropout, layer.dropout, layer.seed) == (8, False, 0.25, 0.0, 3)
    assert layer.kernel_initializer is layer.cell.kernel_initializer
    assert not hasattr(layer, "no_such_argument")
    parameters = inspect.signature(cls).parameters
    assert next(iter(parameters)) == "units"
    assert {"activation", "return_sequences", "learn_initial_state", "kernel_regularizer", "kwargs"} <= set(parameters)
    assert parameters["return_state"].default is False
    assert "units" not in inspect.signature(layer).parameters
    assert list(inspect.signature(layer.call).parameters)[:2] == ["sequences", "initial_state"]


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_arguments_and_defaults_are_those_of_keras(name):
    ours, theirs = (inspect.signature(getattr(where, name)).parameters for where in (keras_seq, keras.layers))
    for parameter in theirs.values():
        if parameter.name in ("use_cudnn", "activity_regularizer", "kwargs"):
            continue
        assert parameter.name in ours
        assert ours[parameter.name].default == parameter.default, parameter.name
    common = [p for p in theirs if p in ("units", "activation", "recurrent_activation", "use_bias")]
    assert list(ours)[: len(common)] == common


@pytest.mark.parametrize(**named([c for c in conformance.CASES if not c.constants]))
def test_output_shapes_are_known_beforehand(case):
    for flags in (SEQUENCES, {}):
        layer = case(**flags)
        given = conformance.data(case, layer)
        targets = {"targets": keras.Input((None, layer.cell.output_size))} if case.targets else {}
        found = keras.tree.flatten(layer(keras.Input((None, D)), **targets))
        real = conformance.call(layer, given)
        unknown = [(None, None) if flags else (None,), *[(None,)] * (len(real) - 1)]
        assert [r.shape for r in found] == [(*n, r.shape[-1]) for n, r in zip(unknown, real, strict=True)]
        assert [r.dtype for r in found] == [r.dtype.name for r in real]


@pytest.mark.parametrize(**named([c for c in KINDS if c.cell is None]))
def test_output_shapes_are_computed(case):
    """Before the layer is built, from the shape of the sequences alone."""
    internals = {"return_internals": True}
    for flags in (SEQUENCES, {}, internals):
        built = case(**flags)
        fresh = type(built).from_config(built.get_config())
        given = conformance.data(case, built)
        further = {"targets": given.targets} if case.targets else {}
        real = built(given.x, initial_state=list(given.states), **further)
        expected = tf.nest.map_structure(lambda x: (None, *x.shape[1:]), real)
        found = fresh.compute_output_shape((None, T, D))
        assert found == expected


def test_regularizers_and_constraints_act():
    layer = keras_seq.LSTM(
        U, kernel_regularizer="l2", recurrent_regularizer="l1", bias_regularizer="l2", recurrent_constraint="non_neg"
    )
    layer(tf.ones((2, T, D)))
    kernel, recurrent, bias = (w.numpy() for w in layer.weights[:3])
    expected = [0.01 * np.sum(kernel**2), 0.01 * np.sum(np.abs(recurrent)), 0.01 * np.sum(bias**2)]
    np.testing.assert_allclose([float(loss) for loss in layer.losses], expected, rtol=1e-5)
    assert isinstance(layer.cell.recurrent_kernel.constraint, keras.constraints.NonNeg)
