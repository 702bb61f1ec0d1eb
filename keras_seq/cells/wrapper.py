"""What cells share that add something to the step of another cell."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_seq.cells.base import Cell
from keras_seq.cells.gated import GatedCell
from keras_seq.typing import Config, Shape, Tensor

SETTLED = ("dropout", "recurrent_dropout", "zoneout", "seed", "learn_initial_state")


class CellWrapper(Cell):
    """A cell whose step is that of its `cell` with something added to what the inputs give, made of constants (b, ...).

    The step is computed by its own dtype policy, whatever that of the cell within.
    """

    batched_constants = True

    def __init__(self, cell: Cell, **kwargs: Any) -> None:
        for name in SETTLED:
            if name in kwargs:
                raise TypeError(f"{type(self).__name__}: unknown argument {name!r}; give it to the cell within")
        kwargs.update({name: getattr(cell, name) for name in SETTLED[:-1]})
        super().__init__(**kwargs)
        self.cell = cell
        self.state_names, self.state_size, self.output_size = cell.state_names, cell.state_size, cell.output_size
        self.blocked, self.supports_teacher_forcing, self.couples_batch = (
            cell.blocked,
            cell.supports_teacher_forcing,
            cell.couples_batch,
        )

    def build(self, input_shape: Shape) -> None:
        if not self.cell.built:
            self.cell.build(input_shape)
            self.cell.built = True
        super().build(input_shape)

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        return list(self._long(self.cell.get_initial_state(batch_size)))

    def project(self, inputs: Tensor) -> Any:
        return self.cell.project(inputs)

    def readout(self, outputs: Tensor) -> Tensor:
        return self.cell.readout(outputs)

    def get_config(self) -> Config:
        config = super().get_config()
        for name in SETTLED:  # the inner cell's
            del config[name]
        return config


def check_gated(cell, why=""):
    """A TypeError unless `cell` is one whose projection can be added to."""
    if not isinstance(cell, GatedCell):
        raise TypeError(f"cell: expected a keras_seq.GatedCell{why}, got {cell!r}")


def check_projection(cell, input_shape):
    """A TypeError unless `project` of the built cell gives one tensor."""
    projected = cell.project(ops.zeros((1, *input_shape[1:]), dtype=cell.compute_dtype))
    if isinstance(projected, (tuple, list, dict)):
        raise TypeError(f"cell: expected one whose `project` gives one tensor, got {type(cell).__name__}")
