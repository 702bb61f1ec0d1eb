"""Faults made on purpose in the models, their data and the metrics: each must fail the tests that stand beside it."""

import pathlib
import tempfile

import pytest
from mutants import (
    argument,
    call,
    calls,
    caught,
    choice,
    crashes,
    display,
    home,
    item,
    module,
    mutate,
    named,
    op,
    statement,
    suite,
    without,
)

from keras_seq.decoding import tokens
from keras_seq.layers import chunks
from keras_seq.metrics import BitsPerCharacter, Perplexity, cider_d, corpus_bleu
from keras_seq.models import (
    ImageCaptioner,
    InverseSigmoidDecay,
    LanguageModel,
    LossWatch,
    Seq2Seq,
    Vocabulary,
    endpoints,
    generation,
    small_encoder,
    starts,
)
from keras_seq.training import stream_chunks
from keras_seq.training.carries_states import CarriesStates

pytestmark = [
    pytest.mark.deep,
    pytest.mark.mutation,
    pytest.mark.filterwarnings("ignore:.*shorter than the receptive field", "ignore:.*not in the vocabulary"),
]


def translating(test, *given):
    return suite(f"models/test_seq2seq.py::{test}", *given)


def captioning(test, *given):
    return suite(f"models/test_captioner.py::{test}", *given)


def language(test, *given):
    return suite(f"models/test_language_model.py::{test}", *given)


def streaming(test, *given):
    return suite(f"models/test_stream_batches.py::{test}", *given)


def words(test, *given):
    return suite(f"models/test_vocabulary.py::{test}", *given)


def starting(test, make=None):
    given = () if make is None else (getattr(module("models/test_starts.py"), make),)
    return suite(f"models/test_starts.py::{test}", *given)


def watching(losses):
    said = {str(given): expected for given, expected in module("models/test_watch.py").SAID}
    return suite("models/test_watch.py::test_what_is_said", losses, said[str(losses)])


def likelihood(which, *given):
    metric, scaled = module("metrics/test_likelihood.py").METRICS[which]
    return suite("metrics/test_likelihood.py::test_equal_to_numpy_over_ragged_batches", metric, scaled, *given)


def ids(*given):
    return suite("models/test_ids.py::moves_nothing", *given)


def token_by_token(test):
    """A test of the exported steps of a small model, in a folder of its own."""

    def check():
        with tempfile.TemporaryDirectory() as folder:
            getattr(module("models/test_endpoints.py"), test)("ImageCaptioner, each_step", pathlib.Path(folder))

    return check


def captions(test, *given):
    return suite(f"metrics/test_captions.py::{test}", *given)


DROPPED = {
    Seq2Seq: translating("test_words_and_outputs_are_dropped_in_training_alone"),
    ImageCaptioner: captioning("test_words_and_outputs_are_dropped_in_training_alone"),
    LanguageModel: language("test_dropout_is_on_both_sides_of_the_memory_in_training_only"),
}
ADDITIVE = translating("test_generate_agrees_with_teacher_forcing", "additive")
SURVIVES = "test_every_argument_survives_the_configuration"
CONFIGURED = translating(SURVIVES)
MIXED = translating("test_share_of_true_tokens")
STEPS = translating("test_tokens_are_mixed_in_training_alone_and_its_steps_are_counted")


def read():
    """What the fixture of that test would give it."""
    tests = module("models/test_seq2seq.py")
    tests.test_what_has_been_read_is_summed_up(tests.model())


def options():
    tests = module("models/test_seq2seq.py")
    tests.test_decoders_and_their_options(tests.model())


IGNORED = suite("models/test_ids.py::test_what_the_loss_ignores_and_targets_of_another_kind_are_left_alone")
READ_ALONE = suite("models/test_ids.py::test_sources_are_checked_eagerly_in_graphs_and_compiled", "beam")
SEEDED = suite("models/test_seeds.py::test_a_seed_gives_one_text_by_every_road_and_touches_nothing", "Seq2Seq")
STREAMED = suite("models/test_seeds.py::test_streams_are_what_generate_gives")
PADDED = translating("test_arrays_are_padded_to_multiples")
LOOKS = captioning("test_where_it_looks")
PENALTY = captioning("test_penalty_of_places_left_out")
EXAMPLE = captioning("test_an_example_is_a_picture_and_one_of_its_sentences")
PADDING = language("test_padding_is_no_part_of_the_loss_nor_of_the_memory")
SAMPLES = language("test_samples_are_drawn_anew_or_by_their_seed_and_are_only_what_may_be_written")
ENDS = language("test_streams_end_where_the_text_does_and_go_on_without_a_limit")
CHUNKS = streaming("test_chunks_are_the_whole_and_documents_do_not_know_of_each_other", "LSTM")
CONVOLVED = streaming("test_chunks_are_the_whole_and_documents_do_not_know_of_each_other", "mixture")
GAPS = streaming("test_hidden_steps_within_a_stream_are_skipped")
ONE_ARRAY = streaming("test_one_array_in_streams", 13, 2, 3)
OWN_SPECIAL = words("test_a_list_with_special_tokens_of_its_own")
ENCODED = words("test_encode_and_decode")

