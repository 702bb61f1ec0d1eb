"""Whatever is wrong in a call is refused by the name of the argument."""

import keras
import pytest
import tensorflow as tf
from conformance import B, D, T, U

import keras_seq


def made(**flags):
    return keras_seq.LSTM(U, **flags)


@pytest.mark.parametrize("shape", [(B, D), (B, T, D, 2)], ids=str)
def test_rank_of_the_sequences(shape):
    with pytest.raises(ValueError, match="ndim=3"):
        made()(tf.ones(shape))


def test_width_of_the_sequences():
    layer = made()
    layer(tf.ones((B, T, D)))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        layer(tf.ones((B, T, D + 1)))


@pytest.mark.parametrize("flags", [{}, {"return_sequences": True}, {"unroll": True}], ids=str)
def test_sequences_without_a_step(flags):
    with pytest.raises(ValueError, match="sequences: expected shape \\(b, t, d\\) with t of 1 or more"):
        made(**flags)(tf.ones((B, 0, D)))


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "jit"])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_sequences_found_to_be_without_a_step_when_the_graph_runs(return_sequences, jit):
    layer = made(return_sequences=return_sequences)
    graph = tf.function(layer, input_signature=[tf.TensorSpec([None, None, D])], jit_compile=jit)
    graph(tf.ones((B, T, D)))
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(tf.ones((B, 0, D)))


MASKS = {
    "rank 1": (B,),
    "rank 3": (B, T, 1),
    "batch": (B + 1, T),
    "batch of one": (1, T),
    "time": (B, T + 1),
    "one step": (B, 1),
}


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("shape", MASKS.values(), ids=MASKS)
def test_shape_of_the_mask(shape, unroll):
    with pytest.raises(ValueError, match=r"mask: expected shape \(b, t\)"):
        made(unroll=unroll)(tf.ones((B, T, D)), mask=tf.ones(shape, "bool"))


@pytest.mark.parametrize("make", [made, lambda: keras_seq.TCN(2, dilations=[1]), lambda: keras_seq.CRF(D)])
def test_masks_that_are_lists_and_sparse_sequences_are_named(make):
    with pytest.raises(TypeError, match=r"mask: expected an array or a tensor \(b, t\), got a list"):
        make()(tf.ones((B, T, D)), mask=[[True] * T] * B)
    with pytest.raises(TypeError, match="sequences: expected a dense tensor, got a sparse one"):
        make()(tf.sparse.from_dense(tf.ones((B, T, D))))


@pytest.mark.parametrize("shape", [(1, T), (B, 1), (B, T + 1), (B + 1, T)], ids=str)
def test_shape_of_the_mask_found_wrong_when_the_graph_runs(shape):
    layer = made(return_sequences=True)
    signature = [tf.TensorSpec([None, None, D]), tf.TensorSpec([None, None], "bool")]
    graph = tf.function(lambda x, mask: layer(x, mask=mask), input_signature=signature)
    graph(tf.ones((B, T, D)), tf.ones((B, T), "bool"))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        graph(tf.ones((B, T, D)), tf.ones(shape, "bool"))


STATES = {
    "too few": [(B, U)],
    "too many": [(B, U)] * 3,
    "width": [(B, U), (B, U + 1)],
    "width of one": [(B, 1), (B, 1)],
    "batch": [(B + 1, U)] * 2,
    "batch of one": [(1, U)] * 2,
    "rank": [(U,), (U,)],
}


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("shapes", STATES.values(), ids=STATES)
def test_shapes_of_the_initial_state(shapes, unroll):
    with pytest.raises(ValueError, match="initial_state: expected 2 of shapes"):
        made(unroll=unroll)(tf.ones((B, T, D)), initial_state=[tf.ones(s) for s in shapes])


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "jit"])
@pytest.mark.parametrize("rows", [1, B + 1])
@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM"])
def test_batch_of_the_initial_state_found_wrong_when_the_graph_runs(name, rows, jit):
    layer = getattr(keras_seq, name)(U)
    count = len(layer.cell.state_names)
    state = tf.TensorSpec([None, U])
    graph = tf.function(
        lambda x, states: layer(x, initial_state=list(states)),
        input_signature=[tf.TensorSpec([None, None, D]), (state,) * count],
        jit_compile=jit,
    )
    graph(tf.ones((B, T, D)), (tf.ones((B, U)),) * count)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        graph(tf.ones((B, T, D)), (tf.ones((rows, U)),) * count)


