"""A real SLURM of this machine's own: munge, a controller, node daemons."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
PARTITION = "debug"
#: The type of each node's GPUs, and the files that stand for them: nobody opens them.
GPU = "a100"
_DEVICES = ("/dev/null", "/dev/zero")


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        folder: of its configuration, state and logs.
        nodes: names of its nodes.
        daemons: by the name of the node, or of the service.
    """

    folder: Path
    nodes: list[str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def ask(self, *command: str) -> str:
        """What a command of SLURM prints."""
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert asked.returncode == 0, f"{command}: {asked.stderr}"
        return asked.stdout

    def job(self, job: str) -> dict[str, str]:
        """What the controller knows of a job (``JobState``, ``Restarts``, …)."""
        text = self.ask("scontrol", "show", "job", "--oneliner", job)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait(self, job: str, seconds: float) -> dict[str, str]:
        """Wait until a job has ended and return what is known of it."""
        deadline = time.monotonic() + seconds
        while (known := self.job(job))["JobState"] not in ("COMPLETED", "FAILED", "CANCELLED"):
            assert time.monotonic() < deadline, f"{known}\n{self.logs()}"
            time.sleep(0.2)
        return known

    def start(self, name: str, *command: str) -> None:
        """Start a daemon; its output goes to a file."""
        with (self.folder / f"{name}.out").open("wb") as out:
            self.daemons[name] = subprocess.Popen(command, stdout=out, stderr=out)

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self.start(node, "slurmd", "-D", "-N", node)

    def strike(self, node: str) -> None:
        """Kill everything that runs on a node, as a loss of power would."""
        self.daemons[node].kill()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURMD_NODENAME") != node:
                    continue
                parent = process.parent()
                if parent is not None and parent.name() == "slurmstepd":
                    parent.kill()  # first, so that it reports nothing
                process.kill()

    def logs(self) -> str:
        """The last lines of the daemons' logs."""
        paths = sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out"))
        return "\n".join(f"{path.name}: {path.read_text()[-800:]}" for path in paths)

    def stop(self) -> None:
        """End every job and every daemon."""
        subprocess.run(["scancel", "--user", getpass.getuser()], timeout=60)
        deadline = time.monotonic() + 20
        while self.ask("squeue", "--noheader").strip() and time.monotonic() < deadline:
            time.sleep(0.2)
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes on this machine in one partition; the commands of SLURM talk to it."""
    search = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=search) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (on Debian the packages slurm-wlm, munge)")
    host = socket.gethostname().partition(".")[0]
    try:
        socket.gethostbyname(host)  # ranks meet at the first node's name
    except OSError:
        pytest.skip(f"this machine's name {host} does not resolve")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", search)
        running = Cluster(tmp_path_factory.mktemp("slurm"), [host, f"{host}-2", f"{host}-3"])
        configuration = running.folder / "slurm.conf"
        configuration.write_text(_configuration(running, host))
        patch.setenv("SLURM_CONF", str(configuration))
        try:
            _start(running)
            yield running
        finally:
            running.stop()


def _start(cluster: Cluster) -> None:
    munge = cluster.folder / "munge"
    munge.mkdir(mode=0o711)
    (munge / "key").write_bytes(os.urandom(1024))
    (munge / "key").chmod(0o400)
    cluster.start(
        "munged",
        *("munged", "--foreground", "--force", f"--key-file={munge / 'key'}"),
        *(f"--socket={munge / 'socket'}", f"--pid-file={munge / 'pid'}"),
        *(f"--seed-file={munge / 'seed'}", f"--log-file={munge / 'log'}"),
    )
    _until((munge / "socket").exists, cluster)
    cluster.start("slurmctld", "slurmctld", "-D", "-i")
    for node in cluster.nodes:
        cluster.start_node(node)

    def idle() -> bool:
        asked = subprocess.run(
            ["sinfo", "--noheader", "--states=idle", "--format=%D"], capture_output=True, text=True
        )
        return asked.stdout.strip() == str(len(cluster.nodes))

    _until(idle, cluster)


def _until(condition, cluster: Cluster) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, cluster.logs()
        time.sleep(0.1)


def _configuration(cluster: Cluster, host: str) -> str:
    """A cluster on one host: daemons tell their nodes apart by name and port."""
    folder, user = cluster.folder, getpass.getuser()
    ports = _free_ports(1 + len(cluster.nodes))
    lines = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": ports[0],
        # ranks meet at a port that follows from the job's id: another cluster here has others
        "FirstJobId": ports[0] % 9000 + 1,
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        # a job that was requeued waits until its old credential is no longer valid
        "AuthInfo": f"socket={folder / 'munge' / 'socket'},cred_expire=5",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool-%n",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd-%n.pid",
        "SlurmctldLogFile": folder / "slurmctld.log",
        "SlurmdLogFile": folder / "slurmd-%n.log",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SwitchType": "switch/none",
        "MpiDefault": "none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "SlurmdParameters": "config_overrides",
        "SchedulerParameters": "sched_interval=1",
        "ReturnToService": 2,
        "SlurmdTimeout": 10,
        "KillWait": 5,
        "EnforcePartLimits": "ALL",
        "GresTypes": "gpu",
    }
    text = "".join(f"{key}={value}\n" for key, value in lines.items())
    for node, port in zip(cluster.nodes, ports[1:], strict=True):
        text += f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 "
        text += f"Gres=gpu:{GPU}:{len(_DEVICES)}\n"
    devices = (f"Name=gpu Type={GPU} File={file}\n" for file in _DEVICES)
    (folder / "gres.conf").write_text("".join(devices))
    (folder / "state").mkdir()
    return text + f"PartitionName={PARTITION} Nodes=ALL Default=YES MaxTime=300 State=UP\n"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
