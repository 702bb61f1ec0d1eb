"""Newton's method over all steps gives what the loop gives: values, gradients, everywhere a layer goes."""

import warnings

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import CASES, Case
from conformance import assert_close, differentiated, named

import keras_seq
from keras_seq import Newton
from keras_seq.cells.functional import functions_of
from keras_seq.engine import capture_solutions
from keras_seq.engine.pairs import recurrence_by_pairs
from keras_seq.engine.tensorflow import newton
from keras_seq.engine.tensorflow.step import step_diagonal, step_jacobian

SEQUENCES = {"return_sequences": True, "return_state": True}
QUICK = [Case("LSTM"), Case("Elman", {"outputs": 2})]
RUNS = {"eager": lambda f: f, "graph": tf.function, "XLA": lambda f: tf.function(f, jit_compile=True)}
SOLVED = [
    case
    for case in CASES
    if not case.constants or (case.cell and getattr(case("float64").cell, "batched_constants", False))
]


def pair(case, solver, **flags):
    """`(layer with the solver, the same by the loop)`, of equal weights."""
    return tuple(case("float64", solver=s, **{**SEQUENCES, **flags}) for s in (solver, None))


def silently(function, *given):
    """The results, with any warning that the loop took over as an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "solver:.*")
        return function(*given)


@pytest.mark.parametrize(**named(SOLVED, quick=[c for c in SOLVED if c in QUICK]))
def test_values_and_gradients_are_those_of_the_loop(case):
    for jacobian, flags in [("full", {}), ("diagonal", {"go_backwards": True})]:
        solved, plain = pair(case, Newton(jacobian=jacobian), **flags)
        given = conformance.data(case, plain)
        expected = differentiated(plain)(*given)
        assert_close(silently(differentiated(solved), *given), expected, 1e-10, f"{jacobian}:")


@pytest.mark.parametrize("flags", [{"zero_output_for_mask": True}, {"return_sequences": False}], ids=str)
def test_other_results(flags):
    solved, plain = pair(Case("GRU"), "newton", **flags)
    given = conformance.data(Case("GRU"), plain)
    assert_close(silently(differentiated(solved), *given), differentiated(plain)(*given), 1e-11)


@pytest.mark.parametrize("way", ["eager", "graph", pytest.param("XLA", marks=pytest.mark.deep)])
@pytest.mark.parametrize(
    ("layer", "jacobian"),
    [("PeepholeLSTM", "full"), pytest.param("GRU", "diagonal", marks=pytest.mark.deep)],
)
def test_eager_in_a_graph_and_compiled_of_any_size(layer, jacobian, way):
    case = Case(layer)
    solved, plain = pair(case, Newton(jacobian=jacobian))
    examples = [conformance.data(case, plain, b, t, seed=t) for b, t in [(4, 5), (2, 1), (3, 8)]]
    if way == "eager":
        run = differentiated(solved)
    else:
        run = conformance.of_any_size(differentiated(solved), case, examples[0], jit_compile=way == "XLA")
    for given in examples:
        assert_close(silently(run, *given), differentiated(plain)(*given), 1e-11)


def test_one_row_of_any_number_of_steps():
    """A number of rows that is known to be one stays known in the loop of the gradient."""
    case = Case("SimpleRNN")
    solved, plain = pair(case, Newton())
    x = conformance.data(case, plain, 1, 5, mask=False).x

    def gradient(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True)[0] ** 2)
        return tape.gradient(loss, x)

    of_one_row = tf.function(
        lambda x: gradient(solved, x), input_signature=[tf.TensorSpec((1, None, x.shape[-1]), x.dtype)]
    )
    assert_close([of_one_row(x)], [gradient(plain, x)], 1e-11)


def test_iterations_do_not_grow_with_the_length():
    cell = keras_seq.GRUCell(8)
    layer = keras_seq.RNN(cell, solver="newton", dtype="float64")
    counts = []
    for steps in (10, 100, 1000):
        with capture_solutions() as found:
            layer(np.random.default_rng(0).normal(size=(2, steps, 3)))
        counts.append(int(found[0]["iterations"]))
    assert counts[2] <= counts[1] + 1 <= 12, counts


def test_with_whole_jacobians_the_gradient_needs_no_iterations():
    """The first pass finds it, the second that it is found, with masks and learned first states too."""
    solved, _ = pair(Case("GRU", {"learn_initial_state": True}), Newton(jacobian="full"))
    given = conformance.data(Case("GRU"), solved, t=12)
    with capture_solutions() as found:
        silently(differentiated(solved), *given)
    assert int(found[0]["iterations"]) <= 7
    assert int(found[-1]["gradient_iterations"]) == 2
    assert np.max(found[-1]["gradient_errors"]) <= 8 * np.finfo("float64").eps


def test_each_iteration_makes_one_more_step_right():
    """Whatever is taken of the Jacobian, here a thousandth."""
    solved, plain = pair(Case("SimpleRNN"), Newton(damping=0.999))
    given = conformance.data(Case("SimpleRNN"), plain, t=6, mask=False)
    with capture_solutions() as found:
        assert_close(silently(differentiated(solved), *given), differentiated(plain)(*given), 1e-11)
    assert int(found[0]["iterations"]) == 7  # the last one finds that all are right


def test_a_context_without_gradients_has_jacobians_all_the_same():
    layer = keras_seq.Elman(4, solver="newton", dtype="float64")
    with capture_solutions() as found:
        layer(np.random.default_rng(0).normal(size=(2, 200, 3)))
    assert int(found[0]["iterations"]) < 15


def chaotic(solver, units=32, steps=60, **flags):
    """A recurrence whose steps amplify: iterations do not get far in it."""
    layer = keras_seq.SimpleRNN(
        units,
        recurrent_initializer=keras.initializers.RandomNormal(stddev=4 / np.sqrt(units), seed=1),
        solver=solver,
        return_sequences=True,
        dtype="float64",
        **flags,
    )
    x = np.random.default_rng(0).normal(size=(3, steps, 2))
    return layer, tf.constant(x)


def test_without_convergence_the_loop_runs_and_says_so(capfd):
    layer, x = chaotic(Newton(max_iterations=3), steps=20)
    plain, _ = chaotic(None)
    plain.build(x.shape)
    layer.build(x.shape)
    plain.set_weights(layer.get_weights())

    def results(layer):
        with tf.GradientTape() as tape:
            y = layer(x)
            loss = tf.reduce_sum(tf.sin(y))
        return y, tape.gradient(loss, [w.value for w in layer.trainable_variables])

    expected = results(plain)
    with pytest.warns(
        RuntimeWarning,
        match="solver: expected an error of the states of at most .* after 3 iterations, got .*; the loop",
    ):
        assert_close(results(layer), expected, 1e-12)
    for way in ("graph", "XLA"):
        assert_close(RUNS[way](lambda: results(layer))(), expected, 1e-6)  # the steps amplify roundings too
    assert "solver: expected an error of the states of at most" in capfd.readouterr().err


@pytest.mark.deep
def test_enough_iterations_find_any_trajectory():
    """As many as there are steps, if need be; damping does not keep them from it."""
    for damping in (0.0, 0.5):
        layer, x = chaotic(Newton(max_iterations=80, tolerance=1e-9, damping=damping), steps=30)
        plain, _ = chaotic(None)
        y = silently(layer, x)
        plain.build(x.shape)
        plain.set_weights(layer.get_weights())
        np.testing.assert_allclose(y, plain(x), atol=1e-6)


def test_states_that_would_overflow_are_damped():
    """One input, then none: steps of slope 40 at the first states, and over 250 of them whole Jacobians would make 1e400."""
    layer, x = chaotic(Newton(max_iterations=300, tolerance=1e-9), units=4, steps=250)
    x = tf.concat([x[:, :1], tf.zeros_like(x[:, 1:])], axis=1)
    plain, _ = chaotic(None, units=4)
    plain.build(x.shape)
    layer.build(x.shape)
    for one in (layer, plain):
        one.set_weights([10 * w for w in plain.get_weights()] if one is layer else layer.get_weights())
    y = silently(layer, x)
    np.testing.assert_allclose(y, plain(x), atol=1e-6)


def test_the_diagonal_of_the_jacobian():
    """Exact where a step is elementwise but for its products: everything of an LSTM's cell, a GRU with its reset after."""
    rng = np.random.default_rng(0)
    for kind in (keras_seq.SimpleRNNCell, keras_seq.LSTMCell, keras_seq.GRUCell):
        keras.utils.set_random_seed(0)
        cell = kind(3, dtype="float64")
        keras_seq.RNN(cell, dtype="float64").build((2, 4, 2))
        functions = functions_of(cell)
        weights = [tf.convert_to_tensor(v) for v in functions.variables]
        projected = functions.project(weights, {"inputs": tf.constant(rng.normal(size=(5, 2)))})
        states = [tf.constant(rng.normal(size=(5, 3))) for _ in cell.state_size]
        new, whole = step_jacobian(functions.step, weights, projected, states, [])
        again, diagonal = step_diagonal(functions.step, weights, projected, states, [])
        for expected, *found in zip(functions.step(weights, projected, states, ())[1], new, again, strict=True):
            for values in found:
                np.testing.assert_allclose(values, expected, atol=1e-12, err_msg=kind.__name__)
        np.testing.assert_allclose(diagonal, tf.linalg.diag_part(whole), atol=1e-12, err_msg=kind.__name__)


