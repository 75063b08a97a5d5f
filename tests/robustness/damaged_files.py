"""Damages files that the project has written and watches the commands that read them.

A command that reads a damaged file must end with a sentence (code 2), or give what it gives with
the undamaged one. It must never give other numbers, a traceback, or be killed by a signal.

``python -m tests.robustness.damaged_files count=400 seed=1`` prints what came of how many damages.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from recsys.core.errors import RecsysError
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.embeddings.stores import open_store
from tests.robustness.small_world import PREPARE, copy_world, make_world, run

SENTENCE, NO_EFFECT = "a sentence", "no effect"
OTHER_NUMBERS, TRACEBACK, SIGNAL = "other numbers", "traceback", "killed"
#: What may come of a damage.
GOOD = (SENTENCE, NO_EFFECT)

#: What differs from run to run: moments, and how long something took.
_TIMES = re.compile(
    r"\d{4}-\d\d-\d\d[T ][\d:.+Z]+|(compute seconds|users per second).*|\d+:\d\d:\d\d|[\d.,]+ MB"
)


class RefusedError(Exception):
    """A command has ended with a sentence."""


def command(*words: str) -> str:
    """What a command prints.

    Raises:
        RefusedError: it says that something cannot be used.
        AssertionError: it ends in another way.
    """
    code, printed, said = run(words)
    if code == 2 and said.strip() and "Traceback" not in said:
        raise RefusedError(said)
    assert code == 0, f"code {code}: {said[-2000:]}"
    return _TIMES.sub("", printed)


def file(path: str) -> bytes:
    """What a command has written."""
    return _TIMES.sub("", Path(path).read_text()).encode()


def embeddings(store: str) -> list[object]:
    """What a reader gets of every user of the log, and of some who are none."""
    with open_store(store, readonly=True) as opened:
        found = opened.get_many([*range(990, 1035), "1000"])
    return [None if one is None else one.rows.tobytes() for one in found]


def weights(checkpoint: str) -> list[bytes]:
    """What is read of a checkpoint."""
    stored = open_checkpoint(Path(checkpoint))
    stored.check()
    return [one.numpy().tobytes() for _, one in sorted(stored.weights().items())]


def measured(checkpoint: str) -> object:
    """The metrics of a run by one of its checkpoints."""
    command(
        *("evaluate", "run_dir=run", "split=choose", f"checkpoint={checkpoint}"),
        *("bootstrap.resamples=20", "baselines=[user_mean]"),
    )
    return pl.read_parquet("run/predictions/choose.parquet").rows()


def published() -> object:
    """A publication into a new store."""
    return command("publish", "run_dir=run", "store=fresh"), embeddings("fresh")


def published_again() -> object:
    """A publication of a later moment into the store that is there."""
    printed = command("publish", "run_dir=run", "as_of=2020-11-12", "store=run/embeddings")
    return re.sub(r"store bytes.*", "", printed), embeddings("run/embeddings")


def reported(run_dir: str) -> object:
    """The page of a run."""
    return command("report", f"run_dir={run_dir}"), file(f"{run_dir}/report.html")


@dataclass(frozen=True)
class Kind:
    """Files of one kind, and a command that reads them.

    Attributes:
        name: of the kind.
        files: patterns below the world's folder.
        look: runs the command, and returns all that can be told of what it gives.
        apart: whether it runs in a process of its own, since a signal may end it.
    """

    name: str
    files: tuple[str, ...]
    look: Callable[[], object]
    apart: bool = False


DATA_SET = (
    *("prepared/dataset.json", "prepared/vocabulary/*", "prepared/features/*"),
    *("prepared/requests/*", "prepared/timelines/*.block", "prepared/timelines/CURRENT.json"),
)
KINDS = (
    Kind("data set: described", DATA_SET, lambda: command("data", "describe", "dataset=prepared")),
    Kind("data set: checked", DATA_SET, lambda: command("data", "check", "dataset=prepared")),
    Kind("data set: evaluated on", DATA_SET, lambda: measured("best")),
    Kind("data set: published of", DATA_SET, published),
    Kind("data set: prepared again", ("prepared/*.json",), lambda: command(*PREPARE)),
    Kind(
        "data set: compacted and rid of a user",
        ("prepared/dataset.json", "prepared/vocabulary/user.parquet", "prepared/timelines/*"),
        lambda: (
            command("data", "delete", "user=1003", "dataset=prepared"),
            command("data", "compact", "dataset=prepared"),
            command("data", "describe", "dataset=prepared"),
        ),
    ),
    Kind(
        "sequences: evaluated on",
        ("prepared/sequences/*/*",),
        lambda: (
            command("evaluate", "run_dir=posts", "split=choose"),
            pl.read_parquet("posts/predictions/choose.parquet").rows(),
        ),
    ),
    Kind(
        "run: reported",
        (
            *("run/*.json", "run/config.yaml", "run/metrics.csv", "run/predictions/*"),
            "run/artifact/manifest.json",
        ),
        lambda: reported("run"),
    ),
    Kind(
        "run of retrieval: reported",
        ("posts/*.json", "posts/config.yaml", "posts/metrics.csv", "posts/predictions/*"),
        lambda: reported("posts"),
    ),
    Kind(
        "checkpoint: evaluated",
        ("run/checkpoints/step-00000004.ckpt", "run/checkpoints/step-00000002.ckpt"),
        lambda: measured("best"),
    ),
    Kind(
        "checkpoint: read",
        ("run/checkpoints/step-00000004.ckpt", "run/checkpoints/step-00000002.ckpt"),
        lambda: weights("run/checkpoints/best.ckpt"),
        apart=True,
    ),
    Kind("folder of shards: evaluated", ("sharded.ckpt/*",), lambda: measured("sharded.ckpt")),
    Kind("folder of shards: read", ("sharded.ckpt/*",), lambda: weights("sharded.ckpt")),
    Kind("artifact: published", ("run/artifact/*", "run/artifact/*/*"), published),
    Kind("store: read", ("run/embeddings/data.mdb",), lambda: embeddings("run/embeddings"), True),
    Kind(
        "store: checked",
        ("run/embeddings/data.mdb",),
        lambda: command("data", "check", "store=run/embeddings"),
        True,
    ),
    Kind("store: published into", ("run/embeddings/data.mdb",), published_again, True),
    Kind(
        "index and artifact: recommended",
        ("index/*", "posts/artifact/*", "posts/artifact/*/*"),
        lambda: command("recommend", "artifact=posts/artifact", "index=index", "user=[1000,1003]"),
    ),
)


@dataclass(frozen=True)
class Damage:
    """One change of one file."""

    kind: Kind
    path: Path
    how: str

    def do(self, generator: np.random.Generator) -> None:
        """Flip a bit, cut the file off, empty it, or put another file's content there."""
        content = bytearray(self.path.read_bytes())
        if self.how == "flip" and content:
            place = int(generator.integers(len(content)))
            content[place] ^= 1 << int(generator.integers(8))
        elif self.how == "cut":
            del content[int(generator.integers(max(1, len(content)))) :]
        elif self.how == "empty":
            content.clear()
        elif self.how == "foreign":
            content = bytearray(b'{"format_version": 1, "files": [], "a": {"value": "x"}}')
        self.path.write_bytes(content)


