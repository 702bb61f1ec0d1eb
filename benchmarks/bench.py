"""How fast the layers are, beside Keras's, torch's, and the products alone; written to benchmarks/RESULTS.md.

    python benchmarks/bench.py                        # all of it: about twenty minutes on two cores
    python benchmarks/bench.py --quick                # three minutes, few sizes and rounds
    python benchmarks/bench.py --only peers --sizes 16,200,64,128 --memories LSTM --runs 20
    python benchmarks/bench.py --torch /path/to/python    # an interpreter that has torch and torchrecurrent

A training step is the forward pass over (b, t, d) random inputs, and the gradients of all weights and of the inputs for a
random cotangent of all outputs. Ours and Keras's count with the better of XLA and graph mode. Where Keras has no such
layer, `keras.layers.RNN` runs the very same step. All contestants of a size run in turn, round by round; ratios are
those of the least times. Torch runs in a process of its own, in turn with the others.
"""

import argparse
import pathlib
import sys

import decoders
import growth
import reading
import report
import stacks
import steps
import timing
import variants

FOLDER = pathlib.Path(__file__).parent
PLAIN, VARIANTS = "LSTM, GRU, SimpleRNN", "variants"


def say(text):
    print(text, end="\033[K\r", file=sys.stderr, flush=True)


class Results:
    """Sections of Markdown, and the ratios that the summary is made of."""

    def __init__(self):
        self.sections, self.ratios, self.growth = {}, {}, {}

    def add(self, aim, key, ratio):
        self.ratios.setdefault(aim, {})[key] = ratio

    def section(self, title, text):
        self.sections[title] = text
        print(f"\n## {title}\n\n{text}", flush=True)

    def summary(self):
        rows = []
        for aim, ratios in self.ratios.items():
            worst = (max if "at most" in aim else min)(ratios, key=ratios.get)
            mean = timing.geometric_mean(list(ratios.values()))
            rows.append((aim, f"{mean:.2f}", f"{ratios[worst]:.2f}", worst, len(ratios)))
        return timing.table(("what", "geometric mean", "worst", "where", "of"), rows)


def named(size):
    return ",".join(map(str, size))


# -- sections ------------------------------------------------------------------------------------------------------------


def peers(results, options):
    """Training and inference beside Keras and torch."""
    torch = steps.Torch(options.torch)
    rows, compile_rows = [], []
    for size in options.sizes:
        for name in options.memories:
            say(f"peers: {name} at {named(size)}: compiling")
            found = steps.contestants(name, size)
            functions = {key: function for key, (function, _) in found.items()}
            for kind in ("train", "infer"):
                functions["torch", kind, "torch"] = torch.contestant(name, size, kind)
            functions = {key: function for key, function in functions.items() if function is not None}
            say(f"peers: {name} at {named(size)}")
            times = timing.in_turn(functions, options.runs)
            for kind in ("train", "infer"):
                rows.append(peer_row(results, times, name, size, kind))
            first = {key: seconds for key, (_, seconds) in found.items()}
            for kind in ("train", "infer"):
                ratio = first["ours", kind, "jit"] / first["keras", kind, "jit"]
                results.add(
                    "compiling under XLA (training and inference): our time / Keras's, at most 1",
                    f"{name}, {kind}, {named(size)}",
                    ratio,
                )
                compile_rows.append(
                    (
                        named(size),
                        name,
                        kind,
                        f"{ratio:.2f}",
                        f"{first['ours', kind, 'jit']:.2f}",
                        f"{first['keras', kind, 'jit']:.2f}",
                    )
                )
    columns = (
        "b,t,d,u",
        "memory",
        "pass",
        "Keras / ours",
        "torch / ours",
        "ours jit",
        "ours graph",
        "Keras jit",
        "Keras graph",
        "torch",
    )
    text = timing.table(columns, rows)
    results.versions = torch.versions or {"torch": "none found"}
    results.section("Beside Keras and torch: milliseconds, least (median)", text)
    results.section(
        "Compiling under XLA: seconds of the first call",
        timing.table(("b,t,d,u", "memory", "pass", "ours / Keras", "ours", "Keras"), compile_rows),
    )


