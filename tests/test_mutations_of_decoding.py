"""Faults made on purpose in the decoders and in CTC: each must fail the tests that stand beside it."""

import pytest
from mutants import (
    argument,
    call,
    caught,
    constant,
    display,
    home,
    mutate,
    named,
    op,
    suite,
    without,
)

from keras_seq.decoding import (
    CTCLoss,
    beam_search,
    ctc_align,
    ctc_beam_search,
    ctc_greedy,
    ctc_lattice,
    ctc_loss,
    feed_back,
    greedy,
    random,
    sample,
    tokens,
)

pytestmark = [pytest.mark.deep, pytest.mark.mutation]

CONSTRAINTS = tokens.DecodingConstraints
LOOP = suite("decoding/test_greedy.py::test_equals_a_loop_over_rows", 1, 3)
LIMITS = suite("decoding/test_sampling.py::test_limits_of_both")
ROWS = suite("decoding/test_sampling.py::test_each_row_has_its_own_limits")


def wrong(message, **arguments):
    return suite("decoding/test_sampling.py::test_wrong_arguments_are_named", arguments, message)


def cut(kept, **arguments):
    return suite(
        "decoding/test_sampling.py::test_what_is_cut_is_never_drawn_and_the_rest_keeps_its_shares", arguments, kept
    )


def beam(test, *given):
    return suite(f"decoding/test_beam.py::{test}", *given)


def wrong_prompt(wrong):
    prompt = [[-1, 1, 1], [2, 3, 1]] if wrong < 0 else [[2, 4, wrong], [2, 3, 1]]
    return suite("decoding/test_sampling.py::test_prompts_in_graphs_are_checked", greedy, prompt)


def lost(decode):
    return suite("decoding/test_sampling.py::test_a_row_ends_where_its_logits_are_nan", decode, 0)


def beam_of_three(*given, **arguments):
    """By its name, so that it may be another."""
    return home(beam_search).beam_search(*given, width=3, n_best=2, **arguments)


WRONG_BEAMS = suite(
    "decoding/test_sampling.py::test_prompts_in_graphs_are_checked",
    beam_of_three,
    [[2, 4, 9], [2, 3, 1]],
)
CIPHER = suite("decoding/test_random.py::test_known_answers", False)
UNIFORM = suite("decoding/test_random.py::test_uniform_in_rows_steps_and_seeds")
NEXT = suite("decoding/test_random.py::test_generators_are_asked_for_their_next")
SAME = suite("decoding/test_random.py::test_the_same_however_they_are_computed")
SHARES = suite("decoding/test_sampling.py::test_shares_are_the_probabilities", 0.5)
NUMBERS = suite("decoding/test_sampling.py::test_which_number_stands_for_which_token")
PENALTIES = beam("test_equals_a_beam_written_out", 0, 0.7)
PROMPTS = beam("test_prompts_of_different_lengths")
REPEATS = beam("test_limits", {"no_repeat": 2, "max_length": 9})
UNCOVERED = beam("test_it_goes_on_for_what_may_still_be_covered")
COVERAGE = beam("test_limits", {"coverage_penalty": 2.0})
FED = suite("decoding/test_rollout.py::test_feed_makes_the_next_input")
ENDED = suite("decoding/test_rollout.py::test_rows_end", False)
LOSS = suite("decoding/test_ctc.py::test_is_the_sum_over_all_paths_and_its_slopes", 0, 0, False)
BEST_PATH = suite("decoding/test_ctc_beam.py::test_greedy_is_the_best_path", 1, 4, 2)
ALL_LABELS = suite(
    "decoding/test_ctc_beam.py::test_a_beam_that_holds_all_gives_all_labels_with_their_probabilities",
    3,
    0,
    4,
    31,
    False,
)
ALIGNED = suite("decoding/test_ctc_align.py::test_is_the_best_of_all_paths_that_collapse_to_the_labels", 0, 0, False)
CTC_ARGUMENTS = suite("decoding/test_ctc.py::test_arguments_of_the_loss")
CTC_LABELS = suite("decoding/test_ctc.py::test_labels_are_checked_by_how_many_frames_a_path_needs", 0)

