"""What lies behind a mask reaches nothing, and a masked run is a run over what is left."""

import numpy as np
import tensorflow as tf

from keras_seq.testing.differences import assert_close, assert_finite
from keras_seq.testing.runs import argument_names, call, differentiated, result_names
from keras_seq.testing.table import check


@check(
    "NaN behind a mask",
    "what a mask hides reaches no result and no gradient",
    "masked inputs are zeros to the step, whose results are then not used: but where it divides by one, or takes the root or "
    "logarithm of one, the gradient is NaN; add a small number under the root, or divide where it is not zero",
)
def check_nan(subject):
    layer = subject.layer()
    for open_loop in subject.loops:
        given = subject.data(layer, open_loop=open_loop)
        names = [*result_names(layer), *(f"the gradient of {n}" for n in argument_names(layer, given))]
        poisoned = given._replace(x=_poisoned(given.x, given.mask))
        if open_loop:
            poisoned = poisoned._replace(targets=_poisoned(given.targets, given.mask))
        for training in (False, True):
            function = differentiated(layer, training)
            results, gradients = function(*given)
            assert_finite([*results, *gradients], "under a mask with finite inputs,", names)
            assert_close(function(*poisoned), (results, gradients), 0.0, "with NaN behind the mask:", names)
        hidden = ~given.mask.numpy()
        assert not np.any(gradients[0].numpy()[hidden]), "the gradient of masked inputs is not zero"
        _check_hidden_row(layer, given, results, np.flatnonzero(np.all(hidden, 1))[0])


def _poisoned(x, mask):
    return tf.where(mask[:, :, None], x, np.nan * tf.ones_like(x))


def _check_hidden_row(layer, given, results, row):
    outputs, *finals = results
    assert_close([outputs[row]], [tf.zeros_like(outputs[row])], 0.0, "outputs of a wholly hidden row", [""])
    for name, new, old in zip(layer.cell.state_names, finals, given.states, strict=True):
        assert_close([new[row]], [old[row]], 0.0, f"final state {name!r} of a wholly hidden row", [""])


@check(
    "masked run",
    "a masked row gives what its real steps give alone",
    "the step counts steps outside its states, a `states_before` counts hidden steps, or the output is no function of one step",
)
def check_masked_run(subject):
    for flags in ({}, {"go_backwards": True}):
        layer = subject.layer(**flags)
        for open_loop in subject.loops:
            given = subject.data(layer, open_loop=open_loop)
            whole = call(layer, given)
            for row in np.flatnonzero(np.any(given.mask, 1)):
                real = given.mask.numpy()[row]
                alone = call(layer, _row(subject, given, row, real))
                places = np.flatnonzero(real[::-1] if flags else real)
                found = [tf.gather(whole[0][row : row + 1], places, axis=1), *(s[row : row + 1] for s in whole[1:])]
                where = f"row {row} of mask {real.astype(int)}{', backwards' if flags else ''}:"
                assert_close(found, alone, 1e-10, where, result_names(layer))


def _row(subject, given, row, real):
    """The real steps of one row, without a mask."""

    def of_row(x):
        return x[row : row + 1]

    constants = zip(subject.constants, given.constants, strict=True)
    targets = given.targets
    return given._replace(
        x=tf.boolean_mask(of_row(given.x), real, axis=1),
        mask=None,
        states=tuple(map(of_row, given.states)),
        constants=tuple(of_row(c) if spec.shape[0] is None else c for spec, c in constants),
        targets=None if targets is None else tf.boolean_mask(of_row(targets), real, axis=1),
    )
