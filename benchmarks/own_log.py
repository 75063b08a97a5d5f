"""SASRec from a log of three columns, as users of RecTools, of RePlay and of this project do it.

MovieLens-1M's ratings, as a CSV file of users, items and times that no two events of a user share.
Each side gets this file and writes the ten best items of every user: it trains on all but a user's
last two events, in as many epochs of a model of the same size with the softmax over all items, by
its own optimiser's defaults, and recommends after all but the last. How many users' last item is
among the ten, in which place, and how long the side took are measured here, for all in the same
way. The peers' sides are scripts after their guides (`_peers/`), ours is three commands; lines are
those that hold code.

RecTools and RePlay are installed by their names into environments below the user's cache folder.
"""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import tokenize
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.table import Table

from benchmarks._peer import PEERS, peer_python
from recsys.core.console import message_console, output_console
from recsys.data.sources.movielens import MovieLensSource
from recsys.evaluation.paired import Bootstrap

DESCRIPTION = "SASRec from a log of three columns, beside RecTools and RePlay"

_ROOT = Path(__file__).resolve().parent.parent
_SCRIPTS = Path(__file__).with_name("_peers")


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        data_dir: where ``ml-1m`` lies; null: RECSYS_DATA_DIR, then ./data.
        users: so many users of the log; null: all.
        sides: who is measured, of ``recsys``, ``rectools`` and ``replay``.
        epochs: of every side.
        width: of the items' embeddings and the encoder.
        blocks: of the encoder.
        heads: of a block.
        max_length: events of a user that a model sees.
        dropout: share of dropped activations.
        batch_size: users per step.
        threads: threads of torch.
    """

    data_dir: str | None = None
    users: int | None = None
    sides: tuple[str, ...] = ("recsys", "rectools", "replay")
    epochs: int = 30
    width: int = 64
    blocks: int = 2
    heads: int = 2
    max_length: int = 50
    dropout: float = 0.2
    batch_size: int = 128
    threads: int = 1


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    log = _log(config)
    target = log.group_by("user_id").agg(pl.all().sort_by("timestamp").last())
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        for side in config.sides:
            folder = Path(root) / side
            folder.mkdir()
            log.write_csv(folder / "log.csv")
            commands = _our_commands(config, log, folder)
            if side in PEERS:
                python = peer_python(side)
                script = _SCRIPTS / f"sasrec_by_{side}.py"
                commands = [[str(python), str(script), json.dumps(asdict(config))]]
            message_console().print(f"{side} begins.")
            seconds, cpu_seconds = _run(commands, folder, config.threads)
            best = pl.read_csv(folder / "recommendations.csv", schema_overrides=_TEXTS)
            figures[side] = {
                **_quality(best, target),
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "written": _written(side),
            }
    _print(figures)
    return {"config": asdict(config), "peers": PEERS, "figures": figures}


_START_MS = 978_307_200_000  # 2001-01-01 UTC
_TEXTS = {"user_id": pl.String, "item_id": pl.String}


def _log(config: Config) -> pl.DataFrame:
    """Columns ``user_id``, ``item_id`` and ``timestamp`` [ms]: a user's n-th film at second n."""
    folder = Path(config.data_dir or os.environ.get("RECSYS_DATA_DIR") or "data") / "ml-1m"
    [events] = MovieLensSource(folder).events()
    log = events.select("user_id", "item_id").with_columns(
        timestamp=_START_MS + 1000 * pl.int_range(pl.len()).over("user_id")
    )
    if config.users is not None:
        log = log.filter(pl.col("user_id") <= config.users)
    return log.with_columns(pl.col("user_id", "item_id").cast(pl.String))


def _our_commands(config: Config, log: pl.DataFrame, folder: Path) -> list[list[str]]:
    """Describe, train, recommend; the sizes are stated here since all sides share them."""
    history = log.filter(pl.col("timestamp") < pl.col("timestamp").max().over("user_id"))
    history.write_csv(folder / "history.csv")
    recsys = [sys.executable, "-m", "recsys.cli.main"]
    model = {
        "model.width": config.width,
        "model.blocks": config.blocks,
        "model.heads": config.heads,
        "loader.max_length": config.max_length,
        "model.dropout": config.dropout,
        "loader.batch_size": config.batch_size,
        "loader.cut": "last",
        "trainer.max_epochs": config.epochs,
        "trainer.patience": "null",
        "trainer.progress_bar": "false",
    }
    sizes = [f"{name}={value}" for name, value in model.items()]
    described = ["data=log.yaml", "data.options.split=last"]
    return [
        [*recsys, "data", "infer", "path=log.csv", "out=log.yaml"],
        [*recsys, "train", *described, "system=sequence", "run_dir=run", *sizes],
        [
            *recsys,
            "recommend",
            "run_dir=run",
            "history=history.csv",
            "checkpoint=last",
            "out=recommendations.csv",
        ],
    ]


def _run(commands: list[list[str]], folder: Path, threads: int) -> tuple[float, float]:
    """Wall and processor seconds of the commands, one after the other."""
    environment = os.environ | {
        "PYTHONPATH": str(_ROOT),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONWARNINGS": "ignore",
    }
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for command in commands:
        finished = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True
        )
        if finished.returncode:
            raise RuntimeError(f"{' '.join(command[:5])} failed:\n{finished.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


def _quality(best: pl.DataFrame, target: pl.DataFrame) -> dict[str, Any]:
    """Hits and NDCG at 10 of the users' last items, with 95 % bootstrap intervals over users.

    Args:
        best: ``user_id``, ``item_id`` and ``rank`` from 1.
        target: ``user_id`` and ``item_id``, one row a user, who hits nothing without a list.
    """
    found = target.select("user_id", "item_id").join(
        best.select("user_id", "item_id", "rank"), on=["user_id", "item_id"], how="left"
    )
    rank = found["rank"].cast(pl.Float64).fill_null(np.inf).to_numpy()
    hit = (rank <= 10).astype(float)
    gain = np.where(rank <= 10, 1 / np.log2(1 + rank), 0.0)
    bootstrap = Bootstrap()
    draws = bootstrap.sums(np.stack([hit, gain], axis=1)) / len(hit)
    means = {"hits@10": float(hit.mean()), "ndcg@10": float(gain.mean())}
    return {
        name: asdict(bootstrap.interval(mean, draws[:, column]))
        for column, (name, mean) in enumerate(means.items())
    }


def _written(side: str) -> str:
    """What a user writes: lines of code, or commands."""
    if side not in PEERS:
        return "3 commands"
    source = (_SCRIPTS / f"sasrec_by_{side}.py").read_text()
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}
    nothing |= {tokenize.INDENT, tokenize.DEDENT}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {token.start[0] for token in tokens if token.type not in nothing}
    # the first line is the script's docstring
    return f"{len(lines) - 1} lines"


def _print(figures: dict[str, Any]) -> None:
    columns = ["Hits@10", "NDCG@10", "seconds", "CPU seconds", "written"]
    table = Table("SASRec on MovieLens-1M as a log of one's own", *columns)
    for side, of in figures.items():
        quality = [
            f"{of[name]['value']:.4f} [{of[name]['low']:.4f}, {of[name]['high']:.4f}]"
            for name in ("hits@10", "ndcg@10")
        ]
        spent = [f"{of[name]:,.0f}" for name in ("seconds", "cpu_seconds")]
        table.add_row(side, *quality, *spent, of["written"])
    output_console().print(table)
