"""The remedies: radii against eigenvalues, gradients against differences, layers trained with them, and files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_seq
from keras_seq.testing.differences import assert_close
from keras_seq.training import (
    BlockIdentity,
    SpectralRadiusConstraint,
    SpectralRadiusInitializer,
    SpectralRadiusRegularizer,
)
from keras_seq.training.remedies import spectral_radii

RNG = np.random.default_rng(3)
U = 6


def radii(kernel):
    """Of each gate's matrix, by its eigenvalues."""
    kernel = np.asarray(kernel, "float64")
    blocks = np.split(kernel, kernel.shape[1] // kernel.shape[0], axis=1)
    return np.array([np.max(np.abs(np.linalg.eigvals(a))) for a in blocks])


def kernel(gates=1, units=U, scale=1.0, dtype="float64"):
    return ops.convert_to_tensor(RNG.normal(size=(units, gates * units)) * scale, dtype=dtype)


def rotation(angle, size=1.0):
    c, s = np.cos(angle), np.sin(angle)
    return size * np.array([[c, -s], [s, c]])


SPECIAL = {
    "random": RNG.normal(size=(40, 40)),
    "orthogonal": np.linalg.qr(RNG.normal(size=(40, 40)))[0],
    "a pair": rotation(0.3, 1.7),
    "opposite signs": np.diag([1.2, -1.2, 0.3]),
    "huge": 1e30 * rotation(1.0),
    "tiny": 1e-30 * rotation(1.0),
    "shear": np.array([[0.9, 1.0], [0.0, 0.9]]),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_estimates_are_above_the_radius_and_within_what_is_said(name, dtype):
    a = SPECIAL[name].astype(dtype)
    true = radii(a)[0]
    found = float(spectral_radii(ops.convert_to_tensor(a[None]), 10)[0])
    vectors = np.linalg.eig(a.astype("float64"))[1]
    bound = (min(np.linalg.cond(vectors), 1e12) * np.sqrt(len(a))) ** (1 / 1024)
    slack = 1e-5 if dtype == "float32" else 1e-12
    assert true * (1 - slack) <= found <= true * bound * (1 + slack)


def test_of_what_vanishes_the_radius_is_zero_and_so_are_gradients():
    a = tf.Variable([np.zeros((3, 3)), np.triu(np.ones((3, 3)), 1)])
    with tf.GradientTape() as tape:
        found = spectral_radii(a, 10)
    assert_close([found], [np.zeros(2)], 0)
    assert np.all(tape.gradient(found, a) == 0)


@pytest.mark.parametrize("gates", [1, 3])
def test_a_constraint_scales_every_gate_down_to_the_radius(gates):
    w = kernel(gates) * np.repeat([0.1, 2.0, 1.0][:gates], U)
    constrained = SpectralRadiusConstraint(0.8)(w)
    before, after = radii(w), radii(constrained)
    assert np.all(after < 0.8 + 1e-9)
    large = before > 0.81
    assert np.all(after[large] > 0.79)
    w, constrained, small = np.asarray(w), np.asarray(constrained), np.repeat(before < 0.8, U)
    assert_close([constrained[:, small]], [w[:, small]], 1e-12)
    assert_close([SpectralRadiusConstraint(0.8)(constrained)], [constrained], 1e-12)
    directions = constrained / w
    for block in np.split(directions, gates, axis=1):
        assert np.ptp(block) < 1e-12, "one factor for a gate"


def test_a_start_of_any_radius():
    for initializer in ("random_normal", "glorot_uniform", keras.initializers.Orthogonal(seed=1)):
        w = SpectralRadiusInitializer(1.3, initializer)((20, 60), dtype="float64")
        assert radii(w) == pytest.approx([1.3] * 3, rel=1e-5)
    drawn = keras.initializers.Orthogonal(seed=1)((20, 20))
    assert_close([SpectralRadiusInitializer(0.5, keras.initializers.Orthogonal(seed=1))((20, 20))], [drawn / 2], 1e-5)
    assert not np.any(SpectralRadiusInitializer(0.5, "zeros")((3, 3)))


def test_an_identity_for_each_gate():
    assert_close([BlockIdentity(0.5)((3, 9))], [np.tile(np.eye(3) / 2, 3)], 0)
    assert_close([BlockIdentity([0, 1, -2])((2, 6))], [np.hstack([0 * np.eye(2), np.eye(2), -2 * np.eye(2)])], 0)
    layer = keras_seq.SimpleRNN(4, activation="relu", recurrent_initializer=BlockIdentity(), return_sequences=True)
    x = np.zeros((1, 50, 4), "float32")
    x[:, 0] = [1, 2, 0, 3]
    layer.build((1, 50, 4))
    layer.cell.kernel.assign(np.eye(4))
    assert_close([layer(x)[:, -1]], [x[:, 0]], 0)


@pytest.mark.parametrize("of", ["radius", "norm"])
def test_a_penalty_is_of_what_is_above_and_its_gradient_that_of_differences(of, monkeypatch):
    monkeypatch.setattr(keras.config, "floatx", lambda: "float64")
    w = kernel(2) * np.repeat([2.0, 0.05], U)
    penalty = SpectralRadiusRegularizer(0.3, 0.7, of, squarings=14)
    blocks = np.split(np.asarray(w), 2, axis=1)
    true = radii(w) if of == "radius" else np.array([np.linalg.norm(b, 2) for b in blocks])
    assert float(penalty(w)) == pytest.approx(0.3 * np.sum(np.maximum(true - 0.7, 0) ** 2), rel=2e-3)
    with tf.GradientTape() as tape:
        tape.watch(w)
        value = penalty(w)
    gradient = np.asarray(tape.gradient(value, w))
    assert not np.any(gradient[:, U:]), "below the radius there is nothing to change"
    direction = RNG.normal(size=w.shape)
    up, down = (float(penalty(w + s * 1e-5 * direction)) for s in (1, -1))
    assert np.sum(gradient * direction) == pytest.approx((up - down) / 2e-5, rel=1e-5)


@pytest.mark.deep
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "mixed_bfloat16"])
@pytest.mark.parametrize("make", [keras_seq.SimpleRNN, keras_seq.GRU, keras.layers.LSTM])
def test_a_layer_trains_with_them_under_xla_and_is_saved(make, dtype, tmp_path):
    layer = make(
        4,
        dtype=dtype,
        recurrent_initializer=SpectralRadiusInitializer(1.5),
        recurrent_constraint=SpectralRadiusConstraint(0.9),
        recurrent_regularizer=SpectralRadiusRegularizer(1e-3, 0.5, "norm"),
    )
    model = keras.Sequential([keras.Input((5, 3)), layer, keras.layers.Dense(1, dtype=dtype)])
    rounding = 1e-6 if dtype != "bfloat16" else 0.02
    assert radii(np.asarray(layer.cell.recurrent_kernel, "float32")) == pytest.approx(1.5, rel=max(rounding, 1e-4))
    model.compile("sgd", "mse", jit_compile=True)
    x = RNG.normal(size=(8, 5, 3)).astype("float32")
    model.fit(x, x[:, 0, :1], epochs=2, verbose=0)
    assert np.all(radii(np.asarray(layer.cell.recurrent_kernel, "float32")) < 0.9 * (1 + rounding))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    cell = again.layers[0].cell
    assert cell.recurrent_constraint.get_config() == {"radius": 0.9, "squarings": 10}
    assert cell.recurrent_regularizer.of == "norm"
    assert cell.recurrent_initializer.get_config() == layer.cell.recurrent_initializer.get_config()
    assert_close([again(x)], [model(x)], 1e-6)


