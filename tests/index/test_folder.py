"""Saving and opening an index: what comes back, crashes in between, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import polars as pl
import pytest

from recsys.artifacts.manifest import sha256
from recsys.core import durable
from recsys.core.errors import ArtifactError, ConfigError, RecsysError
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.kinds import IndexConfig, IndexKind
from recsys.index.folder import load_index, save_index
from recsys.index.manifest import read_index_manifest
from tests.rewritten import INDEX_KIND, rewrite
from tests.room import room

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.standard_normal((300, 8)).astype(np.float32)


def built(kind: str = "flat") -> ItemIndex:
    items = pl.DataFrame({"post_id": range(300), "title": [f"item {n}" for n in range(300)]})
    return ItemIndex.build(items, ROWS, "a" * 64, IndexConfig(kind=kind))[0]


@pytest.mark.parametrize("kind", list(IndexKind))
def test_an_opened_index_finds_what_the_saved_one_did_and_goes_on(
    kind: str, tmp_path: Path
) -> None:
    index = built(kind)
    index.remove(pl.Series([3, 4]))
    save_index(index, tmp_path)
    opened = load_index(tmp_path)
    assert opened.manifest == index.manifest and opened.items.equals(index.items)
    before, after = index.search(ROWS[:9], k=5), opened.search(ROWS[:9], k=5)
    assert np.array_equal(before.slot, after.slot) and np.array_equal(before.score, after.score)
    opened.add(pl.DataFrame({"post_id": [3]}), ROWS[3:4])
    found = opened.search(ROWS[3:4], k=1)
    assert opened.at(found.slot[0])["post_id"].to_list() == [3]


def test_a_folder_named_like_a_pattern_holds_its_own_index(tmp_path: Path) -> None:
    other = built()
    other.remove(pl.Series(range(200)))
    for name in ("i1", "a-b"):
        save_index(other, tmp_path / name)
    for name in ("i[1]", "a*b"):
        save_index(built(), tmp_path / name)
        assert len(load_index(tmp_path / name)) == 300


def test_a_save_replaces_the_files_of_the_one_before(tmp_path: Path) -> None:
    index = built()
    for _ in range(3):
        save_index(index, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "manifest.json",
        "index.3.faiss",
        "posts.3.parquet",
    }


def test_a_failure_before_the_manifest_leaves_the_old_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built()
    save_index(index, tmp_path)
    index.remove(pl.Series(range(200)))
    monkeypatch.setattr(durable, "sync_file", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save_index(index, tmp_path)
    assert len(load_index(tmp_path)) == 300


def test_killed_at_any_moment_the_index_is_an_old_or_a_new_one(tmp_path: Path) -> None:
    """A process removes an item and saves, over and over, until it is killed."""
    save_index(built(), tmp_path)
    writer = (
        "import sys, polars as pl\n"
        "from recsys.index.folder import load_index, save_index\n"
        "index = load_index(sys.argv[1])\n"
        "from pathlib import Path\n"
        "for item in range(300):\n"
        "    index.remove(pl.Series([item]))\n"
        "    save_index(index, Path(sys.argv[1]))\n"
        "    print(item, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", writer, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(20):  # read while it is written
        process.stdout.readline()
        assert len(load_index(tmp_path)) < 300
    time.sleep(0.0137)
    os.kill(process.pid, signal.SIGKILL)
    done = 20 + len(process.stdout.read().splitlines())
    process.wait()
    index = load_index(tmp_path)
    assert 300 - len(index) in (done, done + 1)
    save_index(index, tmp_path)
    assert len(list(tmp_path.glob("*.faiss"))) == 1


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no index of items"):
        load_index(tmp_path)
    save_index(built(), tmp_path)
    items = tmp_path / "posts.1.parquet"
    content = items.read_bytes()
    items.write_bytes(content + b"x")
    with pytest.raises(ArtifactError, match="another SHA-256"):
        load_index(tmp_path)
    items.unlink()
    with pytest.raises(ArtifactError, match=r"posts\.1\.parquet is missing"):
        load_index(tmp_path)
    items.write_bytes(content)
    manifest = tmp_path / "manifest.json"
    described = manifest.read_bytes()
    rewrite(manifest, INDEX_KIND, {"format_version": 99})
    with pytest.raises(ArtifactError, match="format version 99"):
        load_index(tmp_path)
    manifest.write_bytes(described)
    rewrite(manifest, INDEX_KIND, {"more": 1})
    with pytest.raises(ArtifactError, match="no manifest of an index"):
        load_index(tmp_path)
    for damaged in (b"", b"{", b"[]", described[:-9], described.replace(b"flat", b"hnsw")):
        manifest.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="is damaged"):
            load_index(tmp_path)


@pytest.mark.parametrize(
    "names", [[], ["index.1.faiss"], ["../idx/index.1.faiss", "posts.1.parquet"]]
)
def test_only_the_folders_own_files_are_read(tmp_path: Path, names: list[str]) -> None:
    index = built()
    save_index(index, tmp_path)
    mark = index.manifest.files["index.1.faiss"]
    rewrite(tmp_path / "manifest.json", INDEX_KIND, {"files": dict.fromkeys(names, mark)})
    with pytest.raises(ArtifactError, match="names other files than those of an index"):
        load_index(tmp_path)


def test_other_peoples_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("…")
    with pytest.raises(ConfigError, match="is not an index of items: nothing in it is replaced"):
        save_index(built(), tmp_path)


def test_an_index_faiss_cannot_read_is_a_sentence(tmp_path: Path) -> None:
    index = built()
    save_index(index, tmp_path)
    (tmp_path / "index.1.faiss").write_bytes(b"nonsense")
    index.manifest.files["index.1.faiss"]["sha256"] = sha256(tmp_path / "index.1.faiss")
    index.manifest.save(tmp_path)
    with pytest.raises(ArtifactError, match=f"cannot be read by FAISS {faiss.__version__}"):
        load_index(tmp_path)


def with_file(folder: Path, index: faiss.Index) -> None:
    """A folder whose manifest is right about the file of an index that is not its own."""
    kind = built("ivf_pq")
    save_index(kind, folder)
    faiss.write_index(index, str(folder / "index.1.faiss"))
    kind.manifest.files["index.1.faiss"]["sha256"] = sha256(folder / "index.1.faiss")
    kind.manifest.save(folder)


def test_an_index_opens_no_file_of_another_folder(tmp_path: Path) -> None:
    items = built("ivf_pq")
    index = items.index
    elsewhere = tmp_path / "elsewhere"
    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(elsewhere))
    for number in range(index.nlist):
        size = index.invlists.list_size(number)
        ids, codes = index.invlists.get_ids(number), index.invlists.get_codes(number)
        if size:
            lists.add_entries(number, size, ids, codes)
    index.replace_invlists(lists)
    folder = tmp_path / "index"
    with_file(folder, index)
    before = elsewhere.stat()
    with pytest.raises(ArtifactError, match="cannot be read by FAISS"):
        load_index(folder)
    (folder / "elsewhere").write_bytes(elsewhere.read_bytes())
    with pytest.raises(ArtifactError, match=r"no ivf_pq index .* OnDiskInvertedLists"):
        load_index(folder)
    assert elsewhere.stat().st_mtime_ns == before.st_mtime_ns


def test_an_index_of_another_kind_or_width_is_refused(tmp_path: Path) -> None:
    other = faiss.IndexIDMap2(faiss.IndexFlatIP(8))
    with_file(tmp_path / "kind", other)
    with pytest.raises(ArtifactError, match=r"no ivf_pq index .* IndexIDMap2, IndexFlatIP"):
        load_index(tmp_path / "kind")
    save_index(built(), tmp_path / "width")
    rewrite(tmp_path / "width" / "manifest.json", INDEX_KIND, {"width": 9})
    with pytest.raises(ArtifactError, match="no flat index of width 9"):
        load_index(tmp_path / "width")


@pytest.mark.parametrize("place", ["../a.faiss", "/etc/hostname", "b/../a.faiss", ".."])
def test_a_manifest_names_files_of_its_folder_alone(place: str, tmp_path: Path) -> None:
    save_index(built(), tmp_path)
    files = dict(read_index_manifest(tmp_path)["files"])
    files[place] = files.pop("index.1.faiss")
    rewrite(tmp_path / "manifest.json", INDEX_KIND, {"files": files})
    with pytest.raises(ArtifactError, match="names other files than those of an index"):
        load_index(tmp_path)


def test_without_room_the_index_stays_and_nothing_else(tmp_path: Path) -> None:
    index = built()
    with room(1_000), pytest.raises(RecsysError, match="could not be written"):
        save_index(index, tmp_path / "index")
    assert not list(tmp_path.iterdir())
    save_index(index, tmp_path / "index")
    before = sorted(path.name for path in (tmp_path / "index").iterdir())
    index.remove(pl.Series([1]))
    for _ in range(2):
        with room(1_000), pytest.raises(RecsysError, match="could not be written"):
            save_index(index, tmp_path / "index")
        assert sorted(path.name for path in (tmp_path / "index").iterdir()) == before
    assert len(load_index(tmp_path / "index")) == 300
