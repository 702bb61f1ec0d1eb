"""Faults made on purpose in what the types of floating numbers ask for."""

import pytest
from mutants import call, caught, choice, crashes, home, mutate, named, negated, op, suite

from keras_seq import Bidirectional, Stacked
from keras_seq.cells import attention, base, floats
from keras_seq.decoding import ctc_lattice
from keras_seq.layers import rnn, streamable, sublayers, tdnn
from keras_seq.models.training import TokenCrossEntropy

pytestmark = [pytest.mark.deep, pytest.mark.mutation]


def types(test, *given):
    return suite(f"test_float_types.py::{test}", *given)


def within(*given):
    return crashes(types("test_some_policies_within_others", *given))


LONG = suite("decoding/test_ctc.py::test_gradient_of_long_sequences_in_float32", 1500, 100, 1.0)
SCORES = suite("cells/test_attention.py::test_scores_of_any_size_under_a_mask", "float32", "before")
LARGEST = suite("layers/test_pooling.py::test_the_largest_step_is_found_without_infinities", "float32")
DRAWN = crashes(types("test_orthogonal_weights_of_sixteen_bits", "LSTM"))
MEAN = types("test_mean_of_many_steps", "bfloat16")
LIKELIHOODS = crashes(types("test_likelihoods_of_many_tokens", "bfloat16"))
SOUND = types("test_classes_of_sound_in_sixteen_bits", "bfloat16")
SMALL = types("test_weight_normalisation_of_small_kernels_in_float16")
STACK, RESIDUAL = within("Stacked", "mixed_float16", "float64"), within("Stacked", "mixed_float16", "float32")
RECURRENT, BOTH = within("RNN", "float64", "mixed_float16"), within("Bidirectional of two", "float32", "mixed_bfloat16")

MUTANTS = [
    (ctc_lattice, "best", call("where"), "ops.zeros_like(found)", [LONG]),
    (attention, "_softmax", call("lowest"), "-1e9", [SCORES]),
    (floats, "lowest", call("float"), "-float('inf')", [LARGEST]),
    (floats, "long_type", call("result_type"), "{0}", [MEAN, SOUND, LIKELIHOODS]),
    (floats, "drawn_long", call("long_type"), "dtype", [DRAWN]),
    (base.Cell, "add_weight", choice("initializer"), negated, [DRAWN]),
    (tdnn.TDNN, "_weights", call("long_type"), "self.compute_dtype", [SMALL]),
    (TokenCrossEntropy, "__init__", op("or"), "{0}", [LIKELIHOODS]),
    (streamable.Streamable, "_checked_step", call("cast"), "{0}", [RESIDUAL]),
    (sublayers, "state_specs", call("KerasTensor"), "keras.KerasTensor((batch, size), layer.compute_dtype)", [STACK]),
    (Stacked, "_apply_layers", call("cast"), "{0}", [RESIDUAL]),
    (home(Bidirectional).Bidirectional, "call", call("cast", "half"), "{0}", [BOTH]),
    (rnn.RNN, "call", call("cast", "output"), "{0}", [RECURRENT]),
]


@pytest.mark.parametrize(**named(MUTANTS))
def test_killed(owner, name, place, change, checks, monkeypatch):
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        caught(check)
