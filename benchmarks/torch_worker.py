"""The peers of torch: reads `[name, [b, t, d, u], "train" or "infer"]` line by line, runs that once, writes its milliseconds.

The first line written names the versions.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import json
import os
import sys
import time

import torch


@functools.cache
def step(name, size, kind):
    b, t, d, u = size
    torch.manual_seed(0)
    module, name = name.rsplit(".", 1)
    layer = getattr(importlib.import_module(module), name)(d, u)
    x, cotangent = torch.randn(t, b, d), torch.randn(t, b, u)

    def infer():
        with torch.inference_mode():
            layer(x)

    def train():
        layer.zero_grad()
        x.grad = None
        layer(x.requires_grad_())[0].backward(cotangent)

    return infer if kind == "infer" else train


def main():
    torch.set_num_threads(os.cpu_count())
    versions = {"torch": torch.__version__}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["torchrecurrent"] = importlib.metadata.version("torchrecurrent")
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        name, size, kind = json.loads(line)
        spent = None
        if name.split(".")[0] in versions or name.startswith("torch."):
            run = step(name, tuple(size), kind)
            start = time.perf_counter()
            run()
            spent = 1e3 * (time.perf_counter() - start)
            time.sleep(0.01)  # its threads spin for a while: not on others' time
        print(json.dumps(spent), flush=True)


if __name__ == "__main__":
    main()
