"""Trained models in a funnel, against what their runs say of the same users and items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import recsys
from recsys.cli.main import invoke
from recsys.core.composition import load
from recsys.core.errors import ArtifactError, ConfigError
from recsys.data.contract.schema import ACTION_TYPES
from recsys.data.stores.live import LiveDataset
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.config import FunnelConfig, ModelConfig, RetrievedConfig, SimilarConfig
from recsys.serving.funnel.knowledge import Integers, Knowledge
from recsys.serving.funnel.model import Model
from recsys.serving.funnel.models.open import open_model
from tests.systems.own_log import DAY, LATE, START, RunOf, run_of  # noqa: F401

#: A day after the log.
NOW = START + 31 * DAY
NEW = pl.DataFrame({"item_id": ["new"], "first_seen": [START + 30 * DAY + 1]})
USERS = ["u1", "u2", "u3"]


@dataclass
class Known:
    """All items can be shown; what is seen is said."""

    alive: Integers
    seen_items: frozenset[tuple[int, int]] = frozenset()

    def seen(self, user: Integers, moment: Integers, item: Integers) -> NDArray[np.bool_]:
        pairs = zip(user.tolist(), item.tolist(), strict=True)
        return np.array([pair in self.seen_items for pair in pairs], bool)


def knows(items: list[int] | Integers, *seen: tuple[int, int]) -> Knowledge:
    known: Knowledge = Known(np.asarray(items, np.int64), frozenset(seen))  # type: ignore[assignment]
    return known


@pytest.fixture(scope="module")
def exported(run_of: RunOf, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:  # noqa: F811
    """The artifact of a system's run."""
    folder = tmp_path_factory.mktemp("artifacts")

    def export(system: str) -> Path:
        out = folder / system
        if not out.exists():
            assert (
                invoke(["export", f"run_dir={run_of(system)}", f"out={out}", "measure=false"]) == 0
            )
        return out

    return export


def opened(artifact: Path, run_dir: Path) -> tuple[Model, LiveDataset]:
    live = LiveDataset.open(recsys.open_run(run_dir).dataset.path, items=NEW)
    return open_model("it", ModelConfig(path=str(artifact)), live), live


def requests(dataset: LiveDataset, moment: int = NOW) -> Requests:
    user = dataset.vocabulary("user").indices_of(USERS)
    columns = {"surface": np.array(["feed", "search", "feed"])}
    return Requests(np.arange(3), user, np.full(3, moment), columns)


@pytest.mark.parametrize("system", ["ranker", "hsnn"])
def test_predictions_are_those_of_the_run(
    system: str,
    run_of: RunOf,  # noqa: F811
    exported: Callable[[str], Path],
) -> None:
    model, live = opened(exported(system), run_of(system))
    scorer = model.scorer(["click"])
    items = live.vocabulary("item").indices_of(["i1", "i9", LATE, "i3"])
    lengths = np.array([3, 0, 1])
    found = scorer.score(requests(live), lengths, items)
    users = ["u1", "u1", "u1", "u3"]
    pairs = pl.DataFrame({"user_id": users, "item_id": ["i1", "i9", LATE, "i3"], "surface": "feed"})
    expected = recsys.open_run(run_of(system)).score_pairs(pairs, at=NOW)
    assert found.shape == (4, 1)
    np.testing.assert_allclose(found[:, 0], expected["click"].to_numpy(), atol=1e-6)
    alone = scorer.score(requests(live), np.array([0, 0, 1]), items[3:])
    assert alone[0, 0] == found[3, 0]
    with pytest.raises(ConfigError, match=r"does not predict liked; it predicts .*click"):
        model.scorer(["liked"])


