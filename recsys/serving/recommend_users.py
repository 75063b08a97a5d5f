"""`recsys recommend`: reads the users, and gives their items as a table or a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import polars as pl

from recsys.artifacts.sequence_tower import Precision
from recsys.core.bounds import (
    BatchSize,
    Count,
    Finite,
    HoursAboveZero,
    ItemsPerUser,
    OneOf,
    OutPath,
    Settings,
    Store,
)
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import check_file
from recsys.data.contract.given_tables import given_ids, named_column, read_given
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.moments import log_end, parse_moment
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Column
from recsys.data.contract.table_formats import (
    TABLE_ENDINGS,
    check_ending,
    check_table,
    table_writer,
)
from recsys.data.stores.dataset import PreparedDataset
from recsys.serving.given_events import GivenEvents, read_events
from recsys.serving.opening import open_recommender
from recsys.serving.recommend import RANK, Recommender, RecommendRules, Wishes

#: What a file of recommendations is known by.
MADE_BY = "recsys recommend"
#: The ending of a page of recommendations.
PAGE = ".html"


@dataclass(frozen=True)
class RecommendConfig(Settings):
    """Who gets items of what.

    Attributes:
        run_dir: a run folder; give this, or ``index`` and, of a FAISS index, ``artifact``.
        checkpoint: of the run: ``best``, ``last``, or a path.
        artifact: the folder that `recsys export` wrote.
        index: the folder of an index of items, or of its snapshots; one of a tree needs no
            ``artifact``.
        user: raw user ids; give this, ``users``, or ``history`` alone for the users in it.
        users: Parquet, CSV, TSV or JSON Lines with ``user_id``.
        out: file to write, in the format of its ending.
        dataset: the prepared data set; None takes the one the model was trained on.
        embeddings: embeddings of the items in the users' histories; None takes those of the
            training.
        stores: of published user embeddings, for an artifact that reads them; each user's is the
            newest that is served at ``as_of``.
        as_of: ISO 8601 (UTC) or ms; None takes the end of the log, or of ``history``.
        k: items per user, at most.
        min_score: lowest score.
        max_age_hours: leave out items last seen longer than this before ``as_of``.
        exclude: file with ``item_id`` of items to leave out for all users, or with ``user_id`` and
            ``item_id`` of those to leave out for one.
        only: file with ``item_id`` of the items to choose among.
        where: conditions on columns of items: ``category=shoes and price<50``.
        history: file with ``user_id``, ``item_id``, ``timestamp`` and perhaps ``action_type``:
            what its users did, instead of what the log says.
        task: of a run or a tree that predicts tasks, the one to rank by; None takes the first.
        reasons: name the items of the history that are nearest to each item.
        strict: refuse users who are not in the log.
        keep_seen: items that a user has seen may be given again: what is bought again and again.
        beam: nodes of each level that are kept, of a model whose items are in a tree; None takes
            what its run says.
        precision: of an exported user tower: ``float`` or ``int8``.
        batch_users: users per step.
        trust: load an artifact that is not in the user's list of trusted ones.
    """

    run_dir: str | None = None
    checkpoint: str = "best"
    artifact: str | None = None
    index: str | None = None
    user: list[str] | None = None
    users: str | None = None
    out: OutPath | None = None
    dataset: str | None = None
    embeddings: Store | None = None
    stores: list[Store] = field(default_factory=list)
    as_of: str | None = None
    k: ItemsPerUser = 10
    min_score: Finite | None = None
    max_age_hours: HoursAboveZero | None = None
    exclude: str | None = None
    only: str | None = None
    where: str | None = None
    history: str | None = None
    task: str | None = None
    reasons: bool = False
    strict: bool = False
    keep_seen: bool = False
    beam: Count | None = None
    precision: Annotated[str, OneOf(tuple(Precision))] = Precision.FLOAT.value
    batch_users: BatchSize = 1024
    trust: bool = False

    def __post_init__(self) -> None:
        """Refuse nobody, users given twice, and two models or none."""
        super().__post_init__()
        both = self.run_dir is not None and (self.artifact or self.index) is not None
        if both or (self.run_dir is None and self.index is None):
            raise ConfigError(
                "Give either run_dir=…, a run folder, or artifact=… and index=…, what `recsys "
                "export` and `recsys index build` made; an index of a tree (hsnn) has its artifact "
                "inside, and index=… is enough."
            )
        if self.user is not None and self.users is not None:
            raise ConfigError("Give either user=… (one id or [several]) or users=…, a file.")
        if self.user is None and self.users is None and self.history is None:
            raise ConfigError(
                "Give either user=… (one id or [several]) or users=…, a file; or history=… alone, "
                "for the users in it."
            )
        if self.user == []:
            raise ConfigError("user= names nobody; give user=42.")
        if self.run_dir is not None and self.embeddings is not None:
            raise ConfigError("embeddings= goes with artifact=; a run has its own.")
        if self.run_dir is not None and self.stores:
            raise ConfigError("stores= goes with artifact=; a run has its own.")
        if self.out is not None:
            check_ending(self.out, (*TABLE_ENDINGS, PAGE))

    @property
    def inputs(self) -> list[str]:
        """What is read."""
        read = (self.run_dir, self.artifact, self.index, self.users, self.exclude, self.only)
        some = [one for one in (*read, self.history, self.embeddings) if one is not None]
        return [*some, *self.stores]

    @property
    def is_page(self) -> bool:
        """Whether ``out`` is a page to look at."""
        return self.out is not None and Path(self.out).suffix.lower() == PAGE


@dataclass(frozen=True)
class Request:
    """Everything that is asked, read from its files.

    Attributes:
        users: raw ids, each once.
        rules: which items they get.
        exclude: table of items to leave out.
        only: table of items to choose among.
        where: conditions on items.
        events: that users have instead of those in the log.
    """

    users: pl.Series
    rules: RecommendRules
    exclude: pl.DataFrame | None = None
    only: pl.DataFrame | None = None
    where: str | None = None
    events: GivenEvents | None = None

    def wishes(self, recommender: Recommender) -> Wishes:
        """What is asked of a recommender besides the rules."""
        return recommender.wishes(self.exclude, self.only, self.where, self.events)


@dataclass(frozen=True)
class RecommendReport:
    """What was recommended.

    Attributes:
        users: users asked for.
        without_items: of them those for whom no item is left.
        as_of: ms.
        items: items that there are to recommend.
        unknown_excluded: items of ``exclude`` that are not among these; None without it.
        unknown_only: items of ``only`` likewise.
        unknown_events: events of ``history`` with items that the log does not have; None likewise.
        others_events: events of ``history`` of users who are not asked for.
        ignored_events: events of ``history`` with actions that the log leaves out.
        widest: nodes of the widest level of the items' tree; None without one.
    """

    users: int
    without_items: int
    as_of: int
    items: int
    unknown_excluded: int | None
    unknown_only: int | None
    unknown_events: int | None
    others_events: int = 0
    ignored_events: int = 0
    widest: int | None = None


def recommend(config: RecommendConfig) -> tuple[RecommendReport, pl.DataFrame]:
    """Recommend by an artifact and an index; rows come back where no table ``out`` is given.

    Raises:
        RecsysError: artifact, index, data set or users cannot be used together.
    """
    check_out(config)
    recommender = opened(config)
    return answer(config, read_request(config, recommender.dataset), recommender)


def opened(config: RecommendConfig) -> Recommender:
    """The recommender of an artifact and an index.

    Raises:
        RecsysError: they cannot be used together.
    """
    assert config.index is not None
    return open_recommender(
        config.artifact,
        config.index,
        config.dataset,
        config.embeddings,
        config.precision,
        config.trust,
        config.stores,
        config.task,
    )


def check_out(config: RecommendConfig) -> None:
    """Refuse an ``out`` that may not be written, before anything is computed.

    Raises:
        ConfigError: it is somebody else's.
    """
    if config.out is None:
        return
    path = Path(config.out)
    if config.is_page:
        check_file(path, is_page, config.inputs)
    else:
        check_table(path, MADE_BY, [Column.USER, RANK, Column.ITEM], config.inputs)


def is_page(path: Path) -> bool:
    """Whether a file is a page that `recsys recommend` has written."""
    with path.open("rb") as file:
        return f'name="generator" content="{MADE_BY}"'.encode() in file.read(1_000)


def read_request(config: RecommendConfig, dataset: PreparedDataset) -> Request:
    """Read the files of a request.

    Raises:
        DataError: one cannot be used.
    """
    manifest = dataset.manifest
    events = None
    if config.history is not None:
        events = read_events(config.history, read_given(config.history, "history"), dataset)
    if config.as_of is not None:
        as_of = parse_moment("as_of", config.as_of)
    else:
        as_of = max(log_end(manifest), 0 if events is None else events.end)
    seen_after = None
    if config.max_age_hours is not None:
        seen_after = as_of - round(config.max_age_hours * MILLISECONDS_PER_HOUR)
    exclude = only = None
    if config.exclude is not None:
        table = read_given(config.exclude, "exclude", may_be_empty=True)
        exclude = items_of(config.exclude, table, manifest)
    if config.only is not None:
        only = only_items(config.only, read_given(config.only, "only"), manifest)
    if events is not None and config.user is None and config.users is None:
        users = events.users.alias(Column.USER)
    else:
        users = read_users(config, manifest)
    return Request(
        users,
        RecommendRules(
            as_of,
            config.k,
            config.min_score,
            seen_after,
            config.strict,
            config.reasons,
            config.keep_seen,
            config.beam,
        ),
        exclude,
        only,
        config.where,
        events,
    )


def answer(
    config: RecommendConfig, request: Request, recommender: Recommender
) -> tuple[RecommendReport, pl.DataFrame]:
    """Recommend what is asked; rows come back where no table ``out`` is given, else none.

    Raises:
        RecsysError: what is asked cannot be.
    """
    wishes = request.wishes(recommender)
    frames = recommender.recommend(request.users, request.rules, config.batch_users, wishes)
    served = 0
    kept: list[pl.DataFrame] = []

    def counted() -> Iterator[pl.DataFrame]:
        nonlocal served
        for frame in frames:
            served += frame[Column.USER].n_unique()
            yield frame

    if config.out is None or config.is_page:
        kept = list(counted())
    else:
        with table_writer(Path(config.out), MADE_BY) as write:
            for frame in counted():
                write(frame)
    report = RecommendReport(
        users=len(request.users),
        without_items=len(request.users) - served,
        as_of=request.rules.as_of,
        items=len(recommender.catalogue),
        unknown_excluded=None if wishes.exclude is None else wishes.exclude.unknown,
        unknown_only=None if wishes.only is None else wishes.only.unknown,
        unknown_events=None if request.events is None else request.events.unknown,
        others_events=0 if request.events is None else request.events.of_others(request.users),
        ignored_events=0 if request.events is None else request.events.ignored,
        widest=recommender.widest,
    )
    return report, pl.concat(kept) if kept else pl.DataFrame()


def read_users(config: RecommendConfig, manifest: DatasetManifest | None = None) -> pl.Series:
    """The raw ids asked for, each once, in the order given.

    Args:
        config: names them, or a file of them.
        manifest: of the data set, which notes what the log calls the column of users.

    Raises:
        DataError: the file cannot be read, has no such column, or names nobody.
    """
    if config.users is None:
        return pl.Series(Column.USER, config.user, pl.String()).unique(maintain_order=True)
    table = read_given(config.users, "users")
    users = given_ids(config.users, table, Column.USER, manifest).drop_nulls()
    if users.is_empty():
        raise DataError(f"{config.users} names no user; give a file with a row per user.")
    return users.unique(maintain_order=True)


def items_of(
    where: str, table: pl.DataFrame, manifest: DatasetManifest | None = None
) -> pl.DataFrame:
    """Items of a table: ``item_id``, and ``user_id`` where it has that, as text.

    Args:
        where: the file, for sentences.
        table: with the names of the contract, or those of the log.
        manifest: of the data set, which notes the latter.

    Raises:
        DataError: there is no column of items.
    """
    has_users = named_column(table.columns, Column.USER, manifest) is not None
    names = [Column.USER, Column.ITEM] if has_users else [Column.ITEM]
    return pl.DataFrame([given_ids(where, table, n, manifest).cast(pl.String) for n in names])


def only_items(
    where: str, table: pl.DataFrame, manifest: DatasetManifest | None = None
) -> pl.DataFrame:
    """As ``items_of``, of items that are the same for all users.

    Raises:
        DataError: as there, or the table has a column of users, or names no item.
    """
    items = items_of(where, table, manifest)
    if Column.USER in items.columns:
        raise DataError(
            f"{where} has a column of users, but only= names the same items for all; leave the "
            "column out, or score each user's own candidates with `recsys score pairs=…`."
        )
    if items.drop_nulls().is_empty():
        raise DataError(f"{where} names no item; only= takes the items to choose among.")
    return items.drop_nulls()