@pytest.mark.deep
@pytest.mark.parametrize(
    "wrap",
    [
        lambda layer: keras_seq.Stacked([keras_seq.GRU(3, return_sequences=True), layer]),
        lambda layer: keras_seq.Bidirectional(layer),
    ],
)
def test_in_a_stack_and_in_both_directions(wrap):
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            wrap(
                keras_seq.LSTM(
                    4, recurrent_initializer=BlockIdentity(2.0), recurrent_constraint=SpectralRadiusConstraint()
                )
            ),
        ]
    )
    model.compile("sgd", "mse")
    model.fit(np.ones((2, 5, 3)), np.ones((2, model.output_shape[-1])), verbose=0)
    kernels = [w for w in model.weights if w.path.endswith("recurrent_kernel") and w.shape == (4, 16)]
    assert kernels
    assert all(np.all(radii(k) <= 1 + 1e-6) for k in kernels)


WRONG = [0, -1.0, float("nan"), float("inf"), "1", None, True]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (SpectralRadiusConstraint, "radius"),
        (SpectralRadiusInitializer, "radius"),
        (SpectralRadiusRegularizer, "radius"),
        (SpectralRadiusRegularizer, "strength"),
        (SpectralRadiusConstraint, "squarings"),
        (SpectralRadiusRegularizer, "of"),
    ],
)
def test_wrong_numbers_are_named(make, name):
    for value in WRONG:
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected"):
            make(**{name: value})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BlockIdentity([]), "gain: expected a number, or one for each gate"),
        (lambda: BlockIdentity("a"), "gain: expected a number"),
        (lambda: BlockIdentity([1, None]), r"gain\[1\]: expected a number"),
        (lambda: BlockIdentity([1, 2])((3, 9)), "gain: expected a number, or one for each of the 3 gates"),
        (lambda: BlockIdentity()((3, 4)), r"shape: expected that of a recurrent kernel \(u, g u\), got \(3, 4\)"),
        (lambda: SpectralRadiusInitializer()((3,)), "shape: expected that of a recurrent kernel"),
        (lambda: SpectralRadiusConstraint()(np.ones((4, 3))), "shape: expected that of a recurrent kernel"),
        (lambda: SpectralRadiusRegularizer()(np.ones(())), "shape: expected that of a recurrent kernel"),
        (lambda: SpectralRadiusInitializer(1.0, None), "initializer: expected"),
        (lambda: SpectralRadiusInitializer(1.0, "nonsense"), "initializer: expected"),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()