@pytest.mark.parametrize("system", ["two_tower", "sequence", "nxtpost"])
def test_a_tower_finds_what_its_run_recommends_and_follows_what_happens(
    system: str,
    run_of: RunOf,  # noqa: F811
    exported: Callable[[str], Path],
) -> None:
    model, live = opened(exported(system), run_of(system))
    every = np.arange(1, live.manifest.vocabulary_sizes["item"])
    source = model.source("mine", RetrievedConfig(quota=5, model="it"), knows(every))
    offers = source.find(requests(live))
    expected = recsys.open_run(run_of(system)).recommend(USERS, k=5, as_of=NOW, keep_seen=True)
    ids = live.vocabulary("item").table["raw"].to_list()
    assert offers.lengths.tolist() == [5, 5, 5]
    assert [ids[item - 1] for item in offers.item] == expected["item_id"].to_list()
    np.testing.assert_allclose(offers.score, expected["score"].to_numpy(), atol=2e-5)

    # what was seen, what cannot be shown and what the model does not know is not found
    users, seen = requests(live), int(offers.item[0])
    user, new = int(users.user[0]), live.vocabulary("item").indices_of(["new"])[0]
    some = np.append(np.sort(offers.item[:3]), new)
    again = model.source("mine", RetrievedConfig(quota=5, model="it"), knows(some, (user, seen)))
    assert sorted(again.find(users).item[:2]) == sorted(offers.item[1:3])

    scores = model.scorer(None).score(users, np.array([2, 0, 1]), offers.item[[0, 1, 10]])
    np.testing.assert_allclose(scores, offers.score[[0, 1, 10]], atol=1e-6)
    assert np.isnan(model.scorer(None).score(users, np.array([1, 0, 0]), np.array([new]))).all()
    click = ACTION_TYPES.index("click")
    event = {"user": [user], "item": [int(every[3])], "timestamp": [NOW - 5]}
    live.live.append({**event, "action_type": [click]})
    later = model.scorer(None).score(requests(live), np.array([1, 0, 0]), offers.item[:1])
    assert later[0] != scores[0]
    before = model.scorer(None).score(requests(live, NOW - 5), np.array([1, 0, 0]), offers.item[:1])
    assert before[0] == pytest.approx(scores[0], abs=0.05)


@pytest.mark.parametrize("system", ["two_tower", "ranker", "hsnn"])
def test_what_is_announced_is_to_a_grown_model_what_it_is_to_a_new_one(
    system: str,
    run_of: RunOf,  # noqa: F811
    exported: Callable[[str], Path],
) -> None:
    expected, _ = opened(exported(system), run_of(system))
    live = LiveDataset.open(recsys.open_run(run_of(system)).dataset.path)
    model = open_model("it", ModelConfig(path=str(exported(system))), live)
    tasks = None if system == "two_tower" else ["click"]
    items = live.vocabulary("item").indices_of(["i1", "i9"])
    before = model.scorer(tasks).score(requests(live), np.array([2, 0, 0]), items)
    # first something else is stated of it, which is as if it had not been
    other = [{name: NEW[name][0] for name in ("item_id", "first_seen")}]
    live.live.announced.announce(live, other, NOW)
    former = live.grown()
    model = model.grown(former)
    model.scorer(tasks).score(requests(former), np.array([1, 0, 0]), items[:1])
    live.live.announced.announce(live, NEW.to_dicts(), NOW)
    grown = former.grown()
    assert isinstance(grown, LiveDataset)
    new = grown.vocabulary("item").indices_of(["i1", "i9", "new"])
    found = model.grown(grown).scorer(tasks).score(requests(grown), np.array([3, 0, 0]), new)
    said = expected.scorer(tasks).score(requests(grown), np.array([3, 0, 0]), new)
    np.testing.assert_array_equal(found, said)
    np.testing.assert_allclose(found[:2], before, atol=1e-6)


def test_items_like_the_newest_engagements(
    run_of: RunOf,  # noqa: F811
    exported: Callable[[str], Path],
) -> None:
    model, live = opened(exported("two_tower"), run_of("two_tower"))
    embeddings = recsys.open_run(run_of("two_tower")).loaded.model.embed_all().numpy()
    click, users = ACTION_TYPES.index("click"), requests(live)
    times, items = [NOW - 7_200_000, NOW - 600_000], [3, 8]
    event = {"user": [users.user[1]] * 2, "item": items, "timestamp": times}
    live.live.append({**event, "action_type": [click] * 2})
    every = np.arange(1, len(embeddings))
    config = SimilarConfig(quota=4, model="it", events=2, hours=1, actions=["click"])
    offers = model.similar("like", config, knows(every)).find(users)
    assert offers.lengths.tolist() == [0, 4, 0]  # the others did nothing in the last hour
    own = embeddings[1:] @ embeddings[8]
    assert offers.item.tolist() == (1 + np.argsort(-own, kind="stable")[:4]).tolist()
    assert offers.item[0] == 8
    both = model.similar("like", SimilarConfig(quota=4, model="it", events=2), knows(every))
    nearest = np.maximum(own, embeddings[1:] @ embeddings[3])
    found = both.find(users)
    of_second = slice(int(found.lengths[0]), int(found.lengths[:2].sum()))
    np.testing.assert_allclose(found.score[of_second], np.sort(nearest)[::-1][:4], atol=1e-5)


