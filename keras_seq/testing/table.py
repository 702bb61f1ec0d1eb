"""The checks, each with a name, and the table of how they went."""

import contextlib
import dataclasses
import random
import re
import sys
import time
from collections.abc import Callable

import numpy as np


class NotThisCell(Exception):  # noqa: N818
    """What a check is about does not apply to this cell; says why."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: a function of a `CellUnderTest`, which may return a remark.

    `says` is what it holds the cell to, `hint` what is wrong as a rule where it fails.
    """

    name: str
    says: str
    hint: str
    function: Callable

    def run(self, subject):
        """The remark; an AssertionError that names the check for whatever goes wrong in it."""
        try:
            return self.function(subject)
        except NotThisCell:
            raise
        except AssertionError as error:
            found, hint, cause = str(error), f"\n  As a rule: {self.hint}", error
        except Exception as error:
            explained = ": expected " in str(error)  # as errors of this package are
            found = f"{type(error).__name__}: {_shortened(str(error))}"
            hint, cause = "" if explained else f"\n  As a rule: {self.hint}", error
        found = "; ".join([found, *getattr(cause, "__notes__", ())])
        raise AssertionError(
            f"{subject.name} fails the check {self.name!r} ({self.says}).\n  Found: {found}{hint}"
        ) from cause


def check(name, says, hint):
    """Make a `Check` of a function."""
    return lambda function: Check(name, says, hint, function)


def run_all(checks, subject, verbose):
    """Run the checks and print how each went; stop at the first that fails."""
    tick, cross = _signs()
    print(f"check_cell: {subject.name}")
    with _random_state_kept():
        for one in checks:
            start, remark, sign = time.perf_counter(), None, tick
            try:
                remark = one.run(subject)
            except NotThisCell as reason:
                remark, sign = str(reason), "-"
            except AssertionError:
                print(f"  {cross} {one.name}: {one.says}", flush=True)
                raise
            seconds = f" {time.perf_counter() - start:5.1f} s" if verbose else ""
            print(f"  {sign}{seconds} {one.name}: {one.says}{f' ({remark})' if remark else ''}", flush=True)


def _shortened(text, most=1000):
    """What Keras and TensorFlow say of an error, without the arguments of the call, whole tensors and configs."""
    text = re.sub(r"\x1b\[\d*m", "", text)
    text = re.sub(r"^Exception encountered when calling .*\n+", "", text)
    text = re.split(r"\n+Arguments received by ", text)[0]
    text = re.split(r"Exception encountered: ", text)[-1]
    return text if len(text) <= most else f"{text[: most // 2]} [...] {text[-most // 2 :]}"


def _signs():
    """A tick and a cross, as far as the terminal has them."""
    try:
        "✓✗".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "ok", "FAILED"
    return "✓", "✗"


@contextlib.contextmanager
def _random_state_kept():
    """Initializers and layers without a seed draw one from Python's random numbers; give them back."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
