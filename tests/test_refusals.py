"""Whatever is wrong is refused by its name, everywhere on the public surface, and what is taken means something."""

import functools
import inspect
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_seq
from keras_seq import analysis, datasets, decoding, metrics, testing
from keras_seq.arguments import arguments
from keras_seq.models import (
    ImageCaptioner,
    InverseSigmoidDecay,
    LanguageModel,
    Seq2Seq,
    Vocabulary,
    small_encoder,
    stream_batches,
)
from keras_seq.training import (
    BlockIdentity,
    GradientMonitor,
    LevenbergMarquardt,
    PinballLoss,
    SpectralRadiusConstraint,
    SpectralRadiusInitializer,
    SpectralRadiusRegularizer,
    free_run_pieces,
)

NAN = float("nan")
LETTERS = Vocabulary(["a", "b"], "characters")
WRONG = {
    **{repr(value): value for value in (None, -1, 0, 1.5, NAN, True, "word", "", [], {}, (1, 2), [3, "a"], -0.5)},
    "class": object,
    "array": np.array([1, 2]),
    "function": print,
}
MAY_BE = {
    "activation": {"None", "function"},
    "initializer": {"None", "array", "function"},  # None is Keras's own choice
    "regularizer": {"function"},
    "constraint": {"function"},
    **{name: {"0"} for name in ("dropout", "decay", "implementation", "teacher_forcing", "attention_penalty", "blank")},
    "zoneout": {"0", "[]"},  # how many states there are is known when it is built
    "weights": {"[]", "(1, 2)", "[3, 'a']"},  # and so is how many weights
    "seed": {"0", "-1"},
    "pad": {"None", "0", "-1"},
    **{name: {"1.5"} for name in ("cell_clip", "k", "radius", "strength", "tolerance")},
    "damping": {"0", "1.5"},
    "data": {"(1, 2)", "[3, 'a']"},  # a batch, of whatever the model takes
    "layers": {"[]"},
    "lags": {"(1, 2)"},
    "log_dir": {"'word'", "''"},
    "gain": {"-1", "0", "1.5", "-0.5", "(1, 2)"},
    **{name: {"(1, 2)"} for name in ("input_delays", "output_delays", "dilations", "context", "pad_to")},
    **{name: {"None"} for name in ("merge_mode", "reduction", "features")},
    **{name: {"True"} for name in ("use_cudnn", "jit_compile")},
    "r_min": {"0"},
    "max_phase": {"1.5"},
    "documents": {"(1, 2)", "array"},
    "shares": {"(1, 2)", "array"},
    "signal": {"-1", "0", "1.5", "nan", "-0.5", "[]", "(1, 2)", "array"},
    "classes": {"-1", "0", "(1, 2)", "array"},
}
"""Of an argument of this name, or with this ending, what of WRONG means something somewhere."""


def sequences(layer, *given, **flags):
    return layer(*given, return_sequences=True, **flags)


# -- constructors: each argument of each public class, each of WRONG -------------------------------------------------------


def small_captioner(**given):
    pictures = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    return ImageCaptioner(**{"encoder": pictures, "cell": keras_seq.LSTMCell(4), "embedding_size": 3, **given})


