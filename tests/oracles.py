"""The equations of the built-in cells, in NumPy: one row and one step at a time."""

import keras
import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


FUNCTIONS = {
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
}


class Oracle:
    """The equations of one built-in cell. Each gate's product is taken apart from all others, by `part`."""

    def __init__(self, cell):
        cell, self.context = (
            (cell.cell, cell.context_kernel.numpy()) if hasattr(cell, "context_kernel") else (cell, None)
        )
        weights = {w.name: w.numpy() for w in cell.weights}
        self.u = cell.units
        self.kernel, self.recurrent = weights["kernel"], weights["recurrent_kernel"]
        self.bias = weights.get("bias", np.zeros(self.kernel.shape[1], self.kernel.dtype))
        self.peepholes = weights.get("peephole_kernel", np.zeros((3, self.u), self.kernel.dtype))
        self.f = FUNCTIONS[keras.activations.serialize(cell.activation)]
        self.sigma = FUNCTIONS[keras.activations.serialize(getattr(cell, "recurrent_activation", keras.ops.sigmoid))]
        self.step = getattr(self, type(cell).__name__)
        self.reset_after = getattr(cell, "reset_after", False)

    def part(self, gate, x, h, v, bias=None):
        """W x + U h + b (+ W_v v) of the gate with this number."""
        columns = slice(gate * self.u, (gate + 1) * self.u)
        bias = (self.bias if self.bias.ndim == 1 else self.bias[0]) if bias is None else bias
        total = x @ self.kernel[:, columns] + bias[columns] + h @ self.recurrent[:, columns]
        return total if v is None else total + v @ self.context[:, columns]

    def SimpleRNNCell(self, x, states, v):  # noqa: N802
        (h,) = states
        h = self.f(self.part(0, x, h, v))
        return h, [h]

    def LSTMCell(self, x, states, v):  # noqa: N802
        h, c = states
        i, f = (self.sigma(self.part(k, x, h, v)) for k in (0, 1))
        candidate = self.f(self.part(2, x, h, v))
        o = self.sigma(self.part(3, x, h, v))
        c = f * c + i * candidate
        h = o * self.f(c)
        return h, [h, c]

    def PeepholeLSTMCell(self, x, states, v):  # noqa: N802
        h, c = states
        p_i, p_f, p_o = self.peepholes
        i = self.sigma(self.part(0, x, h, v) + p_i * c)
        f = self.sigma(self.part(1, x, h, v) + p_f * c)
        new = f * c + i * self.f(self.part(2, x, h, v))
        o = self.sigma(self.part(3, x, h, v) + p_o * new)
        h = o * self.f(new)
        return h, [h, new]

    def CoupledLSTMCell(self, x, states, v):  # noqa: N802
        h, c = states
        p_f, p_o = self.peepholes[:2]
        f = self.sigma(self.part(0, x, h, v) + p_f * c)
        new = f * c + (1 - f) * self.f(self.part(1, x, h, v))
        o = self.sigma(self.part(2, x, h, v) + p_o * new)
        h = o * self.f(new)
        return h, [h, new]

    def NoForgetLSTMCell(self, x, states, v):  # noqa: N802
        h, c = states
        i = self.sigma(self.part(0, x, h, v))
        c = c + i * self.f(self.part(1, x, h, v))
        h = self.sigma(self.part(2, x, h, v)) * self.f(c)
        return h, [h, c]

    def GRUCell(self, x, states, v):  # noqa: N802
        (h,) = states
        inner = self.bias[1] if self.reset_after and self.bias.ndim == 2 else np.zeros_like(self.kernel[0])
        columns = [slice(k * self.u, (k + 1) * self.u) for k in range(3)]
        z, r = (self.sigma(self.part(k, x, h, v) + inner[columns[k]]) for k in (0, 1))
        if self.reset_after:
            candidate = self.part(2, x, 0 * h, v) + r * (h @ self.recurrent[:, columns[2]] + inner[columns[2]])
        else:
            candidate = self.part(2, x, r * h, v)
        h = z * h + (1 - z) * self.f(candidate)
        return h, [h]


def oracle(layer, given, go_backwards=False, zero_output_for_mask=False):
    """`(outputs (b, t, u), last output, final states)` of a layer with a built-in cell, one row and one step at a time."""
    step = Oracle(layer.cell).step
    x = given.x.numpy()
    mask = np.ones(x.shape[:2], bool) if given.mask is None else given.mask.numpy()
    b, t, _ = x.shape
    outputs = np.zeros((b, t, layer.cell.output_size), x.dtype)
    last = np.zeros_like(outputs[:, 0])
    states = [s.numpy().copy() for s in given.states]
    for row in range(b):
        v = given.constants[0].numpy()[row] if given.constants else None
        order = range(t - 1, -1, -1) if go_backwards else range(t)
        for place, now in enumerate(order):
            if mask[row, now]:
                last[row], new = step(x[row, now], [s[row] for s in states], v)
                for s, n in zip(states, new, strict=True):
                    s[row] = n
            elif zero_output_for_mask:
                last[row] = 0
            outputs[row, place] = last[row]
    return outputs, last, states
