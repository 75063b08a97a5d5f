"""What the columns of a table of items or users are taken for, and how much of the log it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recsys.data.contract.log_parts import LogPart
from recsys.data.infer.hash_sample import HashSample, hashes_of
from recsys.data.infer.names import (
    AMOUNTS,
    LABELS,
    ROW_NUMBERS,
    ItemRole,
    Role,
    is_exact,
    likeness,
    plain,
    words,
)
from recsys.data.infer.profile import Kind, Profile

#: Columns that are compared with the ids of the log.
_MOST_CANDIDATES = 8
#: Whole numbers with so few values are categories, where the name does not say otherwise.
_FEW = 20
#: Different values that a topic nobody named may have, and columns that are named as such.
_MOST_TOPICS, _MOST_NAMED = 200, 3
#: Words of a text, by the mean; and of a title at most.
_TEXT_WORDS = 4
_TITLE_WORDS = 25

#: Keys of a table that hold several columns, in the order of a description.
SEVERAL = ("texts", "categorical", "dense", "lists")
#: Keys of a table of items that hold one.
SINGLE = ("author", "topic", "title", "embedding", "image")


@dataclass(frozen=True)
class TableColumn:
    """What a column is taken for.

    Attributes:
        column: its name.
        key: of the description, such as ``title`` or ``dense``; None where it is left out.
        why: in words.
    """

    column: str
    key: str | None
    why: str


@dataclass(frozen=True)
class Match:
    """How a table's ids are those of the log.

    Attributes:
        column: the column of ids.
        ids: share of the log's different ids that the table has.
        rows: share of the log's rows whose id the table has.
        also: columns with as many of the log's ids.
    """

    column: str
    ids: float
    rows: float
    also: tuple[str, ...] = ()


def matched(
    parts: Sequence[LogPart], profiles: Mapping[str, Profile], log_ids: HashSample, role: Role
) -> Match | None:
    """The column that has most of the log's ids; by its name where none has any.

    Args:
        parts: of the table.
        profiles: of its columns.
        log_ids: of the log.
        role: ``user_id`` or ``item_id``.
    """
    named = {one.name: likeness(one.name, role) for one in profiles.values() if one.is_id}
    for name in named:
        if plain(name) == "id":
            named[name] += 900
    candidates = sorted(named, key=lambda name: -named[name] - profiles[name].distinct_share)
    candidates = candidates[:_MOST_CANDIDATES]
    if not candidates:
        return None
    samples = {name: HashSample() for name in candidates}
    for part in parts:
        for chunk in part.chunks([name for name in candidates if name in part.types]):
            for name in chunk.columns:
                samples[name].add(hashes_of(chunk[name].drop_nulls()))
    found = {name: log_ids.found_in(samples[name]) for name in candidates}
    # of small numbers that happen to be ids too, the column with the fewer repeats
    best = max(candidates, key=lambda name: (round(found[name][0], 2), named[name]))
    if found[best][0] == 0:
        best = candidates[0] if named[candidates[0]] else best
    also = (n for n in candidates if n != best and found[n][0] >= 0.99 * found[best][0] > 0)
    also = (name for name in also if is_exact(named[name]) == is_exact(named[best]))
    return Match(best, *found[best], tuple(also))


def columns_of(
    profiles: Sequence[Profile], of_items: bool, taken: Sequence[str] = ()
) -> list[TableColumn]:
    """What each column of a table is taken for, but the ids.

    Args:
        profiles: of the columns, one row per id.
        of_items: whether it is a table of items; otherwise of users.
        taken: keys that the log itself gives: ``author``, ``topic``.
    """
    single = _single(profiles, taken) if of_items else {}
    found = []
    for one in profiles:
        key, why = single.get(one.name) or _kind(one, of_items)
        found.append(TableColumn(one.name, key, why))
    if of_items and not any(one.key == "title" for one in found):
        found = _with_title(found, {one.name: one for one in profiles})
    return found


def topics_of(profiles: Sequence[Profile], columns: Sequence[TableColumn]) -> tuple[str, ...]:
    """Columns of few different texts that could be the topic, where none is taken for it.

    Args:
        profiles: of the columns of a table of items.
        columns: what they are taken for.
    """
    if any(one.key == "topic" for one in columns):
        return ()
    categories = {one.column for one in columns if one.key == "categorical"}
    able = [one for one in profiles if one.name in categories and one.kind is Kind.TEXT]
    able = [one for one in able if 2 < one.distinct <= _MOST_TOPICS and not one.with_commas]
    return tuple(one.name for one in able[:_MOST_NAMED])


def _single(profiles: Sequence[Profile], taken: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The one column each for author, topic, title, embedding and image, by its name."""
    chosen: dict[str, tuple[str, str]] = {}
    for key in (ItemRole.TITLE, ItemRole.AUTHOR, ItemRole.TOPIC, ItemRole.IMAGE):
        if key in taken:
            continue
        able = [one for one in profiles if one.name not in chosen and _can_be(key, one)]
        able.sort(key=lambda one: -likeness(one.name, key))
        if able and (is_exact(likeness(able[0].name, key)) or _shown_by_values(key, able[0])):
            chosen[able[0].name] = (str(key), "by its name")
    vectors = [one.name for one in profiles if one.kind is Kind.VECTOR]
    if vectors:
        chosen[vectors[0]] = ("embedding", "lists of numbers")
    return chosen