#: What a process of its own need not import again.
_IMPORTED = [
    *("tests.robustness.small_world", "recsys.distributed.checkpoint.load"),
    *("recsys.cli.check", "recsys.cli.publish", "recsys.embeddings.publish"),
]
HOWS = ("flip", "flip", "flip", "cut", "empty", "foreign")


def damages(count: int, generator: np.random.Generator, kinds: Sequence[Kind]) -> Iterator[Damage]:
    """``count`` damages, in turn of each kind, of files drawn from its own."""
    for number in range(count):
        kind = kinds[number % len(kinds)]
        files = sorted({path for one in kind.files for path in Path().glob(one) if path.is_file()})
        assert files, f"{kind.name}: nothing to damage"
        path = files[int(generator.integers(len(files)))]
        yield Damage(kind, path, HOWS[int(generator.integers(len(HOWS)))])


def look(kind: Kind) -> tuple[str, Any]:
    """What comes of a command: an outcome, and what it gives or says."""
    return _look_apart(kind) if kind.apart else _look(kind)


def _look(kind: Kind) -> tuple[str, Any]:
    try:
        return NO_EFFECT, kind.look()
    except (RefusedError, RecsysError) as refusal:
        return SENTENCE, str(refusal)
    except BaseException as error:
        return TRACEBACK, f"{type(error).__name__}: {error}"


