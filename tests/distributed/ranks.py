"""Runs a test's own script, as two ranks or as the process that starts them."""

from __future__ import annotations

import importlib.util
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from recsys.core.process_context import process_context

ROOT = Path(__file__).resolve().parents[2]


def module_of(path: Path) -> ModuleType:
    """The script as a module, for what one process computes."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def train_by_sgd(model: lightning.LightningModule, learning_rate: float) -> None:
    """Have the dense weights trained by SGD on the model's own curve, and so comparable.

    Two ranks and one process, or two processors, add the same numbers in another order. Where a
    loss takes no notice of a weight, as a softmax of the keys' bias, its gradient is what that
    leaves over, rounding: AdamW divides it by its own size and makes whole steps of it, SGD steps
    of rounding. So nothing is left out of a comparison, and more is found: AdamW hardly sees a
    gradient that is wrong by a factor, such as a sum over the ranks for their mean.
    """
    of_the_model = model.configure_optimizers

    def configure_optimizers() -> OptimizerLRSchedulerConfig:
        configured: Any = of_the_model()
        optimizer = torch.optim.SGD(
            [
                {"params": group["params"], "weight_decay": group["weight_decay"]}
                for group in configured["optimizer"].param_groups
            ],
            lr=learning_rate,
        )
        curve, *_ = configured["lr_scheduler"]["scheduler"].lr_lambdas
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, curve)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    model.configure_optimizers = configure_optimizers


def run_script(script: Path, folder: Path, timeout: float) -> str:
    """What ``script <folder>``, which starts ranks of its own, prints; it must succeed."""
    finished = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def run_side_by_side(
    script: Path, calls: Sequence[tuple[Sequence[object], dict[str, str]]]
) -> None:
    """Run a script once for each of some arguments and environments, all at the same time.

    The processes are forks of one that has imported what takes seconds. All must succeed.
    """
    context = process_context("lightning.pytorch", "torchrec")
    with tempfile.TemporaryDirectory() as folder:
        errors = [Path(folder) / str(number) for number in range(len(calls))]
        processes = [
            context.Process(
                target=_run, args=(script, [str(one) for one in words], environment, error)
            )
            for (words, environment), error in zip(calls, errors, strict=True)
        ]
        for process in processes:
            process.start()
        for process, error in zip(processes, errors, strict=True):
            process.join(300)
            assert process.exitcode == 0, error.read_text()[-3000:]


def _run(script: Path, words: list[str], environment: dict[str, str], errors: Path) -> None:
    os.environ.update(environment)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    torch.set_num_threads(1)
    sys.argv = [str(script), *words]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


def run_ranks(script: Path, folder: Path, nodes: int = 1) -> list[Any]:
    """What ``script <folder>`` saved as ``<rank>.pt`` on each rank, in torchrun's terms.

    There are two ranks on each of so many nodes, all of them this machine.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(2 * nodes),
        "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "test",
    }
    places = [
        {"RANK": str(rank), "GROUP_RANK": str(rank // 2), "LOCAL_RANK": str(rank % 2)}
        for rank in range(2 * nodes)
    ]
    run_side_by_side(script, [([folder], common | place) for place in places])
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2 * nodes)]
