"""Results and gradients over a sequence: the engine's, those of Keras's loop, finite differences, every way to run them."""

import functools

import numpy as np
import tensorflow as tf

from keras_seq.testing.differences import assert_close, assert_differences
from keras_seq.testing.runs import (
    Data,
    argument_names,
    arguments,
    call,
    differentiated,
    loss,
    result_names,
    with_arguments,
)
from keras_seq.testing.table import NotThisCell, check

VARIANTS: tuple[dict[str, bool], ...] = (
    {},
    {"go_backwards": True},
    {"return_sequences": False, "zero_output_for_mask": True},
)
GRADIENTS = (
    "a weight is read past its attribute, as from a tensor kept at another time; the step reads or changes something besides "
    "its arguments and weights; or a `states_before` does not agree with the step"
)


def check_written_out(subject, mask, changes=None, states=True, variants=VARIANTS):
    """Results and gradients on the engine are those of autodiff through Keras's written-out loop (`unroll=True`)."""
    for settings in variants:
        layer, written_out = (subject.layer(changes=changes, unroll=u, **settings) for u in (False, True))
        for open_loop in subject.loops:
            given = subject.data(layer, mask=mask, open_loop=open_loop, states=states)
            where = ", ".join([*(f"{k}={v}" for k, v in settings.items()), *(["on targets"] if open_loop else [])])
            names = [*result_names(layer), *(f"the gradient of {n}" for n in argument_names(layer, given))]
            expected = differentiated(written_out)(*given)
            assert_close(differentiated(layer)(*given), expected, 1e-10, where and f"{where}:", names)


@check("Keras's loop", "results and gradients are those of autodiff through a plain loop", GRADIENTS)
def check_keras_loop(subject):
    check_written_out(subject, mask=False)


@check("Keras's loop, masked", "the same under ragged masks with gaps", GRADIENTS)
def check_keras_loop_masked(subject):
    check_written_out(subject, mask=True)


def check_against_differences(layer, given, skipped=(), loss_of=None, directions=2, training=None, apply=call):
    """All gradients are finite differences, but those of the `skipped`; returns the names of what no gradient reaches.

    The gradients are those of `differentiated(layer, training, apply)`. `loss_of(*given)` is the loss that they belong to; by
    default it is compiled from the layer's results.
    """
    _, gradients = differentiated(layer, training, apply)(*given)
    weights = layer.trainable_variables
    count = len(arguments(given))
    if loss_of is None:
        loss_of = tf.function(lambda *moved: loss(call(layer, Data(*moved)), given.cotangents), autograph=False)

    def function(values):
        for w, value in zip(weights, values[count:], strict=True):
            w.assign(value)
        return float(loss_of(*with_arguments(given, values[:count])))

    names = argument_names(layer, given)
    gradients = [None if name in skipped else g for name, g in zip(names, gradients, strict=True)]
    values = [*arguments(given), *[tf.constant(w.numpy()) for w in weights]]
    try:
        return assert_differences(function, values, gradients, names, directions)
    finally:
        for w, value in zip(weights, values[count:], strict=True):
            w.assign(value)


@check(
    "finite differences",
    "every gradient is the slope of the loss",
    "a custom gradient that is wrong, NumPy or a stop_gradient or rounding inside step (skip this check if that is meant), "
    "or a function with a jump",
)
def check_finite_differences(subject):
    layer = subject.layer()
    unreached = None
    for open_loop in subject.loops:
        if layer.cell.blocked:
            # one step for many rows: what blocks gradients acts between steps; the written-out loop has the rest
            given = subject.data(layer, b=12, t=1, mask=False, open_loop=open_loop)
            skipped = [f"initial state {s!r}" for s in layer.cell.state_names]
        else:
            given, skipped = subject.data(layer, open_loop=open_loop), ()
        found = set(check_against_differences(layer, given, skipped)) - {"the targets"}
        unreached = found if unreached is None else unreached & found
    return f"no gradient reaches {', '.join(sorted(unreached))}" if unreached else None


@check(
    "blocked",
    "no gradient passes through the states of a blocked memory",
    "the step reads its states past the arguments that it was given",
)
def check_blocked(subject):
    layer = subject.layer()
    if not layer.cell.blocked:
        raise NotThisCell("it lets them through")
    for open_loop in subject.loops:
        given = subject.data(layer, open_loop=open_loop)
        # a hidden row's final states are the initial ones, and its gradient is no step's
        cotangents = tuple(c * np.any(given.mask, 1).reshape(-1, *[1] * (len(c.shape) - 1)) for c in given.cotangents)
        _, gradients = differentiated(layer)(*given._replace(cotangents=cotangents))
        for name, gradient in zip(layer.cell.state_names, gradients[1:], strict=False):
            assert not np.any(gradient), f"initial state {name!r} has a gradient, up to {np.max(np.abs(gradient)):.1e}"