def classes():
    """`{name: (what is called, arguments that are right)}`."""
    found = {}
    for name in keras_seq.__all__:
        cls = getattr(keras_seq, name)
        if not inspect.isclass(cls) or name in (
            "Cell",
            "GatedCell",
            "ReadoutCell",
            "FeedbackCell",
            "StepForm",
            "Stream",
        ):
            continue
        taken = inspect.signature(cls).parameters
        right = {"units": 3, "filters": 4, "outputs": 2}
        if not name.removesuffix("Cell").endswith(("Jordan", "AR", "NARX", "WaveNet")):
            del right["outputs"]  # an option
        found[name] = (cls, {key: value for key, value in right.items() if key in taken})
    found["RNN"] = (keras_seq.RNN, {"cell": keras_seq.GRUCell(3)})
    found["TDNN"] = (keras_seq.TDNN, {"units": 3, "delays": 2})
    found["GraphRecurrent"] = (keras_seq.GraphRecurrent, {"cell": keras_seq.GRUCell(3), "steps": 2})
    for name in ("AttentionCell", "ConditionedCell"):
        found[name] = (getattr(keras_seq, name), {"cell": keras_seq.GRUCell(3)})
    found["Stacked"] = (keras_seq.Stacked, {"layers": [sequences(keras_seq.LSTM, 3), keras_seq.LSTM(3)]})
    found["Bidirectional"] = (keras_seq.Bidirectional, {"layer": keras_seq.LSTM(3)})
    found["Seq2Seq"] = (Seq2Seq, {"source": LETTERS, "target": LETTERS, "embedding_size": 4})
    found["LanguageModel"] = (LanguageModel, {"vocabulary": LETTERS, "memory": sequences(keras_seq.LSTM, 3)})
    found["ImageCaptioner"] = (small_captioner, {"vocabulary": LETTERS, "image_shape": (8, 8, 3)})
    found["Vocabulary"] = (Vocabulary, {"words": ["a", "b"]})
    found["Vocabulary.of"] = (Vocabulary.of, {"texts": ["a b"]})
    found["small_encoder"] = (small_encoder, {"image_shape": (16, 16, 3)})
    found["InverseSigmoidDecay"] = (InverseSigmoidDecay, {"k": 10.0})
    found["stream_batches"] = (stream_batches, {"documents": np.arange(1, 14), "rows": 1, "steps": 1})
    found["Perplexity"] = (metrics.Perplexity, {})
    found["CTCLoss"] = (decoding.CTCLoss, {})
    found["PinballLoss"] = (PinballLoss, {})
    for split in (analysis.block_split, analysis.interleaved_split):
        found[split.__name__] = (split, {"steps": 40})
    found["CRF"] = (keras_seq.CRF, {"tags": 3})
    found["CRFLoss"] = (decoding.CRFLoss, {})
    found["ViterbiTags"] = (decoding.ViterbiTags, {})
    found["SpanScores"] = (metrics.SpanScores, {"tags": ["O", "B-a", "I-a"]})
    found["TagAccuracy"] = (metrics.TagAccuracy, {})
    for cls in (BlockIdentity, SpectralRadiusConstraint, SpectralRadiusInitializer, SpectralRadiusRegularizer):
        found[cls.__name__] = (cls, {})
    found["GradientMonitor"] = (GradientMonitor, {"data": (np.zeros((2, 3)), np.zeros(2))})
    small = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    found["LevenbergMarquardt"] = (LevenbergMarquardt, {"model": small})
    pieces = {"inputs": np.zeros((9, 2)), "outputs": np.zeros((9, 1)), "warm_up": 2, "steps": 3}
    found["free_run_pieces"] = (free_run_pieces, pieces)
    found["mu_law_encode"] = (keras_seq.mu_law_encode, {"signal": np.zeros(3, "float32")})
    found["mu_law_decode"] = (keras_seq.mu_law_decode, {"classes": np.zeros(3, "int32")})
    return found


CLASSES = classes()
KERAS_SAYS = {"name", "dtype"}
"""Arguments that go to Keras as they are."""


def taken_by(call):
    """The names of what it takes, with the defaults."""
    if call is small_captioner:
        call = ImageCaptioner
    found = dict(inspect.signature(call).parameters)
    if inspect.isclass(call) and issubclass(call, keras.layers.Layer):
        found = {**arguments(call), **found}
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p.default for name, p in found.items() if p.kind not in fixed and name not in KERAS_SAYS}


def means_something(argument, value, default):
    if isinstance(default, bool) and value == "True":
        return True
    return any(value in taken for name, taken in MAY_BE.items() if argument.endswith(name))