def peer_row(results, times, name, size, kind):
    def least(whose):
        found = [min(v) for (w, k, _), v in times.items() if (w, k) == (whose, kind)]
        return min(found) if found else None

    key = f"{name}, {named(size)}"
    ours, beside, torch = least("ours"), least("keras"), least("torch")
    group = PLAIN if name in steps.PLAIN else VARIANTS
    word = {"train": "training", "infer": "inference"}[kind]
    results.add(f"{group}, {word}: Keras's time / ours", key, beside / ours)
    if torch is not None:
        peer = steps.TORCH[name].split(".")[0]
        whose = f"{name}, {word}: torch's time / ours" if peer == "torch" else f"{group}, {word}: {peer}'s time / ours"
        results.add(whose, key, torch / ours)
    cells = [
        timing.least_and_median(times[key]) if key in times else "-"
        for key in [*((w, kind, m) for w in ("ours", "keras") for m in ("jit", "graph")), ("torch", kind, "torch")]
    ]
    return (named(size), name, kind, f"{beside / ours:.2f}", "-" if torch is None else f"{torch / ours:.2f}", *cells)


def all_memories(results, options):
    """Every memory beside our LSTM."""
    for size in options.sizes[1:3]:
        rows = []
        for name, row in variants.measure(size, options.runs, say).items():
            if name.startswith("LSTM") and "FGR" not in name:
                results.add(
                    "every LSTM variant, training: its time / our LSTM's, at most 1.1",
                    f"{name}, {named(size)}",
                    row.ratio,
                )
            rows.append((name, f"{row.parameters:,}", f"{row.ratio:.2f}", timing.least_and_median(row.times)))
        columns = ("memory", "parameters", "of the LSTM's", "milliseconds, least (median)")
        results.section(
            f"Every memory beside our LSTM, training step, XLA, (b, t, d, u) = ({named(size)})",
            timing.table(columns, rows),
        )


def extras(results, options):
    """What dropout, masks, reversal, truncation cost."""
    rows = []
    for size in options.sizes:
        say(f"extras at {named(size)}")
        times = timing.in_turn(variants.with_extras(size), options.runs)
        for name, values in times.items():
            ratio = min(values) / min(times["plain"])
            if name in ("recurrent dropout", "mask", "reversed"):
                results.add(f"{name} on, training: its time / without, at most 1.1", named(size), ratio)
            rows.append((named(size), name, f"{ratio:.2f}", timing.least_and_median(values)))
    columns = ("b,t,d,u", "LSTM with", "of the plain one's", "milliseconds, least (median)")
    results.section("What options cost: the LSTM's training step, XLA", timing.table(columns, rows))


def no_loop(results, options):
    """Backward passes without a loop, beside dense products of the same arithmetic.

    A backward pass is the difference of two times. On a machine that does other work it may come out below zero: then the
    row says so, and the summary goes without it.
    """
    rows = []
    for size in options.sizes:
        for name, functions in variants.without_loop(size).items():
            say(f"no loop: {name} at {named(size)}")
            times = {k: min(v) for k, v in timing.in_turn(functions, options.runs).items()}
            backward = times["train"] - times["forward"]
            ratio = backward / times["products"]
            if backward > 0:
                results.add(
                    "blocked and open loop: backward / its products alone, at most 1.5", f"{name}, {named(size)}", ratio
                )
            rows.append(
                (
                    named(size),
                    name,
                    f"{ratio:.2f}" if backward > 0 else "lost in noise",
                    f"{backward:.2f}",
                    f"{times['products']:.2f}",
                    f"{times['train']:.2f}",
                )
            )
    columns = ("b,t,d,u", "memory", "backward / products", "backward, ms", "products, ms", "training step, ms")
    results.section("Backward passes without a loop", timing.table(columns, rows))


