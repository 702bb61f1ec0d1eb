"""The loop over time, one step after the other, with an exact backward pass derived from the step alone.

All inputs are projected by one product before the loop. Forward keeps, per step, the states, the projected inputs and the
results of the `dot`s. Backward walks time in reverse and replays one step after the other (`step_vjp`); it stacks the
cotangents `d` of the `dot`s. After the loop, the gradient of each kernel is one product over all steps and the rows,
`sum_t x_t^T d_t`; so is the gradient of whatever `project` does to the inputs. What a step reads of its weights without `dot`
(peepholes, biases) is summed as the loop goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_seq.engine.primitives import intercept_dot
from keras_seq.engine.tensorflow import parallel
from keras_seq.engine.tensorflow.arrays import (
    adjoint,
    differentiable,
    known_shape,
    like,
    outer,
    product,
    select,
    size,
    stack,
    swap,
    unstack,
)
from keras_seq.engine.tensorflow.fused_dots import sum_with
from keras_seq.engine.tensorflow.gradients import Forward, differentiable_once
from keras_seq.engine.tensorflow.lanes import join, lane_count, run_interleaved, split, split_recurrence
from keras_seq.engine.tensorflow.probe import Probe, probe
from keras_seq.engine.tensorflow.recurrence import Recurrence
from keras_seq.engine.tensorflow.step import Residuals, step_vjp


def run(recurrence: Recurrence, save_residuals: bool) -> Forward:
    """The outputs and final states, differentiable."""
    return differentiable_once(recurrence, forward, backward, _plain, save_residuals)


def _plain(recurrence):
    return forward(recurrence, save_residuals=False)


class _Saved(NamedTuple):
    """What forward saves for backward: the recurrence of each lane, what one step shows, and the stacks of each lane."""

    lanes: list[Recurrence]
    probe: Probe
    stacks: list[list[tf.Tensor]]


def forward(recurrence: Recurrence, save_residuals: bool) -> Forward:
    """The outputs and final states, and what backward wants if `save_residuals`."""
    count = lane_count(recurrence.rows[0].shape[0], recurrence.weights) if recurrence.independent_rows else 1
    lanes = split_recurrence(recurrence, count)
    projected = [lane.project_all() for lane in lanes]
    one = probe(lanes[0], projected[0])
    passes = [_ForwardPass(lane, p, one, save_residuals) for lane, p in zip(lanes, projected, strict=True)]
    found = run_interleaved(passes, recurrence.time)
    outputs, states = join([f.outputs for f in found]), join([f.states for f in found])
    saved = _Saved(lanes, one, [f.residuals for f in found]) if save_residuals else None
    return Forward(outputs, one.structure, states, saved)


def backward(recurrence: Recurrence, saved: _Saved, cotangents: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Gradients of `recurrence.args` from the cotangents of the outputs, flat, and the final states."""
    lanes = saved.lanes
    each = list(zip(lanes, saved.stacks, split(cotangents, len(lanes)), strict=True))
    if recurrence.detach_states:
        n = len(recurrence.states)
        return _join_gradients(recurrence, [parallel.backward(lane, stacks[:n], c) for lane, stacks, c in each])
    transposed = [adjoint(d.kernel) for d in saved.probe.dots]
    passes = [_BackwardPass(lane, saved.probe, transposed, stacks, c) for lane, stacks, c in each]
    found = run_interleaved(passes, recurrence.time)
    gradients = [_outer_vjp(lane, saved.probe, f) for lane, f in zip(lanes, found, strict=True)]
    return _join_gradients(recurrence, gradients)


