"""Stacks, both directions, delays, convolutions: their states, where Keras's are wrong, and wrong inputs by name."""

import inspect
import warnings

import keras
import numpy as np
import pytest
import structures
import tensorflow as tf
from conformance import assert_close, randomised
from keras import layers
from structures import STEPS, reference

import keras_seq
from keras_seq import GRU, LSTM, RNN, TCN, TDNN, Bidirectional, GRUCell, LSTMCell, Stacked, WaveNet

pytestmark = pytest.mark.filterwarnings("ignore:.*receptive field")

X, MASK = structures.data(dtype="float32")


def results(layer, x=X, **further):
    return keras.tree.flatten(layer(x, **further))


# -- stacks --------------------------------------------------------------------------------------------------------------


def test_a_stack_from_widths_is_the_stack_of_the_layers():
    """By a class of cells, a class of layers, and a function from a width to a cell."""
    layers_given = Stacked([LSTM(3, return_sequences=True), LSTM(4)], return_state=True)
    stacks = [Stacked(kind, [3, 4], return_state=True) for kind in (LSTMCell, LSTM, lambda n: LSTMCell(n))]
    randomised(layers_given(X) and layers_given)
    for stack in stacks:
        stack.build(X.shape)
        stack.set_weights(layers_given.get_weights())
        assert_close(results(stack), results(layers_given), 1e-6)
        assert not stack.return_sequences
    assert Stacked(GRUCell, [3, 4], return_sequences=True)(X).shape == (4, STEPS, 4)
    assert Stacked(lambda n: GRUCell(n, reset_after=False), [2]).layers[0].cell.reset_after is False


def test_states_are_one_flat_list():
    """Given back, they continue the sequence; the list is that of the layers, from below."""
    stack = Stacked([LSTM(3, return_sequences=True), TDNN(3, delays=1), GRU(4)], return_state=True)
    stack.build(X.shape)
    randomised(stack)
    assert stack.state_size == [3, 3, 4]
    whole = results(stack)
    first = results(stack, X[:, :4])
    assert_close(results(stack, X[:, 4:], initial_state=first[1:]), whole, 1e-6)
    below = randomised(Stacked([stack.layers[0]], return_state=True))
    assert_close(results(below)[1:], results(stack)[1:3], 1e-6)
    both = Bidirectional(stack)
    both.build(X.shape)
    assert both.state_size == [3, 3, 4, 3, 3, 4]
    assert len(results(both)) == 7


def test_dropout_lies_between_the_layers_only():
    stack = Stacked(LSTM, [5, 5], dropout=0.5, return_sequences=True, seed=3)
    lower = Stacked([stack.layers[0]])
    first, second = stack(X, training=True), stack(X, training=True)
    assert np.any(first != second)
    assert_close([lower(X, training=True)], [lower(X)], 0.0)
    assert_close([stack(X)], [stack(X)], 0.0)
    alone = Stacked(LSTM, [5], dropout=0.5)
    assert_close([alone(X, training=True)], [alone(X)], 0.0)


def test_a_stack_of_a_seed_drops_the_same_after_its_config():
    stack = Stacked(GRU, [5, 5], dropout=0.5, seed=3)
    again = Stacked.from_config(stack.get_config())
    for layer in (stack, again):
        layer.build(X.shape)
    again.set_weights(stack.get_weights())
    assert again.seed == 3
    assert_close([again(X, training=True)], [stack(X, training=True)], 0.0)


def test_steps_begin_in_the_states_that_they_are_given():
    stack = Stacked([LSTM(3, return_sequences=True), TDNN(3, delays=2), GRU(4, return_sequences=True)])
    stack.build(X.shape)
    randomised(stack)
    given = [np.random.default_rng(n).normal(size=(4, n)).astype("float32") for n in (3, 3, 4)]
    state, outputs = stack.initial_state(4, given), []
    for t in range(STEPS):
        y, state = stack.step(X[:, t], state)
        outputs.append(y)
    assert_close([np.stack(outputs, 1)], [stack(X, initial_state=given)], 1e-6)


