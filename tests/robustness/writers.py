"""What every command that writes is tried on: a small world, its writers, and what readers see."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.artifacts.manifest import MANIFEST_FILE
from recsys.artifacts.timeline_tower import TimelineTowerManifest
from recsys.data.contract.schema import TimelineKind
from recsys.data.stores.check import check_dataset
from recsys.data.stores.dataset import PreparedDataset
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.embeddings.stores import open_store
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.evaluation.predictions import PREDICTIONS
from recsys.index.folder import load_index
from tests.robustness.forks import Server

USERS = range(30)
_START, _HOUR = 1_700_000_000_000, 3_600_000
RUN = (
    "train data=log data.path=log data.out=dd data.partitions=2 data.name=small run_dir=run "
    "slices=demo encoder=funnel model.dimension=16 loader.batch_requests=16 trainer.max_steps=4 "
    "trainer.validate_every_n_steps=2 trainer.progress_bar=false"
)
_PREPARE = "data prepare source=log name=small partitions=2 out=dd path="
ADD = "index add index=idx same_model=true embeddings="
_SIMULATE = (
    "data simulate simulator=demo simulator.users=12 simulator.catalogue.items=500 "
    "simulator.catalogue.authors=100 out=sim"
)


@dataclass(frozen=True)
class Writer:
    """A command and what it changes.

    Attributes:
        name: of the case.
        needs: what of the small world it works on.
        command: its words.
        seen: what readers see of what it changes.
        expensive: it needs ``make_whole_world``.
    """

    name: str
    needs: tuple[str, ...]
    command: str
    seen: Callable[[Path], Any]
    expensive: bool = False

    @property
    def words(self) -> list[str]:
        """Of the command."""
        return self.command.split()


def write_log(path: Path, hours: int) -> None:
    """A log of the first so many hours: one with more has the events of one with fewer."""
    rows = 40 * hours
    generator = np.random.default_rng(0)
    item = generator.integers(0, 60, rows)
    action = generator.choice(["impression", "click", "liked"], rows, p=[0.6, 0.3, 0.1])
    shown = action == "impression"
    path.mkdir()
    pl.DataFrame(
        {
            "user_id": generator.integers(0, len(USERS), rows),
            "item_id": item,
            "timestamp": _START + np.arange(rows) * (_HOUR // 40),
            "author_id": item % 7,
            "action_type": action,
            "dwell_time": np.where(shown, generator.exponential(5, rows), np.nan),
        }
    ).write_parquet(path / "log.parquet")


def make_world(server: Server, folder: Path) -> None:
    """Logs, a prepared data set, an index."""
    server.load(
        "prepare", "append", "delete", "compact", "index_build", "index_add", "index_snapshot"
    )
    folder.mkdir()
    write_log(folder / "log", 50)
    write_log(folder / "longer", 50)
    later = pl.read_parquet(folder / "log" / "log.parquet").with_columns(
        pl.col("timestamp") + 60 * _HOUR
    )
    later.write_parquet(folder / "longer" / "later.parquet")
    generator = np.random.default_rng(1)
    for name, ids in (("few", range(40)), ("more", range(40, 90)), ("others", range(90, 120))):
        vectors = generator.normal(size=(len(ids), 8)).astype(np.float32)
        np.savez(folder / f"{name}.npz", item_id=np.array(ids), embedding=vectors)
    for command in (
        _PREPARE + "log",
        "index build embeddings=few.npz out=idx",
        "index snapshot index=idx out=served",
        "index build embeddings=more.npz out=later_idx",
    ):
        server.run(command.split(), folder)


def make_whole_world(server: Server, folder: Path) -> None:
    """Also a run, its artifact at 8 bits and its store, a checkpoint of shards, a simulation."""
    if (folder / "run").exists():
        return
    server.load("train", "export", "publish", "evaluate", "report", "simulate")
    for command in (
        RUN,
        "export run_dir=run out=art measure=false table_bits=8",
        "publish artifact=art store=store batch_users=1",
        "checkpoint reshard path=run/checkpoints/best.ckpt out=shards world_size=2",
        _SIMULATE,
    ):
        server.run(command.split(), folder)


def seen_dataset(folder: Path) -> Any:
    """Fingerprint, sizes, the events of each user, and whether all of it is what was written."""
    dataset = PreparedDataset.open(folder / "dd")
    check_dataset(dataset, anew=True)
    timelines = dataset.timelines
    users = timelines.users()
    before = np.full(len(users), 1 << 60)
    counts = [timelines.lengths(users, before, kind, 1 << 30).tolist() for kind in TimelineKind]
    sizes = {name: dataset.vocabulary(name).size for name in ("user", "item")}
    assert sizes == {name: dataset.manifest.vocabulary_sizes[name] for name in sizes}
    rows = {split: len(dataset.requests(split)) for split in ("fit", "choose", "report")}
    return dataset.manifest.fingerprint, sizes, users.tolist(), counts, rows


def seen_artifact(folder: Path) -> Any:
    """The bits of its tables, if every file is the one of its manifest."""
    return TimelineTowerManifest.open(folder / "art", trust=True).table_bits


def seen_store(folder: Path) -> Any:
    """Which users have which embedding; the version is another one after each attempt."""
    if not (folder / "store" / "data.mdb").exists():
        return None
    with open_store(str(folder / "store"), readonly=True) as store:
        found = store.get_many(list(USERS))
    return [None if one is None else hash(one.rows.tobytes()) for one in found]


def seen_index(folder: Path) -> Any:
    """The items of the index."""
    if not (folder / "idx" / MANIFEST_FILE).exists():
        return None
    index = load_index(folder / "idx")
    assert index.index.ntotal == len(index)
    return sorted(index.items["post_id"].to_list())


def seen_snapshots(folder: Path) -> Any:
    """The items of the generation that is served."""
    return sorted(load_index(folder / "served").items["post_id"].to_list())


def seen_run(folder: Path) -> Any:
    """Which splits have metrics; predictions, which are written before, are whole."""
    for path in (folder / "run" / PREDICTIONS).glob("*.parquet"):
        assert pl.read_parquet(path).height
    return sorted({name.partition("/")[0] for name in read_metrics_file(folder / "run")})


def seen_report(folder: Path) -> Any:
    """Whether there is a whole page."""
    page = folder / "run" / "report.html"
    return page.exists() and page.read_text().rstrip().endswith("</html>")


def seen_tree(name: str) -> Callable[[Path], Any]:
    """The content of a file or folder."""

    def seen(folder: Path) -> Any:
        path = folder / name
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        return [
            (str(one.relative_to(folder)), hashlib.sha256(one.read_bytes()).hexdigest())
            for one in files
            if one.is_file() and one.suffix not in (".partial", ".metadata")
        ]

    return seen


def seen_shards(folder: Path) -> Any:
    """Ranks of the checkpoint, if it is whole."""
    if not (folder / "new").exists():
        return None
    stored = open_checkpoint(folder / "new")
    stored.check()
    return sorted(str(place) for place in stored.tensors())


WRITERS = (
    Writer("prepare", ("log",), _PREPARE + "log", seen_tree("dd/requests")),
    Writer(
        "prepare anew", ("longer", "dd"), _PREPARE + "longer overwrite=true", seen_dataset
    ),
    Writer("append", ("longer", "dd"), "data append out=dd partitions=2 path=longer", seen_dataset),
    Writer("delete", ("dd",), "data delete user=5 dataset=dd", seen_dataset),
    Writer("simulate", ("sim",), _SIMULATE + " simulator.seed=9", seen_tree("sim"), True),
    Writer(
        "export",
        ("run", "dd", "art"),
        "export run_dir=run dataset=dd out=art measure=false table_bits=4",
        seen_artifact,
        expensive=True,
    ),
    Writer(
        "publish",
        ("art", "dd", "store"),
        f"publish artifact=art dataset=dd store=store batch_users=1 as_of={_START + 40 * _HOUR}",
        seen_store,
        expensive=True,
    ),
    Writer("delete embedding", ("store",), "data delete user=5 store=store", seen_store, True),
    Writer("index build", (), "index build embeddings=few.npz out=idx", seen_index),
    Writer("index add", ("idx",), ADD + "more.npz", seen_index),
    Writer(
        "index snapshot",
        ("later_idx", "served"),
        "index snapshot index=later_idx out=served keep=1",
        seen_snapshots,
    ),
    Writer(
        *("evaluate", ("run", "dd"), "evaluate run_dir=run dataset=dd boosting.trees=3", seen_run),
        expensive=True,
    ),
    Writer("report", ("run", "dd"), "report run_dir=run dataset=dd", seen_report, expensive=True),
    Writer(
        "reshard",
        ("run",),
        "checkpoint reshard path=run/checkpoints/best.ckpt out=new world_size=2",
        seen_shards,
        expensive=True,
    ),
    Writer("unshard", ("shards",), "checkpoint unshard path=shards out=new", seen_shards, True),
)  # fmt: skip


def writer(name: str) -> Writer:
    """The writer of a name."""
    return next(one for one in WRITERS if one.name == name)


def case(world: Path, folder: Path, needs: Sequence[str]) -> Path:
    """A copy of what a case needs of the world, beside embeddings."""
    folder.mkdir(parents=True)
    for path in world.glob("*.npz"):
        shutil.copy(path, folder)
    for name in needs:
        shutil.copytree(world / name, folder / name, symlinks=True)
    return folder


def left_behind(folder: Path) -> list[str]:
    """What an unfinished writer leaves and a finished one does not."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix == ".partial" or path.suffix == ".previous" or path.name == "spill"
    ]
