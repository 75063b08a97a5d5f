"""The page of a run shows text of others as text, and no secret."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings

from recsys.core.console import visible_lines
from recsys.core.secrets import mask
from recsys.reports import figures
from recsys.reports.page import Page, Section, closing_table, setting, write_page
from recsys.runs.config import RunConfig
from tests.core.test_console import TEXTS, has_control

SCRIPT = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """The tags of a page, and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(folder: Path, text: str, figure: str = "") -> str:
    section = Section(
        *(text, text, figure),
        rows=[[text, text], [text, text]],
        facts={text: text},
        text_title=text,
        text=f"first: line\n{text}",
    )
    tiles = [{"name": text, "value": text, "accent": False}]
    return write_page(Page(folder, text, text, tiles, [section], closing_table(text))).read_text()


@settings(max_examples=20)
@given(TEXTS)
@example(SCRIPT)
@example("</pre><img src=x onerror=alert(1)>")
def test_a_page_has_the_tags_of_its_template_and_the_texts_as_they_are(
    tmp_path_factory, text: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    page, plain = page_of(folder, text), page_of(folder, "plain")
    assert not has_control(page)
    reader, expected = Reader(), Reader()
    reader.feed(page)
    expected.feed(plain)
    assert reader.tags <= expected.tags
    assert "".join(reader.texts).count(visible_lines(mask(text))) >= 10
    assert "first: line\n" in page


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_are_no_formulas_in_figures() -> None:
    name = "a$b_{$ c^^ \\ \x1b]0;t\x07\u202e"
    log = pl.DataFrame({"step": [1, 2], "value": [0.5, 0.4]})
    shown = figures.curves({name: {name: log, SCRIPT: log}, SCRIPT: {name: log}})
    assert shown.startswith("<svg") and SCRIPT not in shown
    assert not has_control(shown)


def test_a_figure_stays_a_figure(tmp_path: Path) -> None:
    figure = figures.hits_over_k({"all": ([1, 10, 100], [0.1, 0.2, 0.3])}, {})
    assert figure in page_of(tmp_path, "text", figure)
    assert "mathdefault" not in figure


def test_the_settings_of_a_page_have_no_secrets(tmp_path: Path) -> None:
    environment = {
        "hardware": {"cpu": "x", "cores": 1, "memory_gib": 1},
        "packages": {},
        "command": ["recsys", "train", "api_key=GEHEIM", "x=https://user:GEHEIM@host/a"],
    }
    config = RunConfig(name="a", system="b", run_dir="a")
    section = setting(config, environment, {"place": "redis://:GEHEIM@host"})
    page = Page(tmp_path, "a", "b", [], [section], closing_table("a"))
    written = write_page(page).read_text()
    assert "GEHEIM" not in written
    assert re.search(r"api_key=\*\*\*", written)