@pytest.mark.parametrize("steps", [1, 2, 7, 16, None])
def test_a_recurrence_of_matrices(steps):
    rng, t = np.random.default_rng(0), steps or 9
    a, b, h = rng.normal(size=(t, 2, 3, 3)), rng.normal(size=(t, 2, 3)), rng.normal(size=(2, 3))
    signature = [tf.TensorSpec([steps, *x.shape[1:]], x.dtype) for x in (a, b)]
    signature.append(tf.TensorSpec(h.shape, h.dtype))
    for jit in (False, True):

        def of_matrices(a, b, h):
            return recurrence_by_pairs(a, b[..., None], h[..., None], tf.matmul)[..., 0]

        found = tf.function(of_matrices, input_signature=signature, jit_compile=jit)(a, b, h)
        now = h
        for i in range(t):
            now = np.einsum("bij,bj->bi", a[i], now) + b[i]
            np.testing.assert_allclose(found[i], now, rtol=1e-10)


def test_second_derivatives():
    case = Case("SimpleRNN")
    solved, plain = pair(case, "newton")
    given = conformance.data(case, plain, mask=False)

    def second(layer):
        with tf.GradientTape() as tape:
            tape.watch(given.x)
            _, gradients = differentiated(layer)(*given)
            loss = sum(tf.reduce_sum(g * g) for g in gradients)
        return tape.gradient(loss, [given.x, *[w.value for w in layer.trainable_variables]])

    assert_close(second(solved), second(plain), 1e-9)