@check(
    "eager, graph, XLA",
    "the same results and gradients in every mode",
    "Python values or NumPy inside step or project, a branch on a tensor's value, or an operation that XLA has not: use "
    "keras.ops, ops.where and ops.cond",
)
def check_modes(subject):
    layer = subject.layer()
    for open_loop in subject.loops:
        given = subject.data(layer, open_loop=open_loop)
        names = [*result_names(layer), *(f"the gradient of {n}" for n in argument_names(layer, given))]
        expected = differentiated(layer)(*given)
        modes = {
            "training=False": differentiated(layer, training=False),
            "graph": compiled(differentiated(layer)),
            "XLA": compiled(differentiated(layer), jit_compile=True),
        }
        for mode, function in modes.items():
            where = f"{mode}{', on targets' if open_loop else ''}:"
            try:
                found = function(*given)
            except Exception as error:
                error.add_note(where)
                raise
            assert_close(found, expected, 1e-10, where, names)


@check(
    "checkpoint, truncate",
    "checkpoint=True changes nothing, truncate=k the gradient alone, cut every k steps",
    GRADIENTS,
)
def check_chunks(subject):
    plain, checkpointed = subject.layer(), subject.layer(checkpoint=True)
    truncated = subject.layer(truncate=2)
    for open_loop in subject.loops:
        given = subject.data(plain, open_loop=open_loop)
        names = [*result_names(plain), *(f"the gradient of {n}" for n in argument_names(plain, given))]
        expected = differentiated(plain)(*given)
        assert_close(differentiated(checkpointed)(*given), expected, 1e-10, "checkpoint=True:", names)
        given = given._replace(mask=None)
        expected = differentiated(plain, apply=functools.partial(_in_parts, size=2))(*given)
        assert_close(differentiated(truncated)(*given), expected, 1e-10, "truncate=2:", names)


def _in_parts(layer, given, training, size):
    """The results of one part after the other, each from the final states of the one before, which pass no gradient."""
    outputs, states = [], given.states
    for start in range(0, given.x.shape[1], size):
        part = slice(start, start + size)
        targets = None if given.targets is None else given.targets[:, part]
        found, *states = call(layer, given._replace(x=given.x[:, part], states=states, targets=targets), training)
        outputs.append(found)
        final, states = states, [tf.stop_gradient(s) for s in states]
    return [tf.concat(outputs, 1), *final]


@check(
    "any size",
    "one trace serves every batch and length, and is traced once",
    "a Python number taken from a shape: use ops.shape, and -1 in ops.reshape",
)
def check_sizes(subject):
    layer = subject.layer()
    for open_loop in subject.loops:
        sizes = ((4, 5), (1, 1), (2, 7), (4, 5))
        examples = [subject.data(layer, b, t, open_loop=open_loop, seed=b) for b, t in sizes]
        run, traces = _counted(layer)
        graph = tf.function(run, autograph=False, input_signature=_relaxed(subject, examples[0]))
        for size, given in zip(sizes, examples, strict=True):
            found = graph(*given[:4], () if given.targets is None else (given.targets,))
            assert_close(found, call(layer, given), 1e-10, f"(b, t) = {size}:", result_names(layer))
        assert len(traces) == 1, f"the layer was traced {len(traces)} times for {len(sizes)} calls"


def _counted(layer):
    """A call of the layer, and a list that grows with each trace of it."""
    traces = []

    def run(x, mask, states, constants, targets):
        traces.append(1)
        return call(layer, Data(x, mask, states, constants, *targets))

    return run, traces


def compiled(function, **settings):
    """A function traced when it is called."""
    graph = tf.function(function, autograph=False, **settings)
    return lambda *given: graph.get_concrete_function(*given)(*given)


def _relaxed(subject, given):
    """The specification of such data of any batch and length."""

    def spec(x):
        return tf.TensorSpec([*[None] * (len(x.shape) - 1), x.shape[-1]], x.dtype)

    def constant(of, value):
        return tf.TensorSpec(
            [None if n is None else m for n, m in zip(of.shape, value.shape, strict=True)], value.dtype
        )

    constants = tuple(map(constant, subject.constants, given.constants))
    targets = () if given.targets is None else (spec(given.targets),)
    return spec(given.x), tf.TensorSpec([None, None], "bool"), tuple(map(spec, given.states)), constants, targets
