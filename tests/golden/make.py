"""What was saved once, and what came of it: files that must load, and give the same, for ever.

    python tests/golden/make.py [NAME ..]

writes NAME.keras, NAME.weights.h5 (of what has weights) and NAME.npz (inputs and outputs) of the named recipes, or of all
that have none yet; it never writes over a file. A new public class gets a recipe here, and its files once; old files stay
as they are.

Axes: b batch, t time, d input features, u units.
"""

import dataclasses
import json
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Callable

import keras
import numpy as np

import keras_seq
from keras_seq.decoding import CRFLoss, CTCLoss, ViterbiTags, crf_marginals, viterbi
from keras_seq.metrics import BitsPerCharacter, Perplexity, SpanScores, TagAccuracy
from keras_seq.models import ImageCaptioner, InverseSigmoidDecay, LanguageModel, Seq2Seq, Vocabulary
from keras_seq.training import (
    BlockIdentity,
    OnlineLearner,
    PinballLoss,
    SpectralRadiusConstraint,
    SpectralRadiusInitializer,
    SpectralRadiusRegularizer,
    TruncatedBPTT,
)

FOLDER = pathlib.Path(__file__).parent
B, T, D, U = 3, 5, 3, 4
MASK = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 1, 0, 1, 0]], bool)
SEQUENCES, STATES = {"return_sequences": True}, {"return_sequences": True, "return_state": True}


# -- what is called, and how ---------------------------------------------------------------------------------------------


def called(model, inputs):
    return model(inputs)


def split(inputs):
    """`(initial states, what a layer is given besides)` of the inputs by name."""
    states = [x for name, x in inputs.items() if name.startswith("state")]
    constants = [x for name, x in inputs.items() if name.startswith("constant")]
    further = {"constants": constants} if constants else {}
    return states, {**further, **{name: inputs[name] for name in ("targets",) if name in inputs}}


def unmasked(model, inputs):
    """The layer without mask and initial states."""
    return model.get_layer("golden")(inputs["sequences"], **split(inputs)[1])


def stepped(model, inputs):
    """The layer step by step, under the mask."""
    layer, (states, further) = model.get_layer("golden"), split(inputs)
    state = layer.initial_state(B, *([states] if states else []))
    outputs = []
    for t in range(T):
        now = {name: x[:, t] if name == "targets" else x for name, x in further.items()}
        y, state = layer.step(inputs["sequences"][:, t], state, inputs["mask"][:, t], **now)
        outputs.append(y)
    return [*outputs, *state]


def simulated(model, inputs):
    """NARX after a warm-up on true outputs."""
    layer = model.get_layer("golden")
    return layer.close_loop()(inputs["sequences"], targets=inputs["targets"][:, : layer.delays])


def forecast(model, inputs):
    return model.get_layer("golden").forecast(inputs["sequences"], steps=3)


def written(decoder, **options):
    """Tokens of a model that writes, from the first of its inputs."""

    def write(model, inputs):
        given, *_ = inputs.values()
        if isinstance(model, LanguageModel):
            return model.generate_tokens(None, given[:, :2], decoder, **options)
        return model.generate_tokens(given, None, decoder, **options)

    return write


def of_pair(model, inputs):
    return model(tuple(inputs.values()))


def of_all(model, inputs):
    return model(list(inputs.values()))


def of_tokens(model, inputs):
    return model(inputs["tokens"])


def of_x(model, inputs):
    return model(inputs["x"])


def next_gradients(model, inputs):
    """The gradients that a learner would take its next step by."""
    _, _, gradients, _ = model._rule.step(inputs["x"], model._kept, keras.ops.sum)
    return keras.ops.concatenate([keras.ops.reshape(g, (-1,)) for g in gradients])


def carried(model, inputs):
    """A stream of two chunks."""
    first, second = inputs["tokens"][:, :2], inputs["tokens"][:, 2:4]
    return [model((first, np.array([True] * B))), model((second, np.array([False, True, False])))]


def in_chunks(model, inputs):
    """Streams of five steps, the second of which begins anew, the third has ended."""
    x, real = inputs["x"], np.array([[True, True], [True, False], [False, False]])
    return [model((x[:, :3], np.array([True] * B))), model((x[:, 3:], np.array([False, True, True]), real))]


def optimizer(model, inputs):
    """The state of training."""
    return [v.numpy() for v in model.optimizer.variables]


def shares(model, inputs):
    """A schedule by step."""
    found = []
    for step in inputs["steps"]:
        model.optimizer.iterations.assign(step)
        found.append(model.optimizer.learning_rate)
    return found


