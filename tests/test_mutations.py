"""The checks of the suite are put to the test: each fault made on purpose must fail one of them.

Here faults of the engine, and of the layer that calls it; those of the cells are in `test_mutations_of_cells`. The checks
are those that the suite runs on the same cases; each passes without the fault.
"""

import dataclasses

import conformance
import pytest
import tensorflow as tf
from conformance import EVERYTHING, GAPS, KINDS, Case, named
from mutants import call, caught, choice, item, mutate, negated, op, proxy

from keras_seq.engine.tensorflow import lanes, parallel, step
from keras_seq.engine.tensorflow import loop as passes
from keras_seq.layers import rnn

pytestmark = [pytest.mark.deep, pytest.mark.mutation]

HELD = [c for c in KINDS if c.gated]

# -- in the loop ---------------------------------------------------------------------------------------------------------


def loop(monkeypatch, change=lambda inputs, flags: None, after=lambda results, states: (results, states)):
    """Patch the engine's loop as the layer sees it: its mask, inputs and flags before, its results after."""
    run = rnn.engine.scan

    def scan(project, step, inputs, states, constants, weights, mask, **flags):
        call = {"inputs": inputs, "mask": mask, "states": states}
        change(call, flags)
        given = call["inputs"], call["states"], constants, weights, call["mask"]
        return after(*run(project, step, *given, **flags))

    monkeypatch.setattr(rnn, "engine", proxy(rnn.engine, scan=scan))


@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize(**named(HELD))
def test_mask_off_by_one(case, by, monkeypatch):
    loop(monkeypatch, lambda call, flags: call.update(mask=tf.roll(call["mask"], by, axis=1)))
    caught(conformance.check_oracle, case)


@pytest.mark.parametrize(**named(HELD))
def test_mask_left_out(case, monkeypatch):
    loop(monkeypatch, lambda call, flags: call.update(mask=None))
    caught(conformance.check_oracle, case)


@pytest.mark.parametrize(**named(HELD))
def test_zeros_for_masked_steps_left_out_or_put_in(case, monkeypatch):
    loop(monkeypatch, lambda call, flags: flags.update(zero_output_for_mask=not flags["zero_output_for_mask"]))
    caught(conformance.check_oracle, case)
    if case.layer in ("SimpleRNN", "Elman", "LRU") and case.arguments.get("outputs"):  # a readout puts in zeros itself
        mutate(monkeypatch, rnn.RNN, "_read_out", op("and", "zero_output_for_mask"), "False")
    caught(conformance.check_oracle, case, zero_output_for_mask=True)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(**named(HELD))
def test_reversal_left_out_or_undone(case, masked, monkeypatch):
    with monkeypatch.context() as patch:
        loop(patch, lambda call, flags: flags.update(go_backwards=False))
        if masked or case.layer != "AR":  # whose steps are all alike
            caught(conformance.check_oracle, case, go_backwards=True, masked=masked)
    loop(monkeypatch, after=lambda results, states: (tf.nest.map_structure(lambda x: x[:, ::-1], results), states))
    for backwards in (False, True):
        caught(conformance.check_oracle, case, go_backwards=backwards, masked=masked)


def test_mask_not_reversed_with_the_inputs(monkeypatch):
    def change(call, flags):
        if flags["go_backwards"]:
            call.update(mask=tf.reverse(call["mask"], [1]))

    loop(monkeypatch, change)
    for case in HELD:
        caught(conformance.check_oracle, case, go_backwards=True)


def test_initial_states_left_out_or_exchanged(monkeypatch):
    with monkeypatch.context() as patch:
        loop(patch, lambda call, flags: call.update(states=[0 * s for s in call["states"]]))
        for case in HELD:
            caught(conformance.check_oracle, case)
    loop(monkeypatch, lambda call, flags: call.update(states=call["states"][::-1]))
    for case in HELD:
        if len(set(case().state_size)) == 1 < len(case().state_size):
            caught(conformance.check_oracle, case)


