"""`recsys recommend`: reads the users, and gives their items as a table or a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import polars as pl
from omegaconf import MISSING

from recsys.artifacts.sequence_tower import Precision
from recsys.core.bounds import (
    BatchSize,
    Finite,
    HoursAboveZero,
    ItemsPerUser,
    OneOf,
    OutPath,
    Settings,
    Store,
)
from recsys.core.durable import replaced_file
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import check_file
from recsys.data.contract.files import column_names, data_files
from recsys.data.contract.ids import joined_ids, read_ids
from recsys.data.contract.moments import as_of_moment
from recsys.data.contract.parquet import parquet_writer, read_metadata
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Column
from recsys.data.stores.dataset import PreparedDataset
from recsys.serving.opening import open_recommender
from recsys.serving.recommend import RecommendRules

#: Key of the Parquet metadata by which a file of recommendations is known.
MADE_BY = "made_by"


@dataclass(frozen=True)
class RecommendConfig(Settings):
    """Who gets items of which index.

    Attributes:
        artifact: the folder that `recsys export` wrote.
        index: the folder of an index of items.
        user: raw user ids; give this or ``users``.
        users: Parquet or CSV with ``user_id``.
        out: Parquet file to write.
        dataset: the prepared data set; None takes the one the model was trained on.
        embeddings: embeddings of the items in the users' histories; None takes those of the
            training.
        as_of: ISO 8601 (UTC) or ms; None takes the end of the data set's last split.
        k: items per user, at most.
        min_score: lowest cosine.
        max_age_hours: leave out items last seen longer than this before ``as_of``.
        leave_out: Parquet or CSV with ``item_id`` of items to leave out for all users, or with
            ``user_id`` and ``item_id`` of those to leave out for one.
        strict: refuse users who are not in the log.
        precision: of the user tower: ``float`` or ``int8``.
        batch_users: users per step.
        trust: load an artifact that is not in the user's list of trusted ones.
    """

    artifact: str = MISSING
    index: str = MISSING
    user: list[str] | None = None
    users: str | None = None
    out: OutPath | None = None
    dataset: str | None = None
    embeddings: Store | None = None
    as_of: str | None = None
    k: ItemsPerUser = 10
    min_score: Finite | None = None
    max_age_hours: HoursAboveZero | None = None
    leave_out: str | None = None
    strict: bool = False
    precision: Annotated[str, OneOf(tuple(Precision))] = Precision.FLOAT.value
    batch_users: BatchSize = 1024
    trust: bool = False

    def __post_init__(self) -> None:
        """Refuse nobody, and users given twice."""
        super().__post_init__()
        if (self.user is None) == (self.users is None):
            raise ConfigError("Give either user=… (one id or [several]) or users=…, a file.")
        if self.user == []:
            raise ConfigError("user= names nobody; give user=42.")
        if self.out is not None and Path(self.out).is_dir():
            raise ConfigError(f"out={self.out} is a folder; give the Parquet file to write.")


@dataclass(frozen=True)
class RecommendReport:
    """What was recommended.

    Attributes:
        users: users asked for.
        without_items: of them those for whom no item is left.
        as_of: ms.
        unknown_left_out: items of ``leave_out`` that the index does not have; None without it.
    """

    users: int
    without_items: int
    as_of: int
    unknown_left_out: int | None


def recommend(config: RecommendConfig) -> tuple[RecommendReport, pl.DataFrame]:
    """Recommend items; the rows come back where no ``out`` is given, and none where one is.

    Raises:
        RecsysError: artifact, index, data set or users cannot be used together.
    """
    if config.out is not None:
        read = (config.artifact, config.index, config.users, config.leave_out, config.embeddings)
        check_file(Path(config.out), is_made_here, [one for one in read if one is not None])
    users = read_users(config)
    recommender = open_recommender(
        config.artifact,
        config.index,
        config.dataset,
        config.embeddings,
        config.precision,
        config.trust,
    )
    rules = _rules(config, recommender.dataset)
    given = None if config.leave_out is None else recommender.given(read_items(config.leave_out))
    frames = recommender.recommend(users, rules, config.batch_users, given)
    served = 0
    kept: list[pl.DataFrame] = []

    def counted() -> Iterator[pl.DataFrame]:
        nonlocal served
        for frame in frames:
            served += frame[Column.USER].n_unique()
            yield frame

    if config.out is None:
        kept = list(counted())
    else:
        write_parquet(counted(), Path(config.out))
    unknown = None if given is None else given.unknown
    report = RecommendReport(len(users), len(users) - served, rules.as_of, unknown)
    return report, pl.concat(kept) if kept else pl.DataFrame()


def read_users(config: RecommendConfig) -> pl.Series:
    """The raw ids asked for, each once, in the order given.

    Raises:
        DataError: the file cannot be read, or names nobody.
    """
    if config.users is None:
        return pl.Series(Column.USER, config.user, pl.String()).unique(maintain_order=True)
    files = data_files(Path(config.users), "users")
    users = joined_ids([read_ids(file, Column.USER) for file in files]).drop_nulls()
    if users.is_empty():
        raise DataError(f"{config.users} names no user; give a file with a row per user.")
    return users.unique(maintain_order=True)


def read_items(path: str) -> pl.DataFrame:
    """Items to leave out: ``item_id``, and ``user_id`` where a file has it.

    Raises:
        DataError: a file cannot be read, or has no ``item_id``.
    """
    tables = []
    for file in data_files(Path(path), "leave_out"):
        users = [Column.USER] if Column.USER in column_names(file) else []
        ids = [read_ids(file, name).cast(pl.String) for name in (*users, Column.ITEM)]
        tables.append(pl.DataFrame(ids))
    return pl.concat(tables, how="diagonal")


def write_parquet(frames: Iterable[pl.DataFrame], path: Path) -> None:
    """Write frames of one schema, at least one, as they come; a failure leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as partial:
        rest = iter(frames)
        first = next(rest).to_arrow()
        schema = first.schema.with_metadata({MADE_BY: "recsys recommend"})
        with parquet_writer(partial, schema, compression="zstd") as writer:
            writer.write_table(first)
            for frame in rest:
                writer.write_table(frame.to_arrow())


def is_made_here(path: Path) -> bool:
    """Whether a file is one that ``write_parquet`` has written."""
    try:
        return MADE_BY in read_metadata(path)
    except (OSError, pl.exceptions.PolarsError):
        return False


def _rules(config: RecommendConfig, dataset: PreparedDataset) -> RecommendRules:
    as_of = as_of_moment(config.as_of, dataset.manifest)
    seen_after = None
    if config.max_age_hours is not None:
        seen_after = as_of - round(config.max_age_hours * MILLISECONDS_PER_HOUR)
    return RecommendRules(as_of, config.k, config.min_score, seen_after, config.strict)
