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

from recsys.core.bounds import Name, Number, OneOf, OutPlace, Place, Settings
from recsys.core.engines import EngineConfig
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import (
    check_folder,
    check_replaced,
    locked_folder,
    replaced_folder,
)
from recsys.core.location import find_data_dir, find_path, is_url, located
from recsys.core.open_engine import open_engine
from recsys.data.contract.input_files import (
    InputFile,
    are_known,
    load_input_files,
    merged_files,
    save_input_files,
)
from recsys.data.contract.log_parts import THE_FRAME
from recsys.data.contract.manifest import DATASET_FILE, DATASET_FOLDER, DatasetManifest
from recsys.data.prepare.fingerprint import describe, differences, fingerprint
from recsys.data.prepare.preparation import Preparation
from recsys.data.sources import SOURCES, TABLES, open_source
from recsys.data.stores.dataset import mark_files
from recsys.data.stores.vocabulary import IdMode

#: Names that a message lists.
_LISTED = 3


@dataclass(frozen=True)
class PrepareConfig(Settings):
    """How a data set is prepared; conf/data/ holds one file per data set, as may the user.

    Attributes:
        source: the adapter: ``log``, ``kuairand``, ``ebnerd``, ``globo``, ``movielens``,
            ``simulated`` or ``ledger``.
        path: the owner's file or folder, below the data folder unless absolute or found as it
            is; None for the place where the source usually lies.
        data_dir: where data sets are looked for, before RECSYS_DATA_DIR and ./data.
        out: folder of the prepared data set; None for ``prepared/<name>``.
        name: of the data set; None for the name of the source.
        ids: ``dictionary`` gives every id an index of its own, ``hashed`` one of ``hash_buckets``.
        hash_buckets: number of indices per id column in the hashed mode.
        overwrite: replace a data set that was prepared in another way or from other files.
        partitions: user partitions; one of them is held in memory at a time.
        timeline_partitions: the same of the timelines that are written.
        options: of the source.
        engine: what the pieces of the work are done by.
    """

    source: Annotated[str, OneOf(tuple(SOURCES))] = "log"
    path: Place | None = None
    data_dir: str | None = None
    out: OutPlace | None = None
    name: Name | None = None
    ids: Annotated[str, OneOf(tuple(IdMode))] = "dictionary"
    hash_buckets: Annotated[int, Number(at_least=2, at_most=2**31 - 1)] = 1_000_000
    overwrite: bool = False
    partitions: Annotated[int, Number(at_least=1, at_most=4_096)] = 64
    timeline_partitions: Annotated[int, Number(at_least=1, at_most=4_096)] = 16
    options: dict[str, Any] = field(default_factory=dict)
    engine: EngineConfig = field(default_factory=EngineConfig)

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
        return located(self.out or Path("prepared") / self.title)


