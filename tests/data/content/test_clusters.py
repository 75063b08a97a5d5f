"""Clusters of items of like content: found, kept, and not changed by what comes later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.content.clusters import candidate_features, content_clusters, nearest_centroids
from recsys.data.features.config import CandidateFeatureConfig, ContentConfig
from recsys.data.prepare.append import AppendConfig, append
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.check import check_dataset
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.derived import CONTENT_CLUSTERS
from tests.evaluation.baselines.planted import HOUR, START, own_log, prepared

ITEMS, LATE, BARE = 20, 100, 101


def shown(items: list[int], first_hour: int) -> pl.DataFrame:
    """Some items, to one user after the other, an hour apart."""
    hours = first_hour + np.arange(len(items))
    users = np.arange(len(items)) % 5
    return pl.DataFrame({"user_id": users, "item_id": items, "timestamp": START + hours * HOUR})


def log_of(turned: bool = False) -> pl.DataFrame:
    """Items of twenty days; from the tenth on, users like others where it is ``turned``."""
    log = shown([number % ITEMS for number in range(20 * 24)], 0)
    later = (log["timestamp"] >= START + 240 * HOUR).to_numpy()
    return own_log((np.arange(len(log)) % 3 == 0) ^ (later & turned), log)


def write_vectors(path: Path, **changed: list[float]) -> str:
    """Even items lie along one axis, odd ones along another; the late one is as even ones."""
    draw = np.random.default_rng(0)
    items = np.array([*range(ITEMS), LATE])
    vectors = 0.1 * draw.standard_normal((len(items), 4))
    vectors[np.arange(len(items)), items % 2] += 3
    for item, vector in changed.items():
        vectors[items == int(item.removeprefix("item_"))] = vector
    np.savez(path, item_id=items, embedding=vectors)
    return str(path)


def test_items_alike_are_in_one_cluster_and_those_without_content_in_none(tmp_path: Path) -> None:
    dataset = prepared(log_of(), tmp_path / "prepared")
    path = write_vectors(tmp_path / "items.npz", item_3=[np.nan] * 4)
    clusters = content_clusters(dataset, ContentConfig(path, clusters=2))
    of_raw = clusters[dataset.vocabulary("item").indices_of(list(range(ITEMS)))]
    odd = np.delete(of_raw[1::2], 1)
    assert clusters[0] == of_raw[3] == 0
    assert set(clusters) == {0, 1, 2}
    assert len(set(of_raw[::2])) == len(set(odd)) == 1 and of_raw[0] != odd[0]
    assert content_clusters(dataset, ContentConfig(None)) is None
    many = content_clusters(dataset, ContentConfig(path, clusters=1000))
    assert len(set(many)) == ITEMS  # each its own, and 0


def test_they_are_kept_for_one_file_and_one_setting(tmp_path: Path) -> None:
    dataset = prepared(log_of(), tmp_path / "prepared")
    path = write_vectors(tmp_path / "items.npz")
    first = content_clusters(dataset, ContentConfig(path, clusters=2))
    folder = dataset.path / CONTENT_CLUSTERS.folder
    assert np.array_equal(content_clusters(dataset, ContentConfig(path, clusters=2)), first)
    assert len(list(folder.glob("[!.]*"))) == 1
    write_vectors(tmp_path / "items.npz", item_0=[0, 3, 0, 0])
    other = content_clusters(dataset, ContentConfig(path, clusters=2))
    zero, one = dataset.vocabulary("item").indices_of([0, 1])
    assert first[zero] != first[one] and other[zero] == other[one]
    [kept, _] = folder.glob("[!.]*")
    damaged = kept / "of_item.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x07")
    with pytest.raises(DataError, match=r"of_item.npy is not what was written"):
        check_dataset(dataset, anew=True)


def test_number_of_threads_changes_nothing() -> None:
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((3000, 24)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    before, found = faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 3):
            faiss.omp_set_num_threads(threads)
            found.append(nearest_centroids(rows, 2000, 50, seed=1))
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    assert np.array_equal(*found)
    assert set(found[0]) == set(range(50))
    assert np.array_equal(nearest_centroids(rows[:2500], 2000, 50, seed=1), found[0][:2500])


def test_what_users_do_later_changes_nothing(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "items.npz")
    config = CandidateFeatureConfig(content=ContentConfig(path, clusters=3))
    users = np.arange(1, 6)
    found = {}
    for turned in (False, True):
        dataset = prepared(log_of(turned), tmp_path / f"prepared_{turned}")
        features = candidate_features(dataset, config)
        assert any(name.startswith("user and content") for name in features.names)
        rows = np.full(5, 4), np.arange(20) + 1
        found[turned] = [
            features.compute(users, np.full(5, START + hours * HOUR), *rows) for hours in (240, 400)
        ]
        found[turned].append(content_clusters(dataset, config.content))
    assert np.array_equal(found[False][0], found[True][0])
    assert not np.array_equal(found[False][1], found[True][1])
    assert np.array_equal(found[False][2], found[True][2])


def test_items_appended_later_are_in_the_nearest(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "items.npz")
    config = ContentConfig(path, clusters=2)
    log_of().write_parquet(tmp_path / "log.parquet")
    settings: dict[str, Any] = {"out": str(tmp_path / "prepared"), "partitions": 2}
    prepare(PrepareConfig(path=str(tmp_path / "log.parquet"), **settings))
    dataset = PreparedDataset.open(tmp_path / "prepared")
    before = np.array(content_clusters(dataset, config))
    own_log(np.ones(4, bool), shown([LATE, BARE, 0, 1], 490)).write_parquet(
        tmp_path / "new.parquet"
    )
    append(AppendConfig(path=str(tmp_path / "new.parquet"), **settings))
    grown = PreparedDataset.open(dataset.path)
    for known in (grown, grown.as_known(dataset.manifest)):
        after = content_clusters(known, config)
        zero, late, bare = known.vocabulary("item").indices_of([0, LATE, BARE])
        assert np.array_equal(after[: len(before)], before) and len(after) == len(before) + 2
        assert after[late] == before[zero] and after[bare] == 0
    with pytest.raises(DataError, match="appended to since it was opened"):
        content_clusters(dataset, ContentConfig(path, clusters=3))


def test_what_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    late = own_log(np.ones(4, bool), shown([LATE, BARE, LATE, BARE], 490))
    dataset = prepared(pl.concat([log_of(), late]), tmp_path / "prepared")
    with pytest.raises(DataError, match=r"none.npz is missing; give an .npz or Parquet file"):
        content_clusters(dataset, ContentConfig(str(tmp_path / "none.npz")))
    np.savez(tmp_path / "late.npz", item_id=[LATE], embedding=[[1.0, 2.0]])
    with pytest.raises(DataError, match=r"no embedding of an item .* fit period"):
        content_clusters(dataset, ContentConfig(str(tmp_path / "late.npz")))
