"""How well generated captions match their references: BLEU and CIDEr-D over a corpus.

Both take sentences as strings whose words are divided by white space, and change nothing in them: lower case and
punctuation are the caller's to settle.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from keras_seq.extras import needed

SIGMA = 6.0  # words: how fast CIDEr-D falls as the lengths part


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]], max_order: int = 4) -> float:
    """The BLEU of a corpus: how many n-grams of the hypotheses their references hold as well.

        BLEU_N = min(1, exp(1 - r / c)) (p_1 p_2 .. p_N)^(1/N)

    Here p_n is the share of the n-grams of all hypotheses that a reference holds at least as often, c the words in all
    hypotheses, and r those in the references, for each item the reference nearest to its hypothesis in length (of two,
    the shorter). There is no smoothing: the score is 0 as soon as one p_n is. Counted by sacrebleu.

    Args:
        hypotheses: a list of sentences, one an item.
        references: a list of lists of sentences; items may differ in how many they have.
        max_order: N, the words in the longest n-gram.

    Returns:
        A float in [0, 1].

    Raises:
        ImportError: where sacrebleu is not installed.
        TypeError: where either argument is no list of that form, or `max_order` no int.
        ValueError: where the lists are empty or differ in length, an item has no reference, or `max_order` is below 1.

    Reference: Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL 2002.

    Example:

    ```python
    from keras_seq.metrics import corpus_bleu
    print(round(corpus_bleu(["a red square"], [["a small red square"]], max_order=2), 3))  # 0.507
    ```
    """
    _check(hypotheses, references)
    if not isinstance(max_order, int) or isinstance(max_order, bool):
        raise TypeError(f"max_order: expected an int, got {type(max_order).__name__}")
    if max_order < 1:
        raise ValueError(f"max_order: expected 1 or more, got {max_order}")
    scores = needed("sacrebleu.metrics", "scores")
    most = max(map(len, references))
    streams = [[own[k] if k < len(own) else None for own in references] for k in range(most)]
    bleu = scores.BLEU(tokenize="none", smooth_method="none", max_ngram_order=max_order, force=True)
    return bleu.corpus_score(hypotheses, streams).score / 100


def cider_d(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The CIDEr-D of a corpus: n-grams weighted by how telling they are, so that saying what all say gains little.

    With g_n(s) the vector of the n-grams of a sentence s, each counted and times log(items / items whose references
    hold it), l(s) the words of s, and S the references of one item:

        CIDEr-D = 10/4 sum_{n=1..4} 1/|S| sum_{s in S} exp(-(l(h) - l(s))^2 / (2 sigma^2))
                  min(g_n(h), g_n(s)) . g_n(s) / (|g_n(h)| |g_n(s)|)

    averaged over the items, with sigma = 6 words. An n-gram that no reference holds counts as held by one item. A
    corpus of one item scores 0, as each n-gram of its references is held by all items. The words are not stemmed, as in
    the code that published scores come from.

    Args:
        hypotheses: a list of sentences, one an item.
        references: a list of lists of sentences; items may differ in how many they have.

    Returns:
        A float in [0, 10].

    Raises:
        TypeError: where either argument is no list of that form.
        ValueError: where the lists are empty or differ in length, or an item has no reference.

    Reference: Vedantam et al., "CIDEr: consensus-based image description evaluation", CVPR 2015, section 7.

    Example:

    ```python
    from keras_seq.metrics import cider_d
    print(round(cider_d(["a red square", "a blue circle"], [["a red square"], ["one blue circle"]]), 3))  # 5.208
    ```
    """
    _check(hypotheses, references)
    counts = [[_ngrams(sentence) for sentence in own] for own in references]
    held_by = Counter(gram for own in counts for gram in set().union(*own))
    weight = {gram: math.log(len(references) / items) for gram, items in held_by.items()}
    unseen = math.log(len(references))

    def vectors(grams):
        parts = [{} for _ in range(4)]
        for gram, count in grams.items():
            parts[len(gram) - 1][gram] = count * weight.get(gram, unseen)
        return parts

    total = 0.0
    for hypothesis, sentences, own in zip(hypotheses, references, counts, strict=True):
        ours = vectors(_ngrams(hypothesis))
        for sentence, grams in zip(sentences, own, strict=True):
            apart = len(hypothesis.split()) - len(sentence.split())
            alike = sum(map(_clipped_cosine, ours, vectors(grams)))
            total += alike / 4 * math.exp(-(apart**2) / (2 * SIGMA**2)) / len(sentences)
    return 10 * total / len(hypotheses)


def _ngrams(sentence):
    words = sentence.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1))


def _clipped_cosine(ours, theirs):
    product = sum(min(value, theirs[gram]) * theirs[gram] for gram, value in ours.items() if gram in theirs)
    norms = math.hypot(*ours.values()) * math.hypot(*theirs.values())
    return product / norms if norms else 0.0


def _check(hypotheses, references):
    for name, value in (("hypotheses", hypotheses), ("references", references)):
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{name}: expected a list, got {type(value).__name__}")
        if not value:
            raise ValueError(f"{name}: expected at least one item, got an empty list")
    if len(hypotheses) != len(references):
        raise ValueError(f"references: expected one item a hypothesis, {len(hypotheses)}, got {len(references)}")
    for k, (hypothesis, own) in enumerate(zip(hypotheses, references, strict=True)):
        if not isinstance(hypothesis, str):
            raise TypeError(f"hypotheses[{k}]: expected a string, got {type(hypothesis).__name__}")
        if not isinstance(own, (list, tuple)):
            raise TypeError(f"references[{k}]: expected a list of strings, got {type(own).__name__}")
        if not own:
            raise ValueError(f"references[{k}]: expected at least one reference, got an empty list")
        for sentence in own:
            if not isinstance(sentence, str):
                raise TypeError(f"references[{k}]: expected strings, got {type(sentence).__name__} among them")
