"""Pool softmax and HSTU's attention on a device, beside the rate of its matrix products.

The limit is measured in the same run: square products of the same type. A training step of the pool
softmax is 10 · Q · P · D operations: the logits forward, and for either gradient the logits anew
and its own product. Of HSTU's layers the products of the attention alone are counted, at half of
T², for the future is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from benchmarks.lookup import median_seconds
from recsys.core.console import output_console
from recsys.nn.sequence.hstu import HSTUEncoder
from recsys.nn.softmax.exclusions import Owned
from recsys.nn.softmax.pool_softmax import pool_softmax_loss

DESCRIPTION = "pool softmax and HSTU's layers on a device, beside its matrix products"

_SCALE = 20.0


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        device: ``cpu`` or ``cuda``.
        users: users of the pool softmax' batch; 1024 is NxtPost's.
        steps: states and items of each of them; 100 is NxtPost's.
        width: of an embedding, and of HSTU.
        catalogue: items of a softmax over a catalogue, against 256 queries.
        sequences: users of HSTU's batch.
        length: steps of each of them.
        layers: of HSTU.
        product: rows and columns of the products that are the limit.
        repeats: of each measurement; the median counts.
    """

    device: str = "cpu"
    users: int = 16
    steps: int = 100
    width: int = 64
    catalogue: int = 20_000
    sequences: int = 8
    length: int = 200
    layers: int = 2
    product: int = 1024
    repeats: int = 5


def run(config: Config) -> dict[str, object]:
    """Measure, print a table as soon as a type is done, and return the figures."""
    types = (torch.bfloat16, torch.float32) if config.device == "cuda" else (torch.float32,)
    figures = []
    for dtype in types:
        limit = _product_rate(config, dtype)
        name = str(dtype).removeprefix("torch.")
        table = Table("kernel", "ms", "TFLOP/s", f"of {limit / 1e12:.2f} by products of {name}")
        for kernel, (call, operations) in _kernels(config, dtype).items():
            seconds = median_seconds(call, config.device, config.repeats)
            rate = operations / seconds
            share = f"{rate / limit:.0%}"
            table.add_row(kernel, f"{1e3 * seconds:.3f}", f"{rate / 1e12:.3f}", share)
            figures.append(
                {"kernel": kernel, "type": name, "seconds": seconds, "rate": rate, "limit": limit}
            )
        output_console().print(table)
    return asdict(config) | {"figures": figures}


def _product_rate(config: Config, dtype: torch.dtype) -> float:
    """Operations per second of a square matrix product."""
    size = config.product
    left = torch.randn(size, size, device=config.device, dtype=dtype)
    return 2 * size**3 / median_seconds(lambda: left @ left, config.device, config.repeats)


def _kernels(config: Config, dtype: torch.dtype) -> dict[str, tuple[Callable[[], None], float]]:
    """Each kernel's training step, and how many operations it is."""
    pairs = config.users * config.steps
    return {
        "pool softmax, own items masked": _pool_softmax(config, dtype, pairs, pairs, config.steps),
        "pool softmax, 256 queries, catalogue": _pool_softmax(
            config, dtype, 256, config.catalogue, None
        ),
        "HSTU": _hstu(config, dtype),
    }


def _pool_softmax(
    config: Config, dtype: torch.dtype, queries: int, pool: int, own: int | None
) -> tuple[Callable[[], None], float]:
    left, right = (
        F.normalize(torch.randn(rows, config.width, device=config.device))
        .to(dtype)
        .requires_grad_()
        for rows in (queries, pool)
    )
    target = torch.arange(queries, device=config.device) % pool
    owner = owned = None
    if own is not None:
        owner = target // own
        offsets = torch.arange(0, queries + 1, own, device=config.device)
        owned = Owned(offsets, target)

    def step() -> None:
        loss = pool_softmax_loss(left, right, target, scale=_SCALE, owner=owner, owned=owned)
        torch.autograd.grad(loss, [left, right])

    return step, 10.0 * queries * pool * config.width


def _hstu(config: Config, dtype: torch.dtype) -> tuple[Callable[[], None], float]:
    encoder = HSTUEncoder(
        config.width,
        blocks=config.layers,
        heads=1,
        dropout=0.0,
        max_length=config.length,
        has_times=True,
    )
    encoder.to(config.device)
    events = config.sequences * config.length
    tokens: Tensor = torch.randn(events, config.width, device=config.device, requires_grad=True)
    lengths = torch.full((config.sequences,), config.length, device=config.device)
    times = torch.arange(events, device=config.device) * 60_000

    def step() -> None:
        with torch.autocast(config.device, dtype, enabled=dtype != torch.float32):
            encoder(tokens, lengths, times).sum().backward()

    # two products forward, four backward
    products = 6 * 2 * config.sequences * config.length**2 / 2 * config.width
    return step, float(config.layers * products)
