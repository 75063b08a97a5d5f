"""What is odd in a log, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import polars as pl

from recsys.data.contract.moments import to_text
from recsys.data.contract.schema import IMPRESSION, NEGATIVE_ACTION_TYPES
from recsys.data.infer.meanings import IGNORE, NEGATIVE, Meaning
from recsys.data.infer.profile import Profile
from recsys.data.infer.sides import Side
from recsys.data.infer.survey import Survey

_NOT_LEARNED = {IMPRESSION, IGNORE, NEGATIVE, *NEGATIVE_ACTION_TYPES}


def odd_ids(
    seen: Survey, user: str | None, item: str | None, profiles: Mapping[str, Profile]
) -> Iterator[str]:
    """What is odd about users, items and rows.

    Args:
        seen: of the log.
        user: its column of users; None where there is none; ``item`` likewise.
        item: its column of items.
        profiles: of its columns.
    """
    columns = ((user, seen.without_user, seen.users), (item, seen.without_item, seen.items))
    for column, missing, ids in columns:
        if column is None:
            continue
        if missing:
            yield f"{missing:,} rows have nothing in {column}; they will be set aside."
        if seen.padded[column]:
            yield (
                f"{seen.padded[column]:,} ids of {column} have blanks around them, so 'a' and 'a ' "
                "are two; strip them in the file if they are one."
            )
        if profiles[column].is_row_number:
            yield f"{column} goes up by one from row to row, as a number of rows does."
        elif ids.distinct == 1:
            yield f"{column} has one value in all rows; nothing can be learned from others."
    if user is not None and seen.usable > 1 and seen.users.distinct > seen.usable / 2:
        yield (
            f"{seen.users.distinct:,} users in {seen.usable:,} rows: most have one event and no "
            f"history; is {user} a session or a request?"
        )
    repeated = seen.events.repeated()
    if repeated:
        yield f"{repeated:,} rows repeat another in all that is read of them."


def odd_files(lacking: Mapping[str, tuple[int, int]], columns: Iterable[str]) -> Iterator[str]:
    """Files without a column that is read, which may be no part of the log.

    Args:
        lacking: per column how many files lack it, and how many there are.
        columns: those that are read.
    """
    for column in columns:
        if column in lacking:
            without, files = lacking[column]
            yield f"{without:,} of {files:,} files have no column {column}: are they of this log?"


def odd_times(seen: Survey, column: str | None) -> Iterator[str]:
    """What is odd about times; ``column`` holds them."""
    if column is None:
        return
    if seen.without_time:
        yield f"{seen.without_time:,} rows have no usable time in {column}; they will be set aside."
    if seen.future:
        yield f"{seen.future:,} rows lie in the future: are they in another unit or zone?"
    if seen.first is not None and seen.first == seen.last:
        yield f"all times in {column} are {to_text(seen.first)}; they say nothing of the order."
    elif seen.usable and seen.midnight == seen.usable:
        yield f"{column} names days without an hour: a day's events are in the order of the rows."


def odd_actions(
    meanings: Sequence[Meaning], unnamed: int, blank: int, shown_by_rows: int = 0
) -> Iterator[str]:
    """What a log's actions mean for what can be trained.

    Args:
        meanings: of its actions; empty where no column names them.
        unnamed: rows that name none.
        blank: rows whose name of an action is blank.
        shown_by_rows: rows that are impressions since flags say what came of them.
    """
    if blank:
        yield f"{blank:,} rows have an action whose name is blank; they will be set aside."
    if not meanings:
        return
    if unnamed:
        yield f"{unnamed:,} rows name no action; options.default_action says what they are."
    shown = [one for one in meanings if one.meaning == IMPRESSION]
    learned = sum(one.rows for one in meanings if one.meaning not in _NOT_LEARNED)
    if not learned:
        yield "no action is positive: there is nothing to recommend by; see options.actions."
    elif not shown and not shown_by_rows:
        yield (
            "no action says only that an item was shown (impression): models of sequences learn "
            "from what was done, dv365 has nothing to predict."
        )
    else:
        rows = sum(one.rows for one in shown) + shown_by_rows
        names = ", ".join(one.name for one in shown) or "the rows themselves"
        key = "click" if shown else "default_action: click"
        yield (
            f"models of sequences learn from the {learned:,} positive events, not from the "
            f"{rows:,} impressions ({names}); where somebody asked to see the item, `{key}` lets "
            "them learn from these too."
        )


def odd_names(columns: Iterable[tuple[str, str]], actions: Mapping[str, int]) -> Iterator[str]:
    """Names that a description cannot say.

    Args:
        columns: of the log, and why not.
        actions: rows by the name of an action.
    """
    for name, why in columns:
        yield f"column {name!r} is not read ({why}): give it a name of its own to have it read."
    for name, rows in actions.items():
        yield (
            f"{rows:,} rows have the action {name!r}, which no description can hold; they will be "
            "set aside unless it is called otherwise in the log."
        )


def odd_numbers(where: str, columns: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Numbers that are read as text.

    Args:
        where: the table.
        columns: of it, each with a value.
    """
    for column, value in columns:
        yield (
            f"{where}: {column} looks like numbers with decimal commas ({value}), which are read "
            "as text; write them with points."
        )


def odd_lengths(columns: Iterable[str | None]) -> Iterator[str]:
    """Lengths of time that are in milliseconds and so are not read."""
    for column in columns:
        yield f"{column} seems to be in milliseconds and is not read: write it in seconds."


def odd_tables(key: str, side: Side | None) -> Iterator[str]:
    """What is odd about a table of items or users."""
    if side is None or side.path is None:
        return
    yield from odd_numbers(str(side.path), side.with_commas)
    if side.match is None:
        yield f"{side.path} has no column that could hold the ids of {key}."
    elif side.match.ids == 0:
        yield (
            f"{side.path}: none of the log's {key} is in {side.match.column}; are ids written in "
            "another way there?"
        )
    elif side.match.rows < 0.5:
        yield f"{side.path} has the {key} of {side.match.rows:.0%} of the log's rows only."


def quantiles(counts: pl.Series) -> str:
    """What a tenth, half and nine tenths of users have at most, and the most.

    >>> quantiles(pl.Series([1, 2, 3]))
    '10%: 1, half: 2, 90%: 2, most: 3'
    """
    parts = [int(counts.quantile(share, "lower") or 0) for share in (0.1, 0.5, 0.9)]
    most = int(counts.max() or 0)  # type: ignore[arg-type]
    return f"10%: {parts[0]:,}, half: {parts[1]:,}, 90%: {parts[2]:,}, most: {most:,}"
