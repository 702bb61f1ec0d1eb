"""What the tests cost: `pytest -p costs --costs FILE` writes seconds, graphs, programs and memory of each test file.

Graphs are all that TensorFlow traces. Programs are what XLA compiles, which it says on the standard error. Memory is that
of the process: its growth over the tests of a file, and the most that it held after one of them.
"""

import collections
import dataclasses
import os
import re

# XLA names each program that it compiles on the standard error, which pytest keeps with the report of a test
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
os.environ["TF_CPP_VMODULE"] = "device_compiler=1"

import psutil
import pytest

COMPILED = re.compile(r"Compilation of XLA executable time: ([\d.]+) (us|ms|s) ")
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclasses.dataclass
class Cost:
    tests: int = 0
    seconds: float = 0.0
    graphs: int = 0
    programs: int = 0
    compiling: float = 0.0
    grown: float = 0.0
    peak: float = 0.0

    def add(self, other):
        for field in dataclasses.fields(self):
            combine = max if field.name == "peak" else float.__add__ if field.type is float else int.__add__
            setattr(self, field.name, combine(getattr(self, field.name), getattr(other, field.name)))


def pytest_addoption(parser):
    parser.addoption("--costs", default=None, help="file to write the costs of each test file to")


def pytest_configure(config):
    config.pluginmanager.register(Costs(config.getoption("--costs")))


class Costs:
    """Measures where the tests run, and adds up where they are reported: with xdist, other processes."""

    def __init__(self, path):
        from tensorflow.python.framework import func_graph

        self.path, self.graphs, self.before = path, 0, (0, 0.0)
        self.files, self.tests = collections.defaultdict(Cost), collections.defaultdict(Cost)
        original = func_graph.FuncGraph.__init__

        def counted(*args, **kwargs):
            self.graphs += 1
            original(*args, **kwargs)

        func_graph.FuncGraph.__init__ = counted

    def now(self):
        return self.graphs, psutil.Process().memory_info().rss / 2**20

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self):
        self.before = self.now()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        (graphs, memory), self.before = self.before, self.now()
        report.measured = [self.before[0] - graphs, self.before[1] - memory, self.before[1]]
        return report

    def pytest_runtest_logreport(self, report):
        said = "".join(text for name, text in report.sections if "stderr" in name and report.when in name)
        compiled = [float(n) * SECONDS[unit] for n, unit in COMPILED.findall(said)]
        graphs, grown, memory = report.measured
        cost = Cost(
            int(report.when == "call"), report.duration, graphs, len(compiled), float(sum(compiled)), grown, memory
        )
        self.files[report.nodeid.split("::")[0]].add(cost)
        self.tests[report.nodeid].add(cost)

    def pytest_sessionfinish(self, session):
        if self.path is None or hasattr(session.config, "workerinput"):
            return
        total = Cost()
        for cost in self.files.values():
            total.add(cost)
        with open(self.path, "w") as file:
            print(
                f"{'tests':>6}{'s':>9}{'graphs':>8}{'programs':>9}{'XLA s':>8}{'grown MiB':>10}{'peak MiB':>9}",
                file=file,
            )
            for table in ({"all": total}, self.files, self.tests):
                for name, c in sorted(table.items(), key=lambda item: -item[1].seconds):
                    numbers = f"{c.tests:6d}{c.seconds:9.1f}{c.graphs:8d}{c.programs:9d}{c.compiling:8.1f}"
                    print(f"{numbers}{c.grown:10.0f}{c.peak:9.0f}  {name}", file=file)
