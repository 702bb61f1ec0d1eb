"""Spans of a sequence and the tags that say where they are: "B-day I-day O" is a day of two steps."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_seq.arguments import one_of, positive_integer

SCHEMES = ("BIO", "BIOES")
PREFIXES = "OBIES"
"""Outside; the beginning, the inside and the end of a span; a span of a single step."""


class Span(NamedTuple):
    """A piece of a sequence: the steps from `start` up to, and without, `stop`."""

    start: int
    stop: int
    type: str


def tags_to_spans(tags: Iterable[str]) -> list[Span]:
    """The spans that the tags of one sequence name, in any of the schemes BIO, BIOES and IOB (of old).

    Tags are "O", or a prefix, "B-", "I-", "E-" or "S-", before a type. They need not keep to a scheme, as those that a model
    gives step by step do not: a span goes on while inside or end follow beginning or inside of the same type, and whatever else
    is not "O" begins one. That is how conlleval and seqeval (by default) read them.

    Args:
        tags: the names of the tags, one a step.

    Returns:
        A list of `(start, stop, type)`, in their order; the span is `sequence[start:stop]`.

    Raises:
        TypeError, ValueError: tags that are not one a step; a tag that is no string, or none of these.

    Example:

    ```python
    import keras_seq
    print(keras_seq.tags_to_spans(["O", "B-day", "I-day", "B-month"]))
    # [Span(start=1, stop=3, type='day'), Span(start=3, stop=4, type='month')]
    ```
    """
    spans: list[Span] = []
    before = ("O", "")
    for step, tag in enumerate(_many("tags", tags, "names")):
        now = parts_of_tag(tag)
        if _goes_on(before, now):
            spans[-1] = spans[-1]._replace(stop=step + 1)
        elif now[0] != "O":
            spans.append(Span(step, step + 1, now[1]))
        before = now
    return spans


def spans_to_tags(spans: Iterable[tuple[int, int, str]], length: int, scheme: str = "BIO") -> list[str]:
    """The tags of one sequence that name these spans.

    Args:
        spans: `(start, stop, type)` each, in any order; the steps from start up to, and without, stop.
        length: the number of steps of the sequence.
        scheme: "BIO", where a span is B I .. I, or "BIOES", where it is B I .. I E, and S if it is of one step.

    Returns:
        A list of `length` names.

    Raises:
        TypeError, ValueError: spans that are not of that form, are empty, reach outside the sequence or overlap; an unknown
            scheme; a length below 0.

    Example:

    ```python
    import keras_seq
    print(keras_seq.spans_to_tags([(1, 3, "day"), (3, 4, "month")], length=5))
    # ['O', 'B-day', 'I-day', 'B-month', 'O']
    ```
    """
    one_of("scheme", scheme, SCHEMES)
    if isinstance(length, bool) or not isinstance(length, (int, np.integer)):
        raise TypeError(f"length: expected an integer, got {length!r}")
    if length < 0:
        raise ValueError(f"length: expected an integer of at least 0, got {length}")
    tags = ["O"] * length
    for start, stop, kind in map(_checked, _many("spans", spans, "(start, stop, type)")):
        if not 0 <= start < stop <= length:
            raise ValueError(
                f"spans: expected 0 <= start < stop <= {length}, the length, got {(int(start), int(stop), kind)}"
            )
        for step in range(start, stop):
            if tags[step] != "O":
                raise ValueError(f"spans: expected spans that do not overlap, got two with step {step}")
            tags[step] = f"{_prefix(step - start, stop - step, scheme)}-{kind}"
    return tags


def parts_of_tag(tag: str) -> tuple[str, str]:
    """`(prefix, type)` of a tag: ("B", "day") of "B-day", ("O", "") of "O"."""
    if not isinstance(tag, str):
        raise TypeError(f"tags: expected strings, got {tag!r}")
    prefix, _, kind = tag.partition("-")
    if tag == "O" or (prefix in tuple("BIES") and kind):
        return prefix, kind
    raise ValueError(f"tags: expected 'O', or 'B-', 'I-', 'E-' or 'S-' before a type, got {tag!r}")


def check_names(tags: Sequence[str]) -> list[str]:
    """The names of the tags as a list; an error unless they are two or more different strings."""
    if isinstance(tags, str) or not isinstance(tags, (list, tuple)):
        raise TypeError(f"tags: expected a list of names, got {tags!r:.80}")
    for name in tags:
        if not isinstance(name, str):
            raise TypeError(f"tags: expected names, got {name!r}")
    if len(tags) < 2 or len(set(tags)) < len(tags):
        raise ValueError(f"tags: expected two or more different names, got {list(tags)}")
    return list(tags)


def check_tags(tags: Any) -> tuple[Any, int]:
    """The names as a list and how many they are, or their number twice."""
    if isinstance(tags, (list, tuple)):
        names = check_names(tags)
        return names, len(names)
    if isinstance(tags, bool) or not isinstance(tags, numbers.Integral):
        raise TypeError(f"tags: expected a list of names or their number, got {tags!r:.80}")
    number = positive_integer("tags", tags)
    if number < 2:
        raise ValueError(f"tags: expected two or more, got {number}")
    return number, number


def allowed_transitions(tags: Sequence[str], scheme: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(first (k,), transitions (k, k), last (k,))`: where a sequence may begin, how go on, from row to column, and end.

    A ValueError for a tag that no sequence can hold, such as "B-day" in BIOES without an "E-day" to end it.
    """
    one_of("scheme", scheme, SCHEMES)
    parts = [parts_of_tag(name) for name in check_names(tags)]
    other = [name for name, (prefix, _) in zip(tags, parts, strict=True) if prefix not in scheme]
    if other:
        raise ValueError(f"tags: expected those of {scheme}, got {other[0]!r}")
    opens = np.array([prefix in "OBS" for prefix, _ in parts])
    closes = np.array([prefix in "OES" or scheme == "BIO" for prefix, _ in parts])
    inside = np.array([[_goes_on(before, now) for now in parts] for before in parts])
    transitions = np.where(opens[None], closes[:, None], inside)
    _check_used(tags, opens, transitions, closes, scheme)
    return opens, transitions, closes


