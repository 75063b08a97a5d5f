"""`recsys data append`: new days behind those of a prepared data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import polars as pl

from recsys.core.bounds import Name, Number, OneOf, OutPlace, Place, Settings
from recsys.core.engines import EngineConfig
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import check_folder, replaced_folder
from recsys.core.location import is_url, located
from recsys.core.open_engine import open_engine
from recsys.data.contract.actions import commonest_first
from recsys.data.contract.input_files import (
    InputFile,
    load_input_files,
    merged_files,
    save_input_files,
)
from recsys.data.contract.manifest import DATASET_FOLDER, GROWN_FROM, ORDER, DatasetManifest
from recsys.data.prepare.fingerprint import OPTIONS, describe, differences, grown_fingerprint
from recsys.data.prepare.growth import Growth, NothingNewError
from recsys.data.prepare.preparation import rejected_folder
from recsys.data.prepare.prepare import (
    PrepareConfig,
    find_log,
    unforeseen_as_sentence,
    with_found_tables,
)
from recsys.data.prepare.split_requests import AddedRows
from recsys.data.sources import SOURCES, TABLES, open_source, takes_option
from recsys.data.stores.check import open_checked
from recsys.data.stores.dataset import locked_dataset, mark_files
from recsys.data.stores.vocabulary import IdMode

_ACTIONS = "actions"
#: Counts of which an append says what it has added; the others are of request rows.
_EVENTS = ("events", "explicit_events", "implicit_events", "users", "items")


@dataclass(frozen=True)
class AppendConfig(Settings):
    """What is appended, and to which data set.

    How the log is read is what the data set was prepared with. A description that is given, by
    ``source`` and what goes with it, must say the same.

    Attributes:
        source: the adapter; None for the description of the data set.
        path: file or folder of the new days, alone or with those that are prepared already.
        data_dir: where data sets are looked for, before RECSYS_DATA_DIR and ./data.
        out: folder of the data set; None for ``prepared/<name>``.
        name: of the data set.
        ids: as it was prepared.
        hash_buckets: likewise.
        partitions: user partitions; one of them is held in memory at a time.
        options: of the source.
        engine: what the pieces of the work are done by.
    """

    source: Annotated[str, OneOf(tuple(SOURCES))] | None = None
    path: Place | None = None
    data_dir: str | None = None
    out: OutPlace | None = None
    name: Name | None = None
    ids: Annotated[str, OneOf(tuple(IdMode))] | None = None
    hash_buckets: Annotated[int, Number(at_least=2, at_most=2**31 - 1)] | None = None
    partitions: Annotated[int, Number(at_least=1, at_most=4_096)] = 64
    options: dict[str, Any] = field(default_factory=dict)
    engine: EngineConfig = field(default_factory=EngineConfig)

    @classmethod
    def read_file(cls, path: Path) -> dict[str, Any]:
        """What a description of the user's own says, for ``data=mine.yaml``.

        Raises:
            ConfigError: it cannot be read or does not fit.
        """
        content = {"source": PrepareConfig.source, **PrepareConfig.read_file(path)}
        content.pop("overwrite", None)
        return content

    @property
    def out_folder(self) -> Path:
        """The folder of the data set.

        Raises:
            ConfigError: nothing says which it is.
        """
        name = self.name or self.source
        if self.out is None and name is None:
            raise ConfigError("say which data set: out=<its folder>, or the description, data=….")
        return located(self.out or Path("prepared") / str(name))

    def options_for(self, existing: DatasetManifest) -> tuple[dict[str, Any], list[Path]]:
        """How the log is read, and where its tables of items and users lie.

        Raises:
            ConfigError: the data set has such a table, and only a description says where.
        """
        if self.source is not None or self.options:
            return with_found_tables(self.options, self.data_dir)
        options = dict(existing.preparation[OPTIONS])
        for key in TABLES:
            if "path" in options.get(key, {}):
                raise ConfigError(
                    f"the data set has a table of {key}, and its description alone says where "
                    "that lies: give it too, data=<the description>."
                )
        return options, []

    def described(self, existing: DatasetManifest, options: dict[str, Any]) -> dict[str, Any]:
        """What is said of how the data set is prepared; the rest is as it was."""
        former = existing.preparation
        buckets = former["hash_buckets"] if self.hash_buckets is None else self.hash_buckets
        name = self.name or self.source or existing.name
        source = self.source or existing.source
        return describe(source, name, self.ids or former["ids"], buckets, options)


@dataclass(frozen=True)
class Appended:
    """What an append has added.

    Attributes:
        manifest: of the data set, as it is now.
        former: as it was before.
        counts: events, users and items that have come, by name.
        rows: what has come of request rows.
        rejected: rows of the log that were not taken in, by reason.
        unknown_actions: those of them whose action is unknown, by its name.
        folder: where those that were set aside lie.
    """

    manifest: DatasetManifest
    former: DatasetManifest
    counts: dict[str, int]
    rows: AddedRows
    rejected: dict[str, int]
    unknown_actions: dict[str, int]
    folder: Path

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added, so that the data set is as it was."""
        return not self.counts


