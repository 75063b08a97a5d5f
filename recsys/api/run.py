"""A trained run in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.api.frames import frame_of
from recsys.core.bounds import HoursAboveZero, refuse_misfit
from recsys.core.console import message_console
from recsys.core.errors import ConfigError
from recsys.core.mirror import local_folder
from recsys.data.batches.given_rows import GivenRows
from recsys.data.contract.ids import checked_ids
from recsys.data.contract.moments import as_of_moment, parse_moment
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, MILLISECONDS_PER_SECOND, Column
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics, read_metrics_file
from recsys.runs.config import RunConfig
from recsys.runs.load import LoadedRun, load_run
from recsys.serving.given_events import read_events
from recsys.serving.recommend import Recommender, RecommendRules
from recsys.serving.recommend_users import items_of, only_items
from recsys.systems.base import System
from recsys.systems.choice import system_of_run
from recsys.systems.evaluate import evaluate
from recsys.systems.runs import load_config
from recsys.systems.score_pairs import score_pairs

if TYPE_CHECKING:
    import pandas

    Frame: TypeAlias = pl.DataFrame | pl.LazyFrame | pandas.DataFrame

#: A raw user or item id, as in the log.
RawId = int | str
#: ISO 8601 (UTC where it names no zone), ms since 1970, or a datetime.
Moment = str | int | datetime


def open_run(
    run_dir: Path | str, checkpoint: str = "best", dataset: Path | str | None = None
) -> Run:
    """Open a run folder that `recsys train` has made.

    >>> run = recsys.open_run("runs/mine")  # doctest: +SKIP
    >>> run.metrics["val/ne/mean"]["value"]  # doctest: +SKIP
    0.912

    Args:
        run_dir: the run folder.
        checkpoint: ``best`` (by the choose split), ``last``, or a path.
        dataset: the prepared data set, where it was moved since the training.

    Raises:
        ArtifactError: the folder is no run.
    """
    return Run(local_folder(run_dir), checkpoint, None if dataset is None else str(dataset))


class Run:
    """A run; its model and data set are loaded when they are first asked for.

    Moments are ISO 8601 texts (UTC where they name no zone), ms since 1970, or datetimes; ids are
    those of the log.

    Args:
        folder: the run folder.
        checkpoint: ``best``, ``last``, or a path.
        dataset: the prepared data set, where it was moved since the training.

    Attributes:
        folder: the run folder.
        config: the resolved configuration.

    Raises:
        ArtifactError: the folder is no run.
    """

    def __init__(self, folder: Path, checkpoint: str = "best", dataset: str | None = None) -> None:
        self.folder = folder
        self.config: RunConfig = load_config(folder)
        self._checkpoint = checkpoint
        self._dataset = dataset
        self._system: System[Any] = system_of_run(folder)
        self._kept: tuple[tuple[int, str | None], Recommender] | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, system={self.config.system!r})"

    @property
    def metrics(self) -> Metrics:
        """By name, each with its ``value``, ``protocol`` and, where measured, interval."""
        return read_metrics_file(self.folder)

    @cached_property
    def loaded(self) -> LoadedRun[Any, Any]:
        """The model with everything it was trained on.

        Raises:
            ArtifactError: a file is damaged, or the data set is not that of the training.
        """
        return load_run(self._system, self.folder, self._checkpoint, self._dataset)

    @property
    def dataset(self) -> PreparedDataset:
        """The prepared data set, which may have grown since the training."""
        return self.loaded.dataset

    def evaluate(self, split: str = "report", against: Path | str | None = None) -> Metrics:
        """Measure the run on a split, as `recsys evaluate`, which prints the same numbers.

        >>> metrics = run.evaluate()  # doctest: +SKIP
        >>> metrics["report/hits@10/all"]["value"]  # doctest: +SKIP
        0.151

        Args:
            split: ``report``, or ``choose`` while a model is being developed.
            against: another run on the same data set, for systems that are compared so.

        Returns:
            What was measured now, by name; :attr:`metrics` has it too.
        """
        config = EvaluateConfig(
            run_dir=str(self.folder),
            split=split,
            against=None if against is None else str(against),
            checkpoint=self._checkpoint,
            dataset=self._dataset,
        )
        measured = evaluate(config)
        self._system.show(measured, config)
        return measured

    def user_embeddings(
        self, users: Sequence[RawId], as_of: Moment | None = None
    ) -> NDArray[np.float32]:
        """Embeddings of users: [B, W], or [B, N, W] where a user has several vectors.

        >>> run.user_embeddings([42, 7], as_of="2024-05-01").shape  # doctest: +SKIP
        (2, 20, 32)

        Args:
            users: raw ids; one that is not in the log has an empty history.
            as_of: histories end strictly before it, less the gap of the training; None for the
                log's end.

        Raises:
            ConfigError: the model has no user embedding, or ``as_of`` cannot be read.
        """
        moments = np.full(len(_named("users", users)), self._moment("as_of", as_of))
        return self._system.user_embeddings(self.loaded, self._indices("user", users), moments)

    def score(
        self,
        user: RawId,
        items: Sequence[RawId],
        at: Moment | None = None,
        context: Mapping[str, object] | None = None,
    ) -> pl.DataFrame:
        """What the model says of given items for a user at a moment.

        >>> run.score(42, ["a", "b"], at="2024-05-01T20:00", context={"surface": "feed"})
        ... # doctest: +SKIP
        shape: (2, 3): item_id, click, watch_time

        Args:
            user: raw id; one that is not in the log has an empty history.
            items: raw ids; one that the model does not know is scored as such by models that
                predict tasks, and has null by retrieval models.
            at: the moment of the request; None for the log's end.
            context: raw values of context features of models that predict tasks, one for all
                items; what is not given is unknown, but the hour of the day follows from ``at``.

        Returns:
            A row per item in the order given: ``item_id`` and a column per task, or ``score``.

        Raises:
            ConfigError: the model scores no given items, or a name or moment cannot be.
        """
        item = self._indices("item", _listed("items", items))
        same = np.ones(len(item), np.int64)
        index, moment = self._indices("user", [user]) * same, self._moment("at", at) * same
        scores = self._system.score(self.loaded, GivenRows(index, item, moment, context))
        columns = {name: pl.Series(values).fill_nan(None) for name, values in scores.items()}
        return pl.DataFrame({Column.ITEM.value: _series(items), **columns})

    def score_pairs(self, pairs: Frame, at: Moment | None = None) -> pl.DataFrame:
        """What the model says of given pairs of users and items; as `recsys score`.

        >>> run.score_pairs(pl.DataFrame({"user_id": [42, 7], "item_id": ["a", "b"]}))
        ... # doctest: +SKIP
        shape: (2, 4): user_id, item_id, click, watch_time

        Args:
            pairs: ``user_id`` and ``item_id`` (or as the log calls them), where they are known
                ``at`` (or ``request_time``) and context features; other columns stay as they are,
                and are named on standard error, as context that is missing is.
            at: the moment of pairs that have none; None for the log's end.

        Returns:
            The pairs in the order given, ids in the log's type, and a column per task, or
            ``score``; null where user or item is not in the log, or the model does not know the
            item.

        Raises:
            ConfigError: the model scores no pairs, or a moment cannot be read.
            DataError: a column is missing or cannot be used.
        """
        moment = self._moment("at", at)
        scored = score_pairs(self._system, self.loaded, frame_of(pairs, "pairs"), moment)
        for remark in scored.remarks:
            message_console().print(remark)
        return scored.table

    def recommend(
        self,
        users: Sequence[RawId],
        k: int = 10,
        as_of: Moment | None = None,
        min_score: float | None = None,
        max_age_hours: float | None = None,
        exclude: Sequence[RawId] | Frame = (),
        only: Sequence[RawId] | Frame | None = None,
        where: str | None = None,
        history: Frame | None = None,
        task: str | None = None,
        reasons: bool = False,
        keep_seen: bool = False,
        beam: int | None = None,
    ) -> pl.DataFrame:
        """The best items of users, without those they have seen; as `recsys recommend run_dir=…`.

        >>> run.recommend([42], k=5, as_of="2024-05-01")  # doctest: +SKIP
        shape: (5, 6): user_id, rank, item_id, score, title, basis

        Args:
            users: raw ids, each of which counts once; one that is not in the log gets what a user
                without history gets.
            k: items per user, at most.
            as_of: histories and what users have seen end strictly before it, and items first seen
                later are left out; None for the end of the log, or of ``history``.
            min_score: lowest score.
            max_age_hours: leave out items last seen longer than this before ``as_of``.
            exclude: raw ids of items that nobody is to get, or a frame of ``user_id`` and
                ``item_id``.
            only: raw ids of the items to choose among.
            where: conditions on columns of items: ``"category=shoes and price<50"``.
            history: ``user_id``, ``item_id``, ``timestamp`` and perhaps ``action_type``: what users
                did, instead of what the log says.
            task: of a model that predicts tasks, the one to rank by; None for the first.
            reasons: name the items of the history that are nearest to each item.
            keep_seen: items that a user has seen may be given again.
            beam: nodes of each level that are kept, of a model whose items are in a tree; None for
                what its run says.

        Raises:
            ConfigError: the system does not recommend, or a setting cannot be.
            DataError: a frame cannot be used.
        """
        manifest = self.dataset.manifest
        events = None
        if history is not None:
            events = read_events("history", frame_of(history, "history"), self.dataset)
        moment = self._moment("as_of", as_of)
        if as_of is None and events is not None:
            moment = max(moment, events.end)
        seen_after = None
        if max_age_hours is not None:
            refuse_misfit(HoursAboveZero, max_age_hours, "max_age_hours")
            seen_after = moment - round(max_age_hours * MILLISECONDS_PER_HOUR)
        rules = RecommendRules(
            moment, k, min_score, seen_after, reasons=reasons, keep_seen=keep_seen, beam=beam
        )
        ids = _series(_named("users", users)).alias(Column.USER).unique(maintain_order=True)
        self._system.check_request(self.loaded, only is not None, task)
        recommender = self._recommender(moment, task)
        wishes = recommender.wishes(
            items_of("exclude", _items("exclude", exclude), manifest),
            None if only is None else only_items("only", _items("only", only), manifest),
            where,
            events,
        )
        return pl.concat(recommender.recommend(ids, rules, wishes=wishes))

    def _recommender(self, moment: int, task: str | None) -> Recommender:
        """That of the last moment asked for is kept: to make one reads the whole log."""
        if self._kept is None or self._kept[0] != (moment, task):
            made = self._system.recommender(self.loaded, moment, task)
            self._kept = (moment, task), made
        return self._kept[1]

    def _moment(self, name: str, moment: Moment | None) -> int:
        if isinstance(moment, datetime):
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            return round(aware.timestamp() * MILLISECONDS_PER_SECOND)
        if moment is None:
            return as_of_moment(None, self.dataset.newest)
        return parse_moment(name, str(moment))

    def _indices(self, name: str, ids: Sequence[RawId]) -> NDArray[np.int64]:
        return self.dataset.vocabulary(name).indices_of(ids)


def _items(name: str, given: Sequence[RawId] | Frame) -> pl.DataFrame:
    """A table of items, given as one or as a list of ids."""
    if isinstance(given, pl.Series) or not hasattr(given, "columns"):
        return pl.DataFrame({Column.ITEM.value: _series(_listed(name, given))})  # type: ignore[arg-type]
    return frame_of(given, name)


def _listed(name: str, ids: Sequence[RawId]) -> Sequence[RawId]:
    """The ids, if they are a list of them: a text alone would be taken for its characters.

    Raises:
        ConfigError: they are one id.
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Sequence | np.ndarray | pl.Series):
        raise ConfigError(f"{name} is {ids!r}; give a list of ids, such as [{ids!r}].")
    return ids


def _named(name: str, ids: Sequence[RawId]) -> Sequence[RawId]:
    """A list of at least one id."""
    if not len(_listed(name, ids)):
        raise ConfigError(f"{name} is empty; give at least one id.")
    return ids


def _series(ids: Sequence[RawId]) -> pl.Series:
    """The ids as they are given: numbers where all are and 64 bits hold them, otherwise text."""
    listed = list(ids)
    if all(type(one) is int or isinstance(one, np.integer) for one in listed) and all(
        -(2**63) <= int(one) < 2**64 for one in listed
    ):
        return checked_ids("the ids", pl.Series(listed, dtype=pl.Int128))
    return pl.Series(list(map(str, listed)))
