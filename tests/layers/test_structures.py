"""Every layer of the table of structures: values, masks, gradients, causality, compilation, steps, files."""

import inspect
import json

import keras
import numpy as np
import pytest
import structures
import tensorflow as tf
from cases import D
from conformance import assert_close
from structures import STEPS, STRUCTURES, named, reference

import keras_seq

CAUSAL = [s for s in STRUCTURES if s.stepwise]
# those that differ by a line, which the values show, are not compiled and saved as well
ALIKE = (
    *(
        "Bidirectional-mul",
        "Bidirectional-ave",
        "Bidirectional-none",
        "Bidirectional-last",
        "Stacked-residual-sequences",
    ),
    *("Stacked-dense-zeros", "Stacked-residual-zeros"),
    *("TDNN-past", "TDNN-ahead", "TCN-last"),
)
COMPILED = [s for s in STRUCTURES if s.name not in ALIKE]
# the first of each class
QUICK = list({s.name.split("-")[0]: s for s in reversed(COMPILED)}.values())[::-1]
# short sequences, on purpose; the warning has a test of its own
pytestmark = pytest.mark.filterwarnings("ignore:.*receptive field")


def results(layer, x, mask=None, **further):
    """What the layer gives, as a flat list."""
    return keras.tree.flatten(layer(tf.constant(x), mask=None if mask is None else tf.constant(mask), **further))


def states(layer, b, seed=1):
    rng = np.random.default_rng(seed)
    return [0.5 * rng.normal(size=(b, size)) for size in layer.state_size]


def differentiated(layer, cotangents):
    """A function `(x, mask, states) -> (results, gradients)` of the inputs, the states and the weights."""

    def function(x, mask, initial):
        given = {"initial_state": list(initial)} if initial else {}
        with tf.GradientTape() as tape:
            tape.watch([x, *initial])
            found = keras.tree.flatten(layer(x, mask=mask, **given))
            loss = sum(tf.reduce_sum(f * c) for f, c in zip(found, cotangents, strict=True))
        wanted = [x, *initial, *[w.value for w in layer.trainable_variables]]
        return found, tape.gradient(loss, wanted, unconnected_gradients="zero")

    return function


def test_every_public_layer_is_in_a_table():
    covered = {type(s.make("float32")).__name__ for s in STRUCTURES}
    classes = [getattr(keras_seq, name) for name in keras_seq.__all__]
    layers = {c.__name__ for c in classes if inspect.isclass(c) and issubclass(c, keras.layers.Layer)}
    memories = {c.__name__ for c in classes if inspect.isclass(c) and issubclass(c, (keras_seq.RNN, keras_seq.Cell))}
    elsewhere = {
        "CRF",
        "GraphRecurrent",
        "RecursiveNN",
        "TreeLSTM",
    }  # test_graphs.py, test_trees.py: they read no sequences
    assert layers - memories - covered - elsewhere == {"StepForm"}, "StepForm stands in every row of the step tests"


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(**named(STRUCTURES))
def test_values_are_those_of_the_equations(structure, masked):
    layer = structure()
    x, mask = structures.data()
    mask = mask if masked else None
    assert_close(results(layer, x, mask), reference(layer, x, mask), 1e-10)
    if layer.state_size:
        initial = states(layer, len(x))
        assert_close(results(layer, x, mask, initial_state=initial), reference(layer, x, mask, initial), 1e-10)
    if masked:
        hidden = np.where(mask[..., None], x, np.nan)
        assert_close(results(layer, hidden, mask), reference(layer, x, mask), 1e-10, "NaN behind the mask")


@pytest.mark.parametrize(**named(COMPILED, quick=QUICK))
def test_gradients_are_finite_differences_and_compile(structure):
    """In float64, for the inputs, initial states and weights, under a ragged mask; eagerly and under XLA."""
    layer, rng = structure(), np.random.default_rng(2)
    x, mask = structures.data()
    initial = states(layer, len(x))
    cotangents = [rng.normal(size=f.shape) for f in reference(layer, x, mask, initial or None)]
    at = [tf.constant(v) for v in (x, *initial)]
    function = tf.function(differentiated(layer, cotangents), jit_compile=True)
    found, gradients = function(at[0], tf.constant(mask), at[1:])
    expected, plain = differentiated(layer, cotangents)(at[0], tf.constant(mask), at[1:])
    assert_close(found, expected, 1e-10, "compiled value")
    assert_close(gradients, plain, 1e-9, "compiled gradient")
    values = [x, *initial, *[w.numpy() for w in layer.trainable_variables]]

    def loss(moved):
        for w, value in zip(layer.trainable_variables, moved[1 + len(initial) :], strict=True):
            w.assign(value)
        found = reference(layer, moved[0], mask, moved[1 : 1 + len(initial)] or None)
        return sum(np.sum(f * c) for f, c in zip(found, cotangents, strict=True))

    for i, gradient in enumerate(plain):
        assert np.any(gradient), f"the gradient {i} is zero everywhere, the check says nothing"
        direction, ends = rng.normal(size=values[i].shape), []
        for sign in (1, -1):
            moved = list(values)
            moved[i] = values[i] + sign * 1e-6 * direction
            ends.append(loss(moved))
        slope = (ends[0] - ends[1]) / 2e-6
        assert abs(np.sum(gradient * direction) - slope) <= 1e-6 * max(abs(slope), 1e-2), f"gradient {i}"


