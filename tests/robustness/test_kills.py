"""Every writer, killed by SIGKILL: readers see the old state or the new, and the same again works.

``python -m tests.robustness.test_kills [seed [moments]]`` kills each at so many and counts.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.robustness.forks import Server, server
from tests.robustness.writers import (
    WRITERS,
    Writer,
    case,
    left_behind,
    make_whole_world,
    make_world,
)

#: Writers of what is never replaced: the same again is refused when it is there.
_NEW_ONLY = ("reshard", "unshard")


def killed(
    forks: Server, world: Path, folder: Path, writer: Writer, moments: int, seed: int
) -> Iterator[str]:
    """Kill a writer at some moments; yields whether readers saw the old or the new state then."""
    whole = case(world, folder / "whole", writer.needs)
    old = writer.seen(whole)
    events = forks.run(writer.words, whole).events()
    new = writer.seen(whole)
    assert old != new
    assert not left_behind(whole)
    every = range(1, events + 1)
    for at in sorted(random.Random(f"{seed} {writer.name}").sample(every, min(moments, events))):
        yield _killed_at(forks, case(world, folder / str(at), writer.needs), writer, at, [old, new])


def _killed_at(forks: Server, folder: Path, writer: Writer, at: int, states: Iterable) -> str:
    old, new = states
    command = forks.start(writer.words, folder, signal.SIGKILL, at)
    assert command.wait() == ("killed", signal.SIGKILL), command.printed()
    where = f"{writer.name} killed at {at}"
    seen = writer.seen(folder)
    assert seen in (old, new), where
    again = forks.start(writer.words, folder)
    refused = writer.name in _NEW_ONLY and seen == new
    assert again.wait() == ("exited", 2 if refused else 0), f"{where}: {again.printed()}"
    assert writer.seen(folder) == new, where
    assert not left_behind(folder), where
    return "old" if seen == old else "new"


@pytest.mark.parametrize(
    "writer", [one for one in WRITERS if not one.expensive], ids=lambda one: one.name
)
def test_killed_once(forks: Server, world: Path, tmp_path: Path, writer: Writer) -> None:
    assert len(list(killed(forks, world, tmp_path, writer, moments=1, seed=0))) == 1


@pytest.mark.slow  # some hundred commands
@pytest.mark.parametrize("writer", WRITERS, ids=lambda one: one.name)
def test_killed_at_many_moments(
    forks: Server, whole_world: Path, tmp_path: Path, writer: Writer
) -> None:
    assert list(killed(forks, whole_world, tmp_path, writer, moments=8, seed=1))


def main(seed: int = 0, moments: int = 20) -> None:
    """Print how often each writer was killed, and which state readers saw then."""
    with server() as forks, tempfile.TemporaryDirectory() as folder:
        make_world(forks, Path(folder) / "world")
        make_whole_world(forks, Path(folder) / "world")
        for writer in WRITERS:
            place = Path(folder) / writer.name.replace(" ", "_")
            seen = list(killed(forks, Path(folder) / "world", place, writer, moments, seed))
            print(
                f"{writer.name}: {len(seen)} kills, old state {seen.count('old')}, "
                f"new state {seen.count('new')}",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
