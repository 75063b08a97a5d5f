"""The whole pipeline against a reference that looks at every item of small random corpora."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recsys.data.contract.schema import ACTION_TYPES
from recsys.data.stores.timelines import EVENT_SCHEMA, TimelineStore, TimelineWriter
from recsys.data.stores.vocabulary import Vocabulary
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.kinds import IndexConfig, IndexKind
from recsys.index.faiss.search import NONE
from recsys.serving.pipeline import Embedded, Pipeline, StepUsers
from recsys.serving.stages.given import GivenItems
from recsys.serving.stages.search import NearestItems
from recsys.serving.stages.seen import SeenItems
from recsys.serving.stages.thresholds import BelowScore, TooOld

WIDTH = 4
USERS = 5  # user 0 is not in the log; raw id is 100 + index
LAST = 20  # moments are 0 to here

moments = st.integers(0, LAST)


@dataclass
class Case:
    """What is asked for; item i of the log has the raw id i, from 1 on."""

    embedding: np.ndarray  # [P, W] of items 1 to P
    users: np.ndarray  # [USERS, W], some of them 0
    last_seen: list[int | None]  # [P]
    events: list[tuple[int, int, int, str]]  # user, item, moment, action
    moment: int
    k: int
    seen_after: int | None
    min_score: float | None
    for_all: set[int] | None
    of_user: set[tuple[int, int]] | None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    items = draw(st.integers(1, 25))
    some = st.integers(1, items + 3)  # some of them are not in the index
    generator = np.random.default_rng(draw(st.integers(0, 1_000)))
    embedding = generator.standard_normal((items, WIDTH))
    if draw(st.booleans()):  # items of the same content
        embedding = embedding[generator.integers(0, items, items)]
    users = generator.standard_normal((USERS, WIDTH))
    users[sorted(draw(st.sets(st.integers(0, USERS - 1), max_size=2)))] = 0
    event = st.tuples(st.integers(0, USERS - 1), some, moments, st.sampled_from(ACTION_TYPES))
    return Case(
        embedding=embedding,
        users=users,
        last_seen=draw(st.lists(st.none() | moments, min_size=items, max_size=items)),
        events=draw(st.lists(event, max_size=40)),
        moment=draw(moments),
        k=draw(st.integers(1, 30)),
        seen_after=draw(st.none() | moments),
        min_score=draw(st.none() | st.floats(-1, 1, width=32)),
        for_all=draw(st.none() | st.sets(some)),
        of_user=draw(st.none() | st.sets(st.tuples(st.integers(99, 104), some))),
    )


class Rows:
    """Embeds user i like row i."""

    name = "rows"

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows.astype(np.float32)

    def embed(self, users: StepUsers) -> Embedded:
        return Embedded(self.rows[users.indices], users.indices)


def timelines(case: Case, path: Path) -> TimelineStore:
    columns = {name: np.zeros(len(case.events), np.int64) for name in EVENT_SCHEMA} | {
        "user": [event[0] for event in case.events],
        "item": [event[1] for event in case.events],
        "timestamp": [event[2] for event in case.events],
        "action_type": [ACTION_TYPES.index(event[3]) for event in case.events],
    }
    with TimelineWriter(path, 1) as writer:
        writer.append([pl.DataFrame(columns).cast(dict(EVENT_SCHEMA))])
    return TimelineStore.open(path)


def pipeline(case: Case, kind: str, log: TimelineStore) -> tuple[Pipeline, ItemIndex]:
    ids = list(range(1, len(case.embedding) + 1))
    items = pl.DataFrame({"post_id": ids, "last_seen": pl.Series(case.last_seen, dtype=pl.Int64)})
    index, _ = ItemIndex.build(items, case.embedding, "m", IndexConfig(kind=kind))
    raw = pl.DataFrame({"raw": [*ids, *range(len(ids) + 1, len(ids) + 4)]})
    vocabulary = Vocabulary.build(raw.with_columns(first_seen=pl.lit(0)))
    before = [SeenItems(log, vocabulary, index)]
    if case.seen_after is not None:
        before.append(TooOld(index, case.seen_after))
    if case.for_all is not None:
        table = pl.DataFrame({"item_id": sorted(case.for_all)}, schema={"item_id": pl.Int64})
        before.append(GivenItems(table, index))
    if case.of_user is not None:
        schema = {"user_id": pl.Int64, "item_id": pl.Int64}
        table = pl.DataFrame(sorted(case.of_user), schema=schema, orient="row")
        before.append(GivenItems(table, index))
    after = [] if case.min_score is None else [BelowScore(case.min_score)]
    return Pipeline(Rows(case.users), before, NearestItems(index, case.k), after), index


def cosines(case: Case, user: int) -> dict[int, float]:
    lengths = np.linalg.norm(case.embedding, axis=1) * np.linalg.norm(case.users[user])
    return dict(enumerate((case.embedding @ case.users[user] / lengths).tolist(), start=1))


def allowed(case: Case, user: int) -> set[int]:
    """Items that this user may get, whatever their score."""
    ids = set(range(1, len(case.embedding) + 1)) - (case.for_all or set())
    ids -= {item for raw, item in case.of_user or set() if raw == 100 + user}
    if user != 0:
        ids -= {item for who, item, at, _ in case.events if who == user and at < case.moment}
    if case.seen_after is not None:
        times = dict(enumerate(case.last_seen, start=1))
        ids = {one for one in ids if times[one] is not None and times[one] >= case.seen_after}
    return ids


def expected_scores(case: Case, user: int) -> list[float]:
    scores = sorted((cosines(case, user)[one] for one in allowed(case, user)), reverse=True)
    floor = -2 if case.min_score is None else case.min_score
    # a score at the threshold may be rounded to either side of it
    assume(all(abs(score - floor) > 1e-5 for score in scores))
    return [score for score in scores[: case.k] if score >= floor]


def step(users: list[int], moment: int) -> StepUsers:
    return StepUsers(pl.Series([100 + user for user in users]), np.array(users), moment)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from([IndexKind.FLAT, IndexKind.HNSW]))
def test_every_user_gets_the_best_of_what_he_may_get_alone_and_beside_others(
    case: Case, kind: IndexKind
) -> None:
    there = [user for user in range(USERS) if case.users[user].any()]
    with TemporaryDirectory() as folder:
        stages, index = pipeline(case, kind, timelines(case, Path(folder) / "timelines"))
        together = stages.run(step(list(range(USERS)), case.moment))
        each = [stages.run(step([user], case.moment)) for user in there]
    assert together.users.indices.tolist() == there
    for row, (user, alone) in enumerate(zip(there, each, strict=True)):
        slots, scores = together.found.slot[row], together.found.score[row]
        np.testing.assert_array_equal(alone.found.slot[0], slots)
        np.testing.assert_array_equal(alone.found.score[0], scores)
        expected = expected_scores(case, user)
        ids = index.at(slots[: len(expected)])["post_id"].to_list()
        assert (slots[len(expected) :] == NONE).all()
        # equal scores may come in any order, so items are compared by their scores
        np.testing.assert_allclose(scores[: len(expected)], expected, atol=1e-5)
        np.testing.assert_allclose([cosines(case, user)[one] for one in ids], expected, atol=1e-5)
        assert len(set(ids)) == len(ids) and set(ids) <= allowed(case, user)
