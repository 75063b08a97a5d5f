"""Training speed of SASRec on MovieLens-1M beside RecTools' SASRecModel and RePlay's SasRec.

All train at the size of `experiment=sasrec_ml1m` on the same sequences, each user's without the
last two items, in batches of the same number of users, with the same number of threads, under their
own Lightning trainer. Ours and RePlay's have the softmax over the whole catalogue, RecTools as many
sampled negatives as configured. A step is reading the batch, forward, backward and update; every
round starts each side once, in a process of its own, and leaves its first steps out. Threads of all
wait as OMP_WAIT_POLICY says: spinning, its default, is fastest on a machine that does nothing else,
`passive` on one that does.

The peers are installed by their names into environments below the user's cache folder.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from rich.table import Table

from benchmarks._peer import PEERS, cache, peer_python
from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.core.progress import track
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.systems.sequence.system import SequenceRunConfig, SequenceSystem

DESCRIPTION = "training users per second of SASRec, beside RecTools' and RePlay's"

#: The least that the ratio to RecTools is to be.
AIM = 5.0

_ROOT = Path(__file__).resolve().parent.parent
_RECTOOLS_SIDE = Path(__file__).with_name("_rectools_side.py")
_REPLAY_SIDE = Path(__file__).with_name("_replay_side.py")
_OURS, _RECTOOLS, _REPLAY = "recsys", "rectools", "replay"


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        data_dir: where ``ml-1m`` lies; null: RECSYS_DATA_DIR, then ./data.
        batch_size: users per batch.
        steps: measured steps of a round and side, at most an epoch less ``warm_up``.
        warm_up: first steps, not measured.
        rounds: how often each side is started.
        threads: threads of torch.
        loss: of RecTools: ``sampled_softmax``, ``gBCE``, ``BCE`` or ``softmax``.
        negatives: sampled negatives of RecTools.
        run_dir: a finished run of `experiment=sasrec_ml1m`, whose Hits@10 is printed beside.
        rectools_epochs: train RecTools for so many epochs in all (hours; it goes on from what was
            kept), and keep its Hits@10 to print beside from then on; 0 to print what was kept.
    """

    data_dir: str | None = None
    batch_size: int = 128
    steps: int = 12
    warm_up: int = 3
    rounds: int = 3
    threads: int = 2
    loss: str = "sampled_softmax"
    negatives: int = 128
    run_dir: str = "runs/sasrec_ml1m"
    rectools_epochs: int = 0


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    overrides = [
        "system=sequence",
        "experiment=sasrec_ml1m",
        f"loader.batch_size={config.batch_size}",
        *([f"data_dir={config.data_dir}"] if config.data_dir else []),
    ]
    run_config = compose("train", SequenceRunConfig, overrides)
    dataset, data = open_or_prepare(run_config.data)
    pythons = {peer: str(peer_python(peer)) for peer in (_RECTOOLS, _REPLAY)}
    with tempfile.TemporaryDirectory() as folder:
        sequences = Path(folder) / "sequences.npz"
        store = EngagementStore.open(dataset, run_config.sequences)
        _write_sequences(store, sequences)
        theirs = _peers_arguments(config, run_config, sequences)
        if config.rectools_epochs:
            _train_rectools(config, pythons[_RECTOOLS], theirs)
        ours = {"overrides": [*overrides, f"data.out={data.out}"], "threads": config.threads}
        ours["steps"] = theirs["steps"]
        commands = {
            _OURS: [sys.executable, __file__, json.dumps(ours)],
            _RECTOOLS: [pythons[_RECTOOLS], str(_RECTOOLS_SIDE), "speed", json.dumps(theirs)],
            _REPLAY: [pythons[_REPLAY], str(_REPLAY_SIDE), json.dumps(theirs)],
        }
        seconds: dict[str, list[float]] = {side: [] for side in commands}
        for _ in track(range(config.rounds), "Training steps of all"):
            for side, command in commands.items():
                moments = _run(command, config.threads)
                # the median: other work on the machine makes single steps longer
                steps = np.diff(moments[config.warm_up - 1 :])
                seconds[side].append(float(np.median(steps)))
    figures = _figures(config, seconds)
    _print(config, figures)
    return {"config": asdict(config), "peers": PEERS, **figures}


def _write_sequences(store: EngagementStore, path: Path) -> None:
    """``offsets`` [U + 1] and ``item`` [E] of the users that have engagements."""
    lengths = np.diff(store.offsets)
    offsets = np.concatenate([[0], np.cumsum(lengths[lengths > 0])])
    np.savez(path, offsets=offsets, item=np.asarray(store.item))


