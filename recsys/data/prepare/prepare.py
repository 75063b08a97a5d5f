"""`recsys data prepare`: from a source's files to a prepared data set, or to one found prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import polars as pl

from recsys.core.bounds import Name, Number, OneOf, OutPath, Settings
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import locked_folder, replaced_folder, was_ever_locked
from recsys.core.location import find_data_dir, find_path
from recsys.data.contract.input_files import (
    InputFile,
    load_input_files,
    save_input_files,
)
from recsys.data.contract.manifest import DATASET_FILE, DatasetManifest
from recsys.data.prepare.fingerprint import fingerprint
from recsys.data.prepare.preparation import Preparation
from recsys.data.sources import SOURCES, Source, complete_options, open_source
from recsys.data.stores.vocabulary import IdMode

#: In a manifest's preparation: fingerprints the data set had before days were appended to it.
GROWN_FROM = "grown_from"


@dataclass(frozen=True)
class PrepareConfig(Settings):
    """How a data set is prepared; conf/data/ holds one file per data set.

    Attributes:
        source: the adapter: ``log``, ``kuairand``, ``ebnerd``, ``globo``, ``movielens`` or
            ``simulated``.
        path: the owner's file or folder, below the data folder unless absolute or found as it
            is; None for the place where the source usually lies.
        data_dir: where data sets are looked for, before RECSYS_DATA_DIR and ./data.
        out: folder of the prepared data set; None for ``prepared/<name>``.
        name: of the data set; None for the name of the source.
        ids: ``dictionary`` gives every id an index of its own, ``hashed`` one of ``hash_buckets``.
        hash_buckets: number of indices per id column in the hashed mode.
        append: add the events after the last one to an existing data set.
        overwrite: replace a data set that was prepared in another way or from other files.
        partitions: user partitions; one of them is held in memory at a time.
        options: of the source.
    """

    source: Annotated[str, OneOf(tuple(SOURCES))] = "log"
    path: str | None = None
    data_dir: str | None = None
    out: OutPath | None = None
    name: Name | None = None
    ids: Annotated[str, OneOf(tuple(IdMode))] = "dictionary"
    hash_buckets: Annotated[int, Number(at_least=2, at_most=2**31 - 1)] = 1_000_000
    append: bool = False
    overwrite: bool = False
    partitions: Annotated[int, Number(at_least=1, at_most=4_096)] = 64
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The data set's name."""
        return self.name or self.source

    @property
    def out_folder(self) -> Path:
        """The folder of the prepared data set."""
        return Path(self.out or Path("prepared") / self.title)


def prepare(
    config: PrepareConfig, frame: pl.DataFrame | pl.LazyFrame | None = None
) -> DatasetManifest:
    """Prepare a data set, or find it prepared already.

    The folder appears in one step when everything is written; interrupted, nothing has changed.
    A second process that prepares into the same folder waits for the first. Appending adds a
    segment to the timelines and rows to the vocabularies and features; indices, encodings,
    requests and splits stay as they are.

    Args:
        config: what is prepared, and where to.
        frame: a log in memory, in the place of ``config.path``.

    Raises:
        DataError: a file cannot be used, or the folder holds something else.
        ConfigError: the configuration cannot work.
    """
    mode = IdMode(config.ids)
    data = _find_path(config) if frame is None else frame
    source = open_source(config.source, data, dict(config.options))
    description = {
        "source": config.source,
        "name": config.title,
        "ids": config.ids,
        "hash_buckets": config.hash_buckets if mode is IdMode.HASHED else 0,
        "options": complete_options(config.source, dict(config.options)),
    }
    folder = config.out_folder
    if isinstance(data, Path) and folder.resolve().is_relative_to(data.resolve()):
        raise ConfigError(
            f"out={folder} lies in {data}, where the log is read from, and would be read with it "
            "the next time; give another out."
        )
    if not was_ever_locked(folder):
        _existing(folder)  # a folder of something else is refused before a lock lies beside it
    with locked_folder(folder):
        existing = _existing(folder)
        known = load_input_files(folder)
        files = source.inputs(known)
        mark = fingerprint(description, files)
        if existing is not None and existing.fingerprint == mark:
            if files != known:  # the same content, copied or touched since
                save_input_files(files, folder)
            return existing
        if config.append:
            appendable = _appendable(folder, existing, source)
            return _append(source, folder, appendable, config, mark, files)
        if existing is not None and not config.overwrite:
            raise DataError(
                f"{folder} was prepared with another configuration or from other files; repeat the "
                "options it was prepared with, or give overwrite=true to replace it, append=true "
                "to add new days, or another out=."
            )
        with (
            replaced_folder(folder) as partial,
            TemporaryDirectory(dir=partial, prefix="spill-") as spill,
        ):
            preparation = Preparation(source, partial, Path(spill), config.partitions)
            manifest = replace(
                preparation.run(mode, config.hash_buckets),
                name=config.title,
                fingerprint=mark,
                preparation={**description, "standardisation": preparation.encoding.dense},
            )
            manifest.save(partial)
            save_input_files(files, partial)
        return DatasetManifest.load(folder)


def _appendable(folder: Path, existing: DatasetManifest | None, source: Source) -> DatasetManifest:
    if existing is None:
        raise DataError(
            f"{folder} is not a prepared data set that could be appended to; "
            "prepare it without append=true first."
        )
    if existing.source != source.name:
        raise DataError(
            f"{folder} was prepared from source={existing.source}, not {source.name}; "
            "append from the same source."
        )
    return existing


def _append(
    source: Source,
    folder: Path,
    existing: DatasetManifest,
    config: PrepareConfig,
    mark: str,
    files: Sequence[InputFile],
) -> DatasetManifest:
    with (
        replaced_folder(folder, start_from=folder) as partial,
        TemporaryDirectory(dir=partial, prefix="spill-") as spill,
    ):
        preparation = Preparation(source, partial, Path(spill), config.partitions, existing)
        grown_from = [*existing.preparation.get(GROWN_FROM, []), existing.fingerprint]
        manifest = replace(
            preparation.run_append(existing),
            fingerprint=mark,
            preparation={**existing.preparation, GROWN_FROM: grown_from},
        )
        manifest.save(partial)
        save_input_files(files, partial)
    return DatasetManifest.load(folder)


def _find_path(config: PrepareConfig) -> Path:
    if config.path is None:
        default = SOURCES[config.source].default_path
        if default is None:
            raise ConfigError(f"source={config.source} needs path=<file or folder of the log>.")
        return find_data_dir(config.data_dir, default)
    return find_path(config.data_dir, config.path)


def _existing(folder: Path) -> DatasetManifest | None:
    if (folder / DATASET_FILE).is_file():
        return DatasetManifest.load(folder)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(
            f"{folder} exists and is not a prepared data set; give another out= or remove it."
        )
    return None
