"""`recsys data infer`: look at a log and draft its description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from recsys.core.bounds import Name, OutPath, Place, Settings
from recsys.core.durable import replaced_file
from recsys.core.errors import ConfigError
from recsys.core.folders import check_file
from recsys.core.location import find_path
from recsys.data.infer.draft import Draft
from recsys.data.infer.draft_text import is_edited_draft, is_unchanged_draft, text_of
from recsys.data.infer.look import LogLook
from recsys.data.infer.names import Role
from recsys.data.infer.sides import side_of
from recsys.data.prepare.prepare import PrepareConfig

#: RecBole's files of one data set: events, items, users.
_EVENTS, _OF_SIDES = ".inter", {"items": ".item", "users": ".user"}


@dataclass(frozen=True)
class InferConfig(Settings):
    """What is looked at, and where the draft is written.

    Attributes:
        path: the log, as ``path`` of `recsys data prepare`; of RecBole's files the one that ends
            in ``.inter``, or the folder of all three.
        items: the table of items; None for none, or the ``.item`` beside an ``.inter``.
        users: the table of users, likewise.
        out: the description to write.
        name: of the data set; None for that of the description's file.
        data_dir: where files are looked for, before RECSYS_DATA_DIR and ./data.
    """

    path: Place = MISSING
    items: Place | None = None
    users: Place | None = None
    out: OutPath = MISSING
    name: Name | None = None
    data_dir: str | None = None


@dataclass(frozen=True)
class Inferred:
    """What was found, and written.

    Attributes:
        draft: what the description says.
        file: the description.
        text: its lines.
    """

    draft: Draft
    file: Path
    text: str

    @property
    def next(self) -> list[str]:
        """The commands that come next."""
        return [
            f"recsys data prepare {self.file}",
            f"recsys train data={self.file} system=sequence",
        ]


def infer(config: InferConfig) -> Inferred:
    """Look at a log and its tables, and write the draft of their description.

    Of all columns a sample is read; of users, items, times and actions every row.

    Raises:
        DataError: a file is missing or damaged.
        ConfigError: ``out`` is somebody's file, or a draft that was edited.
    """
    out = Path(config.out)
    paths = _paths(config)
    _check_out(out, list(paths.values()))
    log = LogLook(paths["path"])
    items = side_of(log, paths.get("items"), Role.ITEM)
    users = side_of(log, paths.get("users"), Role.USER)
    draft = Draft(config.name or out.stem, log, items, users)
    text = text_of(draft, out)
    with replaced_file(out) as partial:
        partial.write_text(text)
        _check(partial, out)
    return Inferred(draft, out, text)


def _paths(config: InferConfig) -> dict[str, Path]:
    """The files by their settings, those of RecBole's layout found beside each other."""
    log = find_path(config.data_dir, config.path)
    events = sorted(log.glob(f"*{_EVENTS}")) if log.is_dir() else []
    if len(events) == 1:
        log = events[0]
    found = {"path": log}
    for key, suffix in _OF_SIDES.items():
        given = getattr(config, key)
        beside = log.with_suffix(suffix)
        if given is not None:
            found[key] = find_path(config.data_dir, given)
        elif log.suffix == _EVENTS and beside.is_file():
            found[key] = beside
    return found


def _check(partial: Path, out: Path) -> None:
    """What is drafted must be what every other command takes."""
    try:
        PrepareConfig.read_file(partial)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(partial), str(out))) from error


def _check_out(out: Path, inputs: Sequence[Path]) -> None:
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"out={out}: a description is a .yaml file; give it this ending.")
    if out.is_file() and is_edited_draft(out):
        raise ConfigError(
            f"{out} was edited since it was drafted, and is not replaced; give another out=, or "
            "remove it yourself."
        )
    # a description may lie in the folder of the log's files, which `check_file` is not told
    check_file(out, is_unchanged_draft, [path for path in inputs if path.is_file()])
    out.parent.mkdir(parents=True, exist_ok=True)
