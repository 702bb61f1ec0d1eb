"""Recursive networks: a memory that runs from the leaves of a tree to its root, over batches of trees given as arrays."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq import engine
from keras_seq._keras import AutocastScope
from keras_seq.arguments import arguments, boolean, described, indices, known, needs_tensorflow, refuse_unknown
from keras_seq.cells.functional import functions_of
from keras_seq.cells.tree import RecursiveCell, TreeLSTMCell
from keras_seq.masking import last_real
from keras_seq.shapes import check_mask, check_real, fits, static
from keras_seq.typing import Activation, Config, Constraint, Initializer, Regularizer, Shape, Tensor


class _Tree(keras.layers.Layer):
    """What the two share: a batch of trees, its checks, and the run from level to level."""

    cell_class: Any = None
    of_cell: tuple[str, ...] = ()
    """Further arguments of the cell, beside those that both classes have."""

    def __init__(
        self,
        units: int,
        arity: int | None,
        activation: Activation = "tanh",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        *,
        return_nodes: bool = False,
        **kwargs: Any,
    ) -> None:
        further = {name: kwargs.pop(name) for name in self.of_cell}
        refuse_unknown(type(self), kwargs)
        super().__init__(**{"autocast": False, **kwargs})
        self.supports_masking = True
        self.return_nodes = boolean("return_nodes", return_nodes)
        self.cell = self.cell_class(
            units,
            arity,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dtype=self.dtype_policy,
            trainable=self.trainable,
            name="cell",
            **further,
        )

    def build(self, nodes_shape: Shape, children_shape: Shape) -> None:
        self._check_shapes(nodes_shape, children_shape)
        self.cell.build((None, nodes_shape[-1]))
        self.cell.built = True

    def call(
        self, nodes: Tensor, children: Tensor, mask: Tensor | None = None, nodes_mask: Tensor | None = None
    ) -> Tensor:
        needs_tensorflow(type(self).__name__)
        mask = nodes_mask if mask is None else mask
        given, children = children, indices("children", children)
        check_real("nodes", nodes)
        self._check_shapes(nodes.shape, children.shape)
        check_mask(nodes, mask, "(b, n) like the nodes'")
        there = ops.ones_like(children[:, :, 0], dtype="bool") if mask is None else ops.cast(mask, "bool")
        children = ops.where(there[:, :, None], children, -1)
        wrong = _refused(_faults(children, there, one_root=not self.return_nodes), given)
        if wrong is not None:
            children = ops.where(wrong[:, None, None], -1, children)
        hidden = self._run(ops.where(there[:, :, None], nodes, ops.zeros_like(nodes)), children, there)
        if wrong is not None:
            hidden = ops.where(wrong[:, None, None], ops.cast(float("nan"), hidden.dtype), hidden)
        return hidden if self.return_nodes else last_real(hidden, mask)

    def _run(self, nodes, children, there):
        """The first state of every node, (b, n, u)."""
        cell, functions = self.cell, functions_of(self.cell)
        (b, n, d), k = ops.shape(nodes), ops.shape(children)[2]
        first = n * ops.arange(b, dtype="int32")[:, None, None]
        inputs = ops.reshape(ops.cast(nodes, cell.compute_dtype), (-1, d))
        with AutocastScope(cell.variable_dtype):
            states = engine.scan_levels(
                functions.step,
                [ops.convert_to_tensor(v) for v in functions.variables],
                functions.project(None, {"inputs": inputs}),
                ops.reshape(ops.where(children < 0, -1, children + first), (-1, k)),
                ops.reshape(_levels(children, there), (-1,)),
                cell.state_size,
                cell.variable_dtype,
            )
        return ops.cast(ops.reshape(states[0], (b, n, cell.units)), self.compute_dtype)

    def compute_mask(self, nodes: Any, mask: Any = None) -> Any:
        return mask if self.return_nodes else None

    def compute_output_shape(self, nodes_shape: Shape, children_shape: Shape) -> Any:
        self._check_shapes(nodes_shape, children_shape)
        return (*nodes_shape[: 2 if self.return_nodes else 1], self.cell.units)

    def get_config(self) -> Config:
        own = {**described(self.cell), "return_nodes": self.return_nodes}
        return {**super().get_config(), **{name: own[name] for name in arguments(type(self))}}

    def _check_shapes(self, nodes, children):
        """A ValueError unless they are of one batch of trees, and such as the cell reads."""
        nodes, children, arity = tuple(nodes), tuple(children), self.cell.arity
        features = self.cell.features if self.built else None
        if len(nodes) != 3 or 0 in map(static, nodes[1:]) or not fits(nodes, (None, None, features)):
            raise ValueError(f"nodes: expected shape (b, n, {features or 'd'}), n and d of 1 or more, got {nodes}")
        if len(children) != 3 or not fits(children, (*nodes[:2], arity)) or static(children[2]) == 0:
            expected = (*nodes[:2], arity or "k")
            raise ValueError(f"children: expected shape {expected} like that of the nodes, got {children}")


def _levels(children, there):
    """How far above its deepest leaf each node is, (b, n); -1 for one that is not there."""

    def raised(levels):
        below = ops.take_along_axis(levels[:, :, None], ops.reshape(ops.maximum(children, 0), (b, n * k, 1)), axis=1)
        below = ops.where(children < 0, -1, ops.reshape(below, (b, n, k)))
        return ops.where(there, ops.max(below, axis=2, initial=-1) + 1, -1)

    b, n, k = ops.shape(children)
    first = ops.cast(there, "int32") - 1

    def settle(levels, _):
        new = raised(levels)
        return new, ops.any(new != levels)

    # a node is settled one round after its children are
    return ops.while_loop(lambda _, changed: changed, settle, (first, ops.convert_to_tensor(True, "bool")))[0]


def _faults(children, there, one_root):
    """What is wrong with trees: a list of `(what is expected, (b, n, k) or (b, n, 1), where it is not)`."""
    b, n, k = ops.shape(children)
    number = ops.arange(n, dtype="int32")
    inside = ops.logical_and(children >= 0, children < n)
    row = ops.arange(b, dtype="int32")[:, None, None] * n
    flat = ops.reshape(ops.where(inside, children + row, b * n), (-1,))
    parents = ops.segment_sum(ops.ones_like(flat), flat, b * n + 1)
    hidden = ops.logical_not(ops.take(ops.append(ops.reshape(there, (-1,)), [True]), flat))
    several = ops.take(ops.where(ops.arange(b * n + 1, dtype="int32") < b * n, parents, 0), flat) > 1
    found = [
        ("a node's number below n, or -1 for none", ops.logical_or(children < -1, children >= n)),
        ("every child before its node", ops.logical_and(inside, children >= number[:, None])),
        ("children that the mask shows", ops.reshape(hidden, (b, n, k))),
        ("one parent of a node", ops.reshape(several, (b, n, k))),
    ]
    if one_root:
        roots = ops.logical_and(there, ops.reshape(parents[:-1], (b, n)) == 0)
        last = ops.max(ops.where(there, number, -1), axis=1, keepdims=True, initial=-1)
        found.append(
            ("one root, the last node (or return_nodes=True)", ops.logical_and(roots, number < last)[..., None])
        )
    return found


def _refused(faults, children):
    """A ValueError that names a fault, where the values are known; else which trees have one, (b,)."""
    wrong = ops.any(ops.concatenate([f for _, f in faults], axis=2), axis=(1, 2))
    if known(wrong) is None:
        return wrong
    for expected, fault in faults:
        places = known(fault).nonzero()
        if len(places[0]):
            tree, node, place = (int(p[0]) for p in places)
            found = known(children)[tree, node]
            what = f"{found[place]}" if fault.shape[2] == len(found) else "no parent"
            raise ValueError(f"children: expected {expected}, got {what} at node {node} of tree {tree}")
    return None


@keras.saving.register_keras_serializable(package="keras_seq")
class RecursiveNN(_Tree):
    """A recursive network over trees: one composition for all their nodes (Goller and Küchler 1996; Socher et al. 2011).

        h_i = f(x_i W + [h_{i,1}, .., h_{i,k}] U + b)

    where h_{i,j} is that of the j-th child of node i, zeros where there is none: a leaf is f(x_i W + b). Weights: `kernel`
    W (d, u), `recurrent_kernel` U (k u, u), `bias` b (u,). Socher et al. give inputs to the leaves alone, and leaves that are
    their inputs; here every node has an input, and zeros are none.

    Trees are processed level by level, all nodes of a level of all trees of the batch together: as many sequential steps as
    the deepest tree has levels. Gradients are exact. TensorFlow only.

    Args:
        units: positive integer, the width u.
        arity: positive integer, how many places for children a node has, k.
        activation: f, default tanh.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: initializers of the weights.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: their regularizers.
        kernel_constraint, recurrent_constraint, bias_constraint: their constraints.
        return_nodes: return the states of all nodes (b, n, u) rather than those of the roots (b, u).
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        nodes: tensor (b, n, d), the inputs of the nodes.
        children: integers (b, n, k): the places, from 0, of each node's children among the nodes of its tree, -1 for none.
            Every child stands before its node, so that the root is the last node.
        mask: boolean tensor (b, n), True for nodes that are there; None for all. Others have states of zeros, and nothing of
            them reaches a value or a gradient.
        nodes_mask: Keras fills it with the mask that it carries with the nodes; `mask` goes first.

    Returns:
        The state of each tree's root (b, u), zeros for a tree without a node; with return_nodes those of all nodes (b, n, u).

    Raises:
        TypeError, ValueError: nodes or children of another shape or type; a child that does not stand before its node (as in
            a cycle), is no node, is hidden by the mask, or has two parents; without return_nodes, a second root. Where values
            are not known, in a graph, the outputs of such a tree are NaN.
        RuntimeError: on another backend than TensorFlow.

    Example:

    ```python
    import keras_seq
    import numpy as np

    trees = keras_seq.parse_trees(["(s (a x) (s (a y) (b z)))"])
    nodes = np.random.default_rng(0).normal(size=(1, 5, 3))
    y = keras_seq.RecursiveNN(4)(nodes, children=trees.children, mask=trees.mask)   # (1, 4)
    ```
    """

    cell_class = RecursiveCell

    def __init__(self, units: int, arity: int = 2, **kwargs: Any) -> None:
        super().__init__(units, arity, **kwargs)


@keras.saving.register_keras_serializable(package="keras_seq")
class TreeLSTM(_Tree):
    """The LSTM over trees (Tai, Socher and Manning 2015): a forget gate for each child.

    With any number of children in no order, the child-sum form (arity=None), whose gates see the sum of their states:

        s = sum_j h_{i,j}
        i, o = sigma(x_i W + s U + b), each with its own columns;   g = tanh(likewise)
        f_j = sigma(x_i W_f + h_{i,j} U_f + b_f)
        c_i = i * g + sum_j f_j * c_{i,j};   h_i = o * tanh(c_i)

    with k places for children, the k-ary form (arity=k; binary: 2), whose gates see each place by a kernel of its own:

        i, f_1, .., f_k, o = sigma(x_i W + [h_{i,1}, .., h_{i,k}] U + b);   g = tanh(likewise)

    Weights: `kernel` W (d, 4u) and `bias` (4u,), columns in the order i, f, c, o; `recurrent_kernel` U: (u, 4u) in the
    same order, or (k u, (3 + k) u) in the order i, f_1 .. f_k, c, o. The forget gates share W_f and b_f, as in the paper. A
    child that is not there has zeros for h and c. A chain gives what `keras_seq.LSTM` does, with the same weights.

    Trees are processed level by level, all nodes of a level of all trees of the batch together: as many sequential steps as
    the deepest tree has levels. Gradients are exact. TensorFlow only.

    Args:
        units: positive integer, the width u.
        arity: positive integer k, or None for the child-sum form.
        recurrent_activation: sigma, of the gates, default the logistic function.
        unit_forget_bias: start the bias of the forget gates at one (the paper leaves it open).
        **kwargs: as in `keras_seq.RecursiveNN`: `activation`, `use_bias`, initializers, regularizers, constraints,
            `return_nodes`, `name`, `dtype`, `trainable`.

    Call arguments:
        nodes: tensor (b, n, d), the inputs of the nodes.
        children: integers (b, n, k): the places, from 0, of each node's children among the nodes of its tree, -1 for none.
            Every child stands before its node, so that the root is the last node.
        mask: boolean tensor (b, n), True for nodes that are there; None for all.

    Returns:
        h of each tree's root (b, u), zeros for a tree without a node; with return_nodes those of all nodes (b, n, u).

    Raises:
        TypeError, ValueError, RuntimeError: as in `keras_seq.RecursiveNN`.

    Example:

    ```python
    import keras_seq
    import numpy as np

    trees = keras_seq.parse_trees(["(s (a x) (a y) (s (b z)))"])
    nodes = np.random.default_rng(0).normal(size=(1, 5, 3))
    layer = keras_seq.TreeLSTM(4, return_nodes=True)
    y = layer(nodes, children=trees.children, mask=trees.mask)   # (1, 5, 4)
    ```
    """

    cell_class = TreeLSTMCell
    of_cell = ("recurrent_activation", "unit_forget_bias")

    def __init__(
        self,
        units: int,
        arity: int | None = None,
        recurrent_activation: Activation = "sigmoid",
        unit_forget_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, arity, recurrent_activation=recurrent_activation, unit_forget_bias=unit_forget_bias, **kwargs
        )
