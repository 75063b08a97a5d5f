"""Training and validation of a system on the pretended GPU, by Lightning's own trainer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import lightning
import torch
import torchrec.modules.fused_embedding_modules as fused_modules
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice
from lightning.pytorch.accelerators.cpu import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor

from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.nn.kernels import has_triton
from recsys.nn.sequence import attention
from recsys.systems.choice import compose_run
from recsys.systems.registry import system_named
from tests.cuda_without_gpu.kept import Kept
from tests.cuda_without_gpu.pretended_gpu import GPU, PretendedGpu, Side, tensors_in, tensors_of
from tests.cuda_without_gpu.systems import Followed

STEPS = 4


@dataclass(frozen=True)
class Trained:
    """What was noted while a system was trained and validated.

    Attributes:
        mixed: operations with tensors of both sides, forward, backward, in the optimiser's step
            and in the validation.
        left_on_host: tensors of the model that were not on the device when it was trained.
        waits: what was waited for, in each step.
        operations: on the device, in each step.
        kept: bytes that the forward of each step keeps for its backward.
        metrics: of training and validation.
        monitored: the metric that picks checkpoints.
    """

    mixed: Counter[str]
    left_on_host: list[str]
    waits: list[Counter[str]]
    operations: list[int]
    kept: list[int]
    metrics: dict[str, float]
    monitored: str


class _Steps(lightning.Callback):
    """Takes what is counted in each step: Lightning has copied the batch when it begins."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self.gpu = gpu
        self.waits: list[Counter[str]] = []
        self.operations: list[int] = []
        self.kept: list[int] = []
        self.left_on_host: list[str] = []

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        self.left_on_host = [
            place
            for name, child in module.named_children()
            for place, tensor in tensors_of(child, name).items()
            if self.gpu.side(tensor) is not Side.DEVICE
        ]
        self._kept = Kept(module)
        self._kept.__enter__()
        self.gpu.take_waits()
        self.gpu.operations = 0

    def on_before_backward(self, *_: Any) -> None:
        self._kept.__exit__()
        self.kept.append(self._kept.bytes)

    def on_train_batch_end(self, *_: Any) -> None:
        self.waits.append(self.gpu.take_waits())
        self.operations.append(self.gpu.operations)


class _PretendedAccelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        """The CPU's refuses other devices."""


def train(followed: Followed, log: Path, validates: bool = True) -> Trained:
    """A few steps and a validation of a system; its data set is prepared in the log's folder."""
    config = compose_run(followed.settings(log))
    system = system_named(config.system)
    dataset, _ = open_or_prepare(config.data)
    lightning.seed_everything(0, verbose=False)
    assembly = system.assemble(config, dataset, dataset.manifest)
    with PretendedGpu() as gpu, _without_kernels(gpu):
        steps = _Steps(gpu)
        trainer = lightning.Trainer(
            strategy=SingleDeviceStrategy(GPU, _PretendedAccelerator()),
            max_steps=STEPS,
            limit_val_batches=1.0 if validates else 0,
            val_check_interval=STEPS,
            check_val_every_n_epoch=None,
            gradient_clip_val=config.trainer.gradient_clip,
            callbacks=[steps],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(assembly.model, assembly.data)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return Trained(
        gpu.mixed,
        steps.left_on_host,
        steps.waits,
        steps.operations,
        steps.kept,
        metrics,
        system.monitor.metric,
    )


@contextmanager
def _without_kernels(gpu: PretendedGpu) -> Iterator[None]:
    """Put stand-ins in the place of the kernels that only a GPU has.

    FBGEMM's tables are its tables for the CPU, taken to lie where they were asked for; a kernel of
    Triton gives zeros; fused attention has no dropout, with which a CPU has none that is fused.
    """
    tables = fused_modules.SplitTableBatchedEmbeddingBagsCodegen

    def on_device(specs: Any, *args: Any, device: torch.device, **settings: Any) -> Any:
        if device.type != "cuda":
            return tables(specs, *args, device=device, **settings)
        specs = [(*size, EmbeddingLocation.HOST, ComputeDevice.CPU) for *size, _, _ in specs]
        made = tables(specs, *args, device=torch.device("cpu"), **settings)
        made.current_device = device
        for tensor in tensors_of(made).values():
            gpu.put(tensor, Side.DEVICE)
        return made

    with ExitStack() as replaced:
        name = "SplitTableBatchedEmbeddingBagsCodegen"
        replaced.enter_context(mock.patch.object(fused_modules, name, on_device))
        replaced.enter_context(
            mock.patch.object(attention.F, "scaled_dot_product_attention", _fused_attention)
        )
        if has_triton():
            from recsys.nn.kernels import hstu_triton, pool_softmax_triton

            for module, kernels in ((pool_softmax_triton, _POOL_SOFTMAX), (hstu_triton, _HSTU)):
                for name, results in kernels.items():
                    kernel = _Kernel(gpu, name, results)
                    replaced.enter_context(mock.patch.object(module, name, kernel))
        yield


_attention = attention.F.scaled_dot_product_attention


def _fused_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **settings: Any,
) -> Tensor:
    return _attention(queries, keys, values, attn_mask, 0.0, is_causal, **settings)


#: Triton's kernels, and how many tensors each writes.
_POOL_SOFTMAX = {"forward_kernel": 1, "queries_kernel": 1, "columns_kernel": 1}
_HSTU = {"forward_kernel": 1, "queries_kernel": 1, "keys_kernel": 2, "biases_kernel": 2}


class _Kernel:
    """Stands for a Triton kernel: its tensors must lie on the device, the last are its results."""

    def __init__(self, gpu: PretendedGpu, name: str, results: int) -> None:
        self.gpu = gpu
        self.name = name
        self.results = results

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self._launch

    def _launch(self, *args: Any, **constants: Any) -> None:
        self.gpu.operations += 1
        tensors = tensors_in(args)
        if any(self.gpu.side(tensor) is Side.HOST for tensor in tensors):
            self.gpu.note_mixed(self.name)
        counted = self.gpu.operations
        for result in tensors[-self.results :]:
            result.zero_()
        self.gpu.operations = counted
