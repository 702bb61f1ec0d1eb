"""The equations of the built-in cells, in NumPy: one row and one step at a time."""

import typing

import keras
import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


FUNCTIONS = {
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
}
SETTLED = {  # what the name of a cell says of it
    "PeepholeLSTMCell": {"peepholes": True},
    "CoupledLSTMCell": {"coupled": True},
    "NoForgetLSTMCell": {"forget_gate": False},
    "ARCell": {"exogenous": False},
}


def function(activation):
    return FUNCTIONS[keras.activations.serialize(activation)]


def normal(x):
    """Layer normalisation of a whole vector (Ba et al. 2016), with the epsilon that the docstring states."""
    return (x - np.mean(x)) / np.sqrt(np.var(x) + 1e-5)


class Oracle:
    """The equations of one built-in cell. Each gate's product is taken apart from all others.

    `step(x, states, v, target)` gives the output, the new states, and what the cell says of its inside, by name.
    """

    def __init__(self, cell):
        self.context = None
        if hasattr(cell, "context_kernel"):
            cell, self.context = cell.cell, cell.context_kernel.numpy()
        self.cell, self.u, self.name = cell, cell.units, type(cell).__name__
        self.w = {w.name: w.numpy() for w in cell.weights}
        self.f = function(cell.activation)
        self.zoneout = cell.zoneout if isinstance(cell.zoneout, list) else [cell.zoneout] * 9
        self.find = {
            "SimpleRNNCell": self.simple,
            "ElmanCell": self.simple,
            "JordanCell": self.jordan,
            "ResidualRNNCell": self.residual,
            "MinGRUCell": self.min_gru,
            "MinLSTMCell": self.min_lstm,
            "LinearRNNCell": self.linear,
            "LRUCell": self.lru,
            "NARXCell": self.narx,
            "ARCell": self.narx,
            "GRUCell": self.gru,
        }.get(self.name, self.lstm)

    def step(self, x, states, v=None, target=None):
        self.target = target
        return self.find(x, states, v)

    def argument(self, name):
        return SETTLED.get(self.name, {}).get(name, getattr(self.cell, name))

    def columns(self, gate):
        return slice(gate * self.u, (gate + 1) * self.u)

    def bias(self, columns):
        bias = self.w["bias"] if self.cell.use_bias else np.zeros(self.cell.projected_size)
        return (bias if bias.ndim == 1 else bias[0])[columns]

    def part(self, gate, x, h, v):
        """W x + U h + b (+ W_v v) of the gate with this number."""
        here = self.columns(gate)
        total = x @ self.w["kernel"][:, here] + self.bias(here) + h @ self.w["recurrent_kernel"][:, here]
        return total if v is None else total + v @ self.context[:, here]

    def zoned(self, number, old, new):
        """The expectation of a state of which a share is left as it was."""
        z = self.zoneout[number]
        return z * old + (1 - z) * new

    def readout(self, h):
        b = self.w["output_bias"] if self.cell.use_bias else 0
        return function(self.cell.output_activation)(h @ self.w["output_kernel"] + b)

    # -- the simple ones ---------------------------------------------------------------------------------------------

    def simple(self, x, states, v):
        (h,) = states
        h = self.zoned(0, h, self.f(self.part(0, x, h, v)))
        return h if self.cell.outputs is None else self.readout(h), [h], {"hidden": h}

    def jordan(self, x, states, v):
        (m,) = states
        mu = self.cell.decay
        h = self.f(self.part(0, x, m, v))
        y = self.readout(h)
        new = mu * m + (1 - mu) * (y if self.target is None else self.target)
        return y, [self.zoned(0, m, new)], {"memory": m, "hidden": h, "output": y}

    def residual(self, x, states, v):
        (h,) = states
        candidate = x @ self.w["kernel"] + self.bias(slice(None))[: self.u]
        if self.cell.recurrent:
            candidate = candidate + h @ self.w["recurrent_kernel"]
        candidate = self.f(candidate)
        h = self.zoned(0, h, h + candidate)
        return h, [h], {"candidate": candidate, "hidden": h}

    # -- those whose state is linear in the one before ------------------------------------------------------------------

    def seen(self, gate, x):
        """W x + b of the gate with this number."""
        return x @ self.w["kernel"][:, self.columns(gate)] + self.bias(self.columns(gate))

    def min_gru(self, x, states, v):
        (h,) = states
        z, candidate = sigmoid(self.seen(0, x)), self.f(self.seen(1, x))
        h = self.zoned(0, h, (1 - z) * h + z * candidate)
        return h, [h], {"update_gate": z, "candidate": candidate, "hidden": h}

    def min_lstm(self, x, states, v):
        (h,) = states
        i, f, candidate = sigmoid(self.seen(0, x)), sigmoid(self.seen(1, x)), self.f(self.seen(2, x))
        if self.cell.normalize:
            i, f = i / (i + f), f / (i + f)
        h = self.zoned(0, h, f * h + i * candidate)
        return h, [h], {"input_gate": i, "forget_gate": f, "candidate": candidate, "hidden": h}

    def linear(self, x, states, v):
        (h,) = states
        if self.cell.transition == "full":
            kept = h @ self.w["recurrent_kernel"]
        else:
            kept = h * (np.tanh if self.cell.stable else np.array)(self.w["recurrent_diagonal"])
        h = self.zoned(0, h, kept + self.f(self.seen(0, x)))
        return h if self.cell.outputs is None else self.readout(h), [h], {"hidden": h}

    def lru(self, x, states, v):
        (h,), u = states, self.u
        z = h[:u] + 1j * h[u:]
        multiplier = np.exp(-np.exp(self.w["nu"]) + 1j * np.exp(self.w["theta"]))
        z = multiplier * z + np.exp(self.w["log_gamma"]) * (self.seen(0, x) + 1j * self.seen(1, x))
        matrix = self.w["output_kernel"][:u] - 1j * self.w["output_kernel"][u:]
        y = self.f((z @ matrix).real + x @ self.w["skip_kernel"])
        h = self.zoned(0, h, np.concatenate([z.real, z.imag]))
        return y, [h], {"hidden": h}

    def narx(self, x, states, v):
        d, k = len(x), self.cell.outputs
        ys = [states[0][i : i + k] for i in range(0, len(states[0]), k)]  # y_{t-1}, y_{t-2}, ...
        xs = [states[1][i : i + d] for i in range(0, len(states[1]), d)] if len(states) > 1 else []
        past_x = [([x, *xs])[delay] for delay in self.cell.input_delays] if self.argument("exogenous") else []
        past_y = [ys[delay - 1] for delay in self.cell.output_delays]
        if self.cell.network is None:
            width = self.u or k
            z = self.bias(slice(None))[:width]
            for i, tap in enumerate(past_x):
                z = z + tap @ self.w["kernel"][i * d : (i + 1) * d]
            for i, tap in enumerate(past_y):
                z = z + tap @ self.w["recurrent_kernel"][i * k : (i + 1) * k]
            hidden = {} if self.u is None else {"hidden": self.f(z)}
            y = self.readout(self.f(z)) if hidden else function(self.cell.output_activation)(z)
        else:
            y, hidden = np.concatenate([*past_x, *past_y]), {}
            for dense in self.cell.network.layers:
                kernel, bias = dense.get_weights()
                y = function(dense.activation)(y @ kernel + bias)
        fed = y if self.target is None else self.target
        new = [np.concatenate([fed, *ys[:-1]]), np.concatenate([x, *xs[:-1]])]
        return y, new[: len(states)], {**hidden, "output": y}

    # -- the gated ones ----------------------------------------------------------------------------------------------

    def gru(self, x, states, v):
        (h,) = states
        sigma, recurrent = function(self.cell.recurrent_activation), self.w["recurrent_kernel"]
        inner = self.w["bias"][1] if self.cell.reset_after and self.cell.use_bias else np.zeros(3 * self.u)
        z, r = (sigma(self.part(k, x, h, v) + inner[self.columns(k)]) for k in (0, 1))
        if self.cell.reset_after:
            last = self.columns(2)
            candidate = self.f(self.part(2, x, 0 * h, v) + r * (h @ recurrent[:, last] + inner[last]))
        else:
            candidate = self.f(self.part(2, x, r * h, v))
        h = self.zoned(0, h, z * h + (1 - z) * candidate)
        return h, [h], {"update_gate": z, "reset_gate": r, "candidate": candidate, "hidden": h}

    def lstm(self, x, states, v):
        """Every switch changes one line."""
        h_old, c_old, *old_gates = states
        coupled, peepholes = self.argument("coupled"), self.argument("peepholes")
        present = {
            "input": self.argument("input_gate") and not coupled,
            "forget": self.argument("forget_gate"),
            "candidate": True,
            "output": self.argument("output_gate"),
        }
        names = [name for name in present if present[name]]
        gates = [name for name in names if name != "candidate"]
        sigma = function(self.cell.recurrent_activation)

        def total(name):
            here = self.columns(names.index(name))
            if self.argument("normalize"):
                from_x, from_h = normal(x @ self.w["kernel"]), normal(h_old @ self.w["recurrent_kernel"])
                found = from_x[here] * self.w["input_gain"][here] + from_h[here] * self.w["recurrent_gain"][here]
                found = found + self.bias(here)
            else:
                found = self.part(names.index(name), x, h_old, v)
            if self.argument("full_gate_recurrence") and name in gates:
                to = self.columns(gates.index(name))
                for number, old in enumerate(old_gates):
                    found = found + old @ self.w["gate_kernel"][self.columns(number), to]
            return found

        def gate(name, cell):
            seen = self.w["peephole_kernel"][gates.index(name)] * cell if peepholes else 0
            return sigma(total(name) + seen)

        f = gate("forget", c_old) if present["forget"] else np.ones_like(c_old)
        i = gate("input", c_old) if present["input"] else 1 - f if coupled else np.ones_like(c_old)
        g = function(self.cell.candidate_activation or self.cell.activation)(total("candidate"))
        c = f * c_old + i * g
        if self.cell.cell_clip is not None:
            c = np.minimum(np.maximum(c, -self.cell.cell_clip), self.cell.cell_clip)
        o = gate("output", c) if present["output"] else np.ones_like(c)
        seen = normal(c) * self.w["cell_gain"] + self.w["cell_bias"] if self.argument("normalize") else c
        h = o * function(self.cell.cell_activation or self.cell.activation)(seen)
        if self.cell.projection:
            h = h @ self.w["projection_kernel"]
        h, c = self.zoned(0, h_old, h), self.zoned(1, c_old, c)
        values = {"input": i, "forget": f, "output": o}
        if self.argument("full_gate_recurrence"):
            for number, name in enumerate(gates):
                values[name] = self.zoned(2 + number, old_gates[number], values[name])
        new = [h, c, *[values[name] for name in gates]][: len(states)]
        shown = [*gates, "input"] if coupled else gates
        return h, new, {**{f"{name}_gate": values[name] for name in shown}, "candidate": g, "cell": c, "hidden": h}


