"""One rank of test_distribution.py: trains by Shampoo in several ways and saves what it has.

``ranks_process.py <rank> <ranks> <folder> <folder of the checkpoint to go on with, or ->``
"""

from __future__ import annotations

import copy
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from recsys.core.errors import TrainingError
from recsys.optim import AdamGrafting, DDPDistribution, DistributedShampoo, Momentum, SGDGrafting

STEPS = 6
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SETTINGS: dict[str, Any] = {
    "lr": 0.02,
    "betas": (0.9, 0.95),
    "epsilon": 1e-3,
    "weight_decay": 0.1,
    "max_preconditioner_dim": 4,
    "precondition_frequency": 2,
    "grafting": AdamGrafting(),
    "momentum": Momentum(0.5),
}


def model_of(sizes: tuple[int, ...] = (7, 5, 3)) -> nn.Sequential:
    """Weights [5, 7] and [3, 5] make four blocks and two, the biases two and one."""
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(a, b) for a, b in pairwise(sizes)])


def gradient(parameter: nn.Parameter, index: int, step: int, scale: float = 1.0) -> Tensor | None:
    """The same on every rank; the second weight has none in two of the steps."""
    if index == 2 and step in (1, 3):
        return None
    generator = torch.Generator().manual_seed(100 * step + index)
    return scale * torch.randn(parameter.shape, generator=generator)


def train(
    model: nn.Module,
    optimizer: DistributedShampoo,
    steps: range = range(STEPS),
    scale: float = 1.0,
) -> list[Tensor]:
    """The weights after some steps."""
    parameters = list(model.parameters())
    for step in steps:
        for index, parameter in enumerate(parameters):
            whole = gradient(parameter, index, step, scale)
            if whole is not None and isinstance(parameter, DTensor):
                whole = distribute_tensor(whole, parameter.device_mesh, parameter.placements)
            parameter.grad = whole
        optimizer.step()
    return [
        (one.full_tensor() if isinstance(one, DTensor) else one).detach().clone()
        for one in parameters
    ]


def shampoo(model: nn.Module, **changed: Any) -> DistributedShampoo:
    settings = SETTINGS | changed
    *most, last = model.named_parameters()
    return DistributedShampoo([{"params": most}, {"params": [last], "lr": 0.01}], **settings)


def state_of(optimizer: DistributedShampoo) -> dict[str, Any]:
    """Which blocks this rank holds, and how many numbers."""
    tensors = {
        f"{position}.{name}": tensor
        for position, parameter in enumerate(
            parameter for group in optimizer.param_groups for parameter in group["params"]
        )
        for name, tensor in optimizer.state[parameter].items()
        if name != "step"
    }
    return {
        "blocks": sorted({name.rsplit(".", 1)[0] for name in tensors}),
        "numbers": sum(tensor.numel() for tensor in tensors.values()),
        "all DTensor": all(isinstance(tensor, DTensor) for tensor in tensors.values()),
        "copies": sorted({tensor.device_mesh.size() for tensor in tensors.values()}),
    }


def resumed(distributed: DDPDistribution | None, steps: int = 3) -> list[Tensor]:
    """A training that is cut off and goes on with a plain state, of this rank alone."""
    model = model_of()
    optimizer = shampoo(model, distributed=distributed)
    train(model, optimizer, range(steps))
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    model = model_of()
    model.load_state_dict(weights)
    optimizer = shampoo(model, distributed=distributed)
    optimizer.load_state_dict(state)
    return train(model, optimizer, range(steps, STEPS))


def save(folder: Path, distributed: DDPDistribution | None) -> None:
    """Write a checkpoint after three steps."""
    model = model_of()
    optimizer = shampoo(model, distributed=distributed)
    train(model, optimizer, range(3))
    state = {"model": model.state_dict(), "optim": get_optimizer_state_dict(model, optimizer)}
    dcp.save(state, checkpoint_id=folder)


