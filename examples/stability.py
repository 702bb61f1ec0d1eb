"""What recurrent memories hold, forget and learn from: the textbook's experiments on live layers, as one page.

    python examples/stability.py                # all of it: a minute and a half on two cores
    python examples/stability.py --quick        # smaller layers, shorter training

Linear recurrences and their eigenvalues; responses of sigmoid, tanh and relu to one input of either sign, for numbers and for
vectors; which of these stay bounded; how a gradient fades over lags; an LSTM against a simple memory on long gaps, trained to
say at the end of a string which letter it began with.

It prints what the textbook says beside what is measured, and leaves in --output: stability.html, a page with all figures in
it, and each figure as PNG.
"""

import argparse
import base64
import html
import io
import os
import pathlib
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import keras_seq
from keras_seq import analysis

LETTERS = "abcdefgh"  # a string begins with one of the first two, the others say nothing


class Claim(NamedTuple):
    """What the textbook says, what is measured, and whether the one bears out the other."""

    says: str
    measured: str
    holds: bool


class Section(NamedTuple):
    name: str
    title: str
    text: str
    figure: Figure
    claims: list[Claim]
    more: str = ""


def panels(rows, columns, width=4.6, height=3.5):
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def rotation(radius, angle):
    return radius * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


# -- what is linear --------------------------------------------------------------------------------------------------------


def linear(options):
    """h_t = W h_{t-1} + C x_t: one input, by running and by eigenvalues."""
    keras.utils.set_random_seed(options.seed)
    figure, axes = panels(2, 2)
    weights = [0.7, 0.9, 1.0, 1.1]
    analysis.plot_memory_curves(analysis.memory_curves(None, weights, [1.0], steps=30), ax=axes[0])
    axes[0].set(title="a number: $w^t$", ylabel="h")
    systems = {"0.9, rotating": rotation(0.9, 0.6), "1.05, rotating": rotation(1.05, 0.6)}
    rng = np.random.default_rng(options.seed)
    drawn = rng.normal(size=(6, 6))
    drawn /= np.abs(np.linalg.eigvals(drawn)).max()
    systems |= {f"{radius:g}, drawn": radius * drawn for radius in (0.8, 1.1)}
    found = {name: analysis.linear_response(w, np.eye(len(w))[0], 60) for name, w in systems.items()}
    analysis.plot_spectrum({name: r.eigenvalues for name, r in found.items()}, ax=axes[1])
    axes[1].set_title("eigenvalues of four matrices")
    for (name, response), style in zip(found.items(), analysis.plots.STYLES, strict=False):
        length = np.linalg.norm(response.running, axis=1)
        axes[2].semilogy(length, label=name, markevery=10, markersize=5, **style)
    axes[2].set(xlabel="steps after the input", ylabel="length of h", title="how long the response is")
    axes[2].legend(fontsize=8, handlelength=3)
    turning = found["0.9, rotating"]
    axes[3].plot(turning.running[:41, 0], "-", color="black", label="by running")
    axes[3].plot(
        turning.closed_form[:41, 0], "o", color="black", fillstyle="none", markersize=5, label="by eigenvalues"
    )
    axes[3].set(xlabel="steps after the input", ylabel="first unit", title=f"a round in {turning.period:.1f} steps")
    axes[3].legend(fontsize=8)
    layer = keras_seq.SimpleRNN(6, activation=None, bias_initializer="normal")
    layer.build((None, None, 3))
    x = rng.normal(size=(40, 3))
    sums = analysis.superposition_error(layer, x)
    rate = {
        n: np.exp(np.polyfit(np.arange(40, 61), np.log(np.linalg.norm(r.running, axis=1)[40:]), 1)[0])
        for n, r in found.items()
    }
    other = analysis.linear_response(systems["1.1, drawn"], rng.normal(size=6), 60)
    other_rate = np.exp(np.polyfit(np.arange(40, 61), np.log(np.linalg.norm(other.running, axis=1)[40:]), 1)[0])
    claims = [
        Claim(
            "the response to one input is W^t C x: running and eigenvalues agree",
            f"to {max(r.difference for r in found.values()):.0e}",
            all(r.difference < 1e-9 for r in found.values()),
        ),
        Claim(
            "a greatest eigenvalue above 1 blows up, one below 1 vanishes",
            ", ".join(f"{r.growth:.3g}: {np.linalg.norm(r.running[-1]):.1e} after 60" for r in found.values()),
            all((np.linalg.norm(r.running[-1]) > 1) == (r.growth > 1) for r in found.values()),
        ),
        Claim(
            "complex ones oscillate, with the same trend",
            f"0.9 rotating goes round in {turning.period:.2f} steps, by a factor of {rate['0.9, rotating']:.3f} a step",
            abs(rate["0.9, rotating"] - 0.9) < 1e-6,
        ),
        Claim(
            "the rate depends on the eigenvalues and not on the input",
            f"two inputs to one matrix: factors of {rate['1.1, drawn']:.3f} and {other_rate:.3f} a step",
            abs(rate["1.1, drawn"] - other_rate) < 0.02,
        ),
        Claim("responses to several inputs add up", f"a live linear layer: to {sums:.0e}", sums < 1e-5),
    ]
    text = (
        "Without a nonlinearity a memory is a sum of modes, each an eigenvalue to the power of the time that has passed. The "
        "greatest one outlives all others. Markers outside the circle, filled, are modes that grow."
    )
    return Section("linear", "Linear recurrences", text, figure, claims)


