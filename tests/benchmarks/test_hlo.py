"""Kernels, what waits, and loops, in the text of a program."""

import importlib
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def program():
    """`Program(text)`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("hlo").Program


@pytest.mark.deep
def test_levels_of_a_recurrence_grow_with_the_logarithm_of_its_length(monkeypatch):
    """Sixteen times as many steps are four more levels, two kernels each at most."""
    monkeypatch.syspath_prepend(FOLDER)
    levels = importlib.import_module("scans").levels
    short, long = levels(64), levels(1024)
    assert short <= 2 * 6
    assert short < long <= short + 2 * 4


TEXT = """HloModule jit_run, is_scheduled=true

%fused_add (param_0: f32[4], param_1: f32[4]) -> f32[4] {
  %param_0 = f32[4]{0} parameter(0)
  %param_1 = f32[4]{0} parameter(1)
  ROOT %add.1 = f32[4]{0} add(%param_0, %param_1)
}

%command_buffer (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %first = f32[4]{0} fusion(%p, %p), kind=kLoop, calls=%fused_add
  ROOT %second = f32[4]{0} fusion(%first, %p), kind=kLoop, calls=%fused_add
}

%body (state: (s32[], f32[4])) -> (s32[], f32[4]) {
  %state = (s32[], f32[4]{0}) parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %h = f32[4]{0} get-tuple-element(%state), index=1
  %next = s32[] fusion(%count), kind=kLoop, calls=%fused_count
  %called = f32[4]{0} call(%h), to_apply=%command_buffer
  ROOT %both = (s32[], f32[4]{0}) tuple(%next, %called)
}

%until (state: (s32[], f32[4])) -> pred[] {
  %state = (s32[], f32[4]{0}) parameter(0)
  ROOT %less = pred[] constant(false)
}

ENTRY %main (x: f32[4]) -> (f32[4], f32[4]) {
  %x = f32[4]{0} parameter(0)
  %zero = s32[] constant(0)
  %product = (f32[4]{0}, s8[16]{0}) custom-call(%x), custom_call_target="__cublas$gemm"
  %left = f32[4]{0} get-tuple-element(%product), index=0
  %apart = f32[4]{0} fusion(%x, %x), kind=kLoop, calls=%fused_add
  %start = (s32[], f32[4]{0}) tuple(%zero, %left)
  %loop = (s32[], f32[4]{0}) while(%start), condition=%until, body=%body, backend_config={"known_trip_count":{"n":"7"}}
  %last = f32[4]{0} get-tuple-element(%loop), index=1
  ROOT %out = (f32[4]{0}, f32[4]{0}) tuple(%last, %apart)
}
"""


def test_kernels_and_those_that_wait(program):
    program = program(TEXT)
    assert program.kernels("command_buffer") == program.depth("command_buffer") == 2
    assert program.kernels("body") == 3  # the count of steps beside two that wait for one another
    assert program.depth("body") == 2
    assert program.kernels() == 5  # a product, what stands apart, and one turn of the loop
    assert program.depth() == 3


def test_loops(program):
    assert program(TEXT).loops() == [(3, 2, 7)]
    assert program(TEXT.replace('"n":"7"', "")).loops() == [(3, 2, None)]


def test_a_bracket_that_is_never_closed_is_named(program):
    with pytest.raises(ValueError, match=r"text: expected a closed bracket, got '\(%p, "):
        program(TEXT.replace("fusion(%p, %p), kind=kLoop, calls=%fused_add\n", "fusion(%p, \n", 1))
