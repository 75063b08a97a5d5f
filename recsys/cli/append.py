"""`recsys data append`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from recsys.cli.prepare import at_top_level
from recsys.core.composition import compose
from recsys.core.console import message_console, output_console
from recsys.core.group_files import with_first_file
from recsys.data.contract.moments import to_text
from recsys.data.contract.schema import Split
from recsys.data.prepare.append import AppendConfig, Appended, append
from recsys.data.prepare.describe import rejected_table


def configure(overrides: Sequence[str]) -> AppendConfig:
    """Compose conf/append.yaml; ``data=<name>`` takes the settings of conf/data/<name>.yaml.

    ``data=mine.yaml``, or ``mine.yaml`` alone, takes those of a description.
    """
    settings = with_first_file(overrides, "data")
    return compose("append", AppendConfig, [at_top_level(override) for override in settings])


def run(overrides: Sequence[str]) -> None:
    """Append, and say what was added."""
    config = configure(overrides)
    appended = append(config)
    if appended.is_empty:
        message_console().print(_nothing(appended))
        return
    console = output_console()
    console.print(_added_table(appended, str(config.out_folder)))
    console.print(_split_table(appended))
    if _has_fixed_periods(appended):
        message_console().print(
            "The fit and choose periods stay as they were: all that has come is reported."
        )
    if appended.rejected:
        unknown = appended.unknown_actions
        console.print(rejected_table(appended.rejected, str(appended.folder), unknown))


def _nothing(appended: Appended) -> str:
    counts = ", ".join(f"{why}: {count:,}" for why, count in appended.rejected.items())
    last = to_text(appended.former.counts["last_timestamp"])
    return f"nothing is later than {last}; nothing was added ({counts or 'no row was read'})."


def _added_table(appended: Appended, folder: str) -> Table:
    manifest = appended.manifest
    title = f"{manifest.name}: {folder}, generation {manifest.generation}"
    table = Table("added", title=title)
    table.add_column("count", justify="right")
    for name, count in _added(appended):
        table.add_row(name, f"{count:,}")
    return table


def _added(appended: Appended) -> Iterator[tuple[str, int]]:
    for name, count in appended.counts.items():
        yield name.replace("_", " "), count
    rows = appended.rows
    for split, count in rows.rows.items():
        yield f"request rows, in {split} now", count
    if rows.rows:
        yield "earlier rows whose labels were derived again", rows.derived_again
    for task, count in rows.completed.items():
        yield f"labels of them that came: {task}", count
    for feature, count in (+rows.unknown).items():
        yield f"rows with a {feature} that the encoding does not know", count


def _split_table(appended: Appended) -> Table:
    manifest, former = appended.manifest, appended.former
    table = Table("split", "from", "until", "until, before", title="Splits")
    table.add_column("rows", justify="right")
    for split, (first, last) in manifest.split_bounds.items():
        rows = manifest.counts.get(f"rows_{split}")
        before = former.split_bounds[split][1]
        shown = "" if rows is None else f"{rows:,}"
        table.add_row(split, to_text(first), to_text(last), to_text(before), shown)
    return table


def _has_fixed_periods(appended: Appended) -> bool:
    now, before = appended.manifest.split_bounds, appended.former.split_bounds
    return all(now[split] == before[split] for split in (Split.FIT, Split.CHOOSE))