def _check_used(tags, first, transitions, last, scheme):
    """A ValueError for a tag that cannot be reached from the first ones, or from which the last ones cannot be."""
    reached, leads_on = first.copy(), last.copy()
    for _ in tags:
        reached |= reached @ transitions
        leads_on |= transitions @ leads_on
    for name, before, after in zip(tags, reached, leads_on, strict=True):
        if not (before and after):
            place = "after" if before else "before"
            raise ValueError(
                f"tags: expected all that {scheme} needs, but none may stand {place} {name!r} in {list(tags)}"
            )


def _goes_on(before, now):
    """Whether a span goes on from one tag to the next."""
    return before[0] in "BI" and now[0] in "IE" and before[1] == now[1]


def _prefix(since_start, to_stop, scheme):
    if scheme == "BIOES" and to_stop == 1:
        return "E" if since_start else "S"
    return "I" if since_start else "B"


def _many(name, values, what):
    """The values; a TypeError for one string, or what cannot be gone through."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: expected a list of {what}, got {values!r:.80}")
    return values


def _checked(span):
    if not isinstance(span, (tuple, list)) or len(span) != 3:
        raise TypeError(f"spans: expected (start, stop, type) each, got {span!r:.80}")
    start, stop, kind = span
    if any(isinstance(x, bool) or not isinstance(x, (int, np.integer)) for x in (start, stop)):
        raise TypeError(f"spans: expected integers for start and stop, got {span!r:.80}")
    if not isinstance(kind, str):
        raise TypeError(f"spans: expected a string for the type, got {span!r:.80}")
    if not kind:
        raise ValueError(f"spans: expected a type that is not empty, got {span!r:.80}")
    return start, stop, kind
