"""`recsys recur status`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.data.contract.moments import to_text
from recsys.recurring.config import FolderConfig
from recsys.recurring.generations import (
    COMPARED,
    MEASURED,
    PUBLISHED,
    TRAINED,
    Generation,
    Generations,
)


def run(overrides: Sequence[str]) -> None:
    """Print every generation."""
    config = compose("recur_status", FolderConfig, overrides)
    generations = Generations(Path(config.folder))
    generations.check()
    output_console().print(status_table(generations))


def status_table(generations: Generations) -> Table:
    """A row per generation, the oldest first."""
    title = f"{generations.folder}: generations"
    table = Table("generation", "state", "newest day", title=title)
    columns = ("NE", "change, %", "cosine", "embeddings as of", "users", "seconds")
    for name in columns:
        table.add_column(name, justify="right")
    current = generations.current()
    for one in generations.all():
        is_current = current is not None and one.number == current.number
        table.add_row(*_cells(one, is_current))
    return table


def _cells(one: Generation, is_current: bool) -> list[str]:
    done = one.done
    state = "is served" if is_current else one.state
    trained, measured = done.get(TRAINED, {}), done.get(MEASURED, {})
    published, change = done.get(PUBLISHED, {}), measured.get("change")
    day = to_text(trained["report_from"])[:10] if trained else ""
    changed = ""
    if change is not None:
        changed = f"{change['value']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}]"
    cosine = done.get(COMPARED, {}).get("cosine")
    return [
        str(one.number),
        state,
        day,
        f"{measured['ne']:.4f}" if measured else "",
        changed,
        "" if cosine is None else f"{cosine:.3f}",
        to_text(published["as_of"]) if published else "",
        f"{published['active_users']:,}" if published else "",
        f"{sum(step['seconds'] for step in done.values()):,.0f}",
    ]
