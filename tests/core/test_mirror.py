"""Folders at URLs: whole or not there, copied as they were uploaded, of a real object store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.core.folder_list import KIND, LIST_FILE, FolderList, write_list
from recsys.core.json_files import encode_json
from recsys.core.location import RemotePath
from recsys.core.mirror import local_folder, mirror_of, mirrored
from tests.object_store import ObjectStore


def _contents(folder: Path) -> dict[str, bytes]:
    paths = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _write(url: str, files: dict[str, bytes]) -> None:
    with mirrored(url) as folder:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # a link to what the cache has
            path.write_bytes(content)


def test_a_folder_comes_back_and_its_former_copy_stays(object_store: ObjectStore) -> None:
    url = f"{object_store.bucket}/made"
    _write(url, {"a": b"1", "deep/b": b"22", ".lock": b""})
    (first := local_folder(url)).joinpath("deep/b").stat()
    _write(url, {"a": b"333", "c": b""})
    second = local_folder(url)
    assert _contents(first) == {"a": b"1", "deep/b": b"22"}
    assert _contents(second) == {"a": b"333", "deep/b": b"22", "c": b""}
    assert (first / "deep/b").samefile(second / "deep/b")  # fetched once
    assert {"a", "c", "deep/b", LIST_FILE} < set(object_store.keys(url))
    assert RemotePath(f"{url}/a").read_bytes() == b"1"  # for who still reads by the list of before


def test_an_upload_that_fails_changes_nothing(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{object_store.bucket}/made"
    opened = RemotePath.open

    def full(path: RemotePath, mode: str = "rb", **_: Any) -> Any:
        if mode == "wb" and path.name.startswith("z"):
            raise DataError("the store is full")
        return opened(path, mode)

    for before in ({}, {"a": b"1", "z": b"1"}):
        if before:
            _write(url, before)
        monkeypatch.setattr(RemotePath, "open", full)
        with pytest.raises(DataError, match="is full"):
            _write(url, {"a": b"2", "z": b"2"})
        monkeypatch.setattr(RemotePath, "open", opened)
        if before:
            assert _contents(local_folder(url)) == before
        else:
            with pytest.raises(DataError, match="was not finished"):
                local_folder(url)


def test_what_is_cut_off_or_leads_elsewhere_is_refused(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    url = f"{object_store.bucket}/made"
    _write(url, {"a": b"0123456789"})
    for damaged, said in ((b"01234", "has 5 bytes, 10 were"), (b"012345678_", "another SHA-256")):
        (tmp_path / "a").write_bytes(damaged)
        object_store.put(tmp_path / "a", f"{url}/a")
        with pytest.raises(DataError, match=said):
            local_folder(url)
    one = {"object": "a", "bytes": 10, "digest": "0" * 64, "link": None}
    for files in ({"../b": one}, {"b": one | {"digest": "../b"}}, {"b": one | {"link": "/etc"}}):
        content = encode_json(KIND, {"whole": True, "files": files})
        (tmp_path / LIST_FILE).write_bytes(content)
        object_store.put(tmp_path / LIST_FILE, f"{url}/{LIST_FILE}")
        with pytest.raises(DataError, match="is damaged"):
            local_folder(url)


def test_what_others_have_put_there_is_read_and_never_replaced(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "a").write_bytes(b"1")
    url = f"{object_store.bucket}/run"
    object_store.put(tmp_path / "run", url)
    assert _contents(local_folder(url)) == {"checkpoints/a": b"1"}
    with pytest.raises(ConfigError, match="has not uploaded"), mirrored(url):
        pass
    with pytest.raises(DataError, match="is not there"):
        local_folder(f"{object_store.bucket}/nothing")


def test_of_two_who_change_a_folder_the_second_is_told(object_store: ObjectStore) -> None:
    url = f"{object_store.bucket}/made"
    _write(url, {"a": b"1"})
    with pytest.raises(DataError, match="by somebody else"), mirrored(url) as folder:
        (folder / "b").write_bytes(b"mine")
        write_list(RemotePath(url), FolderList(True, {}))


def test_a_folder_is_uploaded_again_and_again_and_what_no_list_names_is_removed(
    object_store: ObjectStore,
) -> None:
    url = f"{object_store.bucket}/run"
    _write(url, {"kept": b"0", "log": b"1"})
    with mirror_of(RemotePath(url)) as mirror:
        for step, text in enumerate((b"12", b"123", b"1234")):
            with (mirror.folder / "log").open("ab") as file:
                file.write(text[-1:])
            (mirror.folder / f"step-{step}").write_bytes(text)
            (mirror.folder / f"step-{step - 1}").unlink(missing_ok=True)
            mirror.upload()
            copy = local_folder(url)
            assert _contents(copy) == {"kept": b"0", "log": text, f"step-{step}": text}
    there = [name.partition("~")[0] for name in object_store.keys(url)]
    # of the list before too
    assert there == ["kept", "log", "log", LIST_FILE, "step-1", "step-2"]


def test_of_a_folder_those_files_are_copied_that_are_wanted(object_store: ObjectStore) -> None:
    url = f"{object_store.bucket}/made"
    _write(url, {"a": b"1", "deep/b": b"22"})
    folder = local_folder(url, lambda name: name == "deep/b")
    assert _contents(folder) == {"deep/b": b"22"}
    assert local_folder(url) == folder
    assert _contents(folder) == {"a": b"1", "deep/b": b"22"}