MUTANTS = [
    # what all models share
    (LanguageModel, "compile", call("TokenCrossEntropy"), without("ignore_class"), [PADDING]),
    (Seq2Seq, "writable", op("&"), "{0}", [translating("test_padding_and_start_are_never_written")]),
    (Seq2Seq, "writable", op("&"), "{1}", [translating("test_padding_and_start_are_never_written")]),
    (
        LanguageModel,
        "_key",
        choice("seed"),
        "{0}",
        [language("test_a_seed_leaves_the_random_numbers_of_the_model_alone")],
    ),
    (
        Seq2Seq,
        "compiled_tokens",
        call("check_inputs"),
        "None",
        [suite("models/test_ids.py::test_sources_are_checked_eagerly_in_graphs_and_compiled", "greedy")],
    ),
    (Seq2Seq, "_compiled", call("tuple", "fixed"), "()", [crashes(options)]),
    (generation, "_program", call("function", "given"), "function(*inputs, **dict(fixed))", [SEEDED]),
    # training
    (Seq2Seq, "train_step", call("cond"), "move()", [ids("Seq2Seq", "source tokens", -1, "XLA")]),
    (
        Seq2Seq,
        "compute_loss",
        choice("ignored"),
        "{0}",
        [crashes(IGNORED)],
    ),
    (Seq2Seq, "compute_loss", choice("wrong"), "{0}", [ids("Seq2Seq", "targets", 99, "XLA")]),
    (Seq2Seq, "call", call("undefined", nth=0), "{0}", [ids("Seq2Seq", "target tokens", -1, "XLA")]),
    (ImageCaptioner, "call", call("undefined"), "{0}", [ids("ImageCaptioner", "tokens", -1, "XLA")]),
    (LanguageModel, "call", call("undefined"), "{0}", [ids("LanguageModel", "tokens", -1, "XLA")]),
    (
        Vocabulary,
        "check",
        call("where"),
        "{2}",
        [crashes(suite("models/test_ids.py::test_the_logits_of_such_rows_alone_are_nan_and_send_no_gradient"))],
    ),
    (LanguageModel, "_written", call("uniform"), "uniform({0}, {1}, 0 * {2})", [STREAMED]),
    (LanguageModel, "_written", display("min_length"), without("min_length"), [STREAMED]),
    (
        Perplexity,
        "update_state",
        choice("wrong"),
        "{0}",
        [suite("models/test_ids.py::test_metrics_refuse_them", Perplexity, 4)],
    ),
    (LanguageModel, "compiled_texts", op(">"), "{0} >= {1}", [language("test_a_beam_gives_the_best_texts")]),
    (
        ImageCaptioner,
        "generate_strings",
        call("strings"),
        "strings({0}, {1})",
        [crashes(captioning("test_wrong_encoders_pictures_and_prompts_are_named"))],
    ),
    (Seq2Seq, "get_config", choice("schedule"), "{1}", [crashes(CONFIGURED)]),
    (ImageCaptioner, "from_config", op("and"), "False", [crashes(captioning(SURVIVES))]),
    # from sequence to sequence
    (Seq2Seq, "_encoded", call("dropped"), "{0}", [DROPPED[Seq2Seq]]),
    (Seq2Seq, "call", call("dropped", "target_embedding"), "{0}", [DROPPED[Seq2Seq]]),
    (Seq2Seq, "call", call("dropped", within=call("readout")), "{0}", [DROPPED[Seq2Seq]]),
    (Seq2Seq, "_encoded", call("mask_after"), "ops.ones_like({2})", [ADDITIVE]),
    (Seq2Seq, "encode", call("undefined"), "{0}", [READ_ALONE]),
    (Seq2Seq, "_mixed", call("only"), "{1}", [translating("test_what_is_fed_is_never_padding_nor_start")]),
    (
        Seq2Seq,
        "_mixed",
        op("-", 1),
        "{0}",
        [translating("test_fed_with_nothing_but_what_it_draws_it_draws_what_generate_samples", "no attention")],
    ),
    (Seq2Seq, "call", op("and"), "{1}", [STEPS]),
    (Seq2Seq, "_mixed", call("assign_add"), "None", [STEPS]),
    (Seq2Seq, "_mixed", op("<", call("uniform")), "{0} > {1}", [MIXED]),
    (Seq2Seq, "_mixed", call("logical_or"), "{0}", [MIXED]),
    (
        Seq2Seq,
        "_mixed",
        call("take", within=call("draw")),
        argument(1, "0 * {}"),
        [translating("test_what_is_drawn_is_drawn_anew_at_each_place")],
    ),
    (
        Seq2Seq,
        "_started",
        call("logical_not"),
        "ops.zeros_like({0})",
        [read],
    ),
    (Seq2Seq, "_padded", op("-"), "-{1}", [PADDED]),
    (Seq2Seq, "_padded", call("pad"), argument("constant_values", "1"), [PADDED]),
    (Seq2Seq, "example", item(op("neg")), "{0}[:, 1:]", [PADDED]),
    # pictures in words
    (ImageCaptioner, "call", call("dropped", "embedding"), "{0}", [DROPPED[ImageCaptioner]]),
    (ImageCaptioner, "call", call("dropped", within=call("readout")), "{0}", [DROPPED[ImageCaptioner]]),
    (ImageCaptioner, "call", op("*", call("cast")), "{0}", [PENALTY]),
    (ImageCaptioner, "call", op("*", "attention_penalty"), "{1}", [PENALTY]),
    (ImageCaptioner, "start", call("meshgrid"), argument("indexing", "'xy'"), [LOOKS]),
    (ImageCaptioner, "start", display("features", "places"), "[{1}, {0}]", [LOOKS]),
    (ImageCaptioner, "example", call("uniform"), argument("maxval", "1"), [EXAMPLE]),
    (ImageCaptioner, "example", item(op("neg")), "{0}[1:]", [EXAMPLE]),
    (
        home(small_encoder),
        "small_encoder",
        call("max", "image_shape"),
        calls("min"),
        [captioning("test_a_small_encoder_is_small_on_both_sides")],
    ),
    (
        home(small_encoder),
        "small_encoder",
        call("Conv2D"),
        without("data_format"),
        [captioning("test_channels_stand_last_whatever_keras_is_set_to", None)],
    ),
    # endpoints
    (endpoints, "one_token", call("undefined"), "{0}", [token_by_token("test_steps_in_litert")]),
    (
        endpoints,
        "one_token",
        display("undefined"),
        "[{0}, *carried[:3]]",
        [token_by_token("test_steps_of_a_saved_model")],
    ),
    # language models
    (LanguageModel, "logits", op("+"), "{0}", [language("test_equations", True)]),
    (LanguageModel, "call", call("dropped", "embedding"), "{0}", [DROPPED[LanguageModel]]),
    (LanguageModel, "call", call("dropped", within=call("logits")), "{0}", [DROPPED[LanguageModel]]),
    (LanguageModel, "call", call("not_equal"), "ops.ones_like({0}, dtype='bool')", [GAPS]),
    (CarriesStates, "carry", call("where"), "ops.where({0}, {2}, {1})", [CHUNKS]),
    (CarriesStates, "carry", call("assign"), "None", [CHUNKS]),
    (
        CarriesStates,
        "carry",
        call("_kept_states"),
        argument(0, "False"),
        [streaming("test_training_and_everything_else_carry_states_of_their_own")],
    ),
    (LanguageModel, "_allowed", call("logical_and"), "{0}", [SAMPLES]),
    (LanguageModel, "stream", op("*", "separator"), "{0}", [ENDS]),
    (LanguageModel, "stream", op("<"), "{0} <= {1}", [ENDS]),
    (LanguageModel, "streams", call("concatenate"), "{0.1}", [streaming("test_streams_of_texts")]),
    (home(stream_chunks), "packed", op("-", "at"), "{0}", [crashes(streaming("test_documents_in_streams"))]),
    (home(stream_chunks), "packed", statement("starts", 1), "pass", [crashes(ONE_ARRAY)]),
    (home(stream_chunks), "packed", op(">="), "{0} > {1}", [ONE_ARRAY]),
    (chunks, "run_chunk", call("where", op("+")), "ops.where({0}, {2}, {1})", [GAPS]),
    (
        chunks,
        "run_chunk",
        call("concatenate", nth=1),
        "ops.concatenate([ops.ones_like({0.0}), {0.1}], axis=1)",
        [CONVOLVED],
    ),
    # vocabularies
    (Vocabulary, "decode", op("|", "pad", nth=0), "{0}", [OWN_SPECIAL]),
    (Vocabulary, "decode", op("|", "start"), "{0}", [ENCODED]),
    (Vocabulary, "decode", call("cumsum"), "{0}", [words("test_edges_by_choice_and_empty_sentences")]),
    (Vocabulary, "encode", call("to_tensor", "pad"), argument(0, "0"), [OWN_SPECIAL]),
    (Vocabulary, "encode", op("*", "end"), "{0} * self.start", [ENCODED]),
    (
        tokens,
        "checked",
        op(">=", nth=0),
        "{0} > {1}",
        [crashes(words("test_tokens_that_are_none_are_named", [[4, 14]]))],
    ),
    (Vocabulary, "of", op("neg"), "{0}", [words("test_words_by_frequency_then_alphabet")]),
    (Vocabulary, "get_config", display("special"), without("special"), [crashes(OWN_SPECIAL)]),
    (Vocabulary, "get_config", display("split"), without("split"), [words("test_config_survives")]),
    (Vocabulary, "of", call("len", nth=-1), "0", [starting("test_vocabularies_count")]),
    (Vocabulary, "get_config", display("counts"), without("counts"), [starting("test_vocabularies_count")]),
    # starts
    (starts, "log_frequencies", op("+"), "{0}", [starting("test_the_readout_starts_with_the_frequencies", "seq2seq")]),
    (starts, "log_frequencies", op("/"), "{0}", [starting("test_the_readout_starts_with_the_frequencies", "tied")]),
    (
        starts.Starts,
        "new_embedding",
        call("copied"),
        "{0}",
        [starting("test_vectors_are_of_the_size_that_learns", "seq2seq")],
    ),
    (
        LanguageModel,
        "__init__",
        op("**"),
        "1.0",
        [starting("test_vectors_are_of_the_size_that_learns", "tied")],
    ),
    (LossWatch, "on_epoch_end", op("-", "least"), "{0}", [watching([4.0, 3.99, 3.98, 3.97])]),
    (LossWatch, "on_epoch_end", call("min"), "now", [watching([4.0, 3.0, 4.0])]),
    # schedules and configurations
    (InverseSigmoidDecay, "__call__", op("-"), "{0} + {1}", [translating("test_schedules")]),
    (InverseSigmoidDecay, "get_config", display("k"), "{'k': 2 * {0}}", [translating("test_schedules")]),
    # metrics
    (Perplexity, "update_state", call("where", "pad"), "{2}", [likelihood(0, 0, "none")]),
    (Perplexity, "update_state", op(">"), "{0} >= {1}", [likelihood(0, 0, "none")]),
    (Perplexity, "update_state", op("*", within=call("sum")), "{0}", [likelihood(0, 3, "token")]),
    (
        Perplexity,
        "update_state",
        call("sum", nth=-1),
        "ops.sum(ops.ones_like({0}))",
        [likelihood(0, 0, "none")],
    ),
    (
        Perplexity,
        "get_config",
        display("pad"),
        without("pad"),
        [suite("metrics/test_likelihood.py::test_saved_by_its_configuration", Perplexity)],
    ),
    (BitsPerCharacter, "scaled", op("/"), "{0}", [likelihood(1, 0, "none")]),
    (home(cider_d), "cider_d", op("/", call("len", nth=0), nth=0), "{0}", [captions("test_cider_by_hand")]),
    (home(cider_d), "cider_d", op("neg"), "{0}", [captions("test_cider_by_hand")]),
    (home(cider_d), "_clipped_cosine", call("min"), calls("max"), [captions("test_cider_by_hand")]),
    (home(cider_d), "_ngrams", op("+", 1), "{0}", [captions("test_cider_by_hand")]),
    (
        home(corpus_bleu),
        "corpus_bleu",
        call("BLEU"),
        without("max_ngram_order"),
        [captions("test_bleu_takes_the_nearest_reference_length")],
    ),
    (
        home(corpus_bleu),
        "corpus_bleu",
        call("BLEU"),
        without("tokenize"),
        [captions("test_bleu_divides_words_at_white_space_only")],
    ),
    (
        home(corpus_bleu),
        "corpus_bleu",
        call("BLEU"),
        without("smooth_method"),
        [captions("test_no_n_gram_in_common_scores_nothing")],
    ),
]

# they change nothing that anyone can see
EQUIVALENTS = [
    (
        chunks,
        "first_state",
        op("-", 1),
        "{0}",
        [CONVOLVED],
        "an input more than is needed is carried along, and not looked at",
    ),
]


@pytest.mark.parametrize(**named(MUTANTS))
def test_killed(owner, name, place, change, checks, monkeypatch):
    assert checks
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        caught(check)


@pytest.mark.parametrize(**named(EQUIVALENTS))
def test_equivalents_live(owner, name, place, change, checks, monkeypatch):
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        check()