MUTANTS = [
    # single hypotheses
    (home(greedy), "greedy", call("likeliest"), "likeliest(-{0})", [LOOP]),
    (tokens, "decode_loop", call("where", op("==", "pad")), "ops.where({0}, {2}, {1})", [LOOP]),
    (tokens, "decode_loop", call("take"), argument(1, "{} - 1"), [LOOP]),
    (tokens, "decode_loop", call("logical_or", op("==", "end")), "{0}", [LIMITS]),
    (tokens, "decode_loop", call("logical_or", "at_limit", nth=0), "{0}", [ROWS]),
    (CONSTRAINTS, "mask_logits", op("-", "least"), "{0}", [LIMITS]),
    (CONSTRAINTS, "mask_logits", op("==", "end"), "{0} == self.pad", [LIMITS]),
    (CONSTRAINTS, "mask_logits", call("logical_and", "reshape"), "{0}", [LIMITS]),
    (CONSTRAINTS, "at_limit", op(">="), "{0} > {1}", [ROWS]),
    (CONSTRAINTS, "call_step", op("<="), "0 <= {1} <= {2}", [wrong("pad: expected a token of the 5 .*, got 5", pad=5)]),
    (
        CONSTRAINTS,
        "_counts",
        op("|"),
        "{0}",
        [wrong("min_length: expected integers from 0 to max_length=3, got 4", min_length=4)],
    ),
    (
        CONSTRAINTS,
        "__init__",
        op(">"),
        "{0} < {1}",
        [wrong("min_length: expected at most max_lengths", min_length=[1, 3], max_lengths=[1, 2])],
    ),
    (
        CONSTRAINTS,
        "_check_tokens",
        op(">="),
        "{0} > {1}",
        [wrong("prompt: expected tokens 0 .. 4", prompt=[[1, 5], [1, 1]])],
    ),
    # what is no token, and what is no number
    (tokens, "checked", op("<", nth=1), "False", [wrong_prompt(-1)]),
    (tokens, "checked", op(">=", nth=1), "{0} > 2 * {1}", [wrong_prompt(9)]),
    (tokens, "checked", call("Assert"), "tf.no_op()", [wrong_prompt(9)]),
    (CONSTRAINTS, "call_step", call("undefined"), "{0}", [wrong_prompt(9)]),
    (tokens, "decode_loop", call("logical_or", "broken"), "{0}", [lost(greedy)]),
    (home(beam_search), "beam_search", call("logical_and", "broken"), "ops.zeros_like({1})", [lost(beam_of_three)]),
    (home(beam_search), "beam_search", call("where", "isnan"), "{2}", [WRONG_BEAMS]),
    # random numbers
    (random, "threefry", op("+", 1, nth=0), "{0}", [CIPHER]),
    (random, "threefry", call("bitwise_xor", "PARITY"), "{0}", [CIPHER]),
    (random, "_shifted", call("bitwise_and"), "{0}", [CIPHER]),
    (random, "_shifted", op("-", 1), "{0}", [CIPHER]),
    (random, "uniform", call("_shifted"), "{0}", [UNIFORM]),
    (random, "uniform", call("cast", "step"), "0 * {0}", [UNIFORM]),
    (random, "uniform", call("cast", "row"), "0 * {0}", [UNIFORM]),
    (random, "key_of", call("zeros_like"), "ops.ones_like({0})", [SAME]),
    (random, "key_of", call("next"), "seed.state.value", [NEXT]),
    # sampling
    (home(sample), "drawn_tokens", op("<", "top_p"), "{0} <= {1}", [NUMBERS]),
    (home(sample), "drawn_tokens", op("-", "cumsum"), "{0}", [cut([2, 3, 4], top_p=0.71)]),
    (home(sample), "drawn_tokens", op("or", "size"), "{1}", [cut([2, 3, 4], top_k=3)]),
    (home(sample), "drawing", op("/"), "{0} * {1}", [SHARES]),
    (
        home(sample),
        "sample",
        call("take"),
        argument(1, "0 * {}"),
        [suite("decoding/test_sampling.py::test_steps_and_rows_are_drawn_apart")],
    ),
    (home(sample), "_first_above", op("<="), "{0} < {1}", [NUMBERS]),
    # beams
    (home(beam_search), "beam_search", op("+", 5.0), "4.0 + {1}", [PENALTIES]),
    (
        home(beam_search),
        "beam_search",
        call("where", within=call("max")),
        argument(2, "{0}"),
        [beam("test_the_limit_of_a_row_decides_what_an_open_sequence_can_still_reach")],
    ),
    (home(beam_search), "beam_search", call("logical_not", within=op("+")), "{0}", [PENALTIES]),
    (home(beam_search), "beam_search", call("logical_or", op("!=", "pad")), "{0}", [PROMPTS]),
    (home(beam_search), "beam_search", call("logical_or", op("==", "end"), nth=0), "{0}", [UNCOVERED]),
    (home(beam_search), "beam_search", call("logical_or", op("==", "end"), nth=2), "{0}", [PENALTIES]),
    (home(beam_search), "beam_search", call("take", 0), "{0}", [PENALTIES]),
    (home(beam_search), "beam_search", call("take_along_axis", nth=2), "{0}", [PENALTIES]),
    (home(beam_search), "beam_search", call("where", "inf"), "ops.zeros((width,))", [PENALTIES]),
    (home(beam_search), "_would_repeat", op("<"), "{0} <= {1}", [beam("test_limits", {"no_repeat": 1})]),
    (home(beam_search), "_would_repeat", op(">=", "back"), "{0} > {1}", [REPEATS]),
    (home(beam_search), "_would_repeat", op(">=", "n"), "{0} > {1}", [REPEATS]),
    (home(beam_search), "_log_coverage", constant(1.0), "2.0", [COVERAGE]),
    # outputs fed back
    (home(feed_back), "feed_back", op("<"), "{0} <= {1}", [FED]),
    (home(feed_back), "feed_back", call("logical_or"), "{1}", [ENDED]),
    (home(feed_back), "feed_back", call("where"), "{2}", [ENDED]),
    # CTC
    (ctc_lattice, "may_skip", call("logical_and"), "{0}", [LOSS, ALIGNED]),
    (ctc_lattice, "arrivals", call("moved", 2), argument(1, "1"), [LOSS, ALIGNED]),
    (ctc_lattice, "lattice", call("where", "seen"), "{1}", [LOSS, ALIGNED]),
    (ctc_lattice, "emitted", call("where"), "{1}", [suite("decoding/test_ctc.py::test_labels_outside_the_vocabulary")]),
    (ctc_lattice, "to_front", op("+"), "{0}", [LOSS]),
    (ctc_lattice, "posteriors", call("where", "seen"), "{1}", [LOSS]),
    (ctc_lattice, "posteriors", op("+", op("neg", 2)), "{0}", [LOSS]),
    (ctc_lattice, "posteriors", call("moved", op("neg", 1)), "{0}", [LOSS]),
    (home(ctc_loss), "ctc_loss", op("+", "logsumexp"), "{0}", [LOSS]),
    (home(ctc_loss), "ctc_loss", call("logical_or"), "{0}", [LOSS]),
    (home(ctc_loss), "ctc_loss", op("-", "softmax"), "{0} + {1}", [LOSS]),
    (home(ctc_loss), "ctc_loss", call("logical_and", op(">")), "{0}", [LOSS]),
    (home(ctc_loss), "ctc_check_labels", op("+", within=op(">")), "{0}", [CTC_LABELS]),
    (home(ctc_loss), "ctc_check_labels", op("==", op("neg")), "{0} != {1}", [CTC_LABELS]),
    (CTCLoss, "get_config", display("zero_infinity"), without("zero_infinity"), [CTC_ARGUMENTS]),
    (home(ctc_greedy), "ctc_greedy", call("logical_and"), "{0}", [BEST_PATH]),
    (home(ctc_greedy), "ctc_greedy", call("pad"), argument("constant_values", "0"), [BEST_PATH]),
    (home(ctc_greedy), "_shares", call("where", nth=0), "{2}", [ALL_LABELS]),
    (home(ctc_greedy), "_shares", call("logaddexp", "logsumexp"), "{0}", [ALL_LABELS]),
    (home(ctc_greedy), "_begins", call("logical_and"), "{0}", [ALL_LABELS]),
    (
        home(ctc_beam_search),
        "ctc_beam_search",
        op("+", "beta", "alpha"),
        "{0}",
        [suite("decoding/test_ctc_beam.py::test_a_language_model", 1.5, 2.0, 3)],
    ),
    (home(ctc_align), "ctc_align", call("where", call("gather")), "{1}", [ALIGNED]),
    (home(ctc_align), "ctc_align", call("iterate"), without("reverse"), [ALIGNED]),
    (home(ctc_align), "ctc_align", op("==", op("%")), "{0} == 0", [ALIGNED]),
]
# they change nothing that anyone can see
EQUIVALENTS = [
    (
        home(sample),
        "_first_above",
        call("minimum"),
        "{0}",
        [NUMBERS],
        "a float32 below 1 times the sum of the shares is always below that sum: rounding does not lead past the last token",
    ),
    (
        tokens,
        "decode_loop",
        op("<"),
        "{0} <= {1}",
        [LOOP, ROWS],
        "every row is at its limit before that, and the loop has stopped",
    ),
    (
        ctc_lattice,
        "states_of",
        call("logical_and"),
        "{0}",
        [LOSS, ALIGNED],
        "without labels the last label would be state -1, and there is none",
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