@pytest.mark.parametrize("by", [1, -1])
def test_targets_off_by_one_or_left_out(by, monkeypatch):
    cases = [c for c in KINDS if c.targets]
    assert {c.layer for c in cases} == {"Jordan", "NARX"}

    def shift(call, flags):
        call.update(inputs={**call["inputs"], "targets": tf.roll(call["inputs"]["targets"], by, axis=1)})

    def leave_out(call, flags):
        call.update(inputs={name: x for name, x in call["inputs"].items() if name != "targets"})
        flags.update(states_before=None)

    for change in (shift, leave_out):
        with monkeypatch.context() as patch:
            loop(patch, change)
            for case in cases:
                caught(conformance.check_oracle, case)


# -- where all steps are taken at once -----------------------------------------------------------------------------------

AT_ONCE = [c for c in HELD if c.targets or c.arguments.get("recurrent") is False]


@pytest.mark.parametrize(
    ("name", "place", "change"),
    [
        ("compacted", call("take"), "{0}"),
        ("expanded", op("-", "count"), "tf.maximum({0} - 2, 0)"),
        ("at_last", item("last"), "{0}[:1]"),
        ("filled_forward", call("take"), "{0}"),
        ("filled_forward", choice("zero"), negated),
        ("filled_forward", call("where", "count"), "{1}"),
    ],
)
def test_masked_steps_left_out_wrongly(name, place, change, monkeypatch):
    mutate(monkeypatch, parallel.RealSteps, name, place, change)
    for case in AT_ONCE:
        caught(conformance.check_oracle, case)


def test_all_steps_at_once_with_a_mask_in_the_other_direction(monkeypatch):
    mutate(monkeypatch, parallel, "project_in_order", call("reverse", nth=1), "{0}")
    for case in AT_ONCE:
        caught(conformance.check_oracle, case, go_backwards=True)


def test_contexts_of_another_step_in_the_backward_pass_of_blocked_memories(monkeypatch):
    backward = parallel.backward

    def late(recurrence, before, cotangents):
        return backward(recurrence, [tf.roll(b, -1, axis=0) for b in before], cotangents)

    monkeypatch.setattr(parallel, "backward", late)
    for case in (c for c in HELD if c.blocked and not c.targets):
        caught(conformance.check_finite_differences, case, directions=1)


# -- in the backward pass ------------------------------------------------------------------------------------------------

backward = passes.backward
BLOCKED = [Case("Elman", {"outputs": 2}), Case("Jordan", {"outputs": 2})]
UNBLOCKED = [
    Case("SimpleRNN", {"outputs": 2}),
    Case("Jordan", {"outputs": 2, "blocked": False}),
    Case("ResidualRNN"),
    Case("NARX", {**GAPS, "closed": True}),
    Case("LSTM", {"peepholes": True, "full_gate_recurrence": True}),
    Case("LSTM", EVERYTHING),
    Case("CoupledLSTM"),
    Case("GRU", {"reset_after": True}),
    Case("GRU", {"reset_after": False}),
    *[c for c in KINDS if c.cell],
]
GRADIENT_CASES = [*BLOCKED, *UNBLOCKED]


def gradient_fault(
    monkeypatch, cotangents=lambda c: c, gradients=lambda g: g, stacks=lambda s: s, lane=lambda lane: lane
):
    """Patch what the backward pass is given, or what it gives."""

    def faulty(recurrence, saved, given):
        saved = saved._replace(lanes=list(map(lane, saved.lanes)), stacks=list(map(stacks, saved.stacks)))
        return gradients(backward(lane(recurrence), saved, cotangents(given)))

    monkeypatch.setattr(passes, "backward", faulty)


def check_survives_nowhere(cases=GRADIENT_CASES, **arguments):
    for case in cases:
        caught(conformance.check_finite_differences, case, directions=1, **arguments)


def test_cotangents_of_final_states_dropped(monkeypatch):
    gradient_fault(monkeypatch, cotangents=lambda c: (c[0], *[0 * s for s in c[1:]]))
    check_survives_nowhere()


def test_cotangents_of_outputs_dropped(monkeypatch):
    gradient_fault(monkeypatch, cotangents=lambda c: (0 * c[0], *c[1:]))
    check_survives_nowhere()


@pytest.mark.parametrize("by", [1, -1])
def test_cotangents_of_outputs_off_by_one(by, monkeypatch):
    gradient_fault(monkeypatch, cotangents=lambda c: (tf.roll(c[0], by, axis=1), *c[1:]))
    check_survives_nowhere()


def test_states_after_the_step_taken_for_those_before(monkeypatch):
    gradient_fault(monkeypatch, stacks=lambda kept: [tf.roll(kept[0], -1, axis=0), *kept[1:]])
    check_survives_nowhere()