# -- what is not -----------------------------------------------------------------------------------------------------------


def scalars(options):
    """h_t = f(w h_{t-1}): one input of either sign, for many weights."""
    figure, axes = panels(2, 3, 4.2, 3.5)
    weights, steps = [0.5, 0.9, 1.0, 1.1, 2.0], 30
    for column, activation in enumerate(("sigmoid", "tanh", "relu")):
        for row, x in enumerate((1.0, -1.0)):
            curves = analysis.memory_curves(activation, weights, [x], steps=steps)
            ax = analysis.plot_memory_curves(curves, ax=axes[3 * row + column])
            ax.set_title(f"{activation}, input {x:+g}")
            if activation == "relu":
                ax.set_ylim(-0.5, 6)
    sigmoid, tanh, relu = (
        analysis.memory_curves(a, [0.5, 0.9, 1.1, 2.0], [1.0, 0.5, -1.0], [-0.5, 0.0, 0.5], steps=300)
        for a in ("sigmoid", "tanh", "relu")
    )
    left = sigmoid.spread[..., -1].max()
    held = [int(np.argmax(c.spread[1, 1] < 1e-3)) for c in (sigmoid, tanh)]
    positive = relu.values[:, 1, 0, -1]
    sign, blind = tanh.values[3, 1, :, -1], np.abs(relu.values[:, 1, 2]).max()
    claims = [
        Claim(
            "sigmoid saturates, to a value that does not know the input",
            f"after 300 steps inputs are {left:.1g} apart, for all weights and biases",
            left < 1e-6,
        ),
        Claim(
            "tanh is sensitive to w, holds for a while, and saturates too",
            f"w = 0.9: inputs can be told apart for {held[1]} steps (sigmoid {held[0]}), to within 0.001",
            held[0] < held[1] < 200,
        ),
        Claim(
            "where tanh does not fade it saturates: to the sign of the input, not its size",
            f"w = 2: inputs 1, 0.5 and -1 end at {sign[0]:.4f}, {sign[1]:.4f} and {sign[2]:.4f}",
            abs(sign[0] - sign[1]) < 1e-6 and sign[2] < 0 < sign[0],
        ),
        Claim(
            "relu blows up or vanishes, and does not see a negative input",
            f"w = 0.9 and 1.1: {positive[1]:.0e} and {positive[2]:.0e} after 300 steps; input -1: {blind:g}",
            positive[1] < 1e-9 and positive[2] > 1e9 and blind == 0,
        ),
    ]
    text = (
        "One number goes in at the first step, and nothing after it. What remains depends on the weight; whether it still "
        "depends on the input is the question. (The slope of a sigmoid is a quarter at most: with |w| < 4 it must forget.) "
        "Filled markers: a positive input, open ones: a negative one."
    )
    return Section("scalars", "One input to a nonlinear memory: numbers", text, figure, claims)


