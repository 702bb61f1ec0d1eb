"""The same tasks learned by torch with its own starts: reads `{"task", "seed", "file"}` line by line, writes the curve of each.

The file, made by the benchmark, holds the task's arrays and its recipe; a curve is `[[seconds, held-out loss] ..]`, and for
the plant the error of a free run too. The first line written names the version.
"""

import itertools
import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Characters(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.embedding = nn.Embedding(size, 64, padding_idx=0)
        self.memory = nn.LSTM(64, 128, batch_first=True)
        self.readout = nn.Linear(128, size)

    def forward(self, tokens):
        return self.readout(self.memory(self.embedding(tokens))[0])


class Translation(nn.Module):
    """Attention after the decoder's loop, as in plain Keras."""

    def __init__(self, source, target):
        super().__init__()
        self.source, self.target = nn.Embedding(source, 64, padding_idx=0), nn.Embedding(target, 64, padding_idx=0)
        self.encoder = nn.GRU(64, 64, batch_first=True, bidirectional=True)
        self.bridge, self.decoder = nn.Linear(128, 64), nn.GRU(64, 64, batch_first=True)
        self.keys, self.queries, self.score = nn.Linear(128, 64), nn.Linear(64, 64, bias=False), nn.Linear(64, 1)
        self.joined, self.readout = nn.Linear(192, 64, bias=False), nn.Linear(64, target)

    def forward(self, source, target):
        lengths = (source > 0).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.source(source), lengths, True, enforce_sorted=False)
        packed, states = self.encoder(packed)
        places, _ = nn.utils.rnn.pad_packed_sequence(packed, True, total_length=source.shape[1])
        start = torch.tanh(self.bridge(torch.cat(list(states), dim=-1)))[None]
        outputs, _ = self.decoder(self.target(target), start)
        scores = self.score(torch.tanh(self.keys(places)[:, None] + self.queries(outputs)[:, :, None]))[..., 0]
        weights = scores.masked_fill((source == 0)[:, None], -1e9).softmax(-1)
        return self.readout(torch.tanh(self.joined(torch.cat([weights @ places, outputs], dim=-1))))


class Captions(nn.Module):
    def __init__(self, size):
        super().__init__()
        widths, blocks = (3, 32, 64, 64), []
        for before, after in itertools.pairwise(widths):
            blocks += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.encoder = nn.Sequential(
            *blocks, nn.Flatten(), nn.Linear(64 * 36, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU()
        )
        self.bridges = nn.ModuleList([nn.Linear(256, 128) for _ in range(2)])
        self.embedding = nn.Embedding(size, 128, padding_idx=0)
        self.memory, self.readout = nn.LSTM(128, 128, batch_first=True), nn.Linear(128, size)

    def forward(self, pictures, words):
        features = self.encoder(pictures.float().permute(0, 3, 1, 2) / 127.5 - 1)
        states = tuple(torch.tanh(bridge(features))[None] for bridge in self.bridges)
        return self.readout(self.memory(self.embedding(words), states)[0])


class System(nn.Module):
    def __init__(self):
        super().__init__()
        self.dilations = (1, 2, 4, 8, 16, 32)
        widths = [1, *[16] * 6]
        normal = nn.utils.parametrizations.weight_norm
        pairs = list(zip(widths, self.dilations, strict=False))
        self.first = nn.ModuleList([normal(nn.Conv1d(w, 16, 3, dilation=d)) for w, d in pairs])
        self.second = nn.ModuleList([normal(nn.Conv1d(16, 16, 3, dilation=d)) for _, d in pairs])
        self.shortcut, self.readout = nn.Conv1d(1, 16, 1), nn.Linear(16, 1)

    def forward(self, x):
        x = x.transpose(1, 2)
        for d, first, second in zip(self.dilations, self.first, self.second, strict=True):
            z = functional.relu(first(functional.pad(x, (2 * d, 0))))
            z = functional.relu(second(functional.pad(z, (2 * d, 0))))
            x = functional.relu(z + (x if x.shape[1] == 16 else self.shortcut(x)))
        return self.readout(x.transpose(1, 2))


class Recurrent(nn.Module):
    """A memory and a readout, of all outputs or of the last."""

    def __init__(self, memory, width, outputs, last=False, words=None):
        super().__init__()
        self.embedding = nn.Embedding(words, 32) if words else nn.Identity()
        self.memory, self.readout, self.last = memory, nn.Linear(width, outputs), last

    def forward(self, x):
        outputs = self.memory(self.embedding(x))[0]
        return self.readout(outputs[:, -1:] if self.last else outputs)


def made(task, recipe):
    sizes = recipe["vocabularies"]
    return {
        "characters": lambda: Characters(*sizes),
        "translation": lambda: Translation(*sizes),
        "captions": lambda: Captions(*sizes),
        "plant": lambda: nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 1)),
        "system": System,
        "forecast": lambda: Recurrent(nn.GRU(7, 32, batch_first=True), 32, 1),
        "tagging": lambda: Recurrent(
            nn.LSTM(32, 32, batch_first=True, bidirectional=True),
            64,
            recipe["sizes"]["tags"],
            words=recipe["sizes"]["words"],
        ),
        "memory": lambda: Recurrent(nn.LSTM(2, 32, batch_first=True), 32, 1, last=True),
    }[task]()


def learn(task, seed, file):
    data = np.load(file)
    recipe = json.loads(str(data["recipe"]))
    arrays = {n: torch.from_numpy(data[n]) for n in data.files if n != "recipe"}
    arrays = {n: a.long() if a.dtype == torch.int32 else a for n, a in arrays.items()}

    def those(prefix):
        return [arrays[n] for n in sorted(arrays) if n.startswith(prefix)]

    (*train, targets), (*held, asked) = those("train"), those("held")
    torch.manual_seed(seed)
    model = made(task, recipe)

    def loss_of(x, y):
        found = model(*x)
        if recipe["loss"] == "tokens":
            return functional.cross_entropy(found.flatten(0, 1), y.flatten(), ignore_index=0)
        return functional.mse_loss(found[:, recipe["skip"] :], y[:, recipe["skip"] :])

    def held_out():
        model.eval()
        with torch.no_grad():
            found = float(loss_of(held, asked))
        model.train()
        return found

    batch, epochs = recipe["batch"], recipe["epochs"]
    steps = len(targets) // batch
    optimizer = torch.optim.Adam(model.parameters(), recipe["rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * epochs)
    order, spent, curve = np.random.default_rng(seed), 0.0, []
    for _ in range(epochs):
        start = time.perf_counter()
        rows = torch.from_numpy(order.permutation(len(targets)))
        for i in range(steps):
            chosen = rows[i * batch : (i + 1) * batch]
            optimizer.zero_grad()
            loss_of([x[chosen] for x in train], targets[chosen]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        spent += time.perf_counter() - start
        curve.append([spent, held_out()])
    return {"curve": curve, "free": free_run(model, held[0], asked) if task == "plant" else None}


def free_run(model, lagged, true):
    """The squared error of its own outputs fed back, after the first four true ones."""
    lags = lagged.shape[-1] // 2
    u, past = lagged[..., :lags], [true[:, i] for i in range(lags)]
    with torch.no_grad():
        for t in range(lags, true.shape[1]):
            past.append(model(torch.cat([u[:, t], *past[: -lags - 1 : -1]], dim=-1)))
        return float(functional.mse_loss(torch.stack(past, 1)[:, lags:], true[:, lags:]))


def main():
    torch.set_num_threads(1)  # threads that wait for each other cost more than they give at these sizes
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps(learn(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
