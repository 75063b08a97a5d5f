"""What a command may write, and what becomes of two that write the same."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.core.durable import replaced_file
from recsys.core.errors import ConfigError, RecsysError
from recsys.core.folders import (
    FolderKind,
    check_begun,
    check_file,
    check_folder,
    check_new,
    check_replaced,
    has_lock,
    locked_folder,
    made_folder,
    read_whole,
)
from tests.room import room

KIND = FolderKind("a thing", "thing.json", ("version", "parts"), ("parts/*.bin",))


def make(folder: Path, content: str = "1") -> None:
    with made_folder(folder, KIND) as partial:
        (partial / "parts").mkdir()
        (partial / "parts" / "a.bin").write_text(content)
        (partial / "thing.json").write_text(json.dumps({"version": 1, "parts": content}))


def content_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def a_thesis(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("…")


def another_marker(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thing.json").write_text('{"version": 3}')


def a_file(folder: Path) -> None:
    (folder / "out").write_text("…")


def a_thing_with_notes(folder: Path) -> None:
    make(folder / "out")
    (folder / "out" / "parts" / "notes.txt").write_text("…")


def a_link_to_a_thing(folder: Path) -> None:
    make(folder / "thing")
    (folder / "out").symlink_to("thing")


def a_link_to_nothing(folder: Path) -> None:
    (folder / "out").symlink_to("nothing")


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        (a_thesis, "exists and is not a thing: nothing in it is replaced"),
        (another_marker, "exists and is not a thing"),
        (a_file, "is a file; give a folder"),
        (a_thing_with_notes, r"parts/notes\.txt in it was not written by recsys"),
        (a_link_to_a_thing, "is a link to thing"),
        (a_link_to_nothing, "is a link to nothing"),
    ],
)
def test_what_no_command_has_made_stays(
    tmp_path: Path, there: Callable[[Path], None], sentence: str
) -> None:
    there(tmp_path)
    before = content_of(tmp_path)
    with pytest.raises(ConfigError, match=sentence):
        make(tmp_path / "out", "2")
    assert content_of(tmp_path) == before
    assert not has_lock(tmp_path / "out")


def test_what_a_command_has_made_is_replaced_and_no_trace_is_left(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # empty
    for content in ("1", "2"):
        make(tmp_path / "out", content)
        assert content_of(tmp_path / "out")["parts/a.bin"] == content
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_comes_while_a_command_runs_stays(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"thesis\.tex"),
        made_folder(tmp_path / "out", KIND) as partial,
    ):
        (partial / "thing.json").write_text('{"version": 1, "parts": ""}')
        make_thesis = tmp_path / "out"
        make_thesis.mkdir()
        (make_thesis / "thing.json").write_text('{"version": 1, "parts": ""}')
        (make_thesis / "thesis.tex").touch()
    assert (tmp_path / "out" / "thesis.tex").exists()


@pytest.mark.parametrize("out", ["input", "input/within", ".", "elsewhere/../input"])
def test_a_place_around_or_within_what_is_read_is_refused(tmp_path: Path, out: str) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for check in (check_folder, check_replaced):
        with pytest.raises(ConfigError, match="cannot be written while"):
            check(tmp_path / out, KIND, [tmp_path / "input"])
    check_folder(tmp_path / "input2", KIND, [tmp_path / "input"])


@pytest.mark.parametrize("out", [".", "..", "below/..", "/"])
def test_the_folder_that_a_command_runs_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="the folder that this command runs in, or around it"):
        check_folder(Path(out), KIND)


def test_files_and_new_places(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.write_text("recsys")
    other.write_text("thesis")
    check_file(ours, lambda path: "recsys" in path.read_text())
    check_file(tmp_path / "new", lambda path: False)
    with pytest.raises(ConfigError, match="was not written by this command"):
        check_file(other, lambda path: "recsys" in path.read_text())
    with pytest.raises(ConfigError, match="is a folder; give the file"):
        check_file(tmp_path, lambda path: True)
    with pytest.raises(ConfigError, match="is there already"):
        check_new(other)


def test_a_folder_is_worked_in_where_such_a_command_was_before(tmp_path: Path) -> None:
    check_begun(tmp_path / "new", (".lock",), "a study")
    check_begun(tmp_path, (".lock",), "a study")
    (tmp_path / "study.md").touch()
    with pytest.raises(ConfigError, match="is not empty and not the folder of a study"):
        check_begun(tmp_path, (".lock",), "a study")
    (tmp_path / ".lock").touch()
    check_begun(tmp_path, (".lock",), "a study")


def test_who_comes_second_waits_and_says_for_whom(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also by another name of the folder."""
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    order: list[str] = []

    def second() -> None:
        with locked_folder(tmp_path / "link"):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked_folder(tmp_path / "out"):
        thread.start()
        while "Waiting for" not in (said := capfd.readouterr().err):
            thread.join(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert f"Waiting for process {os.getpid()} on " in said
    assert not has_lock(tmp_path / "out")


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    make(tmp_path / "out", "1")
    reads = 0

    def read() -> tuple[str, str]:
        nonlocal reads
        reads += 1
        first = (tmp_path / "out" / "parts" / "a.bin").read_text()
        if reads == 1:
            make(tmp_path / "out", "2")
        return first, (tmp_path / "out" / "parts" / "a.bin").read_text()

    assert read_whole(tmp_path / "out", read) == ("2", "2")


def test_an_error_of_a_folder_that_stays_is_raised_at_once(tmp_path: Path) -> None:
    reads = 0

    def read() -> None:
        nonlocal reads
        reads += 1
        raise ConfigError("damaged")

    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="damaged"):
            read_whole(folder, read)
    assert reads == 2


def test_without_an_exchange_of_names_a_folder_is_replaced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.core.folders._exchanged", lambda one, other: False)
    for content in ("1", "2"):
        make(tmp_path / "out", content)
    assert content_of(tmp_path / "out")["parts/a.bin"] == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("free", [0, 4096], ids=["none for the lock", "some"])
def test_without_room_the_old_folder_stays_and_nothing_else(tmp_path: Path, free: int) -> None:
    make(tmp_path / "out", "1")
    said = rf"{re.escape(str(tmp_path))}/out could not be written: File too large .* MB are free"
    with room(free), pytest.raises(RecsysError, match=said):
        make(tmp_path / "out", "2" * 10_000)
    assert content_of(tmp_path / "out")["parts/a.bin"] == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_has_begun_is_removed(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with replaced_file(tmp_path / "[file]") as partial:
            partial.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    with replaced_file(tmp_path / "[file]") as partial:
        partial.write_text("whole")
    assert content_of(tmp_path) == {"[file]": "whole"}


def test_what_a_killed_writer_has_left_goes_when_the_next_one_has_the_lock(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".a.partial" / "file").touch()
    with locked_folder(tmp_path / "a"):
        assert not (tmp_path / ".a.partial").exists()
