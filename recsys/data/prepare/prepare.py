"""`recsys data prepare`: from a source's files to a prepared data set, or to one found prepared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import polars as pl
import pyarrow as pa

from recsys.core.bounds import Name, Number, OneOf, OutPath, Settings
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import (
    check_folder,
    check_replaced,
    locked_folder,
    replaced_folder,
)
from recsys.core.location import find_data_dir, find_path
from recsys.data.contract.input_files import (
    InputFile,
    load_input_files,
    save_input_files,
)
from recsys.data.contract.log_parts import THE_FRAME
from recsys.data.contract.manifest import DATASET_FILE, DATASET_FOLDER, ORDER, DatasetManifest
from recsys.data.prepare.fingerprint import fingerprint
from recsys.data.prepare.preparation import Preparation
from recsys.data.sources import SOURCES, TABLES, Source, complete_options, open_source
from recsys.data.stores.check import open_checked
from recsys.data.stores.dataset import FEATURES, mark_files
from recsys.data.stores.vocabulary import VOCABULARIES, IdMode

#: In a manifest's preparation: fingerprints the data set had before days were appended to it.
GROWN_FROM = "grown_from"


@dataclass(frozen=True)
class PrepareConfig(Settings):
    """How a data set is prepared; conf/data/ holds one file per data set, as may the user.

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

    @classmethod
    def read_file(cls, path: Path) -> dict[str, Any]:
        """What a description of the user's own says, for ``data=mine.yaml``.

        Raises:
            ConfigError: it cannot be read or does not fit.
        """
        from recsys.data.prepare.description import read_description  # Hydra, which few need

        return read_description(path, cls)

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
        DataError: a file cannot be used, or the data set was prepared in another way.
        ConfigError: the configuration cannot work, or the folder holds something else.
    """
    mode = IdMode(config.ids)
    if config.append and config.overwrite:
        raise ConfigError(
            "append=true keeps a data set and overwrite=true replaces it: give one of the two."
        )
    data = _find_path(config) if frame is None else frame
    options, tables = _with_found_tables(config)
    source = open_source(config.source, data, options)
    description = {
        "source": config.source,
        "name": config.title,
        "ids": config.ids,
        "hash_buckets": config.hash_buckets if mode is IdMode.HASHED else 0,
        "options": complete_options(config.source, options),
    }
    folder = config.out_folder
    inputs = [data, *tables] if isinstance(data, Path) else tables
    check_folder(folder, DATASET_FOLDER, inputs)
    with locked_folder(folder), _unforeseen_as_sentence(data):
        check_folder(folder, DATASET_FOLDER, inputs)
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
        check_replaced(folder, DATASET_FOLDER, inputs)
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
                files=mark_files(partial),
            )
            manifest.save(partial)
            save_input_files(files, partial)
            check_replaced(folder, DATASET_FOLDER, inputs)  # what came meanwhile stays too
        return DatasetManifest.load(folder)


@contextmanager
def _unforeseen_as_sentence(data: Path | pl.DataFrame | pl.LazyFrame) -> Iterator[None]:
    """Say of what the table libraries stumble over that it is the data's.

    Raises:
        DataError: they did.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        what = data if isinstance(data, Path) else THE_FRAME
        raise DataError(
            f"{what} holds what cannot be prepared ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); compare its columns with docs/data.md."
        ) from error


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
    if ORDER in (existing.times, source.times):
        raise DataError(
            f"{folder} cannot be appended to, for it was split by order, or the log is to be: "
            "there times are an order only, behind which no later day lies. Prepare the whole log "
            "again with overwrite=true."
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
    open_checked(folder)  # what is damaged gets no new checksum
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
            files=existing.files | mark_files(partial, f"{VOCABULARIES}/*", f"{FEATURES}/*"),
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


def _with_found_tables(config: PrepareConfig) -> tuple[dict[str, Any], list[Path]]:
    """The options with the places of the tables of items and users, and these."""
    options, places = dict(config.options), []
    for key in TABLES:
        table = options.get(key)
        if isinstance(table, Mapping) and isinstance(table.get("path"), str):
            places.append(find_path(config.data_dir, table["path"]))
            options[key] = {**table, "path": str(places[-1])}
    return options, places


def _existing(folder: Path) -> DatasetManifest | None:
    return DatasetManifest.load(folder) if (folder / DATASET_FILE).is_file() else None
