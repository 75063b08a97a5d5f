"""The check of nodes: real processes, and what is said of nodes that are not like the others."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from recsys.cli import preflight as command
from recsys.core.errors import ConfigError, RecsysError
from recsys.distributed.config import TopologyConfig
from recsys.distributed.preflight import check
from recsys.distributed.preflight.bandwidth import pairs_of_round, partner
from recsys.distributed.preflight.check import (
    BAD_NODES,
    PREFLIGHT_FILE,
    Preflight,
    bandwidths_of,
)
from recsys.distributed.preflight.config import PreflightConfig
from recsys.distributed.preflight.node import Facts, Measured, facts_of
from recsys.distributed.preflight.verdict import NodeState, bandwidths, unfit
from recsys.distributed.processes import on_processes

FACTS = Facts("", {"torch": "2.13.0", "python": "3.11.7"}, ["H100"] * 8)


def state(name: str, across: float = 10.0, **facts: object) -> NodeState:
    """A node of eight processes' first that is like the others but for what is given."""
    measured = {0: Measured(True, [200.0, 100.0], [across / 2, across])}
    return NodeState(name, [0], replace(FACTS, node=name, **facts), measured)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [2, 3, 4, 7, 8])
def test_in_a_tournament_everyone_meets_each_other_once(count: int) -> None:
    rounds = count - 1 + count % 2
    met = [pair for number in range(rounds) for pair in pairs_of_round(number, count)]
    assert sorted(met) == [(a, b) for a in range(count) for b in range(a + 1, count)]
    for number in range(rounds):
        for one, other in pairs_of_round(number, count):
            assert partner(one, number, count) == other and partner(other, number, count) == one


def test_the_node_that_is_not_like_the_others_is_named_with_what_differs() -> None:
    nodes = [state("a"), state("b"), state("c"), state("d")]
    assert unfit(nodes, None, 0.5) == {}
    nodes[1] = state("b", versions={"torch": "2.11.0", "python": "3.11.7"})
    nodes[2] = state("c", gpus=["H100"] * 7)
    nodes[3] = NodeState("d", [3], None, silent=[3])
    assert unfit(nodes, None, 0.5) == {
        "b": "torch 2.11.0 and not 2.13.0",
        "c": "7 GPUs and not 8",
        "d": "does not answer",
    }
    assert set(unfit([state("a"), state("b")], 4, 0.5)) == {"a", "b"}  # as the launcher wants it
    wrong = replace(state("b"), measured={0: Measured(False)}, silent=[1])
    said = unfit([state("a"), wrong], None, 0.5)
    assert said == {"b": "rank 1 does not come back; sums over all ranks are wrong there"}
    other = state("c", gpus=["A100"] * 8, versions={"torch": "2.13.0"})
    said = unfit([state("a"), state("b"), other], None, 0.5)
    assert said == {"c": "python absent and not 3.11.7; GPUs A100 and not H100"}


def test_a_slow_node_is_told_from_three_nodes_on() -> None:
    nodes = [state("a", 10.0), state("b", 12.0), state("c", 4.9)]
    assert unfit(nodes, None, 0.5) == {"c": "4.9 GiB/s between nodes, the median is 10"}
    assert unfit(nodes, None, 0.4) == {}
    assert unfit(nodes[1:], None, 0.5) == {}
    assert bandwidths(nodes) == (200.0, 10.0)


def check_as_two_nodes(config: PreflightConfig) -> Preflight | None:
    """What both processes of a test do: each is a node, and the second has another torch."""
    rank = os.environ["RANK"]
    os.environ["SLURMD_NODENAME"] = f"node{rank}"

    def facts(node: str) -> Facts:
        found = facts_of(node)
        versions = {**found.versions, "torch": "1.0"} if rank == "1" else found.versions
        return replace(found, versions=versions)

    with patch.object(check, "facts_of", facts):
        return check._check(config)


def test_two_processes_are_checked_and_what_they_measure_is_the_planner_s(tmp_path: Path) -> None:
    config = PreflightConfig(processes=2, mebibytes=1, out=str(tmp_path / "found"))
    found = on_processes(2, check_as_two_nodes, config)
    assert found is not None
    assert [node.name for node in found.nodes] == ["node0", "node1"]
    assert list(found.bad) == ["node1"] and found.bad["node1"].startswith("torch 1.0 and not 2.")
    assert (tmp_path / "found" / BAD_NODES).read_text() == "node1\n"
    for node in found.nodes:
        [measured] = node.measured.values()
        assert measured.sums_are_right and len(measured.across) == 1 and not measured.in_node
        assert measured.all_reduce and measured.all_to_all
    topology = TopologyConfig(measured=str(tmp_path / "found" / PREFLIGHT_FILE))
    assert bandwidths_of(topology) == (600.0, found.across)  # one process a node
    assert bandwidths_of(TopologyConfig()) == (600.0, 12.5)
    with pytest.raises(ConfigError, match=r"preflight\.json is missing; check the nodes again"):
        bandwidths_of(TopologyConfig(measured=str(tmp_path / PREFLIGHT_FILE)))
    table = command._table(found)
    assert [column.header for column in table.columns][-1] == "state"
    with (
        patch.object(command, "preflight", lambda config: found),
        pytest.raises(RecsysError, match="1 of 2 nodes are not fit: node1"),
    ):
        command.run([])


def one_comes_late(config: PreflightConfig) -> Preflight | None:
    if os.environ["RANK"] == "1":
        time.sleep(20)
    return check._check(config)


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_named(tmp_path: Path) -> None:
    config = PreflightConfig(processes=2, mebibytes=1, wait_seconds=2, out=str(tmp_path / "found"))
    found = on_processes(2, one_comes_late, config)
    assert found is not None and found.bad == {"the node of rank 1": "does not answer"}
    assert (tmp_path / "found" / BAD_NODES).read_text() == "the node of rank 1\n"
