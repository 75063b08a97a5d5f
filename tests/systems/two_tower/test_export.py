"""The exported two-tower model against the run it is of, and what serves it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import recsys
from recsys.artifacts.sequence_tower import SequenceTowerArtifact
from recsys.cli.main import invoke
from recsys.embeddings.rows import quantize_rows
from recsys.embeddings.stores import open_store
from recsys.systems.choice import compose_run
from recsys.systems.runs import train
from tests.systems.two_tower.test_system import DAYS, HOUR, START, log, settings  # noqa: F401

AS_OF = START + (DAYS - 1) * 24 * HOUR
ASKED = ["u1", "u2", "nobody", "u59"]
SHORT = ("trainer.max_steps=30", "model.mixture.width=8")


def publish(folder: Path, moment: int, shape: tuple[int, int] = (3, 16)) -> Path:
    """Embeddings of all users but some, which differ from publication to publication."""
    generator = torch.Generator().manual_seed(moment // HOUR)
    users = [f"u{user}" for user in range(55)]
    with open_store(str(folder)) as store:
        store.begin(moment, {})
        rows = torch.randn(len(users), *shape, generator=generator)
        store.put_many(users, quantize_rows(rows).numpy())
        store.commit()
    return folder


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def exported(run_dir: Path, folder: Path) -> list[str]:
    """Export a run, build the index of its items, and what names both."""
    assert invoke(["export", f"run_dir={run_dir}"]) == 0
    artifact, index = run_dir / "artifact", folder / "index"
    prepared = recsys.open_run(run_dir).config.data.out_folder
    build = [f"embeddings={artifact}", f"dataset={prepared}", f"out={index}"]
    assert invoke(["index", "build", *build]) == 0
    return [f"artifact={artifact}", f"index={index}", f"as_of={AS_OF}", "k=5"]


@pytest.mark.parametrize(
    ("similarity", "encoder", "gap"), [("dot", "hstu", 48), ("mixture", "transformer", 0)]
)
def test_a_model_that_reads_published_embeddings_is_served_with_a_store(
    log: Path,  # noqa: F811
    tmp_path: Path,
    similarity: str,
    encoder: str,
    gap: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stores = [publish(tmp_path / str(day), START + day * 24 * HOUR) for day in (3, 6)]
    named = ",".join(map(str, stores))
    run_dir = tmp_path / "run"
    more = (
        f"loader.user_embeddings.stores=[{named}]",
        f"model.similarity={similarity}",
        f"model.users.encoder={encoder}",
        f"loader.gap_hours={gap}",
    )
    train(compose_run(settings(log, run_dir, *SHORT, *more)))
    given = exported(run_dir, tmp_path)
    run = recsys.open_run(run_dir)
    assert {"export/val/float/hits@10/all", "export/val/int8/hits@10/all"} <= run.metrics.keys()
    manifest = json.loads((run_dir / "artifact" / "manifest.json").read_text())
    assert list(manifest["inputs"])[-2:] == ["published", "has_published"]
    assert manifest["published"]["shape"] == [3, 16] and str(tmp_path / "3") not in str(manifest)

    out = tmp_path / "items.parquet"
    users = f"user=[{','.join(ASKED)}]"
    assert invoke(["recommend", *given, f"stores=[{named}]", users, f"out={out}"]) == 0
    found, expected = pl.read_parquet(out), run.recommend(ASKED, k=5, as_of=AS_OF)
    assert found.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-4, atol=1e-4)
    # what is served is looked at: with another publication other items are the best
    later = publish(tmp_path / "later", AS_OF - HOUR)
    assert invoke(["recommend", *given, f"stores=[{later}]", users, f"out={out}"]) == 0
    assert not pl.read_parquet(out)["score"].equals(found["score"])

    capsys.readouterr()
    assert invoke(["recommend", *given, users]) == 2
    assert "reads published user embeddings; name where they are served: stores=[" in said(capsys)
    other = publish(tmp_path / "other", START, shape=(2, 32))
    assert invoke(["recommend", *given, f"stores=[{other}]", users]) == 2
    assert "hold 2 vectors of width 32 for a user" in said(capsys)
    assert invoke(["recommend", f"run_dir={run_dir}", f"stores=[{named}]", users]) == 2
    assert "stores= goes with artifact=" in said(capsys)


def test_an_exported_mixture_scores_as_the_run_does_and_an_item_as_it_does_alone(
    log: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / "run"
    train(compose_run(settings(log, run_dir, *SHORT, "model.similarity=mixture")))
    given = exported(run_dir, tmp_path)
    run = recsys.open_run(run_dir)
    artifact = recsys.open_artifact(run_dir / "artifact")
    assert isinstance(artifact, SequenceTowerArtifact)
    rows = pl.read_parquet(run_dir / "artifact" / "post_embeddings.parquet")
    items = torch.from_numpy(np.stack(rows["embedding"].to_numpy()).astype(np.float32))
    user = torch.from_numpy(run.user_embeddings(["u1"], as_of=AS_OF)[0])
    scores = artifact.score(user.float(), items)
    expected = run.score("u1", rows["item_id"].to_list(), at=AS_OF)["score"].to_numpy()
    np.testing.assert_array_equal(scores.numpy(), expected.astype(np.float32))
    alone = torch.cat([artifact.score(user.float(), one.unsqueeze(0)) for one in items[:20]])
    assert torch.equal(alone, scores[:20])
    assert not len(artifact.score(user.float(), items[:0]))

    out = tmp_path / "items.parquet"
    assert invoke(["recommend", *given, "user=[u1,nobody]", f"out={out}"]) == 0
    found, best = pl.read_parquet(out), run.recommend(["u1", "nobody"], k=5, as_of=AS_OF)
    assert found.drop("score").equals(best.drop("score"))
    capsys.readouterr()
    assert invoke(["recommend", *given, "user=u1", f"stores=[{tmp_path}/none]"]) == 2
    assert "reads no published user embeddings; leave stores= out" in said(capsys)
