"""Two workers learn what one process learns: a recurrent network trained on several machines, killed, and resumed.

    python examples/distributed.py --workers 2           # beside one process: the loss of each step
    python examples/distributed.py --workers 2 --kill    # the last worker is killed in mid-epoch; all go on from the backup
    python examples/distributed.py --costs               # bytes and seconds per step on 1, 2 and 4 workers, planned up to 64

The workers are processes on this machine. On machines of their own each runs this file with `--output` in a folder that all
see, and TF_CONFIG in its environment (docs/distributed.md). The data are drawn: the sum of the last inputs, forgotten slowly.
"""

import argparse
import contextlib
import csv
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

BATCH, STEPS, FEATURES = 16, 20, 4
SIZES = (1, 10_000, 100_000, 300_000, 1_000_000)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, help="processes, which share the 16 rows of a batch; 2 if not given")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batches", type=int, default=6, help="of each epoch")
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--kill", action="store_true", help="kill the last worker in mid-epoch")
    parser.add_argument("--costs", action="store_true", help="measure and plan what distribution costs")
    parser.add_argument("--output", type=pathlib.Path, help="folder for losses and backups, which all workers see")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for the other workers")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the name of a process that trains alone
    parser.add_argument("--rows", type=int, default=BATCH, help=argparse.SUPPRESS)
    parser.add_argument("--sums", action="store_true", help=argparse.SUPPRESS)  # time sums over the workers instead
    parser.add_argument("--die-at", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    given = [name for name in ("workers", "kill", "costs") if getattr(chosen, name)]
    if "TF_CONFIG" in os.environ and given:
        parser.error(f"--{given[0]}: expected none where TF_CONFIG says who the workers are")
    if chosen.costs and given != ["costs"]:
        parser.error(f"--{given[0]}: expected none together with --costs, which runs 1, 2 and 4 workers to their end")
    chosen.workers = 2 if chosen.workers is None else chosen.workers
    if not 1 <= chosen.workers <= BATCH:
        parser.error(f"--workers: expected 1 to {BATCH}, the rows of a batch, got {chosen.workers}")
    for name in ("epochs", "batches", "units"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name}: expected a positive integer, got {getattr(chosen, name)}")
    if not 0 < chosen.timeout < float("inf"):
        parser.error(f"--timeout: expected positive seconds, got {chosen.timeout:g}")
    if chosen.output is not None:
        try:
            chosen.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--output: expected a folder, got {chosen.output}: {error.strerror}")
    return chosen


# -- one worker --------------------------------------------------------------------------------------------------------


def train(chosen):
    """Train under the strategy of TF_CONFIG and write down the loss of each step; a worker does this."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_seq
    from keras_seq.training import fit_distributed, worker_strategy

    strategy = tf.distribute.get_strategy() if chosen.one else worker_strategy(timeout=chosen.timeout)
    task = {"type": "worker", "index": 0} | json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {})
    own = chosen.output / (chosen.one or f"{task['type']}{task['index']}")
    if chosen.sums:
        return own.with_suffix(".json").write_text(json.dumps(timed_sums(strategy)))

    class Journal(keras.callbacks.Callback):
        """Writes the loss and the end of each step, and ends the process where it is told to."""

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch, self.seen, self.total = epoch, 0, 0.0

        def on_train_batch_end(self, batch, logs=None):
            self.seen, before = self.seen + 1, self.total
            self.total = self.seen * logs["loss"]
            step = self.epoch * chosen.batches + batch + 1
            with open(own.with_suffix(".csv"), "a") as file:
                print(step, self.total - before, time.time(), loopback(), sep=",", file=file)
            if step == chosen.die_at:
                os.kill(os.getpid(), 9)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(chosen.rows * chosen.batches, STEPS, FEATURES)).astype("float32")
    y = np.zeros((*x.shape[:2], 1), "float32")
    for t in range(STEPS):
        y[:, t] = (0.8 * y[:, t - 1] if t else 0) + x[:, t].sum(-1, keepdims=True) / 4

    def of_epoch(epoch):  # shuffled by a seed, so that every worker and every run sees the same
        order = np.random.default_rng(epoch).permutation(len(x))
        return tf.data.Dataset.from_tensor_slices((x[order], y[order])).batch(chosen.rows)

    keras.utils.set_random_seed(1)
    with strategy.scope():
        layers = [keras_seq.LSTM(chosen.units, return_sequences=True), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((None, FEATURES)), *layers])
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    backup = None if chosen.one else chosen.output / "backup"
    fit_distributed(
        model,
        of_epoch,
        chosen.epochs,
        callbacks=[Journal()],
        backup=backup,
        backup_every=2,
        verbose=2 * (chosen.one == "one"),
    )
    own.with_suffix(".json").write_text(json.dumps({"weights": model.count_params()}))


def timed_sums(strategy, repeats=30):
    """The least seconds of a sum over the workers, of so many float32 numbers."""
    import tensorflow as tf

    def total(size):
        return tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, tf.fill([size], tf.random.uniform([]))
        )

    summed, found = tf.function(lambda size: strategy.run(total, args=(size,)), autograph=False), {}
    for size in SIZES:
        summed(size)
        times = []
        for _ in range(repeats):
            begun = time.perf_counter()
            summed(size).numpy()
            times.append(time.perf_counter() - begun)
        found[size] = min(times)
    return found


# -- all workers of this machine ---------------------------------------------------------------------------------------


def loopback():
    """Bytes that went over the loopback device so far, of all processes; 0 where nobody counts them."""
    counted = pathlib.Path("/proc/net/dev")
    lines = counted.read_text().splitlines() if counted.exists() else []
    return sum(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))


@contextlib.contextmanager
def held_ports(count):
    """Ports of this machine, which no other program gets meanwhile.

    A port that is bound and not listened at is given to none that ask for any, and to those that ask for this one.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        yield [one.getsockname()[1] for one in sockets]


def command(chosen, folder, *more):
    sizes = ("--epochs", chosen.epochs, "--batches", chosen.batches, "--units", chosen.units)
    return [sys.executable, __file__, *map(str, (*sizes, "--timeout", chosen.timeout, "--output", folder, *more))]


def run(chosen, count, folder, die_at=0, restarts=3, more=()):
    """Start `count` workers; when one dies, stop the others and start all again. Return how often that was."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for restart in range(restarts + 1):
        with held_ports(count) as ports, contextlib.ExitStack() as ended:
            workers = []
            for i in range(count):
                cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
                environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})
                dies = ("--die-at", die_at) if die_at and restart == 0 and i == count - 1 else ()
                workers.append(subprocess.Popen(command(chosen, folder, *more, *dies), env=environment))
                ended.callback(workers[i].wait)
                ended.callback(workers[i].kill)
            codes = [None]
            while None in codes and not any(codes):
                time.sleep(0.1)
                codes = [worker.poll() for worker in workers]
        if not any(codes):
            return restart
        dead = [f"worker {i} ended with {code}" for i, code in enumerate(codes) if code]
        print(", ".join(dead) + ("; all start again from the backup" if restart < restarts else ""), flush=True)
    raise SystemExit(f"the workers died {restarts + 1} times")


def journal(path):
    """What a worker wrote of each step, (loss, end, bytes sent); of a step trained again after a restart, the last."""
    with open(path) as file:
        return {int(step): (float(loss), float(end), int(sent)) for step, loss, end, sent in csv.reader(file)}


def compare(chosen, folder):
    """The losses of the workers beside those of one process on the same batches."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_CONFIG", None)
    subprocess.run(command(chosen, folder, "--one", "one"), env=environment, check=True)
    # a step without a backup, which is after each second one
    die_at = chosen.batches + (chosen.batches // 2 | 1) if chosen.kill else 0
    restarts = run(chosen, chosen.workers, folder, min(die_at, chosen.epochs * chosen.batches))
    one, many = (journal(folder / f"{name}.csv") for name in ("one", "worker0"))
    print(f"step   one process   {chosen.workers} workers    difference")
    for step, (loss, *_) in one.items():
        print(f"{step:4}   {loss:11.7f}   {many[step][0]:9.7f}   {abs(many[step][0] - loss):10.1e}")
    largest = max(abs(many[step][0] - loss) for step, (loss, *_) in one.items())
    again = len((folder / f"worker{chosen.workers - 1}.csv").read_text().splitlines()) - len(many)
    print(f"{len(one)} steps, {restarts} restarts, {again} steps trained again, largest difference {largest:.1e}")
    if largest > 1e-5:
        raise SystemExit("the workers did not learn what one process learned")


# -- what it costs -----------------------------------------------------------------------------------------------------


def bytes_sent(weights, workers):
    """Bytes that each worker sends per step in a ring: twice the share of the others of float32 gradients."""
    return weights * 4 * 2 * (workers - 1) / workers


def line(points):
    """The least squares line through (x, y): where it begins, and its slope."""
    n, (sx, sy) = len(points), map(sum, zip(*points, strict=True))
    slope = sum((x - sx / n) * y for x, y in points) / sum((x - sx / n) ** 2 for x, _ in points)
    return (sy - slope * sx) / n, slope


def quarter(path):
    """Seconds between steps, of which a quarter took less: a backup comes after each second one."""
    ends = [end for _, end, _ in journal(path).values()]
    between = sorted(b - a for a, b in itertools.pairwise(ends))
    return between[len(between) // 4]


def sums(chosen, count, folder):
    """Print seconds of sums over so many workers, and return a function that gives them for other sizes."""
    run(chosen, count, folder, restarts=0, more=("--sums",))
    found = json.loads((folder / "worker0.json").read_text())
    points = [(int(size), seconds) for size, seconds in found.items()]
    first, slope = line(points)
    for size, seconds in points:
        print(f"{count:7}   {size:14,}   {1e3 * seconds:8.2f}   {1e3 * (first + slope * size):12.2f}")
    rate = bytes_sent(1, count) / slope
    print(f"        by the line {1e3 * first / 2 / (count - 1):.2f} ms a message, {rate / 1e6:,.0f} MB/s")
    return lambda size: first + slope * size


def costs(chosen, folder):
    """Measure sums and steps on 1, 2 and 4 workers beside the formulas, and plan them for more."""
    counts, planned, compute = (1, 2, 4), {1: lambda size: 0.0}, {}
    print(f"{len(os.sched_getaffinity(0))} cores for all workers")
    print("workers   float32 summed         ms   ms by a line")
    for count in counts:
        for name in ("steps", "apart", "sums"):
            (folder / name / str(count)).mkdir(parents=True)
        if count > 1:
            planned[count] = sums(chosen, count, folder / "sums" / str(count))
    print("workers   bytes sent per worker and step   by the formula   ms to compute   to sum   together   measured")
    for count in counts:
        compute[count] = computed(chosen, count, folder / "apart" / str(count))
        steps = folder / "steps" / str(count)
        run(chosen, count, steps, restarts=0)
        counted = [sent for *_, sent in journal(steps / "worker0.csv").values()]
        weights = json.loads((steps / "worker0.json").read_text())["weights"]
        sent = (counted[-1] - counted[0]) / count / (len(counted) - 1)
        send = planned[count](weights) + 2 * planned[count](1)  # the gradients, and two numbers of the mean loss
        times = (compute[count], send, compute[count] + send, quarter(steps / "worker0.csv"))
        print(
            f"{count:7}   {sent:30,.0f}   {bytes_sent(weights, count):14,.0f}   {1e3 * times[0]:13.1f}   {1e3 * times[1]:6.1f}"
            f"   {1e3 * times[2]:8.1f}   {1e3 * times[3]:8.1f}"
        )
    plan(weights, compute[1])


def computed(chosen, count, folder):
    """Seconds of a step on the share of a worker, in as many processes at a time that have nothing to do with one another."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    commands = [command(chosen, folder, "--one", i, "--rows", BATCH // count) for i in range(count)]
    processes = [subprocess.Popen(each, env=environment) for each in commands]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit("a process that computed alone ended with an error")
    return sum(quarter(folder / f"{i}.csv") for i in range(count)) / count


def plan(weights, compute):
    """Print what a step takes on machines of their own, by assumed speeds of the network."""
    print(
        f"{weights:,} weights; {BATCH} rows in each machine, 1.25e9 bytes/s (10 Gbit/s) and 0.1 ms a message assumed:"
    )
    print("workers   MB sent per worker and step   ms to compute   ms to send   rows per second, of ideal")
    for count in (1, 2, 4, 8, 16, 32, 64):
        send = bytes_sent(weights, count) / 1.25e9 + 3 * 2 * (count - 1) * 1e-4
        share = compute / (compute + send)
        print(
            f"{count:7}   {bytes_sent(weights, count) / 1e6:27.3f}   {1e3 * compute:13.2f}   {1e3 * send:10.2f}   {share:25.0%}"
        )


def main():
    chosen = arguments()
    if chosen.one or "TF_CONFIG" in os.environ:
        chosen.output = chosen.output or pathlib.Path("distributed")
        chosen.output.mkdir(parents=True, exist_ok=True)
        return train(chosen)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # after the workers
    folder = chosen.output or pathlib.Path(tempfile.mkdtemp(prefix="distributed"))
    if any(folder.iterdir()):
        raise SystemExit(f"--output: expected an empty folder, got {folder}")
    try:
        return (costs if chosen.costs else compare)(chosen, folder)
    finally:
        if chosen.output is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