def test_a_mask_ends_where_time_does():
    for make in (lambda layer: Stacked([layer]), Bidirectional, lambda layer: Bidirectional(layer, merge_mode=None)):
        for layer in (GRU(3, return_sequences=True), GRU(3)):
            made = make(layer)
            found = made.compute_mask(X, MASK)
            expected = MASK if layer.return_sequences else None
            assert all(mask is expected for mask in (found if isinstance(found, list) else [found]))


KINDS_WITH_STATE = {
    "stack": lambda layers: Stacked(layers),
    "both ways": lambda layers: Bidirectional(Stacked(layers)),
    "one both ways": lambda layers: Bidirectional(layers[-1]),
}


@pytest.mark.parametrize("kind", KINDS_WITH_STATE)
def test_stateful_stacks(kind):
    def make(stateful):
        flags = {"return_sequences": True, "stateful": stateful}
        return KINDS_WITH_STATE[kind]([LSTM(3, **flags), GRU(2, **flags)])

    kept, whole = make(True), make(False)
    for layer in (kept, whole):
        layer.build(X.shape)
    randomised(kept)
    whole.set_weights(kept.get_weights())
    assert kept.stateful
    assert not whole.stateful
    halves = [kept(X[:, :5]), kept(X[:, 5:])]
    expected, anew = whole(X), whole(X[:, 5:])
    assert_close([halves[1][..., :2]], [expected[:, 5:, :2]], 1e-6, "forwards it carries")
    if kind != "stack":  # the backward half starts anew
        assert not kept.backward_layer.stateful
        assert_close([halves[1][..., 2:]], [anew[..., 2:]], 1e-6)
    assert np.any(np.abs(halves[1][..., :2] - anew[..., :2]) > 1e-3)
    kept.reset_state()
    assert_close([kept(X[:, :5])], [halves[0]], 1e-6)


# -- both directions beside Keras's ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
def test_keras_with_the_same_weights(merge_mode):
    flags = {"return_sequences": True, "return_state": True}
    ours = Bidirectional(LSTM(3, zero_output_for_mask=True, **flags), merge_mode=merge_mode)
    theirs = layers.Bidirectional(layers.LSTM(3, **flags), merge_mode=merge_mode)
    for layer in (ours, theirs):
        layer.build(X.shape)
    randomised(ours)
    theirs.set_weights(ours.get_weights())
    initial = [np.random.default_rng(i).normal(size=(4, 3)).astype("float32") for i in range(4)]
    for mask in (None, MASK):
        assert_close(results(ours, mask=mask), results(theirs, mask=mask), 1e-5)
        given = {"mask": mask, "initial_state": initial}
        assert_close(results(ours, **given), results(theirs, **given), 1e-5)


def test_what_keras_does_wrong():
    """Its stateful layer with states and a mask crashes, its states of the wrong batch pass; ours does neither."""
    x, mask = tf.constant(X), tf.constant(MASK)
    flags = {"return_state": True, "stateful": True}
    with pytest.raises(Exception):  # noqa: B017, PT011
        layers.Bidirectional(layers.LSTM(3, **flags))(x, mask=mask)
    ours = Bidirectional(LSTM(3, **flags))
    found = results(ours, x, mask=mask)
    randomised(ours)
    ours.reset_state()
    assert_close(results(ours, x, mask=mask), reference(ours, X, MASK), 1e-5)
    assert len(found) == 5
    again = reference(
        ours, X, MASK, [*[s.numpy() for s in ours.forward_layer.states], np.zeros((4, 3)), np.zeros((4, 3))]
    )
    assert_close(results(ours, x, mask=mask), again, 1e-5)
    one_row = [np.ones((1, 3), "float32")] * 4
    assert layers.Bidirectional(layers.LSTM(3))(x, initial_state=one_row).shape == (4, 6)
    with pytest.raises(ValueError, match="initial_state: expected 4 tensors"):
        Bidirectional(LSTM(3))(x, initial_state=one_row)


