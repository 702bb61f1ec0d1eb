"""What holds of one step: shapes and types, rows apart, no chance, the inputs' part without time."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_seq.engine import capture_intermediates, intercept_dot
from keras_seq.testing.differences import assert_close
from keras_seq.testing.runs import call
from keras_seq.testing.subject import take_step
from keras_seq.testing.table import NotThisCell, check


@check(
    "shapes and types",
    "states and output are of the declared number, width and type",
    "states, state_size (a list of widths) and output_size must say what step returns: the output, and as many states as it "
    "got; cast nothing to a type of your own, or back",
)
def check_shapes(subject):
    for dtype in ("float64", "float32"):
        cell, x, states, constants = subject.one_step(dtype)
        sizes = list(cell.state_size)
        assert len(cell.state_names) == len(sizes), (
            f"states {cell.state_names} and state_size {sizes} are not equally many"
        )
        initial = cell.get_initial_state(batch_size=3)
        _check_states("get_initial_state", initial, [(3, size) for size in sizes], dtype)
        output, new = take_step(cell, x, states, constants)
        _check_states("step", new, [(len(x), size) for size in sizes], dtype)
        expected = (len(x), cell.output_size)
        assert tuple(output.shape) == expected, (
            f"output: expected {expected}, as output_size says, got {tuple(output.shape)}"
        )
        found = keras.backend.standardize_dtype(output.dtype)
        assert found == dtype, f"output: expected {dtype}, as that of the weights, got {found}"


def _check_states(whose, states, shapes, dtype):
    assert isinstance(states, (list, tuple)), (
        f"states from {whose}: expected a tuple or list, got {type(states).__name__}"
    )
    expected = [f"{shape} {dtype}" for shape in shapes]
    found = [f"{tuple(s.shape)} {keras.backend.standardize_dtype(s.dtype)}" for s in states]
    assert found == expected, f"states from {whose}: expected {expected}, got {found}"


@check(
    "project",
    "what project makes of (b, d) and of (b, t, d) is the same",
    "project and readout are given one step on one device, and all steps at once on another: use the last axis alone, "
    "matmul and element-wise operations; what mixes steps belongs into a layer before or after",
)
def check_project(subject):
    layer = subject.layer()
    given = subject.data(layer, mask=False)
    _check_any_axes(layer.cell.run_project, given.x, "project")
    output, _ = layer.cell.run_step(
        layer.cell.run_project(given.x[:, 0]), given.states, layer.cell.run_prepare(given.constants)
    )
    rng = np.random.default_rng(4)
    outputs = tf.constant(rng.normal(size=(*given.x.shape[:2], output.shape[-1])))
    if not layer.cell.readout_reads_constants:  # the constants have one row for each
        _check_any_axes(layer.cell.run_readout, outputs, "readout")


def _check_any_axes(function, x, name):
    b, t = x.shape[:2]
    whole = tf.nest.flatten(function(x))
    steps = [tf.nest.flatten(function(x[:, i])) for i in range(t)]
    swapped = tf.nest.flatten(function(tf.transpose(x, [1, 0, 2])))
    for i, part in enumerate(whole):
        assert tuple(part.shape[:2]) == (b, t), f"{name}: expected leading axes {(b, t)}, got shape {tuple(part.shape)}"
        assert_close([tf.stack([s[i] for s in steps], 1)], [part], 1e-12, f"{name} of single steps, part {i}", [""])
        assert_close([tf.einsum("tb...->bt...", swapped[i])], [part], 1e-12, f"{name} with time first, part {i}", [""])


@check(
    "rows",
    "no row's result depends on another row of the batch",
    "a mean, sum, sort or softmax over axis 0, or a reshape that takes rows apart; use axis=-1",
)
def check_rows(subject):
    cell, x, states, constants = subject.one_step()
    if cell.couples_batch:
        raise NotThisCell("it says that it mixes rows")
    _, other_x, other_states, other_constants = subject.one_step(seed=1)
    batched = [spec.shape.rank > 0 and spec.shape[0] is None for spec in subject.constants]

    def mixed(own, other):
        return tf.concat([own[:1], other[1:]], 0)

    def of_all(function):
        picked = [function(c, o) if b else c for c, o, b in zip(constants, other_constants, batched, strict=True)]
        return function(x, other_x), tuple(map(function, states, other_states)), tuple(picked)

    names = ["the output", *(f"state {s!r}" for s in cell.state_names)]
    output, new = take_step(cell, x, states, constants)
    expected = [v[:1] for v in (output, *new)]
    for what, function in (("all others change", mixed), ("it is alone", lambda own, other: own[:1])):
        output, new = take_step(cell, *of_all(function))
        assert_close([v[:1] for v in (output, *new)], expected, 1e-11, f"row 0 where {what}:", names)


@check(
    "repeatable",
    "a step gives the same each time, with the same products in the same order",
    "random numbers, a counter, or a branch on values inside step; chance belongs into dropout, recurrent_dropout and "
    "zoneout, and every `dot` is called at every step, in one order",
)
def check_repeatable(subject):
    cell, x, states, constants = subject.one_step()
    names = ["the output", *(f"state {s!r}" for s in cell.state_names)]

    def run(x, states, constants):
        kernels = []

        def record(value, kernel):
            kernels.append(np.asarray(kernel))
            return ops.matmul(value, kernel)

        with intercept_dot(record), capture_intermediates() as exposed:
            output, new = take_step(cell, x, states, constants)
        return [output, *new], kernels, exposed

    expected, kernels, _ = run(x, states, constants)
    for _ in range(3):
        results, again, _ = run(x, states, constants)
        _check_same_kernels(kernels, again)
        assert_close(results, expected, 0.0, "called again on the same,", names)
    for seed, sign in ((1, 1), (2, -1), (3, 10)):
        _, x, states, _ = subject.one_step(seed=seed)  # a kernel may be a constant
        _check_same_kernels(kernels, run(sign * x, [sign * s for s in states], constants)[1])
    return f"{len(kernels)} dot{'s' * (len(kernels) != 1)}"


def _check_same_kernels(first, second):
    assert len(first) == len(second), f"step called `dot` {len(first)} times, then {len(second)} times"
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        if a.shape != b.shape or not np.array_equal(a, b):
            assert any(a is not c and np.array_equal(a, c) for c in second), (
                f"the kernel of `dot` {i} of a step changes: it must be made of weights and constants alone"
            )
            raise AssertionError(f"`dot` {i} of a step has another kernel when step is called again: the order changes")


@check(
    "one by one",
    "the layer is the cell, step after step",
    "call, get_initial_state or another method of the base class does something else than there; a wrong `states_before`; a "
    "tf.Variable that is no weight of the cell (make all of them by add_weight, in build)",
)
def check_one_by_one(subject):
    layer = subject.layer()
    given = subject.data(layer, mask=False)
    outputs, *finals = call(layer, given)
    states, found = list(given.states), []
    further = {"constants": given.constants} if given.constants else {}
    for t in range(given.x.shape[1]):
        y, states = layer.cell(given.x[:, t], states, **further)
        found.append(y)
    names = ["outputs", *(f"final state {s!r}" for s in layer.cell.state_names)]
    assert_close([tf.stack(found, 1), *states], [outputs, *finals], 1e-11, "", names)
    initial = layer.cell.get_initial_state(batch_size=len(given.x))
    bare, explicit = (call(layer, given._replace(states=tuple(s))) for s in ((), initial))
    assert_close(bare, explicit, 1e-12, "without initial states:", names)
    if given.constants:
        return  # keras.layers.RNN has none
    theirs = keras.layers.RNN(layer.cell, dtype="float64", name="checked", return_sequences=True, return_state=True)
    assert_close(call(theirs, given), [outputs, *finals], 1e-11, "in keras.layers.RNN:", names)
