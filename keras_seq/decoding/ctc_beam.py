"""The labels that CTC's frames say: of the best path, or the likeliest that a beam finds."""

from __future__ import annotations

import math
from typing import Any

from keras import ops, tree

from keras_seq.arguments import positive_integer
from keras_seq.decoding.ctc_lattice import check_frames, to_front
from keras_seq.decoding.tokens import WORST, check_state, number, token
from keras_seq.typing import Step, Tensor


def ctc_greedy(logits: Tensor, mask: Tensor | None = None, blank: int = 0) -> tuple[Tensor, Tensor]:
    """The labels of the likeliest path: the likeliest symbol of each frame, equal neighbours and blanks taken out.

    Graves et al. (2006), "best path decoding". Many paths give the same labels, so that these need not be the likeliest:
    see `ctc_beam_search`. No loop; compiles under XLA.

    Args:
        logits: tensor (b, t, v), before any softmax.
        mask: boolean (b, t), True for the frames that count; None for all. The frames on both sides of a gap are neighbours.
        blank: the index of the blank.

    Returns:
        `(tokens, scores)`: int32 (b, t), the labels and then blanks, and (b,), log p of the path.

    Raises:
        TypeError, ValueError: a blank that is no index of a logit, logits that are not (b, t, v), a mask that is not (b, t).

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import ctc_greedy
    tokens, scores = ctc_greedy(10.0 * np.eye(3)[[[1, 1, 0, 1, 2]]])      # [[1 1 2 0 0]]
    ```
    """
    logits, visible = check_frames(logits, mask, blank)
    best, _, _ = to_front(ops.cast(ops.argmax(logits, axis=-1), "int32"), visible, blank)
    before = ops.pad(best, ((0, 0), (1, 0)), constant_values=blank)[:, :-1]
    tokens, _, _ = to_front(best, ops.logical_and(best != blank, best != before), blank)
    scores = ops.max(ops.log_softmax(logits, axis=-1), axis=-1)
    return tokens, ops.sum(ops.where(visible, scores, 0.0), axis=1)


