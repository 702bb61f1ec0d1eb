"""What every memory is held to, over the table in `cases`: the equations, and the layers of Keras.

What a stranger's cell is held to as well stands in `keras_seq.testing`, and is run over the table by `test_conformance`.
"""

import keras
import numpy as np
import tensorflow as tf
from cases import (
    BUILT_IN,
    CASES,
    EVERYTHING,
    FURTHER,
    GAPS,
    KERAS_TWINS,
    KINDS,
    ODYSSEY,
    ONE_OF_EACH,
    QUICK,
    B,
    Case,
    D,
    T,
    TangledCell,
    U,
    named,
)
from oracles import oracle

import keras_seq
from keras_seq.testing.differences import assert_close
from keras_seq.testing.loops import check_against_differences
from keras_seq.testing.runs import (
    MASK,
    Data,
    argument_names,
    call,
    differentiated,
    loss,
    random_data,
    randomised,
    weight_name,
)

__all__ = [
    "BUILT_IN",
    "CASES",
    "EVERYTHING",
    "FURTHER",
    "GAPS",
    "KERAS_TWINS",
    "KINDS",
    "MASK",
    "ODYSSEY",
    "ONE_OF_EACH",
    "QUICK",
    "B",
    "Case",
    "D",
    "Data",
    "T",
    "TangledCell",
    "U",
    "argument_names",
    "assert_close",
    "call",
    "check_against_differences",
    "differentiated",
    "loss",
    "named",
    "randomised",
    "weight_name",
]

# -- data ----------------------------------------------------------------------------------------------------------------


def data(case, layer, b=B, t=T, seed=0, mask=True):
    """Random `Data` for a layer of this case."""
    return random_data(layer, D, case.constant_specs, b, t, mask, case.targets, seed=seed)


def of_any_size(function, case, given, **settings):
    """A function of `Data`, traced once for every batch and time of data like this."""

    def spec(x):
        return tf.TensorSpec([*[None] * (len(x.shape) - 1), x.shape[-1]], x.dtype)

    fixed = [tf.TensorSpec(s.shape, c.dtype) for s, c in zip(case.constant_specs, given.constants, strict=True)]
    signature = {"x": spec(given.x), "states": tuple(map(spec, given.states)), "constants": tuple(fixed)}
    signature["cotangents"] = tuple(map(spec, given.cotangents))
    if given.mask is not None:
        signature["mask"] = tf.TensorSpec([None, None], "bool")
    if given.targets is not None:
        signature["targets"] = spec(given.targets)

    def of_those(*values):
        return function(*Data(**dict(zip(signature, values, strict=True))))

    graph = tf.function(of_those, input_signature=list(signature.values()), **settings)
    return lambda *moved: graph(*(getattr(Data(*moved), name) for name in signature))


def silent(case, layer, given):
    """The arguments that must have no gradient at all.

    An AR model does not read its inputs, unless they are the series. Where no gradient passes the states, one reaches the
    initial ones in a hidden row alone, which returns them, and the targets in the state returned after the last. The last
    output of NARX in open loop sees nothing of what was before the first step.
    """
    states = {name for name in argument_names(layer, given) if name.startswith("initial state")}
    found = {"the inputs"} if case.layer == "AR" and (case.targets or case.arguments.get("closed")) else set()
    if case.blocked and not (layer.return_state and given.mask is not None):
        found |= states
    if case.blocked and case.targets and not layer.return_state:
        found |= {"the targets"}
    if case.layer == "NARX" and case.targets and not (layer.return_sequences or layer.return_state):
        found |= states if given.mask is None else set()
    return found


def tolerance(dtype):
    return {"float32": 1e-5, "float64": 1e-10}[dtype]


# -- checks --------------------------------------------------------------------------------------------------------------


def as_returned(found, layer):
    """What the equations give, in the order of `call`."""
    return [
        found.outputs if layer.return_sequences else found.last,
        *(found.states if layer.return_state else []),
        *([found.internals[name] for name in sorted(found.internals)] if layer.return_internals else []),
    ]


def check_oracle(case, dtype="float64", masked=True, training=False, return_sequences=True, **flags):
    """A layer's outputs, final states and internals are those of the equations."""
    shown = {"return_internals": flags.pop("return_internals", False), "return_state": flags.pop("return_state", True)}
    layer = case(dtype, return_sequences=return_sequences, **shown, **flags)
    given = data(case, layer, mask=masked)
    expected = as_returned(oracle(layer, given, **flags), layer)
    assert_close(call(layer, given, training), expected, tolerance(dtype), "result")


