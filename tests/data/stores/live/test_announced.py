"""Items that are announced to a folder of events: for all that have it open, and for good."""

from __future__ import annotations

import pickle
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import ACTION_TYPES, TimelineKind
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.live import LiveDataset
from recsys.data.stores.live.announced import KNOWN, NO_ID
from recsys.data.stores.live.rows import LATER
from tests.data.prepare.table_logs import HOUR, START, log_frame, prepared

ITEMS = pl.DataFrame({"sku": [0, 1], "brand": ["A", "B"], "price": [10.0, 30.0]})
NOW = 9_000_000_000_000


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    log_frame().write_parquet(tmp_path / "log.parquet")
    ITEMS.write_parquet(tmp_path / "items.parquet")
    features = {"categorical": ["brand"], "dense": ["price"]}
    columns = {"id": "sku", "author": "brand"}
    return prepared(tmp_path, items={"path": "items.parquet", **columns, **features})


def item(number: int | str, **stated: object) -> dict[str, object]:
    return {"item_id": number, "first_seen": NOW, **stated}


def shown(item: int, moment: int) -> dict[str, list[int]]:
    kind = ACTION_TYPES.index("impression")
    return {"user": [1], "item": [item], "timestamp": [moment], "action_type": [kind]}


def test_they_are_there_for_all_that_open_the_folder(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    first = LiveDataset.open(dataset.path, tmp_path / "live")
    size = dataset.manifest.vocabulary_sizes["item"]
    given = [item(502, brand="B", author_id="B", price=30), item(501), item(502), item(0)]
    taken, aside = first.live.announced.announce(first, [*given, item("x")])
    assert (taken, dict(aside)) == (2, {KNOWN: 2, NO_ID: 1})
    assert first.live.is_behind and first.manifest.vocabulary_sizes["item"] == size
    # an event of an item that this process does not offer yet, by the name that stays
    name = int(first.live.announced.names([502])[0])
    assert name == LATER and first.live.announced.names(["none"]).tolist() == [0]
    first.live.append(shown(name, NOW))
    second = first.grown()
    assert not second.live.is_behind and second.manifest.vocabulary_sizes["item"] == size + 2
    assert second.vocabulary("item").indices_of([502, 501]).tolist() == [size, size + 1]
    assert second.item_table(["price", "author_id"]).rows()[-2:] == [
        (size, 30.0, "B"),
        (size + 1, None, None),
    ]
    history = second.timelines.history(1, NOW + 1, TimelineKind.IMPLICIT, 1)
    assert history["item"].tolist() == [size] and history["author"].tolist() == [2]
    assert first.timelines.history(1, NOW + 1, TimelineKind.IMPLICIT, 1)["item"].tolist() == [0]
    # the same event, by the index of now, is known already
    assert second.live.append(shown(size, NOW)).taken == 0
    first.live.close()
    again = pickle.loads(pickle.dumps(second))
    assert again.vocabulary("item").indices_of([501]).tolist() == [size + 1]
    again.live.close()


def test_they_stay_who_they_are_when_days_are_appended(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    view = LiveDataset.open(dataset.path, tmp_path / "live")
    view.live.announced.announce(view, [item(900, price=5), item(901)])
    names = view.live.announced.names([900, 901]).tolist()
    for place, name in enumerate(names):
        view.live.append(shown(name, START + (300 + place) * HOUR))
    view.live.close()
    size = dataset.manifest.vocabulary_sizes["item"]
    late = log_frame(2, first_hour=200).with_columns(item_id=pl.Series([555, 901]))
    late.write_parquet(tmp_path / "late.parquet")
    items = {"path": "items.parquet", "id": "sku", "author": "brand"}
    features = {"categorical": ["brand"], "dense": ["price"]}
    newer = prepared(tmp_path, "late.parquet", items={**items, **features}, is_later=True)
    assert newer.vocabulary("item").indices_of([555, 901]).tolist() == [size, size + 1]
    view = LiveDataset.open(newer.path, tmp_path / "live")
    assert view.vocabulary("item").indices_of([900]).tolist() == [size + 2]
    history = view.timelines.history(1, START + 400 * HOUR, TimelineKind.IMPLICIT, 2)
    assert history["item"].tolist() == [size + 2, size + 1]
    noted = view.live.later.noted(history["item"].astype(int)).tolist()
    assert noted == [LATER, size + 1]  # an item that the data set has is called as there
    assert view.live.later.found(pl.Series([*names, 3]).to_numpy()).tolist() == [
        size + 2,
        size + 1,
        3,
    ]
    assert view.item_table(["price"]).rows()[-1] == (size + 2, 5.0)
    view.live.close()


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        ({"colour": "red"}, "item 7: colour is nothing that the data set states of items; it has"),
        ({"price": "dear"}, "item 7: price is 'dear'; expected a number"),
        ({"price": float("nan")}, "item 7: price is nan; expected a number"),
        ({"brand": ["A"]}, r"item 7: brand is \['A'\]; expected text"),
    ],
)
def test_what_cannot_be_is_refused_whole(
    dataset: PreparedDataset, tmp_path: Path, stated: dict[str, object], problem: str
) -> None:
    view = LiveDataset.open(dataset.path, tmp_path / "live")
    with pytest.raises(ConfigError, match=problem):
        view.live.announced.announce(view, [item(6), item(7, **stated)])
    assert not view.live.is_behind
    view.live.close()
