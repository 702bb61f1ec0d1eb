"""A cell that reads a memory: at each step the places that fit what it looks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import activations, initializers, ops

from keras_seq._keras import AutocastScope
from keras_seq.arguments import boolean, named, one_of, positive_integer
from keras_seq.cells.base import Cell
from keras_seq.cells.floats import lowest
from keras_seq.cells.wrapper import CellWrapper, check_gated, check_projection
from keras_seq.engine import dot, dot_dtype, expose
from keras_seq.typing import Activation, Initializer, LayerArguments, Shape, Tensor

SCORES = ("additive", "dot", "general", "multi_head")


@keras.saving.register_keras_serializable(package="keras_seq")
class AttentionCell(CellWrapper):
    """Any cell that also reads a memory m_1 .. m_s, such as the outputs of an encoder or the places of a picture.

        c_t = sum_j a_tj m_j,   a_t = softmax_j e(q_t, m_j) over the places that the mask shows

        score="additive"     e = v . tanh(q W_q + m_j W_k + b)                       (Bahdanau et al. 2015)
        score="dot"          e = q . m_j                                             (Luong et al. 2015)
        score="general"      e = q . (m_j W_k)                                       (the same)
        score="multi_head"   c_t = [c_t1 .. c_tn] W_o + b_o; for each head e = (q W_q + b_q) . (m_j W_k + b_k) / sqrt(a)
                             and values m_j W_v + b_v                                (Vaswani et al. 2017)

        query="before"       q_t = h_{t-1};   y_t, s_t = step(project(x_t) + c_t W_c, s_{t-1})     (Bahdanau)
        query="after"        z_t, s_t = step(project(x_t), s_{t-1});   q_t = z_t                   (Luong)
        output_units         y_t = f([c_t; z_t] W_y), z_t the output of the step
        input_feeding        step(project(x_t) + .. + y_{t-1} W_f, s_{t-1})                        (Luong)

    The layer takes the memory (b, s, m) as a constant, its mask, boolean (b, s), as a second one or from Keras's masking:
    `RNN(AttentionCell(cell))(x, constants=[memory, mask])`. Keys and values are projected once, before the first step; the
    memory gets an exact gradient. A row whose memory is masked altogether reads zeros, c_t = 0, with alignments of zero.
    Nothing behind the mask reaches a value or a gradient. Internals, besides those of the cell: `alignment` a_t (b, t, s),
    with several heads their mean, and `alignment_0` .. those of each; `context` c_t.

    h is the first state of the cell. Without `input_feeding`, "after" sends nothing of what is read to the next step: but for
    additive scores a layer then reads for all steps at once, after the loop.
    Bahdanau's readout sees x_t, c_t and h_t: give `output_units` to see the last two.

    Weights: `query_kernel` (q, a), `key_kernel` (m, a) (general: (m, q)), `score_bias` b and `score_kernel` v (a,);
    of several heads `query_kernel`, `key_kernel`, `value_kernel` (., heads * a), `heads_kernel` W_o (heads * a, q) and
    their biases; `context_kernel` W_c (c, gates * u), `output_kernel` W_y (c + u, y), `feeding_kernel` W_f (y, gates * u).

    Args:
        cell: a `keras_seq.GatedCell`; for "after" without `input_feeding` any `keras_seq.Cell`. Its dropout, zoneout and
            learned initial state are used as they are.
        score: one of the four.
        units: a, positive integer; default q, for several heads q / heads.
        query: "before" or "after" the cell's step.
        output_units: width of y_t; None for the cell's own output y_t = z_t, with "after" for the cell's width.
        output_activation: f, default tanh.
        input_feeding: whether the last output is read by the next step, as a state `attended`; needs an output of its own.
        heads: positive integer, of "multi_head".
        kernel_initializer: of all these kernels.
        score_initializer: of `score_kernel`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        TypeError: a cell that is none, or no `keras_seq.GatedCell` where something is added to its projection.
        ValueError: an unknown score or position; "dot" with a memory that is not as wide as the query; heads that do not
            divide the width, or are given with another score; zoneout, or a readout of the cell's own, together with an
            output here; constants other than a memory (b, s, m) and maybe a mask (b, s) with the batch of the sequences.

    Example:

    ```python
    import keras_seq
    from keras import ops
    layer = keras_seq.RNN(keras_seq.AttentionCell(keras_seq.GRUCell(4)), return_sequences=True, return_internals=True)
    memory, mask = ops.ones((2, 7, 6)), ops.arange(7) < ops.array([[5], [7]])
    y, internals = layer(ops.ones((2, 5, 3)), constants=[memory, mask])   # (2, 5, 4)
    internals["alignment"]                                                # (2, 5, 7), rows sum to 1
    ```
    """

    constant_names = ("memory",)  # and maybe its mask

    def __init__(
        self,
        cell: Cell,
        score: str = "additive",
        units: int | None = None,
        query: str = "before",
        output_units: int | None = None,
        output_activation: Activation = "tanh",
        input_feeding: bool = False,
        heads: int = 1,
        kernel_initializer: Initializer = "glorot_uniform",
        score_initializer: Initializer = "glorot_uniform",
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        one_of("score", score, SCORES)
        one_of("query", query, ("before", "after"))
        if not isinstance(cell, Cell):
            raise TypeError(f"cell: expected a keras_seq.Cell, got {cell!r}")
        self_fed = boolean("input_feeding", input_feeding)
        if query == "before" or self_fed:
            check_gated(cell, " with query='before' or input_feeding")
        super().__init__(cell, **kwargs)
        self.score, self.query, self.input_feeding = score, query, self_fed
        self.units = None if units is None else positive_integer("units", units)
        self.output_units = None if output_units is None else positive_integer("output_units", output_units)
        self.output_activation = named(activations, "output_activation", output_activation)
        self.heads = positive_integer("heads", heads)
        self.kernel_initializer = named(initializers, "kernel_initializer", kernel_initializer)
        self.score_initializer = named(initializers, "score_initializer", score_initializer)
        if self.heads > 1 and score != "multi_head":
            raise ValueError(f"heads: expected 1 with score={score!r}, got {heads}")
        if units is not None and score in ("dot", "general"):
            raise ValueError(f"units: expected None with score={score!r}, got {units}")
        self.has_output = query == "after" or self.output_units is not None
        # what no next step reads is read for all steps at once; of additive scores that would be (b, t, s, a) numbers
        self.readout_reads_constants = query == "after" and not self_fed and score != "additive"
        if self_fed and not self.has_output:
            raise ValueError("input_feeding: expected output_units with query='before', got none")
        if self.has_output and (
            any(cell.zoneout_rates()) or getattr(cell, "has_readout", False) or cell.supports_teacher_forcing
        ):
            raise ValueError(
                "cell: expected one without zoneout or outputs of its own where the output is made of what is read, "
                f"got {cell!r}"
            )
        if self.has_output:
            self.output_size = self.output_units or cell.output_size
        if self_fed:
            self.state_names = (*cell.state_names, "attended")
            self.state_size = [*cell.state_size, self.output_size]

    @property
    def query_size(self) -> int:
        return self.cell.state_size[0] if self.query == "before" else self.cell.output_size

    def build(self, input_shape: Shape, constants_shape: Any = None) -> None:
        shapes = list(constants_shape or [])
        if len(shapes) not in (1, 2) or len(shapes[0]) != 3 or shapes[0][-1] is None:
            raise ValueError(
                f"constants: expected a memory (b, s, m), m known, and maybe a mask (b, s), for AttentionCell, got {shapes}"
            )
        super().build(input_shape)
        if self.query == "before" or self.input_feeding:
            check_projection(self.cell, input_shape)
        width = self.memory_size = shapes[0][-1]
        q, several = self.query_size, self.score == "multi_head"
        if self.score == "dot" and width != q:
            raise ValueError(f"constants: expected a memory as wide as the query, {q}, with score='dot', got {width}")
        if several and self.units is None and q % self.heads:
            raise ValueError(f"heads: expected a divisor of the query's width {q} without units, got {self.heads}")
        a = (self.units or q // self.heads) * self.heads
        self.head_size = a // self.heads
        context = q if several else width

        def weight(name, *shape):
            initializer = self.kernel_initializer if len(shape) == 2 else "zeros"
            return self.add_weight(name=name, shape=shape, initializer=initializer)

        if self.score in ("additive", "multi_head"):
            self.query_kernel = weight("query_kernel", q, a)
        if self.score != "dot":
            self.key_kernel = weight("key_kernel", width, q if self.score == "general" else a)
        if self.score == "additive":
            self.score_bias = weight("score_bias", a)
            self.score_kernel = self.add_weight(name="score_kernel", shape=(a,), initializer=self.score_initializer)
        if several:
            self.value_kernel, self.heads_kernel = weight("value_kernel", width, a), weight("heads_kernel", a, q)
            self.query_bias, self.key_bias = weight("query_bias", a), weight("key_bias", a)
            self.value_bias, self.heads_bias = weight("value_bias", a), weight("heads_bias", q)
        if self.query == "before":
            self.context_kernel = weight("context_kernel", context, self.cell.projected_size)
        if self.has_output:
            self.output_kernel = weight("output_kernel", context + self.cell.output_size, self.output_size)
        if self.input_feeding:
            self.feeding_kernel = weight("feeding_kernel", self.output_size, self.cell.projected_size)

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        states = super().get_initial_state(batch_size)
        if self.input_feeding:
            states = [*states, ops.zeros((batch_size, self.output_size), dtype=self.variable_dtype)]
        return states

    def zoneout_rates(self) -> list[float]:
        return [*self.cell.zoneout_rates(), *[0.0] * self.input_feeding]

    # -- the memory, once --------------------------------------------------------------------------------------------

    def check_constants(self, constants: Sequence[Tensor]) -> None:
        if len(constants) not in (1, 2):
            raise ValueError(f"constants: expected a memory and maybe a mask for AttentionCell, got {len(constants)}")

    def masked_constants(self, constants: Sequence[Tensor], masks: Any) -> Sequence[Tensor]:
        """The constants, with the mask that Keras carries with the memory where none is given."""
        if len(constants) == 1 and masks and masks[0] is not None:
            return [*constants, masks[0]]
        return constants

    def prepare(self, constants: Sequence[Tensor]) -> Sequence[Any]:
        memory, *mask = constants
        if len(memory.shape) != 3 or memory.shape[-1] != self.memory_size:
            raise ValueError(
                f"constants: expected a memory (b, s, {self.memory_size}) for AttentionCell, got {tuple(memory.shape)}"
            )
        if mask:
            (shown,) = mask
            pairs = zip(shown.shape, memory.shape[:2], strict=False)
            if len(shown.shape) != 2 or any(None not in p and p[0] != p[1] for p in pairs):
                raise ValueError(
                    f"constants: expected a mask {tuple(memory.shape[:2])} like the memory's, got {tuple(shown.shape)}"
                )
            mask = [ops.cast(shown, "bool")]
            memory = ops.where(ops.expand_dims(mask[0], -1), memory, ops.zeros_like(memory))
        if self.score == "dot":
            return (memory, memory, *mask)
        keys = ops.matmul(memory, self.key_kernel)
        if self.score == "additive":
            keys = keys + self.score_bias
        if self.score != "multi_head":
            return (memory, keys, *mask)
        return (ops.matmul(memory, self.value_kernel) + self.value_bias, keys + self.key_bias, *mask)

    # -- one step ----------------------------------------------------------------------------------------------------

    def asked(self, query: Tensor) -> Any:
        """What the keys are compared with, (.., a), of queries (.., q)."""
        return dot(query, self.query_kernel, dropout=False) if hasattr(self, "query_kernel") else query

    def read(self, asked: Any, constants: Sequence[Tensor]) -> Any:
        """The contexts (b, n, c) of n queries for each row, (b, n, a), and their alignments (b, heads, n, s)."""
        values, keys, *mask = constants
        if self.score == "additive":
            asked = ops.expand_dims(asked, 2)
            scores = ops.sum(self.score_kernel * ops.tanh(ops.expand_dims(keys, 1) + asked), axis=-1)[:, None]
        elif self.score == "multi_head":
            asked = self._by_head((asked + self.query_bias) * self.head_size**-0.5)
            scores = ops.einsum("bshk,bnhk->bhns", self._by_head(keys), asked)
        else:
            scores = ops.einsum("bsk,bnk->bns", keys, asked)[:, None]
        weights = _softmax(scores, ops.expand_dims(mask[0], (1, 2)) if mask else None)
        if self.score != "multi_head":
            return ops.einsum("bns,bsk->bnk", weights[:, 0], values), weights
        contexts = ops.einsum("bhns,bshk->bnhk", weights, self._by_head(values))
        contexts = ops.reshape(contexts, (*ops.shape(contexts)[:2], self.heads * self.head_size))
        return contexts, weights

    def attend(self, query: Tensor, constants: Sequence[Tensor]) -> Any:
        """The context of each query, (b, q) or (b, n, q); alignments are exposed."""
        alone = len(query.shape) == 2
        asked = self.asked(query)
        context, weights = self.read(ops.expand_dims(asked, 1) if alone else asked, constants)
        context, weights = (context[:, 0], weights[:, :, 0]) if alone else (context, weights)
        if self.score == "multi_head":
            context = dot(context, self.heads_kernel, dropout=False) + self.heads_bias
            if len(constants) == 3:  # nothing read is zero, its bias too
                seen = ops.reshape(ops.any(constants[2], axis=1), (-1, *[1] * (len(context.shape) - 1)))
                context = ops.where(seen, context, ops.zeros_like(context))
        each = [weights[:, i] for i in range(self.heads)]
        heads = {f"alignment_{i}": w for i, w in enumerate(each)} if self.heads > 1 else {}
        expose(alignment=sum(each) / self.heads, context=context, **heads)
        return context

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = (), **targets: Any
    ) -> tuple[Any, Sequence[Tensor]]:
        if self.query == "before":
            context = self.attend(states[0], constants)
            projected = projected + dot(context, self.context_kernel, dropout=False)
        if self.input_feeding:
            *states, attended = states
            projected = projected + dot(attended, self.feeding_kernel, dropout=False)
        output, new = self.cell.step(projected, tuple(states), **targets)
        if self.readout_reads_constants:
            return output, new
        if self.query == "after":
            context = self.attend(output, constants)
        if self.has_output:
            output = ops.concatenate([context, output], axis=-1)
        if self.input_feeding:
            output = self.output_activation(dot(output, self.output_kernel, dropout=False))
            new = (*new, output)
        return output, new

    def readout(self, outputs: Tensor, constants: Sequence[Tensor] = ()) -> Tensor:
        """The output of all steps at once where no next step reads it, and what it reads."""
        if not self.has_output:
            return self.cell.readout(outputs)
        if self.input_feeding:
            return outputs
        if self.readout_reads_constants:
            with AutocastScope(self.variable_dtype), dot_dtype(self.compute_dtype):
                long = ops.cast(outputs, self.variable_dtype)
                long = ops.concatenate([self.attend(long, constants), long], axis=-1)
            outputs = ops.cast(long, outputs.dtype)
        return self.output_activation(ops.matmul(outputs, self.output_kernel))

    def _by_head(self, x):
        return ops.reshape(x, (*ops.shape(x)[:-1], self.heads, self.head_size))


def _softmax(scores, mask):
    """Along the last axis over what the mask shows; zeros where it shows nothing."""
    if mask is None:
        return ops.softmax(scores, axis=-1)
    shown = ops.where(mask, scores, ops.full_like(scores, lowest(keras.backend.standardize_dtype(scores.dtype))))
    shares = ops.exp(shown - ops.stop_gradient(ops.max(shown, axis=-1, keepdims=True)))
    shares = ops.where(mask, shares, ops.zeros_like(shares))
    total = ops.sum(shares, axis=-1, keepdims=True)
    return shares / ops.where(total > 0, total, ops.ones_like(total))
