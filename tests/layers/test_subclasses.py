"""Subclasses of a user's, with constructors of their own: of every named layer, of cells, and of what is made of layers."""

import copy
import inspect

import keras
import numpy as np
import pytest
from keras import ops

import keras_seq
from keras_seq.layers.cell_layer import CellLayer

register = keras.saving.register_keras_serializable(package="user")
NAMED = sorted(n for n in keras_seq.__all__ if inspect.isclass(v := getattr(keras_seq, n)) and issubclass(v, CellLayer))
CELLS = [f"{name}Cell" for name in NAMED]
ARGUMENTS = {"Jordan": {"outputs": 2}, "NARX": {"closed": True, "output_delays": 2}, "AR": {"closed": True}}


def with_units(parent):
    """A subclass with the usual constructor."""

    class Mine(parent):
        def __init__(self, units, **kwargs):
            super().__init__(units, **kwargs)

    return register(type(f"My{parent.__name__}", (Mine,), {}))


MINE = {name: with_units(getattr(keras_seq, name)) for name in [*NAMED, *CELLS]}


@register
class ScaledGRU(keras_seq.GRU):
    """An argument of its own, which it says in its config; outputs changed."""

    def __init__(self, units, scale=2.0, **kwargs):
        super().__init__(units, **kwargs)
        self.scale = scale

    def call(self, sequences, initial_state=None, mask=None, training=False, return_state=None):
        return self.scale * super().call(sequences, initial_state, mask, training)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


@register
class SettledLSTM(keras_seq.LSTM):
    """Says everything itself: an argument settled, another under a name of its own."""

    def __init__(self, width=3, **kwargs):
        super().__init__(2 * width, recurrent_activation="hard_sigmoid", **kwargs)
        self.width = width

    def get_config(self):
        config = super().get_config()
        del config["units"], config["recurrent_activation"]
        return {**config, "width": self.width}


@register
class NamedNARX(keras_seq.NARX):
    def __init__(self, units, label="net", **kwargs):
        super().__init__(units, outputs=2, **kwargs)
        self.label = label

    def get_config(self):
        return {**super().get_config(), "label": self.label}

    @classmethod
    def from_config(cls, config):
        return super().from_config(config)


@register
class HalvedCell(keras_seq.LSTMCell):
    """An argument kept under another name; the step changed."""

    def __init__(self, units, share=0.5, **kwargs):
        super().__init__(units, **kwargs)
        self.kept = share

    def step(self, projected, states, constants=()):
        output, states = super().step(projected, states, constants)
        return self.kept * output, states

    def get_config(self):
        return {**super().get_config(), "share": self.kept}


@register
class Deep(keras_seq.Stacked):
    def __init__(self, depth=2, **kwargs):
        layers = kwargs.pop("layers", None) or [keras_seq.GRU(4, return_sequences=i < depth - 1) for i in range(depth)]
        super().__init__(layers, **kwargs)
        self.depth = depth

    def get_config(self):
        return {**super().get_config(), "depth": self.depth}


@register
class BothWays(keras_seq.Bidirectional):
    def __init__(self, layer, label="both", **kwargs):
        super().__init__(layer, **kwargs)
        self.label = label

    def get_config(self):
        return {**super().get_config(), "label": self.label}


QUICK = {"LSTM", "NARX", "AR", "PeepholeLSTMCell"}
X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")


def made(name, **further):
    return MINE[name](4, **ARGUMENTS.get(name.removesuffix("Cell"), {}) | further)


def cell_of(name):
    arguments = {k: v for k, v in ARGUMENTS.get(name.removesuffix("Cell"), {}).items() if k != "closed"}
    return MINE[name](4, **arguments)


WITH_MORE = {
    "ScaledGRU": lambda: ScaledGRU(4, 3.0, activation="softsign"),
    "SettledLSTM": lambda: SettledLSTM(2, dropout=0.25),
    "HalvedCell": lambda: keras_seq.RNN(HalvedCell(4, 0.25, peepholes=True)),
    "Deep": lambda: Deep(3, skips="residual"),
    "BothWays": lambda: BothWays(keras_seq.GRU(4), "there and back", merge_mode="sum"),
    "a subclass of a subclass": lambda: register(type("Scaled3", (ScaledGRU,), {}))(4, scale=3.0),
}
ALL = {
    **{name: lambda name=name: made(name) for name in NAMED},
    **{name: lambda name=name: keras_seq.RNN(cell_of(name)) for name in CELLS},
    **WITH_MORE,
}


def rows(names):
    """A few in the quick tier, the table in the deep one."""
    return [n if n in QUICK or n in WITH_MORE else pytest.param(n, marks=pytest.mark.deep) for n in names]


def unbuilt(config):
    """A config without what it was built for."""
    if isinstance(config, dict):
        return {name: unbuilt(value) for name, value in config.items() if name != "build_config"}
    return [unbuilt(value) for value in config] if isinstance(config, list) else config


def check_same(layer, other):
    """The same class, config and results, the weights apart."""
    assert type(other) is type(layer)
    assert unbuilt(other.get_config()) == {**unbuilt(layer.get_config()), "name": other.name}
    np.testing.assert_array_equal(other(X), layer(X))
    assert not {id(w) for w in layer.weights} & {id(w) for w in other.weights}


@pytest.mark.parametrize("name", rows(ALL))
def test_a_subclass_is_made_again_saved_and_copied(name, tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), ALL[name](), keras.layers.Dense(2)])
    (layer, _) = model.layers
    again = type(layer).from_config(layer.get_config())
    again.build((None, None, 3))
    again.set_weights(layer.get_weights())
    check_same(layer, again)
    model.save(tmp_path / "model.keras")
    check_same(layer, keras.models.load_model(tmp_path / "model.keras", safe_mode=True).layers[0])
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    check_same(layer, cloned.layers[0])
    check_same(layer, copy.deepcopy(layer))


