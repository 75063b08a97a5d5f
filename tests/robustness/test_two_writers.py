"""Every pair of writers at once: what comes of it is what comes of one after the other.

The first stands still at some moment (SIGSTOP) until the second has ended or says that it waits.
``python -m tests.robustness.test_two_writers [seed [moments]]`` tries each pair at so many moments
and counts.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.robustness.forks import Server, server
from tests.robustness.writers import (
    ADD,
    RUN,
    Writer,
    case,
    left_behind,
    make_whole_world,
    make_world,
    seen_dataset,
    seen_index,
    seen_run,
    seen_store,
    writer,
)


@dataclass(frozen=True)
class Pair:
    """Two commands that change the same, or one of which changes what the other reads."""

    first: str
    second: str
    needs: tuple[str, ...]
    seen: Callable[[Path], Any]
    expensive: bool = False

    def __str__(self) -> str:
        return " + ".join(" ".join(words.split()[:3]) for words in (self.first, self.second))


def _pair(first: str, second: str, expensive: bool = False) -> Pair:
    one, other = writer(first), writer(second)
    needs = tuple(dict.fromkeys((*one.needs, *other.needs)))
    return Pair(one.command, other.command, needs, _both(one, other), expensive)


def _both(one: Writer, other: Writer) -> Callable[[Path], Any]:
    return lambda folder: (one.seen(folder), other.seen(folder))


_ADD_OTHERS = ADD + "others.npz"
_EXPORT_8 = writer("export").command.replace("table_bits=4", "table_bits=8")
_PUBLISH = writer("publish").command
PAIRS = (
    _pair("append", "delete"),
    _pair("delete", "append"),
    _pair("prepare anew", "delete"),
    _pair("append", "append"),
    _pair("append", "prepare anew"),
    Pair("data compact dataset=dd", "data delete user=5 dataset=dd", ("dd",), seen_dataset),
    Pair(writer("append").command, "data compact dataset=dd", ("longer", "dd"), seen_dataset),
    _pair("prepare", "prepare"),
    Pair(writer("index add").command, _ADD_OTHERS, ("idx",), seen_index),
    _pair("index add", "index build"),
    _pair("index build", "index build"),
    _pair("simulate", "simulate"),
    _pair("unshard", "unshard"),
    Pair(
        writer("export").command,
        _EXPORT_8,
        ("run", "dd", "art"),
        writer("export").seen,
        expensive=True,
    ),
    Pair(_PUBLISH, writer("export").command, ("run", "art", "dd", "store"), seen_store, True),
    Pair(writer("export").command, _PUBLISH, ("run", "art", "dd", "store"), seen_store, True),
    Pair(_PUBLISH, _PUBLISH + " only_changed=false", ("art", "dd", "store"), seen_store, True),
    _pair("publish", "delete embedding", expensive=True),
    _pair("evaluate", "evaluate", expensive=True),
    _pair("evaluate", "report", expensive=True),
    Pair(
        "evaluate run_dir=run dataset=dd split=choose boosting.trees=3",
        writer("evaluate").command,
        ("run", "dd"),
        seen_run,
        True,
    ),
    Pair(RUN, RUN, ("log", "dd"), seen_run, True),
    Pair("data delete user=5 dataset=dd", RUN, ("log", "dd"), seen_dataset, True),
)


def at_once(
    forks: Server, world: Path, folder: Path, pair: Pair, moments: int, seed: int
) -> Iterator[str]:
    """Run a pair at once, the first held at some moments; yields what became of the second."""
    allowed, events = [], 0
    for name, order in (("ab", (pair.first, pair.second)), ("ba", (pair.second, pair.first))):
        place = case(world, folder / name, pair.needs)
        for position, words in enumerate(order):
            command = forks.start(words.split(), place)
            assert command.wait()[0] == "exited"
            if name == "ab" and position == 0:
                events = command.events()
                allowed.append(pair.seen(place))  # where the second is refused
        allowed.append(pair.seen(place))
        if name == "ba":
            only = case(world, folder / "b", pair.needs)
            forks.start(pair.second.split(), only).wait()
            allowed.append(pair.seen(only))
    for at in sorted(
        random.Random(f"{seed} {pair}").sample(range(1, events + 1), min(moments, events))
    ):
        place = case(world, folder / str(at), pair.needs)
        yield _held_at(forks, place, pair, at, allowed)


def _held_at(forks: Server, folder: Path, pair: Pair, at: int, allowed: list[Any]) -> str:
    first = forks.start(pair.first.split(), folder, signal.SIGSTOP, at)
    assert first.wait() == ("stopped", signal.SIGSTOP), first.printed()
    second = forks.start(pair.second.split(), folder)
    waits = second.is_waiting()
    first.go_on()
    ends = [first.wait(), second.wait()]
    where = f"{pair} held at {at}: {ends}\n{first.printed()}\n{second.printed()}"
    assert all(how == "exited" and code in (0, 2) for how, code in ends), where
    assert ends != [("exited", 2)] * 2, where
    both = ends == [("exited", 0)] * 2
    assert pair.seen(folder) in (allowed[1:3] if both else allowed), where
    assert not left_behind(folder), where
    if waits:
        return "waited"
    return "refused" if ("exited", 2) in ends else "did not wait"


@pytest.mark.parametrize("pair", PAIRS[5:6] + PAIRS[8:9], ids=str)
def test_two_at_once(forks: Server, world: Path, tmp_path: Path, pair: Pair) -> None:
    assert len(list(at_once(forks, world, tmp_path, pair, moments=1, seed=0))) == 1


def test_an_append_that_is_held_brings_no_deleted_user_back(
    forks: Server, world: Path, tmp_path: Path
) -> None:
    pair = PAIRS[0]
    place = case(world, tmp_path / "case", pair.needs)
    append = forks.start(pair.first.split(), place, signal.SIGSTOP, 60)
    assert append.wait()[0] == "stopped"
    delete = forks.start(pair.second.split(), place)
    assert delete.is_waiting()
    assert f"Waiting for process {append.process} " in delete.printed()
    append.go_on()
    assert append.wait() == delete.wait() == ("exited", 0)
    fingerprint, _, users, _, _ = seen_dataset(place)
    assert fingerprint != seen_dataset(world)[0]
    assert len(users) == len(seen_dataset(world)[2]) - 1


@pytest.mark.slow  # some hundred commands
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_two_at_once_at_many_moments(
    forks: Server, whole_world: Path, tmp_path: Path, pair: Pair
) -> None:
    assert list(at_once(forks, whole_world, tmp_path, pair, moments=4, seed=1))


def main(seed: int = 0, moments: int = 10) -> None:
    """Print how often each pair was tried, and what became of the second."""
    with server() as forks, tempfile.TemporaryDirectory() as folder:
        make_world(forks, Path(folder) / "world")
        make_whole_world(forks, Path(folder) / "world")
        for number, pair in enumerate(PAIRS):
            place = Path(folder) / str(number)
            counts = Counter(at_once(forks, Path(folder) / "world", place, pair, moments, seed))
            print(f"{pair}: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