def prepare(
    config: PrepareConfig,
    frame: pl.DataFrame | pl.LazyFrame | None = None,
    place: str = "",
) -> DatasetManifest:
    """Prepare a data set, or find it prepared already.

    It is found where the description is the same and the files are, by their content, those it was
    first prepared from, those of days that were appended, or all of them.

    The folder appears in one step when everything is written; interrupted, nothing has changed.
    A second process that prepares into the same folder waits for the first. At a URL it appears
    likewise, once all of it is uploaded (:mod:`recsys.core.mirror`).

    Args:
        config: what is prepared, and where to.
        frame: a log in memory, in the place of ``config.path``.
        place: where its settings stand in the user's command: ``data.`` of a training.

    Raises:
        DataError: a file cannot be used, or the data set was prepared in another way.
        ConfigError: the configuration cannot work, or the folder holds something else.
    """
    if is_url(config.out_folder):
        from recsys.core.mirror import mirrored  # which few need

        with mirrored(config.out_folder) as copy:
            return prepare(replace(config, out=str(copy)), frame, place)
    mode = IdMode(config.ids)
    data = find_log(config.source, config.path, config.data_dir) if frame is None else frame
    options, tables = with_found_tables(config.options, config.data_dir)
    source = open_source(config.source, data, options)
    description = describe(config.source, config.title, config.ids, config.hash_buckets, options)
    folder = config.out_folder
    inputs = [data, *tables] if isinstance(data, Path) else tables
    check_folder(folder, DATASET_FOLDER, inputs)
    with locked_folder(folder), unforeseen_as_sentence(data):
        check_folder(folder, DATASET_FOLDER, inputs)
        existing = existing_dataset(folder)
        known = load_input_files(folder)
        files = source.inputs(known)
        if existing is not None:
            problem = _not_the_same(existing, description, files, known, place)
            if problem is None:
                found = merged_files(files, known, 0)
                if found != known:  # the same content, copied or touched since
                    save_input_files(found, folder)
                return existing
            if not config.overwrite:
                raise DataError(f"{folder} {problem}")
        check_replaced(folder, DATASET_FOLDER, inputs)
        with (
            replaced_folder(folder) as partial,
            TemporaryDirectory(dir=partial, prefix="spill-") as spill,
            open_engine(config.engine, partial) as engine,
        ):
            preparation = Preparation.anew(
                source,
                partial,
                Path(spill),
                config.partitions,
                config.timeline_partitions,
                engine,
            )
            manifest = replace(
                preparation.run(mode, config.hash_buckets),
                name=config.title,
                fingerprint=fingerprint(description, files),
                preparation={**description, "standardisation": preparation.encoding.dense},
                files=mark_files(partial),
            )
            manifest.save(partial)
            save_input_files(files, partial)
            check_replaced(folder, DATASET_FOLDER, inputs)  # what came meanwhile stays too
        return DatasetManifest.load(folder)


def _not_the_same(
    existing: DatasetManifest,
    description: dict[str, Any],
    files: Sequence[InputFile],
    known: Sequence[InputFile],
    place: str,
) -> str | None:
    """Why a data set is not the one that is described; None where it is."""
    other = f"give {place}overwrite=true to replace it, or another {place}out="
    changed = differences(existing, description, place)
    if changed:
        return (
            f"was prepared with another configuration: {'; '.join(changed)}. Repeat what it was "
            f"prepared with, {other}."
        )
    if are_known(files, known):
        return None
    digests = {one.digest for one in known}
    new = [one.name for one in files if one.digest not in digests]
    if not new:
        return f"was prepared from more files than these; name all of them, {other}."
    more = f" and {len(new) - _LISTED} more" if len(new) > _LISTED else ""
    return (
        f"was prepared from other files: {', '.join(new[:_LISTED])}{more} it does not know. Add "
        f"new days by `recsys data append` with the same description, {other}."
    )


@contextmanager
def unforeseen_as_sentence(data: Path | pl.DataFrame | pl.LazyFrame) -> Iterator[None]:
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


def find_log(source: str, path: str | None, data_dir: str | None) -> Path:
    """The file or folder of a log; of a source that has one, its usual place where none is named.

    Raises:
        ConfigError: the source needs a path.
        DataError: there is nothing there.
    """
    if path is not None:
        return find_path(data_dir, path)
    default = SOURCES[source].default_path
    if default is None:
        raise ConfigError(f"source={source} needs path=<file or folder of the log>.")
    return find_data_dir(data_dir, default)


def with_found_tables(
    options: Mapping[str, Any], data_dir: str | None
) -> tuple[dict[str, Any], list[Path]]:
    """Options of a source with the places of the tables of items and users, and these."""
    found, places = dict(options), []
    for key in TABLES:
        table = found.get(key)
        if isinstance(table, Mapping) and isinstance(table.get("path"), str):
            places.append(find_path(data_dir, table["path"]))
            found[key] = {**table, "path": str(places[-1])}
    return found, places


def existing_dataset(folder: Path) -> DatasetManifest | None:
    """The manifest of the data set in a folder; None where there is none."""
    return DatasetManifest.load(folder) if (folder / DATASET_FILE).is_file() else None