def _outer_vjp(lane, step, found):
    """Gradients of a lane's `args` from those of all that is made of them outside the loop: the projections, the kernels.

    To these come those of the states and of what a step read but by `dot`.
    """
    args = lane.args
    each = zip(found.arguments, found.dots, step.dots, strict=True)
    dkernels = [outer(x, delta, dot.kernel.dtype) for x, delta, dot in each]
    made_of_weights = any(dot.weight is None for dot in step.dots)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(args)
        projected = lane.project_all()
        made = [p for p in tf.nest.flatten(projected) if differentiable(p)]
        if made_of_weights:
            made += [dot.kernel for dot in probe(lane, projected).dots]
    cotangents = [*found.projected, *(dkernels if made_of_weights else ())]
    gradients = tape.gradient(made, args, output_gradients=cotangents, unconnected_gradients="zero")
    weights = len(args) - len(lane.weights)
    inside = [*[None] * (weights - len(found.states) - len(found.constants)), *found.states, *found.constants]
    for i, more in enumerate([*inside, *found.weights]):
        if more is not None:
            gradients[i] += more
    if not made_of_weights:
        for dot, more in zip(step.dots, dkernels, strict=True):
            gradients[weights + dot.weight] += more
    return gradients


def _join_gradients(recurrence, each):
    """The gradients of all lanes as one: those of their rows put together, those of the weights added up."""
    n = len(recurrence.args) - len(recurrence.weights)
    weights = zip(*(g[n:] for g in each), strict=True)
    return [*join([g[:n] for g in each]), *(w[0] if len(w) == 1 else tf.add_n(w) for w in weights)]


class _ForwardPass:
    """Forward over the rows of one lane. It carries the last outputs, the states, the next projection, and the stacks."""

    def __init__(self, lane, projected, step, save_residuals):
        self.lane, self.step, self.save = lane, step, save_residuals
        self.save_dots = save_residuals and not lane.detach_states
        self.projected = tuple(unstack(x, lane.time) for x in tf.nest.flatten(projected))
        self.mask = None if lane.mask is None else unstack(tf.transpose(lane.mask), lane.time)
        # where only the sum of a product and its part of the projection is kept, it takes the place of that part
        self.fused = step.fused
        sums = self.projected if self.save_dots and self.fused else ()
        outputs = tuple(_zeros(o, lane) for o in step.outputs)
        examples = self._saved(
            _specs(step.outputs, lane, step), lane.states, _specs([dot.result for dot in step.dots], lane, step)
        )
        stacks = tuple(stack(x, lane.time) for x in examples)
        self.carried = outputs, lane.states, self._read(self.projected, 0), sums, stacks

    def _saved(self, outputs, states_before, dots):
        """What a step leaves on the stacks."""
        saved = [*outputs] if self.lane.return_sequences else []
        if self.save:
            saved += states_before
        if self.save_dots:
            saved += [r for j, r in enumerate(dots) if j not in self.fused]
        return saved

    def _read(self, stacks, index):
        """The projection of the step at `index`, flat."""
        place = self.lane.place(index)
        return tuple(s.read(place) for s in stacks)

    def body(self, index, carried):
        outputs, states, here, sums, stacks = carried
        place = self.lane.place(index)
        dots = []

        def multiply(x, _):
            dots.append(product(x, self.step.dots[len(dots)].kernel))
            return dots[-1]

        with intercept_dot(multiply):
            projected = tf.nest.pack_sequence_as(self.step.projected, here)
            output, new_states = self.lane.take_step(projected, states)
        new_outputs = tf.nest.flatten(output)
        if self.mask is not None:
            mask = self.mask.read(place)
            hidden = [tf.zeros_like(o) for o in outputs] if self.lane.zero_output_for_mask else outputs
            new_outputs, new_states = select(mask, new_outputs, hidden), select(mask, new_states, states)
        if sums:
            new = {i: sum_with(dots[j]) for j, i in self.fused.items()}
            sums = tuple(s.write(place, new[i]) if i in new else s for i, s in enumerate(sums))
        saved = self._saved(new_outputs, states, dots)
        stacks = tuple(s.write(index, v) for s, v in zip(stacks, saved, strict=True))
        # read after the write, for the next step: else XLA may copy a whole stack to read from while it writes
        here = like(self._read(sums or self.projected, tf.minimum(index + 1, self.lane.time - 1)), here)
        return like(new_outputs, outputs), like(new_states, states), here, sums, stacks

    def finish(self, carried):
        outputs, states, _, sums, stacks = carried
        stacks = [s.stack() for s in stacks]
        if self.lane.return_sequences:
            steps = tf.nest.flatten(self.lane.inputs)[0].shape[1:2]
            outputs = [swap(known_shape(stacks.pop(0), steps + o.shape)) for o in outputs]
        if self.save_dots:
            stacks += [p.stack() for p in sums or self.projected]
        return Forward(list(outputs), None, list(states), stacks)


