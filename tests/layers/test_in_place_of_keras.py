"""In place of `keras.layers`: every argument of Keras in its order, kept in the config; its attributes; its weight paths."""

import inspect

import keras
import numpy as np
import pytest
from keras import initializers, ops, regularizers

import keras_seq

LAYERS = ["GRU", "LSTM", "SimpleRNN"]
CELLS = ["GRUCell", "LSTMCell", "SimpleRNNCell"]
BOTH = ["Bidirectional", *LAYERS, *CELLS, "RNN"]
EITHER = [keras.layers, keras_seq]

# no two alike, none the default, so that a value in a wrong place is seen
VALUES = {
    "units": lambda: 5,
    "activation": lambda: keras.activations.softsign,
    "recurrent_activation": lambda: keras.activations.hard_sigmoid,
    "use_bias": lambda: False,
    "kernel_initializer": lambda: initializers.Constant(0.1),
    "recurrent_initializer": lambda: initializers.Constant(0.2),
    "bias_initializer": lambda: initializers.Constant(0.3),
    "unit_forget_bias": lambda: False,
    "kernel_regularizer": lambda: regularizers.L1(0.01),
    "recurrent_regularizer": lambda: regularizers.L1(0.02),
    "bias_regularizer": lambda: regularizers.L1(0.03),
    "activity_regularizer": lambda: regularizers.L1(0.04),
    "kernel_constraint": lambda: keras.constraints.MaxNorm(1.0),
    "recurrent_constraint": lambda: keras.constraints.MaxNorm(2.0),
    "bias_constraint": lambda: keras.constraints.MaxNorm(3.0),
    "dropout": lambda: 0.25,
    "recurrent_dropout": lambda: 0.125,
    "seed": lambda: 7,
    "reset_after": lambda: False,
    "return_sequences": lambda: True,
    "return_state": lambda: True,
    "go_backwards": lambda: True,
    "stateful": lambda: True,
    "unroll": lambda: True,
    "zero_output_for_mask": lambda: True,
    "use_cudnn": lambda: False,
    "implementation": lambda: 1,
    "name": lambda: "own",
    "trainable": lambda: False,
    "cell": lambda: keras_seq.GRUCell(5, seed=1),
    "layer": lambda: keras_seq.GRU(5, seed=1),
    "backward_layer": lambda: keras_seq.GRU(5, activation="relu", seed=2, go_backwards=True),
    "merge_mode": lambda: "sum",
    "weights": lambda: None,
}
# what Keras takes out of **kwargs
HIDDEN = {
    "GRU": ["implementation", "zero_output_for_mask", "name", "trainable"],
    "LSTM": ["implementation", "zero_output_for_mask", "name", "trainable"],
    "SimpleRNN": ["zero_output_for_mask", "name", "trainable"],
    "GRUCell": ["implementation", "name", "trainable"],
    "LSTMCell": ["implementation", "name", "trainable"],
    "SimpleRNNCell": ["name", "trainable"],
    "RNN": ["activity_regularizer", "name", "trainable"],
    "Bidirectional": ["activity_regularizer", "name", "trainable"],
}
WHERE = {"layer": "forward_layer"}
NOT_IN_CONFIG = {"weights"}


def parameters_of_keras(name):
    """The parameters of Keras's constructor, those that it has by name."""
    found = list(inspect.signature(getattr(keras.layers, name).__init__).parameters.values())[1:]
    return [p for p in found if p.kind is not p.VAR_KEYWORD]


def required(name):
    return {p.name: VALUES[p.name]() for p in parameters_of_keras(name) if p.default is p.empty}


def said(value):
    """What a config says of a value."""
    serialize = keras.activations.serialize if inspect.isfunction(value) else keras.saving.serialize_keras_object
    return serialize(value)


