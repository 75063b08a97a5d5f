"""Parameters as whole tensors: FSDP2 keeps shards of them, and Shampoo's blocks need the whole."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from recsys.optim.shampoo.blocks import WeightBlock


def whole(tensor: Tensor) -> Tensor:
    """A parameter or gradient as one tensor; a collective of the ranks that share it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def can_be_viewed(parameter: Tensor, block: WeightBlock) -> bool:
    """Whether a block of a parameter can be a view of it."""
    if isinstance(parameter, DTensor):
        return False
    return block.shape == block.merged or parameter.is_contiguous()


def add_whole(parameter: Tensor, update: Tensor, alpha: float) -> None:
    """Add a whole tensor to a parameter; each rank changes its shard alone."""
    update = update.to(parameter.dtype)
    if isinstance(parameter, DTensor):
        mesh = parameter.device_mesh
        replicated = DTensor.from_local(update, mesh, [Replicate()] * mesh.ndim, run_check=False)
        update = replicated.redistribute(mesh, parameter.placements)
    parameter.add_(update, alpha=alpha)
