"""Whatever argument of a constructor is wrong is refused by its name."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import B, D, T, U

import keras_seq

MEMORIES = ["SimpleRNN", "LSTM", "PeepholeLSTM", "CoupledLSTM", "NoForgetLSTM", "GRU"]
BOTH = (keras_seq.LSTM, keras_seq.GRUCell)
NO_POSITIVE_INTEGER = {0: ValueError, -1: ValueError, 2.5: TypeError, True: TypeError, "8": TypeError}
NO_RATE = [(1, ValueError), (-0.1, ValueError), (float("nan"), ValueError), ("a", TypeError), (True, TypeError)]


def refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", MEMORIES)
def test_units(name):
    for cls in (getattr(keras_seq, name), getattr(keras_seq, name + "Cell")):
        for value, error in [*NO_POSITIVE_INTEGER.items(), (None, TypeError)]:
            refused(lambda cls=cls, value=value: cls(value), error, "units: expected a positive integer, got")


def test_units_of_numpy_are_integers():
    assert keras_seq.LSTM(np.int64(3)).units == 3
    assert type(keras_seq.LSTM(np.int64(3)).units) is int


@pytest.mark.parametrize("argument", ["dropout", "recurrent_dropout"])
def test_dropout(argument):
    for cls in BOTH:
        for value, error in NO_RATE:
            given = {argument: value}
            refused(lambda cls=cls, given=given: cls(U, **given), error, f"^{argument}: expected a number in")


@pytest.mark.parametrize(
    "argument",
    ["activation", "recurrent_activation", "kernel_initializer", "recurrent_regularizer", "bias_constraint"],
)
def test_unknown_activation_initializer_regularizer_constraint(argument):
    for cls in BOTH:
        for value in ("no_such_thing", 7):
            given, message = {argument: value}, f"^{argument}: expected a name or an object"
            refused(lambda cls=cls, given=given: cls(U, **given), (ValueError, TypeError), message)


def test_unknown_argument():
    for cls in BOTH:
        refused(lambda cls=cls: cls(U, unitz=3), TypeError, "unknown argument 'unitz'")


@pytest.mark.parametrize("name", MEMORIES)
def test_unknown_argument_in_a_config(name):
    for cls in (getattr(keras_seq, name), getattr(keras_seq, name + "Cell")):
        with pytest.raises(TypeError, match="nonsense"):
            cls.from_config({**cls(U).get_config(), "nonsense": 1})


def test_missing_units():
    with pytest.raises(TypeError, match="units"):
        keras_seq.LSTM()


@pytest.mark.parametrize(
    "argument",
    [
        *(
            "use_bias",
            "learn_initial_state",
            "unit_forget_bias",
            "return_sequences",
            "return_state",
            "return_internals",
        ),
        *("go_backwards", "stateful", "unroll", "zero_output_for_mask", "input_gate", "forget_gate", "output_gate"),
        *("coupled", "peepholes", "full_gate_recurrence", "normalize"),
    ],
)
def test_flags(argument):
    for value in (1, "yes", None):
        with pytest.raises(TypeError, match=f"^{argument}: expected True or False"):
            keras_seq.LSTM(U, **{argument: value})


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("CoupledLSTM", "peepholes"),
        ("GRU", "reset_after"),
        ("Elman", "blocked"),
        ("Jordan", "blocked"),
        ("ResidualRNN", "recurrent"),
        ("MinLSTM", "normalize"),
        ("LinearRNN", "stable"),
        ("NARX", "exogenous"),
        ("NARX", "closed"),
    ],
)
def test_flags_of_some(name, argument):
    for value in (1, None, "no"):
        with pytest.raises(TypeError, match=f"^{argument}: expected True or False"):
            getattr(keras_seq, name)(U, **{argument: value}, **({"outputs": 2} if name == "Jordan" else {}))


@pytest.mark.parametrize("name", ["SimpleRNN", "Elman", "Jordan", "NARX", "AR"])
def test_outputs(name):
    for cls in (getattr(keras_seq, name), getattr(keras_seq, name + "Cell")):
        for value, error in NO_POSITIVE_INTEGER.items():
            with pytest.raises(error, match=r"^outputs: expected a positive integer, got"):
                cls(units=U, outputs=value)


@pytest.mark.parametrize("name", ["Jordan", "NARX", "AR"])
def test_outputs_of_a_memory_that_feeds_them_back_are_needed(name):
    with pytest.raises(TypeError, match=r"^outputs: expected a positive integer, got None"):
        getattr(keras_seq, name)(units=U, outputs=None)


def test_outputs_of_a_narx_without_hidden_units():
    """Not a word of units, which nobody gave."""
    for value in (*NO_POSITIVE_INTEGER, None):
        with pytest.raises((TypeError, ValueError), match=r"^outputs: expected a positive integer, got"):
            keras_seq.NARX(outputs=value)


@pytest.mark.parametrize(
    "argument", ["output_activation", "output_initializer", "output_regularizer", "output_constraint"]
)
@pytest.mark.parametrize("name", ["SimpleRNN", "NARX"])
def test_unknown_of_the_readout(name, argument):
    with pytest.raises((ValueError, TypeError), match=f"^{argument}: expected a name or an object"):
        getattr(keras_seq, name)(U, outputs=2, **{argument: "no_such_thing"})


@pytest.mark.parametrize(
    ("value", "error"),
    [
        *[(v, ValueError) for v in (1, 1.0, 1.5, -0.1, float("nan"), float("inf"))],
        *[(v, TypeError) for v in (True, "a", None, [0.5])],
    ],
    ids=str,
)
def test_decay(value, error):
    with pytest.raises(error, match=r"^decay: expected a number in \[0, 1\), got"):
        keras_seq.Jordan(U, 2, decay=value)


@pytest.mark.parametrize("argument", ["candidate_activation", "cell_activation"])
@pytest.mark.parametrize("value", ["no_such_thing", 7])
def test_activations_of_the_lstm(argument, value):
    with pytest.raises((ValueError, TypeError), match=f"^{argument}: expected a name or an object"):
        keras_seq.LSTM(U, **{argument: value})


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (U + 1, ValueError), (2.5, TypeError), (True, TypeError), ("2", TypeError)],
)
def test_projection(value, error):
    with pytest.raises(error, match=r"^projection: expected"):
        keras_seq.LSTM(U, projection=value)
    assert keras_seq.LSTM(U, projection=U).cell.output_size == U


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1.0, ValueError), (float("nan"), ValueError), (True, TypeError), ("1", TypeError)],
)
def test_cell_clip(value, error):
    with pytest.raises(error, match=r"^cell_clip: expected a positive number or None, got"):
        keras_seq.LSTM(U, cell_clip=value)


GATELESS = {"input_gate": False, "forget_gate": False, "output_gate": False}
CONFLICTS = [
    ({"coupled": True, "input_gate": False}, "coupled"),
    ({"coupled": True, "forget_gate": False}, "coupled"),
    ({**GATELESS, "peepholes": True}, "peepholes"),
    ({**GATELESS, "full_gate_recurrence": True}, "full_gate_recurrence"),
    ({"normalize": True, "full_gate_recurrence": True}, "full_gate_recurrence"),
]


@pytest.mark.parametrize(("switches", "argument"), CONFLICTS, ids=str)
def test_switches_that_contradict_each_other(switches, argument):
    for cls in (keras_seq.LSTM, keras_seq.LSTMCell):
        with pytest.raises(ValueError, match=f"^{argument}: expected False"):
            cls(U, **switches)
    for switch in switches:
        keras_seq.LSTM(U, **{k: v for k, v in switches.items() if k != switch})


@pytest.mark.parametrize(
    ("name", "switches", "argument"),
    [
        ("CoupledLSTM", {"input_gate": False}, "coupled"),
        ("NoForgetLSTM", {"coupled": True}, "coupled"),
        ("PeepholeLSTM", GATELESS, "peepholes"),
    ],
)
def test_switches_that_contradict_a_name(name, switches, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected False"):
        getattr(keras_seq, name)(U, **switches)


@pytest.mark.parametrize(
    ("name", "argument"), [("PeepholeLSTM", "peepholes"), ("CoupledLSTM", "coupled"), ("NoForgetLSTM", "forget_gate")]
)
def test_a_switch_that_the_name_settles_is_no_argument(name, argument):
    for cls in (getattr(keras_seq, name), getattr(keras_seq, name + "Cell")):
        with pytest.raises(TypeError, match=argument):
            cls(U, **{argument: True})


@pytest.mark.parametrize(
    ("value", "error"),
    [
        *[(v, ValueError) for v in (1, -0.1, float("nan"), [0.1, 1.0], [float("nan"), 0.1])],
        *[(v, TypeError) for v in (True, "a", None, [0.1, "a"], [0.1, None])],
    ],
    ids=str,
)
def test_zoneout(value, error):
    for cls in (keras_seq.LSTM, keras_seq.LSTMCell):
        with pytest.raises(error, match=r"^zoneout: expected a number in \[0, 1\), got"):
            cls(U, zoneout=value)


@pytest.mark.parametrize("value", [[], [0.1], [0.1, 0.2, 0.3]], ids=str)
def test_as_many_rates_of_zoneout_as_states(value):
    for layer in (keras_seq.LSTM(U, zoneout=value), keras_seq.RNN(keras_seq.LSTMCell(U, zoneout=value))):
        with pytest.raises(ValueError, match="zoneout: expected a rate for each of the states"):
            layer(tf.ones((B, T, D)))


@pytest.mark.parametrize(("name", "needed"), [("Elman", {}), ("Jordan", {"outputs": 2})])
def test_learned_initial_state_of_a_blocked_memory(name, needed):
    with pytest.raises(ValueError, match="learn_initial_state: expected False where blocked=True"):
        getattr(keras_seq, name)(U, learn_initial_state=True, **needed)(tf.ones((B, T, D)))


def test_recurrent_dropout_where_no_product_reads_the_state():
    with pytest.raises(ValueError, match=r"^recurrent_dropout: expected 0 with recurrent=False, got"):
        keras_seq.ResidualRNN(U, recurrent=False, recurrent_dropout=0.5)
    for name in ("MinGRU", "MinLSTM", "LinearRNN", "LRU"):
        with pytest.raises(ValueError, match=r"^recurrent_dropout: expected 0, as no product reads the state, got 0.5"):
            getattr(keras_seq, name)(U, recurrent_dropout=0.5)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("LinearRNN", {"transition": "block"}, r"transition: expected one of \['diagonal', 'full'\], got 'block'"),
        (
            "LinearRNN",
            {"transition": "full", "stable": True},
            "stable: expected False with transition='full', got True",
        ),
        (
            "LinearRNN",
            {"stable": True, "recurrent_initializer": keras.initializers.Constant(-1.5)},
            r"recurrent_initializer: expected values within \(-1, 1\) of a stable recurrence, got 1.5",
        ),
        ("LRU", {"r_max": 1.2}, "r_max: expected 0 <= r_min < r_max <= 1, got r_min=0.0, r_max=1.2"),
        ("LRU", {"r_min": 0.9, "r_max": 0.8}, "r_max: expected 0 <= r_min < r_max <= 1"),
        ("LRU", {"max_phase": 0}, r"max_phase: expected an angle in \(0, 2 pi\], got 0"),
        ("LRU", {"r_min": "0.5"}, "r_min: expected a number, got '0.5'"),
    ],
)
def test_linear_recurrences(name, arguments, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        getattr(keras_seq, name)(U, **arguments)(tf.ones((B, T, D)))


def test_a_delay_of_zero_is_of_inputs_alone():
    for value in ([0], [0, 1]):
        with pytest.raises(ValueError, match=r"^output_delays: expected distinct integers from 1 on"):
            keras_seq.NARX(U, 2, output_delays=value)
        assert keras_seq.NARX(U, 2, input_delays=value).input_delays == value


def test_seed():
    for cls in BOTH:
        for value in (1.5, "a", True):
            with pytest.raises((ValueError, TypeError), match="seed"):
                cls(U, seed=value)


def test_cell_that_is_none():
    with pytest.raises((ValueError, TypeError), match="cell"):
        keras_seq.RNN(3)
    for cell in (keras.layers.LSTMCell(U), None):
        with pytest.raises(TypeError, match=r"^cell: expected a keras_seq\.GatedCell"):
            keras_seq.ConditionedCell(cell)
