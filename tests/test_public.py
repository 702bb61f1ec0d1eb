"""The public surface: what is in it, and that everything in it says what it does and does what it says."""

import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import pytest
from code_blocks import code_blocks

import keras_seq

SURFACE = {
    "keras_seq": [
        "AR",
        "CRF",
        "GRU",
        "LRU",
        "LSTM",
        "LinearRNN",
        "LinearRNNCell",
        "MinGRU",
        "MinGRUCell",
        "MinLSTM",
        "MinLSTMCell",
        "LRUCell",
        "NARX",
        "Newton",
        "RNN",
        "TCN",
        "TDNN",
        "ARCell",
        "AttentionCell",
        "Bidirectional",
        "Cell",
        "ConditionedCell",
        "CoupledLSTM",
        "CoupledLSTMCell",
        "Elman",
        "ElmanCell",
        "FeedbackCell",
        "GRUCell",
        "GraphRecurrent",
        "GatedCell",
        "Jordan",
        "JordanCell",
        "LSTMCell",
        "LastStep",
        "MaskedMax",
        "MaskedMean",
        "NARXCell",
        "NoForgetLSTM",
        "NoForgetLSTMCell",
        "PeepholeLSTM",
        "PeepholeLSTMCell",
        "ReadoutCell",
        "RecursiveNN",
        "ResidualRNN",
        "ResidualRNNCell",
        "SimpleRNN",
        "SimpleRNNCell",
        "Stacked",
        "StepForm",
        "Stream",
        "TreeLSTM",
        "WaveNet",
        "dot",
        "expose",
        "format_trees",
        "mu_law_decode",
        "mu_law_encode",
        "parse_trees",
        "spans_to_tags",
        "streaming",
        "tags_to_spans",
    ],
    "keras_seq.decoding": [
        "CRFLoss",
        "CTCLoss",
        "ViterbiTags",
        "beam_search",
        "crf_check_labels",
        "crf_loss",
        "crf_marginals",
        "ctc_align",
        "ctc_beam_search",
        "ctc_check_labels",
        "ctc_greedy",
        "ctc_loss",
        "feed_back",
        "greedy",
        "sample",
        "viterbi",
    ],
    "keras_seq.models": [
        "ImageCaptioner",
        "InverseSigmoidDecay",
        "LanguageModel",
        "LossWatch",
        "Seq2Seq",
        "Vocabulary",
        "small_encoder",
        "stream_batches",
    ],
    "keras_seq.datasets": ["DrawnScenes", "HumanDates", "caption_folder"],
    "keras_seq.analysis": [
        "bibo_certificate",
        "block_split",
        "contraction_certificate",
        "ensemble_interval",
        "fit_arx",
        "fit_percentage",
        "fixed_points",
        "forecast_errors",
        "gradient_flow",
        "interleaved_split",
        "linear_response",
        "lyapunov_spectrum",
        "memory_curves",
        "memory_length",
        "newton_report",
        "plot_alignment",
        "plot_attended",
        "plot_correlation",
        "plot_forecast_errors",
        "plot_forecasts",
        "plot_gate",
        "plot_gradient_flow",
        "plot_internals",
        "plot_lyapunov_spectrum",
        "plot_memory_curves",
        "plot_spectrum",
        "plot_state_gradients",
        "quantile_interval",
        "residual_tests",
        "select_orders",
        "stability_report",
        "state_gradients",
        "step_jacobians",
        "step_spectrum",
        "superposition_error",
    ],
    "keras_seq.testing": ["check_cell"],
    "keras_seq.training": [
        "BlockIdentity",
        "GradientMonitor",
        "LevenbergMarquardt",
        "OnlineLearner",
        "PinballLoss",
        "RTRL",
        "SnAp1",
        "SpectralRadiusConstraint",
        "SpectralRadiusInitializer",
        "SpectralRadiusRegularizer",
        "UORO",
        "TruncatedBPTT",
        "fit_distributed",
        "free_run_pieces",
        "stream_chunks",
        "worker_strategy",
    ],
    "keras_seq.metrics": ["BitsPerCharacter", "Perplexity", "SpanScores", "TagAccuracy", "cider_d", "corpus_bleu"],
}
ABSTRACT = {"Cell", "GatedCell", "ReadoutCell", "FeedbackCell"}
PUBLIC = [(module, name) for module, names in SURFACE.items() for name in names]
ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("module", SURFACE)
def test_public_names_are_the_written_ones(module):
    assert sorted(importlib.import_module(module).__all__) == sorted(SURFACE[module])