@pytest.mark.parametrize("name", rows([*NAMED, "ScaledGRU", "SettledLSTM"]))
def test_a_subclass_is_a_part_like_any_other(name):
    both = keras_seq.Bidirectional(ALL[name]())
    assert type(both.backward_layer) is type(both.forward_layer) is type(ALL[name]())
    again = keras_seq.Bidirectional.from_config(both.get_config())
    both.build((None, None, 3))
    again.build((None, None, 3))
    again.set_weights(both.get_weights())
    check_same(both, again)


@pytest.mark.parametrize("name", rows(["LSTM", "GRU", "Elman"]))
def test_a_stack_makes_its_layers_of_a_subclass(name):
    stack = keras_seq.Stacked(MINE[name], [4, 4])
    assert [type(layer) for layer in stack.layers] == [MINE[name]] * 2
    again = keras_seq.Stacked.from_config(stack.get_config())
    stack.build((None, None, 3))
    again.build((None, None, 3))
    again.set_weights(stack.get_weights())
    check_same(stack, again)


@pytest.mark.parametrize("name", rows(NAMED))
def test_a_subclass_gives_what_its_parent_gives(name):
    layer, parent = made(name), getattr(keras_seq, name)(4, **ARGUMENTS.get(name, {}))
    layer.build((None, None, 3))
    parent.build((None, None, 3))
    parent.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(X), parent(X))
    assert list(inspect.signature(type(layer)).parameters) == ["units", "kwargs"]
    assert inspect.signature(layer) == inspect.signature(parent)  # that of a call


@pytest.mark.parametrize("cls", [MINE["NARX"], MINE["AR"], NamedNARX])
def test_the_loops_of_a_subclass_are_of_its_class(cls, tmp_path):
    further = {"label": "mine"} if cls is NamedNARX else {}
    layer = cls(4, output_delays=2, return_sequences=True, activity_regularizer="l2", **further)
    closed = layer.close_loop()
    assert type(closed) is cls
    assert (closed.closed, layer.closed) == (True, False)
    assert closed.cell is layer.cell
    assert closed.name != layer.name
    expected = {**layer.get_config(), "closed": True, "name": closed.name}
    assert closed.get_config() == expected
    # loaded together they share their weights still
    x = keras.Input((None, 3))
    y = keras.Input((None, layer.cell.outputs))
    model = keras.Model([x, y], [layer(x, targets=y), closed(x)])
    model.save(tmp_path / "loops.keras")
    loaded = keras.models.load_model(tmp_path / "loops.keras")
    loops = [found for found in loaded.layers if isinstance(found, cls)]
    assert len({id(found.cell) for found in loops}) == 1
    assert {found.closed for found in loops} == {True, False}


def test_signatures_are_those_of_the_constructors():
    assert list(inspect.signature(ScaledGRU).parameters) == ["units", "scale", "kwargs"]
    assert list(inspect.signature(HalvedCell).parameters) == ["units", "share", "kwargs"]

    class Further(keras_seq.LSTM):
        def __init__(self, *args, scale=1.0, **kwargs):
            super().__init__(*args, **kwargs)

    ours, further = (inspect.signature(cls).parameters for cls in (keras_seq.LSTM, Further))
    assert list(further) == [*list(ours)[:-1], "scale", "kwargs"]

    class Plain(keras_seq.LSTM):
        pass

    assert inspect.signature(Plain) == inspect.signature(keras_seq.LSTM)


def test_another_cell_class_for_a_named_layer():
    class Halved(keras_seq.LSTM):
        cell_class = HalvedCell

    layer = Halved(4, share=0.25)
    assert isinstance(layer.cell, HalvedCell)
    assert layer.cell.kept == 0.25
    assert "share" in inspect.signature(Halved).parameters


def test_a_cell_given_and_its_arguments_say_the_same():
    cell = keras_seq.LSTMCell(4, activation="relu")
    assert keras_seq.LSTM(4, activation=keras.activations.relu, cell=cell).cell is cell
    with pytest.raises(ValueError, match=r"units: expected 4 as in the cell that is given, got 5"):
        keras_seq.LSTM(5, cell=cell)
    with pytest.raises(TypeError, match=r"cell: expected a LSTMCell, got <GRUCell"):
        keras_seq.LSTM(cell=keras_seq.GRUCell(4))


def test_a_class_that_settles_arguments_has_no_constructor():
    with pytest.raises(TypeError, match=r"Mine: expected no constructor in a class that settles \['coupled'\]"):

        class Mine(keras_seq.LSTMCell, coupled=True):
            def __init__(self, units, **kwargs):
                super().__init__(units, **kwargs)


def test_arguments_by_position_where_one_before_them_is_settled():
    assert keras_seq.ARCell(None, 2, 3).output_delays == [1, 2, 3]
    assert keras_seq.AR(None, 2, 3).output_delays == [1, 2, 3]


def test_an_argument_that_no_config_says_is_missed():
    class Forgetful(keras_seq.GRUCell):
        def __init__(self, units, share=0.5, **kwargs):
            super().__init__(units, **kwargs)

    with pytest.raises(AttributeError, match="share"):
        Forgetful(4).get_config()


def test_a_subclass_trains():
    model = keras.Sequential([keras.Input((5, 3)), ScaledGRU(4), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    before = model.layers[0].get_weights()
    model.fit(X, np.ones((2, 1), "float32"), verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, model.layers[0].get_weights(), strict=True))
    assert ops.shape(model(X)) == (2, 1)