class Reader:
    """The equations of a cell that reads a memory, around those of the cell within."""

    def __init__(self, cell):
        self.cell = cell
        inner = {id(w) for w in cell.cell.weights}
        self.w = {w.name: w.numpy() for w in cell.weights if id(w) not in inner}
        self.within = Oracle(cell.cell)
        kernels = [self.w[name] for name in ("context_kernel", "feeding_kernel") if name in self.w]
        self.within.context = np.concatenate(kernels) if kernels else None

    def step(self, x, states, memory, target=None):
        fed = [states[-1]] if self.cell.input_feeding else []
        states = states[: len(states) - len(fed)]
        if self.cell.query == "before":
            context, alignments = self.read(states[0], memory)
            fed.insert(0, context)
        z, new, shown = self.within.step(x, states, np.concatenate(fed) if fed else None, target)
        if self.cell.query == "after":
            context, alignments = self.read(z, memory)
        shown = {**shown, "context": context, "alignment": np.mean(alignments, axis=0)}
        if self.cell.heads > 1:
            shown |= {f"alignment_{i}": a for i, a in enumerate(alignments)}
        if "output_kernel" in self.w:
            z = function(self.cell.output_activation)(np.concatenate([context, z]) @ self.w["output_kernel"])
        return z, [*new, *([z] if self.cell.input_feeding else [])], shown

    def read(self, q, memory):
        w, heads, found, alignments = self.w, self.cell.heads, [], []
        for head in range(heads):
            if self.cell.score == "additive":
                seen = np.tanh(q @ w["query_kernel"] + memory @ w["key_kernel"] + w["score_bias"])
                scores = [place @ w["score_kernel"] for place in seen]
            elif self.cell.score == "multi_head":
                a = w["query_kernel"].shape[1] // heads
                here = slice(head * a, (head + 1) * a)
                key = memory @ w["key_kernel"][:, here] + w["key_bias"][here]
                scores = key @ (q @ w["query_kernel"][:, here] + w["query_bias"][here]) / np.sqrt(a)
            else:
                scores = memory @ (w["key_kernel"] @ q if self.cell.score == "general" else q)
            shares = np.exp(scores - np.max(scores))
            alignments.append(shares / np.sum(shares))
            values = memory
            if self.cell.score == "multi_head":
                values = memory @ w["value_kernel"][:, here] + w["value_bias"][here]
            found.append(alignments[-1] @ values)
        context = np.concatenate(found)
        return context @ w["heads_kernel"] + w["heads_bias"] if "heads_kernel" in w else context, alignments