LATER = ["analysis", "datasets", "models", "testing", "training"]
COMPILED = ["BitsPerCharacter", "CRFLoss", "CTCLoss", "Perplexity", "SpanScores", "TagAccuracy", "ViterbiTags"]
LIGHT = f"""
import sys, keras
before = set(sys.modules)
import keras_seq
new = set(sys.modules) - before
assert not {{m for m in new if m.split(".")[0] != "keras_seq"}}, new
assert not {{m for m in new if m.split(".")[1:2] and m.split(".")[1] in {LATER}}}, new
assert set({LATER}) <= set(dir(keras_seq))
for name in {COMPILED}:  # in files of compiled models
    assert keras.saving.get_registered_object(f"keras_seq>{{name}}"), name
for name in {LATER}:
    assert getattr(keras_seq, name) is sys.modules[f"keras_seq.{{name}}"]
"""


@pytest.mark.deep
def test_the_import_brings_nothing_but_layers_and_the_rest_on_first_use():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_another_attribute_is_refused_by_name():
    with pytest.raises(AttributeError, match="'keras_seq' has no attribute 'modles'"):
        keras_seq.modles  # noqa: B018


@pytest.mark.parametrize(
    ("call", "extra"),
    [
        (lambda: keras_seq.analysis.plot_alignment([[1.0]]), "plots"),
        (lambda: keras_seq.analysis.residual_tests([0.0, 1.0, 0.0], lags=1), "analysis"),
        (lambda: keras_seq.metrics.corpus_bleu(["a"], [["a"]]), "scores"),
        (lambda: importlib.reload(keras_seq.datasets.dates), "datasets"),
    ],
)
def test_what_a_plain_install_lacks_is_named_with_its_extra(call, extra, monkeypatch):
    for package in ("matplotlib", "sacrebleu", "scipy", "tensorflow_datasets"):
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"is not installed: pip install keras_seq\[{extra}\]"):
        call()


@pytest.mark.deep
@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_docstrings_are_there_and_their_examples_run(module, name):
    doc = inspect.getdoc(getattr(importlib.import_module(module), name))
    assert doc
    blocks = code_blocks(doc)
    assert blocks
    if module == "keras_seq.datasets":
        return  # they need files of the reader's own, or build the data set in the reader's home
    for block in blocks:
        exec(compile(block, f"example of {name}", "exec"), {})


@pytest.mark.parametrize(
    "module", ["keras_seq.datasets.dates", "keras_seq.datasets.scenes", "keras_seq.metrics.captions"]
)
def test_examples_print_what_they_show(module, capsys):
    functions = inspect.getmembers(importlib.import_module(module), inspect.isfunction)
    blocks = [b for _, f in functions if f.__module__ == module for b in code_blocks(inspect.getdoc(f) or "")]
    assert blocks
    for block in blocks:
        exec(compile(block, module, "exec"), {})
        shown = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
        assert capsys.readouterr().out.splitlines() == shown
        assert shown


@pytest.mark.deep
def test_the_code_of_the_readme_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = code_blocks((ROOT / "README.md").read_text())
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert "(2, 10, 32)" in capsys.readouterr().out


def test_every_class_is_registered_for_saving():
    import keras

    for name in keras_seq.__all__:
        cls = getattr(keras_seq, name)
        if inspect.isclass(cls) and issubclass(cls, keras.layers.Layer) and name not in ABSTRACT:
            assert keras.saving.get_registered_name(cls) == f"keras_seq>{name}"