def test_merging_by_layers_and_functions():
    for merge, expected in ((layers.Maximum(), np.maximum), (structures.difference, structures.difference)):
        both = Bidirectional(GRU(3), merge_mode=merge)
        y, z = Bidirectional(both.forward_layer, backward_layer=both.backward_layer, merge_mode=None)(X)
        assert_close([both(X)], [expected(y.numpy(), z.numpy())], 1e-6)
        again = Bidirectional.from_config(both.get_config())
        assert type(again.merge_mode) is type(merge)


# -- convolutions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dilation", [1, 3])
def test_tdnn_is_the_causal_convolution_of_keras(dilation):
    ours = TDNN(4, context=[-2 * dilation, -dilation, 0], activation="relu")
    theirs = layers.Conv1D(4, 3, padding="causal", dilation_rate=dilation, activation="relu")
    for layer in (ours, theirs):
        layer.build(X.shape)
    randomised(ours)
    theirs.set_weights(ours.get_weights())
    assert_close(results(ours), results(theirs), 1e-5)


def test_receptive_fields():
    assert TDNN(2, delays=4).receptive_field == 4
    assert TDNN(2, context=[-4, -2]).receptive_field == 5
    assert TDNN(2, context=[-3, 0, 2]).receptive_field == 6
    assert TCN(2, kernel_size=3, dilations=[1, 2, 4]).receptive_field == 1 + 2 * 2 * 7
    assert TCN(2, kernel_size=1, dilations=[5]).receptive_field == 1
    assert WaveNet(2, kernel_size=2, dilations=[1, 2, 4, 8]).receptive_field == 1 + 1 + 15


@pytest.mark.parametrize(
    "layer", [TDNN(2, delays=10), TCN(2, dilations=[4], kernel_size=3), WaveNet(2, dilations=[4, 4])]
)
def test_short_sequences_warn(layer):
    for steps in (layer.receptive_field - 1, layer.receptive_field):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layer(np.ones((1, steps, 2)))
        told = [str(w.message) for w in caught if "receptive field" in str(w.message)]
        assert len(told) == (steps < layer.receptive_field), told
    assert not told


def test_dropout_of_channels():
    """Whole channels at all steps, their share the rate, the others scaled; drawn anew at each call, in training alone."""
    flags = {"dilations": [1], "return_sequences": True, "activation": "linear", "weight_normalization": False}
    plain, dropping = TCN(40, **flags), TCN(40, dropout=0.4, seed=1, **flags)
    for layer in (plain, dropping):
        layer.build((None, None, 40))
    for layer in (plain, dropping):  # products by one: what is left is the dropout of the two convolutions
        one = np.zeros((3, 40, 40))
        one[-1] = np.eye(40)
        layer.set_weights([one, np.zeros(40)] * 2)
    x = np.ones((64, 7, 40), "float32")
    assert_close([dropping(x)], [plain(x)], 1e-6)
    found = dropping(x, training=True).numpy()
    assert np.all(found == found[:, :1])
    kept = found[:, 0] > 1.5
    assert abs(kept.mean() - 0.36) < 0.03
    assert_close([found[:, 0][kept]], [np.full(kept.sum(), 1 + 1 / 0.36)], 1e-5)
    assert np.any(found != dropping(x, training=True).numpy())