def test_kernel_gradient_from_states_one_step_off(monkeypatch):
    outer = passes.outer
    monkeypatch.setattr(passes, "outer", lambda x, delta, dtype: outer(tf.roll(x, -1, axis=0), delta, dtype))
    check_survives_nowhere(UNBLOCKED)


def test_kernel_gradient_of_the_last_step_alone(monkeypatch):
    outer = passes.outer
    monkeypatch.setattr(passes, "outer", lambda x, delta, dtype: outer(x[-1:], delta[-1:], dtype))
    check_survives_nowhere(UNBLOCKED)


def test_no_gradient_through_the_state(monkeypatch):
    """What a product sends to its argument is dropped, in the backward pass alone."""
    product = step.product
    monkeypatch.setattr(step, "product", lambda x, kernel: 0 * product(x, kernel))
    check_survives_nowhere(UNBLOCKED)


def test_cotangents_of_internals_dropped(monkeypatch):
    """They come before the output."""
    gradient_fault(monkeypatch, cotangents=lambda c: (0 * c[0], *c[1:]))
    check_survives_nowhere([c for c in GRADIENT_CASES if c.gated], return_internals=True)


def test_mask_ignored_by_the_backward_pass(monkeypatch):
    gradient_fault(monkeypatch, lane=lambda lane: dataclasses.replace(lane, mask=None))
    check_survives_nowhere()


def test_direction_ignored_by_the_backward_pass(monkeypatch):
    gradient_fault(monkeypatch, lane=lambda lane: dataclasses.replace(lane, go_backwards=False))
    check_survives_nowhere(go_backwards=True)


def test_repeated_output_taken_for_zeros_by_the_backward_pass(monkeypatch):
    gradient_fault(monkeypatch, lane=lambda lane: dataclasses.replace(lane, zero_output_for_mask=True))
    check_survives_nowhere()


@pytest.mark.parametrize(
    **named([c for c in GRADIENT_CASES if c.cell or c.layer in ("LSTM", "NARX", "Elman", "Jordan")][::2])
)
def test_any_one_gradient_wrong_by_a_thousandth(case, monkeypatch):
    """Each argument's gradient is looked at: inputs, states, constants, every weight."""
    layer = case("float64", return_sequences=True, return_state=True)
    count = len(conformance.argument_names(layer, conformance.data(case, layer)))
    for wrong in range(count):
        changed = []

        def scaled(gradients, wrong=wrong, changed=changed):
            changed.append(bool(tf.reduce_any(gradients[wrong] != 0)))
            return [1.001 * g if i == wrong else g for i, g in enumerate(gradients)]

        with monkeypatch.context() as patch:
            gradient_fault(patch, gradients=scaled)
            try:
                conformance.check_finite_differences(case, directions=1)
            except AssertionError:
                continue
        assert changed == [False], f"argument {wrong}"
        outside = case.constants or case.arguments.get("outputs")
        assert outside, "the engine itself differentiates all but what `prepare` and `readout` do"


# -- in the lanes --------------------------------------------------------------------------------------------------------

join, split = lanes.join, lanes.split


def weights_of_one_lane(recurrence, each):
    n = len(recurrence.args) - len(recurrence.weights)
    return [*join([g[:n] for g in each]), *each[0][n:]]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("join", lambda found: join(found[::-1])),
        ("_join_gradients", weights_of_one_lane),
        ("split", lambda tensors, count: [split(tensors, count)[0]] * count),
        ("split_recurrence", lambda recurrence, count: [lanes.split_recurrence(recurrence, count)[0]] * count),
    ],
    ids=["rows exchanged", "gradients of one lane's weights", "the same cotangents in each", "the same rows in each"],
)
def test_rows_of_lanes_mixed_up(name, fault, monkeypatch):
    case = Case("LSTM")
    layer = case("float64", return_sequences=True, return_state=True)
    given = conformance.data(case, layer)
    expected = conformance.differentiated(layer)(*given)
    monkeypatch.setattr(passes, "lane_count", lambda batch, weights: 2)

    def check():
        conformance.assert_close(tf.function(conformance.differentiated(layer))(*given), expected, 1e-10)

    check()
    monkeypatch.setattr(passes, name, fault)
    caught(check)
