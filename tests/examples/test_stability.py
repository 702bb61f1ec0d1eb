"""The page on memories: what it measures bears out the textbook, and a small run from the command line leaves one file."""

import base64
import html.parser
import pathlib
import re
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import stability


def options(**given):
    found = {"seed": 0, "units": 8, "bound_steps": 100, "long": 200}
    return type("Options", (), {**found, **given})


@pytest.mark.parametrize("section", [n for n in stability.SECTIONS if n != "gaps"])
def test_what_is_measured_bears_out_the_textbook(section):
    found = stability.SECTIONS[section](options())
    assert found.claims
    assert [c.says for c in found.claims if not c.holds] == []
    assert all(ax.has_data() for ax in found.figure.axes)


def test_an_lstm_keeps_what_a_simple_memory_loses():
    kept, lost = stability.initial_flows(options())
    assert abs(kept) < np.log(2)
    assert lost < -6 * np.log(10)


def test_strings_say_at_the_start_what_is_asked():
    x, y = stability.strings(np.random.default_rng(0), 500, 7)
    assert x.shape == (500, 8)
    np.testing.assert_array_equal(x[:, :1], y)
    assert set(x[:, 0]) == {0, 1}
    assert set(x[:, 1:].ravel()) == set(range(2, len(stability.LETTERS)))


class Page(html.parser.HTMLParser):
    """Which elements a page opens and does not close, and where its pictures come from."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.ids, self.links = [], [], set(), []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [attributes[k] for k in ("src",) if k in attributes]
        self.links += [attributes["href"]] if tag == "a" else []
        self.ids |= {attributes.get("id")} - {None}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_small_run(tmp_path, capsys):
    sections = stability.main(["--quick", "--units", "8", "--gaps", "6", "--output", str(tmp_path)])
    assert [s.name for s in sections] == list(stability.SECTIONS)
    text = (tmp_path / "stability.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert {link[1:] for link in page.links} == page.ids == set(stability.SECTIONS)
    assert len(page.sources) == len(sections)
    for source in page.sources:  # nothing from elsewhere
        kind, data = source.split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data)[1:4] == b"PNG"
    assert len(re.findall("greatest Lyapunov exponent", text)) == 3
    for s in sections:
        assert (tmp_path / f"{s.name}.png").stat().st_size > 5000
    said = capsys.readouterr().out
    assert "gap    6, LSTM, open gates" in said
    assert all(c.says in said for s in sections for c in s.claims)
