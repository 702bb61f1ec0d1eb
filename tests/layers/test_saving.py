"""Configs, copies, and files: everything comes back, and an exported model needs no keras_seq."""

import copy
import inspect
import json
import pickle
import subprocess
import sys

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import CASES, KINDS, D, T, assert_close, named

import keras_seq
from keras_seq.arguments import arguments

MEMORIES = [
    *("SimpleRNN", "Elman", "Jordan", "ResidualRNN", "NARX", "AR"),
    *("LSTM", "PeepholeLSTM", "CoupledLSTM", "NoForgetLSTM", "GRU"),
    *("MinGRU", "MinLSTM", "LinearRNN", "LRU"),
]

# a value that is not the default, for every constructor argument there is
OTHER = {
    "units": 7,
    "activation": "relu",
    "recurrent_activation": "hard_sigmoid",
    "use_bias": False,
    "unit_forget_bias": False,
    "peepholes": True,
    "reset_after": False,
    "transition": "full",
    "stable": True,
    "r_min": 0.25,
    "r_max": 0.75,
    "max_phase": 1.5,
    **{f"{name}_initializer": "random_normal" for name in ("nu", "theta", "log_gamma", "skip")},
    "outputs": 2,
    "output_activation": "tanh",
    "output_initializer": "he_uniform",
    "output_regularizer": "l1",
    "output_constraint": "unit_norm",
    "blocked": False,
    "decay": 0.75,
    "recurrent": False,
    "input_gate": False,
    "forget_gate": False,
    "output_gate": False,
    "coupled": True,
    "candidate_activation": "linear",
    "cell_activation": "softsign",
    "full_gate_recurrence": True,
    "normalize": True,
    "projection": 2,
    "cell_clip": 1.5,
    "input_delays": [0, 2],
    "output_delays": [1, 4],
    "exogenous": False,
    "network": keras.layers.Dense(2, name="net"),
    "closed": True,
    "peephole_initializer": keras.initializers.RandomUniform(-0.1, 0.1, seed=4),
    "kernel_initializer": keras.initializers.RandomNormal(0.2, 0.3, seed=1),
    "recurrent_initializer": "he_normal",
    "bias_initializer": keras.initializers.Constant(0.25),
    "kernel_regularizer": keras.regularizers.L1L2(0.1, 0.2),
    "recurrent_regularizer": "l2",
    "bias_regularizer": "l1",
    "activity_regularizer": "l2",
    "implementation": 1,
    "use_cudnn": False,
    "kernel_constraint": keras.constraints.MaxNorm(3.0, axis=0),
    "recurrent_constraint": "unit_norm",
    "bias_constraint": "non_neg",
    "dropout": 0.125,
    "recurrent_dropout": 0.25,
    "zoneout": 0.375,
    "seed": 13,
    "learn_initial_state": True,
    "return_sequences": True,
    "return_state": True,
    "go_backwards": True,
    "stateful": True,
    "unroll": True,
    "zero_output_for_mask": True,
    "return_internals": True,
    "truncate": 3,
    "checkpoint": True,
    "solver": keras_seq.Newton(jacobian="diagonal", damping=0.25),
}
# arguments that cannot all have another value at once, and those that never can
ALONE = {
    *("coupled", "input_gate", "forget_gate", "output_gate", "full_gate_recurrence", "recurrent", "recurrent_dropout"),
    *("zoneout", "network", "exogenous", "unroll", "transition", "solver"),
}
NEVER = {
    "CoupledLSTM": {"input_gate", "forget_gate"},
    "NoForgetLSTM": {"coupled"},
    **{name: {"recurrent_dropout"} for name in ("MinGRU", "MinLSTM", "LinearRNN", "LRU")},
    "NARX": {"recurrent_dropout", "zoneout"},
    "AR": {"recurrent_dropout", "zoneout"},
}


def described(value):
    return json.dumps(keras.saving.serialize_keras_object(value), sort_keys=True)