def test_a_tree_finds_the_best_of_what_can_be_shown(
    run_of: RunOf,  # noqa: F811
    exported: Callable[[str], Path],
) -> None:
    model, live = opened(exported("hsnn"), run_of("hsnn"))
    alive = live.vocabulary("item").indices_of(["i3", "new", "i5", LATE])
    config = RetrievedConfig(quota=3, model="it", beam=100, task="click")
    users = requests(live)
    offers = model.source("tree", config, knows(alive, (int(users.user[0]), int(alive[0])))).find(
        users
    )
    assert offers.lengths.tolist() == [3, 3, 3]  # the new one has its node at once
    assert sorted(offers.item[:3]) == sorted(alive[1:])
    # as the predictions of the items have it
    some = offers.item[3:6]
    found = model.scorer(["click"]).score(users, np.array([0, 3, 0]), some)[:, 0]
    assert (np.diff(found) <= 1e-12).all()


def test_what_a_model_cannot_be_is_refused(
    run_of: RunOf,  # noqa: F811
    exported: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    nothing = knows([1])
    ranker, _ = opened(exported("ranker"), run_of("ranker"))
    with pytest.raises(ConfigError, match="finds none; name a two_tower"):
        ranker.source("mine", RetrievedConfig(model="it"), nothing)
    with pytest.raises(ConfigError, match="is for the second stage"):
        ranker.scorer(None)
    with pytest.raises(ConfigError, match="items are compared by a two_tower"):
        ranker.similar("mine", SimilarConfig(model="it"), nothing)
    tower, live = opened(exported("two_tower"), run_of("two_tower"))
    with pytest.raises(ConfigError, match="predicts no tasks"):
        tower.scorer(["click"])
    with pytest.raises(ConfigError, match="no action of the data set"):
        tower.similar("mine", SimilarConfig(model="it", actions=["clicked"]), nothing)
    with pytest.raises(ConfigError, match="reads none"):
        open_model("it", ModelConfig(path=str(exported("ranker")), stores=["a"]), live)
    with pytest.raises(ArtifactError):
        open_model("it", ModelConfig(path=str(tmp_path)), live)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("second.scorer=rankr", "second.scorer=rankr is unknown; it is one of ranker, rates"),
        ("sources.retrieved={a:{model:b}}", "retrieved.a.model=b is unknown; it is one of ranker"),
        ("sources.retrieved={trending:{model:ranker}}", "two are called trending"),
    ],
)
def test_a_funnel_names_models_that_it_declares(tmp_path: Path, change: str, sentence: str) -> None:
    file = tmp_path / "funnel.yaml"
    file.write_text(
        "models: {ranker: {path: x}}\nsources: {trending: {}}\nvalue: {expression: p(click)}\n"
    )
    assert load(file, FunnelConfig, ["second.scorer=ranker"]).second.scorer == "ranker"
    with pytest.raises(ConfigError, match=sentence):
        load(file, FunnelConfig, [change])


def test_a_source_of_a_model_that_is_null_is_none(tmp_path: Path) -> None:
    file = tmp_path / "funnel.yaml"
    file.write_text(
        "models: {towers: {path: x}}\nvalue: {expression: p(click)}\n"
        "sources: {trending: {}, retrieved: {found: {model: towers}}, similar: {alike: null}}\n"
    )
    assert load(file, FunnelConfig, []).sources.names == ["trending", "found"]
    without = load(file, FunnelConfig, ["sources.retrieved.found=null", "models={}"])
    assert without.sources.names == ["trending"]


def test_the_exported_tower_of_items_says_what_the_model_says(
    run_of: RunOf,  # noqa: F811
    exported: Callable[[str], Path],
) -> None:
    model, live = opened(exported("two_tower"), run_of("two_tower"))
    trained = recsys.open_run(run_of("two_tower")).loaded.model.embed_all().numpy()
    content, _ = model.content  # type: ignore[attr-defined]
    np.testing.assert_allclose(content[: len(trained)], trained, atol=1e-6)
    assert len(content) == live.manifest.vocabulary_sizes["item"] == len(trained) + 1
    assert not content[-1].any()  # a new item without features
