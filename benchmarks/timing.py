"""Timing in turn: every contestant once per round, so that what else the machine does falls on all alike.

Every other round goes the other way round: what ran last leaves its threads awake and its data in the caches.
"""

import math
import time


def in_turn(functions, runs, warm_up=2):
    """Milliseconds of each run of each function: `{name: [ms, ...]}`. A function may return its own milliseconds."""
    times = {name: [] for name in functions}
    for round_ in range(runs + warm_up):
        for name, function in list(functions.items())[:: -1 if round_ % 2 else 1]:
            start = time.perf_counter()
            own = function()
            spent = 1e3 * (time.perf_counter() - start)
            if round_ >= warm_up:
                times[name].append(own if isinstance(own, float) else spent)
    return times


def median(values):
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def least_and_median(values):
    return f"{min(values):.2f} ({median(values):.2f})"


def table(columns, rows):
    """A Markdown table."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [columns, *rows]]
    lines.insert(1, "|---" * len(columns) + "|")
    return "\n".join(lines)
