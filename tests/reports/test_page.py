"""A page shows the text of others as text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from recsys.reports.figures import curves
from recsys.reports.page import Page, Section, write_page

_MARKUP = '</pre><script>alert(1)</script><img src=x onerror="alert(1)"> & \'"'


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


def tags(folder: Path, text: str) -> list[str]:
    """The tags of a page with a text wherever one can stand."""
    log = pl.DataFrame({"metric": ["train/loss", "m"], "step": [1, 1], "value": [1.0, 2.0]})
    section = Section(text, text, rows=[[text], [text]], facts={text: text}, text_title=text)
    written = Section("figure", text=text, text_title="a", figure=curves({"run": log}, "m", "m"))
    tile = {"name": text, "value": text, "accent": False}
    page = write_page(Page(folder, text, text, [tile], [section, written], Table()))
    parser = _Tags()
    parser.feed(page.read_text())
    return parser.tags


def test_markup_in_names_is_no_markup(tmp_path: Path) -> None:
    assert tags(tmp_path, _MARKUP) == tags(tmp_path, "plain")


@settings(max_examples=25)
@given(st.text("<>&\"'/=- abscriptx", min_size=1))
def test_no_text_adds_a_tag(tmp_path_factory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    page = write_page(Page(folder, text, text, [], [Section(text, facts={text: text})], Table()))
    parser = _Tags()
    parser.feed(page.read_text())
    empty = write_page(Page(folder, "a", "a", [], [Section("a", facts={"a": "a"})], Table()))
    expected = _Tags()
    expected.feed(empty.read_text())
    assert parser.tags == expected.tags


def test_a_figure_has_the_names_of_runs_as_text() -> None:
    log = pl.DataFrame({"metric": ["train/loss", "m"], "step": [1, 1], "value": [1.0, 2.0]})
    figure = curves({_MARKUP: log}, "m", _MARKUP)
    parser = _Tags()
    parser.feed(figure)
    assert not {"script", "img"} & set(parser.tags) and "<script" not in figure
