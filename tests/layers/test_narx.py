"""NARX and AR: open loop, closed loop and warm-up against the equations, against each other, and their gradients."""

import numpy as np
import pytest
import tensorflow as tf
from conformance import assert_close
from narx_cases import (
    CASES,
    LOOPS,
    RAGGED,
    SOME,
    B,
    Given,
    T,
    W,
    every_case,
    every_loop,
    made,
    masked_or_not,
    names,
    oracle,
    some_cases,
)


@masked_or_not
@every_loop
@every_case
def test_oracle(name, loop, masked):
    layer = made(name)
    given = Given(layer, loop, masked)
    expected = oracle(layer.cell, given.x, given.targets, given.states, given.mask)
    assert_close(given.run(), expected, 1e-12)
    if masked:
        given.layer = given.layer.open_loop if loop == "open" else given.layer.close_loop
        given.layer = given.layer(zero_output_for_mask=True)
        expected = oracle(layer.cell, given.x, given.targets, given.states, given.mask, zero=True)
        assert_close(given.run(), expected, 1e-12, "zeros at masked steps")


@masked_or_not
@every_loop
@some_cases
def test_oracle_without_sequences_and_from_zeros(name, loop, masked):
    layer = made(name, return_sequences=False, return_state=False)
    given = Given(layer, loop, masked)
    zeros = [0 * s for s in given.states]
    expected = oracle(layer.cell, given.x, given.targets, zeros, given.mask)[0][:, -1]
    assert_close(given.run(initial_state=None), [expected], 1e-12)


@every_loop
@some_cases
def test_oracle_in_float32_compiled(name, loop):
    layer = made(name, dtype="float32")
    given = Given(layer, loop, masked=True)
    expected = oracle(layer.cell, given.x, given.targets, given.states, given.mask)
    found = tf.function(given.run, jit_compile=True)()
    assert_close(found, expected, 1e-5)


@masked_or_not
@pytest.mark.parametrize("loop", ["open", "closed"])
@some_cases
def test_go_backwards(name, loop, masked):
    layer = made(name, go_backwards=True)
    given = Given(layer, loop, masked)
    expected = oracle(layer.cell, given.x, given.targets, given.states, given.mask, backwards=True)
    assert_close(given.run(), expected, 1e-12)


# -- one loop against the other ------------------------------------------------------------------------------------------


@masked_or_not
@every_case
def test_open_loop_on_the_outputs_of_the_closed_loop_is_the_closed_loop(name, masked):
    layer = made(name)
    closed = Given(layer, "closed", masked)
    own = closed.run()
    again = Given(layer, "open", masked).run(targets=own[0])
    assert_close(again, own, 1e-12)
    others = Given(layer, "open", masked).run()
    assert np.abs(others[0] - own[0]).max() > 1e-2


@masked_or_not
@every_case
def test_warm_up_is_open_loop_and_then_closed_loop_from_its_states(name, masked):
    layer = made(name)
    mask = RAGGED if masked else None
    given = Given(layer, "warm-up", masked)
    whole, *final = given.run()
    first, *between = layer(
        given.x[:, :W],
        targets=given.targets,
        initial_state=[tf.constant(s) for s in given.states],
        mask=None if mask is None else mask[:, :W],
    )
    later, *end = layer.close_loop()(given.x[:, W:], initial_state=between, mask=None if mask is None else mask[:, W:])
    assert_close(final, end, 1e-12, "state")
    later = later.numpy()
    if masked:  # a call does not know what the one before it gave last
        hidden = np.cumsum(mask[:, W:], axis=1) == 0
        later[hidden] = np.repeat(first[:, -1:], T - W, axis=1)[hidden]
    assert_close([whole], [np.concatenate([first, later], 1)], 1e-12)
    everything = layer.close_loop()(given.x, targets=given.y, mask=mask)
    assert_close(everything, layer(given.x, targets=given.y, mask=mask), 0.0, "a warm-up over all steps")


@every_loop
@every_case
def test_masked_rows_are_runs_on_their_real_steps(name, loop):
    """Whatever is behind the mask: NaN here, in the inputs and in the true outputs."""
    layer = made(name)
    given = Given(layer, loop, masked=True)
    x, y = (np.where(RAGGED[:, :, None], v, np.nan) for v in (given.x, given.y))
    targets = None if given.targets is None else y[:, : LOOPS[loop]]
    outputs, *final = given.run(sequences=x, targets=targets)
    open_loop, closed_loop = layer.open_loop(), layer.close_loop()
    for row in np.flatnonzero(RAGGED.any(1)):
        states = [tf.constant(s[row : row + 1]) for s in given.states]
        early, late = (np.flatnonzero(RAGGED[row] & (side == (np.arange(T) < LOOPS[loop]))) for side in (True, False))
        parts = []
        if early.size:
            part, *states = open_loop(x[row, early][None], targets=y[row, early][None], initial_state=states)
            parts.append(part)
        if late.size:
            part, *states = closed_loop(x[row, late][None], initial_state=states)
            parts.append(part)
        real = outputs.numpy()[row, np.concatenate([early, late])]
        assert_close([real, *(s[row] for s in final)], [np.concatenate(parts, 1)[0], *(s[0] for s in states)], 1e-12)
    nothing = np.flatnonzero(~RAGGED.any(1))
    assert nothing.size
    for s, before in zip(final, given.states, strict=True):
        np.testing.assert_array_equal(s.numpy()[nothing], before[nothing])


