"""report.html: one page that needs nothing beside itself, whatever system it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from rich import box
from rich.table import Table

from recsys.core.composition import to_yaml
from recsys.core.console import UNDEFINED, visible_lines
from recsys.core.durable import replace_file
from recsys.core.secrets import mask, mask_words
from recsys.evaluation.metrics_file import is_defined
from recsys.runs.config import RunConfig

REPORT_FILE = "report.html"
TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Section:
    """A box of the page; what is empty is not shown."""

    title: str
    note: str = ""
    figure: str = ""
    rows: list[list[str]] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    text_title: str = ""
    text: str = ""


@dataclass(frozen=True)
class Page:
    """What `recsys report` shows of a run.

    Attributes:
        folder: the run folder.
        title: name of the run.
        subtitle: what was trained on what.
        tiles: the few numbers at the head: ``name``, ``value``, ``accent``.
        sections: in their order.
        headline: what the numbers come to, a sentence each.
        closing: the table in the terminal.
    """

    folder: Path
    title: str
    subtitle: str
    tiles: list[dict[str, Any]]
    sections: list[Section]
    closing: Table
    headline: list[str] = field(default_factory=list)


def write_page(page: Page) -> Path:
    """Write ``report.html`` into the run folder."""
    html = rendered(
        TEMPLATE,
        title=page.title,
        subtitle=page.subtitle,
        headline=page.headline,
        tiles=page.tiles,
        sections=page.sections,
    )
    path = page.folder / REPORT_FILE
    replace_file(path, html.encode())
    return path


def write_own_page(path: Path, made_by: str, **material: Any) -> None:
    """Write a page that is not of a run.

    Args:
        path: where to; replaced where it is there.
        made_by: the command, by which the page is known as its own.
        material: what the template of reports shows.
    """
    html = rendered(TEMPLATE, generator=made_by, **material)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, html.encode())


def is_page_of(path: Path, made_by: str) -> bool:
    """Whether a file is a page that :func:`write_own_page` has written for a command."""
    with path.open("rb") as file:
        return f'name="generator" content="{made_by}"'.encode() in file.read(1_000)


def rendered(template: str, **material: Any) -> str:
    """A page of one of the templates here, in which text of others stands as text."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, finalize=_shown)
    return environment.get_template(template).render(**material)


def _shown(value: Any) -> Any:
    """What stands in the page: text of others as in the terminal; lines of a file stay lines."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)  # which a figure is
    return visible_lines(mask(value)) if is_text else value


def revision(environment: Mapping[str, Any]) -> str:
    """The git revision a run was made with, as the end of a sentence."""
    git = environment["git"]
    if not git:
        return ""
    return f", revision {git['revision'][:10]}{' with changes' if git['dirty'] else ''}"


def setting(config: RunConfig, environment: Mapping[str, Any], facts: dict[str, str]) -> Section:
    """The configuration: some ``facts`` of the system, what is the same for all, and the file."""
    hardware = environment["hardware"]
    every = {
        "seed": str(config.seed),
        "hardware": f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB",
        "versions": ", ".join(f"{k} {v}" for k, v in environment["packages"].items()),
        "command": " ".join(mask_words(environment["command"])),
    }
    return Section(
        "Configuration", facts=facts | every, text_title="config.yaml", text=to_yaml(config)
    )


def places(folder: Path, others: Mapping[str, Path | str]) -> dict[str, str]:
    """Where the run folder, others and the report lie, with the sizes of folders."""
    lines = {}
    for name, place in {"run folder": folder, **others}.items():
        size = f" ({megabytes(folder_size(Path(place)))})" if Path(place).exists() else ""
        lines[name] = f"{place}{size}"
    return lines | {"report": str(folder / REPORT_FILE)}


def table_of_lines(labels: Sequence[str], lines: Mapping[str, Sequence[float]]) -> list[list[str]]:
    """Headings, then a row per line: what would be too few points for a figure."""
    rows = [["", *(label.replace("\n", ", ") for label in labels)]]
    for name, values in lines.items():
        rows.append([name, *(f"{one:.4f}" if is_defined(one) else UNDEFINED for one in values)])
    return rows


def closing_table(name: str, *groups: Mapping[str, str]) -> Table:
    """The table a run ends with, a line between groups of its rows."""
    table = Table(title=f"recsys: {name}", box=box.ROUNDED, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for group in groups:
        for row in group.items():
            table.add_row(*row)
        table.add_section()
    return table


def megabytes(size: float) -> str:
    """A size in MB, with as many digits as one needs."""
    return f"{size / 1e6:,.1f} MB" if size < 1e8 else f"{size / 1e6:,.0f} MB"


def folder_size(path: Path) -> int:
    """Bytes of all files below ``path``."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