@pytest.mark.parametrize("name", [*MEMORIES, *(m + "Cell" for m in MEMORIES)])
def test_every_argument_survives_the_config(name):
    cls = getattr(keras_seq, name)
    parameters = inspect.signature(cls).parameters
    names = [p for p in parameters if p != "kwargs"] if not name.endswith("Cell") else list(arguments(cls))
    assert names
    required = {p: 3 for p in names if p in parameters and parameters[p].default is inspect.Parameter.empty}
    default = cls(**required)
    never = NEVER.get(name.removesuffix("Cell"), set())
    alone = [p for p in names if p in ALONE - never]
    usual = {p: getattr(default, p) for p in names}
    other = {p: not usual[p] if isinstance(usual[p], bool) else OTHER[p] for p in names}
    for group in ([p for p in names if p not in ALONE], *([p] for p in alone)):
        first = cls(**{**required, **{p: other[p] for p in group}}, name="this_one", dtype="float64", trainable=False)
        second = cls.from_config(json.loads(json.dumps(first.get_config())))
        assert second.get_config() == first.get_config()
        assert (second.name, second.dtype, second.trainable) == ("this_one", "float64", False)
        for argument in group:
            value, again, usual = (described(getattr(layer, argument)) for layer in (first, second, default))
            assert value == again, argument
            assert value != usual, f"{argument}: the test's value is the default"


def test_a_rate_of_zoneout_for_each_state_survives_the_config():
    first = keras_seq.LSTM(3, zoneout=(0.5, 0.25))
    config = json.loads(json.dumps(first.get_config()))
    assert config["zoneout"] == [0.5, 0.25]
    assert keras_seq.LSTM.from_config(config).zoneout == [0.5, 0.25]


@pytest.mark.parametrize("closed", [False, True])
def test_a_network_survives_the_config(closed):
    network = keras.Sequential([keras.layers.Dense(5, "tanh"), keras.layers.Dense(2)])
    first = keras_seq.NARX(outputs=2, output_delays=[1, 3], network=network, closed=closed)
    second = keras_seq.NARX.from_config(json.loads(json.dumps(first.get_config())))
    assert [d.get_config() for d in second.cell.network.layers] == [d.get_config() for d in network.layers]
    assert second.closed is closed
    assert second.output_delays == [1, 3]


def test_config_of_a_layer_over_any_cell():
    cell = keras_seq.ConditionedCell(
        keras_seq.GRUCell(5, reset_after=False, learn_initial_state=True, dropout=0.5, seed=2),
        context_initializer="he_uniform",
        name="inner",
    )
    first = keras_seq.RNN(cell, return_sequences=True, zero_output_for_mask=True)
    second = keras_seq.RNN.from_config(json.loads(json.dumps(first.get_config())))
    assert second.get_config() == first.get_config()
    assert described(second.cell.context_initializer) == described(cell.context_initializer)
    assert (second.cell.name, second.cell.cell.units, second.cell.cell.reset_after) == ("inner", 5, False)
    assert (second.cell.dropout, second.cell.cell.learn_initial_state) == (0.5, True)


def model(case):
    """A functional model of unknown batch and time: outputs and final states."""
    layer = case(return_sequences=True, return_state=True)
    inputs = keras.Input((None, D), name="x")
    constants = [keras.Input(s[1:], dtype="float32", name=f"v{i}") for i, s in enumerate(case.constants)]
    further = {"constants": constants} if constants else {}
    given = [inputs, *constants]
    if case.targets:
        given.append(keras.Input((None, layer.cell.output_size), name="y"))
        further["targets"] = given[-1]
    built = keras.Model(given, keras.tree.flatten(layer(inputs, **further)))
    conformance.randomised(layer)
    return built


def examples(case, b=3, t=T):
    layer = case(return_sequences=True, return_state=True)
    given = conformance.data(case, layer, b=b, t=t)
    return [given.x, *given.constants, *([] if given.targets is None else [given.targets])]


FUNCTIONAL = [
    *[c for c in KINDS if all(s and s[0] is None and len(s) > 1 for s in c.constants)],
    *[c for c in CASES if "network" in c.arguments],
    conformance.Case("AR", {"outputs": D, "output_delays": 2}),
    conformance.Case("GRU", {"zoneout": [0.25]}),
]


@pytest.mark.parametrize(**named(FUNCTIONAL, quick=FUNCTIONAL[:3]))
def test_weights_file(case, tmp_path):
    first, second = model(case), model(case)
    for w in second.trainable_weights:
        w.assign(w * 0)
    first.save_weights(tmp_path / "model.weights.h5")
    second.load_weights(tmp_path / "model.weights.h5")
    assert_close(second(examples(case)), first(examples(case)), 0.0)


