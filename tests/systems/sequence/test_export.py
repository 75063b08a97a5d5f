"""The exported tower of SASRec and HSTU against the model and the run it is of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import recsys
from recsys.artifacts.torchscript import script_tower
from recsys.cli.main import invoke
from recsys.systems.sequence.tower import SequenceUserTower, exported_items
from tests.systems.own_log import DAY, LATE, START, RunOf
from tests.systems.sequence.test_module import NUM_ITEMS, _batch, _model

AS_OF = START + 25 * DAY


@pytest.mark.parametrize(("encoder", "scale"), [("sasrec", None), ("hstu", 20.0), ("hstu", None)])
def test_products_with_the_exported_items_are_those_of_the_model(
    encoder: str, scale: float | None
) -> None:
    torch.manual_seed(0)
    model = _model(encoder, scale).eval()
    histories = [[1, 2, 3], [], [NUM_ITEMS + 4, 2], [5]]  # one item came after the fit period
    batch = _batch(histories, [[1]] * 4)
    items = exported_items(model)
    rows = torch.cat([items, torch.zeros(9, items.shape[1])])
    rows[0] = 0
    tower = script_tower(SequenceUserTower(model, 5))
    with torch.inference_mode():
        users = tower(
            rows[batch.item],
            batch.action_type,
            batch.surface,
            batch.timestamp,
            batch.lengths,
            batch.request_time,
            batch.user_categorical,
            batch.user_dense,
        )
        expected = model(batch) @ model.item_embeddings(NUM_ITEMS).T
        lengths = items[1:].norm(dim=1)
    if scale is None:
        torch.testing.assert_close(lengths, lengths.max().expand(len(lengths)))
        found = users @ items.T
    else:
        found = users @ torch.nn.functional.normalize(items, dim=1).T
    torch.testing.assert_close(found[:, 1:], expected[:, 1:], atol=1e-5, rtol=1e-5)


def test_from_a_run_by_its_export_and_an_index_to_the_runs_recommendations(
    run_of: RunOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recsys.open_run(run_of("sequence"))
    assert invoke(["export", f"run_dir={run.folder}"]) == 0
    artifact, index = run.folder / "artifact", tmp_path / "index"
    manifest = recsys.open_artifact(artifact).manifest
    assert manifest.model == "sequence" and manifest.output["normalised"] is False
    measured = run.metrics
    exported = measured["export/val/float/hits@10/all"]["value"]
    assert json.loads(json.dumps(exported)) == pytest.approx(exported)
    prepared = run.config.data.out_folder
    for embeddings in (artifact, run.folder):
        build = [f"embeddings={embeddings}", f"dataset={prepared}", f"out={index}"]
        assert invoke(["index", "build", *build]) == 0
    given = [f"artifact={artifact}", f"index={index}", f"as_of={AS_OF}", "k=5", "reasons=true"]
    out = tmp_path / "items.parquet"
    assert invoke(["recommend", *given, "user=[u1,u2,nobody]", f"out={out}"]) == 0
    found = pl.read_parquet(out)
    expected = run.recommend(["u1", "u2", "nobody"], k=5, as_of=AS_OF, reasons=True)
    assert found.drop("score", "reasons").equals(expected.drop("score", "reasons"))
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-4, atol=1e-5)
    assert LATE not in found["item_id"]
    assert invoke(["recommend", *given, "user=u1", "precision=int8"]) == 0
    capsys.readouterr()
