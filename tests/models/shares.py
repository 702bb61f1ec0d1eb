"""What a model drops: the share of zeros in what its parts are given."""

import numpy as np


def shares_of_zeros(model, parts, inputs):
    """By the name of each part, the shares outside training and within."""
    found = {name: [] for name in parts}

    def watched(name, call):
        def record(x, *args, **kwargs):
            found[name].append(float(np.mean(np.asarray(x) == 0)))
            return call(x, *args, **kwargs)

        return record

    for name in parts:
        part = getattr(model, name)
        part.call = watched(name, part.call)
    for training in (False, True):
        model(inputs, training=training)
    return found
