"""One rank of `recsys bench shampoo`: trains one model by one optimiser and times its steps.

``python _shampoo_side.py <arguments as JSON>`` prints its figures as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.flop_counter import FlopCounterMode

from recsys.optim import AdamGrafting, DDPDistribution, DistributedShampoo
from recsys.optim.shampoo.blocks import blocks_of

#: Steps between two computations of roots while measuring; other frequencies follow from it.
PERIOD = 4
_LARGEST = 1024
_BETAS = (0.9, 0.999)
_LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Workload:
    """What is trained.

    Attributes:
        parameters: the dense ones, which the measured optimiser has.
        loss: of the next batch.
    """

    parameters: list[nn.Parameter]
    loss: Callable[[], Tensor]


def dv365(sizes: dict[str, int], overrides: list[str]) -> Workload:
    """DV365's dense part; its tables are updated within the backward."""
    from benchmarks._training import build_model
    from recsys.core.composition import compose
    from recsys.data.loaders.requests import RequestDataModule
    from recsys.data.stores.dataset import PreparedDataset
    from recsys.optim.dense import dense_parameters
    from recsys.systems.dv365.system import DV365RunConfig

    config = compose("train", DV365RunConfig, overrides)
    dataset = PreparedDataset.open(config.data.out_folder)
    model = build_model(config, dataset)
    model.configure_model()
    data = RequestDataModule(config.loader, dataset)
    batch = next(iter(data.train_dataloader()))

    def loss() -> Tensor:
        value: Tensor = model.loss(model(batch), batch.labels)
        return value

    return Workload(dense_parameters(model), loss)


def resnet50(sizes: dict[str, int], _: list[str]) -> Workload:
    """He et al., 2015: bottlenecks of 3, 4, 6 and 3 blocks, 1000 classes."""
    layers: list[nn.Module] = [_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    width = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(_Bottleneck(width, 64 * 2**stage, stride))
            width = 256 * 2**stage
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000))
    side = sizes["resnet50_pixels"]
    images = torch.randn(sizes["resnet50_images"], 3, side, side)
    classes = torch.arange(len(images))
    return Workload(
        list(model.parameters()), lambda: nn.functional.cross_entropy(model(images), classes)
    )


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(inputs, width, 1, 1),
            nn.ReLU(),
            _convolution(width, width, 3, stride),
            nn.ReLU(),
            _convolution(width, 4 * width, 1, 1),
        )
        same = inputs == 4 * width and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inputs, 4 * width, 1, stride)

    def forward(self, images: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, 4 · width, H / stride, W / stride]."""
        return nn.functional.relu(self.body(images) + self.shortcut(images))


def transformer(sizes: dict[str, int], _: list[str]) -> Workload:
    """Two layers, four heads, a hidden layer four times as wide."""
    width = sizes["transformer_width"]
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    shape = (sizes["transformer_sequences"], sizes["transformer_steps"], width)
    tokens, target = torch.randn(shape), torch.randn(shape)
    return Workload(list(model.parameters()), lambda: nn.functional.mse_loss(model(tokens), target))


WORKLOADS = {"dv365": dv365, "resnet50": resnet50, "transformer": transformer}


def optimizer_of(
    name: str, parameters: list[nn.Parameter], ranks: int, peer: str | None
) -> torch.optim.Optimizer:
    """AdamW, our Shampoo, or one of the package pytorch-optimizer, which lies in ``peer``."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=_LEARNING_RATE, betas=_BETAS, fused=True)
    if name.startswith("shampoo"):
        return DistributedShampoo(
            parameters,
            lr=_LEARNING_RATE,
            betas=_BETAS,
            max_preconditioner_dim=_LARGEST,
            precondition_frequency=PERIOD,
            grafting=AdamGrafting(_BETAS[1]),
            distributed=DDPDistribution() if ranks > 1 else None,
        )
    assert peer is not None
    sys.path.append(peer)
    import pytorch_optimizer  # type: ignore[import-not-found]

    if name == "pytorch-optimizer Shampoo":
        theirs: torch.optim.Optimizer = pytorch_optimizer.ScalableShampoo(
            parameters,
            lr=_LEARNING_RATE,
            betas=_BETAS,
            block_size=_LARGEST,
            start_preconditioning_step=PERIOD,
            preconditioning_compute_steps=PERIOD,
        )
        return theirs
    soap: torch.optim.Optimizer = pytorch_optimizer.SOAP(
        parameters,
        lr=_LEARNING_RATE,
        betas=_BETAS,
        max_precondition_dim=_LARGEST,
        precondition_frequency=PERIOD,
    )
    return soap


def shampoo_arithmetic(parameters: list[nn.Parameter]) -> int:
    """Operations of factor matrices and preconditioning per step: 4 · m · n · (m + n) a block."""
    return sum(
        4 * torch.Size(block.shape).numel() * sum(block.shape)
        for position, parameter in enumerate(parameters)
        for block in blocks_of(position, parameter.shape, _LARGEST)
    )


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Of all tensors that this rank keeps for its optimiser."""
    seen = {id(tensor): tensor for state in optimizer.state.values() for tensor in _tensors(state)}
    return sum(tensor.numel() * tensor.element_size() for tensor in seen.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in dictionaries, lists and the attributes of objects."""
    if isinstance(value, DTensor):
        yield value.to_local()
    elif isinstance(value, Tensor):
        if not isinstance(value, nn.Parameter):
            yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value))


def measure(arguments: dict[str, Any]) -> dict[str, float]:
    """Seconds of forward and backward, and of steps of the optimiser with and without roots."""
    torch.manual_seed(0)
    torch.set_num_threads(arguments["threads"])
    workload = WORKLOADS[arguments["workload"]](arguments["sizes"], arguments["overrides"])
    ranks = arguments["ranks"]
    optimizer = optimizer_of(arguments["optimizer"], workload.parameters, ranks, arguments["peer"])
    with FlopCounterMode(display=False) as counter:
        workload.loss().backward()
    backward: list[float] = []
    plain: list[float] = []
    roots: list[float] = []
    for step in range(1, PERIOD * (1 + arguments["periods"]) + 1):
        optimizer.zero_grad()
        start = time.perf_counter()
        workload.loss().backward()
        for parameter in workload.parameters if ranks > 1 else []:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
        middle = time.perf_counter()
        optimizer.step()
        end = time.perf_counter()
        if step <= PERIOD:  # state is made, preconditioning begins
            continue
        backward.append(middle - start)
        (plain if step % PERIOD else roots).append(end - middle)
    return {
        "backward": statistics.median(backward),
        "plain": statistics.median(plain),
        "roots": statistics.median(roots),
        "state_bytes": state_bytes(optimizer),
        "parameters": sum(one.numel() for one in workload.parameters),
        "bound": shampoo_arithmetic(workload.parameters) / counter.get_total_flops(),
    }


def main(arguments: dict[str, Any]) -> None:
    """Join the other ranks, measure, and print."""
    if arguments["ranks"] > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{Path(arguments['folder']) / 'rendezvous'}",
            rank=arguments["rank"],
            world_size=arguments["ranks"],
        )
    figures = measure(arguments)
    print(json.dumps(figures), flush=True)
    if arguments["ranks"] > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