def _look_apart(kind: Kind) -> tuple[str, Any]:
    """In a process that has no thread of this one, which a fork would not have taken along."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(kind.name, Path.cwd(), sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()  # type: ignore[no-any-return]
    except EOFError:
        process.join()
        return SIGNAL, f"ended with {process.exitcode}"
    finally:
        process.join()


def _child(kind: str, folder: Path, sender: Connection) -> None:
    os.chdir(folder)
    [found] = [one for one in KINDS if one.name == kind]
    sender.send(_look(found))


def outcomes(
    world: Path, count: int, seed: int, kinds: Sequence[Kind] = KINDS
) -> Iterator[tuple[Damage, str, Any]]:
    """Damage one file after the other of the world in the current folder, and look.

    Args:
        world: an undamaged copy of the current folder.
        count: number of damages.
        seed: of what is damaged, and where.
        kinds: in turn.
    """
    generator = np.random.default_rng(seed)
    expected = {}
    for kind in kinds[:count]:
        outcome, expected[kind.name] = look(kind)
        assert outcome == NO_EFFECT, f"{kind.name}, undamaged: {expected[kind.name]}"
        copy_world(world, Path.cwd())
    for damage in damages(count, generator, kinds):
        damage.do(generator)
        outcome, seen = look(damage.kind)
        if outcome == NO_EFFECT and seen != expected[damage.kind.name]:
            outcome = OTHER_NUMBERS
        yield damage, outcome, seen
        copy_world(world, Path.cwd())


def report(found: Sequence[tuple[Damage, str, Any]]) -> Table:
    """How many damages of each kind of file had which outcome."""
    columns = (SENTENCE, NO_EFFECT, OTHER_NUMBERS, TRACEBACK, SIGNAL)
    counts = Counter((damage.kind.name, outcome) for damage, outcome, _ in found)
    table = Table("files, and the command that reads them", title=f"{len(found)} damages")
    for column in columns:
        table.add_column(column, justify="right")
    for kind in KINDS:
        table.add_row(kind.name, *(str(counts[kind.name, column] or "") for column in columns))
    table.add_section()
    totals = Counter(outcome for _, outcome, _ in found)
    table.add_row("all", *(str(totals[column]) for column in columns))
    return table


def main(arguments: Sequence[str]) -> int:
    """``count=400 seed=1``; ends with 1 where a damage had an outcome that may not be."""
    given = dict(argument.split("=", 1) for argument in arguments)
    count, seed = int(given.pop("count", 400)), int(given.pop("seed", 0))
    if given:
        print(f"unknown: {', '.join(given)}; give count= and seed=")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        world, undamaged = Path(folder) / "world", Path(folder) / "undamaged"
        world.mkdir()
        undamaged.mkdir()
        os.chdir(world)
        make_world(world)
        copy_world(world, undamaged)
        found = []
        for damage, outcome, seen in outcomes(undamaged, count, seed):
            found.append((damage, outcome, seen))
            if outcome not in GOOD:
                print(f"{damage.kind.name}, {damage.path}, {damage.how}: {outcome}: {seen!s:.300}")
        os.chdir("/")
    Console(width=120).print(report(found))
    return int(any(outcome not in GOOD for _, outcome, _ in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
