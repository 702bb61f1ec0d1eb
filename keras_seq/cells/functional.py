"""A cell as pure functions: what an engine, learning rules and the analysis of a memory run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import backend, ops

from keras_seq.cells.base import Cell
from keras_seq.engine import capture_intermediates, functional


class CellFunctions(NamedTuple):
    """A cell as pure functions of its weights, the values of `variables` in this order.

        project(weights, inputs) -> projected                           on any leading axes
        step(weights, projected, states, constants) -> (output, states)
        states_before(weights, projected, states) -> states before each step, (t, b, ...), where `Cell.states_before` knows them

    `inputs` and `projected` are dicts: "inputs" (..., d), and, where they are wanted, "targets", true outputs to feed back,
    "kept", zoneout's masks, and "perturbations", what is added to the new states. The output is a dict as well: "output",
    that of `Cell.step`, before the readout, and with `internals` what the step exposes. `constants` are prepared.
    """

    variables: list[Any]
    project: Callable[..., Any]
    step: Callable[..., Any]
    states_before: Callable[..., Any]


def functions_of(cell: Cell, internals: bool = False, recurrent_dropout: bool = False) -> CellFunctions:
    """A built cell as pure functions.

    Args:
        cell: the cell.
        internals: give what a step exposes as well.
        recurrent_dropout: the last of the constants that the step is given is the mask of recurrent dropout.
    """
    variables = [v for v in cell.variables if _has_gradients(v)]

    def project(inputs):
        return {**inputs, "inputs": cell.run_project(inputs["inputs"])}

    def step(projected, states, constants):
        *constants, dropped = constants if recurrent_dropout else (*constants, None)
        with capture_intermediates(internals) as found:
            output, states = cell.run_step(
                projected["inputs"],
                states,
                tuple(constants),
                projected.get("targets"),
                dropped,
                projected.get("kept"),
                projected.get("perturbations"),
            )
        if internals and not (found or cell.readout_reads_constants):
            raise ValueError(f"return_internals: expected False, as {type(cell).__name__} exposes none, got True")
        results = {"output": ops.cast(output, cell.compute_dtype)}
        return {**results, "internals": found} if found else results, states

    def states_before(projected, states):
        return cell.states_before("targets" in projected)(projected["inputs"], states, projected.get("targets"))

    return CellFunctions(
        variables,
        functional(project, variables),
        functional(step, variables),
        functional(states_before, variables),
    )


def _has_gradients(variable):
    dtype = backend.standardize_dtype(variable.dtype)
    return "float" in dtype or "complex" in dtype