@pytest.mark.parametrize(
    **named([s for s in STRUCTURES if s.sees or (s.stepwise and s.make("float32").return_sequences)], quick=QUICK)
)
def test_an_output_depends_on_no_other_inputs(structure):
    """dy_t / dx_s is zero but at the distances that the layer sees, and exactly so; none lies ahead of a causal one."""
    layer = structure()
    # each of some rows T times: of its copy t the gradient of y_t alone
    rows = 5
    x = tf.constant(np.repeat(structures.data(rows)[0], STEPS, 0))
    chosen = np.tile(np.eye(STEPS), (rows, 1))[:, :, None] * np.random.default_rng(0).normal(size=layer.output_width)
    cotangents = [chosen, *[np.zeros((len(x), size)) for size in layer.state_size if layer.return_state]]
    _, gradients = tf.function(differentiated(layer, cotangents))(x, None, [])
    met = np.any(gradients[0].numpy().reshape(rows, STEPS, STEPS, D) != 0, axis=(0, 3))
    distances = range(STEPS) if structure.sees is None else structure.sees
    allowed = np.array([[t - s in distances for s in range(STEPS)] for t in range(STEPS)])
    assert not np.any(met & ~allowed)
    if structure.sees is not None:
        np.testing.assert_array_equal(met, allowed)
        assert layer.receptive_field == max(0, *distances) - min(0, *distances) + 1


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(**named(CAUSAL))
def test_steps_are_the_sequence(structure, masked):
    layer = structure()
    x, mask = structures.data()
    x = np.where(mask[..., None], x, np.nan) if masked else x
    step = tf.function(layer.step)
    state, outputs = layer.initial_state(len(x)), []
    shapes = [s.shape for s in state]
    for t in range(STEPS):
        y, state = (
            step(tf.constant(x[:, t]), state, tf.constant(mask[:, t])) if masked else step(tf.constant(x[:, t]), state)
        )
        assert [s.shape for s in state] == shapes
        outputs.append(y)
    mask = mask if masked else None
    if layer.return_sequences:
        expected = reference(layer, x, mask)[0]
    else:
        firsts = [reference(layer, x[:, : t + 1], None if mask is None else mask[:, : t + 1])[0] for t in range(STEPS)]
        expected = np.stack(firsts, 1)
    assert_close([np.stack(outputs, 1)], [expected], 1e-10)


@pytest.mark.parametrize(**named([s for s in STRUCTURES if not s.stepwise]))
def test_a_layer_without_steps_says_so(structure):
    layer = structure()
    for attempt in (
        lambda: layer.initial_state(2),
        lambda: layer.step(np.ones((2, D)), []),
        lambda: keras_seq.StepForm(layer),
    ):
        with pytest.raises(
            ValueError, match=r"expected a layer that can be run step by step; .*(end|ahead|subsampling)"
        ):
            attempt()


def functional(layer):
    inputs = keras.Input((None, D))
    return keras.Model(inputs, keras.tree.flatten(layer(inputs)))


@pytest.mark.parametrize(**named(COMPILED, quick=QUICK[:2]))
def test_files_and_exports(structure, tmp_path):
    """`.keras` in safe mode, and a SavedModel that takes any batch and length."""
    layer = structure("float32")
    model = functional(layer)
    assert [y.shape for y in model.outputs] == [
        s.shape for s in keras.tree.flatten(layer.compute_output_spec(model.inputs[0]))
    ]
    model.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    for b, t in ((3, STEPS), (1, 4)):
        x = structures.data(b, t, dtype="float32")[0]
        expected = reference(layer, x)
        for one in (model, second, exported.serve):
            assert_close(keras.tree.flatten(one(x)), expected, 1e-5)
            if layer.state_size:
                assert [y.shape for y in keras.tree.flatten(layer(x))] == [f.shape for f in expected]


