"""Tables of items and users reach the models that read them; recommendations have titles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.cli.main import invoke
from recsys.data.contract.schema import FeatureKind, FeatureSide
from recsys.data.loaders.requests import RequestDataModule
from recsys.systems.choice import compose_run
from recsys.systems.runs import load_run, train

START, HOUR = 1_700_000_000_000, 3_600_000
ITEMS, USERS = 30, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 900 events, a table of its items, and one of its users."""
    folder = tmp_path_factory.mktemp("shop")
    generator = np.random.default_rng(0)
    rows = 900
    pl.DataFrame(
        {
            "user_id": generator.integers(0, USERS, rows),
            "item_id": [f"P{item}" for item in generator.integers(0, ITEMS, rows)],
            "timestamp": START + np.arange(rows) * HOUR,
            "action_type": generator.choice(["impression", "click"], rows),
        }
    ).write_csv(folder / "log.csv")
    pl.DataFrame(
        {
            "item_id": [f"P{item}" for item in range(ITEMS)],
            "title": [f"Thing {item}" for item in range(ITEMS)],
            "brand": [f"brand {item % 4}" for item in range(ITEMS)],
            "price": [float(item) for item in range(ITEMS)],
            "vector": generator.normal(size=(ITEMS, 6)).tolist(),
        }
    ).write_parquet(folder / "items.parquet")
    pl.DataFrame(
        {"user_id": range(USERS), "land": ["a", "b"] * (USERS // 2), "age": range(USERS)}
    ).write_csv(folder / "users.csv")
    return folder


def settings(folder: Path, run: str, *given: str) -> list[str]:
    items = f"{{path: {folder / 'items.parquet'}, title: title, categorical: [brand], "
    items += "dense: [price], embedding: vector}"
    users = f"{{path: {folder / 'users.csv'}, categorical: [land], dense: [age]}}"
    return [
        "data=log",
        f"data.path={folder / 'log.csv'}",
        f"data.out={folder / 'prepared'}",
        f"data.options.items={items}",
        f"data.options.users={users}",
        f"run_dir={folder / run}",
        "trainer.max_steps=2",
        "trainer.progress_bar=false",
        *given,
    ]


def test_the_backbone_reads_them(folder: Path) -> None:
    given = settings(
        folder, "dv365", "model.dimension=8", "loader.batch_requests=16", "encoder.heads=1"
    )
    run = load_run(train(compose_run(["system=dv365", *given])))
    sides = run.manifest.select
    assert [f.name for f in sides(FeatureSide.USER, FeatureKind.CATEGORICAL)][1:] == ["land"]
    assert [f.name for f in sides(FeatureSide.ITEM, FeatureKind.CATEGORICAL)][3:] == ["brand"]
    data = RequestDataModule(run.config.loader, run.dataset)
    batch = next(iter(data.loader("fit", shuffle=False)))
    store = run.dataset.requests("fit")
    raw = run.dataset.vocabulary("item").table["raw"]
    rows = batch.row_id.numpy()  # a request has one row
    price = np.array([float(raw[int(item) - 1][1:]) for item in store.item[rows]])
    mean, std = run.manifest.preparation["standardisation"]["price"]
    np.testing.assert_allclose(batch.item_dense[:, 0], (price - mean) / std, rtol=1e-5)
    assert batch.item_categorical[:, 3].tolist() == [int(p) % 4 + 1 for p in price]
    age = run.dataset.vocabulary("user").table["raw"].to_numpy()[store.user[rows] - 1]
    mean, std = run.manifest.preparation["standardisation"]["age"]
    np.testing.assert_allclose(batch.user_dense[:, 0], (age - mean) / std, rtol=1e-5)
    assert batch.user_categorical[:, 1].tolist() == [one % 2 + 1 for one in age]


def test_given_embeddings_are_what_nxtpost_ranks_and_titles_come_along(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = folder / "nxtpost"
    given = settings(folder, "nxtpost", "loader.batch_size=8")
    assert invoke(["train", "system=nxtpost", *given]) == 0
    run = load_run(run_dir)
    vectors = pl.read_parquet(folder / "items.parquet")["vector"].to_list()
    raws = run.dataset.vocabulary("item").table["raw"].to_list()
    expected = np.array([vectors[int(raw[1:])] for raw in raws])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(run.model.items[1:].numpy(), expected, rtol=1e-5)
    assert invoke(["export", f"run_dir={run_dir}", "measure=false"]) == 0
    dataset = folder / "prepared"
    built = ["index", "build", f"embeddings={dataset}", f"dataset={dataset}"]
    assert invoke([*built, f"out={folder / 'index'}"]) == 0
    capsys.readouterr()
    found = ["recommend", f"artifact={run_dir / 'artifact'}", f"index={folder / 'index'}", "user=3"]
    assert invoke(found) == 0
    assert "Thing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("{}", "nothing a post tower could encode"),
        ("{dense: [same]}", "cannot be told apart"),
    ],
)
def test_a_post_tower_without_anything_to_learn_from_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], items: str, message: str
) -> None:
    pl.read_csv(folder / "log.csv").with_columns(same=pl.lit(3)).write_csv(folder / "same.csv")
    given = ["data=log", f"data.path={folder / 'same.csv'}", f"data.options.items={items}"]
    given += [f"data.out={folder / 'bare'}", "data.overwrite=true", f"run_dir={folder / 'refused'}"]
    assert invoke(["train", "system=post_tower", *given]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (folder / "refused" / "checkpoints").exists()
    assert invoke(["train", "system=nxtpost", *given]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "has no embeddings of its items" in said and "recsys train system=post_tower" in said