def limit(results, options):
    """The LSTM's training step beside three times one large product of the same arithmetic."""
    rows = []
    for size in options.sizes:
        say(f"limit at {named(size)}")
        times = {k: min(v) for k, v in timing.in_turn(variants.beside_product(size), options.runs).items()}
        share = 3 * times["product"] / times["train"]
        rows.append(
            (
                named(size),
                f"{share:.2f}",
                f"{3 * times['product']:.1f}",
                f"{times['train']:.1f}",
                f"{3 * times['product, step by step'] / times['train']:.2f}",
            )
        )
        if size[-1] >= 512:
            results.add("LSTM, training: share of the limit by large products", named(size), share)
    columns = ("b,t,d,u", "share of the limit", "three products, ms", "LSTM, ms", "share, products of one step each")
    results.section(
        "The LSTM's training step beside three times one product (b t, d + u) by (d + u, 4u)",
        timing.table(columns, rows),
    )


def growing(results, options):
    """Cost against length, rows and units, beside Keras and torch; and what keeps less for the backward pass."""
    for name, (names, sizes) in growth.SWEEPS.items():
        found = growth.sweep(names, sizes[:2] if options.quick else sizes, options.torch, 60, say)
        if name in growth.AXES:
            results.growth[name] = found
        results.section(
            f"Growth, {name}: LSTM, training step; seconds (MiB of the process at its peak)", growth.text_of(found)
        )


def retraces(results, options):
    """How often a layer is traced when the shapes change."""
    rows = [(name, *counts) for name, counts in variants.traces().items()]
    columns = ("layer", "batches and lengths seen", "traces, signature (None, None, d)", "traces, none given")
    results.section("Traces of a compiled training step over changing shapes", timing.table(columns, rows))


def rounds(size, options):
    """More of them where a step takes but a millisecond."""
    return options.runs * (10 if size[0] == 1 and options.runs > 1 else 1)


def depth(results, options):
    """Stacks and both directions beside one layer; the TCN beside keras-tcn."""
    rows = []
    for size in options.sizes:
        say(f"stacks and directions at {named(size)}")
        times = timing.in_turn(stacks.depth_and_directions(size), rounds(size, options))
        for kind, word in (("train", "training"), ("infer", "inference")):
            one, three, both = (min(times[what, kind]) for what in ("one", "three", "both"))
            b, t, _, u = size
            where = named((b, t, u, u))
            results.add(f"Stacked of three LSTMs, {word}: its time / one's, at most 3.3", where, three / one)
            results.add(f"Bidirectional LSTM, {word}: its time / one direction's, at most 2.1", where, both / one)
            cells = [timing.least_and_median(times[what, kind]) for what in ("one", "three", "both")]
            rows.append((where, kind, f"{three / one:.2f}", f"{both / one:.2f}", *cells))
    columns = ("b,t,d,u", "pass", "three / one", "both / one", "LSTM", "Stacked of three", "Bidirectional")
    results.section("Depth and directions: milliseconds under XLA, least (median)", timing.table(columns, rows))
    tcn(results, options)


def tcn(results, options):
    rows = []
    for size in [s for s in options.sizes if s[-1] <= 256]:
        say(f"TCN at {named(size)}")
        functions = stacks.beside_keras_tcn(size)
        if functions is None:
            results.section("TCN beside keras-tcn", "keras-tcn none found")
            return
        times = {}
        for mode in (
            "jit",
            "graph",
        ):  # apart: after a graph XLA's threads wake up anew, which the next to run would pay
            those = {key: function for key, function in functions.items() if key[-1] == mode}
            times |= timing.in_turn(those, rounds(size, options))
        for kind, word in (("train", "training"), ("infer", "inference")):

            def least(whose):
                return min(min(times[whose, kind, mode]) for mode in ("jit", "graph"))  # noqa: B023

            ours, peer = least("ours"), least("keras-tcn")
            results.add(f"TCN, {word}: keras-tcn's time / ours", named(size), peer / ours)
            cells = [timing.least_and_median(v) for (_, k, _), v in times.items() if k == kind]
            rows.append(
                (named(size), kind, f"{peer / ours:.2f}", f"{least('ours, weight-normalised') / ours:.2f}", *cells)
            )
    heads = [f"{whose}, {mode}" for whose, k, mode in functions if k == "train"]
    columns = ("b,t,d,filters", "pass", "keras-tcn / ours", "weight-normalised / ours", *heads)
    results.section("TCN beside keras-tcn: milliseconds, least (median)", timing.table(columns, rows))


