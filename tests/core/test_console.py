"""Text of others is printed as text: no markup, no control characters, no secrets."""

from __future__ import annotations

import ast
import io
import unicodedata
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.table import Table

from recsys.core.console import (
    Console,
    message_console,
    progress_bar,
    text_table,
    visible,
    visible_lines,
)
from recsys.core.paths import PACKAGE
from recsys.core.progress import track
from recsys.core.secrets import mask

#: Any text, and often what has a meaning to a terminal or to Rich.
TEXTS = st.one_of(
    st.text(st.characters()),
    st.lists(
        st.sampled_from(
            [
                *("[/b]", "[bold]", "[link=x]", "\\", "[", ":smile:", "a", "é", "\u0301", "語"),
                *("\x1b]0;t\x07", "\x9b2J", "\r\n", "\u202e", "\u2066", "\u2028", "\ud800", "\x00"),
            ]
        )
    ).map("".join),
)
#: What may be seen of Rich's own: the end of a line.
NEWLINE = "\n"


def has_control(text: str) -> bool:
    """By Python's own tables: control, surrogates, separators of lines, directions."""
    return any(
        unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(one) in ("LRE", "RLE", "LRO", "RLO", "PDF")
        or unicodedata.bidirectional(one) in ("LRI", "RLI", "FSI", "PDI")
        for one in text
        if one != NEWLINE
    )


@given(TEXTS)
@example("\x1b]0;title\x07")
def test_control_characters_become_visible(text: str) -> None:
    shown = visible(text)
    assert not has_control(shown) and NEWLINE not in shown
    assert visible(shown) == shown
    assert visible_lines(text).count(NEWLINE) == text.count(NEWLINE)
    shown.encode()


def test_letters_of_any_script_stay_as_they_are() -> None:
    for text in ("Straße", "日本語", "עברית", "مرحبا", "e\u0301", "👩\u200d🚀", "क\u200dष"):
        assert visible(text) == text
    assert visible("a\nb\x1b") == r"a\nb\x1b"


@given(TEXTS)
def test_a_string_is_printed_as_one_line(text: str) -> None:
    file = io.StringIO()
    Console(file=file, width=20).print(text)
    assert file.getvalue() == visible(mask(text)) + NEWLINE


@settings(max_examples=50)
@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_a_table_shows_titles_headings_and_cells_as_they_are(
    title: str, heading: str, cell: str, caption: str
) -> None:
    file = io.StringIO()
    table = Table("first", heading, title=title, caption=caption)
    table.add_row("x", cell)
    console = Console(file=file, width=1_000)
    console.print(table)
    console.print(text_table(title, [["first", heading], ["x", cell]]))
    printed = file.getvalue()
    assert not has_control(printed)
    for text in (heading, cell):
        assert visible(mask(text)).strip() in printed


@settings(max_examples=50)
@given(TEXTS, st.integers(1, 30))
def test_a_narrow_terminal_gets_no_control_characters_either(text: str, width: int) -> None:
    file = io.StringIO()
    Console(file=file, width=width).print(text_table(text, [[text, text], [text, text]]))
    assert not has_control(file.getvalue())


@settings(max_examples=25)
@given(TEXTS)
def test_progress_and_status_say_what_is_done_as_it_is(text: str) -> None:
    file = io.StringIO()
    with redirect_stderr(file):
        assert list(track(range(2), text)) == [0, 1]
        with progress_bar() as progress:
            progress.console.print(text)
        with message_console().status(text):
            pass
    assert not has_control(file.getvalue())


#: What of Rich does not print, and is rendered by our console alone.
HARMLESS = {
    "rich.table": {"Table"},
    "rich": {"box"},
    "rich.console": {"Group", "JustifyMethod", "RenderableType"},
}
#: The console itself, and the installer, which has the standard library alone.
#: The last two speak where no package is installed yet.
PRINTING = {
    PACKAGE / "core" / "console.py",
    PACKAGE / "install.py",
    PACKAGE / "cli" / "doctor.py",
    PACKAGE / "cli" / "health.py",
}


def printing(source: str) -> Iterator[str]:
    """What a module prints with, past the console."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] == "rich")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rich":
            allowed = HARMLESS.get(str(node.module), set())
            yield from (one.name for one in node.names if one.name not in allowed)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "typer.echo", "typer.secho", "click.echo"):
                yield called
            if called.startswith(("sys.stdout.write", "sys.stderr.write", "Text.from_")):
                yield called


def test_every_way_past_the_console_is_seen() -> None:
    source = (
        "import rich\nfrom rich import print, box\nfrom rich.console import Console, Group\n"
        "def f():\n    print(1)\n    typer.echo(2)\n    sys.stdout.write('3')\n"
    )
    assert sorted(printing(source)) == [
        *("Console", "print", "print", "rich", "sys.stdout.write", "typer.echo")
    ]


@pytest.mark.parametrize("folder", [PACKAGE, PACKAGE.parent / "benchmarks"], ids=lambda p: p.name)
def test_nothing_else_prints(folder: Path) -> None:
    found = {
        str(path.relative_to(folder)): ways
        for path in folder.rglob("[a-zA-Z]*.py")
        if path not in PRINTING and (ways := list(printing(path.read_text())))
    }
    assert not found, "print by recsys.core.console, which shows text of others as text"