def check(layer, given):
    """Each value is the attribute of its name, and in the config, of which the same layer is made again."""
    config = layer.get_config()
    for argument, value in given.items():
        if argument in NOT_IN_CONFIG:
            continue
        landed = getattr(layer, WHERE.get(argument, argument))
        assert landed is value or (isinstance(value, (float, str)) and landed == value), argument
        assert config[argument] == said(value), argument
    again = type(layer).from_config(dict(config)).get_config()
    assert again == config


def test_the_classes_that_keras_has_too():
    found = {n for n in dir(keras.layers) if inspect.isclass(getattr(keras_seq, n, None))}
    assert found == set(BOTH) == set(HIDDEN)


@pytest.mark.parametrize("name", BOTH)
def test_every_argument_of_keras_by_position(name):
    given = {p.name: VALUES[p.name]() for p in parameters_of_keras(name) if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert len(given) >= 4
    check(getattr(keras_seq, name)(*given.values()), given)


@pytest.mark.parametrize(
    ("name", "argument"), [(n, a) for n in BOTH for a in [*(p.name for p in parameters_of_keras(n)), *HIDDEN[n]]]
)
def test_every_argument_of_keras_by_name(name, argument):
    given = {**required(name), argument: VALUES[argument]()}
    getattr(keras.layers, name)  # Keras takes the same, if it is given layers of its own
    if name not in ("RNN", "Bidirectional"):
        getattr(keras.layers, name)(**given)
    check(getattr(keras_seq, name)(**given), given)


@pytest.mark.parametrize("name", BOTH)
def test_defaults_are_those_of_keras(name):
    ours = inspect.signature(getattr(keras_seq, name)).parameters
    assert {p.name: ours[p.name].default for p in parameters_of_keras(name)} == {
        p.name: p.default for p in parameters_of_keras(name)
    }
    if name not in ("RNN", "Bidirectional"):
        theirs, config = (getattr(package, name)(5).get_config() for package in EITHER)
        named = {"name", "activity_regularizer"}  # which the config of a layer has only where there is one
        assert {k: config[k] for k in theirs if k not in named} == {k: v for k, v in theirs.items() if k not in named}


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_a_config_of_keras_is_one_of_ours(name):
    given = {p.name: VALUES[p.name]() for p in parameters_of_keras(name)}
    theirs = getattr(keras.layers, name)(**given)
    layer = getattr(keras_seq, name).from_config(theirs.get_config())
    config = layer.get_config()
    assert config["name"] == theirs.name
    for argument, value in given.items():
        if argument in theirs.get_config() and getattr(theirs, argument, None) is not None:
            assert config[argument] == said(value), argument


@pytest.mark.parametrize("name", BOTH)
def test_arguments_of_a_call_are_those_of_keras(name):
    theirs, ours = (list(inspect.signature(getattr(package, name).call).parameters)[2:] for package in EITHER)
    assert set(theirs) - {"training"} <= set(ours)  # Keras hands training on to whom it concerns
    by_position = [a for a in theirs if a != "training"]  # it takes tensors alone by position
    assert ours[: len(by_position)] == by_position


@pytest.mark.parametrize("name", BOTH)
def test_public_attributes_are_those_of_keras(name):
    def made(package):
        if name == "RNN":
            return package.RNN(package.LSTMCell(5))
        return package.Bidirectional(package.LSTM(5)) if name == "Bidirectional" else getattr(package, name)(5)

    theirs, ours = map(made, EITHER)
    public = [a for a in dir(theirs) if not a.startswith("_") and hasattr(theirs, a)]
    assert len(public) > 50
    assert [a for a in public if not hasattr(ours, a)] == []


@pytest.mark.parametrize(
    ("cls", "argument", "value"),
    [
        ("LSTM", "use_cudnn", "yes"),
        ("GRU", "use_cudnn", 1),
        ("GRU", "use_cudnn", None),
        ("LSTM", "implementation", 3),
        ("LSTMCell", "implementation", True),
        ("GRUCell", "implementation", "2"),
    ],
)
def test_what_changes_nothing_is_looked_at_all_the_same(cls, argument, value):
    with pytest.raises(ValueError, match=rf"{argument}: expected one of \[.*\], got {value!r}"):
        getattr(keras_seq, cls)(5, **{argument: value})


@pytest.mark.parametrize(("cls", "argument"), [("SimpleRNN", "use_cudnn"), ("SimpleRNNCell", "implementation")])
def test_what_keras_does_not_take_is_refused(cls, argument):
    with pytest.raises(TypeError, match=f"{cls}: unknown argument '{argument}'"):
        getattr(keras_seq, cls)(5, **{argument: VALUES[argument]()})


# -- the shape of inputs as an argument --------------------------------------------------------------------------------

OF_A_SHAPE = {
    "LSTM": lambda **shape: keras_seq.LSTM(5, **shape),
    "RNN": lambda **shape: keras_seq.RNN(keras_seq.GRUCell(5), **shape),
    "NARX": lambda **shape: keras_seq.NARX(5, closed=True, **shape),
    "TDNN": lambda **shape: keras_seq.TDNN(5, delays=2, **shape),
    "Stacked": lambda **shape: keras_seq.Stacked(keras_seq.GRU, [5, 5], **shape),
    "Bidirectional": lambda **shape: keras_seq.Bidirectional(keras_seq.GRU(5), **shape),
}


@pytest.mark.parametrize("name", OF_A_SHAPE)
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"input_shape": (7, 3)}, (None, 7, 3)),
        ({"input_shape": (None, 3)}, (None, None, 3)),
        ({"input_dim": 3}, (None, None, 3)),
        ({"input_dim": 3, "input_length": 7}, (None, 7, 3)),
        ({"input_dim": 3, "input_length": None}, (None, None, 3)),
    ],
)
def test_a_shape_stands_for_the_input_of_a_sequential_model(name, shape, expected):
    with pytest.warns(UserWarning, match="Do not pass an `input_shape`"):  # as any layer of Keras
        layer = OF_A_SHAPE[name](**shape)
    model = keras.Sequential([layer])
    assert model.input_shape == expected
    assert layer.built
    assert not {"input_shape", "input_dim", "input_length"} & set(layer.get_config())


