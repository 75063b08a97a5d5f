"""Artifacts: what is in the folder, what the manifest says, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.artifacts.timeline_tower import load_timeline_tower
from recsys.core.errors import ArtifactError, ConfigError, RecsysError
from recsys.core.json_files import write_json
from recsys.data.contract.schema import ACTION_TYPES, MILLISECONDS_PER_DAY
from recsys.data.loaders.requests import RequestDataModule
from recsys.data.stores.vocabulary import Vocabulary, vocabulary_path
from recsys.embeddings.publish import PublishConfig, publish
from recsys.embeddings.rows import dequantize_rows, quantize_rows
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.nn.encoders import EncoderConfig
from recsys.runs.load import LoadedRun
from recsys.systems.base import ExportConfig
from recsys.systems.dv365.export import age_edges, export_run
from tests.rewritten import ARTIFACT_KIND
from tests.room import room
from tests.systems.dv365.runs import (
    FIT_ITEMS,
    USERS,
    events,
    prepared_dataset,
    untrained_run,
)
from tests.systems.dv365.towers import NOW, SLICES


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    folder = tmp_path_factory.mktemp("export")
    log = events(3_000, NOW - 20 * MILLISECONDS_PER_DAY, NOW, seed=0)
    return untrained_run(folder / "run", prepared_dataset(folder / "data", log))


@pytest.fixture(scope="module")
def folder(run: LoadedRun) -> Path:
    return export_run(run, ExportConfig(run_dir=str(run.folder)))


def test_the_folder_holds_what_the_manifest_names(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert present == {"manifest.json", *manifest["files"]}
    assert {"user_tower.pt", "encoder.pt2", "config.yaml", "vocabulary/item.parquet"} <= present
    assert manifest["codes"]["action_type"] == list(ACTION_TYPES)
    assert manifest["inputs"]["implicit"]["dwell_time"] == "float32"
    assert manifest["output"]["embedding"]["shape"] == ["B", 20, 16]
    assert manifest["output"]["published"]["shape"] == [20, 2]


def test_sizes_say_what_quantisation_saves(folder: Path) -> None:
    sizes = load_timeline_tower(folder).manifest.sizes
    assert sizes["embedding_compression"] == 20 * 16 * 4 / (20 * 2 * 8)
    # 16 columns: 64 bytes before, 8 + 4 after, and some padding behind each table.
    assert 4.8 < sizes["tables_compression"] <= 64 / 12


def test_the_vocabulary_ends_with_the_fit_period(folder: Path) -> None:
    items = Vocabulary.load(vocabulary_path(folder, "item")).table
    assert items["index"].to_list() == list(range(1, FIT_ITEMS))


def test_a_loaded_artifact_embeds_as_the_run_does(run: LoadedRun, folder: Path) -> None:
    artifact = load_timeline_tower(folder)
    batch = next(iter(RequestDataModule(run.config.loader, run.dataset).val_dataloader()))
    inputs = (batch.explicit, batch.implicit, batch.request_time)
    with torch.inference_mode():
        trained = run.model.tower(*inputs)
    error = (artifact.embed(*inputs) - trained).abs().mean() / trained.std()
    assert 0 < error < 0.1


@pytest.mark.parametrize(("recent", "vectors"), [("position_weighted", 22), ("hstu", 21)])
def test_recent_events_travel_with_the_tower(
    run: LoadedRun, tmp_path: Path, recent: str, vectors: int
) -> None:
    """As trained within rounding, the same bits in another order, and published as they are."""
    other = untrained_run(tmp_path / "run", run.dataset, recent=recent)
    artifact = load_timeline_tower(export_run(other, ExportConfig(str(other.folder))))
    assert artifact.manifest.output["embedding"]["shape"] == ["B", vectors, 16]
    reader = RequestDataModule(other.config.loader, other.dataset).reader
    users = np.arange(USERS)
    nothing = np.zeros(USERS, np.int64)
    batch = reader.given(users, np.full(USERS, NOW), nothing, nothing[:0])
    inputs = (batch.explicit, batch.implicit, batch.request_time)
    with torch.inference_mode():
        trained = other.model.tower(*inputs)
    embedded = artifact.embed(*inputs)
    error = (embedded - trained).abs().mean(dim=(0, 2)) / trained.std()
    assert (error > 0).all()
    assert (error < 0.1).all()
    turned = reader.given(users[::-1].copy(), np.full(USERS, NOW), nothing, nothing[:0])
    again = artifact.embed(turned.explicit, turned.implicit, turned.request_time).flip(0)
    assert torch.equal(again[:, 20:], embedded[:, 20:])  # the encoder's own hang on the processor
    as_of = "2024-10-04T00:00:00"
    dataset = str(run.dataset.path)
    publish(PublishConfig(str(other.folder), dataset=dataset, as_of=as_of, batch_users=1))


def test_metrics_stand_beside_those_of_the_trained_tower(run: LoadedRun, folder: Path) -> None:
    metrics = load_timeline_tower(folder).manifest.metrics
    with_tables, without = metrics["export/val/ne/liked"], metrics["export/val/trained/ne/liked"]
    delta = metrics["export/val/ne_delta/liked"]["value"]
    assert delta == pytest.approx(with_tables["value"] / without["value"] - 1)
    assert with_tables["value"] != without["value"]
    assert "40 rows" in with_tables["protocol"]
    assert read_metrics_file(run.folder) == metrics
    # The reference: the trained metrics again, from the run's own predictions.
    batches = list(RequestDataModule(run.config.loader, run.dataset).val_dataloader())
    with torch.inference_mode():
        run.model.metrics.reset()
        for batch in batches:
            outputs = run.model(batch)
            run.model.metrics.update(run.model.predictions(outputs), batch.labels)
    expected = run.model.metrics.compute()["ne/liked"]
    assert without["value"] == pytest.approx(expected, abs=1e-6)


def test_float_tables_leave_only_the_four_bit_rows(run: LoadedRun, tmp_path: Path) -> None:
    config = ExportConfig(str(run.folder), str(tmp_path / "float"), table_bits=32, measure=False)
    artifact = load_timeline_tower(export_run(run, config))
    batch = next(iter(RequestDataModule(run.config.loader, run.dataset).val_dataloader()))
    inputs = (batch.explicit, batch.implicit, batch.request_time)
    with torch.inference_mode():
        trained = run.model.tower(*inputs)
    torch.testing.assert_close(artifact.embed(*inputs), trained, rtol=1e-4, atol=1e-5)
    read = dequantize_rows(quantize_rows(trained))
    step = (trained.amax(-1) - trained.amin(-1)) / 15
    assert ((read - trained).abs().amax(-1) <= step / 2 * 1.001 + 1e-6).all()
    assert artifact.manifest.sizes["tables_compression"] == 1.0


def test_windows_are_the_edges_of_age() -> None:
    assert age_edges(SLICES) == (3 * MILLISECONDS_PER_DAY, 7 * MILLISECONDS_PER_DAY)


def test_without_room_the_old_artifact_stays(run: LoadedRun, tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    config = ExportConfig(str(run.folder), str(out), measure=False)
    export_run(run, config)
    before = load_timeline_tower(out).manifest
    with room(50_000), pytest.raises(RecsysError, match="artifact could not be written"):
        export_run(run, replace(config, table_bits=8))
    assert load_timeline_tower(out).manifest == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("out", [".", "..", "within", "checkpoints"])
def test_a_run_is_not_replaced_by_its_artifact(run: LoadedRun, out: str) -> None:
    with pytest.raises(ConfigError):
        export_run(run, ExportConfig(str(run.folder), str(run.folder / out), measure=False))
    assert (run.folder / "config.yaml").exists()


def test_a_run_without_timelines_has_nothing_to_export(run: LoadedRun, tmp_path: Path) -> None:
    baseline = untrained_run(tmp_path / "baseline", run.dataset, EncoderConfig("none"))
    with pytest.raises(ArtifactError, match="without timelines"):
        export_run(baseline, ExportConfig())


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "artifact"))


def test_a_changed_byte_is_refused(copy: Path) -> None:
    tower = copy / "user_tower.pt"
    content = bytearray(tower.read_bytes())
    content[len(content) // 2] ^= 1
    tower.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"user_tower.pt is not the file that was exported"):
        load_timeline_tower(copy)


def test_a_truncated_missing_or_foreign_file_is_refused(copy: Path) -> None:
    (copy / "note.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"note.txt, which the manifest does not name"):
        load_timeline_tower(copy)
    (copy / "note.txt").unlink()
    with (copy / "encoder.pt2").open("ab") as file:
        file.truncate(10)
    with pytest.raises(ArtifactError, match=r"encoder.pt2 has 10 bytes, the manifest says"):
        load_timeline_tower(copy)
    (copy / "encoder.pt2").unlink()
    with pytest.raises(ArtifactError, match=r"encoder.pt2 is missing"):
        load_timeline_tower(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format_version": 99}, "has format version 99, this release reads version 2"),
        ({"format_version": 2, "model": "dv365"}, "is damaged \\(fields: age_edges"),
        ({"format_version": 2, "model": "nxtpost"}, "of the system nxtpost, expected one of dv365"),
    ],
)
def test_another_manifest_is_refused(copy: Path, content: dict[str, Any], message: str) -> None:
    write_json(copy / "manifest.json", ARTIFACT_KIND, content)
    with pytest.raises(ArtifactError, match=message):
        load_timeline_tower(copy)


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is no artifact \(no manifest.json in it"):
        load_timeline_tower(tmp_path)
    with pytest.raises(ArtifactError, match=r"is no artifact \(the folder does not exist"):
        load_timeline_tower(tmp_path / "nothere")


def test_a_failed_export_leaves_the_former_artifact(
    run: LoadedRun, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_timeline_tower(folder).identity

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(torch.jit, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export_run(run, ExportConfig(run_dir=str(run.folder)))
    assert load_timeline_tower(folder).identity == before
