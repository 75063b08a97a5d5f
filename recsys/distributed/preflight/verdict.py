"""Which nodes are not fit for a run, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from recsys.distributed.preflight.node import Facts, Measured

One = TypeVar("One")


@dataclass(frozen=True)
class NodeState:
    """What is known of a node.

    Attributes:
        name: of the node.
        ranks: its processes.
        facts: None where no process of it has answered.
        measured: what its processes have measured, by rank; none where there was no exchange.
        silent: ranks that did not answer, or did not come back from an exchange.
    """

    name: str
    ranks: list[int]
    facts: Facts | None = None
    measured: dict[int, Measured] = field(default_factory=dict)
    silent: list[int] = field(default_factory=list)

    @property
    def across(self) -> float | None:
        """GiB per second of its processes' best exchange with another node."""
        return max((max(one.across) for one in self.measured.values() if one.across), default=None)

    @property
    def in_node(self) -> float | None:
        """GiB per second between its processes: of each the best, of these the least."""
        rates = (max(one.in_node) for one in self.measured.values() if one.in_node)
        return min(rates, default=None)


def unfit(nodes: Sequence[NodeState], gpus: int | None, slow: float) -> dict[str, str]:
    """What is wrong, by name of the node; the others are fit.

    A node is compared with what most nodes have; where as many have one thing as another, with the
    first of them.

    Args:
        nodes: all nodes of the run, in the order of their ranks.
        gpus: that a node must have; None for as many as most have.
        slow: share of the median rate below which a node is not fit.
    """
    answered = [node.facts for node in nodes if node.facts is not None]
    usual = {
        name: _most([facts.versions.get(name, "absent") for facts in answered])
        for name in sorted({name for facts in answered for name in facts.versions})
    }
    wanted = gpus if gpus is not None else _most([len(facts.gpus) for facts in answered] or [0])
    kind = _most([_kind(facts) for facts in answered] or [""])
    rates = {
        "between nodes": {node.name: node.across for node in nodes},
        "within the node": {node.name: node.in_node for node in nodes},
    }
    found: dict[str, list[str]] = {node.name: _wrong(node, usual, wanted, kind) for node in nodes}
    for where, by_node in rates.items():
        for name, problem in _slow(by_node, slow, where).items():
            found[name].append(problem)
    return {name: "; ".join(problems) for name, problems in found.items() if problems}


def _wrong(node: NodeState, usual: Mapping[str, str], gpus: int, kind: str) -> list[str]:
    if node.facts is None:
        return ["does not answer"]
    versions = node.facts.versions
    found = [
        f"{name} {versions.get(name, 'absent')} and not {one}"
        for name, one in usual.items()
        if versions.get(name, "absent") != one
    ]
    if len(node.facts.gpus) != gpus:
        found.append(f"{len(node.facts.gpus)} GPUs and not {gpus}")
    elif _kind(node.facts) != kind:
        found.append(f"GPUs {_kind(node.facts)} and not {kind}")
    if node.silent:
        found.append(f"rank {', '.join(map(str, node.silent))} does not come back")
    if not all(one.sums_are_right for one in node.measured.values()):
        found.append("sums over all ranks are wrong there")
    return found


def _slow(rates: Mapping[str, float | None], slow: float, where: str) -> dict[str, str]:
    """Who is below a share of the median: told from three nodes on."""
    known = {name: rate for name, rate in rates.items() if rate is not None}
    if len(known) < 3:
        return {}
    middle = median(known.values())
    return {
        name: f"{rate:.3g} GiB/s {where}, the median is {middle:.3g}"
        for name, rate in known.items()
        if rate < slow * middle
    }


def _kind(facts: Facts) -> str:
    return ", ".join(sorted(set(facts.gpus)))


def _most(values: Sequence[One]) -> One:
    """What is there most often; of several the one that comes first."""
    return Counter(values).most_common(1)[0][0]


def bandwidths(nodes: Sequence[NodeState]) -> tuple[float | None, float | None]:
    """GiB per second that a process sends in a node and between nodes: medians over processes."""
    measured = [one for node in nodes for one in node.measured.values()]
    rates = [[max(one.in_node) for one in measured if one.in_node]]
    rates += [[max(one.across) for one in measured if one.across]]
    in_node, across = (median(one) if one else None for one in rates)
    return in_node, across
