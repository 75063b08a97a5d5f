"""An index of a tree by itself: what comes in, goes out and comes back, and what has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ArtifactError, ConfigError, DataError
from recsys.index.folder import load_index, save_index
from recsys.index.hierarchy.item_index import HierarchyIndex, PlacedItems
from recsys.index.hierarchy.report import changes_between
from recsys.index.hierarchy.tree import Tree
from recsys.index.usable_items import OPTIONAL_COLUMNS
from tests.rewritten import INDEX_KIND, rewrite


def placed(ids: list, codes: list, seed: int = 0, **columns: list) -> PlacedItems:
    known = {name: columns.get(name, [None] * len(ids)) for name in OPTIONAL_COLUMNS}
    of_ids = pl.Series(ids) if ids else pl.Series(ids, dtype=pl.Int64)
    table = pl.DataFrame({"post_id": of_ids, **known}).cast(dict(OPTIONAL_COLUMNS.items()))
    rows = np.random.default_rng(seed).standard_normal((len(ids), 3)).astype(np.float32)
    width = len(codes[0]) if codes else 2
    ids_of = np.arange(2 * len(ids), dtype=np.int32).reshape(-1, 2)
    return PlacedItems(table, rows, np.array(codes, np.int64).reshape(len(ids), width), ids_of)


def built(items: PlacedItems, model: str = "a" * 64) -> HierarchyIndex:
    return HierarchyIndex.build(items, model, [4] * items.codes.shape[1], "prepared", 7)


FOUR = placed(["a", "b", "c", "d"], [[0, 1], [0, 1], [2, 3], [1, 0]], title=["A", None, "C", None])


def test_items_come_and_go_and_nothing_else_changes() -> None:
    index = built(FOUR)
    assert index.remove(pl.Series(["b", "nobody"])).removed == 1
    new = placed(["e", "c"], [[3, 3], [2, 0]], seed=1, last_seen=[5, 6])
    added = index.add(new, 9)
    assert (added.added, added.replaced) == (1, 1)
    assert index.items["post_id"].to_list() == ["a", "d", "e", "c"]
    assert index.items["slot"].to_list() == [0, 1, 2, 3] == list(range(index.slots_given))
    assert index.items["title"].to_list() == ["A", None, None, "C"]  # what is not said again stays
    assert index.items["last_seen"].to_list() == [None, None, 5, 6]
    assert index.codes.tolist() == [[0, 1], [1, 0], [3, 3], [2, 0]]
    assert np.array_equal(index.embedding, np.concatenate([FOUR.embedding[[0, 3]], new.embedding]))
    assert index.ids.tolist() == [[0, 1], [6, 7], [0, 1], [2, 3]]
    assert index.manifest.seen_until == 9 and index.manifest.posts == 4
    assert index.last_seen_before(6).to_list() == ["e"]
    with pytest.raises(DataError, match="whole numbers"):
        built(placed([1, 2], [[0], [1]])).add(placed(["x"], [[0]]), 1)


@settings(max_examples=25, deadline=None)
@given(
    codes=st.integers(0, 3).flatmap(
        lambda levels: st.lists(
            st.lists(st.integers(0, 3), min_size=levels, max_size=levels), max_size=12
        )
    ),
    removed=st.sets(st.integers(0, 15)),
)
def test_what_is_opened_is_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory, codes: list, removed: set
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    index = built(placed(list(range(len(codes))), codes))
    save_index(index, folder)
    index.remove(pl.Series(list(removed), dtype=pl.Int64))
    save_index(index, folder)
    opened = load_index(folder)
    assert isinstance(opened, HierarchyIndex)
    assert opened.manifest == index.manifest and opened.items.equals(index.items)
    assert np.array_equal(opened.codes, index.codes)
    assert np.array_equal(opened.embedding, index.embedding)
    assert np.array_equal(opened.ids, index.ids)
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "items.2.parquet"}
    whole = Tree.of(opened.codes)
    assert sorted(opened.tree.items.tolist()) == sorted(whole.items.tolist())
    assert opened.tree.items.tolist() == whole.items.tolist()


def test_what_changed_by_hand() -> None:
    before = built(FOUR)
    later = built(placed(["a", "b", "c", "x"], [[0, 1], [0, 2], [1, 3], [0, 0]]))
    changes = changes_between(before, later)
    assert (changes.common, changes.came, changes.went) == (3, 1, 1)
    assert changes.same_networks and changes.moved == [1, 2]  # c; b and c
    # other networks call the same nodes otherwise: a and b stay together, c is alone as before
    renamed = built(placed(["a", "b", "c", "x"], [[3, 0], [3, 0], [0, 0], [0, 0]]), "b" * 64)
    assert changes_between(before, renamed).moved == [0, 0]
    assert not changes_between(before, renamed).same_networks
    joined = built(placed(["a", "b", "c"], [[3, 0], [3, 1], [3, 0]]), "b" * 64)
    assert changes_between(before, joined).moved == [1, 2]  # c came to a and b; b left a


def test_a_damaged_or_foreign_folder_is_a_sentence(tmp_path: Path) -> None:
    save_index(built(FOUR), tmp_path)
    table = tmp_path / "items.1.parquet"
    content = table.read_bytes()
    table.write_bytes(content[:-1] + b"x")
    with pytest.raises(ArtifactError, match="another SHA-256"):
        load_index(tmp_path)
    table.unlink()
    with pytest.raises(ArtifactError, match=r"items\.1\.parquet is missing"):
        load_index(tmp_path)
    table.write_bytes(content)
    rewrite(tmp_path / "manifest.json", INDEX_KIND, {"levels": [4, 3]})  # and there is a code 3
    with pytest.raises(ArtifactError, match=r"holds no items in nodes of \[4, 3\] codes"):
        load_index(tmp_path)
    rewrite(tmp_path / "manifest.json", INDEX_KIND, {"levels": [4, 4], "width": 2})
    with pytest.raises(ArtifactError, match="holds no items in nodes"):
        load_index(tmp_path)
    rewrite(tmp_path / "manifest.json", INDEX_KIND, {"files": {"../items.1.parquet": {}}})
    with pytest.raises(ArtifactError, match="names other files than those of an index"):
        load_index(tmp_path)
    rewrite(tmp_path / "manifest.json", INDEX_KIND, {"metric": "cosine"})
    with pytest.raises(ArtifactError, match="no manifest of an index"):
        load_index(tmp_path)
    other = built(FOUR)
    other.manifest = replace(other.manifest, metric="hierarchy")
    with pytest.raises(ConfigError, match="index of another kind"):
        save_index(other, tmp_path)