def _can_be(key: ItemRole, one: Profile) -> bool:
    if one.is_constant:
        return False
    if key is ItemRole.TITLE:
        differs = one.distinct_share > 0.3
        if is_exact(likeness(one.name, key)):  # so it is called, and many items may share one
            differs = one.distinct > _FEW
        return one.kind is Kind.TEXT and one.words <= _TITLE_WORDS and differs
    if key is ItemRole.IMAGE:
        return one.kind is Kind.LINK
    return one.kind in (Kind.WHOLE, Kind.TEXT) and one.words < 6 and one.distinct_share < 0.95


def _shown_by_values(key: ItemRole, one: Profile) -> bool:
    if key is ItemRole.IMAGE:
        return one.pictures > 0.5 or likeness(one.name, key) > 0
    return key is ItemRole.TITLE and likeness(one.name, key) > 0


def _kind(one: Profile, of_items: bool) -> tuple[str | None, str]:
    """The key for columns of a kind, and why; None where nothing can be made of them."""
    if one.kind is Kind.EMPTY:
        return None, "empty"
    if one.is_constant:
        return None, "the same in all rows"
    if one.is_row_number and plain(one.name) in ROW_NUMBERS:
        return None, "numbers the rows"
    if one.kind is Kind.LIST:
        return "lists", "several values a row"
    if one.kind is Kind.FLAG:
        return "categorical", "true or false"
    if one.kind in (Kind.WHOLE, Kind.NUMBER):
        return _of_numbers(one)
    if one.kind is Kind.TEXT:
        return _of_text(one, of_items)
    reasons = {
        Kind.TIME: "times, which are no feature: write a number or a category made of them",
        Kind.LINK: "links",
        Kind.VECTOR: "a further list of numbers",
    }
    return None, reasons.get(one.kind, f"{one.kind}")


def _of_numbers(one: Profile) -> tuple[str | None, str]:
    named = words(one.name)
    if named & AMOUNTS:
        return "dense", "numbers, an amount by the name"
    if one.kind is Kind.NUMBER and not named & LABELS:
        return "dense", "numbers"
    if named & LABELS:
        if one.distinct_share > 0.9 and one.known > _FEW:
            return None, "another value in each row, and no amount by its name"
        return "categorical", f"{one.distinct:,} different numbers, by the name not an amount"
    if one.distinct <= _FEW:
        return "categorical", f"{one.distinct:,} different whole numbers"
    return "dense", "whole numbers"


def _of_text(one: Profile, of_items: bool) -> tuple[str | None, str]:
    shown = f"{one.distinct:,} different, {one.words:.1f} words each"
    if of_items and one.words >= _TEXT_WORDS and one.distinct_share > 0.2:
        return "texts", f"text: {shown}"
    if one.distinct_share < 0.5 or one.distinct <= _FEW:
        return "categorical", f"{one.distinct:,} different texts"
    if of_items and one.words >= 1.5:
        return "texts", f"text: {shown}"
    return None, f"another text in nearly each row ({one.distinct:,})"


def _with_title(found: list[TableColumn], profiles: Mapping[str, Profile]) -> list[TableColumn]:
    """The shortest column of texts as the title, where no name says which is."""
    texts = [one for one in found if one.key == "texts"]
    texts = [one for one in texts if profiles[one.column].words <= _TITLE_WORDS]
    if not texts:
        return found
    shortest = min(texts, key=lambda one: profiles[one.column].words)
    title = TableColumn(shortest.column, "title", "the shortest text")
    return [title if one is shortest else one for one in found]
