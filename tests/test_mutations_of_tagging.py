"""Faults made on purpose in conditional random fields, spans and their scores."""

import pytest
from mutants import call, caught, crashes, home, module, mutate, named, op, suite

from keras_seq.decoding import crf, crf_chain
from keras_seq.decoding import viterbi as best
from keras_seq.layers import CRF, spans
from keras_seq.metrics import SpanScores, TagAccuracy, tag_accuracy
from keras_seq.metrics import spans as scores_of_spans

pytestmark = [pytest.mark.deep, pytest.mark.mutation]


def fields(test, *given):
    return crashes(suite(f"decoding/test_crf.py::{test}", *given))


def read(row):
    return crashes(suite("layers/test_spans.py::test_reads_as_seqeval_does", *row))


def scored(row):
    return crashes(suite("metrics/test_span_scores.py::test_equal_to_seqeval_however_rows_are_divided", *row))


SEQEVAL, NAMES = module("metrics/test_span_scores.py").SEQEVAL, ["O", "B-a", "I-a", "B-b"]
READ = read(("B-a I-b I-b B-b", [("a", 0, 0), ("b", 1, 2), ("b", 3, 3)]))
LOSS = fields("test_is_the_sum_over_all_sequences_and_its_slopes", None, False)
IMPOSSIBLE = fields("test_what_is_impossible_has_the_loss_inf_and_no_gradient")
LONG = fields("test_a_thousand_steps_in_float32")
MARGINALS = fields("test_marginals_are_sums_over_sequences", None)
BEST = fields("test_viterbi_finds_the_best_sequences_in_order", None, 1, False)
N_BEST = fields("test_viterbi_finds_the_best_sequences_in_order", "BIO", 4, False)
EQUAL = fields("test_of_equal_ways_the_lower_tag")
ALLOWED = crashes(suite("layers/test_spans.py::test_what_the_schemes_allow"))
WEIGHTED = crashes(suite("metrics/test_span_scores.py::test_rows_are_weighted_and_a_metric_can_be_reset"))
NONE = "metrics/test_tag_accuracy.py::test_a_label_that_is_none_is_named_and_in_a_graph_makes_the_score_nan"
COUNTED = crashes(suite("metrics/test_tag_accuracy.py::test_is_the_mean_over_real_steps", "potentials", "rows"))
ALIKE = crashes(suite("metrics/test_span_scores.py::test_tags_scores_and_potentials_are_one"))

MUTANTS = [
    (CRF, "call", op("==", "number", nth=0), "{0} == 2", [LOSS]),
    (CRF, "call", op("+", "potentials", "end"), "{0}", [LOSS]),
    (CRF, "call", call("where", "real"), "{1}", [LOSS]),
    (CRF, "call", call("where", "allowed"), "{1}", [N_BEST]),
    (crf, "crf_loss", call("where", "counted", nth=0), "{1}", [LOSS]),
    (crf, "crf_loss", op("-", "slopes", "there"), "{0}", [LOSS]),
    (crf, "crf_loss", call("any"), "ops.any(outside, axis=1)", [IMPOSSIBLE]),
    (crf, "crf_marginals", call("where"), "{1}", [MARGINALS]),
    (crf_chain, "real_steps", op("-", "eye"), "{1} * 0 + 1", [LOSS]),
    (crf_chain, "check_labels", call("maximum"), "number % 2", [LOSS]),
    (crf_chain, "_in_order", op("+", "number"), "{0} + number // 2", [LOSS]),
    (crf_chain, "log_forward", call("relative"), "{0}", [LONG]),
    (crf_chain, "pair_shares", op("/"), "{0}", [LONG]),
    (crf_chain, "pair_shares", call("iterate"), "iterate({0}, {1}, {2})", [MARGINALS]),
    (home(best), "_best_one", call("relative"), "{0} - {0}", [BEST]),
    (home(best), "_best_one", op("+", "most"), "{0}", [BEST]),
    (home(best), "_place", op("=="), "{0} >= 0", [BEST]),
    (home(best), "_n_best", call("swapaxes"), "{0}", [N_BEST]),
    (home(best), "_n_best", op("%", nth=0), "place * 0", [N_BEST]),
    (home(best), "viterbi", op(">"), "{0} == {0}", [N_BEST]),
    (
        spans,
        "_goes_on",
        op("==", "before", "now"),
        "True",
        [READ],
    ),
    (spans, "allowed_transitions", op("==", "BIO"), "True", [ALLOWED]),
    (SpanScores, "update_state", call("to_front"), "({0}, 0)", [scored(SEQEVAL[0])]),
    (SpanScores, "update_state", op("*", "weight"), "{0}", [WEIGHTED]),
    (tag_accuracy, "predicted_tags", call("logical_and"), "real", [ALIKE]),
    (TagAccuracy, "update_state", call("cast", "real"), "ops.ones_like({0}, dtype=self.dtype)", [COUNTED]),
    (TagAccuracy, "update_state", op("*", "given"), "{0}", [COUNTED]),
    (TagAccuracy, "update_state", op("*", "right"), "{0}", [COUNTED]),
    (SpanScores, "update_state", call("where", "wrong"), "{2}", [crashes(suite(NONE, lambda: SpanScores(NAMES), 4))]),
    (TagAccuracy, "update_state", op("==", "tags"), "{0} != {1}", [COUNTED]),
    (SpanScores, "_spans", op("==", "kind"), "True", [scored(SEQEVAL[0])]),
    (SpanScores, "result", op(">"), "{0} >= 0", [scored(SEQEVAL[4])]),
    (scores_of_spans, "_ratio", call("where", nth=0), "x / y", [WEIGHTED]),
]


def test_nothing_is_caught_without_a_fault():
    for *_, checks in MUTANTS:
        for check in checks:
            check()


@pytest.mark.parametrize(**named(MUTANTS))
def test_killed(owner, name, place, change, checks, monkeypatch):
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        caught(check)