@pytest.mark.parametrize("shape", [{"input_dim": None}, {"input_dim": None, "input_length": None}, {}])
def test_no_shape_is_none(shape):
    assert not keras.Sequential([keras_seq.LSTM(5, **shape)]).built


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ({"input_length": 7}, TypeError, "input_dim: expected a positive integer, got None"),
        ({"input_dim": 0}, ValueError, "input_dim: expected a positive integer, got 0"),
        ({"input_dim": 3, "input_length": 1.5}, TypeError, "input_length: expected a positive integer, got 1.5"),
        ({"input_dim": 3, "input_shape": (7, 3)}, ValueError, r"input_shape: expected None with input_dim .*\(7, 3\)"),
    ],
)
def test_shapes_that_say_nothing(shape, error, message):
    with pytest.raises(error, match=message):
        keras_seq.LSTM(5, **shape)


# -- Bidirectional -----------------------------------------------------------------------------------------------------


def test_weights_of_both_directions_can_be_given():
    first = keras_seq.Bidirectional(keras_seq.LSTM(5))
    first.build((None, None, 3))
    again = keras_seq.Bidirectional(keras_seq.LSTM(5), "concat", first.get_weights())
    again.build((None, None, 3))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(TypeError, match=r"weights: expected a list of arrays or None, got 3"):
        keras_seq.Bidirectional(keras_seq.LSTM(5), "concat", 3)


def test_the_backward_half_may_stand_where_it_stood():
    backward = keras_seq.GRU(5)
    assert keras_seq.Bidirectional(keras_seq.GRU(5), "sum", backward).backward_layer is backward


