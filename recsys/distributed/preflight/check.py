"""The check of a run's nodes: who answers, what each has, and how fast they exchange.

Everything that is said goes through the store at which the processes meet, so that the first one
still has a table, with the name of the bad node, where the exchanges themselves do not work.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from recsys.core.errors import ConfigError, RecsysError
from recsys.core.folders import FolderKind, check_folder
from recsys.core.json_files import read_json, write_json
from recsys.distributed.config import TopologyConfig
from recsys.distributed.gpus import gpu_of
from recsys.distributed.meeting import meet
from recsys.distributed.preflight.bandwidth import measure
from recsys.distributed.preflight.config import PreflightConfig
from recsys.distributed.preflight.node import facts_of, own_name
from recsys.distributed.preflight.verdict import NodeState, bandwidths, unfit
from recsys.distributed.processes import launcher, on_processes, started_by_a_launcher

#: What was found, and the names of nodes that are not fit, a line each, where there are some.
PREFLIGHT_FILE, BAD_NODES = "preflight.json", "bad_nodes"
PREFLIGHT_FOLDER = FolderKind(
    "the folder of a check of nodes", PREFLIGHT_FILE, ("nodes", "bad"), (BAD_NODES,)
)

_KIND = "check of nodes"


@dataclass(frozen=True)
class Preflight:
    """What a check has found.

    Attributes:
        nodes: all, in the order of their ranks.
        bad: why nodes are not fit, by name.
        in_node: GiB per second that a process sends within a node; None of one process a node.
        across: GiB per second that it sends to other nodes; None of one node.
    """

    nodes: list[NodeState]
    bad: dict[str, str]
    in_node: float | None
    across: float | None


def preflight(config: PreflightConfig) -> Preflight | None:
    """Check the nodes and write what was found.

    Returns:
        It, on the first process; None on the others.

    Raises:
        ConfigError: the launcher has started another number of processes, or the folder is taken.
        RecsysError: the first process does not answer.
    """
    if config.out is not None:
        check_folder(Path(config.out), PREFLIGHT_FOLDER)
    if started_by_a_launcher():
        return _check(config)
    return on_processes(config.processes, _check, config)


def _check(config: PreflightConfig) -> Preflight | None:
    wait = timedelta(seconds=config.wait_seconds)
    store, rank = meet(config.processes, wait)
    world, gpus = config.processes, torch.cuda.device_count()
    device = torch.device("cpu")
    if gpus:
        device = torch.device("cuda", gpu_of(launcher().local_rank(), gpus))
        torch.cuda.set_device(device)
    _say(store, f"node/{rank}", own_name())
    _say(store, f"facts/{rank}", facts_of(own_name()))
    if rank == 0:
        return _first(config, store, world, device, wait)
    try:
        store.wait(["go"], wait * 3)
    except RuntimeError as error:
        raise RecsysError("The first process has not said to go on; it has said why.") from error
    if store.get("go") == b"yes":
        _exchange(config, store, rank, world, device, wait)
    with suppress(RuntimeError):  # the store ends with the first process, which knows all by then
        store.wait(["end"], wait * 3)
    return None


def _first(
    config: PreflightConfig,
    store: dist.TCPStore,
    world: int,
    device: torch.device,
    wait: timedelta,
) -> Preflight:
    """What the first process does: look who is there, have all exchange, and judge."""
    facts = _heard(store, "facts", world, config.wait_seconds)
    whole = len(facts) == world
    store.set("go", "yes" if whole else "no")
    names = _names(store, world)
    nodes = []
    measured = {}
    if whole:
        _exchange(config, store, 0, world, device, wait)
        measured = _heard(store, "measured", world, config.wait_seconds)
    for name in dict.fromkeys(names):
        ranks = [rank for rank in range(world) if names[rank] == name]
        known = next((facts[rank] for rank in ranks if rank in facts), None)
        of_node = {rank: measured[rank] for rank in ranks if measured.get(rank) is not None}
        heard = measured if whole else facts
        silent = [rank for rank in ranks if rank not in heard]
        nodes.append(NodeState(name, ranks, known, of_node, silent))
    store.set("end", "yes")
    bad = unfit(nodes, config.gpus, config.slow)
    found = Preflight(nodes, bad, *bandwidths(nodes))
    if not bad and not all(node.measured for node in nodes):
        raise RecsysError(
            "All nodes answer, but they cannot exchange: "
            f"{store.get('failed/0').decode() if store.check(['failed/0']) else 'no word why'}; "
            "look at which interface they take (NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME)."
        )
    if config.out is not None:
        _write(Path(config.out), found)
    return found


def _exchange(
    config: PreflightConfig,
    store: dist.TCPStore,
    rank: int,
    world: int,
    device: torch.device,
    wait: timedelta,
) -> None:
    """Exchange with the others, and say at which rates, or that it did not work."""
    names = _names(store, world)
    order = list(dict.fromkeys(names))
    places = [
        (order.index(name), sum(one == name for one in names[:number]))
        for number, name in enumerate(names)
    ]
    backend = "nccl" if device.type == "cuda" else "gloo"
    found = None
    try:
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("preflight", store),
            rank=rank,
            world_size=world,
            timeout=wait,
        )
        found = measure(places, config.mebibytes, device)
    except RuntimeError as error:  # of a connection, or after ``wait``
        store.set(f"failed/{rank}", " ".join(str(error).split())[:300])
    _say(store, f"measured/{rank}", found)
    if found is not None:
        dist.destroy_process_group()


def _say(store: dist.TCPStore, what: str, value: object) -> None:
    said: Any = pickle.dumps(value)  # bytes, of which the stub knows nothing
    store.set(what, said)


def _heard(store: dist.TCPStore, what: str, world: int, seconds: float) -> dict[int, Any]:
    """What the ranks have said before so many seconds were over, by rank."""
    deadline = time.monotonic() + seconds
    found: dict[int, Any] = {}
    while len(found) < world:
        for rank in range(world):
            if rank not in found and store.check([f"{what}/{rank}"]):
                found[rank] = pickle.loads(store.get(f"{what}/{rank}"))
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return found


def _names(store: dist.TCPStore, world: int) -> list[str]:
    """The node of every rank: as it says, or as SLURM has put it there."""
    told = _of_slurm(world)
    return [
        pickle.loads(store.get(f"node/{rank}"))
        if store.check([f"node/{rank}"])
        else told.get(rank, f"the node of rank {rank}")
        for rank in range(world)
    ]


def _of_slurm(world: int) -> dict[int, str]:
    """The node of every rank of a job of SLURM, which fills one node after the other."""
    given = os.environ.get("SLURM_JOB_NODELIST")
    if given is None:
        return {}
    command = ["scontrol", "show", "hostnames", given]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # in a container
        return {}
    nodes = asked.stdout.split()
    per_node = max(world // len(nodes), 1)
    return {rank: nodes[min(rank // per_node, len(nodes) - 1)] for rank in range(world)}


def _write(folder: Path, found: Preflight) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "nodes": [asdict(node) for node in found.nodes],
        "bad": found.bad,
        "intra_node_gib_s": found.in_node,
        "cross_node_gib_s": found.across,
    }
    write_json(folder / PREFLIGHT_FILE, _KIND, content)
    if found.bad:
        (folder / BAD_NODES).write_text("".join(f"{name}\n" for name in found.bad))
    else:
        (folder / BAD_NODES).unlink(missing_ok=True)


def bandwidths_of(topology: TopologyConfig) -> tuple[float, float]:
    """GiB per second within a node and between nodes: as measured, else as the settings say.

    Raises:
        ConfigError: ``measured`` is no file of a check, or it is damaged.
    """
    given = topology.intra_node_gib_s, topology.cross_node_gib_s
    if topology.measured is None:
        return given
    mend = "check the nodes again by launchers/slurm/submit preflight, or leave it out."
    content = read_json(Path(topology.measured), _KIND, ConfigError, mend)
    found = content["intra_node_gib_s"], content["cross_node_gib_s"]
    in_node, across = (one or other for one, other in zip(found, given, strict=True))
    return in_node, across
