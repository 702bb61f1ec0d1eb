"""Gradients carried forward: those of backpropagation through time, for every kind of cell."""

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import KINDS, Case, assert_close, named
from keras import ops

import keras_seq
from keras_seq.training import RTRL, UORO, SnAp1

STEPS = 5
CELLS = [c for c in KINDS if not c.targets and (not c.constants or c().cell.batched_constants)]


def loss_of_step(t):
    """A loss that no two steps and no two outputs have alike."""
    return lambda y: tf.reduce_sum(tf.sin(y * (1.0 + 0.3 * t)) * tf.cast(tf.range(1, y.shape[-1] + 1), y.dtype))


def by_backpropagation(cell, x, constants):
    layer = keras_seq.RNN(cell, return_sequences=True, dtype="float64")
    further = {"constants": list(constants)} if constants else {}
    with tf.GradientTape() as tape:
        y = layer(x, training=True, **further)
        value = sum(loss_of_step(t)(y[:, t]) for t in range(x.shape[1]))
    return value, tape.gradient(value, cell.trainable_variables, unconnected_gradients="zero")


def over_a_sequence(rule, x, constants=()):
    """The sums of the losses and the gradients of all steps."""
    state, value = rule.initial_state(x.shape[0]), 0.0
    total = [tf.zeros_like(w) for w in rule.weights]
    for t in range(x.shape[1]):
        loss, _, gradients, state = rule.step(x[:, t], state, loss_of_step(t), constants)
        value, total = value + loss, [a + b for a, b in zip(total, gradients, strict=True)]
    return value, total


@pytest.mark.filterwarnings("ignore:cell. .* lets no gradient through its states")
@pytest.mark.parametrize(**named(CELLS, quick=[Case("LSTM"), Case("GRU", {"reset_after": False}), Case("Elman")]))
def test_equal_to_backpropagation_through_time(case):
    layer = case("float64")
    given = conformance.data(case, layer, b=2, t=STEPS, mask=False)
    expected, gradients = by_backpropagation(layer.cell, given.x, given.constants)
    value, found = over_a_sequence(RTRL(layer.cell), given.x, given.constants)
    assert_close([value], [expected], 1e-10)
    assert_close(found, gradients, 1e-9)
    assert any(np.any(g != 0) for g in gradients)


def test_learned_initial_states_have_their_gradient():
    case = Case("LSTM", {"learn_initial_state": True})
    layer = case("float64")
    x = conformance.data(case, layer, b=2, t=STEPS, mask=False).x
    _, gradients = by_backpropagation(layer.cell, x, ())
    _, found = over_a_sequence(RTRL(layer.cell), x)
    assert_close(found, gradients, 1e-9)


@pytest.mark.parametrize("jit", [False, True])
def test_in_a_graph(jit):
    case = Case("PeepholeLSTM")
    layer = case("float64")
    x = conformance.data(case, layer, b=2, t=STEPS, mask=False).x
    rule = RTRL(layer.cell)
    expected = over_a_sequence(rule, x)
    found = tf.function(lambda x: over_a_sequence(rule, x), jit_compile=jit)(x)
    assert_close(tf.nest.flatten(found), tf.nest.flatten(expected), 1e-10)


class LeakyCell(keras_seq.Cell):
    """Two states, of which no unit reads another: h = a h + (1 - a) tanh(w x + v h + b m), m = c m + (1 - c) h."""

    state_names, state_size, output_size = ("h", "m"), [4, 4], 4

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], 4))
        self.own = self.add_weight(name="own", shape=(4, 4))
        super().build(input_shape)

    def project(self, inputs):
        return ops.matmul(inputs, self.kernel)

    def step(self, projected, states, constants=()):
        (h, m), (a, v, b, c) = states, ops.unstack(self.own, axis=0)
        h = ops.sigmoid(a) * h + (1 - ops.sigmoid(a)) * ops.tanh(projected + v * h + b * m)
        m = ops.sigmoid(c) * m + (1 - ops.sigmoid(c)) * h
        return h + m, (h, m)


def test_snap_is_exact_where_units_do_not_read_each_other():
    layer = keras_seq.RNN(LeakyCell(dtype="float64"), dtype="float64", return_sequences=True)
    layer.build((None, None, 3))
    conformance.randomised(layer)
    x = conformance.data(Case("LSTM"), layer, b=2, t=STEPS, mask=False).x
    _, exact = over_a_sequence(RTRL(layer.cell), x)
    _, found = over_a_sequence(SnAp1(layer.cell), x)
    assert_close(found, exact, 1e-11)


@pytest.mark.parametrize(
    **named(
        [Case("SimpleRNN"), Case("LSTM"), Case("PeepholeLSTM"), Case("GRU"), Case("CoupledLSTM")], quick=[Case("GRU")]
    )
)
def test_snap_is_the_masked_recursion(case):
    """Held to M of `RTRL`'s recursion with all entries left out, at every step, that no weight reaches in one."""
    layer = case("float64")
    x = conformance.data(case, layer, b=2, t=STEPS, mask=False).x
    snap = SnAp1(layer.cell)

    class Masked(RTRL):
        def _advance(self, jacobian, carried, weight_vjp):
            found, count = super()._advance(jacobian, carried, weight_vjp), len(self.cell.state_size)
            return [m * np.concatenate([p] * count) for m, p in zip(found, snap._patterns(), strict=True)]

    _, expected = over_a_sequence(Masked(layer.cell), x)
    _, found = over_a_sequence(snap, x)
    assert_close(found, expected, 1e-10)
    _, exact = over_a_sequence(RTRL(layer.cell), x)
    assert max(np.max(np.abs(a - b)) for a, b in zip(found, exact, strict=True)) > 1e-4