@pytest.mark.parametrize("reset", ["reset_state", "reset_states"])
@pytest.mark.parametrize("wrap", [keras_seq.Bidirectional, lambda layer: keras_seq.Stacked([layer])])
def test_kept_states_go_back_to_the_first(wrap, reset):
    layer = wrap(keras_seq.LSTM(5, stateful=True))
    x = ops.ones((2, 4, 3))
    first = layer(x)
    assert np.any(np.asarray(layer(x)) != np.asarray(first))
    getattr(layer, reset)()
    np.testing.assert_array_equal(layer(x), first)


def test_states_of_both_directions_are_those_kept():
    layer = keras_seq.Bidirectional(keras_seq.LSTM(5, stateful=True))
    layer.build((2, 4, 3))
    assert [tuple(s.shape) for s in layer.states] == [(2, 5), (2, 5)]
    assert keras_seq.Bidirectional(keras_seq.TDNN(5, delays=2)).states is None


# -- names and paths ---------------------------------------------------------------------------------------------------


def alone(layer):
    if not layer.built:
        layer.build((2, 4, 3))
    return layer


def nested(layer, *further):
    inputs = keras.Input((4, 3))
    return keras.Sequential([inputs, keras.Sequential([keras.Input((4, 3)), layer]), *further])


def functional(*layers):
    inputs = outputs = keras.Input((4, 3))
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def subclassed(*layers):
    class Tagger(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers

        def call(self, x):
            return self.second(self.first(x))

    model = Tagger()
    model(ops.ones((2, 4, 3)))
    return model


def every(package):
    """A layer of each kind, new ones at each call."""
    for name in LAYERS:
        yield lambda name=name: getattr(package, name)(5)
        yield lambda name=name: package.Bidirectional(getattr(package, name)(5))
    yield lambda: package.LSTM(5, name="tagger")
    yield lambda: package.Bidirectional(package.LSTM(5, name="reader"), name="tagger")
    yield lambda: package.Bidirectional(package.LSTM(5), backward_layer=package.LSTM(5, name="back", go_backwards=True))
    yield lambda: package.RNN(package.LSTMCell(5))
    yield lambda: package.RNN([package.LSTMCell(5), package.GRUCell(5)])
    yield lambda: package.RNN(keras.layers.StackedRNNCells([package.LSTMCell(5), package.LSTMCell(5)]))


def models(package):
    """Layers in models of each kind, loaded and cloned ones too."""

    def layer():
        return package.Bidirectional(package.GRU(5, return_sequences=True))

    yield lambda: keras.Sequential([keras.Input((4, 3)), layer(), package.GRU(5), keras.layers.Dense(2)])
    yield lambda: nested(layer(), package.GRU(5))
    yield lambda: functional(layer(), package.GRU(5), keras.layers.Dense(2))
    yield lambda: subclassed(layer(), package.GRU(5))
    yield lambda: keras.models.clone_model(nested(layer(), package.GRU(5)))
    yield lambda: keras.Sequential.from_config(keras.Sequential([keras.Input((4, 3)), layer()]).get_config())


def names_and_paths(make):
    keras.backend.clear_session()
    model = alone(make())
    return [(w.path, w.name, tuple(w.shape)) for w in model.weights]


@pytest.mark.deep
@pytest.mark.parametrize("made", [every, models])
def test_names_and_paths_of_weights_are_those_of_keras(made):
    theirs, ours = ([names_and_paths(make) for make in made(package)] for package in EITHER)
    assert ours == theirs
    assert sum(map(len, theirs)) > 50


def test_the_path_of_a_kernel():
    weights = alone(keras_seq.Bidirectional(keras_seq.LSTM(5, name="lstm"), name="bidirectional")).weights
    assert weights[0].path == "bidirectional/forward_lstm/lstm_cell/kernel"


def test_a_built_half_keeps_its_name():
    half = keras_seq.LSTM(5, name="reader")
    half.build((None, None, 3))
    assert keras_seq.Bidirectional(half).forward_layer.name == "reader"
