"""The programs that XLA makes of our layers for a GPU, on a machine without one: kernels, and which of them wait.

Nothing runs and so nothing is timed: the compiler for CUDA, reached through JAX, compiles for an H100 described to it.

tox run -e gpu-programs                                # ten minutes; prints three tables
tox run -e gpu-programs -- --tables steps --layers LSTM GRU
"""

import argparse
import operator
import os
import re
import sys
from unittest import mock

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import keras
import numpy as np
import tensorflow as tf
import timing
from hlo import Program
from jax.experimental import topologies
from scans import by_pairs, step_of

import keras_seq

# from NVIDIA's data sheet of the H100 SXM and the limits of compute capability 9.0 in the CUDA C++ programming guide
H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 }
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3"  device_vendor: "NVIDIA Corporation"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  driver_version: "12.9.0"  runtime_version: "12.9.0"  compile_time_toolkit_version: "12.9.0"  dnn_version: "9.8.0"
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  device_memory_size: 84942979072  memory_bandwidth: 3352320000000  l2_cache_size: 52428800
  threads_per_warp: 32  threads_per_block_limit: 1024  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024  thread_dim_limit_y: 1024  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  shared_memory_per_core: 233472  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448
}
"""
ROWS, STEPS, INPUTS, UNITS = 16, 200, 64, 128

OURS = {
    "SimpleRNN": keras_seq.SimpleRNN,
    "GRU": keras_seq.GRU,
    "GRU, reset before": lambda units, **options: keras_seq.GRU(units, reset_after=False, **options),
    "LSTM": keras_seq.LSTM,
    "LSTM, layer normalisation": lambda units, **options: keras_seq.LSTM(units, normalize=True, **options),
    "PeepholeLSTM": keras_seq.PeepholeLSTM,
    "CoupledLSTM": keras_seq.CoupledLSTM,
    "NoForgetLSTM": keras_seq.NoForgetLSTM,
    "Jordan": lambda units, **options: keras_seq.Jordan(units, outputs=units, **options),
}
KERAS = {
    "SimpleRNN": keras.layers.SimpleRNN,
    "GRU": keras.layers.GRU,
    "GRU, reset before": lambda units, **options: keras.layers.GRU(units, reset_after=False, **options),
    "LSTM": keras.layers.LSTM,
}


def as_with_a_gpu():
    """TensorFlow says that there is a GPU, so that our engine traces what it traces there."""
    list_devices = tf.config.list_physical_devices
    gpu = tf.config.PhysicalDevice(name="/physical_device:GPU:0", device_type="GPU")
    return mock.patch.object(
        tf.config, "list_physical_devices", lambda kind=None: [gpu] if kind == "GPU" else list_devices(kind)
    )


class H100Compiler:
    """XLA's compiler for CUDA, told of an H100."""

    def __init__(self):
        described = topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1")
        self.device = described.devices[0]

    def __call__(self, function, *tensors):
        """`(the optimised program, bytes of temporary memory)` of a function of TensorFlow that XLA compiles."""
        from jax._src import compiler
        from jax._src.interpreters import mlir
        from jax._src.lib.mlir import ir
        from jaxlib import xla_client

        with as_with_a_gpu():
            text = function.experimental_get_compiler_ir(*tensors)(stage="stablehlo")
        # an operation that changes nothing, which the parser of StableHLO does not know
        text = re.sub(r"mhlo\.copy (\S+) : (tensor<[^>]*>)", r"stablehlo.reshape \1 : (\2) -> \2", text)
        assignment = np.array([[self.device.id]])
        options = compiler.get_compile_options(num_replicas=1, num_partitions=1, device_assignment=assignment)
        with mlir.make_ir_context():
            module = ir.Module.parse(text)
            made = self.device.client.compile(module, xla_client.DeviceList((self.device,)), options)
        return Program(made.hlo_modules()[0].to_string()), made.get_compiled_memory_stats().temp_size_in_bytes


def step_programs(compiled, names, masked):
    """Rows of the first table: kernels of one step of the loops, and memory, of our layer and of Keras's."""
    x = tf.random.normal((ROWS, STEPS, INPUTS))
    for name in names:
        row = [name + (", masked" if masked else "")]
        for layers in (OURS, KERAS):
            if name not in layers:
                row += ["", "", "", ""]
                continue
            layer = layers[name](UNITS, return_sequences=True)
            layer.build(x.shape)
            for train in (True, False):
                program, memory = compiled(step_of(masking(layer) if masked else layer, True, train), x)
                loops = program.loops()
                row.append(" + ".join(f"{loop.kernels}{'' if loop.turns else '*'}" for loop in loops))
                row.append(f"{memory / 1e6:.1f}")
        yield row


def masking(layer):
    """A model that leaves out the steps of zeros."""
    return keras.Sequential([keras.Input((STEPS, INPUTS)), keras.layers.Masking(), layer])


def scan_programs(compiled, lengths):
    """Rows of the second table: kernels, and those that wait, of a linear recurrence by pairs."""
    for length in lengths:
        row = [f"{length:,}"]
        for a, b, times in (((64,), (64,), operator.mul), ((4, 4), (4, 1), tf.matmul)):
            a, b = tf.random.uniform((length, 1, *a)), tf.random.uniform((length, 1, *b))
            program, _ = compiled(by_pairs(times), a, b, b[0])
            row += [program.kernels(), program.depth()]
        yield row


def newton_programs(compiled, lengths):
    """Rows of the third table: kernels that wait in one iteration of Newton's method, and in a step of the loop."""
    sizes = [("SimpleRNN", 4, "full"), ("GRU", 4, "full"), ("LSTM", 4, "full"), ("GRU", 64, "diagonal")]
    for name, units, jacobian in sizes:
        for length in lengths:
            row = [f"{name}({units})", jacobian, f"{length:,}"]
            for solver in (keras_seq.Newton(jacobian=jacobian), None):
                layer = OURS[name](units, return_sequences=True, solver=solver)
                layer.build((2, length, 4))
                program, _ = compiled(step_of(layer, True, False), tf.random.normal((2, length, 4)))
                row.append(" + ".join(f"{loop.depth}" for loop in program.loops()))
            yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tables", nargs="+", choices=["steps", "scans", "newton"], default=["steps", "scans", "newton"]
    )
    parser.add_argument("--layers", nargs="+", choices=OURS, default=list(OURS))
    options = parser.parse_args()
    compiled = H100Compiler()
    print(f"tensorflow {tf.__version__}, keras {keras.__version__}, jax {jax.__version__}, an H100 described\n")
    tables = {
        "steps": (
            [
                "layer",
                *(f"{whose}, {what}" for whose in ("ours", "Keras") for what in ("training", "MB", "inference", "MB")),
            ],
            lambda: [
                *step_programs(compiled, options.layers, False),
                *step_programs(compiled, options.layers[:4], True),
            ],
        ),
        "scans": (
            ["steps", "64 numbers, kernels", "that wait", "4 x 4 matrices, kernels", "that wait"],
            lambda: scan_programs(compiled, (64, 256, 1024, 4096, 16384)),
        ),
        "newton": (
            ["layer", "Jacobian", "steps", "that wait in an iteration", "in a step of the loop"],
            lambda: newton_programs(compiled, (100, 1000)),
        ),
    }
    for name in options.tables:
        columns, rows = tables[name]
        shown = []
        for row in rows():
            shown.append(row)
            print(name, *row, sep=" | ", file=sys.stderr, flush=True)
        print(timing.table(columns, shown), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
