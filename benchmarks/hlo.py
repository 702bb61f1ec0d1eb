"""What XLA's optimised text says of a program: its kernels, which of them wait for one another, and its loops."""

import re
from typing import NamedTuple

# what starts no kernel: names, views, and the ends of what was started before
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "copy-done", "slice-done", "dynamic-slice-done", "all-reduce-done", "async-done", "domain"),
}


class Instruction(NamedTuple):
    name: str
    kind: str
    reads: tuple
    text: str

    def called(self, key):
        """The name of a computation that the instruction calls, or None."""
        found = re.search(rf"\b{key}=%?([\w.\-]+)", self.text)
        return found and found[1]


class Loop(NamedTuple):
    """A loop of a program, what a turn of it launches, and how often it turns, None where that is not in the text."""

    kernels: int
    depth: int
    turns: int | None


class Program:
    """An optimised program of XLA, from its text."""

    def __init__(self, text):
        self.computations, self.entry = {}, None
        here = None
        for line in text.splitlines():
            head = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{\s*$", line)
            if head and not line.startswith(("HloModule", " ")):
                here = self.computations[head[2]] = []
                self.entry = head[2] if head[1] else self.entry
            elif here is not None and (found := _instruction(line)):
                here.append(found)

    def kernels(self, name=None):
        """How many kernels a computation launches, those of its loops in one turn; of the whole program by default."""
        return sum(self._cost(found, self.kernels) for found in self.computations[name or self.entry])

    def depth(self, name=None):
        """How many kernels, at most, wait for one another, those of a loop in one turn."""
        depths = {}
        for found in self.computations[name or self.entry]:
            before = max((depths[other] for other in found.reads if other in depths), default=0)
            depths[found.name] = before + self._cost(found, self.depth)
        return max(depths.values(), default=0)

    def loops(self, name=None):
        """The loops of a computation and of what it calls, outer ones first, in the order of the text."""
        loops = []
        for found in self.computations[name or self.entry]:
            body = found.called("body")
            if body:
                turns = re.search(r'known_trip_count":\{"n":"(\d+)"', found.text)
                loops.append(Loop(self.kernels(body), self.depth(body), turns and int(turns[1])))
            inner = body or (found.kind in ("call", "conditional") and found.called("to_apply"))
            loops += self.loops(inner) if inner else []
        return loops

    def _cost(self, found, cost):
        if found.kind == "while":
            return cost(found.called("body"))
        if found.kind == "call":
            return cost(found.called("to_apply"))
        return int(found.kind not in FREE)


def _instruction(line):
    """One line `name = type kind(operands), ...`, where the type may be a tuple of types."""
    head = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        return None
    rest = line[head.end() :]
    rest = rest[_closing(rest) :] if rest.startswith("(") else rest[rest.index(" ") :]
    found = re.match(r"\s*([\w\-]+)\(", rest)
    operands = rest[found.end() - 1 :][: _closing(rest[found.end() - 1 :])]
    return Instruction(head[1], found[1], tuple(re.findall(r"%([\w.\-]+)", operands)), rest)


def _closing(text):
    """Where the bracket that opens the text is closed."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return place + 1
    raise ValueError(f"text: expected a closed bracket, got {text[:60]!r}")
