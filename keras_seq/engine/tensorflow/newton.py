"""All steps at once where no formula knows the states: Newton's method for a whole trajectory.

    s_t = f_t(s_{t-1}),   t = 1 .. T,

is one system of equations. An iteration takes all steps side by side from the states it has, s, and solves the equations
linearised there, with J_t = df_t / ds_{t-1}:

    d_t = J_t d_{t-1} + f_t(s_{t-1}) - s_t,   d_0 = 0;   s <- s + d

which is a linear recurrence, in about 2 log2(T) levels. The gradient is that of the solution, whatever the way to it: with
g_t the cotangent that reaches s_t from the outputs of step t + 1, that of the states, l, solves

    l_t = g_t + J_{t+1}^T l_{t+1},

the same recurrence backwards, and one step of all steps side by side takes it to all that they read.

Sources: Lim et al., "Parallelizing non-linear sequential models over the sequence length", 2024 (the iteration); Gonzalez et
al., "Towards scalable and stable parallelization of nonlinear RNNs", 2024 (diagonals, damping).
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from typing import NamedTuple, Protocol

import tensorflow as tf

from keras_seq.engine.pairs import recurrence_by_pairs
from keras_seq.engine.primitives import report_solution
from keras_seq.engine.tensorflow import loop, parallel
from keras_seq.engine.tensorflow._tensorflow import compiled_by_xla
from keras_seq.engine.tensorflow.arrays import column, differentiable, known_shape, like, size
from keras_seq.engine.tensorflow.gradients import Forward, differentiable_once
from keras_seq.engine.tensorflow.linear import linear_loop, linear_loop_is_cheap
from keras_seq.engine.tensorflow.recurrence import Recurrence
from keras_seq.engine.tensorflow.step import step_diagonal, step_jacobian

FULL_WIDTH = 16
"""The widest states of which "auto" takes the whole Jacobian."""
LEAST_SHARE = 1 / 16
"""An iteration that would take a smaller share of the Jacobian takes none of it."""


class Settings(Protocol):
    """How to solve; see `keras_seq.Newton`."""

    tolerance: float | None
    max_iterations: int
    jacobian: str
    damping: float


class Solution(NamedTuple):
    """The states after each step, (t, b, n), how many iterations were taken, and the error of each row in the last, (b,)."""

    states: tf.Tensor
    iterations: tf.Tensor
    errors: tf.Tensor
    converged: tf.Tensor


def run(recurrence: Recurrence, settings: Settings, save_residuals: bool) -> Forward:
    """The outputs and final states, differentiable; by the loop, with a warning, where the iterations do not converge."""

    def plain(here):
        return loop.forward(here, save_residuals=False)

    def forward(here, _):
        solution = _solve(here, settings)
        report_solution(iterations=solution.iterations, errors=solution.errors)
        structures = []

        def results(found):
            structures.append(found.structure)
            return [*found.outputs, *found.states]

        def at_once():
            steps = _Steps(here)
            return results(steps.results(*steps.take(steps.before(solution.states))))

        def one_by_one():
            _warn(solution.errors, "the states", settings)
            return results(plain(here))

        found = tf.cond(solution.converged, at_once, one_by_one)
        n = len(found) - len(here.states)
        return Forward(found[:n], structures[0], found[n:], solution)

    def backward(here, solution, cotangents):
        return _backward(here, settings, solution, cotangents)

    return differentiable_once(recurrence, forward, backward, plain, save_residuals)


class _Steps:
    """The steps of a recurrence in order of processing. Their states are one tensor (t, b, n), side by side."""

    def __init__(self, recurrence):
        self.recurrence = recurrence
        self.projected, self.mask = parallel.project_in_order(recurrence)
        self.widths = [s.shape[-1] for s in recurrence.states]
        self.initial = tf.concat(recurrence.states, axis=-1)
        self.time = size(tf.nest.flatten(self.projected)[0], 0)

    def before(self, states):
        """The states before each step, apart, from those after each."""
        return tf.split(tf.concat([self.initial[None], states[:-1]], axis=0), self.widths, axis=-1)

    def take(self, before):
        """`(outputs, states after)` as if all steps were real, from the states before each, apart."""
        return parallel.take_all_steps(self.recurrence, self.projected, before)

    def after(self, after, before):
        """The states after each step, side by side; a masked one leaves them as they were."""
        return self._unless_masked(tf.concat(after, axis=-1), tf.concat(before, axis=-1))

    def results(self, output, after):
        real = None if self.mask is None else parallel.RealSteps(self.mask)
        return parallel.as_results(self.recurrence, real, output, after)

    def linearised(self, before, full):
        """`(the states after each step, side by side; their Jacobian (t, b, n, n), or its diagonal (t, b, n))`."""
        rows, projected, constants = parallel.as_rows(self.recurrence, self.projected, before)
        of_step = step_jacobian if full else step_diagonal
        found = of_step(self.recurrence.step, self.recurrence.weights, projected, rows, constants)
        after, jacobian = map(self._steps, (tf.concat(found[0], axis=-1), found[1]))
        unchanged = tf.eye(sum(self.widths), dtype=jacobian.dtype) if full else tf.ones_like(jacobian)
        return self.after([after], before), self._unless_masked(jacobian, unchanged)

    def _steps(self, x):
        """What one step over t * b rows gave, (t, b, ...), with the b that is known."""
        return known_shape(parallel.as_steps(x, self.time), [None, self.initial.shape[0], *x.shape[1:]])

    def _unless_masked(self, new, old):
        return new if self.mask is None else tf.where(column(self.mask, new), new, old)


def _solve(recurrence, settings):
    """The trajectory. A row whose states would not be finite goes back and on with half as much of the Jacobian."""
    steps = _Steps(dataclasses.replace(recurrence, detach_states=False))
    full = _is_full(steps, settings)
    whole = tf.ones_like(steps.initial[:, 0])

    def body(count, states, errors, share):
        before = steps.before(states)
        wanted, jacobian = steps.linearised(before, full)
        errors = tf.reduce_max(tf.abs(wanted - states) / tf.maximum(tf.abs(states), 1), axis=[0, 2])
        taken = tf.where(share < LEAST_SHARE, tf.zeros_like(share), share) * (1 - settings.damping)
        step = _recur(tf.reshape(taken, [1, -1, *[1] * (len(jacobian.shape) - 2)]) * jacobian, wanted - states, full)
        finite = tf.reduce_all(tf.math.is_finite(step), axis=[0, 2])
        states = tf.where(finite[None, :, None], states + step, states)
        share = tf.where(finite, tf.minimum(2 * share, whole), share / 2)
        return count + 1, *like([states, errors, share], carried)

    def going_on(count, states, errors, share):
        return tf.reduce_any(~(errors <= settings.tolerance))

    carried = tf.repeat(steps.initial[None], steps.time, axis=0), whole + float("inf"), whole
    count, states, errors, _ = tf.while_loop(
        going_on, body, (tf.constant(0), *carried), maximum_iterations=settings.max_iterations
    )
    return Solution(states, count, errors, tf.reduce_all(errors <= settings.tolerance))


def _is_full(steps, settings):
    return settings.jacobian == "full" or (settings.jacobian == "auto" and sum(steps.widths) <= FULL_WIDTH)


def _recur(jacobian, terms, full):
    """d_t = J_t d_{t-1} + terms_t from zero, of J or their diagonals."""
    times, terms = (tf.matmul, terms[..., None]) if full else (tf.multiply, terms)
    way = linear_loop if linear_loop_is_cheap() else recurrence_by_pairs
    found = way(jacobian, terms, tf.zeros_like(terms[0]), times)
    return found[..., 0] if full else found


def _warn(errors, what, settings):
    """Say that the loop takes over; a program of XLA has no way to say anything."""
    error, expected = (
        tf.reduce_max(errors),
        f"solver: expected an error of {what} of at most {settings.tolerance:.2g} after",
    )
    if tf.executing_eagerly():
        said = (
            f"{expected} {settings.max_iterations} iterations, got {float(error):.2g}; the loop over time runs instead"
        )
        warnings.warn(said, RuntimeWarning, stacklevel=2)
    elif not compiled_by_xla():
        said = [expected, settings.max_iterations, "iterations, got", error, "; the loop over time runs instead"]
        tf.print(*said, output_stream=sys.stderr)


def _backward(recurrence, settings, solution, cotangents):
    """Gradients of `recurrence.args`, from the solution or, where there is none, by the loop."""

    def by_loop():
        saved = loop.forward(recurrence, save_residuals=True).residuals
        return loop.backward(recurrence, saved, cotangents)

    def from_solution():
        if recurrence.detach_states:
            return parallel.backward(recurrence, _Steps(recurrence).before(solution.states), cotangents)
        gradients, errors = _implicit(recurrence, settings, solution, cotangents)

        def instead():
            _warn(errors, "their gradients", settings)
            return by_loop()

        return tf.cond(tf.reduce_all(errors <= settings.tolerance), lambda: gradients, instead)

    return tf.cond(solution.converged, from_solution, by_loop)


def _implicit(recurrence, settings, solution, cotangents):
    """`(gradients of recurrence.args, the error of each row in those of the states, relative to the largest)`."""
    args, n = recurrence.args, len(cotangents) - len(recurrence.states)
    doutputs, dstates = list(cotangents[:n]), tf.concat(cotangents[n:], axis=-1)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(args)
        steps = _Steps(recurrence)
        before = [tf.stop_gradient(s) for s in steps.before(solution.states)]
        tape.watch(before)
        output, after = steps.take(before)
        outputs = steps.results(output, after).outputs
        states = steps.after(after, before)

    def pull(results, gradients):
        found = tape.gradient(results, before, output_gradients=gradients, unconnected_gradients="zero")
        return tf.concat(found, axis=-1)

    full = _is_full(steps, settings)
    _, jacobian = steps.linearised(before, full)
    jacobian = tf.linalg.matrix_transpose(jacobian) if full else jacobian
    backwards = tf.reverse(tf.concat([jacobian[1:], tf.zeros_like(jacobian[:1])], axis=0), [0])
    of_outputs = pull(outputs, doutputs)
    given = tf.concat([of_outputs[1:], dstates[None]], axis=0)

    def body(count, found, errors):
        missing = given + tf.concat([pull(states, found)[1:], tf.zeros_like(given[:1])], axis=0) - found
        step = tf.reverse(_recur(backwards, tf.reverse(missing, [0]), full), [0])
        largest = [tf.reduce_max(tf.abs(x), axis=[0, 2]) for x in (missing, found)]
        return count + 1, *like([found + step, tf.where(largest[0] > 0, largest[0] / largest[1], 0)], carried)

    carried = tf.zeros_like(given), tf.fill(tf.shape(given)[1:2], tf.constant(float("inf"), given.dtype))
    count, found, errors = tf.while_loop(
        lambda count, found, errors: tf.reduce_any(~(errors <= settings.tolerance)),
        body,
        (tf.constant(0), *carried),
        maximum_iterations=settings.max_iterations,
    )
    report_solution(gradient_iterations=count, gradient_errors=errors)
    gradients = tape.gradient(
        [*outputs, states], args, output_gradients=[*doutputs, found], unconnected_gradients="zero"
    )
    of_initial = tf.split((of_outputs + pull(states, found))[0], steps.widths, axis=-1)
    first = sum(map(differentiable, tf.nest.flatten(recurrence.inputs)))
    for place, gradient in enumerate(of_initial, first):
        gradients[place] += gradient
    return gradients, errors