def check_finite_differences(case, directions=3, masked=True, **flags):
    """Gradients of all arguments are central differences of the loss, in random directions, in float64.

    Where no gradient passes the states, of the loss of the equations, each step of which has its context given.
    """
    layer = case("float64", **{"return_sequences": True, "return_state": True, **flags})
    given = data(case, layer, mask=masked)
    directed = {name: getattr(layer, name) for name in ("go_backwards", "zero_output_for_mask")}
    contexts = oracle(layer, given, **directed).contexts if case.blocked else None

    def with_given_contexts(*moved):
        found = as_returned(oracle(layer, Data(*moved), **directed, contexts=contexts), layer)
        return sum(np.sum(r * c) for r, c in zip(found, given.cotangents, strict=True))

    loss_of = with_given_contexts if case.blocked else None
    unreached = check_against_differences(layer, given, loss_of=loss_of, directions=directions)
    assert set(unreached) == silent(case, layer, given), "what no gradient reaches"


def check_differences_in_training(layer, given):
    """Gradients are finite differences where dropout and zoneout draw the same masks each time."""
    state = layer.cell.seed_generator.state
    before = state.numpy()

    def drawn_again(layer, given, training):
        state.assign(before)
        return call(layer, given, training)

    def loss_of(*moved):
        return loss(drawn_again(layer, Data(*moved), True), given.cotangents)

    assert not check_against_differences(layer, given, (), loss_of, 1, True, drawn_again)


def check_no_gradient_passes(case, compiled=None, **flags):
    """dy_t / dx_s is exactly zero for s other than t, in a blocked memory without a mask; the initial states have none."""
    layer = case("float64", return_sequences=True, **flags)
    given = data(case, layer, mask=False)
    # the same row T times: of row t the gradient of y_t alone
    x, states, constants, targets = tf.nest.map_structure(
        lambda v: None if v is None else tf.repeat(v[:1], T, 0), (given.x, given.states, given.constants, given.targets)
    )
    chosen = tf.eye(T, dtype="float64")[:, :, None] * given.cotangents[0][:1]
    given = Data(x, None, states, constants, targets, (chosen,))
    function = differentiated(layer)
    _, gradients = (function if compiled is None else tf.function(function, jit_compile=compiled))(*given)
    met = np.any(gradients[0].numpy() != 0, axis=-1)
    expected = np.eye(T, dtype=bool)
    np.testing.assert_array_equal(met[:, ::-1] if layer.go_backwards else met, expected)
    for name, gradient in zip(argument_names(layer, given), gradients, strict=True):
        assert not (name.startswith("initial state") or name == "the targets") or not np.any(gradient), name


def check_share_that_stays(rates):
    """In training each state stays as it was with about its rate, anew at each step, in each row and unit."""
    layer = keras_seq.LSTM(U, zoneout=rates, seed=1, return_internals=True, return_sequences=True)
    y, internals = layer(tf.random.stateless_normal((64, 12, D), [1, 2]), training=True)
    np.testing.assert_array_equal(y, internals["hidden"])
    expected = rates if isinstance(rates, list) else [rates, rates]
    for name, rate in zip(("hidden", "cell"), expected, strict=True):
        value = internals[name].numpy()
        stays = value[:, 1:] == value[:, :-1]
        assert abs(np.mean(stays) - rate) < 0.04, name
        for axis in range(3):
            shares = np.mean(stays, axis=tuple(a for a in range(3) if a != axis))
            assert np.all(np.abs(shares - rate) < 0.3)
            assert np.any(np.take(stays, 0, axis) != np.take(stays, 1, axis))


def repeated(layer, function, *args):
    """The function with the layer's random state put back to where it began."""
    state = layer.cell.seed_generator.state
    before = state.numpy()
    found = function(*args)
    state.assign(before)
    return found


def keras_twin(case, layer, dtype, **flags):
    """The Keras layer of the same name, with the same weights."""
    arguments = {"reset_after": True} if case.layer == "GRU" else {}
    twin = getattr(keras.layers, case.layer)(U, dtype=dtype, **{**arguments, **case.arguments}, **flags)
    twin.build((None, None, D))
    twin.set_weights(layer.get_weights())
    return twin


def check_keras_twin(case, dtype="float64", masked=True, **flags):
    """Values and gradients are those of the Keras layer with the same weights."""
    flags = {"return_sequences": True, "return_state": True, **flags}
    layer = case(dtype, **flags)
    twin = keras_twin(case, layer, dtype, **flags)
    given = data(case, layer, mask=masked)
    assert_close(differentiated(layer)(*given), differentiated(twin)(*given), tolerance(dtype), "result or gradient")