def _peers_arguments(
    config: Config, run_config: SequenceRunConfig, sequences: Path
) -> dict[str, Any]:
    model = run_config.model
    return {
        "sequences": str(sequences),
        "width": model.width,
        "blocks": model.blocks,
        "heads": model.heads,
        "dropout": model.dropout,
        "max_length": model.max_length,
        "batch_size": config.batch_size,
        "learning_rate": run_config.optim.dense.learning_rate,
        "loss": config.loss,
        "negatives": config.negatives,
        "threads": config.threads,
        "steps": config.warm_up + config.steps,
    }


def _run(command: list[str], threads: int) -> Any:
    """What a process prints last, as JSON."""
    environment = os.environ | {
        "PYTHONPATH": str(_ROOT),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONWARNINGS": "ignore",
    }
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(f"{command[:3]} failed:\n{finished.stderr[-3000:]}")
    return json.loads(finished.stdout.splitlines()[-1])


def _train_rectools(config: Config, python: str, arguments: dict[str, Any]) -> None:
    """Train RecTools for whole epochs and keep what its recommendations are worth."""
    kept = _kept_rectools(config)
    given = arguments | {"epochs": config.rectools_epochs, "kept": str(kept)}
    _run([python, str(_RECTOOLS_SIDE), "quality", json.dumps(given)], config.threads)


def _kept_rectools(config: Config) -> Path:
    """The folder of RecTools' full run with these settings."""
    settings = f"{config.loss}_{config.negatives}_batch_{config.batch_size}"
    return cache() / f"rectools_ml1m_{settings}"


def _quality_of_rectools(config: Config) -> tuple[int, float] | None:
    """How many epochs the run that was kept has, and its Hits@10."""
    file = _kept_rectools(config) / "quality.json"
    if not file.is_file():
        return None
    by_epoch = {int(done): values for done, values in json.loads(file.read_text()).items()}
    return max(by_epoch), by_epoch[max(by_epoch)]["hits@10"]


def _figures(config: Config, seconds: dict[str, list[float]]) -> dict[str, Any]:
    rates = {side: [config.batch_size / one for one in rounds] for side, rounds in seconds.items()}
    figures: dict[str, Any] = {"aim": AIM}
    for side in rates:
        if side != _OURS:
            ratios = [a / b for a, b in zip(rates[_OURS], rates[side], strict=True)]
            figures[f"ratio_{side}"] = statistics.median(ratios)
            figures[f"ratio_lowest_{side}"] = min(ratios)
            figures[f"ratio_highest_{side}"] = max(ratios)
        figures[f"users_per_second_{side}"] = statistics.median(rates[side])
        figures[f"seconds_per_step_{side}"] = statistics.median(seconds[side])
        figures[f"hits@10_{side}"] = None
    metrics = read_metrics_file(Path(config.run_dir))
    if "report/hits@10/all" in metrics:
        figures[f"hits@10_{_OURS}"] = metrics["report/hits@10/all"]["value"]
    kept = _quality_of_rectools(config)
    if kept is not None:
        figures[f"epochs_{_RECTOOLS}"], figures[f"hits@10_{_RECTOOLS}"] = kept
    return figures


def _print(config: Config, figures: dict[str, Any]) -> None:
    columns = ["users / s", "ours / theirs", "s / batch", "Hits@10 of a full run"]
    table = Table("SASRec on MovieLens-1M", *columns)
    for side in (_OURS, _RECTOOLS, _REPLAY):
        hits, epochs = figures[f"hits@10_{side}"], figures.get(f"epochs_{side}")
        after = f" after {epochs} epochs" if epochs else ""
        table.add_row(
            f"{side}, {config.loss if side == _RECTOOLS else 'softmax'}",
            f"{figures[f'users_per_second_{side}']:,.0f}",
            "" if side == _OURS else _ratio(figures, side),
            f"{figures[f'seconds_per_step_{side}']:.2f}",
            "no run" if hits is None else f"{hits:.4f}{after}",
        )
    output_console().print(table)


def _ratio(figures: dict[str, Any], peer: str) -> str:
    """The median of the rounds, and the lowest and highest."""
    median, lowest, highest = (
        figures[f"{name}_{peer}"] for name in ("ratio", "ratio_lowest", "ratio_highest")
    )
    return f"{median:.1f} ({lowest:.1f} to {highest:.1f})"


class _Clock(lightning.Callback):
    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.moments.append(time.perf_counter())


def _our_steps(arguments: dict[str, Any]) -> list[float]:
    """The moments at which training steps ended."""
    torch.set_num_threads(arguments["threads"])
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    config = compose("train", SequenceRunConfig, arguments["overrides"])
    dataset = PreparedDataset.open(config.data.out_folder)
    lightning.seed_everything(config.seed, verbose=False)
    assembly = SequenceSystem().assemble(config, dataset, dataset.manifest)
    clock = _Clock()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=arguments["steps"],
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=config.trainer.deterministic,
        callbacks=[clock],
    )
    trainer.fit(assembly.model, assembly.data)
    return clock.moments


if __name__ == "__main__":
    output_console().print(json.dumps(_our_steps(json.loads(sys.argv[1]))))