def encoded(model, inputs):
    (vocabulary,) = model.layers
    tokens = vocabulary.encode(inputs["strings"])
    return tokens, vocabulary.decode(tokens)


def evaluated(model, inputs):
    scores = model.evaluate(inputs["x"], inputs["y"], verbose=0, return_dict=True)
    return [scores[name] for name in sorted(scores)]


def loss(model, inputs):
    return model.loss(inputs["y"], model(inputs["x"]))


def marginals(model, inputs):
    return crf_marginals(model(inputs))


def two_best(model, inputs):
    return viterbi(model(inputs), n_best=2)


def constrained(model, inputs):
    """The recurrent kernel as its constraint leaves it."""
    cell = model.layers[0].cell
    return cell.recurrent_constraint(cell.recurrent_kernel)


def penalty(model, inputs):
    (found,) = model.losses
    return found


def start(model, inputs):
    """What the recurrent kernel starts from."""
    cell = model.layers[0].cell
    return cell.recurrent_initializer(cell.recurrent_kernel.shape)


# -- the models ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A model, how it is called, and those of its inputs that are no plain random numbers."""

    make: Callable
    forms: tuple = (called,)
    inputs: dict = dataclasses.field(default_factory=dict)


def by_name(*inputs):
    return {x.name: x for x in inputs}


def layer(make, *forms, state=(), constants=(), targets=None):
    """A recipe of a functional model around one layer, named `golden`: sequences, a mask, and more by name."""

    def model():
        inputs = by_name(
            keras.Input((None, D), name="sequences"),
            keras.Input((None,), dtype="bool", name="mask"),
            *(keras.Input((width,), name=f"state_{i}") for i, width in enumerate(state)),
            *(keras.Input(shape, name=f"constant_{i}") for i, shape in enumerate(constants)),
            *([keras.Input((None, targets), name="targets")] if targets else ()),
        )
        states, further = split(inputs)
        further |= {"initial_state": states} if states else {}
        outputs = make()(inputs["sequences"], mask=inputs["mask"], **further)
        return keras.Model(inputs, keras.tree.flatten(outputs))

    return Recipe(model, (called, unmasked, *forms), {"mask": MASK})


def memory(name, *arguments, state, forms=(stepped,), targets=None, **named):
    def make():
        return getattr(keras_seq, name)(*arguments, **named, **STATES, name="golden")

    return layer(make, *forms, state=state, targets=targets)


def cell(name, *arguments, state, targets=None, **named):
    def make():
        return keras_seq.RNN(getattr(keras_seq, name)(*arguments, **named), **STATES, name="golden")

    return layer(make, stepped, state=state, targets=targets)


def reading(make, constants):
    return layer(lambda: keras_seq.RNN(make(), **STATES, name="golden"), stepped, state=[U] * 2, constants=[constants])


def stack():
    layers = [keras_seq.TDNN(3, delays=2), keras_seq.LSTM(U, **SEQUENCES), keras_seq.GRU(2, **SEQUENCES)]
    return keras_seq.Stacked(layers, skips="dense", dropout=0.25, return_state=True, seed=3, name="golden")


def one_step():
    layer = keras_seq.GRU(U, **SEQUENCES)
    layer.build((None, None, D))
    states = [keras.Input((U,), name=f"state_{i}") for i in range(2)]
    inputs = by_name(keras.Input((1, D), name="step"), *states)
    return keras.Model(inputs, keras_seq.StepForm(layer)(list(inputs.values())))


