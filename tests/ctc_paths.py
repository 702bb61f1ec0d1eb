"""CTC by hand: every path written out, and a prefix beam search over Python dicts."""

import collections
import functools
import itertools

import numpy as np


def log_softmax(logits):
    shifted = np.asarray(logits, "float64") - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def collapsed(path, blank):
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


def paths(logits, mask, blank):
    """Of one row: `(path over the visible frames, its labels, log p)`, for every path."""
    logs = log_softmax(logits)[mask]
    for path in itertools.product(range(logs.shape[1]), repeat=len(logs)):
        yield path, collapsed(path, blank), sum(logs[t, symbol] for t, symbol in enumerate(path))


def labellings(logits, mask, blank):
    """Of one row: a dict from every possible labels to log p, the sum over their paths."""
    found = collections.defaultdict(lambda: -np.inf)
    for _, labels, logp in paths(logits, mask, blank):
        found[labels] = np.logaddexp(found[labels], logp)
    return found


def settings(seed, batch, time, size, sharp=2.0):
    """Logits, and a mask with gaps whose first row shows all; what it hides is not a number."""
    rng = np.random.default_rng(seed)
    logits = sharp * rng.normal(size=(batch, time, size))
    mask = rng.uniform(size=(batch, time)) < 0.7
    mask[0] = True
    mask[1, [0, 2]] = True, False
    logits[~mask] = np.nan
    return logits, mask


def beam_by_hand(logits, mask, blank, width, language_model=None, alpha=1.0, beta=0.0):
    """Of one row: `[(labels, score)]`, the best first; `language_model(labels)` gives log p of each next token."""
    model = functools.cache(language_model) if language_model else None

    def prior(labels):
        words = sum(model(labels[:i])[w] for i, w in enumerate(labels)) if model else 0.0
        return alpha * words + beta * len(labels)

    beam = {(): (0.0, -np.inf)}
    for logs in log_softmax(logits)[mask]:
        found = collections.defaultdict(lambda: [-np.inf, -np.inf])
        for labels, (by_blank, by_label) in beam.items():
            both = np.logaddexp(by_blank, by_label)
            for symbol, logp in enumerate(logs):
                if symbol == blank:
                    found[labels][0] = np.logaddexp(found[labels][0], both + logp)
                    continue
                again = bool(labels) and labels[-1] == symbol
                longer = found[(*labels, symbol)]
                longer[1] = np.logaddexp(longer[1], (by_blank if again else both) + logp)
                if again:
                    found[labels][1] = np.logaddexp(found[labels][1], by_label + logp)
        best = sorted(found.items(), key=lambda kept: -np.logaddexp(*kept[1]) - prior(kept[0]))
        beam = dict(best[:width])
    return [(labels, np.logaddexp(*shares) + prior(labels)) for labels, shares in beam.items()]