@pytest.mark.deep
@pytest.mark.parametrize("name", CLASSES)
def test_every_wrong_argument_of_every_constructor_is_named(name):
    call, right = CLASSES[name]
    from_below, in_silence = [], []
    for argument, default in taken_by(call).items():
        for shown, value in WRONG.items():
            if value is default:
                continue
            meant = means_something(argument, shown, default)  # if not here, then in another class
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    call(**{**right, argument: value})
            except (TypeError, ValueError) as error:
                if not meant and not (
                    re.search(rf"\b{argument}\b", str(error)) and re.search("expected|unknown", str(error), re.I)
                ):
                    from_below.append((argument, shown, str(error)[:80]))
            else:
                if not meant:
                    in_silence.append((argument, shown))
    assert not from_below
    assert not in_silence


# -- calls: what each of them must be given ------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
LABELS, LOGITS = np.array([[1, 2], [1, 0]]), np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
PICTURES = np.zeros((2, 8, 8, 3), "uint8")
PROMPT, STATE, LIMITS = np.full((2, 1), 2), {"h": np.zeros((2, 1), "float32")}, {"end": 3, "max_length": 4}


def step(tokens, state):
    return ops.one_hot(ops.mod(tokens + 1, 6), 6), state


@functools.cache
def made():
    """The objects that are called, by name; each is built once."""
    gru = keras_seq.GRU(4)
    attending = keras_seq.AttentionCell(keras_seq.GRUCell(4), output_units=4)
    found = {
        "LSTM": sequences(keras_seq.LSTM, 4),
        "TCN": sequences(keras_seq.TCN, 4, dilations=[1, 2]),
        "WaveNet": keras_seq.WaveNet(4, outputs=3, dilations=[1, 2]),
        "TDNN": keras_seq.TDNN(4, delays=2),
        "Stacked": keras_seq.Stacked([sequences(keras_seq.GRU, 4), keras_seq.GRU(4)]),
        "Bidirectional": keras_seq.Bidirectional(gru),
        "NARX": sequences(keras_seq.NARX, 4, outputs=1),
        "seq2seq": Seq2Seq(
            LETTERS, LETTERS, sequences(keras_seq.GRU, 4), sequences(keras_seq.RNN, attending), 3, max_length=5
        ),
        "language model": LanguageModel(LETTERS, sequences(keras_seq.GRU, 4), embedding_size=3, max_length=6),
        "captioner": ImageCaptioner(
            LETTERS, (8, 8, 3), keras_seq.LSTMCell(4), features_as="attention", embedding_size=3, max_length=5
        ),
    }
    for name in LAYERS:
        found[name](X)
    found["NARX"](X, targets=X[..., :1])
    for name in WRITERS:
        found[name].compile("adam")
    return found


LAYERS = ("LSTM", "TCN", "WaveNet", "TDNN", "Stacked", "Bidirectional")
WRITERS = {
    "seq2seq": lambda m, **options: m.generate(["a"], **options),
    "language model": lambda m, **options: m.generate(["a"], **options),
    "captioner": lambda m, **options: m.generate(PICTURES, **options),
}
NO_TEXTS = {
    "one string": "a b",
    "a number": 3,
    "None": None,
    "an empty list": [],
    "numbers": [1],
    "lists": [["a"]],
    "a dict": {"a": 1},
}
ROWS = []


def refuses(argument, what, call):
    """A row: `call` of the object, or of the objects' dict, is an error that names the argument."""
    ROWS.append(pytest.param(argument, call, id=f"{what}: {argument}"))


def of(name, call):
    return lambda objects: call(objects[name])