def streams(results, options):
    """A step of an exported stream, and its memory over many."""
    say("steps of exported streams")
    found = stacks.in_microseconds(stacks.one_step(), 200 if options.quick else 3000)
    rows = [(name, f"{least:.0f}", f"{middle:.0f}") for name, (least, middle) in found.items()]
    text = timing.table(("exported, batch 1, 8 inputs", "least, us", "median, us"), rows)
    results.section("One step of an exported stream, called from Python", text)
    total = 10_000 if options.quick else 1_000_000
    say(f"{total} steps")
    text = timing.table(("stream", "steps", "MiB of the process", "s"), stacks.memory_over_steps(total))
    results.section("Memory over many steps of one stream, in a compiled loop", text)


def decoding(results, options):
    """Greedy decoding and beam search beside Python loops; CTC beside Keras's and TensorFlow's."""
    predicted = min(10 if options.quick else 25, decoders.LENGTH)  # the more, the slower: each runs the whole prefix
    title, text, ratios = decoders.table(decoders.measure(options.runs, predicted, say), predicted)
    for (who, where), ratio in ratios.items():
        results.add(f"decoding: tokens per second, ours / {who}", where, ratio)
    results.section(title, text)
    say("CTC")
    title, text, ratios = decoders.ctc_table(decoders.ctc(options.runs))
    for what, ratio in ratios.items():
        results.add("CTC: the time of Keras's, or TensorFlow's, / ours", what, ratio)
    results.section(title, text)


def attention(results, options):
    """Cells that read a memory, beside Keras's loop over the same step."""
    title, text, ratios = reading.table(reading.measure(options.runs, say))
    for where, ratio in ratios.items():
        results.add("attention, training: Keras's loop's time / ours", where, ratio)
    results.section(title, text)


SECTIONS = {
    "peers": peers,
    "memories": all_memories,
    "extras": extras,
    "loops": no_loop,
    "limit": limit,
    "depth": depth,
    "streams": streams,
    "attention": attention,
    "decoding": decoding,
    "growth": growing,
    "traces": retraces,
}


def main(arguments=None):
    def size(text):
        return tuple(map(int, text.split(",")))

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two sizes, few memories and rounds")
    parser.add_argument(
        "--only", nargs="+", default=list(SECTIONS), choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS)
    )
    parser.add_argument("--sizes", nargs="+", type=size, metavar="B,T,D,U")
    parser.add_argument(
        "--memories", nargs="+", choices=steps.MEMORIES, metavar="MEMORY", help="; ".join(steps.MEMORIES)
    )
    parser.add_argument("--runs", type=int)
    parser.add_argument(
        "--torch", default=sys.executable, metavar="PYTHON", help="interpreter that has torch (default this one)"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder of RESULTS.md and results.png (default: benchmarks/, none if --quick or --only)",
    )
    options = parser.parse_args(arguments)
    options.sizes = options.sizes or (steps.GRID[:2] if options.quick else steps.GRID)
    options.memories = options.memories or (
        ["LSTM", "GRU", "PeepholeLSTM", "own cell (README)"] if options.quick else list(steps.MEMORIES)
    )
    options.runs = options.runs or (4 if options.quick else 10)
    if options.quick and options.only == list(SECTIONS):
        options.only = ["peers", "extras", "loops", "limit", "depth", "streams", "decoding", "traces"]
    results = Results()
    for name in options.only:
        SECTIONS[name](results, options)
    print(f"\n## In short: ratios of least times\n\n{results.summary()}")
    folder = options.output or (FOLDER if options.only == list(SECTIONS) else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        report.draw(results, folder / "results.png")
        growth.draw_all(results.growth, folder)
        given = sys.argv[1:] if arguments is None else arguments
        (folder / "RESULTS.md").write_text(report.page(results, report.command("bench.py", given)))
        print(f"\nwritten to {folder.resolve()}: RESULTS.md, results.png")
    return results


if __name__ == "__main__":
    main()
