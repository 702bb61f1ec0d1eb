"""What every memory is held to: the data, and the checks that all tests share, over the table in `cases`.

All weights are random and distinct per gate, states and peepholes are not zero, masks are ragged with gaps and hide one
row altogether.
"""

import typing

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
    MASK,
    ODYSSEY,
    ONE_OF_EACH,
    B,
    Case,
    D,
    T,
    TangledCell,
    U,
    named,
    randomised,
)
from oracles import oracle

import keras_seq

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
    "B",
    "Case",
    "D",
    "T",
    "TangledCell",
    "U",
    "named",
    "randomised",
]

# -- data ----------------------------------------------------------------------------------------------------------------


class Data(typing.NamedTuple):
    """What a layer is called with, and cotangents of what it returns: outputs, final states, internals.

    Targets, where there are, come after the constants.
    """

    x: np.ndarray
    mask: np.ndarray | None
    states: tuple
    constants: tuple
    cotangents: tuple


def data(case, layer, b=B, t=T, seed=0, mask=True):
    """Random data in the layer's type. The mask is `MASK`, or as much of it as fits; None for `mask=False`."""
    rng = np.random.default_rng([seed, 2])
    dtype = layer.compute_dtype

    def normal(*shape):
        return tf.constant(rng.normal(size=shape), dtype)

    x = normal(b, t, D)
    states = tuple(0.5 * normal(b, size) for size in layer.state_size)
    constants = []
    for shape in case.constants:
        shape = tuple(b if n is None else n for n in shape)
        constants.append(
            0.5 * normal(*shape) if len(shape) > 1 else tf.constant(rng.integers(1, 4, size=shape), "int32")
        )
    width = layer.cell.output_size
    outputs = normal(b, t, width) if layer.return_sequences else normal(b, width)
    finals = [normal(b, size) for size in layer.state_size] if layer.return_state else []
    hidden = tf.constant(np.tile(MASK, (-(-b // B), -(-t // T)))[:b, :t]) if mask else None
    if case.targets:
        constants.append(normal(b, t, width))
    given = Data(x, hidden, states, tuple(constants), (outputs, *finals))
    if layer.return_internals:
        found = call(layer, *given[:4])[1 + len(finals) :]
        given = given._replace(cotangents=(outputs, *finals, *[normal(*v.shape) for v in found]))
    return given


def call(layer, x, mask=None, states=None, constants=(), training=False):
    """The layer's results as a flat list: outputs, final states, internals by their names."""
    further = {"initial_state": list(states)} if states else {}
    n = len(getattr(layer.cell, "constants", ()))
    if constants[:n]:
        further["constants"] = list(constants[:n])
    if constants[n:]:
        (further["targets"],) = constants[n:]
    return tf.nest.flatten(layer(x, mask=mask, training=training, **further))


def differentiated(layer, training=None, apply=call):
    """A function of `Data`: `(results, gradients)` of the inputs, states, floating constants and weights, in this order.

    In training, by default, but for a cell that draws which states to leave as they were.
    """
    training = not getattr(layer.cell, "zoneout", 0.0) if training is None else training

    def function(x, mask, states, constants, cotangents):
        arguments = [x, *states, *[c for c in constants if c.dtype.is_floating]]
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            results = apply(layer, x, mask, states, constants, training)
            loss = sum(tf.reduce_sum(r * c) for r, c in zip(results, cotangents, strict=True))
        wanted = [*arguments, *[w.value for w in layer.trainable_variables]]
        return results, tape.gradient(loss, wanted, unconnected_gradients="zero")

    return function


def argument_names(layer, given):
    """What the gradients of `differentiated` belong to."""
    n = len(layer.cell.constants)
    constants = [f"constant {i}" if i < n else "targets" for i, c in enumerate(given.constants) if c.dtype.is_floating]
    return [
        "inputs",
        *[f"state {i}" for i in range(len(given.states))],
        *constants,
        *[w.path for w in layer.trainable_weights],
    ]


def silent(case, layer, given):
    """The arguments that must have no gradient at all.

    An AR model does not read its inputs, unless they are the series. Where no gradient passes the states, one reaches the
    initial ones in a hidden row alone, which returns them, and the targets in the state returned after the last. The last
    output of NARX in open loop sees nothing of what was before the first step.
    """
    states = {f"state {i}" for i in range(len(given.states))}
    found = {"inputs"} if case.layer == "AR" and (case.targets or case.arguments.get("closed")) else set()
    if case.blocked and not (layer.return_state and given.mask is not None):
        found |= states
    if case.blocked and not layer.return_state:
        found |= {"targets"}
    if case.layer == "NARX" and case.targets and not (layer.return_sequences or layer.return_state):
        found |= states if given.mask is None else set()
    return found


def tolerance(dtype):
    return {"float32": 1e-5, "float64": 1e-10}[dtype]


def assert_close(actual, desired, tolerance, what=""):
    """Equal up to `tolerance`, relative to the largest entry; NaN is equal to nothing."""
    tf.nest.assert_same_structure(list(actual), list(desired))
    for i, (a, b) in enumerate(zip(tf.nest.flatten(list(actual)), tf.nest.flatten(list(desired)), strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape, f"{what} {i}: shape {a.shape}, expected {b.shape}"
        assert np.all(np.isfinite(b)), f"{what} {i}: the expected value is not finite"
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
        error = float(np.max(np.abs(a - b), initial=0.0)) / scale
        assert error <= tolerance, f"{what} {i}: differs by {error:.2e} of {scale:.2e}, allowed {tolerance:.0e}"


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
    assert_close(call(layer, *given[:4], training=training), expected, tolerance(dtype), "result")


def check_finite_differences(case, directions=3, step=1e-5, accepted=1e-6, masked=True, **flags):
    """Gradients of all arguments are central differences of the loss, in random directions, in float64.

    Where no gradient passes the states, of the loss of the equations, each step of which has its context given.
    """
    layer = case("float64", **{"return_sequences": True, "return_state": True, **flags})
    given = data(case, layer, mask=masked)
    _, gradients = differentiated(layer)(*given)
    directed = {name: getattr(layer, name) for name in ("go_backwards", "zero_output_for_mask")}
    contexts = oracle(layer, given, **directed).contexts if case.blocked else None

    def with_given_contexts(x, states, constants):
        moved = given._replace(x=x, states=states, constants=constants)
        found = as_returned(oracle(layer, moved, **directed, contexts=contexts), layer)
        return sum(np.sum(r * c) for r, c in zip(found, given.cotangents, strict=True))

    @tf.function
    def loss(x, states, constants):
        results = call(layer, x, given.mask, states, constants)
        return sum(tf.reduce_sum(r * c) for r, c in zip(results, given.cotangents, strict=True))

    loss = with_given_contexts if case.blocked else loss
    check_directions(layer, loss, given, gradients, directions, step, accepted, silent(case, layer, given))


def check_directions(layer, loss, given, gradients, directions=3, step=1e-5, accepted=1e-6, quiet=()):
    """`gradients` are those of `loss(x, states, constants)`, by central differences; those of the `quiet` are zero."""
    rng = np.random.default_rng(3)
    floating = [c for c in given.constants if c.dtype.is_floating]
    arguments = [given.x, *given.states, *floating]
    count = len(given.states)

    def evaluate(moved):
        x, *rest = moved[: len(arguments)]
        left = iter(rest[count:])
        constants = tuple(next(left) if c.dtype.is_floating else c for c in given.constants)
        for w, value in zip(layer.trainable_variables, moved[len(arguments) :], strict=True):
            w.assign(value)
        return float(loss(x, tuple(rest[:count]), constants))

    at = [*arguments, *[tf.constant(w.numpy()) for w in layer.trainable_variables]]
    for i, (name, gradient) in enumerate(zip(argument_names(layer, given), gradients, strict=True)):
        if name in quiet:
            assert not np.any(gradient), f"{name}: expected no gradient"
        else:
            assert np.any(gradient), f"{name}: the gradient is zero everywhere, the check says nothing"
        for _ in range(directions):
            direction = rng.normal(size=at[i].shape)
            ends = []
            for sign in (1, -1):
                moved = list(at)
                moved[i] = at[i] + sign * step * direction
                ends.append(evaluate(moved))
            expected = (ends[0] - ends[1]) / (2 * step)
            actual = float(np.sum(np.asarray(gradient) * direction))
            error = abs(actual - expected) / max(abs(expected), 1e-2)
            assert error <= accepted, f"{name}: {actual} along a direction where differences give {expected}"
    evaluate(at)


def check_no_gradient_passes(case, compiled=None, **flags):
    """dy_t / dx_s is exactly zero for s other than t, in a blocked memory without a mask; the initial states have none."""
    layer = case("float64", return_sequences=True, **flags)
    given = data(case, layer, mask=False)
    # the same row T times: of row t the gradient of y_t alone
    x, *others = (tf.repeat(v[:1], T, 0) for v in (given.x, *given.states, *given.constants))
    chosen = tf.eye(T, dtype="float64")[:, :, None] * given.cotangents[0][:1]
    n = len(given.states)
    given = Data(x, None, tuple(others[:n]), tuple(others[n:]), (chosen,))
    function = differentiated(layer)
    _, gradients = (function if compiled is None else tf.function(function, jit_compile=compiled))(*given)
    met = np.any(gradients[0].numpy() != 0, axis=-1)
    expected = np.eye(T, dtype=bool)
    np.testing.assert_array_equal(met[:, ::-1] if layer.go_backwards else met, expected)
    for name, gradient in zip(argument_names(layer, given), gradients, strict=True):
        assert not (name.startswith("state") or name == "targets") or not np.any(gradient), name


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


def check_keras_loop(case, dtype="float64", masked=True, **flags):
    """Values and gradients on the engine are those of autodiff through the written-out loop over the same cell."""
    flags = {"return_sequences": True, "return_state": True, **flags}
    layer, unrolled = case(dtype, **flags), case(dtype, unroll=True, **flags)
    given = data(case, layer, mask=masked)
    assert_close(
        differentiated(layer)(*given), differentiated(unrolled)(*given), tolerance(dtype), "result or gradient"
    )


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