def test_uoro_is_unbiased():
    """The mean over many draws is the exact gradient; each draw is a row of its own."""
    case, draws = Case("SimpleRNN"), 40_000
    layer = case("float64")
    x = conformance.data(case, layer, b=1, t=4, mask=False).x
    _, exact = over_a_sequence(RTRL(layer.cell), x)
    _, found = over_a_sequence(UORO(layer.cell, seed=2), tf.repeat(x, draws, axis=0))
    for g, e in zip(found, exact, strict=True):
        assert np.max(np.abs(g / draws - e)) < 0.05 * np.max(np.abs(e))
    _, one = over_a_sequence(UORO(layer.cell, seed=2), x)
    assert max(np.max(np.abs(a - b)) for a, b in zip(one, exact, strict=True)) > 1e-3, "one draw is not exact"


def test_uoro_repeats_itself_under_a_seed():
    layer = Case("GRU")("float64")
    x = conformance.data(Case("GRU"), layer, b=2, t=STEPS, mask=False).x
    first, second, third = (over_a_sequence(UORO(layer.cell, seed=s), x)[1] for s in (1, 1, 2))
    assert_close(first, second, 0)
    assert any(np.any(a != b) for a, b in zip(first, third, strict=True))


def test_a_stream_is_learned_that_truncation_to_one_step_cannot_learn():
    """Saying again what was said three steps before, weights changed at every step of one stream."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], 1500).astype("float32")

    def learned(exact):
        keras.utils.set_random_seed(3)
        cell = keras_seq.SimpleRNNCell(8, outputs=1)
        cell.build((None, 1))
        rule, optimizer = RTRL(cell), keras.optimizers.Adam(0.01)
        optimizer.build(rule.weights)
        count = len(cell.state_size)

        @tf.function
        def step(x, target, state):
            loss, _, gradients, state = rule.step(x, state, lambda y: tf.reduce_mean((y - target) ** 2))
            optimizer.apply(gradients, rule.weights)
            return loss, state if exact else [*state[:count], *(tf.zeros_like(m) for m in state[count:])]

        state, losses = rule.initial_state(1), []
        for t in range(3, len(signs)):
            loss, state = step(signs[None, None, t], signs[None, None, t - 3], state)
            losses.append(float(loss))
        return np.mean(losses[-200:])

    assert learned(exact=True) < 0.5 * learned(exact=False)


class MixedCell(keras_seq.Cell):
    """Its state is normalised over its units: every weight changes all of them."""

    def build(self, input_shape):
        self.state_size, self.output_size = [4], 4
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], 4))
        super().build(input_shape)

    def project(self, inputs):
        return ops.matmul(inputs, self.kernel)

    def step(self, projected, states, constants=()):
        h = projected + 0.5 * states[0]
        h = h / ops.sqrt(1 + ops.sum(h * h, axis=-1, keepdims=True))
        return h, (h,)


def mixed():
    cell = MixedCell()
    cell.build((None, 2))
    cell.built = True
    return cell


def built(**settings):
    cell = keras_seq.LSTMCell(4, **settings)
    cell.build((None, 2))
    return cell


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RTRL(keras.layers.LSTMCell(4)), TypeError, "cell: expected a keras_seq.Cell, got <LSTMCell"),
        (lambda: RTRL(keras_seq.LSTMCell(4)), ValueError, "cell: expected a built cell, got lstm_cell"),
        (lambda: RTRL(built(dropout=0.1)), ValueError, "cell: expected one without dropout"),
        (lambda: RTRL(built(zoneout=0.1)), ValueError, "cell: expected one without zoneout"),
        (lambda: RTRL(built(), max_bytes=0), ValueError, "max_bytes: expected a positive integer"),
        (
            lambda: RTRL(built(), max_bytes=10_000).initial_state(3),
            ValueError,
            r"at most 10000 bytes, got \d+: 3 rows, 8 num",
        ),
        (lambda: RTRL(built()).initial_state(0), ValueError, "batch_size: expected a positive integer"),
        (
            lambda: SnAp1(built(projection=3)),
            ValueError,
            "cell: expected one whose states have one width",
        ),
        (lambda: SnAp1(mixed()), ValueError, "cell: expected one whose weights reach one unit each within a step"),
        (lambda: UORO(built(), seed="a"), TypeError, "seed: expected an integer"),
        (
            lambda: UORO(built(learn_initial_state=True)).initial_state(1),
            ValueError,
            "expected learn_initial_state=False",
        ),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_blocked_cell_says_what_its_gradient_is():
    cell = keras_seq.ElmanCell(3)
    cell.build((None, 2))
    with pytest.warns(UserWarning, match="cell: elman_cell.* lets no gradient through its states"):
        RTRL(cell)
