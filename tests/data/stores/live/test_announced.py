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
    return items_dataset(tmp_path)


def items_dataset(tmp_path: Path) -> PreparedDataset:
    """Of a log whose items have a brand and a price."""
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
    known = item(502, brand="B", author_id="B", price=30)
    given = [known, item(501), known, item(0), item("x")]
    taken, aside = first.live.announced.announce(first, given, NOW)
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
    view.live.announced.announce(view, [item(900, price=5), item(901)], NOW)
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
        view.live.announced.announce(view, [item(6), item(7, **stated)], NOW)
    assert not view.live.is_behind
    view.live.close()


def test_an_item_is_what_was_stated_of_it_last(dataset: PreparedDataset, tmp_path: Path) -> None:
    first = LiveDataset.open(dataset.path, tmp_path / "live")
    announced, size = first.live.announced, dataset.manifest.vocabulary_sizes["item"]
    announced.announce(first, [{"item_id": 900, "price": 5}, item(901, price=7)], NOW)
    second = first.grown()
    again = [{"item_id": 900, "brand": "B"}, item(901, price=7), item(0, price=1)]
    taken, aside = announced.announce(second, again, NOW + 1)
    assert (taken, dict(aside)) == (1, {KNOWN: 2}) and second.live.is_behind
    third = second.grown()
    assert not third.live.is_behind and third.manifest.vocabulary_sizes["item"] == size + 2
    assert third.item_table(["brand", "price"]).rows()[-2:] == [
        (size, "B", None),
        (size + 1, None, 7.0),
    ]
    assert second.item_table(["price"]).rows()[-2] == (size, 5.0)  # goes on as it is
    assert third.vocabulary("item").first_seen(size + 2)[-2:].tolist() == [NOW, NOW]
    assert announced.names([900]).tolist() == [LATER]
    assert third.restated(second).tolist() == [size] and not len(second.restated(second))
    announced.announce(third, [{"item_id": 900, "brand": "B", "first_seen": NOW - 5}], NOW)
    assert third.grown().vocabulary("item").first_seen(size + 2)[size] == NOW - 5
    first.live.close()


def test_who_is_withdrawn_is_out_until_announced_again(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    first = LiveDataset.open(dataset.path, tmp_path / "live")
    announced = first.live.announced
    announced.announce(first, [item(900, price=5)], NOW)
    second, size = first.grown(), dataset.manifest.vocabulary_sizes["item"]
    own = int(dataset.vocabulary("item").indices_of([1])[0])
    assert not len(second.live.withdrawn())
    assert [announced.withdraw(second, one) for one in (900, "1", 77, "x")] == [
        *(True, True),
        *(False, False),
    ]
    assert announced.withdraw(second, 900)  # again, which changes nothing
    assert sorted(second.live.withdrawn().tolist()) == [own, size]
    assert second.live.withdrawn() is second.live.withdrawn()
    assert not second.live.is_behind  # nothing is to be encoded anew
    first.live.close()
    opened = LiveDataset.open(dataset.path, tmp_path / "live")
    assert sorted(opened.live.withdrawn().tolist()) == [own, size]
    taken, _ = opened.live.announced.announce(opened, [item(900, price=5), item(1)], NOW)
    assert taken == 2 and not len(opened.live.withdrawn())
    assert opened.grown().manifest.vocabulary_sizes["item"] == size + 1
    opened.live.close()
