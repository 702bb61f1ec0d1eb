"""How layers start: outputs and gradients that stay of one size over depth, and an initializer for all that is drawn."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import initializers

import keras_seq
from keras_seq.arguments import arguments
from keras_seq.models import small_encoder

X = np.random.default_rng(0).standard_normal((4, 60, 4)).astype("float32")


def sizes(layer):
    """The deviation of the outputs, and of the gradient of the inputs for a random cotangent."""
    x = tf.Variable(X)
    with tf.GradientTape() as tape:
        y = layer(x)
        loss = tf.reduce_sum(y * np.random.default_rng(1).standard_normal(y.shape).astype("float32"))
    return float(np.std(y)), float(np.std(tape.gradient(loss, x)))


def tcn(blocks, **kwargs):
    keras.utils.set_random_seed(0)
    return keras_seq.TCN(24, kernel_size=2, dilations=[1, 2, 4] * (blocks // 3), return_sequences=True, **kwargs)


@pytest.mark.parametrize("normalised", [True, False])
def test_a_tcn_starts_no_larger_the_deeper_it_is(normalised):
    found = np.array([sizes(tcn(n, weight_normalization=normalised)) for n in (3, 6, 12)])
    assert np.all(found > 0.2)
    assert np.all(found < 2.5)
    assert np.all(found[-1] < 2 * found[0])
    before = sizes(tcn(12, weight_normalization=normalised, kernel_initializer="he_normal"))
    assert min(before) > 20  # what the bounds above would not let pass


def test_kernels_of_a_tcn_are_uniform_within_the_inputs_of_a_sum():
    layer = keras_seq.TCN(40, kernel_size=3, dilations=[1])
    layer.build((None, None, 40))
    for part in layer.parts:
        kernel = part.kernel.numpy()
        bound = (3 * 40) ** -0.5
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        assert np.std(kernel) == pytest.approx(bound / 3**0.5, rel=0.03)
    first, second = (part.kernel.numpy() for part in layer.parts)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("units", [None, 200])
def test_the_taps_of_a_narx_are_one_sum(units):
    """Those of x and y alike within 1 / sqrt(n), n of them all; as a given initializer says where there is one."""
    taps = {"input_delays": 20, "output_delays": [1, 2, 7, 9]}
    layer = keras_seq.NARX(units, 3, **taps)
    layer.build((None, None, 4))
    bound = (20 * 4 + 4 * 3) ** -0.5
    kernel, recurrent = (w.numpy() for w in layer.weights[:2])
    for values, count in ((kernel, 80), (recurrent, 12)):
        assert values.shape == (count, units or 3)
        assert 0.85 * bound < np.abs(values).max() <= bound
    assert not np.allclose(kernel[:12], recurrent)
    assert layer.cell.get_config()["kernel_initializer"] is None
    given = keras_seq.NARX(units, 3, recurrent_initializer="zeros", **taps)
    given.build((None, None, 4))
    assert np.all(given.weights[1].numpy() == 0)
    assert 0 < np.abs(given.weights[0].numpy()).max() <= bound


def memory(name, **kwargs):
    return lambda **starts: getattr(keras_seq, name)(**kwargs, **starts)


def around(name, **kwargs):
    def make(**starts):
        inner = {f"{part}_initializer": "zeros" for part in ("kernel", "recurrent", "bias")}
        return keras_seq.RNN(getattr(keras_seq, name)(keras_seq.GRUCell(3, **inner), **kwargs, **starts))

    return make


# each with all weights that it can have
DRAWN = {
    "SimpleRNN": memory("SimpleRNN", units=3, outputs=2),
    "Elman": memory("Elman", units=3, outputs=2),
    "Jordan": memory("Jordan", units=3, outputs=2),
    "NARX": memory("NARX", units=3, outputs=2),
    "AR": memory("AR", outputs=4),
    "ResidualRNN": memory("ResidualRNN", units=3),
    "MinGRU": memory("MinGRU", units=3),
    "MinLSTM": memory("MinLSTM", units=3),
    "LinearRNN": memory("LinearRNN", units=3, outputs=2),
    "LRU": memory("LRU", units=3, outputs=2),
    "LSTM": memory("LSTM", units=3, learn_initial_state=True),
    "PeepholeLSTM": memory("PeepholeLSTM", units=3),
    "CoupledLSTM": memory("CoupledLSTM", units=3),
    "NoForgetLSTM": memory("NoForgetLSTM", units=3),
    "GRU": memory("GRU", units=3, reset_after=True),
    "CRF": memory("CRF", tags=4),
    "TDNN": memory("TDNN", units=3, delays=2, weight_normalization=True),
    "TCN": memory("TCN", filters=3, dilations=[1, 2]),
    "WaveNet": memory("WaveNet", filters=3, dilations=[1, 2], outputs=2),
    "ConditionedCell": around("ConditionedCell"),
    "AttentionCell": around("AttentionCell", output_units=3, input_feeding=True),
    "AttentionCell, multi_head": around("AttentionCell", output_units=2, score="multi_head"),
    "AttentionCell, general": around("AttentionCell", query="after", score="general"),
}
CONSTANTS = {"ConditionedCell": (None, 5), "AttentionCell": (None, None, 5)}


def starts_of(name):
    name = name.split(",")[0]
    cls = getattr(keras_seq, f"{name}Cell", None) or getattr(keras_seq, name)  # a layer takes the arguments of its cell
    return [a for a in arguments(cls) if a.endswith("_initializer")]


@pytest.mark.parametrize("name", DRAWN)
def test_every_weight_that_is_drawn_has_an_initializer(name):
    """With constants for all of them nothing is left to chance; a forget gate's ones may stand among them."""
    layer = DRAWN[name](**{start: initializers.Constant(0.25) for start in starts_of(name)})
    cls = name.split(",")[0]
    layer.build((None, None, 4), **({"constants_shape": [CONSTANTS[cls]]} if cls in CONSTANTS else {}))
    assert layer.weights
    for weight in layer.weights:
        values = np.unique(weight.numpy()) if "seed" not in weight.path else [0]
        assert len(values) <= (2 if weight.name == "bias" else 1), weight.path


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_no_initializer_is_refused_by_name(name):
    assert starts_of(name)
    for start in starts_of(name):
        for wrong in ("he_norml", 7, keras.layers.Dense):
            with pytest.raises(ValueError, match=f"^{start}: expected a name or an object of keras.initializers, got"):
                DRAWN[name](**{start: wrong})