@pytest.mark.parametrize(**named(CAUSAL, quick=QUICK[:1]))
def test_exported_steps(structure, tmp_path):
    """The stream of a model of it, saved and loaded, gives step by step what the equations give."""
    layer = structure("float32")
    if getattr(layer, "return_state", False):
        layer.return_state = False
    keras_seq.streaming(functional(layer)).export(str(tmp_path / "stream"))
    loaded = tf.saved_model.load(str(tmp_path / "stream"))
    for b in (1, 3):
        x = structures.data(b, dtype="float32")[0]
        state = loaded.initial_state(tf.constant(b))
        for t in range(3):
            [outputs], state = loaded.step(x[:, t], state)
            expected = reference(layer, x[:, : t + 1])[0]
            assert_close([outputs], [expected[:, t] if layer.return_sequences else expected], 1e-5)


@pytest.mark.parametrize(**named(STRUCTURES))
def test_configs(structure):
    first = structure("float32")
    second = type(first).from_config(json.loads(json.dumps(first.get_config())))
    assert json.dumps(second.get_config()) == json.dumps(first.get_config())
    shape = (2, STEPS, D)
    assert second.compute_output_shape(shape) == first.compute_output_shape(shape)  # unbuilt and built
    second.build(shape)
    second.set_weights(first.get_weights())
    x = structures.data(2, dtype="float32")[0]
    found = results(second, x)
    assert_close(found, results(first, x), 0.0)
    assert [f.shape for f in found] == keras.tree.flatten(
        keras.tree.map_shape_structure(tf.TensorShape, first.compute_output_shape(shape))
    )


@pytest.mark.deep
@pytest.mark.parametrize(
    **named(
        [
            s
            for s in STRUCTURES
            if s.name in ("Stacked-residual", "Bidirectional-of-a-stack", "TCN", "WaveNet", "TDNN-uneven")
        ]
    )
)
def test_mixed_precision(structure):
    """Outputs are short; what differs from float32 is rounding; states of memories stay long."""
    layer, exact = structure("mixed_bfloat16"), structure("float32")
    x, mask = structures.data(dtype="float32")
    found = results(layer, x, mask)
    assert found[0].dtype == "bfloat16"
    assert_close([tf.cast(f, "float32") for f in found], results(exact, x, mask), 5e-2)
    if structure.stepwise:
        y, _ = layer.step(x[:, 0], layer.initial_state(len(x)))
        assert y.dtype == "bfloat16"


def test_means_are_summed_in_float32():
    """4000 times 100 is more than float16 holds; and what is added late would be lost."""
    layer = keras_seq.MaskedMean(dtype="mixed_float16")
    x = np.full((1, 4000, 1), 100.0, "float32")
    x[:, 2000:] = 101
    assert float(layer(x)[0, 0]) == 100.5
    state, step = layer.initial_state(1), tf.function(layer.step)
    for t in range(4000):
        y, state = step(tf.constant(x[:, t]), state)
    assert y.dtype == "float16"
    assert float(y[0, 0]) == 100.5


@pytest.mark.deep
def test_training_in_all_kinds_of_models():
    """A deep net of every structure learns, compiled, in a Sequential, a functional and a subclassed model."""

    def layers(further=()):
        return [
            keras_seq.TDNN(6, context=[-1, 0, 1]),
            keras_seq.Bidirectional(keras_seq.Stacked(keras_seq.GRU, [4, 4], skips="residual", return_sequences=True)),
            *further,
            keras_seq.MaskedMean(),
            keras.layers.Dense(1),
        ]

    convolutions = [
        keras_seq.TCN(6, dilations=[1, 2], return_sequences=True, dropout=0.1),
        keras_seq.WaveNet(4, dilations=[2]),
    ]

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = layers()

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return x

    inputs = keras.Input((None, D))
    outputs = inputs
    for part in layers():
        outputs = part(outputs)
    x = structures.data(dtype="float32")[0]
    y = x.sum((1, 2))[:, None] / 5
    for model in (keras.Sequential(layers(convolutions)), keras.Model(inputs, outputs), Subclassed()):
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=True)
        history = model.fit(x, y, epochs=25, verbose=0).history["loss"]
        assert history[-1] < 0.5 * history[0]


def test_weight_normalization_starts_as_the_plain_kernel():
    """g = |V| at first, also where the weights are made inside a compiled training step."""
    for lazily in (False, True):
        layer = keras_seq.TDNN(6, delays=3, weight_normalization=True)
        if lazily:
            model = keras.Sequential([layer, keras.layers.Dense(1)])
            model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=True)
            model.fit(np.ones((2, STEPS, D)), np.ones((2, STEPS, 1)), verbose=0)
        else:
            layer.build((None, None, D))
        lengths = np.sqrt(np.sum(layer.kernel.numpy() ** 2, axis=(0, 1)))
        assert len(set(lengths)) == 6
        assert_close([layer.scale.numpy()], [lengths], 1e-6)
