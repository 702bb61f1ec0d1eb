"""The guides: their code runs in order as one program and prints what they show; their links and errors exist."""

import contextlib
import functools
import importlib.util
import inspect
import io
import pathlib
import re

import pytest
from code_blocks import code_blocks

pytestmark = pytest.mark.deep

ROOT = pathlib.Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs").glob("*.md"))


def absent(block):
    """The packages that a block says it needs in its first line and that are not installed."""
    needed = re.match(r"# needs: (.*)", block)
    return [n for n in needed[1].split(", ") if importlib.util.find_spec(n) is None] if needed else []


def test_there_are_guides():
    assert GUIDES


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that runs the code of a guide once: what each block printed, and the names at the end.

    Of a block that needs what is not installed, None.
    """

    @functools.cache
    def running(guide):
        names, printed = {"__name__": guide.stem}, []
        with contextlib.chdir(tmp_path_factory.mktemp("guide")):
            for block in code_blocks(guide.read_text()):
                if absent(block):
                    printed.append(None)
                    continue
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile(block, guide.name, "exec"), names)
                printed.append(out.getvalue())
        return printed, names

    return running


@pytest.mark.parametrize("guide", GUIDES, ids=lambda p: p.stem)
def test_the_code_runs_and_prints_what_is_shown(guide, run):
    text = guide.read_text()
    printed, _ = run(guide)
    for block, out in zip(code_blocks(text), printed, strict=True):
        if out is None:
            continue
        shown = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
        assert [line for line in out.splitlines() if line in shown] == shown
    tables = code_blocks(text, "text")
    assert all(tables)
    for shown in tables:
        assert any(shown in out.replace("  ok ", "  ✓ ") for out in printed if out is not None)
    missing = sorted({name for block in code_blocks(text) for name in absent(block)})
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; the blocks that need them were not run, all others were")


def test_the_cells_of_the_guide_pass_the_checks_it_recommends(run):
    _, names = run(ROOT / "docs" / "your_own_cell.md")
    slow = [
        "checkpoint, truncate",
        "eager, graph, XLA",
        "dropout",
        "saved model",
        "masked run",
        ".keras file",
        "learned initial states",
    ]
    makers = {
        "NormalizedInputsCell": (4,),
        "TwoScalesCell": (5, 3),
        "LeakyCell": (4, "tanh", True, 3),
        "BlockedCell": (4,),
        "RunningSumCell": (4,),
        "EchoCell": (4, 2),
    }
    defined = {name for name, value in names.items() if inspect.isclass(value) and name.endswith("Cell")}
    assert defined == {*makers, "MinimalPeepholeCell", "TopicCell"}
    for name, arguments in makers.items():
        names["check_cell"](names[name](*arguments), skip=slow)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda p: p.stem)
def test_links_lead_to_headings_and_files(guide):
    text = guide.read_text()
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    assert len(anchors) == len(headings)
    links = re.findall(r"\]\(([^):]*)\)", text)
    assert links
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    missing = [link for link in links if not link.startswith("#") and not (guide.parent / link).is_file()]
    assert not missing


def test_errors_in_the_table_of_the_guide_are_those_of_the_package():
    text = (ROOT / "docs" / "your_own_cell.md").read_text().split("## What can go wrong")[1]
    source = "".join(p.read_text() for p in (ROOT / "keras_seq").rglob("*.py"))
    found = [e for e in re.findall(r"^\| `([^`]*)`", text, re.MULTILINE) if re.match(r"[\w ]+: ", e)]
    assert len(found) >= 6
    for error in found:
        assert error in source, error
