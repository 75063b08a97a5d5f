"""YAML with a comment beside each line, as a person would write it."""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import dataclass

import yaml  # type: ignore[import-untyped]

#: Comments begin in this column where the line leaves room, and notes are wrapped here.
_COLUMN, _WIDTH = 32, 100
_BARE = re.compile(r"[A-Za-z_./][\w ./:+-]*")


@dataclass(frozen=True)
class Line:
    """A line of a draft.

    Attributes:
        content: what YAML reads; empty in a line that is a comment alone.
        comment: beside it.
        indent: blanks before it.
    """

    content: str
    comment: str = ""
    indent: int = 0


def setting(key: str, value: object = None, comment: str = "", indent: int = 0) -> Line:
    """``key: value``; ``key:`` of what the lines below it say, where ``value`` is ``...``."""
    content = f"{scalar(key)}:" if value is ... else f"{scalar(key)}: {scalar(value)}"
    return Line(content, comment, indent)


def element(value: object, comment: str = "", indent: int = 0) -> Line:
    """``- value``, one of a list."""
    return Line(f"- {scalar(value)}", comment, indent)


def note(text: str, indent: int = 0) -> Line:
    """A comment alone."""
    return Line("", text, indent)


def scalar(value: object) -> str:
    """A value as YAML reads it: text without quotes where it stays text.

    >>> scalar("a b"), scalar("no"), scalar("1"), scalar(None), scalar(7)
    ('a b', '"no"', '"1"', 'null', '7')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    text = str(value)
    bare = _BARE.fullmatch(text) and not re.search(r":(\s|$)|\s$|\s#", text)
    if bare and yaml.safe_load(text) == text and text.lower() not in ("y", "n", "on", "off"):
        return text
    quoted = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf)
    return str(quoted).strip()


def written(lines: list[Line]) -> str:
    """The lines as text; a comment that is too long goes on below."""
    return "".join(f"{one}\n" for line in lines for one in _wrapped(line))


def _wrapped(line: Line) -> list[str]:
    content = " " * line.indent + line.content
    comment = _one_line(line.comment)
    if not comment:
        return [content.rstrip()]
    if not line.content:
        parts = textwrap.wrap(comment, _WIDTH - line.indent - 2, break_on_hyphens=False)
        return [f"{content}# {part}" for part in parts]
    start = max(_COLUMN, len(content) + 1)
    parts = textwrap.wrap(comment, max(30, _WIDTH - start - 2), break_on_hyphens=False)
    first = f"{content:<{start - 1}} # {parts[0]}"
    return [first, *(f"{'':<{start}}# {part}" for part in parts[1:])]


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