def test_every_public_class_with_an_initializer_is_in_the_table():
    here = {name.split(",")[0] for name in DRAWN}
    public = {name: getattr(keras_seq, name) for name in keras_seq.__all__}
    classes = {name for name, cls in public.items() if inspect.isclass(cls) and issubclass(cls, keras.layers.Layer)}
    known = {name for name in classes if name not in ("Cell", "GatedCell", "ReadoutCell", "FeedbackCell")}
    known -= {"GraphRecurrent", "RecursiveNN", "TreeLSTM"}  # test_graphs.py, test_trees.py
    missing = {n for n in known if n not in here and n.removesuffix("Cell") not in here and starts_of(n)}
    assert missing == set()


@pytest.mark.parametrize("name", ["TCN", "WaveNet"])
def test_initializers_of_parts_survive(name):
    given = {"kernel_initializer": initializers.RandomUniform(0.5, 0.75), "bias_initializer": "ones"}
    first = DRAWN[name](**given)
    for layer in (first, type(first).from_config(first.get_config())):
        layer(X)
        kernels = [w.numpy() for w in layer.weights if w.name == "kernel"]
        biases = [w.numpy() for w in layer.weights if w.name == "bias"]
        assert len(kernels) == len(biases) > 4
        assert all(0.5 <= k.min() < k.max() < 0.75 for k in kernels)
        assert all(np.all(b == 1) for b in biases)
        assert len({float(k.ravel()[0]) for k in kernels}) == len(kernels)  # each drawn anew


def test_none_is_what_keras_chooses():
    for name in ("LSTM", "TDNN", "WaveNet"):
        layer = DRAWN[name](kernel_initializer=None)
        layer(X)
        kernel = next(w for w in layer.weights if w.name == "kernel").numpy()
        fans = np.prod(kernel.shape[:-2], dtype=int) * np.array(kernel.shape[-2:])
        assert 0 < np.abs(kernel).max() <= (6 / fans.sum()) ** 0.5


@pytest.mark.parametrize("features", [None, 8])
def test_the_small_encoder_takes_an_initializer(features):
    encoder = small_encoder((12, 12, 1), features=features, kernel_initializer=initializers.Constant(0.25))
    kernels = [w.numpy() for w in encoder.weights if w.name == "kernel"]
    assert kernels
    assert all(np.all(k == 0.25) for k in kernels)
    with pytest.raises(ValueError, match=r"^kernel_initializer: expected a name or an object"):
        small_encoder((12, 12, 1), kernel_initializer="he_norml")
