"""The same values and gradients whichever way the engine runs a memory, at all sizes."""

import conformance
import pytest
import tensorflow as tf
from conformance import KINDS, Case, assert_close, differentiated, named
from keras import ops

import keras_seq
from keras_seq.engine.tensorflow import loop, probe

SEQUENCES = {"return_sequences": True, "return_state": True}
PLAIN = [Case("LSTM"), Case("GRU", {"reset_after": False})]
SIZES = [(4, 5), (3, 1), (1, 1), (1, 4), (5, 3)]
CHOICES = [
    {"lanes": 1},
    {"lanes": 2},
    {"fused": False, "lanes": 2},
    {"training": False, "lanes": 2},
]


def choose(monkeypatch, lanes, fused=True):
    monkeypatch.setattr(loop, "lane_count", lambda batch, weights: lanes)
    if not fused:
        monkeypatch.setattr(probe, "fused_dots", lambda results, *_: [None] * len(results))


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize(
    ("flags", "masked"), [({}, True), ({"go_backwards": True}, False), ({"return_sequences": False}, True)], ids=str
)
@pytest.mark.parametrize(**named(PLAIN, quick=PLAIN[:1]))
def test_every_choice(case, flags, masked, choice, monkeypatch):
    layer = case("float64", **{**SEQUENCES, **flags})
    given = conformance.data(case, layer, mask=masked)
    reference = differentiated(layer)(*given)
    training = choice.get("training", True)
    choose(monkeypatch, **{k: v for k, v in choice.items() if k != "training"})
    assert_close(tf.function(differentiated(layer, training=training))(*given), reference, 1e-11)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("further", "lanes", "jit"),
    [({}, 1, False), ({}, 2, True), ({}, 3, False), ({"checkpoint": True}, 2, False), ({"truncate": 4}, 2, True)],
    ids=str,
)
def test_every_size(further, lanes, jit, monkeypatch):
    """One step, one row, one step more than a chunk, fewer rows than lanes: one trace for all of them."""
    case = Case("PeepholeLSTM")
    layer = case("float64", **further, **SEQUENCES)
    examples = [conformance.data(case, layer, b, t, seed=b + 7 * t) for b, t in SIZES]
    references = [differentiated(layer)(*given) for given in examples]
    choose(monkeypatch, lanes)
    found = conformance.of_any_size(differentiated(layer), case, examples[0], jit_compile=jit)
    # XLA compiles each size anew
    for given, reference in list(zip(examples, references, strict=True))[:: 2 if jit else 1]:
        assert_close(found(*given), reference, 1e-11, f"{given.x.shape}")


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize(**named([c for c in KINDS if not c.arguments or c.cell or c.targets], quick=[Case("LSTM")]))
def test_lanes_of_every_kind(case, lanes, monkeypatch):
    """Dropout's and zoneout's masks, true outputs and kept states belong to rows, and go with them."""
    layer = case("float64", **SEQUENCES)
    given = conformance.data(case, layer, 3, 4)
    reference = differentiated(layer)(*given)
    choose(monkeypatch, lanes)
    assert_close(tf.function(differentiated(layer))(*given), reference, 1e-11)


class BatchNormalisedCell(keras_seq.Cell):
    """Its states are normalised over the batch (Cooijmans et al. 2017)."""

    state_names, state_size, output_size, couples_batch = ("h",), [3], 3, True

    def build(self, input_shape):
        self.inward = self.add_weight(name="inward", shape=(input_shape[-1], 3))
        self.kernel = self.add_weight(name="kernel", shape=(3, 3))
        super().build(input_shape)

    def project(self, inputs):
        return ops.matmul(inputs, self.inward)

    def step(self, projected, states, constants=()):
        sums = keras_seq.dot(states[0], self.kernel)
        sums = (sums - ops.mean(sums, axis=0)) / ops.sqrt(ops.var(sums, axis=0) + 1e-3)
        h = ops.tanh(projected + sums)
        return h, (h,)


def test_a_cell_that_mixes_rows_is_run_whole():
    layer = keras_seq.RNN(BatchNormalisedCell(dtype="float64"), dtype="float64", **SEQUENCES)
    layer.build((None, None, 3))
    given = conformance.data(Case("SimpleRNN"), layer)
    written_out = keras_seq.RNN(layer.cell, dtype="float64", unroll=True, **SEQUENCES)
    reference = differentiated(written_out)(*given)
    for jit in (False, True):
        assert_close(tf.function(differentiated(layer), jit_compile=jit)(*given), reference, 1e-11)


def test_a_cell_that_mixes_rows_cannot_be_blocked():
    class Blocked(BatchNormalisedCell):
        blocked = True

    with pytest.raises(ValueError, match="cell: expected one that is not blocked if it mixes rows, got <"):
        keras_seq.RNN(Blocked())