def test_one_initial_state_for_a_cell_of_two():
    with pytest.raises(ValueError, match="initial_state: expected 2"):
        made()(tf.ones((B, T, D)), initial_state=tf.ones((B, U)))


def test_stateful_without_a_batch_size():
    with pytest.raises(ValueError, match=r"stateful=True.*batch size must be static"):
        made(stateful=True)(keras.Input((T, D)))


def test_stateful_with_another_batch_size():
    layer = made(stateful=True)
    layer(tf.ones((B, T, D)))
    with pytest.raises(ValueError, match="batch size"):
        layer(tf.ones((B + 1, T, D)))


def test_unroll_without_a_length():
    with pytest.raises(ValueError, match="unroll"):
        tf.function(made(unroll=True), input_signature=[tf.TensorSpec([B, None, D])])(tf.ones((B, T, D)))


# -- targets -------------------------------------------------------------------------------------------------------------

TARGETS = {
    "width": (B, T, 3),
    "length": (B, T + 1, 2),
    "one step": (B, 1, 2),
    "batch": (B + 1, T, 2),
    "batch of one": (1, T, 2),
    "rank 2": (B, T),
    "rank 4": (B, T, 2, 1),
}


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("shape", TARGETS.values(), ids=TARGETS)
def test_shape_of_the_targets(shape, unroll):
    for layer in (keras_seq.Jordan(U, 2, unroll=unroll), keras_seq.NARX(U, 2, unroll=unroll)):
        with pytest.raises(ValueError, match=r"targets: expected shape \(4, 5, 2\), got"):
            layer(tf.ones((B, T, D)), targets=tf.ones(shape))


@pytest.mark.parametrize(("blocked", "jit"), [(False, False), (True, False), (False, True)])
def test_shape_of_the_targets_found_wrong_when_the_graph_runs(blocked, jit):
    layer = keras_seq.Jordan(U, 2, blocked=blocked, return_sequences=True)
    signature = [tf.TensorSpec([None, None, D]), tf.TensorSpec([None, None, 2])]
    graph = tf.function(lambda x, y: layer(x, targets=y), input_signature=signature, jit_compile=jit)
    graph(tf.ones((B, T, D)), tf.ones((B, T, 2)))
    for shape in [(1, T, 2), (B, 1, 2), (B, T + 1, 2), (B + 1, T, 2)]:
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            graph(tf.ones((B, T, D)), tf.ones(shape))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras_seq.LSTM(2),
        lambda: keras_seq.Elman(U, outputs=2),
        lambda: keras_seq.RNN(keras_seq.ConditionedCell(keras_seq.GRUCell(2))),
        lambda: keras_seq.RNN(keras.layers.GRUCell(2)),
    ],
    ids=["LSTM", "Elman", "conditioned", "of Keras"],
)
def test_targets_for_a_memory_that_takes_none(layer):
    layer = layer()
    constants = {"constants": [tf.ones((B, 2))]} if "Conditioned" in type(layer.cell).__name__ else {}
    with pytest.raises(ValueError, match=r"targets: expected None, as .* feeds no outputs back, got"):
        layer(tf.ones((B, T, D)), targets=tf.ones((B, T, 2)), **constants)


# -- constants -----------------------------------------------------------------------------------------------------------


def conditioned():
    return keras_seq.RNN(keras_seq.ConditionedCell(keras_seq.GRUCell(U)))


@pytest.mark.parametrize("layer", [made, keras_seq.LSTMCell], ids=["named", "RNN"])
@pytest.mark.parametrize("built", [False, True])
def test_constants_for_a_cell_that_reads_none(layer, built):
    layer = layer() if layer is made else keras_seq.RNN(layer(U))
    if built:
        layer(tf.ones((B, T, D)))
    with pytest.raises((TypeError, ValueError), match="constants: expected 0"):
        layer(tf.ones((B, T, D)), constants=[tf.ones((B, 2))])


def test_constants_for_a_cell_of_keras():
    with pytest.raises((TypeError, ValueError), match="constants: expected none"):
        keras_seq.RNN(keras.layers.GRUCell(U))(tf.ones((B, T, D)), constants=[tf.ones((B, 2))])


