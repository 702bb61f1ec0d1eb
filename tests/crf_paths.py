"""All sequences of tags of a conditional random field, written out: what its sums and maxima must equal.

Axes: b batch, t time, k tags.
"""

import itertools

import keras
import numpy as np

import keras_seq

K, T = 3, 5
# all real, padding before, holes, a single real step in the middle, none, padding after
MASK = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 1, 0, 0], [0] * 5, [1, 1, 0, 0, 0]], bool)
NAMES = ["O", "B-x", "I-x"]
FORBIDDEN = [("start", 2), (0, 2)]  # what BIO forbids of these


def settings(seed, scheme=None):
    """`(layer, scores (b, t, k), labels (b, t))`, float64, NaN and nonsense where the mask hides them."""
    rng = np.random.default_rng(seed)
    layer = keras_seq.CRF(NAMES, scheme=scheme, dtype="float64")
    layer.build((None, None, K))
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    scores, labels = rng.normal(size=(*MASK.shape, K)), rng.integers(0, K, MASK.shape)
    if scheme:
        labels = np.ones_like(labels)
        labels[:, -1] = 2
    scores[~MASK], labels[~MASK] = np.nan, -7
    return layer, scores, labels


def allowed(path, scheme):
    pairs = list(itertools.pairwise(("start", *path)))
    return scheme is None or not any(pair in FORBIDDEN for pair in pairs)


def sequences(weights, scores, mask, scheme=None):
    """`{tags of the real steps: their score}` of one row."""
    transitions, start, end = weights
    scores, found = scores[mask], {}
    for path in itertools.product(range(K), repeat=len(scores)):
        if path and allowed(path, scheme):
            steps = sum(scores[t, tag] for t, tag in enumerate(path))
            pairs = sum(transitions[pair] for pair in itertools.pairwise(path))
            found[path] = start[path[0]] + steps + pairs + end[path[-1]]
    return found or {(): 0.0}


def losses(weights, scores, labels, scheme=None):
    """-log p of each row's labels."""
    found = []
    for x, y, mask in zip(scores, labels, MASK, strict=True):
        every = sequences(weights, x, mask, scheme)
        found.append(np.log(np.sum(np.exp(list(every.values())))) - every.get(tuple(y[mask]), -np.inf))
    return np.array(found)


def numbers(layer):
    return [keras.ops.convert_to_numpy(w) for w in layer.weights]