for layer in LAYERS:
    again = lambda layer: type(layer).from_config(layer.get_config())  # noqa: E731
    ragged = tf.ragged.constant([[[1.0, 2, 3]], [[1.0, 2, 3], [4, 5, 6]]], ragged_rank=1)
    for what, given in {"no steps": X[:, :0], "ragged": ragged, "complex": X.astype("complex64")}.items():
        refuses("sequences", f"{layer}, {what}", of(layer, lambda m, given=given: m(given)))
    refuses(
        "sequences",
        f"{layer}, no features",
        of(layer, lambda m, new=again: new(m)(X[..., :0])),
    )
    for what, mask in {
        "halves": np.full((2, 5), 0.5),
        "NaN": np.full((2, 5), NAN),
        "two": np.full((2, 5), 2),
        "words": np.full((2, 5), "a"),
        "fewer steps": np.ones((2, 4), bool),
        "three axes": np.ones((2, 5, 1), bool),
    }.items():
        refuses("mask", f"{layer}, {what}", of(layer, lambda m, mask=mask: m(X, mask=mask)))
    if layer == "Bidirectional":
        continue
    for what, x in {"fewer features": X[:, 0, :2], "a sequence": X, "one row": X[0, 0], "words": [["a"]]}.items():
        refuses("inputs", f"{layer} by steps, {what}", of(layer, lambda m, x=x: m.step(x, m.initial_state(2))))
    for what, state in {"None": None, "too few": [np.zeros((2, 4))], "a number": 3}.items():
        refuses("state", f"{layer} by steps, {what}", of(layer, lambda m, state=state: m.step(X[:, 0], state)))
    for size in (-1, "2", 1.5, True):
        refuses("batch_size", f"{layer} by steps, {size!r}", of(layer, lambda m, size=size: m.initial_state(size)))
for layer in ("LSTM", "Stacked", "Bidirectional"):
    for what, state in {
        "a word": "a",
        "numbers": [1, 2],
        "None": [None, None],
        "other width": np.zeros((2, 3)),
    }.items():
        refuses("initial_state", f"{layer}, {what}", of(layer, lambda m, state=state: m(X, initial_state=state)))
refuses("constants", "LSTM, which reads none", of("LSTM", lambda m: m(X, constants=[X])))
refuses("targets", "LSTM, which reads none", of("LSTM", lambda m: m(X, targets=X)))
refuses("return_state", "LSTM, a word", of("LSTM", lambda m: m(X, return_state="yes")))
refuses("targets", "NARX, other width", of("NARX", lambda m: m(X, targets=X)))
refuses("targets", "NARX, a word", of("NARX", lambda m: m(X, targets="a")))
for what, cell in {
    "a class": keras_seq.LSTMCell,
    "a layer": keras_seq.LSTM(4),
    "classes": [keras_seq.LSTMCell],
}.items():
    refuses("cell", f"RNN of {what}", lambda objects, cell=cell: keras_seq.RNN(cell))
refuses("x of dot", "a word", lambda objects: keras_seq.dot("a", np.ones((2, 2))))
refuses("kernel of dot", "another shape", lambda objects: keras_seq.dot(np.ones((2, 3)), np.ones((2, 2))))

for name in ("greedy", "sample", "beam_search"):
    decode = getattr(decoding, name)
    for what, prompt in {
        "one row": PROMPT[0],
        "floats": PROMPT * 1.0,
        "none of the vocabulary": PROMPT + 9,
        "no token": PROMPT[:, :0],
        "no row": PROMPT[:0],
        "words": [["a"]],
        "None": None,
    }.items():
        refuses("prompt", f"{name}, {what}", lambda objects, d=decode, p=prompt: d(step, STATE, p, **LIMITS))
    for argument, value in {
        "max_lengths": [9, 9],
        "min_length": -1,
        "allowed": np.zeros(6, bool),
        "unheard_of": 1,
    }.items():
        refuses(
            argument, name, lambda objects, d=decode, a=argument, v=value: d(step, STATE, PROMPT, **LIMITS, **{a: v})
        )
    refuses("step", name, lambda objects, d=decode: d(None, STATE, PROMPT, **LIMITS))
    refuses(
        "state", f"{name}, other rows", lambda objects, d=decode: d(step, {"h": np.zeros((3, 1))}, PROMPT, **LIMITS)
    )
