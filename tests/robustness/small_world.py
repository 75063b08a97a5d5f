"""One of everything that the project writes, small, made by its own commands."""

from __future__ import annotations

import shutil
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl

from recsys.cli.main import invoke

USERS, ITEMS, EVENTS = 24, 30, 40
_START, _HOUR = 1_600_000_000_000, 3_600_000

_DATA = ("data=log", "data.path=log.parquet", "data.out=prepared", "data.partitions=2")
_SHORT = ("trainer.progress_bar=false", "trainer.max_steps=4", "trainer.validate_every_n_steps=2")
_SPLITS = ("options.choose_fraction=0.15", "options.report_fraction=0.2")
_OF_RUN = (*_DATA, *_SHORT, *(f"data.{split}" for split in _SPLITS))
#: How the data set is prepared.
PREPARE = ("data", "prepare", "source=log", "path=log.parquet", "out=prepared", "partitions=2")
PREPARE += _SPLITS
#: The commands, in order; what they write lies below the folder of the world.
COMMANDS: tuple[tuple[str, ...], ...] = (
    PREPARE,
    (
        *("train", "system=dv365", "run_dir=run", *_OF_RUN, "loader.batch_requests=16"),
        *("slices=demo", "encoder=linear_compression", "model.dimension=16"),
    ),
    ("evaluate", "run_dir=run", "bootstrap.resamples=20", "boosting.trees=3"),
    ("export", "run_dir=run"),
    ("publish", "run_dir=run"),
    (
        *("checkpoint", "reshard", "path=run/checkpoints/best.ckpt", "out=sharded.ckpt"),
        "world_size=2",
    ),
    (
        *("train", "system=nxtpost", "run_dir=posts", "posts.path=posts.npz", *_OF_RUN),
        *("model.tower.width=8", "loader.labels=2", "loader.batch_size=8"),
    ),
    ("evaluate", "run_dir=posts"),
    ("export", "run_dir=posts"),
    ("index", "build", "embeddings=posts.npz", "out=index", "dataset=prepared"),
)


def run(command: tuple[str, ...]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command of `recsys`, in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = invoke(list(command))
    return code, out.getvalue(), err.getvalue()


def make_world(folder: Path) -> None:
    """Make it in ``folder``, which is the current one."""
    generator = np.random.default_rng(0)
    count = USERS * EVENTS
    clicked = generator.random(count) < 0.5
    pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(USERS) + 1000, EVENTS),
            "item_id": generator.integers(1, ITEMS, count),
            "timestamp": _START + generator.integers(0, 60 * 24, count) * _HOUR,
            "action_type": np.where(clicked, "click", "impression"),
            "dwell_time": generator.integers(0, 60, count),
        }
    ).write_parquet(folder / "log.parquet")
    embedding = generator.normal(size=(ITEMS, 8))
    np.savez(folder / "posts.npz", item_id=np.arange(ITEMS), embedding=embedding)
    for command in COMMANDS:
        code, _, said = run(command)
        if code:
            raise AssertionError(f"recsys {' '.join(command)} ended with {code}: {said[-1000:]}")


def copy_world(source: Path, target: Path) -> None:
    """Let the folder ``target`` hold what ``source`` does, and nothing else; links stay links."""
    for path in target.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
