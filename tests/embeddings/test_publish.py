"""Publishing: who is computed, the same bits whichever way, crashes, and deletion."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys.artifacts.timeline_tower import load_timeline_tower
from recsys.core.errors import ArtifactError, ConfigError, DataError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.moments import as_of_moment
from recsys.data.contract.schema import MILLISECONDS_PER_DAY as DAY
from recsys.data.loaders.requests import LoaderConfig
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore
from recsys.data.stores.timelines import TimelineStore, TimelineWriter
from recsys.data.stores.vocabulary import Vocabulary, vocabulary_path
from recsys.embeddings.changes import Moment
from recsys.embeddings.compute import TimelineEmbedder
from recsys.embeddings.deletion import DeleteConfig, delete_user
from recsys.embeddings.publish import PublishConfig, publish
from recsys.embeddings.reader import read_rows
from recsys.embeddings.rows import dequantize_rows, quantize_rows
from recsys.embeddings.stores import EmbeddingStore, Publication, open_store
from recsys.systems.base import ExportConfig
from recsys.systems.dv365.export import export_run
from tests.embeddings.publications import IDS, config, published
from tests.embeddings.stores import store_location
from tests.rewritten import ARTIFACT_KIND, rewrite
from tests.systems.dv365.runs import RAW_SHIFT, USERS, events, prepared_dataset, untrained_run
from tests.systems.dv365.towers import NOW

ROOT = Path(__file__).parents[2]


def test_published_rows_are_the_tower_s_output_in_four_bits(folder: Path) -> None:
    report = publish(config(folder, "store", as_of=NOW, batch_users=1))
    artifact = load_timeline_tower(folder / "run" / "artifact")

    gap = round(LoaderConfig().gap_hours * 3_600_000)
    timelines = TimelineStore.open(folder / "data" / "timelines")
    embedder = TimelineEmbedder(artifact, timelines, Moment(NOW, gap, 20 * DAY), 1)
    user = np.array([7], np.int32)
    with open_store(str(folder / "store")) as store:
        found = store.get(RAW_SHIFT + 7)
    assert found is not None and found.timestamp == NOW and found.version == report.version
    assert np.array_equal(found.rows, embedder.rows(user)[0])
    inputs = [embedder._timeline(user, kind) for kind in ("explicit", "implicit")]
    assert int(inputs[0]["timestamp"].max()) < NOW - gap

    embedding = artifact.embed(*inputs, torch.tensor([NOW]))
    assert np.array_equal(
        read_rows(found.rows), dequantize_rows(quantize_rows(embedding))[0].numpy()
    )


def test_active_users_have_an_event_between_retention_and_gap(folder: Path) -> None:
    report = publish(config(folder, "store"))
    log = events_of(folder)
    active = log.filter((pl.col("timestamp") >= NOW - 20 * DAY) & (pl.col("timestamp") < NOW - DAY))
    expected = {RAW_SHIFT + user for user in active["user"].unique()}
    assert set(published(folder / "store")) == expected
    assert 20 < len(expected) < USERS - 10
    assert report.active_users == report.published_users == len(expected)
    assert report.scope == "everyone: the store is new"
    assert report.bytes_per_user == 20 * 2 * 8


def events_of(folder: Path) -> pl.DataFrame:

    timelines = TimelineStore.open(folder / "data" / "timelines")
    parts = []
    for user in timelines.users().tolist():
        for kind in ("explicit", "implicit"):
            moments = timelines.history(user, NOW + DAY, kind)["timestamp"]
            parts.append(pl.DataFrame({"timestamp": moments}).with_columns(user=pl.lit(user)))
    return pl.concat(parts)


def test_the_same_bits_from_day_to_day_and_all_at_once(folder: Path) -> None:
    """Incremental publications leave exactly what one of everyone writes."""
    withdrawn = 0
    for days in (5, 4, 0):
        report = publish(config(folder, "daily", as_of=NOW - days * DAY))
        if days < 5:
            assert report.scope.startswith("changed since version")
            assert 0 < report.published_users < report.active_users
        publish(config(folder, "at_once", as_of=NOW - days * DAY, only_changed=False))
        expected = published(folder / "at_once")
        assert published(folder / "daily") == expected
        assert len(expected) == report.active_users
        withdrawn += report.withdrawn_users
    assert withdrawn > 0


def test_nothing_changes_at_the_same_moment(folder: Path) -> None:
    publish(config(folder, "store"))
    before = published(folder / "store")
    report = publish(config(folder, "store"))
    assert (report.published_users, report.withdrawn_users, report.version) == (0, 0, 2)
    assert published(folder / "store") == before


def test_the_order_and_company_of_users_do_not_matter(folder: Path) -> None:
    everyone = publish(config(folder, "store"))
    rows = published(folder / "store")
    publish(config(folder, "again"))
    assert published(folder / "again") == rows
    # Users removed from the log change every batch; the others' bits stay.
    with TimelineWriter(folder / "data" / "timelines") as writer:
        writer.delete_users(range(1, USERS, 3))
    fewer = publish(config(folder, "fewer"))
    assert fewer.published_users < everyone.published_users
    for user, row in published(folder / "fewer").items():
        assert row == rows[user]


def test_where_the_place_in_a_batch_matters_users_are_published_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = TimelineEmbedder.rows

    def of_its_place(embedder: TimelineEmbedder, users: np.ndarray) -> np.ndarray:
        rows = compute(embedder, users)
        rows[1:] ^= 1
        return rows

    monkeypatch.setattr(TimelineEmbedder, "rows", of_its_place)
    with pytest.raises(ArtifactError, match="publish with batch_users=1"):
        publish(config(folder, "store", batch_users=16))
    report = publish(config(folder, "store", batch_users=1))
    assert report.published_users == report.active_users > 0


def test_late_events_are_noticed(folder: Path) -> None:
    publish(config(folder, "store"))
    late = events(3, NOW - 15 * DAY, NOW - 14 * DAY, seed=9).with_columns(
        user=pl.lit(5, pl.Int32), item=pl.lit(3, pl.Int32)
    )
    fresh = events(8, NOW - DAY // 2, NOW, seed=10)  # inside the gap: changes nobody yet
    with TimelineWriter(folder / "data" / "timelines") as writer:
        writer.append([late, fresh])
    before = published(folder / "store")
    report = publish(config(folder, "store"))
    assert report.published_users == 1
    after = published(folder / "store")
    assert {user for user in after if after[user] != before[user]} == {RAW_SHIFT + 5}
    publish(config(folder, "at_once"))
    assert after == published(folder / "at_once")


def test_compaction_changes_no_bit(folder: Path) -> None:
    with TimelineWriter(folder / "data" / "timelines") as writer:
        writer.append([events(50, NOW - 3 * DAY, NOW - 2 * DAY, seed=3)])
    publish(config(folder, "store"))
    before = published(folder / "store")
    with TimelineWriter(folder / "data" / "timelines") as writer:
        writer.compact()
    publish(config(folder, "store"))
    assert published(folder / "store") == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"batch_users": 8}, "another batch_users"),
        ({"only_changed": False}, "asked for"),
        ({"as_of": str(NOW - DAY)}, "of a later moment"),
        ({"retention_days": 30.0}, "another retention"),
    ],
)
def test_everyone_is_published_where_the_last_one_cannot_be_built_on(
    folder: Path, options: dict[str, object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # not all machines allow 8
    monkeypatch.setattr(TimelineEmbedder, "check_composition", TimelineEmbedder.rows)
    publish(config(folder, "store"))
    report = publish(replace(config(folder, "store"), **options))  # type: ignore[arg-type]
    assert reason in report.scope
    assert report.published_users == report.active_users > 0


def test_a_new_model_publishes_everyone(folder: Path) -> None:
    publish(config(folder, "store"))
    before = published(folder / "store")

    other = untrained_run(folder / "other", PreparedDataset.open(folder / "data"), seed=1)
    artifact = export_run(other, ExportConfig(measure=False))
    report = publish(config(folder, "store", run_dir=None, artifact=str(artifact)))
    assert "another tower" in report.scope
    after = published(folder / "store")
    assert after.keys() == before.keys()
    assert all(after[user] != before[user] for user in after)


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_a_killed_publication_is_run_again(folder: Path, kind: str) -> None:
    """Kill −9 while a process publishes; readers stay at the old moment until it is whole."""
    program = [sys.executable, "-m", "tests.embeddings.publish_process", str(folder)]
    generator = random.Random(3)
    with store_location(kind, folder) as location:
        publish(replace(config(folder, "", as_of=NOW - 3 * DAY, batch_users=1), store=location))
        old = published(location)
        publish(config(folder, "expected", only_changed=False, batch_users=1))
        new = published(folder / "expected")
        assert old != new
        for _ in range(2):
            process = subprocess.Popen([*program, location], stdout=subprocess.PIPE, cwd=ROOT)
            assert process.stdout is not None
            process.stdout.readline()  # it has written its first users
            time.sleep(generator.uniform(0.0, 0.02))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            assert published(location) == old
        publish(replace(config(folder, "", batch_users=1), store=location))
        assert published(location) == new


def test_a_deleted_user_is_gone_from_timelines_and_store(folder: Path) -> None:
    publish(config(folder, "store"))
    user = RAW_SHIFT + 7
    assert user in published(folder / "store")
    sequences = EngagementStore.open(PreparedDataset.open(folder / "data"), SequenceConfig()).path
    deletion = DeleteConfig(str(user), str(folder / "data"), str(folder / "store"))
    deleted = delete_user(deletion)
    assert deleted.events > 0 and deleted.embedding
    assert user not in published(folder / "store")
    assert not sequences.exists()
    assert 7 not in events_of(folder)["user"].to_list()
    again = delete_user(deletion)
    assert again.events == 0 and not again.embedding
    publish(config(folder, "store", as_of=NOW + DAY))
    publish(config(folder, "store", as_of=NOW + DAY, only_changed=False))
    assert user not in published(folder / "store")


def test_users_that_a_new_preparation_drops_are_withdrawn(folder: Path) -> None:
    publish(config(folder, "store"))
    before = published(folder / "store")
    path = vocabulary_path(folder / "data", "user")
    known = Vocabulary.load(path)
    last = max(before)
    replace(known, table=known.table.filter(pl.col("raw") < last)).save(path)
    manifest = DatasetManifest.load(folder / "data")
    grown = {"grown_from": [manifest.fingerprint]}
    replace(manifest, fingerprint="grown", preparation=grown).save(folder / "data")
    assert publish(config(folder, "store")).scope.startswith("changed since version")
    assert published(folder / "store") == before

    replace(manifest, fingerprint="prepared anew").save(folder / "data")
    report = publish(config(folder, "store"))
    assert report.scope == "everyone: the data set was prepared anew since the last publication"
    assert report.withdrawn_users == 1
    assert published(folder / "store") == {u: row for u, row in before.items() if u != last}


def test_string_ids_are_the_keys(tmp_path: Path) -> None:
    log = events(400, NOW - 10 * DAY, NOW, seed=4)
    dataset = prepared_dataset(tmp_path / "data", log, string_ids=True)
    export_run(untrained_run(tmp_path / "run", dataset), ExportConfig(measure=False))
    publish(config(tmp_path, "store"))
    with open_store(str(tmp_path / "store"), readonly=True) as store:
        assert store.get(f"id-{RAW_SHIFT + 1}") is not None
        assert store.get(RAW_SHIFT + 1) is None
    user = f"id-{RAW_SHIFT + 1}"
    deleted = delete_user(DeleteConfig(user, str(tmp_path / "data"), str(tmp_path / "store")))
    assert deleted.events > 0 and deleted.embedding


def test_moments_are_read_as_utc(exported: Path) -> None:
    manifest = DatasetManifest.load(exported / "data")
    assert as_of_moment("1970-01-02", manifest) == DAY
    assert as_of_moment("1970-01-02T01:00:00+01:00", manifest) == DAY
    assert as_of_moment(None, manifest) == NOW
    assert as_of_moment(str(NOW), manifest) == NOW
    with pytest.raises(ConfigError, match="looks like seconds"):
        as_of_moment(str(NOW // 1_000), manifest)
    with pytest.raises(ConfigError, match="is not in milliseconds"):
        as_of_moment(str(NOW * 1_000), manifest)
    with pytest.raises(ConfigError, match="as_of=yesterday is no moment"):
        as_of_moment("yesterday", manifest)


@pytest.mark.parametrize("days", [-400, 400])
def test_a_moment_without_active_users_withdraws_nobody(folder: Path, days: int) -> None:
    publish(config(folder, "store"))
    before = published(folder / "store")
    with pytest.raises(ConfigError, match="no user has an event"):
        publish(config(folder, "store", as_of=NOW + days * DAY))
    assert published(folder / "store") == before != {}


def test_a_data_set_with_other_indices_is_refused(folder: Path) -> None:
    path = vocabulary_path(folder / "data", "author")
    known = Vocabulary.load(path)
    new = pl.DataFrame({"raw": [RAW_SHIFT - 1], "first_seen": [NOW]})
    known.grow(new).save(path)
    publish(config(folder, "store"))  # the same data set, grown
    shuffled = known.table.with_columns(pl.col("raw").reverse())
    replace(known, table=shuffled).save(path)
    with pytest.raises(ArtifactError, match="gives other indices to author than"):
        publish(config(folder, "store"))


def test_what_is_missing_is_a_sentence(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either run_dir=… or artifact=…"):
        PublishConfig()
    absent = config(exported, "never", dataset=str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="not a prepared data set"):
        publish(absent)


def test_a_moved_data_set_is_asked_for(folder: Path) -> None:

    def moved(content: dict) -> None:
        content["dataset"]["path"] = str(folder / "gone")

    rewrite(folder / "run" / "artifact" / "manifest.json", ARTIFACT_KIND, moved)
    with pytest.raises(ArtifactError, match=r"gone, which is not there; .* dataset=<its folder>"):
        publish(config(folder, "store", dataset=None, trust=True))
    with pytest.raises(ArtifactError, match="not among the artifacts that you have exported"):
        publish(config(folder, "store"))
    assert publish(config(folder, "store", trust=True)).published_users > 0


def test_a_publication_that_came_before_the_beginning_is_the_former_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another tower, so that nobody's embedding may stay as it is."""
    publish(config(folder, "store", as_of=NOW - DAY))
    begin = EmbeddingStore.begin

    def begin_after_another(store: EmbeddingStore, timestamp: int, details: dict) -> Publication:
        begin(store, timestamp, {**details, "tower": "another"})
        store.put_many(IDS, np.zeros((len(IDS), 20, 2), np.int64))
        store.commit()
        return begin(store, timestamp, details)

    monkeypatch.setattr(EmbeddingStore, "begin", begin_after_another)
    publish(config(folder, "store"))
    monkeypatch.undo()
    publish(config(folder, "whole"))
    assert published(folder / "store") == published(folder / "whole")