POTENTIALS = np.zeros((*LABELS.shape, 4, 4))
for what, labels in {
    "parts": LABELS + 0.4,
    "NaN": LABELS * NAN,
    "none of the vocabulary": LABELS + 9,
    "one row": LABELS[:1],
    "words": "ab",
}.items():
    refuses("labels", f"CTC, {what}", lambda objects, labels=labels: decoding.ctc_loss(labels, LOGITS))
    refuses("labels", f"CRF, {what}", lambda objects, labels=labels: decoding.crf_loss(labels, POTENTIALS))
    refuses("labels", f"CTC alignment, {what}", lambda objects, labels=labels: decoding.ctc_align(LOGITS, labels))
for name in ("ctc_greedy", "ctc_beam_search"):
    decode = getattr(decoding, name)
    for what, logits in {"one row": LOGITS[0], "no row": LOGITS[:0], "no frame": LOGITS[:, :0], "words": "a"}.items():
        refuses("logits", f"{name}, {what}", lambda objects, d=decode, logits=logits: d(logits))
    refuses("mask", f"{name}, halves", lambda objects, d=decode: d(LOGITS, mask=np.full((2, 6), 0.5)))

TAKING_TEXTS = {
    "texts": {
        "a vocabulary of them": lambda objects, texts: Vocabulary.of(texts),
        "encoding": lambda objects, texts: LETTERS.encode(texts),
        "their spelling": lambda objects, texts: LETTERS.plain(texts),
    },
    "sources": {
        "translation": lambda objects, texts: objects["seq2seq"].generate(texts),
        "alignment": lambda objects, texts: objects["seq2seq"].alignment(texts, ["a"]),
    },
    "targets": {"alignment": lambda objects, texts: objects["seq2seq"].alignment(["a"], texts)},
    "source": {"an example": lambda objects, texts: objects["seq2seq"].example(texts, ["a"])},
    "target": {"an example": lambda objects, texts: objects["seq2seq"].example(["a"], texts)},
    "prompts": {
        "translation": lambda objects, texts: objects["seq2seq"].generate(["a"], prompts=texts or [0]),
        "language model": lambda objects, texts: objects["language model"].generate(texts),
        "captioner": lambda objects, texts: objects["captioner"].generate(PICTURES, prompts=texts or [0]),
    },
    "captions": {"an example": lambda objects, texts: objects["captioner"].example(PICTURES[0], texts)},
    "sentences": {"what it looked at": lambda objects, texts: objects["captioner"].alignment(PICTURES, texts)},
}
for argument, calls in TAKING_TEXTS.items():
    for what, call in calls.items():
        for kind, texts in NO_TEXTS.items():
            refuses(argument, f"{what}, {kind}", lambda objects, call=call, texts=texts: call(objects, texts))
for prompt in (3, None, ["a"], b"a"):
    refuses(
        "prompt", f"a stream, {prompt!r}", of("language model", lambda m, p=prompt: list(m.stream(p, max_length=3)))
    )
refuses("max_lengths", "a stream", of("language model", lambda m: list(m.stream("a", max_lengths=[2]))))
for what, tokens in {
    "one row": [4, 5],
    "three axes": [[[4, 5]]],
    "none of the vocabulary": [[44]],
    "floats": [[4.5]],
    "a word": "a",
}.items():
    refuses("tokens", f"decoding, {what}", lambda objects, tokens=tokens: LETTERS.decode(tokens))
refuses("target", "an example, of unequal numbers", of("seq2seq", lambda m: m.example(["a", "b"], ["a"])))
refuses("target", "an example, of sources alone", of("seq2seq", lambda m: m.example(["a"])))
refuses("captions", "an example, of a picture alone", of("captioner", lambda m: m.example({"image": PICTURES[0]})))
DATA = tf.data.Dataset.from_tensor_slices((["a"], ["b"])).batch(1)
for model in ("seq2seq", "language model"):
    for name in ("fit", "evaluate", "predict"):
        for what, x in {"a list": ["a"], "an array": np.array(["a"]), "a data set": DATA}.items():
            refuses("x", f"{name} of a {model}, {what}", of(model, lambda m, n=name, x=x: getattr(m, n)(x, verbose=0)))
