"""A layer called on data: results, gradients, and what each is called."""

import typing

import numpy as np
import tensorflow as tf

MASK = np.array(
    [
        [True, True, True, True, True],
        [True, False, True, True, False],
        [False, False, True, False, True],
        [False, False, False, False, False],
    ]
)
"""Ragged, with gaps, and one row hidden altogether; (b, t)."""


class Data(typing.NamedTuple):
    """What a layer is called with, and cotangents of what it returns: outputs, final states, internals."""

    x: typing.Any
    mask: typing.Any = None
    states: tuple = ()
    constants: tuple = ()
    targets: typing.Any = None
    cotangents: tuple = ()


def randomised(layer, seed=0):
    """The layer, its weights drawn anew: no two gates alike, no zero peephole or bias. Constraints are kept."""
    rng = np.random.default_rng([seed, 1])
    for w in layer.weights:
        if "float" in w.dtype:
            fan_in = w.shape[0] if len(w.shape) > 1 else 1
            w.assign(0.5 * rng.normal(size=w.shape) / np.sqrt(max(1, fan_in / 4)))
            if w.constraint is not None:
                w.assign(w.constraint(w))
    return layer


def random_data(layer, features, constants=(), b=4, t=5, mask=True, targets=False, states=True, seed=0):
    """Random `Data` for a layer over a cell.

    Args:
        layer: built.
        features: width of the inputs.
        constants: a `tf.TensorSpec` for each, None for the batch; integers are 1 to 3.
        b, t: batch and time.
        mask: True for `MASK`, repeated or cut to (b, t); False for none.
        targets: whether to give true outputs.
        states: whether to give initial states.
        seed: of the random numbers.
    """
    rng = np.random.default_rng([seed, 2])

    def normal(*shape, dtype=layer.variable_dtype):
        return tf.constant(rng.normal(size=shape), dtype)

    def constant(spec):
        shape = tuple(b if n is None else n for n in spec.shape)
        if spec.dtype.is_floating:
            return 0.5 * normal(*shape)
        return tf.cast(tf.constant(rng.integers(1, 4, size=shape)), spec.dtype)

    width = layer.cell.output_size
    x = normal(b, t, features, dtype=layer.compute_dtype)
    initial = tuple(0.5 * normal(b, size) for size in layer.state_size)
    constants = tuple(constant(spec) for spec in constants)
    outputs = normal(b, t, width) if layer.return_sequences else normal(b, width)
    finals = [normal(b, size) for size in layer.state_size] if layer.return_state else []
    shown = tf.constant(np.tile(MASK, (-(-b // len(MASK)), -(-t // MASK.shape[1])))[:b, :t]) if mask else None
    true = normal(b, t, width) if targets else None
    given = Data(x, shown, initial if states else (), constants, true, (outputs, *finals))
    if layer.return_internals:
        internals = call(layer, given)[1 + len(finals) :]
        given = given._replace(cotangents=(outputs, *finals, *(normal(*v.shape) for v in internals)))
    return given


def applied(layer, given, training=False):
    """What the layer returns."""
    further = {}
    if given.states:
        further["initial_state"] = list(given.states)
    if given.constants:
        further["constants"] = list(given.constants)
    if given.targets is not None:
        further["targets"] = given.targets
    return layer(given.x, mask=given.mask, training=training, **further)


def call(layer, given, training=False):
    """The layer's results as a flat list: outputs, final states, internals, those that it returns."""
    return tf.nest.flatten(applied(layer, given, training))


def result_names(layer, internals=()):
    """What the results of `call` are."""
    states = [f"final state {s!r}" for s in layer.cell.state_names] if layer.return_state else []
    return ["outputs", *states, *(f"internal {name!r}" for name in sorted(internals))]


def arguments(given):
    """What may need a gradient: inputs, states, constants of floating type, targets."""
    constants = [c for c in given.constants if c.dtype.is_floating]
    return [given.x, *given.states, *constants, *([] if given.targets is None else [given.targets])]


def with_arguments(given, values):
    """The data with other values for its `arguments`."""
    values = iter(values)
    return given._replace(
        x=next(values),
        states=tuple(next(values) for _ in given.states),
        constants=tuple(next(values) if c.dtype.is_floating else c for c in given.constants),
        targets=None if given.targets is None else next(values),
    )


def weight_name(weight):
    """What a weight is called among the `argument_names`."""
    return f"weight {weight.path.split('/', 1)[-1]!r}"


def argument_names(layer, given):
    """What the gradients of `differentiated` belong to."""
    named = zip(layer.cell.constant_names, given.constants, strict=True)
    return [
        "the inputs",
        *(f"initial state {s!r}" for s in layer.cell.state_names[: len(given.states)]),
        *(f"constant {name!r}" for name, c in named if c.dtype.is_floating),
        *(() if given.targets is None else ("the targets",)),
        *map(weight_name, layer.trainable_weights),
    ]


def loss(results, cotangents):
    """The sum of all results, each times its cotangent."""
    return sum(tf.reduce_sum(tf.cast(r, c.dtype) * c) for r, c in zip(results, cotangents, strict=True))


def differentiated(layer, training=None, apply=call):
    """A function of the fields of `Data`: `(results, gradients)`, of `arguments` and then of all trainable weights.

    In training, by default, but for a cell that draws at each step which states to leave as they were.
    """
    training = not getattr(layer.cell, "zoneout", 0.0) if training is None else training

    def function(*given):
        given = Data(*given)
        sources = arguments(given)
        with tf.GradientTape() as tape:
            tape.watch(sources)
            results = apply(layer, given, training)
            total = loss(results, given.cotangents)
        wanted = [*sources, *[w.value for w in layer.trainable_variables]]
        return results, tape.gradient(total, wanted, unconnected_gradients="zero")

    return function