def load(folder: Path, distributed: DDPDistribution | None) -> list[Tensor]:
    """Go on with a checkpoint, of any number of ranks."""
    model = model_of()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    optimizer = shampoo(model, distributed=distributed)
    state = {"model": model.state_dict(), "optim": get_optimizer_state_dict(model, optimizer)}
    dcp.load(state, checkpoint_id=folder)
    set_optimizer_state_dict(model, optimizer, state["optim"])
    return train(model, optimizer, range(3, STEPS))


def alternating(distributed: DDPDistribution | None) -> dict[str, Any]:
    """Two losses in turn: the second layer has gradients only between the steps with roots.

    It goes on with the state of the fourth step, at which its roots are overdue.
    """
    model = model_of()
    optimizer = shampoo(model, distributed=distributed)
    of_second = list(model[1].parameters())
    for step in range(STEPS + 1):
        for index, parameter in enumerate(model.parameters()):
            one = gradient(parameter, index, 2 * step)
            parameter.grad = one if (index >= 2) == (step % 2 == 0) else None
        if step == 4:
            optimizer.consolidate_state_dict()
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = shampoo(model, distributed=distributed)
            if distributed is not None:
                states: list[Any] = [state]
                dist.broadcast_object_list(states)
                [state] = states
            optimizer.load_state_dict(state)
        optimizer.step()
    roots = [
        tensor.to_local() if isinstance(tensor, DTensor) else tensor
        for parameter in of_second
        for name, tensor in optimizer.state[parameter].items()
        if "inverse_root" in name
    ]
    unlike = [not torch.equal(root, torch.eye(len(root))) for root in roots]
    weights = [one.detach().clone() for one in model.parameters()]
    return {"weights": weights, "computed": all(unlike), "roots": len(roots)}


def fsdp(**changed: Any) -> list[Tensor]:
    model = model_of()
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    return train(model, shampoo(model, **changed))


def main(rank: int, ranks: int, folder: Path, checkpoint: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=ranks
    )
    results: dict[str, Any] = {}
    for name, dtype in DTYPES.items():
        model = model_of()
        optimizer = shampoo(model, distributed=DDPDistribution(dtype))
        results[name] = train(model, optimizer)
        results["state"] = state_of(optimizer)
        model = model_of()
        optimizer = shampoo(model, distributed=DDPDistribution(dtype), grafting=SGDGrafting(),
                            weight_decay=0.0, lr=1e6)  # fmt: skip
        results[f"small {name}"] = train(model, optimizer, scale=1e-9)
    model = model_of()
    optimizer = shampoo(model, distributed=DDPDistribution(ranks_per_group=1))
    results["alone"] = train(model, optimizer)
    results["alone state"] = state_of(optimizer)
    if ranks == 4:
        model = model_of()
        optimizer = shampoo(model, distributed=DDPDistribution(ranks_per_group=2))
        results["pairs"] = train(model, optimizer)
        results["pairs state"] = state_of(optimizer)
    one_block = nn.Linear(2, 2, bias=False)
    nn.init.ones_(one_block.weight)
    optimizer = DistributedShampoo(one_block.parameters(), distributed=DDPDistribution())
    results["one block"] = train(one_block, optimizer)
    optimizer = DistributedShampoo(
        one_block.parameters(), distributed=DDPDistribution(), max_preconditioner_dim=2
    )
    try:  # its square overflows
        train(one_block, optimizer, scale=1e30)
    except TrainingError as error:
        results["failing"] = str(error)
    results["alternating"] = alternating(DDPDistribution())
    results["resumed"] = resumed(DDPDistribution())
    model = model_of()
    optimizer = shampoo(model, distributed=DDPDistribution())
    train(model, optimizer, range(3))
    optimizer.consolidate_state_dict()
    results["consolidated"] = {"weights": model.state_dict(), "optim": optimizer.state_dict()}
    results["fsdp"] = fsdp()
    results["fsdp shared"] = fsdp(distributed=DDPDistribution())
    save(folder / "checkpoint", DDPDistribution())
    results["same ranks"] = load(folder / "checkpoint", DDPDistribution())
    results["other ranks"] = load(Path(checkpoint), DDPDistribution())
    if rank > 0:
        results.pop("consolidated")
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
