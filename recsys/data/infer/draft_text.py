"""The draft of a description as YAML that its owner can read and change."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path

from recsys.core.location import RemotePath
from recsys.data.contract.schema import Column
from recsys.data.infer.draft import Draft
from recsys.data.infer.meanings import means_itself
from recsys.data.infer.roles import Choice
from recsys.data.infer.sayable import OPEN
from recsys.data.infer.sides import Side
from recsys.data.infer.tables import SEVERAL, SINGLE
from recsys.data.infer.yaml_text import Line, element, note, setting, written

_HEAD = re.compile(rb"# Drafted by `recsys data infer` \(([0-9a-f]{8})\)\.")


def text_of(draft: Draft, file: Path) -> str:
    """A description, under a line with the checksum of the lines below.

    Args:
        draft: what it says.
        file: where it is to lie.
    """
    body = written(
        [
            note(draft.summary),
            note(f"Change what is wrong, then: recsys data prepare {file}"),
            setting("source", "log"),
            setting("name", draft.name, "of the data set"),
            setting("path", _path(draft.log.path, file), "from the folder of this file"),
            setting("out", f"prepared/{draft.name}", "what prepare writes, likewise"),
            setting("options", ...),
            *_columns(draft),
            *_times(draft),
            *_actions(draft),
            *_side("items", draft.items, file),
            *_side("users", draft.users, file),
            *_split(draft),
        ]
    )
    return f"# Drafted by `recsys data infer` ({zlib.crc32(body.encode()):08x}).\n{body}"


def is_unchanged_draft(path: Path) -> bool:
    """Whether a file is a draft that nobody has edited, so that it may be drafted anew."""
    head, _, body = path.read_bytes().partition(b"\n")
    found = _HEAD.fullmatch(head)
    return found is not None and found[1] == b"%08x" % zlib.crc32(body)


def is_edited_draft(path: Path) -> bool:
    """Whether a file is a draft that somebody has edited since."""
    head = path.read_bytes().partition(b"\n")[0]
    return _HEAD.fullmatch(head) is not None and not is_unchanged_draft(path)


def _path(path: Path, file: Path) -> str:
    """A path as a description in ``file`` names it; a URL is the same from anywhere."""
    if isinstance(path, RemotePath):
        return str(path)
    return Path(os.path.relpath(path.absolute(), file.absolute().parent)).as_posix()


def _columns(draft: Draft) -> list[Line]:
    lines = [setting("columns", ..., "what a column is: its name in the log", 2)]
    for name, choice in draft.columns.items():
        is_open = choice.column is None and name in (Column.USER, Column.ITEM)
        value = OPEN if is_open else choice.column
        lines.append(setting(name, value, reason(choice), 4))
    if draft.left_out:
        listed = "; ".join(f"{name} ({why})" for name, why in draft.left_out)
        lines.append(note(f"not read: {listed}", 4))
    return lines


def reason(choice: Choice) -> str:
    """Why a column was chosen, and which are as likely."""
    if choice.column is None:
        return choice.why
    also = f"; also possible: {', '.join(choice.also)}" if choice.also else ""
    return f"by {choice.why}{also}"


def _times(draft: Draft) -> list[Line]:
    lines = []
    if draft.time_unit is not None:
        lines.append(setting("time_unit", draft.time_unit[0], draft.time_unit[1], 2))
    if draft.needs_zone:
        lines.append(setting("time_zone", "UTC", "of times that name none", 2))
    return lines


def _actions(draft: Draft) -> list[Line]:
    lines = []
    if draft.default_action is not None:
        lines.append(setting("default_action", draft.default_action[0], draft.default_action[1], 2))
    meanings = draft.log.meanings
    if draft.log.flags:
        lines.append(setting("flags", ..., "columns of 0 and 1: what came of a row's item", 2))
        lines += [element(name, "", 4) for name in draft.log.flags]
    if meanings and all(map(means_itself, meanings)):
        lines.append(note("actions, all by the names that they have here:", 2))
    elif meanings:
        lines.append(setting("actions", ..., "name in the log: what it means", 2))
    for one in meanings:
        comment = f"{one.rows:,} rows; {one.why}"
        if means_itself(one):
            lines.append(note(f"{one.name}: {comment}", 4))
        else:
            lines.append(setting(one.name, one.meaning, comment, 4))
    return lines


def _side(key: str, side: Side | None, file: Path) -> list[Line]:
    if side is None:
        return []
    lines = [setting(key, ..., _match(key, side), 2)]
    if side.path is not None:
        lines.append(setting("path", _path(side.path, file), "", 4))
        lines.append(setting("id", OPEN if side.match is None else side.match.column, "", 4))
    if side.topics:
        could_be = " or ".join(side.topics)
        lines.append(note(f"no topic, so no results by topic; {could_be} could be it", 4))
    for name in SINGLE:
        lines += [setting(name, one.column, one.why, 4) for one in side.columns if one.key == name]
    for name in SEVERAL:
        of_key = [one for one in side.columns if one.key == name]
        if of_key:
            lines.append(setting(name, ..., "", 4))
            lines += [element(one.column, one.why, 6) for one in of_key]
    left_out = [f"{one.column} ({one.why})" for one in side.columns if one.key is None]
    if left_out and side.path is not None:
        lines.append(note(f"not read: {'; '.join(left_out)}", 4))
    return lines


def _match(key: str, side: Side) -> str:
    """How a table and the log belong together."""
    if side.path is None:
        return f"columns of the log that say the same in all rows of one of the {key}"
    if side.match is None:
        return "no column seems to hold the ids: fill in its name"
    found = (
        f"has {side.match.ids:.1%} of the log's {key}, those of {side.match.rows:.1%} of its rows"
    )
    return found + (f"; also possible: {', '.join(side.match.also)}" if side.match.also else "")


def _split(draft: Draft) -> list[Line]:
    (first, value), *others = draft.splitting.options.items()
    return [
        setting(first, value, draft.splitting.why, 2),
        *(setting(key, one, "", 2) for key, one in others),
    ]