def dense(width, *before, **compiled):
    model = keras.Sequential([keras.Input((None, D)), *before, keras.layers.Dense(width)])
    model.compile(
        **{"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "run_eagerly": True, **compiled}
    )
    return model


def strings():
    return keras.Sequential([Vocabulary(["red", "square"], special=["0", "?", "<", ">"])])


LETTERS = Vocabulary(["a", "b", "c", "d"], split="characters")
WORDS = Vocabulary(
    ["<pad>", "a", "red", "[END]", "blue", "<s>", "square", "<unk>"], special=["<pad>", "<unk>", "<s>", "[END]"]
)


def language_model():
    memory = keras_seq.Stacked(
        [keras_seq.TDNN(U, delays=2), keras_seq.GRU(U, learn_initial_state=True, **SEQUENCES)], skips="residual"
    )
    model = LanguageModel(LETTERS, memory, embedding_size=U, tied=True, dropout=0.1, max_length=6, seed=3)
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    return model


def translator():
    encoder = keras_seq.Bidirectional(keras_seq.GRU(3, **SEQUENCES))
    decoder = keras_seq.RNN(keras_seq.AttentionCell(keras_seq.GRUCell(U), output_units=U), **SEQUENCES)
    further = {"teacher_forcing": InverseSigmoidDecay(10.0), "dropout": 0.1, "pad_to": (4, 2), "max_length": 5}
    return Seq2Seq(LETTERS, WORDS, encoder, decoder, embedding_size=3, **further)


def captioner():
    layers = [
        keras.Input((8, 8, 2)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(3, 3, strides=4, padding="same"),
        keras.layers.BatchNormalization(),
    ]
    further = {"embedding_size": 3, "dropout": 0.1, "max_length": 5, "attention_penalty": 0.5}
    encoder = keras.Sequential(layers)
    return ImageCaptioner(WORDS, (8, 8, 2), keras_seq.LSTMCell(U), encoder, features_as="attention", **further)


LETTER_TOKENS = np.array([[2, 4, 5, 3, 0], [2, 7, 6, 4, 5], [2, 5, 3, 0, 0]], "int32")
WORD_TOKENS = np.array([[5, 1, 2, 6, 3], [5, 4, 6, 3, 0], [5, 7, 2, 4, 1]], "int32")
TARGETS = {"y": np.array([[1, 2, 0, 3, 4], [2, 2, 1, 0, 0], [4, 3, 1, 2, 2]], "int32")}
FRAMES = np.random.default_rng(5).normal(size=(B, T, D)) * MASK[..., None]
FRAMES = {"x": FRAMES.astype("float32"), "y": np.array([[1, 3], [4, 2], [3, 3]], "int32")}
WIDE = {"peepholes": True, "normalize": True, "projection": 3, "cell_clip": 0.4, "learn_initial_state": True}
DELAYS = {"input_delays": [0, 2], "output_delays": [1, 3]}


def learner():
    """A learner of two streams, two steps after their beginning."""
    model = OnlineLearner(keras_seq.GRUCell(U), D, rows=2)
    model.compile("adam", "mse")
    for x in np.random.default_rng(8).normal(size=(2, 2, D)).astype("float32"):
        model.learn(x, np.ones((2, U), "float32"))
    return model


def trainer():
    """Of streams, two chunks after their beginning."""
    model = TruncatedBPTT(keras.Sequential([keras.Input((None, D)), keras_seq.LSTM(U, return_sequences=True)]), steps=2)
    model.compile("adam", "mse")
    x = np.random.default_rng(8).normal(size=(2, 4, D)).astype("float32")
    model.fit(x, np.ones((2, 4, U), "float32"), verbose=0)
    return model


def remedied(**argument):
    return lambda: keras.Sequential([keras.Input((None, D)), keras_seq.GRU(U, **argument)])


REMEDIES = {
    "SpectralRadiusConstraint": Recipe(
        remedied(recurrent_constraint=SpectralRadiusConstraint(0.3, squarings=7)), (of_x, constrained), FRAMES
    ),
    "SpectralRadiusRegularizer": Recipe(
        remedied(recurrent_regularizer=SpectralRadiusRegularizer(0.5, 0.2, of="norm")), (of_x, penalty), FRAMES
    ),
    "SpectralRadiusInitializer": Recipe(
        remedied(recurrent_initializer=SpectralRadiusInitializer(0.7, "ones")), (of_x, start), FRAMES
    ),
    "Newton": Recipe(remedied(solver=keras_seq.Newton(jacobian="diagonal", damping=0.1)), (of_x,), FRAMES),
    "BlockIdentity": Recipe(remedied(recurrent_initializer=BlockIdentity([0.5, -1.0, 2.0])), (of_x, start), FRAMES),
}

CHILDREN = np.array([[[-1, -1], [-1, -1], [0, 1], [-1, -1], [3, 2]], [[-1, -1], [-1, 0], *[[-1, -1]] * 3]], "int32")
TREES = {"nodes": FRAMES["x"][:2], "children": CHILDREN, "mask": np.array([[True] * 5, [True] * 2 + [False] * 3])}
EDGES = np.array([[0, 1], [1, 0], [1, 2], [2, 1], [-1, -1]], "int32")
GRAPH = {"nodes": FRAMES["x"][0], "edges": EDGES, "types": np.array([0, 1, 1, 0, 0], "int32")}


def tree(make):
    """A recipe of a layer over trees."""

    def model():
        nodes, mask = keras.Input((None, D), name="nodes"), keras.Input((None,), dtype="bool", name="mask")
        children = keras.Input((None, 2), dtype="int32", name="children")
        return keras.Model([nodes, children, mask], make()(nodes, children=children, mask=mask))

    return Recipe(model, (of_all,), TREES)


def graph():
    nodes, edges = keras.Input((D,), name="nodes"), keras.Input((2,), dtype="int32", name="edges")
    types = keras.Input((), dtype="int32", name="types")
    cell = keras_seq.GRUCell(U, learn_initial_state=True)
    layer = keras_seq.GraphRecurrent(cell, 3, aggregate="mean", edge_types=2)
    return keras.Model([nodes, edges, types], layer(nodes, edges=edges, types=types))


TAGS = ["O", "B-x", "I-x"]


def field():
    return layer(lambda: keras_seq.CRF(TAGS, "BIO", transition_initializer="ones", name="golden")).make()


def tagger():
    return keras.Sequential([keras.Input((None, D, D)), ViterbiTags(n_best=2)])


def scored(**compiled):
    model = keras.Sequential([keras.Input((None, D)), keras_seq.CRF(TAGS)])
    model.compile(**{"loss": CRFLoss(reduction="sum"), "run_eagerly": True, **compiled})
    return model


TAGGED = {"x": FRAMES["x"], "y": np.array([[1, 2, 0, 1, 0], [0, 0, 1, 2, 2], [1, 1, 0, 0, 1]], "int32")}


RECIPES = {
    "SimpleRNN": memory("SimpleRNN", U, state=[U]),
    "Elman": memory("Elman", U, outputs=2, state=[U]),
    "Jordan": memory("Jordan", U, 2, decay=0.3, output_activation="tanh", state=[2], targets=2),
    "ResidualRNN": memory("ResidualRNN", U, state=[U]),
    "NARX": memory("NARX", U, 2, **DELAYS, state=[6, 6], forms=(simulated, stepped), targets=2),
    "AR": memory("AR", outputs=D, output_delays=2, state=[6], forms=(forecast, stepped)),
    "LSTM": memory("LSTM", U, state=[U, U], dropout=0.1, recurrent_dropout=0.2, seed=4),
    "PeepholeLSTM": memory("PeepholeLSTM", U, state=[U, U]),
    "CoupledLSTM": memory("CoupledLSTM", U, state=[U, U], peepholes=True),
    "NoForgetLSTM": memory("NoForgetLSTM", U, state=[U, U]),
    "GRU": memory("GRU", U, state=[U]),
    "MinGRU": memory("MinGRU", U, state=[U]),
    "MinLSTM": memory("MinLSTM", U, state=[U]),
    "LinearRNN": memory("LinearRNN", U, stable=True, outputs=2, state=[U]),
    "LRU": memory("LRU", U, outputs=2, state=[2 * U]),
    "RNN": layer(
        lambda: keras_seq.RNN(keras.layers.GRUCell(U), zero_output_for_mask=True, **STATES, name="golden"),
        stepped,
        state=[U],
    ),
    "SimpleRNNCell": cell("SimpleRNNCell", U, outputs=2, output_activation="tanh", state=[U]),
    "ElmanCell": cell("ElmanCell", U, blocked=False, zoneout=0.25, state=[U]),
    "JordanCell": cell("JordanCell", U, 2, blocked=False, decay=0.25, state=[2]),
    "ResidualRNNCell": cell("ResidualRNNCell", U, recurrent=False, learn_initial_state=True, state=[U]),
    "MinGRUCell": cell("MinGRUCell", U, activation="tanh", state=[U]),
    "MinLSTMCell": cell("MinLSTMCell", U, normalize=False, state=[U]),
    "LinearRNNCell": cell("LinearRNNCell", U, transition="full", state=[U]),
    "LRUCell": cell("LRUCell", U, use_bias=True, learn_initial_state=True, state=[2 * U]),
    "NARXCell": cell("NARXCell", U, 2, **DELAYS, state=[6, 6]),
    "ARCell": cell("ARCell", outputs=2, output_delays=[2, 3], state=[6], targets=2),
    "LSTMCell": cell("LSTMCell", U, **WIDE, state=[3, U]),
    "PeepholeLSTMCell": cell("PeepholeLSTMCell", U, full_gate_recurrence=True, state=[U] * 5),
    "CoupledLSTMCell": cell("CoupledLSTMCell", U, zoneout=[0.25, 0.125], state=[U, U]),
    "NoForgetLSTMCell": cell("NoForgetLSTMCell", U, peepholes=True, cell_activation="softsign", state=[U, U]),
    "GRUCell": cell("GRUCell", U, reset_after=False, learn_initial_state=True, state=[U]),
    "ConditionedCell": reading(lambda: keras_seq.ConditionedCell(keras_seq.LSTMCell(U)), (2,)),
    "AttentionCell": reading(
        lambda: keras_seq.AttentionCell(
            keras_seq.GRUCell(U), score="multi_head", heads=2, output_units=U, input_feeding=True
        ),
        (4, 2),
    ),
    "Bidirectional": layer(
        lambda: keras_seq.Bidirectional(keras_seq.LSTM(U, **STATES), merge_mode="mul", name="golden"), state=[U] * 4
    ),
    "Stacked": layer(stack, stepped, state=[U, U, 2]),
    "TDNN": layer(lambda: keras_seq.TDNN(U, context=[-3, -1, 0], weight_normalization=True, name="golden"), stepped),
    "TCN": layer(
        lambda: keras_seq.TCN([3, U], 2, dilations=[1, 2], activation="tanh", **SEQUENCES, name="golden"), stepped
    ),
    "WaveNet": layer(lambda: keras_seq.WaveNet(3, dilations=[1, 2], skip_filters=U, outputs=5, name="golden"), stepped),
    "LastStep": layer(lambda: keras_seq.LastStep(name="golden"), stepped),
    "MaskedMean": layer(lambda: keras_seq.MaskedMean(name="golden"), stepped),
    "MaskedMax": layer(lambda: keras_seq.MaskedMax(name="golden"), stepped),
    "StepForm": Recipe(one_step),
    "RecursiveNN": tree(lambda: keras_seq.RecursiveNN(U, activation="softsign", return_nodes=True)),
    "TreeLSTM": tree(lambda: keras_seq.TreeLSTM(U, 2)),
    "GraphRecurrent": Recipe(graph, (of_all,), GRAPH),
    "OnlineLearner": Recipe(
        learner, (of_x, next_gradients), {"x": np.random.default_rng(7).normal(size=(2, D)).astype("float32")}
    ),
    "TruncatedBPTT": Recipe(trainer, (in_chunks, optimizer), {"x": np.random.default_rng(7).normal(size=(B, 5, D))}),
    **REMEDIES,
    "Vocabulary": Recipe(strings, (encoded,), {"strings": np.array(["A red square!", "green", ""])}),
    "LanguageModel": Recipe(
        language_model,
        (of_tokens, written("greedy"), written("beam", width=2, n_best=2, length_penalty=0.6), carried, optimizer),
        {"tokens": LETTER_TOKENS},
    ),
    "Seq2Seq": Recipe(
        translator,
        (of_pair, written("greedy"), written("beam", width=3, coverage_penalty=0.2)),
        {"source": LETTER_TOKENS, "target": WORD_TOKENS},
    ),
    "ImageCaptioner": Recipe(
        captioner,
        (of_pair, written("greedy"), written("beam", width=3)),
        {"images": np.random.default_rng(6).integers(0, 256, (B, 8, 8, 2)).astype("uint8"), "tokens": WORD_TOKENS},
    ),
    "InverseSigmoidDecay": Recipe(
        lambda: dense(2, optimizer=keras.optimizers.SGD(InverseSigmoidDecay(5.0))),
        (shares, of_x),
        {**FRAMES, "steps": np.array([0, 8, 30])},
    ),
    "CTCLoss": Recipe(
        lambda: dense(5, keras.layers.Masking(), loss=CTCLoss(blank=2, zero_infinity=True, reduction="none")),
        (loss,),
        FRAMES,
    ),
    "PinballLoss": Recipe(
        lambda: dense(3, loss=PinballLoss([0.2, 0.5, 0.9], reduction="none")),
        (loss,),
        {**FRAMES, "y": FRAMES["x"][..., :1]},
    ),
    "CRF": Recipe(field, (marginals, two_best), {"mask": MASK}),
    "ViterbiTags": Recipe(tagger, (of_x,), {"x": np.random.default_rng(9).normal(size=(B, T, D, D)).astype("float32")}),
    "CRFLoss": Recipe(scored, (loss,), TAGGED),
    "SpanScores": Recipe(lambda: scored(metrics=[SpanScores(TAGS, average="macro")]), (evaluated,), TAGGED),
    "TagAccuracy": Recipe(lambda: scored(metrics=[TagAccuracy()]), (evaluated,), TAGGED),
    "Perplexity": Recipe(lambda: dense(5, metrics=[Perplexity(pad=2)]), (evaluated,), {**FRAMES, **TARGETS}),
    "BitsPerCharacter": Recipe(
        lambda: dense(5, metrics=[BitsPerCharacter(pad=None)]), (evaluated,), {**FRAMES, **TARGETS}
    ),
}


# -- the files -----------------------------------------------------------------------------------------------------------


def files(name):
    return [FOLDER / f"{name}{ending}" for ending in (".keras", ".weights.h5", ".npz")]


def results(name, model, inputs):
    """What all forms of call give: arrays by name."""
    found = {}
    for i, form in enumerate(RECIPES[name].forms):
        outputs = [np.asarray(y) for y in keras.tree.flatten(form(model, inputs))]
        outputs = [y.astype("S") if y.dtype == object else y for y in outputs]
        found.update({f"{i}_{form.__name__}_{k}": y for k, y in enumerate(outputs)})
    return found


def stored(name):
    """`(inputs, outputs)` of the file."""
    with np.load(FOLDER / f"{name}.npz") as file:
        inputs = {key.removeprefix("in_"): file[key] for key in file if key.startswith("in_")}
        return inputs, {key.removeprefix("out_"): file[key] for key in file if key.startswith("out_")}


def saved(name, part):
    """Of the .keras file: "config" or "metadata"."""
    with zipfile.ZipFile(FOLDER / f"{name}.keras") as file:
        return json.loads(file.read(f"{part}.json"))


def of_later_keras(name):
    """Whether the file was written by a later Keras than this one, whose own classes may have arguments unknown here."""
    written, here = saved(name, "metadata")["keras_version"], keras.__version__
    return [int(n) for n in written.split(".")[:2]] > [int(n) for n in here.split(".")[:2]]


def fresh(name):
    """A new model of the configuration in the file, or of the recipe if a later Keras wrote it; its weights drawn anew."""
    if of_later_keras(name):
        return RECIPES[name].make()
    return keras.saving.deserialize_keras_object(saved(name, "config"))


def drawn_inputs(rng, name, model):
    """What the recipe gives, and random numbers for the other inputs of a functional model."""
    specs = getattr(model, "input", None)
    drawn = {}
    for key, spec in specs.items() if isinstance(specs, dict) else ():
        drawn[key] = rng.normal(size=[B, *(T if n is None else n for n in spec.shape[1:])]).astype("float32")
    return {**drawn, **RECIPES[name].inputs}


def packed(path):
    """The same file, compressed."""
    with zipfile.ZipFile(path) as file:
        content = {member: file.read(member) for member in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member, data in content.items():
            file.writestr(member, data)


def make(name):
    existing = [path.name for path in files(name) if path.exists()]
    if existing:
        raise FileExistsError(f"{', '.join(existing)}: golden files are made once; what changed must read the old ones")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    model = RECIPES[name].make()
    for v in [*model.variables, *getattr(getattr(model, "optimizer", None), "variables", ())]:
        drawn = np.abs(rng.normal(size=v.shape)) + 0.1
        signed = drawn * rng.choice([-1, 1], v.shape)
        v.assign(rng.integers(1, 9, v.shape) if "int" in v.dtype else drawn if "variance" in v.path else 0.6 * signed)
    inputs = drawn_inputs(rng, name, model)
    outputs = results(name, model, inputs)
    assert all(np.all(np.isfinite(y)) for y in outputs.values() if y.dtype.kind == "f"), name
    for v in model.weights:
        before = v.numpy()
        v.assign(before + rng.normal(size=v.shape) if "float" in v.dtype else before)
        changed = results(name, model, inputs)
        used = any(changed[key].shape != y.shape or np.any(changed[key] != y) for key, y in outputs.items())
        assert used or "int" in v.dtype, f"{name}: no output depends on {v.path}"
        v.assign(before)
    keras_file, weights, arrays = files(name)
    model.save(keras_file)
    packed(keras_file)
    if model.weights:
        model.save_weights(weights)
    np.savez_compressed(
        arrays, **{f"in_{k}": x for k, x in inputs.items()}, **{f"out_{k}": y for k, y in outputs.items()}
    )


if __name__ == "__main__":
    for chosen in sys.argv[1:] or [name for name in RECIPES if not any(path.exists() for path in files(name))]:
        make(chosen)
        print(chosen)