class _Gradients(NamedTuple):
    """What the backward pass of one lane found.

    Cotangents of all projections, (t, b, ...) in order of time, of the initial states, and of the constants and weights that
    a step reads but by `dot`, None of the others; and of each `dot` the cotangents and the arguments at all steps.
    """

    projected: list[tf.Tensor]
    states: list[tf.Tensor]
    constants: list[tf.Tensor | None]
    weights: list[tf.Tensor | None]
    dots: list[tf.Tensor]
    arguments: list[tf.Tensor]


class _BackwardPass:
    """Backward over the rows of one lane.

    It carries the cotangents of outputs and states, the sums of what a step reads but by `dot`, what was kept of the step
    that comes next, and the stacks. What was kept of a step is not read again: its cotangent takes its place.
    """

    def __init__(self, lane, step, transposed, stacks, cotangents):
        self.lane, self.step, self.transposed, self.kept = lane, step, transposed, stacks
        self.mask = None if lane.mask is None else unstack(tf.transpose(lane.mask), lane.time)
        n, read = len(step.outputs), [unstack(k, lane.time) for k in stacks]
        self.states_before, own = read[: len(lane.states)], tuple(read[len(lane.states) :])
        self.fused = step.fused
        self.separate = [j for j, dot in enumerate(step.dots) if dot.part is None]
        self.floating = [differentiable(p) for p in tf.nest.flatten(step.projected)]
        doutputs, dstates = tuple(cotangents[:n]), tuple(cotangents[n:])
        self.each = [unstack(swap(d), lane.time) for d in doutputs] if lane.return_sequences else []
        self.last = () if lane.return_sequences or lane.mask is not None else doutputs
        if lane.mask is None:  # only a mask lets an output go on to the next step
            doutputs = ()
        elif lane.return_sequences:
            doutputs = tuple(_zeros(o, lane) for o in step.outputs)
        fixed = [x for x in [*lane.constants, *lane.weights] if differentiable(x)]
        sums = tuple(tf.zeros_like(x) for x, reads in zip(fixed, step.reads, strict=True) if reads)
        others = [dot.argument for dot in step.dots if not isinstance(dot.argument, int)]
        stacks = tuple(stack(x, lane.time) for x in _specs(others, lane, step))
        self.carried = doutputs, dstates, sums, self._read(own, lane.time - 1), own, stacks

    def _places(self, index):
        """Where what was kept of a step stands: projections in order of time, all else in order of processing."""
        return [index] * len(self.separate) + [self.lane.place(index)] * len(self.floating)

    def _read(self, own, index):
        return tuple(s.read(place) for s, place in zip(own, self._places(index), strict=True))

    def _residuals(self, index, here):
        dots, parts = dict(zip(self.separate, here, strict=False)), here[len(self.separate) :]
        # a fused dot is in the sum that takes the place of its part of the projection
        dots |= {j: tf.zeros_like(parts[i]) for j, i in self.fused.items()}
        projected = tf.nest.pack_sequence_as(self.step.projected, parts)
        return Residuals(
            projected, tuple(s.read(index) for s in self.states_before), [dots[j] for j in range(len(dots))]
        )

    def body(self, count, carried):
        doutputs, dstates, sums, here, own, stacks = carried
        lane, index = self.lane, self.lane.time - 1 - count
        now = [e.read(index) for e in self.each]
        now = now or [tf.where(index == lane.time - 1, d, tf.zeros_like(d)) for d in self.last]
        dnew = [d + e for d, e in zip(doutputs, now, strict=True)] if self.each and doutputs else now or doutputs
        dnew, passed, n = [*dnew, *dstates], None, len(dnew)
        if self.mask is not None:
            mask, zeros = self.mask.read(lane.place(index)), [tf.zeros_like(d) for d in dnew]
            passed, dnew = select(mask, zeros, dnew), select(mask, dnew, zeros)
            if lane.zero_output_for_mask:
                passed[:n] = zeros[:n]
        residuals = self._residuals(index, here)
        found = step_vjp(lane.step, lane.weights, residuals, lane.constants, self.transposed, dnew)
        if passed is None:
            doutputs, dstates = (), like(found.states, dstates)
        elif lane.independent_rows:
            doutputs, dstates = like(passed[:n], doutputs), like(select(mask, found.states, dstates), dstates)
        else:  # other rows may read the states of a hidden one
            doutputs, dstates = like(passed[:n], doutputs), like(map(tf.add, found.states, passed[n:]), dstates)
        read = [g for g, reads in zip([*found.constants, *found.weights], self.step.reads, strict=True) if reads]
        sums = tuple(s if g is None else s + g for s, g in zip(sums, read, strict=True))
        parts = iter(found.projected)
        new = [*(found.dots[j] for j in self.separate), *(next(parts) if f else None for f in self.floating)]
        own = tuple(s if v is None else s.write(p, v) for s, p, v in zip(own, self._places(index), new, strict=True))
        # again read after the write
        here = like(self._read(own, tf.maximum(index - 1, 0)), here)
        others = [x for x in found.arguments if not isinstance(x, int)]
        stacks = tuple(s.write(index, v) for s, v in zip(stacks, others, strict=True))
        return doutputs, dstates, sums, here, own, stacks

    def finish(self, carried):
        _, dstates, sums, _, own, stacks = carried
        own = [s.stack() for s in own]
        deltas, dprojected = dict(zip(self.separate, own, strict=False)), own[len(self.separate) :]
        for j, i in self.fused.items():
            deltas[j] = tf.reverse(dprojected[i], [0]) if self.lane.go_backwards else dprojected[i]
        others, found = iter(stacks), iter(sums)
        arguments = [dot.argument for dot in self.step.dots]
        arguments = [self.kept[x] if isinstance(x, int) else next(others).stack() for x in arguments]
        fixed = [next(found) if reads else None for reads in self.step.reads]
        n = len(fixed) - len(self.lane.weights)
        return _Gradients(
            [d for d, f in zip(dprojected, self.floating, strict=True) if f],
            list(dstates),
            fixed[:n],
            fixed[n:],
            [deltas[j] for j in range(len(deltas))],
            arguments,
        )


def _specs(examples, lane, step):
    """What tensors of a step are in this lane, from those of the lane that the step was taken in."""
    here, there = lane.rows[0].shape[0], step.rows

    def spec(x):
        if x.shape.rank == 0 or here == there or None in (here, there, x.shape[0]):  # of no rows, too
            return tf.TensorSpec(x.shape, x.dtype)
        return tf.TensorSpec([x.shape[0] * here // there, *x.shape[1:]], x.dtype)

    return list(map(spec, examples))


def _zeros(example, lane):
    """Zeros like an output of a step, for the rows of this lane."""
    rows = lane.rows[0]
    sizes = [size(rows, 0), *(size(example, axis) for axis in range(1, len(example.shape)))]
    return known_shape(tf.zeros(sizes, example.dtype), rows.shape[:1] + example.shape[1:])
