"""Spans and tags: one is the other, and reading is that of seqeval."""

import itertools

import numpy as np
import pytest

import keras_seq
from keras_seq import spans_to_tags, tags_to_spans
from keras_seq.layers.spans import allowed_transitions

# what seqeval 1.2.2 finds (`get_entities`), its last step included, in tags that keep to no scheme
SEQEVAL = [
    ("I-a I-a O I-b", [("a", 0, 1), ("b", 3, 3)]),
    ("B-a I-b I-b B-b", [("a", 0, 0), ("b", 1, 2), ("b", 3, 3)]),
    ("S-a I-a E-a E-a", [("a", 0, 0), ("a", 1, 2), ("a", 3, 3)]),
    ("B-a E-a I-a S-a", [("a", 0, 1), ("a", 2, 2), ("a", 3, 3)]),
    ("B-a E-b I-b O E-b", [("a", 0, 0), ("b", 1, 1), ("b", 2, 2), ("b", 4, 4)]),
    ("O O", []),
    ("I-a S-a B-a I-a", [("a", 0, 0), ("a", 1, 1), ("a", 2, 3)]),
    ("B-a-b I-a-b I-a", [("a-b", 0, 1), ("a", 2, 2)]),
]


@pytest.mark.parametrize(("tags", "expected"), SEQEVAL)
def test_reads_as_seqeval_does(tags, expected):
    assert [(s.type, s.start, s.stop - 1) for s in tags_to_spans(tags.split())] == expected


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_tags_and_back(scheme):
    rng = np.random.default_rng(0)
    names = ["O", *(f"{p}-{t}" for t in ("day", "month") for p in scheme if p != "O")]
    first, transitions, last = allowed_transitions(names, scheme)
    for _ in range(60):
        length, spans, start = int(rng.integers(0, 12)), [], 0
        while (start := start + int(rng.integers(0, 3))) < length:
            stop = min(length, start + int(rng.integers(1, 4)))
            spans.append((start, stop, str(rng.choice(["day", "month"]))))
            start = stop
        tags = spans_to_tags(spans[::-1], length, scheme)
        assert len(tags) == length
        assert tags_to_spans(tags) == spans
        places = [names.index(tag) for tag in tags]
        if places:
            assert first[places[0]]
            assert last[places[-1]]
        assert all(transitions[pair] for pair in itertools.pairwise(places))


def test_what_the_schemes_allow():
    _, transitions, last = allowed_transitions(["O", "B-a", "I-a", "B-b", "I-b"], "BIO")
    assert np.argwhere(~transitions).tolist() == [[0, 2], [0, 4], [1, 4], [2, 4], [3, 2], [4, 2]]
    assert last.all()
    first, transitions, last = allowed_transitions(["O", "B-a", "I-a", "E-a", "S-a"], "BIOES")
    assert first.tolist() == [True, True, False, False, True]
    assert last.tolist() == [True, False, False, True, True]
    assert np.argwhere(transitions).tolist() == [
        *([0, j] for j in (0, 1, 4)),
        *([1, j] for j in (2, 3)),
        *([2, j] for j in (2, 3)),
        *([3, j] for j in (0, 1, 4)),
        *([4, j] for j in (0, 1, 4)),
    ]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tags_to_spans(["X-a"]), ValueError, "tags: expected 'O', or 'B-', .* got 'X-a'"),
        (lambda: tags_to_spans(["B"]), ValueError, "tags: expected"),
        (lambda: tags_to_spans(["B-"]), ValueError, "tags: expected"),
        (lambda: tags_to_spans([1]), TypeError, "tags: expected strings, got 1"),
        (lambda: tags_to_spans("B-a"), TypeError, "tags: expected a list of names, got 'B-a'"),
        (lambda: tags_to_spans(None), TypeError, "tags: expected a list of names, got None"),
        (lambda: spans_to_tags(None, 3), TypeError, r"spans: expected a list of \(start, stop, type\), got None"),
        (lambda: spans_to_tags([(0, 2, "a"), (1, 3, "b")], 4), ValueError, "do not overlap, got two with step 1"),
        (
            lambda: spans_to_tags([(2, 5, "a")], 4),
            ValueError,
            r"spans: expected 0 <= start < stop <= 4.* got \(2, 5, 'a'\)",
        ),
        (lambda: spans_to_tags([(2, 2, "a")], 4), ValueError, "spans: expected 0 <= start < stop"),
        (lambda: spans_to_tags([(0, 1)], 4), TypeError, r"spans: expected \(start, stop, type\) each"),
        (lambda: spans_to_tags([(0.0, 1, "a")], 4), TypeError, "spans: expected integers for start and stop"),
        (lambda: spans_to_tags([(0, 1, 2)], 4), TypeError, "spans: expected a string for the type"),
        (lambda: spans_to_tags([(0, 1, "")], 4), ValueError, "spans: expected a type that is not empty"),
        (lambda: spans_to_tags([], -1), ValueError, "length: expected an integer of at least 0, got -1"),
        (lambda: spans_to_tags([], 2.0), TypeError, "length: expected an integer, got 2.0"),
        (lambda: spans_to_tags([], 2, "IOB"), ValueError, "scheme: expected one of"),
        (lambda: keras_seq.CRF(["O", "B-a"], "BIOES"), ValueError, "none may stand after 'B-a'"),
        (lambda: keras_seq.CRF(["O", "I-a"], "BIO"), ValueError, "none may stand before 'I-a'"),
        (lambda: keras_seq.CRF(["O", "S-a"], "BIO"), ValueError, "tags: expected those of BIO, got 'S-a'"),
        (lambda: keras_seq.CRF(["O", "noun"], "BIO"), ValueError, "tags: expected 'O', or"),
        (lambda: keras_seq.CRF(3, "BIO"), ValueError, "scheme: expected None for tags without names, got 'BIO'"),
        (lambda: keras_seq.CRF(["O", "O"]), ValueError, "tags: expected two or more different names"),
        (lambda: keras_seq.CRF(["O", 1]), TypeError, "tags: expected names, got 1"),
        (lambda: keras_seq.CRF("O"), TypeError, "tags: expected a list of names or their number, got 'O'"),
        (lambda: keras_seq.CRF(1), ValueError, "tags: expected two or more, got 1"),
        (
            lambda: keras_seq.CRF(np.array(["O", "B-a"])),
            TypeError,
            "tags: expected a list of names or their number, got ar",
        ),
    ],
)
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
