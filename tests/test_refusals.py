"""Whatever is wrong is refused by its name, everywhere on the public surface, and what is taken means something."""

import inspect
import re
import warnings

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq import decoding, metrics
from keras_seq.cells.arguments import arguments
from keras_seq.models import (
    ImageCaptioner,
    InverseSigmoidDecay,
    LanguageModel,
    Seq2Seq,
    Vocabulary,
    small_encoder,
    stream_batches,
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
    **{name: {"1.5"} for name in ("cell_clip", "k")},
    **{name: {"(1, 2)"} for name in ("input_delays", "output_delays", "dilations", "context", "pad_to")},
    **{name: {"None"} for name in ("merge_mode", "reduction", "features")},
    "use_cudnn": {"True"},
    "documents": {"(1, 2)", "array"},
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
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    call(**{**right, argument: value})
            except (TypeError, ValueError) as error:
                if not (re.search(rf"\b{argument}\b", str(error)) and re.search("expected|unknown", str(error), re.I)):
                    from_below.append((argument, shown, str(error)[:80]))
            else:
                if not means_something(argument, shown, default):
                    in_silence.append((argument, shown))
    assert not from_below
    assert not in_silence
