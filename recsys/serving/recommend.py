"""Recommending items to the users of a data set, a step of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.bounds import Count, Finite, ItemsPerUser, Settings
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.given_tables import in_type_of
from recsys.data.contract.schema import IMPRESSION, LENGTHS, Column, TimelineKind
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import RAW, UNKNOWN_INDEX
from recsys.index.catalogue import Catalogue
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.search import NONE
from recsys.index.usable_items import POST_ID
from recsys.serving.given_events import (
    ACTION,
    EVENT_TYPES,
    EVENTS,
    ITEM,
    ROW,
    TIME,
    GivenEvents,
)
from recsys.serving.histories import Histories
from recsys.serving.item_facts import ItemFacts
from recsys.serving.pipeline import Embedder, Pipeline, Recommended, SearchFilter, Source, StepUsers
from recsys.serving.reasons import Reasons, no_reasons
from recsys.serving.stages.given import GivenItems, OnlyItems
from recsys.serving.stages.search import NearestItems
from recsys.serving.stages.seen import SeenItems
from recsys.serving.stages.thresholds import BelowScore, NotYetThere, TooOld
from recsys.serving.stages.where import WhereItems, parse_where

RANK = "rank"  # 1 is the best
SCORE = "score"  # cosine, product, or prediction
BASIS = "basis"

#: What a user's recommendation rests on.
HISTORY, NO_HISTORY, NOT_IN_LOG = "history", "no history", "not in the log"
GIVEN_HISTORY = "given history"

_UNKNOWN_SHOWN = 5


@dataclass(frozen=True)
class RecommendRules(Settings):
    """Which items users get.

    Attributes:
        as_of: ms; histories and what users have seen end strictly before it, and items first seen
            at it or later are left out.
        k: items per user, at most.
        min_score: lowest score (NxtPost §6.3: cosine); None for any.
        seen_after: ms; items last seen before it are too old; None for any age.
        strict: refuse users that are not in the log; otherwise they get what a user without
            history gets, and ``basis`` says so.
        reasons: say which items of the history are nearest to an item.
        keep_seen: items that a user has seen may be given again.
        beam: nodes of each level that a descent keeps; None for what the model is set to.
    """

    as_of: int
    k: ItemsPerUser = 10
    min_score: Finite | None = None
    seen_after: int | None = None
    strict: bool = False
    reasons: bool = False
    keep_seen: bool = False
    beam: Count | None = None


@dataclass(frozen=True, eq=False)
class Wishes:
    """What a caller asks for besides, made by a recommender.

    Attributes:
        exclude: items that nobody, or not everybody, is to get.
        only: items of which alone users get some.
        where: what items must be like.
        events: of users who have them instead of those in the log.
    """

    exclude: GivenItems | None = None
    only: OnlyItems | None = None
    where: WhereItems | None = None
    events: GivenEvents | None = None

    @property
    def filters(self) -> list[SearchFilter]:
        """Those that there are."""
        return [one for one in (self.exclude, self.only, self.where) if one is not None]


class Recommender:
    """Finds items for the users of a data set.

    Args:
        catalogue: the items; an index of them, where nothing else finds them.
        dataset: whose log says who has seen what.
        embedder: of users, by the model that the items' embeddings are for.
        source: finds so many items; None finds the nearest of an index.
        histories: that the model reads; None where it reads no sequences.
        content: [V, W] the model's embeddings of items, by which reasons are found; None where
            it has none.
        descent: finds so many items with such a beam, in the place of ``source``; None where items
            are in no tree.
        widest: nodes of the widest level of the tree; None without one.

    Attributes:
        catalogue: as given.
        dataset: as given.
        widest: as given.
        facts: of the items.

    Raises:
        DataError: the items are of another log.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        dataset: PreparedDataset,
        embedder: Embedder,
        source: Callable[[int], Source] | None = None,
        histories: Histories | None = None,
        content: NDArray[np.float32] | None = None,
        descent: Callable[[int, int | None], Source] | None = None,
        widest: int | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.dataset = dataset
        self.widest = widest
        self.facts = ItemFacts(dataset, catalogue)
        self._source = source
        self._descent = descent
        self._embedder = embedder
        self._histories = histories
        self._content = content
        self._users = dataset.vocabulary("user")
        self._seen = SeenItems(dataset.timelines, dataset.vocabulary("item"), catalogue)

    def wishes(
        self,
        exclude: pl.DataFrame | None = None,
        only: pl.DataFrame | None = None,
        where: str | None = None,
        events: GivenEvents | None = None,
    ) -> Wishes:
        """What a caller asks for besides the rules.

        Args:
            exclude: ``item_id`` of items that nobody is to get, or ``user_id`` and ``item_id``.
            only: ``item_id`` of the items to choose among.
            where: conditions on columns of items (``parse_where``).
            events: that some users have instead of those in the log.

        Raises:
            DataError: a table has no such column, or none of the items of ``only`` is there.
            ConfigError: a condition cannot be, or the model reads no histories that are given.
        """
        if events is not None and self._histories is None:
            raise ConfigError(
                "history= is for models that read the sequence of a user's items (nxtpost, "
                "sequence, wide_and_deep); this one reads the timelines of the log. Leave history= "
                "out, or append the events to the log with `recsys data append`."
            )
        conditions = None if where is None else parse_where(where)
        items = self.catalogue
        return Wishes(
            None if exclude is None else GivenItems(exclude, items),
            None if only is None else OnlyItems(only, items),
            None if conditions is None else WhereItems(conditions, self.facts, items),
            events,
        )

    def pipeline(self, rules: RecommendRules, wishes: Wishes | None = None) -> Pipeline:
        """The stages that give users what rules and wishes say."""
        before: list[SearchFilter] = [] if rules.keep_seen else [self._seen]
        before.append(NotYetThere(self.catalogue))
        if wishes is not None:
            before += wishes.filters
        if rules.seen_after is not None:
            before.append(TooOld(self.catalogue, rules.seen_after))
        after = [] if rules.min_score is None else [BelowScore(rules.min_score)]
        return Pipeline(self._embedder, before, self._source_of(rules), after)

    def recommend(
        self,
        users: pl.Series,
        rules: RecommendRules,
        batch_users: int = 1024,
        wishes: Wishes | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Recommendations of some users at a time.

        Args:
            users: raw ids, matched with those of the log as they are written.
            rules: which items they get.
            batch_users: users per frame.
            wishes: what is asked for besides.

        Yields:
            ``user_id`` and ``item_id`` (in the log's types, where they can be of them), ``rank``,
            ``score``, ``title`` and ``basis``, and ``reasons`` where they are asked for; users in
            the order given, each user's best item first. A user for whom no item is left, or of
            whom the tower knows nothing at all (its embedding is 0), has no row.

        Raises:
            DataError: with ``strict``, a user is not in the log.
            ArtifactError: embeddings do not fit the index.
            ConfigError: ``batch_users`` is below 1, or the model has no embeddings of items for
                reasons.
        """
        if batch_users < 1:
            raise ConfigError(f"batch_users={batch_users}; take at least 1 user at a time.")
        users = in_type_of(users, self._users.table.schema[RAW])
        indices: NDArray[np.int64] = self._users.indices(users).cast(pl.Int64).to_numpy()
        events = None if wishes is None else wishes.events
        if rules.strict:
            _refuse_unknown(users, indices, events)
        pipeline, reasons = self.pipeline(rules, wishes), self._reasons(rules)
        for start in range(0, len(users), batch_users):
            step = slice(start, start + batch_users)
            of_step = StepUsers(users[step], indices[step], rules.as_of, events)
            yield self._frame(pipeline.run(of_step), reasons)

    def histories(
        self, users: pl.Series, moment: int, newest: int, events: GivenEvents | None = None
    ) -> pl.DataFrame:
        """What users did before a moment, newest first, as their timelines have it.

        Args:
            users: raw ids.
            moment: ms.
            newest: events per user, at most.
            events: that some of them have instead of those in the log.

        Returns:
            ``user_id``, ``item_id`` (null where the log does not have it), ``title``,
            ``action_type`` (null where it is not said), ``timestamp`` (ms), and ``events``: how
            many there are of the user in all.
        """
        users = in_type_of(users, self._users.table.schema[RAW])
        indices: NDArray[np.int64] = self._users.indices(users).cast(pl.Int64).to_numpy()
        numbers = np.full(len(users), -1) if events is None else events.numbers(users)
        of_log = np.flatnonzero((numbers < 0) & (indices != UNKNOWN_INDEX))
        parts = [_of_timelines(self.dataset, indices[of_log], of_log, moment, newest)]
        if events is not None:
            parts.append(events.before(numbers, moment))
        every = pl.concat(parts).sort(ROW, TIME, maintain_order=True)
        shown = every.group_by(ROW, maintain_order=True).tail(newest)
        shown = shown.reverse().sort(ROW, maintain_order=True)
        ids = self.facts.raw(shown[ITEM].replace(UNKNOWN_INDEX, None))
        names = dict(enumerate(self.dataset.manifest.action_types))
        action = shown[ACTION].replace_strict(names, default=None, return_dtype=pl.String)
        return pl.DataFrame(
            [
                users[shown[ROW]].alias(Column.USER),
                ids.alias(Column.ITEM),
                self.facts.titles(ids),
                action.alias(Column.ACTION_TYPE),
                shown[TIME].alias(Column.TIMESTAMP),
                shown[EVENTS],
            ]
        )

    def _source_of(self, rules: RecommendRules) -> Source:
        k = rules.k
        if self._descent is not None:
            return self._descent(k, rules.beam)
        if rules.beam is not None:
            raise ConfigError(
                f"beam={rules.beam} is for models whose items are in a tree (hsnn); leave it out."
            )
        if self._source is not None:
            return self._source(k)
        assert isinstance(self.catalogue, ItemIndex), "what is no index needs a source"
        return NearestItems(self.catalogue, k)

    def _reasons(self, rules: RecommendRules) -> Reasons | None:
        if not rules.reasons:
            return None
        if self._content is None or self._histories is None:
            raise no_reasons("The model")
        return Reasons(self._histories, self._content, self.facts)

    def _frame(self, recommended: Recommended, reasons: Reasons | None) -> pl.DataFrame:
        users, found = recommended.users, recommended.found
        basis = np.where(recommended.events > 0, HISTORY, NO_HISTORY)
        basis = np.where(users.indices == UNKNOWN_INDEX, NOT_IN_LOG, basis)
        if users.given is not None:
            basis = np.where(users.given.numbers(users.raw) >= 0, GIVEN_HISTORY, basis)
        rows, columns = np.nonzero(found.slot != NONE)
        ids = self.catalogue.at(found.slot[rows, columns])[POST_ID]
        frame = pl.DataFrame(
            [
                users.raw[rows].alias(Column.USER),
                pl.Series(RANK, columns + 1, pl.Int32()),
                in_type_of(ids, self.facts.vocabulary.table.schema[RAW]).alias(Column.ITEM),
                pl.Series(SCORE, found.score[rows, columns], pl.Float32()),
                self.facts.titles(ids).cast(pl.String),
                pl.Series(BASIS, basis[rows], pl.String()),
            ]
        )
        return frame if reasons is None else frame.with_columns(reasons.of(users, rows, ids))


def _of_timelines(
    dataset: PreparedDataset,
    users: NDArray[np.int64],
    rows: NDArray[np.int64],
    moment: int,
    newest: int,
) -> pl.DataFrame:
    """The newest events of each timeline of some users, as ``GivenEvents.before`` gives them."""
    before, events, parts = np.full(len(users), moment), np.zeros(len(users), np.int64), []
    shown = dataset.manifest.action_types.index(IMPRESSION)
    for kind in TimelineKind:
        found = dataset.timelines.histories(users, before, kind, newest)
        events += dataset.timelines.lengths(users, before, kind, np.iinfo(np.int64).max)
        action = (
            found["action_type"] if "action_type" in found else np.full(len(found["item"]), shown)
        )
        place = np.repeat(np.arange(len(users)), found[LENGTHS])
        parts.append((place, found["item"], action, found["timestamp"]))
    place, item, action, time = (np.concatenate(column) for column in zip(*parts, strict=True))
    columns = {ROW: rows[place], ITEM: item, ACTION: action, TIME: time, EVENTS: events[place]}
    return pl.DataFrame(columns).cast(EVENT_TYPES)


def _refuse_unknown(
    users: pl.Series, indices: NDArray[np.int64], events: GivenEvents | None
) -> None:
    unknown = indices == UNKNOWN_INDEX
    if events is not None:
        unknown &= events.numbers(users) < 0
    if unknown.any():
        missing = users.filter(pl.Series(unknown))
        named = ", ".join(map(str, missing.head(_UNKNOWN_SHOWN).to_list()))
        more = ", …" * (len(missing) > _UNKNOWN_SHOWN)
        raise DataError(
            f"{len(missing)} of {len(users)} users are not in the log ({named}{more}); correct "
            "the ids, or take strict=false to give them what a user without history gets."
        )
