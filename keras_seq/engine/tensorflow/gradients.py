"""A recurrence as one differentiable operation, with a backward pass of its own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_seq.engine.tensorflow._tensorflow import forget_gradient, take_gradient
from keras_seq.engine.tensorflow.recurrence import Recurrence


class Forward(NamedTuple):
    """What a pass over all steps gives: the outputs, flat, the nest they are packed in, final states, what backward wants."""

    outputs: list[tf.Tensor]
    structure: Any
    states: list[tf.Tensor]
    residuals: Any


def differentiable_once(
    recurrence: Recurrence,
    forward: Callable[[Recurrence, bool], Forward],
    backward: Callable[[Recurrence, Any, Sequence[tf.Tensor]], list[tf.Tensor]],
    plain: Callable[[Recurrence], Forward],
    save_residuals: bool,
) -> Forward:
    """The outputs and final states of a recurrence, with the gradient that `backward` gives; further ones by autodiff.

    Args:
        recurrence: what is run.
        forward: function `(recurrence, save_residuals)`.
        backward: function of the recurrence, the residuals of `forward` and the cotangents of outputs and final states; the
            gradients of `recurrence.args`.
        plain: the forward pass as operations that autodiff can go through.
        save_residuals: keep the residuals of `forward`. If False, a gradient runs it again first.
    """
    found: Any = None

    def run(*args):
        nonlocal found
        here = recurrence.with_args(args)
        found = forward(here, save_residuals)
        kept = found.residuals

        def gradient(*cotangents):
            residuals = kept if save_residuals else forward(here, True).residuals
            return _differentiable_backward(here, args, cotangents, residuals, backward, plain)

        return [*found.outputs, *found.states], gradient

    results = custom_gradient(run, recurrence.args)
    n = len(found.outputs)
    return Forward(results[:n], found.structure, results[n:], None)


def _differentiable_backward(recurrence, args, cotangents, residuals, backward, plain):
    """The backward pass; its own gradient, if ever asked for, is that of autodiff through the plain loop."""
    count = len(args)

    def run(*operands):
        gradients = backward(recurrence.with_args(operands[:count]), residuals, operands[count:])

        def gradient(*second):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(operands)
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(operands[:count])
                    found = plain(recurrence.with_args(operands[:count]))
                first = inner.gradient(
                    [*found.outputs, *found.states],
                    operands[:count],
                    output_gradients=operands[count:],
                    unconnected_gradients="zero",
                )
            return tape.gradient(first, operands, output_gradients=second, unconnected_gradients="zero")

        return gradients, gradient

    return custom_gradient(run, [*args, *cotangents])


def custom_gradient_decorator(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `keras.ops.custom_gradient`, of a function with one result; TensorFlow forgets of it when the graph goes."""

    def run(*args):
        def listed(*given):
            result, gradient = function(*given)
            return [result], gradient

        return custom_gradient(listed, [tf.convert_to_tensor(x) for x in args])[0]

    return run


def custom_gradient(function, args):
    """`function(*args)`, of `(results, gradient)`, with this gradient, of which TensorFlow forgets when the graph goes."""
    results = tf.custom_gradient(function)(*args)
    if not tf.executing_eagerly():
        _forget_with_graph(results[0].op)
    return results


def _forget_with_graph(op):
    """Let the graph own the gradient of its operation, and the registry only know the way there while the graph lives."""
    name, graph = op.get_attr("_gradient_op_type").decode(), op.graph
    if not hasattr(graph, "_keras_seq_gradients"):
        graph._keras_seq_gradients = {}
    where, graph._keras_seq_gradients[name] = weakref.ref(graph), take_gradient(name)
    tf.RegisterGradient(name)(lambda *given: where()._keras_seq_gradients[name](*given))
    weakref.finalize(graph, forget_gradient, name)