@pytest.mark.parametrize("loop", ["open", "closed"])
@some_cases
def test_stateful_batches_are_one_long_batch(name, loop):
    layer = made(name, return_state=False)
    flags = {"stateful": True}
    kept = layer.open_loop(**flags) if loop == "open" else layer.close_loop(**flags)
    whole = Given(layer, loop)
    zeros = [0 * s for s in whole.states]
    expected = whole.run(initial_state=zeros)[0]
    for _ in range(2):
        halves = []
        for part in (slice(None, 5), slice(5, None)):
            targets = None if whole.targets is None else whole.targets[:, part]
            halves.append(kept(whole.x[:, part], targets=targets))
        assert_close([tf.concat(halves, 1)], [expected], 1e-12)
        kept.reset_state()


@masked_or_not
@every_loop
@names(["linear", "hidden", "network", "AR, hidden"])
def test_internals(name, loop, masked):
    """`output` is what the layer returns, and `hidden` what it is made of."""
    layer = made(name, return_internals=True)
    given = Given(layer, loop, masked)
    arguments = {"targets": given.targets, "initial_state": [tf.constant(s) for s in given.states]}
    output, *_, internals = given.layer(given.x, mask=given.mask, **arguments)
    assert_close([internals["output"]], [output], 1e-12)
    assert list(internals) == (["hidden", "output"] if layer.cell.has_readout else ["output"])
    if layer.cell.has_readout:
        shown = np.ones(B, bool) if not masked else RAGGED[:, 0]  # rows without a step before the first real one
        made_of = internals["hidden"] @ layer.cell.output_kernel + layer.cell.output_bias
        assert_close([made_of[shown]], [output[shown]], 1e-12)


# -- gradients -----------------------------------------------------------------------------------------------------------


def check_finite_differences(given, step=1e-5, directions=2):
    """Gradients of inputs, targets, initial states and weights, eager and compiled, are central differences, in float64."""
    layer, rng = given.layer, np.random.default_rng(5)
    cotangents = [rng.normal(size=r.shape) for r in given.run()]
    names = ["sequences", "targets", *[f"state {s}" for s in layer.cell.state_names], *[w.path for w in layer.weights]]
    n = 2 + len(given.states)

    def loss(x, targets, states):
        results = given.run(sequences=x, targets=targets, initial_state=states)
        return sum(tf.reduce_sum(r * c) for r, c in zip(results, cotangents, strict=True))

    @tf.function
    def evaluate(arguments):
        return loss(*arguments[:2], list(arguments[2:n]))

    def gradients(arguments):
        with tf.GradientTape() as tape:
            tape.watch([a for a in arguments if a is not None])
            value = loss(*arguments[:2], list(arguments[2:]))
        sources = [*(a for a in arguments if a is not None), *layer.trainable_variables]
        found = iter(tape.gradient(value, sources, unconnected_gradients="zero"))
        return [None if a is None else next(found) for a in [*arguments, *layer.trainable_variables]]

    arguments = [None if v is None else tf.constant(v) for v in (given.x, given.targets, *given.states)]
    found = gradients(arguments)
    compiled = tf.function(gradients, jit_compile=True)(arguments)
    assert_close(*([g for g in each if g is not None] for each in (compiled, found)), 1e-12, "compiled")
    at = [*arguments, *[tf.constant(w.numpy()) for w in layer.trainable_variables]]
    for i, name in enumerate(names):
        if at[i] is None or (name == "sequences" and not layer.cell.exogenous):
            continue
        assert np.abs(found[i]).max() > 0, f"{name}: the gradient is zero everywhere, the check says nothing"
        for _ in range(directions):
            direction, ends = rng.normal(size=at[i].shape), []
            for sign in (1, -1):
                moved = list(at)
                moved[i] = at[i] + sign * step * direction
                for w, value in zip(layer.trainable_variables, moved[n:], strict=True):
                    w.assign(value)
                ends.append(float(evaluate(moved[:n])))
            expected = (ends[0] - ends[1]) / (2 * step)
            actual = float(np.sum(np.asarray(found[i]) * direction))
            assert abs(actual - expected) <= 1e-6 * max(abs(expected), 1e-1), f"{name}: {actual}, expected {expected}"
        for w, value in zip(layer.trainable_variables, at[n:], strict=True):
            w.assign(value)


DIFFERENCES = [
    *((name, loop) for name in SOME for loop in LOOPS),
    *[(n, "warm-up") for n in CASES if n not in SOME][::2],
]


@pytest.mark.parametrize(
    ("name", "loop"),
    [pytest.param(*row, marks=() if row == ("hidden", "warm-up") else pytest.mark.deep) for row in DIFFERENCES],
)
def test_finite_differences(name, loop):
    """A warm-up is both: a part in open loop, and backpropagation through time from there on."""
    check_finite_differences(Given(made(name), loop, masked=True))


@pytest.mark.deep
@pytest.mark.parametrize("flags", [{"return_sequences": False}, {"zero_output_for_mask": True}], ids=str)
def test_finite_differences_of_a_warm_up_with_flags(flags):
    check_finite_differences(Given(made("hidden", **flags), "warm-up", masked=True))