for what, pictures in {
    "other size": PICTURES[:, :4],
    "one": PICTURES[0],
    "none": PICTURES[:0],
    "a word": "a",
    "None": None,
}.items():
    refuses("images", f"captioner, {what}", of("captioner", lambda m, pictures=pictures: m.generate(pictures)))
for model, write in WRITERS.items():
    for argument, value in {
        "decoder": ["beam"],
        "unheard_of": 3,
        "width": 3,
        "max_length": 0,
        "max_lengths": [2] * 9,
        "min_length": 99,
    }.items():
        refuses(argument, model, of(model, lambda m, w=write, a=argument, v=value: w(m, **{"decoder": "greedy", a: v})))
    refuses("temperature", model, of(model, lambda m, w=write: w(m, decoder="sample", temperature=-1)))
    refuses("seed", model, of(model, lambda m, w=write: w(m, decoder="sample", seed="a")))
    refuses("n_best", model, of(model, lambda m, w=write: w(m, decoder="beam", n_best=9)))

metric = metrics.Perplexity()
refuses(
    "sample_weight", "perplexity, below 0", lambda objects: metric.update_state([[1]], np.zeros((1, 1, 4)), [[-1.0]])
)
refuses("weights", "a picture of an alignment, words", lambda objects: analysis.plot_alignment("a"))
for what, given in {"none": {}, "an array": X, "two axes": {"h": X[0]}}.items():
    refuses("internals", f"a picture of them, {what}", lambda objects, given=given: analysis.plot_internals(given))
refuses("row", "a picture of internals", lambda objects: analysis.plot_internals({"h": X}, row=4))
refuses(
    "map_shape",
    "a picture of places",
    lambda objects: analysis.plot_attended(PICTURES[0], ["a"], [[1.0]], 3),
)
refuses("folder", "captions", lambda objects: datasets.caption_folder(None))
refuses("cell", "checks of a class", lambda objects: testing.check_cell(keras_seq.LSTMCell))


@pytest.mark.deep
@pytest.mark.parametrize(("argument", "call"), ROWS)
def test_what_is_wrong_in_a_call_is_named(argument, call):
    with pytest.raises((TypeError, ValueError, IndexError)) as caught:
        call(made())
    said = re.sub(r"Exception encountered when calling .*\n\n", "", str(caught.value))
    assert re.match(rf"\W*(\[1m)?({argument})\b", said) or f"'{argument}'" in said


def test_pictures_on_another_scale_are_seen():
    with pytest.warns(UserWarning, match=r"images: expected values 0 .. 255, got floats of at most 0\.5"):
        made()["captioner"]._shown(np.full((1, 8, 8, 3), 0.5))


def test_examples_are_made_of_two_arguments_or_of_one_dict():
    translator, captioner = made()["seq2seq"], made()["captioner"]
    (source, _), targets = translator.example({"source": ["a"], "target": ["b"]})
    (also, _), again = translator.example(["a"], ["b"])
    assert (np.array(source) == np.array(also)).all()
    assert (np.array(targets) == np.array(again)).all()
    (_, tokens), _ = captioner.example({"image": PICTURES[0], "captions": ["ab"]})
    (_, same), _ = captioner.example(PICTURES[0], ["ab"])
    assert (np.array(tokens) == np.array(same)).all()


@pytest.mark.parametrize("make", [list, tuple, np.array, tf.constant])
def test_texts_are_a_list_an_array_or_a_tensor(make):
    assert LETTERS.encode(make(["ab", "b"])).shape == (2, 4)


def test_delays_may_be_a_range_and_masks_numbers():
    assert keras_seq.NARX(4, outputs=1, input_delays=range(1, 4)).input_delays == [1, 2, 3]
    layer = made()["LSTM"]
    assert (np.array(layer(X, mask=np.ones((2, 5), "int32"))) == np.array(layer(X))).all()
    assert np.isfinite(made()["TCN"](np.ones((2, 5, 3), "int32"))).all()
