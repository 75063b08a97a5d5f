"""`recsys preflight`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from recsys.core.composition import compose
from recsys.core.console import message_console, output_console
from recsys.core.errors import RecsysError
from recsys.distributed.preflight.check import Preflight, preflight
from recsys.distributed.preflight.config import PreflightConfig

_WIDTH = 120


def configure(overrides: Sequence[str]) -> PreflightConfig:
    """Compose conf/preflight.yaml."""
    return compose("preflight", PreflightConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Check the nodes and print a line for each.

    Raises:
        RecsysError: a node is not fit.
    """
    found = preflight(configure(overrides))
    if found is None:
        return
    output_console(_WIDTH).print(_table(found))
    for line in _rates(found):
        message_console().print(line)
    if found.bad:
        names = ", ".join(found.bad)
        raise RecsysError(
            f"{len(found.bad)} of {len(found.nodes)} nodes are not fit: {names}. Take them out of "
            "the run (under SLURM launcher.options=['--exclude=…']) and have them looked at."
        )


def _table(found: Preflight) -> Table:
    table = Table(title="Nodes")
    for name in ("node", "ranks", "GPUs", "GiB/s within", "GiB/s between", "state"):
        table.add_column(name, justify="left" if name in ("node", "state") else "right")
    for node in found.nodes:
        table.add_row(
            node.name,
            _span(node.ranks),
            "" if node.facts is None else str(len(node.facts.gpus)),
            _rate(node.in_node),
            _rate(node.across),
            found.bad.get(node.name, "fit"),
        )
    return table


def _rates(found: Preflight) -> list[str]:
    lines = []
    measured = [one for node in found.nodes for one in node.measured.values()]
    of_all = [(one.all_reduce, one.all_to_all) for one in measured]
    reduced = [one for one, _ in of_all if one is not None]
    exchanged = [one for _, one in of_all if one is not None]
    if reduced and exchanged:
        lines.append(
            f"All {len(measured)} processes at once: all-reduce {min(reduced):.3g} GiB/s, "
            f"all-to-all {min(exchanged):.3g} GiB/s that each sends."
        )
    settings = [
        f"strategy.topology.{key}={value:.3g}"
        for key, value in (("intra_node_gib_s", found.in_node), ("cross_node_gib_s", found.across))
        if value is not None
    ]
    if settings:
        lines.append(f"For the planner: {' '.join(settings)}")
    return lines


def _span(ranks: Sequence[int]) -> str:
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.3g}"