@pytest.mark.deep
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_float_types(policy):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(3, 30, 2)).astype("float32")
    solved = keras_seq.LSTM(4, return_sequences=True, dtype=policy, solver="newton")
    plain = keras_seq.LSTM(4, return_sequences=True, dtype=policy)
    y = silently(solved, x)
    plain.build(x.shape)
    plain.set_weights(solved.get_weights())
    assert y.dtype == plain(x).dtype
    rounding = 2e-6 if policy == "float32" else 0.05 if "bfloat16" in policy else 0.01
    np.testing.assert_allclose(tf.cast(y, "float32"), tf.cast(plain(x), "float32"), atol=rounding)


@pytest.mark.deep
def test_trained_with_dropout_kept_states_and_in_wholes(tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 12, 3)).astype("float32")
    y = np.cumsum(x[..., :1], axis=1)
    parts = {"solver": "newton", "return_sequences": True}
    model = keras.Sequential(
        [
            keras.Input((12, 3), batch_size=8),
            keras_seq.Bidirectional(keras_seq.GRU(4, recurrent_dropout=0.1, **parts)),
            keras_seq.Stacked(
                [keras_seq.LSTM(4, zoneout=0.1, **parts), keras_seq.Elman(4, **parts)], return_sequences=True
            ),
            keras_seq.LSTM(4, stateful=True, **parts),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.03), "mse", jit_compile=False)
    losses = model.fit(x, y, epochs=5, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.layers[2].reset_state()
    expected = model.predict(x, batch_size=8, verbose=0)
    model.layers[2].reset_state()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[2].solver == Newton()
    again.layers[2].reset_state()
    np.testing.assert_allclose(again.predict(x, batch_size=8, verbose=0), expected, atol=1e-6)
    layer = keras_seq.GRU(4, solver="newton")
    layer(x)
    export = keras.export.ExportArchive()
    export.track(layer)
    export.add_endpoint("serve", layer.call, input_signature=[keras.InputSpec(shape=(None, None, 3), dtype="float32")])
    export.write_out(str(tmp_path / "saved"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(served.serve(tf.constant(x[:3, :7])), layer(x[:3, :7]), atol=1e-6)


def test_a_configuration_is_kept():
    layer = keras_seq.GRU(3, solver=Newton(jacobian="diagonal", damping=0.25))
    again = keras_seq.GRU.from_config(layer.get_config())
    assert again.solver == Newton(jacobian="diagonal", damping=0.25)
    assert keras_seq.GRU.from_config(keras_seq.GRU(3).get_config()).solver is None
    assert keras_seq.GRU(3, solver="newton").solver == Newton()
    assert Newton().computing_in("float64").tolerance == 8 * np.finfo("float64").eps
    assert Newton(tolerance=0.1).computing_in("float64").tolerance == 0.1


def test_auto_is_the_whole_jacobian_of_small_states():
    assert newton.FULL_WIDTH == 16
    counts = {}
    for units in (16, 17):
        keras.utils.set_random_seed(0)
        layer = keras_seq.SimpleRNN(units, solver="newton")
        with capture_solutions() as found:
            layer(np.random.default_rng(0).normal(size=(2, 30, 3)).astype("float32"))
        counts[units] = int(found[0]["iterations"])
    assert counts[16] < 10 < counts[17], counts


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: keras_seq.LSTM(4, solver="euler"),
            ValueError,
            "solver: expected None, 'newton' or a keras_seq.Newton",
        ),
        (
            lambda: keras_seq.LSTM(4, solver=3),
            TypeError,
            "solver: expected None, 'newton' or a keras_seq.Newton, got 3",
        ),
        (lambda: keras_seq.LSTM(4, solver="newton", unroll=True), ValueError, "solver: expected None with unroll=True"),
        (
            lambda: keras_seq.LSTM(4, solver="newton", checkpoint=True),
            ValueError,
            "solver: expected None with checkpoint",
        ),
        (lambda: keras_seq.LSTM(4, solver="newton", truncate=3), ValueError, "solver: expected None with truncate"),
        (
            lambda: keras_seq.RNN(keras.layers.LSTMCell(4), solver="newton"),
            ValueError,
            "solver: expected None where the engine does not run",
        ),
        (lambda: Newton(tolerance=0), ValueError, "tolerance: expected a positive number, got 0"),
        (lambda: Newton(max_iterations=0), ValueError, "max_iterations: expected a positive integer, got 0"),
        (lambda: Newton(jacobian="block"), ValueError, "jacobian: expected one of"),
        (lambda: Newton(damping=1.0), ValueError, r"damping: expected a number in \[0, 1\), got 1.0"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_cell_whose_constants_have_no_rows_is_refused():
    case = next(c for c in CASES if c not in SOLVED)
    with pytest.raises(ValueError, match="solver: expected None for a cell whose constants have no batch axis"):
        case("float64", solver="newton")