WRONG = {"none": None, "empty": [], "two": [(B, 2), (B, 2)], "rank": [(B, T, 2)]}


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("shapes", WRONG.values(), ids=WRONG)
def test_constants_of_a_conditioned_cell(shapes, built):
    layer = conditioned()
    if built:
        layer(tf.ones((B, T, D)), constants=[tf.ones((B, 2))])
    constants = shapes and [tf.ones(s) for s in shapes]
    with pytest.raises((TypeError, ValueError), match=r"constants: expected (1|one|shape)"):
        layer(tf.ones((B, T, D)), constants=constants)


def test_a_cell_that_projects_to_more_than_one_tensor_has_no_condition():
    layer = keras_seq.RNN(keras_seq.ConditionedCell(keras_seq.NARXCell(U)))
    with pytest.raises(TypeError, match="cell: expected one whose `project` gives one tensor, got NARXCell"):
        layer(tf.ones((B, T, D)), constants=[tf.ones((B, 2))])


@pytest.mark.parametrize("rows", [1, B + 1])
def test_batch_of_the_constants(rows):
    layer = conditioned()
    layer(tf.ones((B, T, D)), constants=[tf.ones((B, 2))])
    with pytest.raises(ValueError, match="constants"):
        layer(tf.ones((B, T, D)), constants=[tf.ones((rows, 2))])


# -- cells that break the contract ---------------------------------------------------------------------------------------


def broken(step, size=U):
    class Broken(keras_seq.Cell):
        state_names, state_size, output_size = ("h",), [size], size

        def build(self, input_shape):
            self.kernel = self.add_weight(name="kernel", shape=(size, size))
            super().build(input_shape)

    Broken.step = step
    return keras_seq.RNN(Broken())


def test_kernel_that_depends_on_the_state():
    def step(self, projected, states, constants=()):
        h = keras_seq.dot(states[0], self.kernel * keras.ops.mean(states[0]))
        return h, (h,)

    with pytest.raises(ValueError, match="kernel of dot: expected a matrix made of weights"):
        broken(step)(tf.ones((B, T, U)))


def test_kernel_that_depends_on_the_input():
    def step(self, projected, states, constants=()):
        h = keras_seq.dot(states[0], self.kernel * keras.ops.mean(projected))
        return h, (h,)

    with pytest.raises(ValueError, match="kernel of dot: expected a matrix made of weights"):
        broken(step)(tf.ones((B, T, U)))


def test_kernel_that_is_no_matrix():
    def step(self, projected, states, constants=()):
        h = keras_seq.dot(states[0], keras.ops.expand_dims(self.kernel, 0))
        return h, (h,)

    with pytest.raises(ValueError, match="kernel of dot: expected a matrix \\(4, m\\), got"):
        broken(step)(tf.ones((B, T, U)))


STEPS = {
    "more states": lambda self, p, states, constants=(): (states[0], (states[0], states[0])),
    "no state": lambda self, p, states, constants=(): (states[0], ()),
    "width": lambda self, p, states, constants=(): (states[0], (states[0][:, 1:],)),
    "rank": lambda self, p, states, constants=(): (states[0], (states[0][:, 0],)),
    "type": lambda self, p, states, constants=(): (states[0], (keras.ops.cast(states[0], "float64"),)),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_step_that_returns_other_states(step):
    with pytest.raises(ValueError, match="step: expected new states like the old ones"):
        broken(step)(tf.ones((B, T, U)))


def test_cell_without_a_step():
    class Stepless(keras_seq.Cell):
        state_names, state_size, output_size = ("h",), [U], U

    with pytest.raises(TypeError, match="expected a method step"):
        keras_seq.RNN(Stepless())(tf.ones((B, T, U)))


def test_errors_name_what_came():
    with pytest.raises(ValueError, match="got 'no_such_thing'"):
        keras_seq.LSTM(U, activation="no_such_thing")
    with pytest.raises(ValueError, match=r"got 1\.5"):
        keras_seq.LSTM(U, dropout=1.5)
    with pytest.raises(ValueError, match=r"\(4, 5\).*got \(4, 6\)"):
        made()(tf.ones((B, T, D)), mask=tf.ones((B, T + 1), "bool"))
