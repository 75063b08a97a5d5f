"""A ranker that is given other versions of the user embeddings than it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.cli.main import invoke
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.data.stores.dataset import PreparedDataset
from recsys.embeddings.rows import quantize_rows
from recsys.embeddings.stores import open_store
from recsys.systems.choice import compose_run
from recsys.systems.runs import train
from tests.evaluation.baselines.planted import AUTHORS, HOUR, START, impressions, own_log
from tests.systems.ranker.test_system import settings

VECTORS, WIDTH = 2, 16


def publish(
    folder: Path, dataset: PreparedDataset, values: np.ndarray, as_of: int = START + HOUR
) -> str:
    with open_store(str(folder)) as store:
        store.begin(as_of, {})
        rows = quantize_rows(torch.from_numpy(values.astype(np.float32))).numpy()
        store.put_many(dataset.vocabulary("user").table["raw"].to_list(), rows)
        store.commit()
    return str(folder)


def turned(values: np.ndarray, seed: int) -> np.ndarray:
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)))[0]
    turned_values: np.ndarray = values @ turn
    return turned_values


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], PreparedDataset]:
    """A ranker that reads whose items users like from version v, and stores of three versions."""
    folder = tmp_path_factory.mktemp("skew")
    shown = impressions(0)
    draw = np.random.default_rng(1)
    favourite = shown["author_id"].to_numpy() % (AUTHORS // 2) == shown["user_id"].to_numpy() % 6
    likes = draw.random(len(shown)) < np.where(favourite, 0.7, 0.05)
    own_log(likes, shown).write_parquet(folder / "log.parquet")
    plain = settings(folder / "log.parquet", folder / "run")
    dataset, _ = open_or_prepare(compose_run(plain).data)
    ids = np.array(dataset.vocabulary("user").table["raw"].to_list()).astype(np.int64)
    values = 0.1 * draw.normal(size=(len(ids), VECTORS, WIDTH))
    values[np.arange(len(ids)), :, ids % 6] += 3
    stores = [
        publish(folder / f"v{number}", dataset, turned(values, number)) for number in range(3)
    ]
    adoption = (
        "model.net.adoption.kind=unprojected",
        f"loader.user_embeddings.stores=[{stores[0]}]",
    )
    train(compose_run([*plain, *adoption, "trainer.max_steps=60"]))
    return folder / "run", stores, dataset


def test_a_turned_version_costs_and_the_orthogonal_map_mends_it(
    trained: tuple[Path, list[str], PreparedDataset], capsys: pytest.CaptureFixture[str]
) -> None:
    run, stores, dataset = trained
    words = [f"run_dir={run}", f"stores=[{','.join(stores)}]", "bootstrap.resamples=50"]
    assert invoke(["embeddings", "skew", *words, "rank=16", "--json"]) == 0
    printed = capsys.readouterr().out
    assert "mean of 3 versions" in printed and "no embedding" in printed
    found = json.loads(printed.splitlines()[-1])
    assert found["rows"] == dataset.requests("choose").num_rows
    assert found["fitted_users"] == [dataset.manifest.vocabulary_sizes["user"] - 1] * 2
    given = {(one["version"], one["share"], one["repair"]): one for one in found["given"]}
    assert len(given) == len(found["given"]) == 1 + 2 * 7 + 1
    assert given["v", 1.0, "as it is"]["change"] is None

    def change(version: str, share: float, repair: str) -> float:
        one = given[version, share, repair]
        assert one["change"]["low"] <= one["change"]["value"] <= one["change"]["high"]
        value: float = one["change"]["value"]
        return value

    for version in ("v + 1", "v + 2"):
        lost = change(version, 1.0, "as it is")
        assert lost > 0
        assert abs(change(version, 1.0, "orthogonal map")) < lost / 4
        assert abs(change(version, 1.0, "low-rank map")) < lost / 2
        assert 0 < change(version, 0.5, "as it is") < lost
        assert abs(change(version, 0.5, "orthogonal map")) < lost / 4
    assert not (run / "predictions").exists()  # nothing is written


def test_what_cannot_be_measured_is_a_sentence(
    trained: tuple[Path, list[str], PreparedDataset],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, stores, dataset = trained
    users = dataset.manifest.vocabulary_sizes["user"] - 1
    values = np.random.default_rng(0).normal(size=(users, VECTORS, WIDTH))
    late = publish(tmp_path / "late", dataset, values, START + 10_000 * HOUR)
    wide = publish(tmp_path / "wide", dataset, np.tile(values, 2))
    for given, sentence in (
        (f"[{stores[0]}]", "at least one later one"),
        (f"[{stores[0]},{late}]", "what was not servable then says of events after the rows"),
        (f"[{stores[0]},{wide}]", "reads 2 x 16: it is of another model"),
        (f"[{stores[0]},{tmp_path / 'nowhere'}]", "is no embedding store"),
    ):
        assert invoke(["embeddings", "skew", f"run_dir={run}", f"stores={given}"]) == 2
        assert sentence in capsys.readouterr().err
    assert invoke(["embeddings", "skew", "run_dir=nowhere", "stores=[a,b]"]) == 2
    assert "is not a run folder" in capsys.readouterr().err