def vectors(options):
    """h_t = f(W h_{t-1}) of vectors."""
    figure, axes = panels(1, 3, 4.2, 3.6)
    rng, units = np.random.default_rng(options.seed), 8
    drawn = rng.normal(size=(units, units))
    drawn /= np.abs(np.linalg.eigvals(drawn)).max()
    radii = (0.8, 1.0, 2.5)
    matrices = [radius * drawn for radius in radii]
    x = rng.normal(size=(2, units))
    apart, ends = {}, {}
    for ax, activation in zip(axes, ("sigmoid", "tanh", "relu"), strict=True):
        curves = analysis.memory_curves(activation, matrices, x, steps=40)
        analysis.plot_memory_curves(curves, ax=ax, log=activation == "relu")
        for text, radius in zip(ax.get_legend().get_texts(), radii, strict=True):
            text.set_text(f"radius {radius:g}")
        ax.set_title(activation)
        long = analysis.memory_curves(activation, matrices, x, steps=400)
        apart[activation] = long.spread[:, 0]
        ends[activation] = np.linalg.norm(long.values[:, 0, 0, -1], axis=-1)
    claims = [
        Claim(
            "vectors behave as numbers do: sigmoid forgets its input",
            f"two inputs are {apart['sigmoid'][:, 40].max():.0e} apart after 40 steps",
            apart["sigmoid"][:, 40].max() < 1e-3,
        ),
        Claim(
            "tanh below radius 1 forgets, more slowly",
            f"radius 0.8: {apart['tanh'][0, 40]:.0e} after 40 steps; radius 1: {apart['tanh'][1, 40]:.2f}",
            apart["sigmoid"][0, 40] < apart["tanh"][0, 40] < 0.1,
        ),
        Claim(
            "relu blows up or vanishes",
            f"radius 0.8: {ends['relu'][0]:.0e} after 400 steps; radius 2.5: {ends['relu'][2]:.0e}",
            ends["relu"][0] < 1e-9 and ends["relu"][2] > 1e9,
        ),
    ]
    text = (
        "The same with eight units and one random matrix, scaled to three spectral radii. Drawn is the length of the state, "
        "for two inputs."
    )
    return Section("vectors", "One input to a nonlinear memory: vectors", text, figure, claims)


def bounds(options):
    """What is proved bounded, and what a long run does."""
    keras.utils.set_random_seed(options.seed)
    layers = {
        "TDNN, relu": keras_seq.TDNN(8, delays=5, activation="relu"),
        "SimpleRNN, tanh": keras_seq.SimpleRNN(8),
        "SimpleRNN, relu, |U| = 1": keras_seq.SimpleRNN(8, activation="relu"),
        "SimpleRNN, relu, |U| = 0.9": keras_seq.SimpleRNN(8, activation="relu"),
        "GRU": keras_seq.GRU(8),
        "LSTM": keras_seq.LSTM(8),
    }
    figure, (ax,) = panels(1, 1, 8, 3.6)
    x = np.random.default_rng(options.seed).uniform(-1, 1, size=(16, options.bound_steps, 3)).astype("float32")
    found, kept = {}, True
    for name, layer in layers.items():
        layer.return_sequences = not isinstance(layer, keras_seq.TDNN)
        layer.build((None, None, 3))
        if "0.9" in name:
            layer.cell.recurrent_kernel.assign(0.9 * layer.cell.recurrent_kernel)
        certificate = analysis.bibo_certificate(layer, 1.0)
        if isinstance(layer, keras_seq.TDNN):
            most = np.abs(layer(x)).max()
        else:
            layer.return_state = True
            most = max(np.abs(s).max() for s in layer(x)[1:])
        kept = kept and (not certificate.proven or most <= certificate.value)
        found[name] = certificate, float(most)
    places = np.arange(len(found))
    ax.barh(places - 0.18, [m for _, m in found.values()], 0.32, color="black", label="greatest modulus of a run")
    proved = [c.value for c, _ in found.values()]
    ax.barh(
        places + 0.18, np.nan_to_num(proved), 0.32, color="white", edgecolor="black", hatch="///", label="proved bound"
    )
    for place, (certificate, _) in zip(places, found.values(), strict=True):
        if not certificate.proven:
            ax.text(1, place + 0.18, " nothing is proved", va="center", fontsize=8)
    ax.set_xscale("log")
    ax.set_xlim(0.1, None)
    ax.set_yticks(places, list(found))
    ax.invert_yaxis()
    ax.set_xlabel("inputs up to 1")
    ax.legend(fontsize=8, loc="upper right")
    rows = "".join(f"<li><b>{html.escape(n)}</b>: {html.escape(c.statement)}</li>" for n, (c, _) in found.items())
    claims = [
        Claim(
            "time-delay layers are bounded by construction, recurrences under conditions",
            f"no run of {options.bound_steps} steps passes a bound that is proved",
            kept,
        )
    ]
    text = (
        "Bounded inputs give bounded outputs, always in a finite sum, and in a recurrence if something holds it: an activation "
        "that is bounded itself, a gate that takes means, or a kernel of norm below 1. Each condition is sufficient, and not "
        "necessary: where it fails nothing is said."
    )
    return Section("bounds", "Bounded in, bounded out", text, figure, claims, f"<ul>{rows}</ul>")


