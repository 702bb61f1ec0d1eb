"""What a layer adds to a step: learned initial states, dropout of three kinds, values that are shown."""

import numpy as np

from keras_seq.cells.wrapper import CellWrapper
from keras_seq.engine import capture_intermediates
from keras_seq.testing.differences import assert_close, assert_finite
from keras_seq.testing.loops import check_against_differences, check_written_out
from keras_seq.testing.runs import applied, argument_names, call, differentiated, result_names
from keras_seq.testing.subject import take_step
from keras_seq.testing.table import NotThisCell, check

RATE = 0.4


@check(
    "learned initial states",
    "learn_initial_state=True gives weights that are used and trained",
    "build or get_initial_state was overridden without a call of super()'s",
)
def check_learned_states(subject):
    if not subject.has("learn_initial_state"):
        raise NotThisCell("it takes no learn_initial_state")
    if subject.original.blocked:
        raise NotThisCell("a blocked memory cannot learn them")
    learned = {"learn_initial_state": True}
    layer = subject.layer(changes=learned)
    weights = [w.path for w in layer.trainable_weights if w.name.startswith("initial_")]
    states = _of_the_innermost(layer.cell)
    assert len(weights) == len(states), f"expected weights for the states {states}, got {weights}"
    given = subject.data(layer, states=False)
    unreached = check_against_differences(layer, given)
    check_written_out(subject, True, learned, states=False, variants=({},))
    reached = [s for s in states if not any(f"initial_{s}'" in name for name in unreached)]
    assert reached, "no gradient reaches any of them"


def _of_the_innermost(cell):
    """The names of the states that can be learned: what a cell around another one adds to its states begins at zero."""
    return _of_the_innermost(cell.cell) if isinstance(cell, CellWrapper) else cell.state_names


@check(
    "dropout",
    "dropout, recurrent_dropout and zoneout act in training alone, and repeat with the seed",
    "a step that draws random numbers of its own, or, with recurrent_dropout, a `dot` of something that is not as wide as the "
    "first state: say dropout=False there",
)
def check_dropout(subject):
    refused = []
    for kind in ("dropout", "recurrent_dropout", "zoneout"):
        if not subject.has(kind):
            refused.append(f"{kind} not taken")
            continue
        try:
            _check_rate(subject, kind)
        except ValueError as error:
            if getattr(subject.original, kind) or kind not in str(error):
                raise
            refused.append(f"{kind} refused")
    if len(refused) == 3:
        raise NotThisCell(", ".join(refused))
    return ", ".join(refused)


def _check_rate(subject, kind):
    changes = {kind: RATE, "seed": 11}
    layer = subject.layer(changes=changes)
    given = subject.data(layer)
    names = [*result_names(layer), *(f"the gradient of {n}" for n in argument_names(layer, given))]
    seeds = layer.cell.seed_generator.state
    begun = seeds.numpy()

    def run(layer, training):
        layer.cell.seed_generator.state.assign(begun)
        return differentiated(layer, training)(*given)

    plain = run(layer, False)
    assert np.array_equal(seeds.numpy(), begun), f"{kind}: random numbers are drawn where training=False"
    written_out = subject.layer(changes=changes, unroll=True)
    assert_close(run(written_out, False), plain, 1e-10, f"{kind}, not training, against Keras's loop:", names)
    dropped = run(layer, True)
    assert_close(run(layer, True), dropped, 0.0, f"{kind}, the same seed again:", names)
    assert_close(run(written_out, True), dropped, 1e-10, f"{kind}, against Keras's loop:", names)
    if kind == "zoneout":
        assert any(np.any(a != b) for a, b in zip(dropped[0], plain[0], strict=True)), (
            "zoneout: nothing changes in training"
        )


@check(
    "internals",
    "what `expose` names is the same at each step, and comes as (b, t, width)",
    "a name made of a counter or of a value, `expose` in a branch, or a value that is not (b, width)",
)
def check_internals(subject):
    names = _exposed(subject)
    if not names:
        raise NotThisCell("it exposes none")
    layer = subject.layer(return_internals=True)
    for open_loop in subject.loops:
        given = subject.data(layer, open_loop=open_loop)
        internals = applied(layer, given)[-1]
        assert sorted(internals) == names, f"the layer gives {sorted(internals)}, the step exposes {names}"
        for name, value in internals.items():
            expected = (*given.x.shape[:2], value.shape[-1])
            assert value.shape == expected, f"{name!r}: expected (b, t, width), got {tuple(value.shape)}"
        assert_finite(internals.values(), "the internal value", internals)
        written_out = subject.layer(return_internals=True, unroll=True)
        said = [*result_names(layer, names), *(f"the gradient of {n}" for n in argument_names(layer, given))]
        expected = differentiated(written_out)(*given)
        assert_close(differentiated(layer)(*given), expected, 1e-10, "against Keras's loop:", said)
        plain = subject.layer()
        results = call(layer, given)[: 1 + len(given.states)]
        assert_close(results, call(plain, given), 1e-12, "with internals:", result_names(plain))
    return ", ".join(names)


def _exposed(subject):
    """The names that a step exposes, the same each time."""
    found = []
    for seed in range(3):
        cell, x, states, constants = subject.one_step(seed=seed)
        with capture_intermediates() as exposed:
            take_step(cell, x, states, constants)
            found.append(exposed)
        for name, value in exposed.items():
            expected = (len(x), value.shape[-1])
            assert value.shape == expected, f"{name!r}: expected (b, width), got {tuple(value.shape)}"
    again = dict(found[0])
    with capture_intermediates() as second:  # the same cell again: a counter of its own would show
        take_step(cell, x, states, constants)
    for other in (*found[1:], second):
        assert sorted(other) == sorted(again), f"a step exposed {sorted(again)}, and then {sorted(other)}"
    return sorted(again)
