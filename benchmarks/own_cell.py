"""What the parts of "Your own cell" cost: training steps of its cells and of changed ones, in turn in one process.

    python benchmarks/own_cell.py                     # half a minute for each of two sizes
    python benchmarks/own_cell.py 64,100,512,512

Prints the least time of each, the better of XLA and graph mode, relative to the first one's.
"""

import inspect
import pathlib
import re
import sys

import keras
import steps
import timing
import variants
from keras import ops

import keras_seq

GUIDE = (pathlib.Path(__file__).parents[1] / "docs/your_own_cell.md").read_text()
BLOCKS = [inspect.cleandoc("\n" + block) for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)]
CELLS = {}
for _block in BLOCKS:
    if "class MinimalPeepholeCell" in _block or "class RunningSumCell" in _block:
        exec(_block, CELLS)
Own, RunningSum = CELLS["MinimalPeepholeCell"], CELLS["RunningSumCell"]


class Unmarked(Own):
    """Its products are `ops.matmul`."""

    def step(self, projected, states, constants=()):
        h, c = states
        x_f, x_g = self.split(projected)
        u_f, u_g = self.split(self.recurrent_kernel)
        f = ops.sigmoid(x_f + ops.matmul(h, u_f) + self.peephole * c)
        c = (1 - f) * c + f * self.activation(x_g + ops.matmul(f * h, u_g))
        h = self.activation(c)
        return h, (h, c)


class Unprojected(Own):
    """x W + b is a part of its step."""

    def project(self, inputs):
        return inputs

    def step(self, projected, states, constants=()):
        return super().step(super().project(projected), states)


class Blocked(Own):
    blocked = True


class Looped(RunningSum):
    def states_before(self, forced):
        return None


def layers(units):
    flags = {"return_sequences": True}
    return {
        "the cell": keras_seq.RNN(Own(units), **flags),
        "in keras.layers.RNN": keras.layers.RNN(Own(units), **flags),
        "matmul for dot": keras_seq.RNN(Unmarked(units), **flags),
        "no project": keras_seq.RNN(Unprojected(units), **flags),
        "return_internals": keras_seq.RNN(Own(units), return_internals=True, **flags),
        "recurrent_dropout": keras_seq.RNN(Own(units, recurrent_dropout=0.1), **flags),
        "zoneout": keras_seq.RNN(Own(units, zoneout=0.1), **flags),
        "blocked": keras_seq.RNN(Blocked(units), **flags),
        "running sum, in a loop": keras_seq.RNN(Looped(units), **flags),
        "running sum, by history": keras_seq.RNN(RunningSum(units), **flags),
    }


def main(sizes=("16,200,64,128", "32,128,128,256"), runs=12):
    for text in sizes:
        size = tuple(map(int, text.split(",")))
        x, cotangent = steps.data(size)
        compiled = {}
        for name, layer in layers(size[-1]).items():
            layer.build(x.shape)
            step = steps.training_step(variants.First(layer), cotangent)
            compiled |= {(name, jit): steps.compiled(step, x, jit)[0] for jit in (True, False)}
        times = timing.in_turn(compiled, runs)
        print(f"(b, t, d, units) = {text}")
        least = {name: min(min(times[name, jit]) for jit in (True, False)) for name, _ in compiled}
        for name, spent in least.items():
            print(f"  {name:24} {spent:7.2f} ms   {spent / least['the cell']:5.2f}", flush=True)


if __name__ == "__main__":
    main(*([sys.argv[1:]] if sys.argv[1:] else []))