# -- backwards -------------------------------------------------------------------------------------------------------------


def gradients(options):
    """How a gradient fades over lags, by activation, and where it reaches."""
    rng = np.random.default_rng(options.seed)
    units, steps = options.units, 100
    x = rng.normal(size=(4, steps, 3)).astype("float32")
    figure, axes = panels(1, 3, 4.8, 3.6)
    flows, spectra, slopes = {}, {}, {}
    for activation in ("sigmoid", "tanh", "relu", "linear"):
        keras.utils.set_random_seed(options.seed)
        layer = keras_seq.SimpleRNN(units, activation=activation)  # an orthogonal kernel
        layer(x)
        flows[activation] = analysis.gradient_flow(layer, x)
        spectra[activation] = analysis.lyapunov_spectrum(layer, x)
        stretch = np.linalg.svd(analysis.step_jacobians(layer, x), compute_uv=False)
        slopes[activation] = stretch.max()
        if activation == "tanh":
            found = analysis.state_gradients(layer, x, np.ones((4, units), "float32"))
            analysis.plot_state_gradients([np.asarray(g) for g in found], names=["h"], ax=axes[2])
            axes[2].set_title("tanh: $dL/dh_t$ of a loss at the end")
    analysis.plot_gradient_flow(flows, ax=axes[0])
    axes[0].set_title("what comes back over a lag")
    analysis.plot_lyapunov_spectrum(spectra, ax=axes[1])
    axes[1].set_title("Lyapunov exponents")
    lost = {name: flow.log_norm[:, -1].mean() / np.log(10) for name, flow in flows.items()}
    claims = [
        Claim(
            "a step of a kernel of norm 1 shrinks: slopes are at most 1",
            ", ".join(f"{name} {value:.3f}" for name, value in slopes.items()) + " are the greatest singular values",
            max(slopes.values()) < 1 + 1e-5,
        ),
        Claim(
            "gradients vanish over lags, most of all through sigmoids",
            f"after {steps} steps, powers of ten: " + ", ".join(f"{name} {value:.1f}" for name, value in lost.items()),
            lost["sigmoid"] < lost["tanh"] < -1 and abs(lost["linear"]) < 1e-3,
        ),
    ]
    text = (
        "All four memories have orthogonal kernels, which turn and do not shrink: what shrinks is the slope of the activation. "
        "The map is dark where a loss at the last step still reaches; white has lost twelve powers of ten."
    )
    return Section("gradients", "Gradients over lags", text, figure, claims)


# -- long gaps -------------------------------------------------------------------------------------------------------------


def open_for(steps):
    """The start of an LSTM's bias: unit j keeps what it holds for a time drawn from 1 to `steps`."""

    def start(shape, dtype=None):
        units = shape[0] // 4
        forget = np.log(np.random.default_rng(1).uniform(1, steps, units))
        return keras.ops.convert_to_tensor(np.concatenate([-forget, forget, np.zeros(2 * units)]), dtype=dtype)

    return start


def strings(rng, count, gap):
    """Letters (count, gap + 1), and whether each string begins with the second letter, (count, 1)."""
    found = rng.integers(2, len(LETTERS), size=(count, gap + 1))
    found[:, 0] = rng.integers(0, 2, size=count)
    return found, found[:, :1].astype("float32")


