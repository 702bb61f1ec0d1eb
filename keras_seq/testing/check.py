"""`check_cell`: the conformance of our own suite, for any cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_seq.cells import Cell


def check_cell(
    cell: Cell,
    features: int | None = None,
    constants: Sequence[Any] = (),
    skip: Sequence[str] = (),
    verbose: bool = False,
) -> None:
    """Hold a cell to what `keras_seq` promises of every cell; prints a table of the checks.

    The cell is not touched: each check makes it anew from its config, in float64 where it compares numbers, with random
    weights (constraints kept), states that are not zero, and ragged masks with gaps and a row hidden altogether. A cell
    that feeds outputs back is run on its own and on true ones. Takes a quarter of a minute for a small cell on two cores.

    Args:
        cell: a `keras_seq.Cell`, built or not.
        features: width of the inputs; by default what it was built for, or 3.
        constants: for a cell that reads constants: their shapes, None for the batch; `keras.Input(..., dtype="int32")`
            for one of another type than the weights', which is given numbers from 1 to 3.
        skip: names of checks to leave out, such as "finite differences" where a gradient is made to differ.
        verbose: print the seconds of each check too.

    Raises:
        AssertionError: a check failed: which, for which argument, by how much, and what is wrong as a rule.
        TypeError, ValueError: no `keras_seq.Cell`, another number of constants than it reads, an unknown name in `skip`.
        RuntimeError: Keras runs on another backend than TensorFlow, where there is no engine to compare with.

    Example:

    ```python
    import keras_seq
    from keras_seq.testing import check_cell
    check_cell(keras_seq.GRUCell(4), skip=["saved model"])
    ```
    """
    if keras.config.backend() != "tensorflow":
        raise RuntimeError(f"check_cell: expected Keras on the TensorFlow backend, got {keras.config.backend()!r}")
    from keras_seq.testing.checks import CHECKS
    from keras_seq.testing.subject import CellUnderTest
    from keras_seq.testing.table import run_all

    names = [check.name for check in CHECKS]
    for name in skip:
        if name not in names:
            raise ValueError(f"skip: expected some of {names}, got {name!r}")
    run_all([check for check in CHECKS if check.name not in skip], CellUnderTest(cell, features, constants), verbose)
