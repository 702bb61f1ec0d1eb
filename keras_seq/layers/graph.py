"""Recurrent networks over graphs: every node has a memory, which reads the states of the nodes before it."""

from __future__ import annotations

from typing import Any, Unpack

import keras
from keras import initializers, ops

from keras_seq._keras import AutocastScope
from keras_seq.arguments import described, indices, known, named, one_of, positive_integer, refuse_unknown
from keras_seq.cells.base import Cell
from keras_seq.cells.floats import drawn_long, long_type
from keras_seq.shapes import check_real, fits, static
from keras_seq.typing import Config, Initializer, LayerArguments, Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class GraphRecurrent(keras.layers.Layer):
    """A memory in every node of a graph, updated from the states of its neighbours (Scarselli et al. 2009; Li et al. 2016).

        m_v = the sum, mean or largest, over all edges (u, v), of h_u M_r
        y_v, s_v = cell([x_v, m_v], s_v),   `steps` times

    where h is the first of the cell's states s, and M_r the kernel of the type r of the edge; without types h_u is the message
    itself, as the cell has a kernel for it. A node to which no edge leads reads zeros. Weights: those of the cell, whose
    inputs are (d + w) wide, and with types `message_kernel` M (types, w, w) for a first state of width w.

    An edge leads one way: (u, v) tells v of u. For neighbours both ways give both edges. A batch of graphs is one graph: put
    their nodes side by side and add to the edges of each the number of nodes before it.

    All nodes are updated at once, by one step of the cell each; its weights are the same at all steps. States start as the
    cell says, so that the first messages are zeros, and after s steps a node knows of nodes up to s - 1 edges away. Li et al.
    start the states at x, padded with zeros, and then read messages alone; Scarselli et al. go on until nothing changes. Here
    every step sees x and their number is given. Dropout is the same at all steps.

    Args:
        cell: a `keras_seq.Cell` that reads no constants.
        steps: positive integer.
        aggregate: "sum", "mean" or "max" of the messages, the last for each of their w numbers by itself. They are added up
            in float32 at least.
        edge_types: positive integer, how many types of edges there are; None for no types.
        message_initializer: of `message_kernel`.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        nodes: tensor (n, d), the inputs of the nodes.
        edges: integers (e, 2), from which node to which, counted from 0; a row of (-1, -1) is none, to pad with.
        types: integers (e,) below `edge_types`, with edge_types only.
        training: whether the cell's dropout acts.

    Returns:
        Tensor (n, u), the output y of every node after the last step.

    Raises:
        TypeError, ValueError: a cell that is none of keras_seq or reads constants; inputs of another shape or type; a node or
            a type that there is not. Where values are not known, in a graph, outputs are NaN then.

    Example:

    ```python
    import keras_seq
    import numpy as np

    path = np.array([[0, 1], [1, 0], [1, 2], [2, 1]])    # three nodes in a row
    layer = keras_seq.GraphRecurrent(keras_seq.GRUCell(4), steps=3)
    y = layer(np.eye(3), edges=path)                      # (3, 4)
    ```
    """

    def __init__(
        self,
        cell: Cell,
        steps: int,
        aggregate: str = "sum",
        edge_types: int | None = None,
        message_initializer: Initializer = "orthogonal",
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        refuse_unknown(type(self), kwargs)
        if not isinstance(cell, Cell):
            raise TypeError(f"cell: expected a keras_seq.Cell, got {cell!r}")
        if cell.constant_names:
            raise ValueError(f"cell: expected one that reads no constants, got {type(cell).__name__}")
        super().__init__(**{"autocast": False, **kwargs})
        self.cell = cell
        self.steps = positive_integer("steps", steps)
        self.aggregate = one_of("aggregate", aggregate, ("sum", "mean", "max"))
        self.edge_types = None if edge_types is None else positive_integer("edge_types", edge_types)
        self.message_initializer = named(initializers, "message_initializer", message_initializer)

    def build(self, nodes_shape: Shape, edges_shape: Shape, types_shape: Shape | None = None) -> None:
        self._check_shapes(nodes_shape, edges_shape, types_shape)
        width = self.cell.state_size[0]
        self.features = nodes_shape[-1]
        self.message_kernel = None
        if self.edge_types is not None:
            self.message_kernel = self.add_weight(
                name="message_kernel",
                shape=(self.edge_types, width, width),
                initializer=drawn_long(self.message_initializer),
                dtype=self.cell.variable_dtype,
            )
        if not self.cell.built:
            self.cell.build((None, self.features + width))
            self.cell.built = True

    def call(self, nodes: Tensor, edges: Tensor, types: Tensor | None = None, training: bool = False) -> Tensor:
        given = edges, types
        edges = indices("edges", edges)
        types = None if types is None else indices("types", types)
        check_real("nodes", nodes)
        self._check_shapes(nodes.shape, edges.shape, None if types is None else types.shape)
        cell, n = self.cell, ops.shape(nodes)[0]
        wrong = self._refused(edges, types, n, given)
        there = ops.all(edges >= 0, axis=1)
        if wrong is not None:
            there = ops.logical_and(there, ops.logical_not(wrong))
        source = ops.where(there, edges[:, 0], 0)
        types = None if types is None else ops.where(there, types, 0)
        target = ops.where(there, edges[:, 1], n)
        nodes = ops.cast(nodes, cell.compute_dtype)
        with AutocastScope(cell.variable_dtype):
            states: Any = cell.get_initial_state(batch_size=n)
            dropped = kept = None
            if training and cell.recurrent_dropout:
                dropped = cell.drawn_mask(states[0], cell.recurrent_dropout)
            inputs_dropped = 1
            for step in range(self.steps):
                message = ops.cast(self._aggregated(states[0], source, target, types, n), cell.compute_dtype)
                inputs = ops.concatenate([nodes, message], axis=-1)
                if training and cell.dropout and not step:
                    inputs_dropped = cell.drawn_mask(inputs, cell.dropout)
                if training:
                    kept = cell.zoneout_masks((n,))
                projected = cell.run_project(inputs * inputs_dropped)
                output, states = cell.run_step(projected, states, (), None, dropped, kept)
            output = cell.run_readout(ops.cast(output, cell.compute_dtype))
        output = ops.cast(output, self.compute_dtype)
        return output if wrong is None else ops.where(ops.any(wrong), ops.cast(float("nan"), output.dtype), output)

    def _aggregated(self, h, source, target, types, n):
        """The message to every node, (n, w), added up in float32 at least; the row after the last takes what is no edge."""
        if types is None:
            messages = ops.take(h, source, axis=0)
        else:
            short = self.cell.compute_dtype
            kernels = ops.cast(self.message_kernel, short)
            by_type = ops.einsum("nw,rwv->nrv", ops.cast(h, short), kernels)
            by_type = ops.cast(ops.reshape(by_type, (-1, kernels.shape[-1])), h.dtype)
            messages = ops.take(by_type, source * self.edge_types + types, axis=0)
        messages = ops.cast(messages, long_type(messages.dtype))
        if self.aggregate == "sum":
            return ops.segment_sum(messages, target, n + 1)[:-1]
        count = ops.segment_sum(ops.ones_like(messages[:, :1]), target, n + 1)[:-1]
        if self.aggregate == "mean":
            return ops.segment_sum(messages, target, n + 1)[:-1] / ops.maximum(count, 1)
        largest = ops.segment_max(messages, target, n + 1)[:-1]
        return ops.where(count > 0, largest, ops.zeros_like(largest))

    def _refused(self, edges, types, n, given):
        """A ValueError that names what there is not, as `given`, where values are known; else which edges are wrong, (e,)."""
        none = ops.all(edges == -1, axis=1)
        outside = ops.logical_and(ops.logical_not(none), ops.any(ops.logical_or(edges < 0, edges >= n), axis=1))
        wrong = [("edges", given[0], "a node below n, or (-1, -1) for none", outside)]
        if types is not None:
            other = ops.logical_and(ops.logical_not(none), ops.logical_or(types < 0, types >= self.edge_types))
            wrong.append(("types", given[1], f"a type below {self.edge_types}", other))
        every = ops.any(ops.stack([found for *_, found in wrong]), axis=0)
        if known(every) is None:
            return every
        for name, values, expected, found in wrong:
            if known(found).any():
                edge = int(known(found).argmax())
                raise ValueError(
                    f"{name}: expected {expected}, got {known(values)[edge].tolist()} at edge {edge}, n is {n}"
                )
        return None

    def compute_output_shape(self, nodes_shape: Shape, edges_shape: Shape, types_shape: Shape | None = None) -> Any:
        self._check_shapes(nodes_shape, edges_shape, types_shape)
        return (nodes_shape[0], self.cell.output_size)

    def get_config(self) -> Config:
        return {**super().get_config(), **described(self)}

    @classmethod
    def from_config(cls, config: Config) -> Any:
        return cls(**{**config, "cell": keras.saving.deserialize_keras_object(config["cell"])})

    def _check_shapes(self, nodes, edges, types):
        features = self.features if self.built else None
        if len(nodes) != 2 or static(nodes[1]) == 0 or not fits(nodes, (None, features)):
            raise ValueError(f"nodes: expected shape (n, {features or 'd'}), got {tuple(nodes)}")
        if not fits(edges, (None, 2)):
            raise ValueError(f"edges: expected shape (e, 2), got {tuple(edges)}")
        if (types is None) != (self.edge_types is None):
            expected = "None without edge_types" if self.edge_types is None else "the type of each edge, (e,)"
            raise ValueError(f"types: expected {expected}, got {types and tuple(types)}")
        if types is not None and not fits(types, edges[:1]):
            raise ValueError(f"types: expected shape {tuple(edges[:1])} like the edges, got {tuple(types)}")
