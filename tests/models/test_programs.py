"""Compiled programs: one for all values of what can be a tensor, and no more kept than are used."""

import numpy as np
import pytest
import tensorflow as tf
from token_models import SIZE, WORDS, made, writes

from keras_seq.models import generation


def allowed(number):
    found = np.ones(SIZE, bool)
    found[WORDS.end + 1 + number % 8] = False
    return found


OPTIONS = {
    "temperature": (2.0, 0.5, np.float32(1.5), np.array(1.0)),
    "top_p": (0.5, 0.9, 1.0),
    "seed": (1, 2, 2**32 - 1),
    "min_length": (0, 2, np.int64(5)),
    "max_lengths": ([1, 5, 9], np.array([9, 9, 9]), [2, 2, 2]),
    "allowed": (allowed(0), allowed(3), allowed(7)),
    "length_penalty": (0.0, 0.6, 1),
    "coverage_penalty": (0.1, 0.2),
}
BEAMS = ("length_penalty", "coverage_penalty")


@pytest.fixture
def traced(monkeypatch):
    """What has been traced since."""
    found, program = [], generation._program

    def counted(function, fixed, given):
        def trace(*arguments, **options):
            found.append(function)
            return function(*arguments, **options)

        return program(trace, fixed, given)

    monkeypatch.setattr(generation, "_program", counted)
    return found


@pytest.mark.deep
@pytest.mark.parametrize("name", OPTIONS)
def test_one_program_for_all_values(name, traced):
    model, decoder = made("Seq2Seq"), "beam" if name in BEAMS else "sample"
    write, compiled = writes("Seq2Seq", model), []
    seeded = {} if name == "seed" or decoder == "beam" else {"seed": 1}
    source = model.tokens(["abc", "d", "hgfe"])
    for value in OPTIONS[name]:
        written = write(decoder=decoder, **{name: value}, **seeded)
        eager = model.generate_tokens(source, decoder=decoder, **{name: value}, **seeded)
        assert written == model.texts(eager if decoder == "sample" else eager[0][:, 0])
        compiled.append(tuple(written))
    assert len(traced) == 1
    assert model._programs.cache_info().currsize == 1
    assert len(set(compiled)) > 1 or name in BEAMS


def test_one_program_for_all_streams(traced):
    model = made("LanguageModel")
    for number in range(6):
        options = {
            "temperature": 0.5 + number,
            "allowed": allowed(number),
            "min_length": number,
            "max_length": 6 + number,
        }
        "".join(model.stream("ab"[: number % 3], seed=number, **options))
        "".join(model.stream("ab", "greedy", allowed=allowed(number), max_length=3 + number))
    assert len(traced) == 2
    "".join(model.stream("ab", top_k=2, seed=1, max_length=5))
    assert len(traced) == 3


def test_what_is_wrong_is_named_before_anything_is_compiled(traced):
    write = writes("Seq2Seq", made("Seq2Seq"))
    for options, message in (
        ({"temperature": 0.0}, "temperature: expected a number, positive and finite, got 0.0"),
        ({"temperature": tf.constant(-1.0)}, "temperature: expected a number, positive and finite, got -1.0"),
        ({"top_p": 1.5}, r"top_p: expected a number, in \(0, 1\], got 1.5"),
        ({"min_length": 10}, "min_length: expected integers from 0 to max_length=9, got 10"),
        ({"max_lengths": [1, 2, 10]}, "max_lengths: expected integers from 1 to max_length=9, got 10"),
        ({"max_lengths": [1, 2]}, r"max_lengths: expected integers of shape \(3,\)"),
        ({"seed": -1}, "seed: expected an integer from 0"),
    ):
        with pytest.raises(ValueError, match=message):
            write(decoder="sample", **options)
    with pytest.raises(ValueError, match="length_penalty: expected a number, at least 0 and finite, got -1"):
        write(decoder="beam", length_penalty=-1)
    with pytest.raises(TypeError, match="length_penalty: unknown option of 'sample'; expected some of"):
        write(decoder="sample", length_penalty=1.0)
    assert not traced


@pytest.mark.deep
def test_those_used_last_are_kept(monkeypatch, traced):
    monkeypatch.setattr(generation, "PROGRAMS", 3)
    model = made("LanguageModel")
    write = writes("LanguageModel", model)
    for longest in (3, 4, 5, 3, 6, 3):
        write(max_length=longest)
    assert len(traced) == 4
    assert model._programs.cache_info().currsize == 3
    write(max_length=4)
    assert len(traced) == 5