def test_mu_law():
    """The ends, the middle, the published curve, and there and back within half a class."""
    signal = np.linspace(-1, 1, 200001)
    classes = keras_seq.mu_law_encode(signal).numpy()
    assert (classes[0], classes[100000], classes[-1]) == (0, 128, 255)
    assert np.all(np.diff(classes) >= 0)
    assert len(set(classes)) == 256
    curve = np.sign(signal) * np.log(1 + 255 * np.abs(signal)) / np.log(256)
    assert np.max(np.abs(classes - (curve + 1) * 127.5)) <= 0.5 + 1e-6
    decoded, back = keras_seq.mu_law_decode(np.arange(256)).numpy(), np.arange(256) / 127.5 - 1
    np.testing.assert_allclose(decoded, np.sign(back) * (256 ** np.abs(back) - 1) / 255, rtol=1e-4)
    np.testing.assert_array_equal(keras_seq.mu_law_encode(decoded), np.arange(256))
    np.testing.assert_array_equal(
        keras_seq.mu_law_encode(keras_seq.mu_law_decode(np.arange(16), mu=15), mu=15), np.arange(16)
    )


# -- wrong inputs --------------------------------------------------------------------------------------------------------

WRONG = {
    "layers: expected a list of at least one sequence layer, got \\[\\]": lambda: Stacked([]),
    "widths: expected a list of at least one positive integer, got \\[\\]": lambda: Stacked(LSTM, []),
    "widths\\[1\\]: expected a positive integer, got 0": lambda: Stacked(LSTM, [3, 0]),
    "layers: expected a class": lambda: Stacked([LSTM(3)], [3]),
    "layers\\[1\\]: expected a sequence layer of keras_seq, got <Dense": lambda: Stacked(
        [GRU(2, return_sequences=True), layers.Dense(2)]
    ),
    "layers\\[0\\]: expected return_sequences=True below the last layer, got below": lambda: Stacked(
        [GRU(2, name="below"), GRU(2)]
    ),
    "layers\\[0\\]: expected a layer that reads forwards": lambda: Stacked([GRU(2, go_backwards=True)]),
    "layers\\[0\\]: expected a layer with return_internals=False": lambda: Stacked([GRU(2, return_internals=True)]),
    "return_sequences: expected None or that of the last layer, False, got True": lambda: Stacked(
        [GRU(2)], return_sequences=True
    ),
    "skips: expected one of .*, got 'some'": lambda: Stacked(GRU, [2], skips="some"),
    "skips: expected None over a layer that subsamples": lambda: Stacked(
        [TDNN(2, delays=2, subsampling=2)], skips="dense"
    ),
    "dropout: expected a number in": lambda: Stacked(GRU, [2], dropout=1.0),
    "layers\\[2\\]: expected an output of width 3, as a residual adds it to its input, got 4 of": lambda: Stacked(
        GRU, [3, 3, 4], skips="residual"
    )(X),
    "return_state: expected False where no layer has a state": lambda: Stacked([TDNN(2, delays=2)], return_state=True)(
        X
    ),
    "initial_state: expected 3 tensors in this order: one h .4, 3., one c .4, 3., two h .4, 2.; got ": lambda: Stacked(
        [LSTM(3, return_sequences=True, name="one"), GRU(2, name="two")]
    )(X, initial_state=[X[:, 0]]),
    "layer: expected a sequence layer of keras_seq, got <LSTM": lambda: Bidirectional(layers.LSTM(3)),
    "layer: expected one that reads forwards": lambda: Bidirectional(LSTM(3, go_backwards=True)),
    "backward_layer: expected return_sequences=False like the layer's, got True": lambda: Bidirectional(
        LSTM(3), backward_layer=LSTM(3, return_sequences=True)
    ),
    "backward_layer: expected one that is not stateful": lambda: Bidirectional(
        LSTM(3), backward_layer=LSTM(3, stateful=True)
    ),
    "layer: expected one without subsampling": lambda: Bidirectional(TDNN(3, delays=2, subsampling=3)),
    "merge_mode: expected one of .* or a function, got 'max'": lambda: Bidirectional(LSTM(3), merge_mode="max"),
    "merge_mode: expected a function that can be saved": lambda: Bidirectional(LSTM(3), merge_mode=lambda y, z: y),
    "merge_mode: expected 'concat' or None for halves of widths 3 and 2, got 'sum'": lambda: Bidirectional(
        LSTM(3), "sum", GRU(2)
    )(X),
    "initial_state: expected 2 tensors in this order: forward_gru h \\(4, 3\\), backward_gru h": lambda: Bidirectional(
        GRU(3, name="gru")
    )(X, initial_state=[X[:, 0]]),
    "units: expected a positive integer, got -1": lambda: TDNN(-1, delays=2),
    "delays: expected a positive integer, got 0": lambda: TDNN(2, delays=0),
    "delays: expected either delays or a context, got delays=None": lambda: TDNN(2),
    "delays: expected either delays or a context, got delays=2": lambda: TDNN(2, delays=2, context=[0]),
    "context: expected a list of at least one integer, got \\[\\]": lambda: TDNN(2, context=[]),
    "context: expected a list of at least one integer, got \\[0.5\\]": lambda: TDNN(2, context=[0.5]),
    "context: expected distinct integers": lambda: TDNN(2, context=[0, 0]),
    "subsampling: expected a positive integer": lambda: TDNN(2, delays=2, subsampling=0),
    "filters: expected a positive integer, got 0": lambda: TCN(0),
    "filters: expected one for each of the 2 dilations": lambda: TCN([3, 3, 3], dilations=[1, 2]),
    "kernel_size: expected a positive integer": lambda: TCN(3, kernel_size=2.0),
    "dilations: expected a positive integer, got 0": lambda: TCN(3, dilations=[1, 0]),
    "dilations: expected a list of at least one positive integer, got \\[\\]": lambda: WaveNet(3, dilations=[]),
    "outputs: expected a positive integer": lambda: WaveNet(3, outputs=0),
    "mu: expected a positive integer": lambda: keras_seq.mu_law_encode([0.0], mu=0),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_named(message):
    with pytest.raises((TypeError, ValueError), match=message):
        WRONG[message]()


@pytest.mark.parametrize(
    "layer", [Stacked(GRU, [2]), Bidirectional(GRU(2)), TDNN(2, delays=2), TCN(2), WaveNet(2), keras_seq.MaskedMean()]
)
def test_wrong_sequences_are_named(layer):
    layer(X)
    for x, mask, message in (
        (X[:, 0], None, "ndim=3"),
        (X[:, :0], None, "sequences: expected shape \\(b, t, d\\) with t of 1 or more"),
        (X, MASK[:, :-1], "mask: expected shape \\(b, t\\) like the sequences'"),
        (X[..., :2], None, "incompatible with the layer"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(x, mask=mask)


def test_unknown_arguments_are_refused():
    for cls in (Stacked, Bidirectional, TDNN, TCN, WaveNet):
        first = next(iter(inspect.signature(cls).parameters))
        given = {"filters": 2, "units": 2, "layer": RNN(GRUCell(2)), "layers": [RNN(GRUCell(2))]}[first]
        with pytest.raises((TypeError, ValueError), match="wrong"):
            cls(given, **({"delays": 2} if cls is TDNN else {}), wrong=1)


@pytest.mark.parametrize("steps", [7, None])
def test_every_other_step_of_a_masked_model(steps):
    """A memory above a layer that subsamples gets its mask, in a model of a known length and of an unknown one."""
    below, memory = TDNN(4, context=[-1, 0, 1], subsampling=2), keras_seq.LSTM(3)
    model = keras.Sequential([keras.Input((steps, 2)), keras.layers.Masking(), below, memory])
    randomised(model)  # a step of nothing says something
    x = np.random.default_rng(0).normal(size=(4, 7, 2)).astype("float32")
    mask = np.array([[1] * 7, [1, 0, 1, 1, 0, 0, 0], [0] * 7, [0, 1, 1, 0, 1, 0, 1]], bool)
    halved = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]], bool)
    expected = memory(below(x, mask=mask), mask=halved)
    np.testing.assert_allclose(model(np.where(mask[:, :, None], x, 0)), expected, atol=1e-6)
