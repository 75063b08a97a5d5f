"""FBGEMM's lookup, and its backward with the update inside, against torch's `embedding_bag`.

One table, bags of equal length, rows drawn with Zipf's law as items of a log are. Torch's side has
a sparse gradient and SGD; FBGEMM's updates in the backward by the same SGD, so that both write the
rows that were looked up once. The limit is how fast the device copies memory, measured in the same
run: a forward reads a row per lookup, a step reads it, reads the gradient and writes the row.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor
from torchrec import EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection

from recsys.core.console import output_console

DESCRIPTION = "FBGEMM's lookup and backward against embedding_bag, beside the memory's speed"

_LEARNING_RATE = 0.01
_BYTES = 4
_MIB = 2**20


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        device: ``cpu`` or ``cuda``.
        rows: R, of the table.
        width: D.
        bags: B.
        lookups: of a bag.
        repeats: of each measurement; the median counts.
        copied_mib: size of the copy that measures the memory.
    """

    device: str = "cpu"
    rows: int = 200_000
    width: int = 64
    bags: int = 1024
    lookups: int = 50
    repeats: int = 10
    copied_mib: int = 256


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    limit = copy_rate(config)
    ours, theirs = _fbgemm(config), _torch(config)
    difference = float((ours[0]() - theirs[0]()).detach().abs().max())
    row_bytes = config.bags * config.lookups * config.width * _BYTES
    figures = []
    table = Table("part", "side", "ms", "GB/s", f"of {limit / 1e9:.1f} GB/s copied")
    for part, index, moved in (("forward", 0, row_bytes), ("forward and update", 1, 4 * row_bytes)):
        for name, side in (("FBGEMM", ours), ("embedding_bag", theirs)):
            seconds = median_seconds(side[index], config.device, config.repeats)
            rate = moved / seconds
            shown = (f"{1e3 * seconds:.3f}", f"{rate / 1e9:.1f}", f"{rate / limit:.0%}")
            table.add_row(part, name, *shown)
            figures.append({"part": part, "side": name, "seconds": seconds, "rate": rate})
    output_console().print(table)
    output_console().print(f"Largest difference of the pooled rows: {difference:.1e}")
    return asdict(config) | {"limit": limit, "difference": difference, "figures": figures}


def copy_rate(config: Config) -> float:
    """Bytes per second that are read and written when memory is copied on the device."""
    source = torch.empty(config.copied_mib * _MIB, dtype=torch.uint8, device=config.device)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), config.device, config.repeats)
    return 2 * source.numel() / seconds


def median_seconds(call: Callable[[], object], device: str, repeats: int) -> float:
    """Median time of a call after two that are not counted, until the device has done it."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    times = []
    for _ in range(repeats + 2):
        wait()
        begun = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - begun)
    return float(np.median(times[2:]))


Side = tuple[Callable[[], Tensor], Callable[[], None]]


def _inputs(config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """The first weights [R, D], indices [B · lookups] and offsets [B + 1], on the device."""
    generator = np.random.default_rng(0)
    drawn = generator.zipf(1.2, config.bags * config.lookups) % config.rows
    weight = generator.normal(size=(config.rows, config.width)).astype(np.float32)
    offsets = torch.arange(0, len(drawn) + 1, config.lookups)
    moved = (torch.from_numpy(weight), torch.from_numpy(drawn), offsets)
    first, indices, bounds = (part.to(config.device) for part in moved)
    return first, indices, bounds


def _fbgemm(config: Config) -> Side:
    weight, indices, offsets = _inputs(config)
    collection = FusedEmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name="rows",
                num_embeddings=config.rows,
                embedding_dim=config.width,
                feature_names=["rows"],
            )
        ],
        optimizer_type=torch.optim.SGD,
        optimizer_kwargs={"lr": _LEARNING_RATE},
        device=torch.device(config.device),
    )
    with torch.no_grad():
        collection.state_dict()["embedding_bags.rows.weight"].copy_(weight)
    features = KeyedJaggedTensor(keys=["rows"], values=indices, offsets=offsets)

    def forward() -> Tensor:
        pooled: Tensor = collection(features).values()
        return pooled

    return forward, lambda: forward().sum().backward()


def _torch(config: Config) -> Side:
    weight, indices, offsets = _inputs(config)
    weight.requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=_LEARNING_RATE)

    def forward() -> Tensor:
        return F.embedding_bag(indices, weight, offsets[:-1], mode="sum", sparse=True)

    def step() -> None:
        optimizer.zero_grad()
        forward().sum().backward()
        optimizer.step()

    return forward, step