def ctc_beam_search(
    logits: Tensor,
    width: int = 10,
    *,
    n_best: int = 1,
    mask: Tensor | None = None,
    blank: int = 0,
    language_model: Step | None = None,
    state: Any = (),
    start: int | None = None,
    alpha: float = 1.0,
    beta: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The likeliest labels that a beam of `width` prefixes finds, over all their paths.

        score(y) = log p(y) + alpha log p_lm(y) + beta |y|,   p(y) the sum over all paths that collapse to y

    Prefix beam search (Graves 2012; with a language model Hannun et al. 2014). For each prefix it keeps the share of its
    paths that end with the blank and of those that end with its last label. At each frame a prefix stays, by the blank or by
    its last label again, or gets one label more; one that becomes what another prefix of the beam is already adds its share to
    that one. The `width` best by score stay. Shares of what has left the beam are lost, so that p is a lower bound,
    exact when the beam holds all there is.

    One loop of `keras.ops`, so that it compiles under XLA and runs in a SavedModel.

    Args:
        logits: tensor (b, t, v), before any softmax.
        width: positive integer; at most the number of sequences of up to t labels, where t is known.
        n_best: positive integer, at most width: how many to give per row.
        mask: boolean (b, t), True for the frames that count; None for all.
        blank: the index of the blank.
        language_model: function `(tokens (rows,), state) -> (logits (rows, v), state)`, called with b rows for the start and
            b * width rows after it; the state may be any nest of tensors, rows along the first axis. Its tokens are those of
            `logits`. log p_lm is its log_softmax over all v; what it gives for the blank is not asked for.
        state: the first state of the language model, b rows.
        start: the token that the language model sees before the first label; None for the blank.
        alpha: number of at least 0, the weight of the language model.
        beta: number, what each label adds to the score; above 0 prefers more labels.

    Returns:
        `(tokens, scores)`: int32 (b, n_best, t), the best first, blanks after the labels; and (b, n_best). Where fewer labels
        are possible than asked for, the rest has the score -inf and blanks alone.

    Raises:
        TypeError, ValueError: a width or an n_best that is no positive integer or too large, an alpha below 0, a beta that is
            not finite, a start that is no token, a blank that is no index of a logit, logits that are not (b, t, v), a mask
            that is not (b, t); a language model that changes the form of its state, or gives no (rows, v); a state, start or
            alpha without a language model.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import ctc_beam_search
    logits = np.log([[[0.6, 0.4], [0.6, 0.4]]])                             # two frames; blank, label 1
    tokens, scores = ctc_beam_search(logits, width=2, n_best=2)
    print(tokens[0], np.exp(scores[0]))     # [[1 0] [0 0]], 0.64 and 0.36: the best path has no label, the best labels one
    ```
    """
    logits, visible = check_frames(logits, mask, blank)
    (batch, time), size = ops.shape(logits)[:2], logits.shape[-1]
    width, n_best = _widths(width, n_best, logits.shape[1], size)
    alpha = number("alpha", alpha, "at least 0", lambda x: 0 <= x < math.inf)
    beta = number("beta", beta, "finite", math.isfinite)
    start = blank if start is None else start
    if language_model is None:
        if tree.flatten(state) or start != blank or alpha != 1.0:
            raise ValueError("language_model: expected one for the state, start or alpha that is given, got None")
    elif not 0 <= token("start", start) < size:
        raise ValueError(f"start: expected a token from 0 to {size - 1}, got {start!r}")
    steps = ops.transpose(ops.log_softmax(logits, axis=-1), (1, 0, 2))
    rows, places = ops.arange(batch, dtype="int32")[:, None] * width, ops.arange(time, dtype="int32")
    alone = ops.broadcast_to(ops.eye(width, dtype="bool"), (batch, width, width))

    def predicted(tokens, old):
        """`[what each next label adds to the score, *state]` of the language model, flat."""
        if language_model is None:
            return []
        old = tree.pack_sequence_as(state, old)
        logs, new = language_model(tokens, old)
        new = check_state(old, new)
        if len(logs.shape) != 2 or logs.shape[-1] != size:
            raise ValueError(f"language_model: expected logits (rows, {size}), got {tuple(logs.shape)}")
        logs = ops.log_softmax(ops.cast(logs, steps.dtype), axis=-1)
        return [(alpha * logs if alpha else ops.zeros_like(logs)) + beta, *new]

    def extend_beams(step, tokens, length, last, by_blank, by_label, prior, begins, *model):
        ahead = ops.reshape(model[0], (-1, width, size)) if model else ops.full_like(step[:, None], beta)
        by_blank, by_label, longer = _shares(step, length, last, by_blank, by_label, begins, blank)

        def all_of(staying, going_on):
            """Those that stay, then those with one label more: (b, k + k * v)."""
            going_on = ops.broadcast_to(going_on, ops.shape(longer))
            return ops.concatenate([staying, ops.reshape(going_on, (-1, width * size))], axis=1)

        share, before = all_of(by_label, longer), all_of(prior, prior[:, :, None] + ahead)
        score, chosen = ops.top_k(all_of(ops.logaddexp(by_blank, by_label), longer) + before, width)
        chosen = ops.cast(chosen, "int32")
        grown = chosen >= width
        parent = ops.where(grown, (chosen - width) // size, chosen)
        label = ops.where(grown, (chosen - width) % size, blank)

        def of(x, which=parent):
            return ops.take_along_axis(x, which, axis=1)

        begins = ops.logical_or(_begins(begins, tokens, length, parent, label, grown), alone)
        alive = score > WORST  # leave out the unused slots of the beam, which hold no prefix
        begins = ops.logical_and(begins, ops.logical_and(alive[:, :, None], alive[:, None]))
        length, tokens = of(length), ops.take_along_axis(tokens, parent[:, :, None], axis=1)
        end = ops.logical_and(grown[:, :, None], places == length[:, :, None])
        tokens = ops.where(end, label[:, :, None], tokens)
        length, last = length + ops.cast(grown, "int32"), ops.where(grown, label, of(last))
        new = [
            tokens,
            length,
            last,
            ops.where(grown, WORST, of(by_blank)),
            of(share, chosen),
            of(before, chosen),
            begins,
        ]
        if not model:
            return new
        old = [ops.take(x, ops.reshape(rows + parent, (-1,)), axis=0) for x in model]
        further = predicted(ops.reshape(label, (-1,)), old[1:])
        return new + [_where(ops.reshape(grown, (-1,)), a, b) for a, b in zip(further, old, strict=True)]

    def visit(index, *old):
        seen = ops.take(visible, index, axis=1)
        new = extend_beams(ops.take(steps, index, axis=0), *old)
        each = [seen] * 7 + [ops.repeat(seen, width, axis=0)] * (len(old) - 7)  # the model's rows are b * k
        return index + 1, *[_where(keep, a, b) for keep, a, b in zip(each, new, old, strict=True)]

    nothing = ops.full((batch, width), WORST, dtype=steps.dtype)
    first = predicted(ops.full((batch,), start, dtype="int32"), [ops.convert_to_tensor(s) for s in tree.flatten(state)])
    beginning = (
        ops.convert_to_tensor(0, dtype="int32"),
        ops.full((batch, width, time), blank, dtype="int32"),
        ops.zeros((batch, width), dtype="int32"),
        ops.full((batch, width), blank, dtype="int32"),
        ops.where(ops.arange(width, dtype="int32") == 0, ops.zeros_like(nothing), nothing),
        nothing,
        ops.zeros_like(nothing),
        alone,
        *[ops.repeat(x, width, axis=0) for x in first],
    )
    found = ops.while_loop(lambda index, *_: index < time, visit, beginning)
    _, tokens, _, _, by_blank, by_label, prior, *_ = found
    scores = ops.logaddexp(by_blank, by_label) + prior
    tokens = ops.where(scores[:, :, None] > WORST, tokens, blank)
    return tokens[:, :n_best], scores[:, :n_best]


def _shares(step, length, last, by_blank, by_label, begins, blank):
    """What log p (b, v) of one frame makes of each prefix.

    `(log p of its paths that end with the blank (b, k), with its last label (b, k), of those with one label more (b, k, v))`;
    a longer prefix that is in the beam gets its share there, not among the last.
    """
    both, symbols = ops.logaddexp(by_blank, by_label), ops.arange(step.shape[-1], dtype="int32")
    same = last[:, :, None] == symbols
    longer = ops.where(same, by_blank[:, :, None], both[:, :, None]) + step[:, None]
    child = ops.logical_and(begins, length[:, None] == length[:, :, None] + 1)  # (b, i, j): j is i and one label more
    gained = ops.where(child, ops.take_along_axis(longer, last[:, None], axis=2), WORST)
    again = by_label + ops.take_along_axis(step, last, axis=1)
    again = ops.logaddexp(again, ops.logsumexp(gained, axis=1))
    held = ops.matmul(ops.cast(child, step.dtype), ops.cast(same, step.dtype)) > 0
    longer = ops.where(ops.logical_or(held, symbols == blank), WORST, longer)
    return both + step[:, blank, None], again, longer


def _begins(begins, tokens, length, parent, label, grown):
    """Which of the chosen prefixes begins which other, (b, k, k), from the same of their parents.

    One that has stayed begins what its parent began. One that has grown does so where its new label was the next there.
    """
    following = ops.take_along_axis(tokens, length[:, None], axis=2)  # of j, what comes after as many labels as i has

    def pairs(x):
        return ops.take_along_axis(ops.take_along_axis(x, parent[:, :, None], axis=1), parent[:, None], axis=2)

    following = pairs(ops.transpose(following, (0, 2, 1))) == label[:, :, None]
    goes_on = ops.logical_or(ops.logical_not(grown)[:, :, None], following)
    return ops.logical_and(pairs(begins), goes_on)


def _where(keep, new, old):
    """Rows of `new` where `keep` (rows,), else of `old`."""
    return ops.where(ops.reshape(keep, (-1, *[1] * (len(new.shape) - 1))), new, old)


def _widths(width, n_best, time, size):
    width, n_best = positive_integer("width", width), positive_integer("n_best", n_best)
    if n_best > width:
        raise ValueError(f"n_best: expected at most the width {width}, got {n_best}")
    most = 1 if size == 1 else None if time is None else sum((size - 1) ** n for n in range(min(time, width) + 1))
    if most is not None and width > most:
        raise ValueError(
            f"width: expected at most {most}, all sequences of up to {time} labels of {size - 1}, got {width}"
        )
    return width, n_best