def append(config: AppendConfig, frame: pl.DataFrame | pl.LazyFrame | None = None) -> Appended:
    """Add what is later than the last event of a data set: a new generation of it.

    Events, ids and feature rows come behind the old ones, request rows to where their time
    belongs. Labels that could still come are derived again. Splits are taken anew by the rule of
    the description; indices and encodings stay, so a trained model still fits.

    The folder is replaced in one step when everything is written; interrupted, nothing has changed.

    Args:
        config: what is appended, and to what.
        frame: a log in memory, in the place of ``config.path``.

    Raises:
        DataError: a file cannot be used, or the data set was prepared in another way.
        ConfigError: the configuration cannot work, or the folder holds something else.
    """
    folder = config.out_folder
    if is_url(folder):
        from recsys.core.mirror import mirrored  # which few need

        with mirrored(folder) as copy:
            appended = append(replace(config, out=str(copy)), frame)
        set_aside = folder / appended.folder.relative_to(copy)
        return replace(appended, folder=set_aside)
    check_folder(folder, DATASET_FOLDER)
    with locked_dataset(folder) as dataset:
        existing = dataset.manifest
        options, tables = config.options_for(existing)
        description = config.described(existing, options)
        changed = differences(existing, _with_actions_of(existing, description), "")
        if changed:
            raise DataError(
                f"{folder} was prepared with another configuration: {'; '.join(changed)}. Leave "
                "that out, or prepare the whole log again with overwrite=true."
            )
        if existing.times == ORDER:
            raise DataError(
                f"{folder} was split by order, and its times are an order only, behind which no "
                "later day lies. Prepare the whole log again with overwrite=true."
            )
        data: Path | pl.DataFrame | pl.LazyFrame
        data = _log(existing, config) if frame is None else frame
        inputs = [data, *tables] if isinstance(data, Path) else tables
        check_folder(folder, DATASET_FOLDER, inputs)
        with unforeseen_as_sentence(data):
            return _append(folder, existing, data, options, description, config)


def _log(existing: DatasetManifest, config: AppendConfig) -> Path:
    return find_log(existing.source, config.path, config.data_dir)


def _with_actions_of(existing: DatasetManifest, description: dict[str, Any]) -> dict[str, Any]:
    """A description without the actions that it has more: new days may bring new ones."""
    options = dict(description[OPTIONS])
    former = existing.preparation[OPTIONS].get(_ACTIONS, {})
    now = {name: of for name, of in options.get(_ACTIONS, {}).items() if name in former}
    return {**description, OPTIONS: {**options, _ACTIONS: now} if now else _without(options)}


def _without(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != _ACTIONS}


def _append(
    folder: Path,
    existing: DatasetManifest,
    data: Path | pl.DataFrame | pl.LazyFrame,
    options: dict[str, Any],
    description: dict[str, Any],
    config: AppendConfig,
) -> Appended:
    open_checked(folder)  # what is damaged gets no new checksum
    if existing.tasks and takes_option(existing.source, "tasks"):
        options = {
            **options,
            "tasks": [task.name for task in existing.tasks],
        }  # a day may lack some
    source = open_source(existing.source, data, options)
    known = load_input_files(folder)
    source.refuse_rewritten(known)
    files = source.inputs(known)
    generation = existing.generation + 1
    try:
        with (
            replaced_folder(folder, start_from=folder) as partial,
            TemporaryDirectory(dir=partial, prefix="spill-") as spill,
            open_engine(config.engine, partial) as engine,
        ):
            preparation = Growth(source, partial, Path(spill), config.partitions, existing, engine)
            grown = preparation.grow()
            new = _unknown(files, known)
            manifest = replace(
                grown,
                fingerprint=grown_fingerprint(existing, new),
                preparation={
                    **existing.preparation,
                    **description,
                    GROWN_FROM: list(existing.lineage),
                },
                files=mark_files(partial),
            )
            manifest.save(partial)
            save_input_files(merged_files(files, known, generation), partial)
    except NothingNewError as nothing:
        return Appended(existing, existing, {}, AddedRows(), nothing.counts, {}, folder)
    return Appended(
        DatasetManifest.load(folder),
        existing,
        {name: manifest.counts[name] - existing.counts[name] for name in _EVENTS},
        preparation.added,
        dict(sorted(preparation.rejected.counts.items())),
        commonest_first(preparation.intake.unknown_actions),
        folder / rejected_folder(existing),
    )


def _unknown(files: Sequence[InputFile], known: Sequence[InputFile]) -> list[InputFile]:
    digests = {one.digest for one in known}
    return [one for one in files if one.digest not in digests]
