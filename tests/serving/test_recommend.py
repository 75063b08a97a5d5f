"""Recommendations: what users have seen, what they rest on, and the files of the command."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import ArtifactError, ConfigError, DataError
from recsys.data.contract.given_tables import read_given
from recsys.data.stores.dataset import PreparedDataset
from recsys.index.config import IndexBuildConfig
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.kinds import IndexConfig
from recsys.index.folder import load_index
from recsys.index.maintain import build_index
from recsys.serving import recommend_users
from recsys.serving.opening import open_recommender
from recsys.serving.pipeline import Embedded, StepUsers
from recsys.serving.recommend import Recommender, RecommendRules
from recsys.serving.recommend_users import (
    RecommendConfig,
    read_users,
    recommend,
)
from tests.index.conftest import ITEMS, START, WIDTH
from tests.rewritten import ARTIFACT_KIND, rewrite

LATE = RecommendRules(as_of=START + 1_000, k=20)


@pytest.fixture(scope="module")
def folder(dataset: PreparedDataset, embeddings: Path) -> Path:
    out = dataset.path.parent / "index"
    build_index(IndexBuildConfig(str(embeddings), str(out), dataset=str(dataset.path)))
    return out


class Towards:
    """Embeds every user like an item; user index 4 has no representation, 3 no events."""

    name = "towards"

    def __init__(self, item: int) -> None:
        self.row = np.random.default_rng(0).standard_normal((ITEMS + 2, WIDTH))[item - 1]

    def embed(self, users: StepUsers) -> Embedded:
        embedding = np.repeat(self.row[None], len(users.raw), axis=0).astype(np.float32)
        embedding[users.indices == 4] = 0
        return Embedded(embedding, np.where(users.indices == 3, 0, users.indices))


def items_of(frame: pl.DataFrame, user: int) -> set[int]:
    return set(frame.filter(pl.col("user_id") == user)["item_id"])


def all_rows(
    folder: Path, dataset: PreparedDataset, users: list, rules: RecommendRules = LATE
) -> pl.DataFrame:
    recommender = Recommender(load_index(folder), dataset, Towards(2))
    return pl.concat(recommender.recommend(pl.Series(users), rules, batch_users=2))


def test_what_a_user_was_shown_or_engaged_with_before_the_moment_is_left_out(
    folder: Path, dataset: PreparedDataset
) -> None:
    everything = {1000 + item for item in range(1, ITEMS + 3)}
    rows = all_rows(folder, dataset, [101, 102, 103])
    assert items_of(rows, 101) == everything - {1001, 1002, 1003}
    assert items_of(rows, 102) == everything - {1004, 1001}  # hidden is seen too
    assert items_of(rows, 103) == everything - {1009}
    earlier = all_rows(folder, dataset, [101], replace(LATE, as_of=START + 20))
    assert items_of(earlier, 101) == {1004, 1011, 1012}  # what was there, or has no time


def test_rows_are_ranked_with_scores_titles_and_their_basis(
    folder: Path, dataset: PreparedDataset
) -> None:
    rows = all_rows(folder, dataset, [102, 103, 999], replace(LATE, k=3))
    assert rows["user_id"].to_list() == [102] * 3 + [103] * 3 + [999] * 3
    assert rows["rank"].to_list() == [1, 2, 3] * 3
    assert rows["basis"].to_list() == ["history"] * 3 + ["no history"] * 3 + ["not in the log"] * 3
    best = rows.filter(pl.col("rank") == 1)
    assert best["item_id"].to_list() == [1002] * 3  # embedded like this item
    assert best["title"].to_list() == ["second"] * 3
    np.testing.assert_allclose(best["score"], 1, atol=1e-6)
    assert all(
        scores.is_sorted(descending=True)
        for scores in rows.partition_by("user_id")
        for scores in [scores["score"]]
    )


def test_a_user_without_any_representation_gets_nothing(
    folder: Path, dataset: PreparedDataset
) -> None:
    assert all_rows(folder, dataset, [104, 101])["user_id"].unique().to_list() == [101]
    assert all_rows(folder, dataset, [104]).is_empty()


def test_thresholds_of_score_and_age(folder: Path, dataset: PreparedDataset) -> None:
    everything = all_rows(folder, dataset, [103])
    high = all_rows(folder, dataset, [103], replace(LATE, min_score=0.3))
    assert items_of(high, 103) == set(everything.filter(pl.col("score") >= 0.3)["item_id"])
    assert 0 < len(high) < len(everything)
    # items without events have the vocabulary's first sight at 50
    young = all_rows(folder, dataset, [101], replace(LATE, seen_after=START + 50))
    assert items_of(young, 101) == {1005, 1006, 1007, 1008, 1009, 1010}


def test_the_rules_say_which_stages_there_are(folder: Path, dataset: PreparedDataset) -> None:
    recommender = Recommender(load_index(folder), dataset, Towards(2))
    plain = recommender.pipeline(LATE)
    assert [stage.name for stage in (*plain.before, *plain.after)] == ["seen", "future"]
    again = recommender.pipeline(replace(LATE, keep_seen=True))
    assert [stage.name for stage in again.before] == ["future"]
    wishes = recommender.wishes(exclude=pl.DataFrame({"item_id": [1001]}))
    full = recommender.pipeline(replace(LATE, seen_after=START, min_score=0.1), wishes)
    names = [stage.name for stage in (full.embedder, *full.before, full.source, *full.after)]
    assert names == ["towards", "seen", "future", "given", "age", "nearest", "score"]


def test_unknown_users_are_refused_when_strict(folder: Path, dataset: PreparedDataset) -> None:
    strict = replace(LATE, strict=True)
    assert len(all_rows(folder, dataset, [101], strict))
    with pytest.raises(DataError, match=r"2 of 3 users are not in the log \(998, 999\)"):
        all_rows(folder, dataset, [998, 101, 999], strict)
    # an id of another kind is unknown, too
    assert all_rows(folder, dataset, ["x1"])["basis"].unique().to_list() == ["not in the log"]
    assert all_rows(folder, dataset, ["101"])["basis"].unique().to_list() == ["history"]


def test_an_index_of_another_log_is_refused(dataset: PreparedDataset) -> None:
    items = pl.DataFrame({"post_id": ["a", "b"]})
    index, _ = ItemIndex.build(items, np.eye(2, WIDTH), "m", IndexConfig())
    with pytest.raises(DataError, match="it is of another log"):
        Recommender(index, dataset, Towards(1))


def items_of_file(path: Path) -> pl.DataFrame:
    return recommend_users.items_of(str(path), read_given(path, "exclude"))


def config(folder: Path, artifact: Path, **changes: object) -> RecommendConfig:
    settings = {"artifact": str(artifact), "index": str(folder), "user": ["101", "103", "7"]}
    return RecommendConfig(**(settings | changes))


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_from_artifact_and_index_to_rows(folder: Path, artifact: Path, precision: str) -> None:
    report, rows = recommend(config(folder, artifact, k=4, precision=precision))
    assert (report.users, report.without_items, report.as_of) == (3, 0, START + 91)
    assert len(rows) == 12 and not items_of(rows, 101) & {1001, 1002}
    basis = dict(zip(rows["user_id"], rows["basis"], strict=True))
    assert basis == {
        101: "history",
        103: "history",
        7: "not in the log",
    }  # ids in the log's own type
    before, _ = recommend(config(folder, artifact, as_of=str(START + 90), min_score=1.0))
    assert before.without_items == 3
    _, early = recommend(config(folder, artifact, user=["103"], as_of=str(START + 90)))
    assert early["basis"].unique().to_list() == ["no history"]


def test_a_recommender_is_opened_and_asked_from_python(
    folder: Path, artifact: Path, dataset: PreparedDataset
) -> None:
    recommender = open_recommender(artifact, folder)
    assert recommender.dataset.path == dataset.path and len(recommender.catalogue) == ITEMS + 2
    rules = RecommendRules(as_of=START + 91, k=4)
    rows = pl.concat(recommender.recommend(pl.Series(["101", "103", "7"]), rules))
    assert rows.equals(recommend(config(folder, artifact, k=4))[1])
    with pytest.raises(ConfigError, match="precision=int4 is not known; it is float or int8"):
        open_recommender(artifact, folder, precision="int4")
    with pytest.raises(ConfigError, match="at least 1 user at a time"):
        next(recommender.recommend(pl.Series([101]), rules, batch_users=-1))


def test_from_a_file_of_users_to_parquet(folder: Path, artifact: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.csv"
    users.write_text("user_id,name\n103,a\n101,b\n103,c\n")
    out = tmp_path / "out" / "items.parquet"
    settings = config(folder, artifact, user=None, users=str(users), out=str(out), batch_users=1)
    report, rows = recommend(settings)
    assert report.users == 2 and rows.is_empty()
    written = pl.read_parquet(out)
    _, expected = recommend(replace(settings, out=None, batch_users=10))
    assert written.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(written["score"], expected["score"], atol=1e-6)
    assert [path.name for path in out.parent.iterdir()] == ["items.parquet"]


def test_items_of_a_file_are_left_out(folder: Path, artifact: Path, tmp_path: Path) -> None:
    users = ["101", "103", "7"]
    free = recommend(config(folder, artifact, user=users, k=20))
    assert free[0].unknown_excluded is None
    file = tmp_path / "out.csv"
    file.write_text("item_id,why\n1004,old\n1005,old\n1004,again\n77,gone\n78,gone\n")
    report, rows = recommend(config(folder, artifact, user=users, k=20, exclude=str(file)))
    assert report.unknown_excluded == 2
    expected = free[1].filter(~pl.col("item_id").is_in([1004, 1005]))
    assert rows.drop("rank").equals(expected.drop("rank"))
    file.write_text("user_id,item_id\n103,1004\n7,1005\n999,1006\n")
    _, rows = recommend(config(folder, artifact, user=users, k=20, exclude=str(file)))
    pair = pl.concat_str("user_id", "item_id", separator=" ")
    expected = free[1].filter(~pair.is_in(["103 1004", "7 1005"]))
    assert rows.drop("rank").equals(expected.drop("rank"))
    file.write_text("user_id,item_id\n")
    assert recommend(config(folder, artifact, user=users, k=20, exclude=str(file)))[1].equals(
        free[1]
    )


def test_what_cannot_be_left_out_is_a_sentence(
    folder: Path, artifact: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out.csv"
    file.write_text("post_id\n1004\n")
    with pytest.raises(DataError, match=r"out\.csv has no column item_id \(it has post_id\)"):
        recommend(config(folder, artifact, exclude=str(file)))
    file.write_text("item_id\na\nb\n")
    with pytest.raises(DataError, match="ids such as 'a', those of the index are whole numbers"):
        recommend(config(folder, artifact, exclude=str(file)))
    with pytest.raises(DataError, match="does not exist; give exclude="):
        recommend(config(folder, artifact, exclude=str(tmp_path / "none.csv")))


def test_ids_of_files_are_read_as_they_are_written(tmp_path: Path) -> None:
    settings = RecommendConfig("artifact", "index", users=str(tmp_path))
    pl.DataFrame({"user_id": [7, 8, 7]}).write_parquet(tmp_path / "1.parquet")
    assert read_users(settings).to_list() == [7, 8]
    large = pl.Series("user_id", [2**64 - 1], pl.UInt64)
    large.to_frame().write_parquet(tmp_path / "2.parquet")
    assert read_users(settings).to_list() == [7, 8, 2**64 - 1]
    (tmp_path / "3.csv").write_text("user_id,item_id\n007,01\n7,1\n")
    assert read_users(settings).to_list() == ["7", "8", str(2**64 - 1), "007"]
    for file in tmp_path.glob("*.parquet"):
        file.unlink()
    pl.DataFrame({"item_id": [5]}).write_parquet(tmp_path / "4.parquet")
    assert items_of_file(tmp_path).rows() == [("007", "01"), ("7", "1"), (None, "5")]
    pl.DataFrame({"user_id": [7.0], "item_id": [1]}).write_parquet(tmp_path / "5.parquet")
    with pytest.raises(DataError, match="column user_id is of numbers with fractions in one"):
        items_of_file(tmp_path)


def test_what_does_not_belong_together_is_refused(
    folder: Path, artifact: Path, dataset: PreparedDataset, tmp_path: Path
) -> None:
    other = tmp_path / "other.parquet"
    table = pl.read_parquet(dataset.path.parent / "posts.parquet").reverse()
    table.write_parquet(other)
    build_index(IndexBuildConfig(str(other), str(tmp_path / "index")))
    with pytest.raises(ArtifactError, match="their scores would mean nothing"):
        recommend(config(tmp_path / "index", artifact))
    copy = tmp_path / "prepared"
    shutil.copytree(dataset.path, copy)
    manifest = replace(dataset.manifest, surfaces=("unknown", "feed"))
    manifest.save(copy)
    recommend(config(folder, artifact, dataset=str(copy)))  # grown
    replace(dataset.manifest, surfaces=("feed",), features=()).save(copy)
    with pytest.raises(ArtifactError, match="has other surfaces and user features than"):
        recommend(config(folder, artifact, dataset=str(copy)))
    empty = tmp_path / "users.csv"
    empty.write_text("user_id\n")
    with pytest.raises(DataError, match="has no row; give users="):
        recommend(config(folder, artifact, user=None, users=str(empty)))
    with pytest.raises(DataError, match=r"does not exist; give users= .* folder\.$"):
        recommend(config(folder, artifact, user=None, users=str(tmp_path / "none.csv")))
    lists = tmp_path / "lists.parquet"
    pl.DataFrame({"user_id": [[101], [102]]}).write_parquet(lists)
    with pytest.raises(DataError, match=r"column user_id: ids are .* found List\(Int64\)"):
        recommend(config(folder, artifact, user=None, users=str(lists)))


def test_what_was_moved_since_the_training_can_be_named(
    folder: Path, artifact: Path, dataset: PreparedDataset, tmp_path: Path
) -> None:
    moved = tmp_path / "artifact"
    shutil.copytree(artifact, moved)

    def elsewhere(content: dict) -> None:
        content["dataset"]["path"] = str(tmp_path / "gone")
        content["post_embeddings"]["path"] = str(tmp_path / "gone.npz")

    rewrite(moved / "manifest.json", ARTIFACT_KIND, elsewhere)
    with pytest.raises(ArtifactError, match="where it lies now: dataset="):
        recommend(config(folder, moved, trust=True))
    with pytest.raises(ArtifactError, match="where they lie now: embeddings="):
        recommend(config(folder, moved, trust=True, dataset=str(dataset.path)))
    items = str(dataset.path.parent / "posts.parquet")
    places = {"dataset": str(dataset.path), "embeddings": items}
    _, rows = recommend(config(folder, moved, trust=True, **places))
    assert rows.equals(recommend(config(folder, artifact))[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": None}, "Give either user="),
        ({"users": "a.csv"}, "Give either user="),
        ({"user": []}, "names nobody"),
        ({"user": ["101", ""]}, "not empty"),
        ({"out": "."}, "out is '.'"),
        ({"out": "items.xlsx"}, "the ending says in which format"),
        ({"precision": "int4"}, "one of float, int8"),
        ({"batch_users": 0}, "batch_users is 0"),
        ({"max_age_hours": 0.0}, "max_age_hours is 0.0"),
    ],
)
def test_settings_that_cannot_work(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, tmp_path, **changes)
    with pytest.raises(ConfigError, match="k is 0"):
        RecommendRules(as_of=0, k=0)