def memories(gap, units):
    """The memories that are trained, by name."""
    return {
        "SimpleRNN": keras_seq.SimpleRNN(units),
        "LSTM, Keras's start": keras_seq.LSTM(units),
        "LSTM, open gates": keras_seq.LSTM(units, unit_forget_bias=False, bias_initializer=open_for(2 * gap)),
    }


def trained(layer, gap, options):
    """`(the model, the share of held-out strings whose first letter it says)`."""
    rng = np.random.default_rng(options.seed)
    eye = {"embeddings_initializer": "identity", "trainable": False}
    letters = keras.layers.Embedding(len(LETTERS), len(LETTERS), **eye)
    model = keras.Sequential([keras.Input((None,)), letters, layer, keras.layers.Dense(1)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(options.learning_rate, global_clipnorm=1.0)
    model.compile(optimizer, loss, jit_compile=True, steps_per_execution=50)
    x, y = strings(rng, options.steps * 32, gap)
    model.fit(x, y, batch_size=32, epochs=1, verbose=0)
    x, y = strings(np.random.default_rng(10**6), 1024, gap)
    return model, float(np.mean((np.asarray(model(x)) > 0) == (y > 0.5)))


def gaps(options):
    """Which letter a string began with: an LSTM against a simple memory, over longer and longer gaps."""
    figure, axes = panels(2, 2, 6.2, 3.6)
    scores, kept = {}, {}
    for gap in options.gaps:
        keras.utils.set_random_seed(options.seed)
        for name, layer in memories(gap, options.units).items():
            model, score = trained(layer, gap, options)
            scores.setdefault(name, []).append(score)
            kept[name] = model, layer
            print(f"gap {gap:4}, {name:20}: {score:.1%} right", flush=True)
    for (name, values), style in zip(scores.items(), analysis.plots.STYLES, strict=False):
        axes[0].plot(options.gaps, values, label=name, **style)
    axes[0].axhline(0.5, color="0.6", linewidth=1)
    axes[0].set(
        xlabel="letters in between", ylabel="share right", title="the first letter, after training", ylim=(0.4, 1.05)
    )
    axes[0].legend(fontsize=8, handlelength=3)
    x = strings(np.random.default_rng(7), 8, options.long)[0]
    flows = {name: analysis.gradient_flow(model, x, of=layer) for name, (model, layer) in kept.items()}
    analysis.plot_gradient_flow(flows, ax=axes[1])
    axes[1].set_title(f"gradients in these, trained over {options.gaps[-1]}")
    letters = "".join(LETTERS[i] for i in x[0, : options.shown])
    for ax, name in zip(axes[2:], ("LSTM, Keras's start", "LSTM, open gates"), strict=True):
        layer = kept[name][1]
        shown = keras_seq.LSTM.from_config(
            {**layer.get_config(), "return_internals": True, "name": None, "bias_initializer": "zeros"}
        )
        shown.build((None, None, len(LETTERS)))
        shown.set_weights(layer.get_weights())
        inside = shown(tf.one_hot(x[:1, : options.shown], len(LETTERS)))[-1]
        analysis.plot_gate({n: np.asarray(v) for n, v in inside.items()}, "forget_gate", letters, ax=ax)
        ax.set_title(f"forget gates: {name}")
    at = options.long
    keeps = initial_flows(options)
    claims = [
        Claim(
            f"an LSTM with forget gates near 1 keeps a gradient over {at} steps, a simple memory does not",
            f"before training, small recurrent weights in the LSTM: factors {np.exp(keeps[0]):.2f} and {np.exp(keeps[1]):.0e}",
            abs(keeps[0]) < np.log(2) and keeps[1] < -6 * np.log(10),
        ),
        Claim(
            "over long gaps the simple memory forgets the first pattern, the gated one learns it",
            f"{options.gaps[-1]} letters: " + ", ".join(f"{name} {values[-1]:.0%}" for name, values in scores.items()),
            scores["LSTM, open gates"][-1] > 0.9 > scores["SimpleRNN"][-1],
        ),
    ]
    reports = {n: str(analysis.stability_report(model, x, of=layer)) for n, (model, layer) in kept.items()}
    more = "".join(f"<h3>{html.escape(n)}</h3><pre>{html.escape(r)}</pre>" for n, r in reports.items())
    text = (
        "Strings begin with a or b; then come letters that say nothing. At the end the model says which it was. Gates that "
        "start open for as long as the gap is (Tallec and Ollivier 2018) let the gradient through to begin with. Last comes "
        "what stability_report says of each memory after training over the longest gap."
    )
    return Section("gaps", "Long gaps: an LSTM against a simple memory", text, figure, claims, more)


def initial_flows(options):
    """Logarithms of what comes back over `options.long` steps in an LSTM with forget gates near 1, and in a simple memory."""
    x = np.random.default_rng(options.seed).normal(size=(4, options.long, 3)).astype("float32")
    keras.utils.set_random_seed(options.seed)
    lstm, simple = keras_seq.LSTM(16), keras_seq.SimpleRNN(16)
    lstm(x), simple(x)
    kernel, recurrent, bias = lstm.get_weights()
    bias[16:32] = 9.0
    lstm.set_weights([kernel, 0.1 * recurrent, bias])
    return [float(analysis.gradient_flow(layer, x).log_norm[:, -1].mean()) for layer in (lstm, simple)]


# -- the page --------------------------------------------------------------------------------------------------------------

SECTIONS = {f.__name__: f for f in (linear, scalars, vectors, bounds, gradients, gaps)}
STYLE = """
body { font: 16px/1.5 Georgia, serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #111; background: #fff; }
h1, h2, h3 { font-family: Helvetica, Arial, sans-serif; line-height: 1.2; } h2 { margin-top: 3rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.6rem; border-bottom: 1px solid #bbb; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } pre { font-size: 0.78rem; overflow-x: auto; }
nav a { margin-right: 1rem; } .no { font-weight: bold; }
"""


def table(claims):
    rows = "".join(
        f"<tr><td>{html.escape(c.says)}</td><td>{html.escape(c.measured)}</td>"
        f"<td{'' if c.holds else ' class=no'}>{'yes' if c.holds else 'NO'}</td></tr>"
        for c in claims
    )
    return f"<table><tr><th>the textbook says</th><th>measured here</th><th>borne out</th></tr>{rows}</table>"


def page(sections, seconds):
    """One file with everything in it."""
    parts = []
    for s in sections:
        png = io.BytesIO()
        s.figure.savefig(png, dpi=110, format="png")
        data = base64.b64encode(png.getvalue()).decode()
        parts.append(
            f'<h2 id="{s.name}">{html.escape(s.title)}</h2><p>{html.escape(s.text)}</p>'
            f'<figure><img alt="{html.escape(s.title)}" src="data:image/png;base64,{data}"></figure>{table(s.claims)}{s.more}'
        )
    links = "".join(f'<a href="#{s.name}">{html.escape(s.title)}</a>' for s in sections)
    claims = [c for s in sections for c in s.claims]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>What a memory holds</title><style>{STYLE}</style></head><body><h1>What a memory holds</h1>"
        f"<p>Recurrent layers of keras_seq {keras_seq.__version__}, looked into by keras_seq.analysis: "
        f"{sum(c.holds for c in claims)} of {len(claims)} statements of the textbook are borne out, in {seconds:.0f} seconds "
        f"of computing.</p><nav>{links}</nav>{''.join(parts)}</body></html>"
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument(
        "--gaps", nargs="+", type=int, default=[10, 20, 40, 80], help="letters between the first and the end"
    )
    parser.add_argument("--steps", type=int, default=1000, help="updates of the weights")
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--quick", action="store_true", help="one short gap, few updates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/stability"))
    options = parser.parse_args(arguments)
    options.long, options.shown, options.bound_steps = 200, 40, 2000
    if options.quick:
        options.gaps, options.steps, options.bound_steps = options.gaps[:1], min(options.steps, 100), 200
    options.output.mkdir(parents=True, exist_ok=True)
    start, sections = time.perf_counter(), []
    for name in options.only:
        sections.append(SECTIONS[name](options))
        sections[-1].figure.savefig(options.output / f"{name}.png", dpi=110)
    for s in sections:
        print(f"\n{s.title}")
        for c in s.claims:
            print(f"  {'yes' if c.holds else 'NO ':3}  {c.says}\n       {c.measured}")
    (options.output / "stability.html").write_text(page(sections, time.perf_counter() - start), encoding="utf-8")
    print(f"\n{options.output / 'stability.html'}")
    return sections


if __name__ == "__main__":
    main()