@pytest.mark.parametrize("flag", ["stateful", "learn_initial_state", "go_backwards", "unroll"])
def test_keras_file_of_a_model_with_a_flag(flag, tmp_path):
    first = keras.Sequential([keras.Input((T, D), batch_size=2), keras_seq.LSTM(4, **{flag: True})])
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")
    x = tf.ones((2, T, D))
    assert_close([second(x)], [first(x)], 0.0)


@pytest.mark.deep
def test_keras_file_of_a_trained_stack(tmp_path):
    first = keras.Sequential(
        [keras.layers.Bidirectional(keras_seq.LSTM(3, return_sequences=True)), keras_seq.GRU(3, recurrent_dropout=0.1)]
    )
    first.compile("adam", "mse")
    x = np.ones((4, T, D), "float32")
    first.fit(x, np.ones((4, 3)), verbose=0)
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")
    assert_close([second(x)], [first(x)], 1e-6)
    assert second.optimizer.iterations == first.optimizer.iterations


RELOAD = """
import sys
import numpy as np
import tensorflow as tf
for folder in sys.argv[1:]:
    loaded = tf.saved_model.load(folder)
    for size in ("small", "large", "single"):
        data = np.load(f"{folder}/{size}.npz")
        given = [tf.constant(data[k]) for k in sorted(data) if k.startswith("in")]
        expected = [data[k] for k in sorted(data) if k.startswith("out")]
        found = tf.nest.flatten(loaded.serve(given))
        assert len(found) == len(expected), (folder, len(found))
        for a, b in zip(found, expected):
            assert a.shape == b.shape and np.max(np.abs(a - b)) < 1e-5, (folder, size)
assert "keras_seq" not in sys.modules
print("all equal")
"""


@pytest.mark.deep
def test_exported_models_run_without_keras_seq(tmp_path):
    """One process that has only TensorFlow serves memories at other batches and lengths than they were traced at."""
    folders = []
    for number, case in enumerate(FUNCTIONAL[::3]):
        built, folder = model(case), tmp_path / f"{number}-{case.layer}"
        built.export(folder, verbose=False)
        folders.append(str(folder))
        for size, (b, t) in {"small": (2, 3), "large": (5, 9), "single": (1, 1)}.items():
            given = examples(case, b, t)
            inputs = {f"in{i}": v.numpy() for i, v in enumerate(given)}
            outputs = {f"out{i}": np.asarray(v) for i, v in enumerate(built(given))}
            np.savez(folder / f"{size}.npz", **inputs, **outputs)
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, *folders], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "all equal" in done.stdout


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies(copied):
    for case in FUNCTIONAL[:3]:
        first = model(case)
        second = copied(first)
        assert_close(second(examples(case)), first(examples(case)), 0.0)
        second.trainable_weights[0].assign(second.trainable_weights[0] + 1)
        assert np.any(first.trainable_weights[0] != second.trainable_weights[0])


def test_clones():
    for case in FUNCTIONAL[:3]:
        first = model(case)
        second = keras.models.clone_model(first)
        second.set_weights(first.get_weights())
        assert_close(second(examples(case)), first(examples(case)), 0.0)


@pytest.mark.parametrize("name", MEMORIES)
def test_registered_under_the_package(name):
    for cls in (getattr(keras_seq, name), getattr(keras_seq, name + "Cell")):
        assert keras.saving.get_registered_name(cls) == f"keras_seq>{cls.__name__}"


def test_every_case_has_a_json_config():
    for case in CASES:
        layer = case()
        config = json.dumps(layer.get_config())
        assert json.loads(json.dumps(type(layer).from_config(json.loads(config)).get_config())) == json.loads(config)


def test_a_summary_names_the_cell(capsys):
    first, second = (keras_seq.RNN(keras_seq.PeepholeLSTMCell(3), return_sequences=True) for _ in range(2))
    assert first.name != second.name == keras_seq.RNN.from_config(second.get_config()).name
    keras.Sequential([keras.Input((None, 2)), first, second]).summary()
    assert "rnn_peephole_lstm_cell" in capsys.readouterr().out
    assert keras_seq.RNN(keras_seq.LSTMCell(3)).name.removeprefix("rnn").lstrip("_0123456789") == ""
    assert keras_seq.RNN(keras_seq.PeepholeLSTMCell(3), name="mine").name == "mine"
