"""Tokens a second of a conditional random field: loss with its gradient, and Viterbi, beside loops as they are usually written.

python benchmarks/crf.py            # two minutes; prints two tables
python benchmarks/crf.py --sizes 32,50,9 --runs 5

"plain" is TensorFlow's `tf.while_loop` over the steps with the gradient of autodiff, without masks, checks or -inf; "NumPy" a
Python loop over the steps of all rows at once, its loss without a gradient; "doubling" joins pairs of steps by products of
matrices (k, k) in which sums are logsumexp, in log2(t) passes, with the gradient of autodiff. XLA knows the number of steps.
"""

import argparse
import functools

import numpy as np
import tensorflow as tf
import timing

from keras_seq.decoding import crf_loss, viterbi

SIZES = [(32, 50, 9), (32, 50, 30), (4, 1000, 9)]


def plain_score(potentials, labels):
    """Of given tags, (b,)."""
    before = tf.pad(labels[:, :-1], [[0, 0], [1, 0]])
    pairs = tf.stack([before, labels], axis=-1)
    return tf.reduce_sum(tf.gather_nd(potentials, pairs, batch_dims=2), axis=1)


def plain_loss(labels, potentials):
    steps = tf.shape(potentials)[1]

    def body(index, scores):
        return index + 1, tf.reduce_logsumexp(scores[:, :, None] + potentials[:, index], axis=1)

    first = potentials[:, 0, 0]
    _, scores = tf.while_loop(lambda i, _: i < steps, body, (1, first), maximum_iterations=steps - 1)
    return tf.reduce_logsumexp(scores, axis=1) - plain_score(potentials, labels)


def doubling_loss(labels, potentials):
    x = potentials
    while x.shape[1] > 1:
        even = x.shape[1] - x.shape[1] % 2
        joined = tf.reduce_logsumexp(x[:, 0:even:2, :, :, None] + x[:, 1:even:2, None], axis=3)
        x = tf.concat([joined, x[:, even:]], axis=1)
    return tf.reduce_logsumexp(x[:, 0, 0], axis=-1) - plain_score(potentials, labels)


def plain_viterbi(potentials):
    steps = tf.shape(potentials)[1]

    def forward(index, scores, found):
        ways = scores[:, :, None] + potentials[:, index]
        return index + 1, tf.reduce_max(ways, axis=1), found.write(index, tf.argmax(ways, axis=1, output_type="int32"))

    found = tf.TensorArray("int32", size=steps, element_shape=potentials.shape[:1] + potentials.shape[3:])
    first = (0, tf.zeros_like(potentials[:, 0, 0]), found)
    _, scores, found = tf.while_loop(lambda i, *_: i < steps, forward, first, maximum_iterations=steps)
    found = found.stack()

    def back(index, tag, tags):
        return index - 1, tf.gather(found[index], tag, batch_dims=1), tags.write(index, tag)

    tags = tf.TensorArray("int32", size=steps, element_shape=potentials.shape[:1])
    last = (steps - 1, tf.argmax(scores, axis=1, output_type="int32"), tags)
    *_, tags = tf.while_loop(lambda i, *_: i >= 0, back, last, maximum_iterations=steps)
    return tf.transpose(tags.stack())


def numpy_loss(labels, potentials):
    scores = potentials[:, 0, 0]
    for step in range(1, potentials.shape[1]):
        ways = scores[:, :, None] + potentials[:, step]
        most = ways.max(axis=1)
        scores = most + np.log(np.exp(ways - most[:, None]).sum(axis=1))
    most = scores.max(axis=1)
    total = most + np.log(np.exp(scores - most[:, None]).sum(axis=1))
    before = np.pad(labels[:, :-1], [(0, 0), (1, 0)])
    rows, steps = np.indices(labels.shape)
    return total - potentials[rows, steps, before, labels].sum(axis=1)


def numpy_viterbi(potentials):
    scores, found = potentials[:, 0, 0], []
    for step in range(1, potentials.shape[1]):
        ways = scores[:, :, None] + potentials[:, step]
        scores = ways.max(axis=1)
        found.append(ways.argmax(axis=1))
    tags = [scores.argmax(axis=1)]
    for before in reversed(found):
        tags.append(np.take_along_axis(before, tags[-1][:, None], axis=1)[:, 0])
    return np.stack(tags[::-1], axis=1)


def slopes(loss, jit):
    """A compiled function to the losses and the gradient of their sum."""

    @tf.function(jit_compile=jit, autograph=False)
    def run(labels, potentials):
        with tf.GradientTape() as tape:
            tape.watch(potentials)
            losses = loss(labels, potentials)
        return losses, tape.gradient(losses, potentials)

    return run


def _losses(run, labels, potentials):
    found, gradients = run(labels, potentials)
    gradients.numpy()  # until it is there
    return found.numpy()


def compared(b, t, k, runs):
    """`(milliseconds of each loss by name, of each Viterbi)`; all give the same."""
    rng = np.random.default_rng(0)
    potentials, labels = rng.normal(size=(b, t, k, k)).astype("float32"), rng.integers(0, k, (b, t)).astype("int32")
    potentials[:, 0] = potentials[:, 0, :1]
    x, y = tf.constant(potentials), tf.constant(labels)
    losses = {"NumPy": lambda: numpy_loss(labels, potentials)}
    decoders = {"NumPy": lambda: numpy_viterbi(potentials)}
    for name, jit in (("graph", False), ("XLA", True)):
        for kind, loss in (("ours", crf_loss), ("plain", plain_loss), ("doubling", doubling_loss)):
            losses[f"{kind}, {name}"] = functools.partial(_losses, slopes(loss, jit), y, x)
        decode = tf.function(lambda x: viterbi(x)[0], jit_compile=jit, autograph=False)
        plain = tf.function(plain_viterbi, jit_compile=jit, autograph=False)
        decoders[f"ours, {name}"] = lambda run=decode: run(x).numpy()
        decoders[f"plain, {name}"] = lambda run=plain: run(x).numpy()
    for name, loss in losses.items():
        np.testing.assert_allclose(loss(), losses["NumPy"](), rtol=1e-4, err_msg=name)
    for name, decode in decoders.items():
        np.testing.assert_array_equal(decode(), decoders["NumPy"](), name)
    return timing.in_turn(losses, runs), timing.in_turn(decoders, runs)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=[",".join(map(str, size)) for size in SIZES], metavar="b,t,k")
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args(arguments)
    tables = [{}, {}]
    for size in options.sizes:
        b, t, k = map(int, size.split(","))
        for table, times in zip(tables, compared(b, t, k, options.runs), strict=True):
            for name, own in times.items():
                table.setdefault(name, []).append(f"{b * t / min(own):,.0f}")
    for title, table in zip(("loss and gradient", "Viterbi"), tables, strict=True):
        print(f"\n{title}, thousand tokens a second (b, t, k)\n")
        print(timing.table([title, *options.sizes], [[name, *row] for name, row in table.items()]))
    return tables


if __name__ == "__main__":
    main()