class Found(typing.NamedTuple):
    """Outputs (b, t, k), that of the last real step, final states, internals by name (b, t, width).

    `contexts` are the states that each step read; at a masked step the states as they were.
    """

    outputs: np.ndarray
    last: np.ndarray
    states: list
    internals: dict
    contexts: list


def oracle(layer, given, go_backwards=False, zero_output_for_mask=False, contexts=None):
    """What a layer with a built-in cell must give.

    With `contexts`, those of another run, each step reads these in place of the states: a net with one step of history.
    """
    cell = Reader(layer.cell) if hasattr(layer.cell, "score") else Oracle(layer.cell)
    x = given.x.numpy()
    mask = np.ones(x.shape[:2], bool) if given.mask is None else given.mask.numpy()
    b, t, _ = x.shape
    constants, targets = given.constants, given.targets
    if type(layer).__name__ == "AR" and targets is None and not layer.closed:
        targets = given.x  # the series itself
    states = [s.numpy().copy() for s in given.states]
    read = [np.zeros((b, t, *s.shape[1:]), s.dtype) for s in states]
    outputs, internals = np.zeros((b, t, layer.cell.output_size), x.dtype), {}
    lasts = np.zeros_like(outputs[:, 0])
    for row in range(b):
        v = constants[0].numpy()[row] if constants else None
        last = real = np.zeros_like(outputs[0, 0])
        shown = {}
        order = range(t - 1, -1, -1) if go_backwards else range(t)
        for place, now in enumerate(order):
            for r, s in zip(read, states, strict=True):
                r[row, place] = s[row]
            if mask[row, now]:
                before = read if contexts is None else contexts
                target = None if targets is None else targets.numpy()[row, now]
                last, new, shown = cell.step(x[row, now], [s[row, place] for s in before], v, target)
                real = last
                for s, value in zip(states, new, strict=True):
                    s[row] = value
            elif zero_output_for_mask:
                last, shown = 0 * last, {name: 0 * value for name, value in shown.items()}
            outputs[row, place] = last
            lasts[row] = real
            for name, value in shown.items():
                internals.setdefault(name, np.zeros((b, t, len(value)), x.dtype))[row, place] = value
    return Found(outputs, lasts, states, internals, read)
