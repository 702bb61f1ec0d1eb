"""BLEU and CIDEr-D against published scores and against the formulas by hand."""

import json
import math

import pytest

from keras_seq.metrics import cider_d, corpus_bleu


@pytest.fixture(scope="module")
def published(data_folder):
    """1000 generated captions with their references, already tokenised, and the scores they are known to have."""
    folder = data_folder("coco_caption_ref")
    items = json.loads((folder / "fakecap_tokenized_hyp_refs.json").read_text())
    scores = json.loads((folder / "expected_scores.json").read_text())
    return [item["test"] for item in items], [item["refs"] for item in items], scores


def test_bleu_of_the_coco_caption_example(published):
    hypotheses, references, _ = published
    assert len(hypotheses) == 1000
    assert len(set(map(len, references))) > 1  # ragged
    for order, expected in enumerate((0.5794, 0.4044, 0.2785, 0.1908), start=1):
        assert corpus_bleu(hypotheses, references, order) == pytest.approx(expected, abs=5e-5)
    assert corpus_bleu(hypotheses, references) == corpus_bleu(hypotheses, references, max_order=4)


def test_cider_of_the_coco_caption_example(published):
    """The document frequencies are those of the references of these 1000 images."""
    hypotheses, references, scores = published
    expected = scores["coco_caption_fakecap"]["recomputed_here_independently"][
        "CIDEr_D_clip_sigma6_df_over_1000_images"
    ]
    assert expected == pytest.approx(0.59979, abs=1e-5)
    assert cider_d(hypotheses, references) == pytest.approx(expected, abs=1e-8)


def test_scores_of_nlg_eval(published):
    """Its BLEU puts a tiny number where no n-gram agrees, so orders it scores below 0.001 are 0 here."""
    compared = 0
    for case in published[2]["nlg_eval"]["cases"]:
        for order in range(1, 5):
            ours, theirs = corpus_bleu(case["hyps"], case["refs"], order), case[f"Bleu_{order}"]
            assert ours == pytest.approx(theirs, abs=2e-6) if theirs > 1e-3 else ours == 0
            compared += theirs > 1e-3
        assert cider_d(case["hyps"], case["refs"]) == pytest.approx(case["CIDEr"], abs=1e-6)
    assert compared >= 8


def test_bleu_takes_the_nearest_reference_length():
    hypothesis = "a b c d e f"
    assert corpus_bleu([hypothesis], [[hypothesis + " g h", hypothesis + " g h i j"]], 2) == pytest.approx(
        math.exp(1 - 8 / 6)
    )
    assert corpus_bleu([hypothesis], [["a b c d e f g h", "a b c d"]], 1) == pytest.approx(1.0)  # a tie: the shorter
    assert corpus_bleu(["a a a b"], [["a b"]], 1) == pytest.approx(
        2 / 4
    )  # an n-gram counts as often as a reference has it


def test_bleu_divides_words_at_white_space_only():
    assert corpus_bleu(["a dog, b c d"], [["a dog , b c d"]], 1) == pytest.approx(4 / 5 * math.exp(1 - 6 / 5))
    assert corpus_bleu(["A dog  runs here"], [["A dog\truns here"]]) == pytest.approx(1.0)
    assert corpus_bleu(["A dog"], [["a dog"]], 1) == pytest.approx(0.5)


def test_no_n_gram_in_common_scores_nothing():
    assert corpus_bleu(["a b c", ""], [["d e f"], ["a"]]) == 0
    assert corpus_bleu(["a b c"], [["a b c"]]) == 0  # no word group of four
    assert corpus_bleu(["a b"], [["a c"]], 2) == 0  # words in common, but no group of two
    assert cider_d(["a b c d e", ""], [["f g h i"], ["k l", "m"]]) == 0


def test_cider_by_hand():
    """Each item's references hold words of their own, so each weighs log 2, and each norm is log 2 times a root."""
    references = [["a b c d"], ["e f g h", "i k l m"]]
    assert cider_d(["a b c d", "e f g h"], references) == pytest.approx((10 + 5) / 2)
    # "a a b b" against "a b": words count once each, one of its three pairs is held; the length is off by two
    clipped = cider_d(["a a b b", ""], [["a b"], ["c"]])
    assert clipped == pytest.approx(10 / 2 * math.exp(-(2**2) / 72) * (2 / math.sqrt(8 * 2) + 1 / math.sqrt(3)) / 4)
    common = cider_d(["the a", "the b"], [["the a"], ["the b"]])
    assert common == pytest.approx(10 * 2 / 4)  # 'the' is everywhere and weighs nothing; no groups of three or four
    assert cider_d(["the c", "the b"], [["the a"], ["the b"]]) == pytest.approx(
        10 * 2 / 4 / 2
    )  # it is nothing to share


def test_cider_is_independent_of_the_order_of_references():
    hypotheses = ["a man rides a wave", "two dogs on the grass"]
    references = [["a man on a wave", "a surfer rides a big wave"], ["dogs on grass", "two dogs play", "the grass"]]
    turned = [own[::-1] for own in references]
    assert cider_d(hypotheses, references) == pytest.approx(cider_d(hypotheses, turned))
    assert 0 < cider_d(hypotheses, references) < 10


@pytest.mark.parametrize("score", [corpus_bleu, cider_d])
@pytest.mark.parametrize(
    ("hypotheses", "references", "error", "message"),
    [
        (["a"], [["a"], ["b"]], ValueError, "references: expected one item a hypothesis, 1, got 2"),
        ([], [], ValueError, "hypotheses: expected at least one item"),
        (["a"], [], ValueError, "references: expected at least one item"),
        (["a", "b"], [["a"], []], ValueError, r"references\[1\]: expected at least one reference"),
        ("a", [["a"]], TypeError, "hypotheses: expected a list, got str"),
        (["a"], "a", TypeError, "references: expected a list, got str"),
        (["a"], ["a"], TypeError, r"references\[0\]: expected a list of strings, got str"),
        ([["a"]], [["a"]], TypeError, r"hypotheses\[0\]: expected a string, got list"),
        (["a"], [["a", None]], TypeError, r"references\[0\]: expected strings, got NoneType"),
    ],
)
def test_wrong_inputs_are_named(score, hypotheses, references, error, message):
    with pytest.raises(error, match=message):
        score(hypotheses, references)


@pytest.mark.parametrize(("order", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)])
def test_wrong_orders_are_named(order, error):
    with pytest.raises(error, match="max_order: expected"):
        corpus_bleu(["a"], [["a"]], order)
