"""The page and the figure that the bench writes."""

import os
import pathlib
import platform
import subprocess

import keras
import tensorflow as tf

FOLDER = pathlib.Path(__file__).parent


def draw(results, path):
    """Ratios of training steps, one row a memory, one mark a size."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    peers = ("Keras's", "torch's", "torchrecurrent's")
    wanted = {k: v for k, v in results.ratios.items() if k.split("training: ")[-1].startswith(peers)}
    if not wanted:
        return
    points = [
        (key.rsplit(", ", 1)[0], key.rsplit(", ", 1)[1], aim, r) for aim, v in wanted.items() for key, r in v.items()
    ]
    names, sizes = (list(dict.fromkeys(p[i] for p in points)) for i in (0, 1))
    figure, axes = plt.subplots(1, 2, figsize=(12, 1.2 + 0.45 * len(names)), sharey=True, layout="constrained")
    for axis, whose, title in (
        (axes[0], ("Keras's",), "Keras's time / ours"),
        (axes[1], ("torch's", "torchrecurrent's"), "torch's time / ours"),
    ):
        for i, size in enumerate(sizes):
            found = [
                (names.index(n), r)
                for n, s, aim, r in points
                if s == size and aim.split(": ")[1].split(" ")[0] in whose
            ]
            if found:
                rows, ratios = zip(*found, strict=True)
                axis.scatter(
                    ratios, [row + 0.12 * (i - len(sizes) / 2) for row in rows], s=36, label=f"b,t,d,u = {size}"
                )
        axis.axvline(1, color="#868e96", lw=1)
        axis.set(
            title=f"training step: {title}",
            xscale="log",
            xlabel="more is better for us",
            yticks=range(len(names)),
            yticklabels=names,
        )
        axis.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5)))
        axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        axis.grid(axis="x", which="both", color="#dee2e6", lw=0.5)
    axes[0].invert_yaxis()
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(sizes), 5), fontsize=8
    )
    figure.savefig(path, dpi=100)


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def command(script, given):
    """The command line that makes a page; which interpreter has torch is no matter."""
    given = ["PYTHON" if before == "--torch" else word for before, word in zip(["", *given], given, strict=False)]
    return " ".join([f"python benchmarks/{script}", *given])


def made_by(command, further):
    """The command, the machine, the versions and the revision."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=FOLDER
    ).stdout.strip()
    versions = {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
    }
    named = ", ".join(f"{k} {v}" for k, v in {**versions, **further}.items())
    return f"    {command}\n\n{processor()}, {os.cpu_count()} cores, float32; {named}; revision {revision}."


def page(results, command):
    head = [
        "# Measured",
        made_by(command, getattr(results, "versions", {}))
        + " What each word means, and why the figures are what they are: docs/performance.md.",
        "![ratios of training steps](results.png)",
        "## In short: ratios of least times",
        results.summary(),
    ]
    body = [part for title, text in results.sections.items() for part in (f"## {title}", text)]
    return "\n\n".join([*head, *body]) + "\n"
