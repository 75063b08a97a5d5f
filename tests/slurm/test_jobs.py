"""Jobs of a real SLURM: submitted, told to stop, queued again, and refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from recsys.cli.launch.config import SubmitConfig
from recsys.cli.launch.script import agents_script
from recsys.cli.launch.slurm import script_of, send
from recsys.cli.main import invoke
from recsys.core.composition import compose
from recsys.core.errors import ConfigError
from recsys.recurring.generations import Generations
from recsys.runs.metrics_log import METRICS_LOG, read_metrics
from tests.small_runs import TINY_SIMULATION

from .conftest import GPU, PARTITION, Cluster

ROOT = Path(__file__).resolve().parents[2]
SUBMIT = ROOT / "launchers" / "slurm" / "submit"
SLOW = f"{sys.executable} {Path(__file__).with_name('slow_recsys.py')}"

RUN = (
    "experiment=demo",
    "model.dimension=8",
    "loader.batch_requests=16",
    "trainer.max_steps=12",
    "trainer.validate_every_n_steps=6",
    "trainer.checkpoint_every_n_steps=100",
    "trainer.log_every_n_steps=1",
    "trainer.progress_bar=false",
)
JOB = ("launcher.cpus_per_process=1", "launcher.time_limit='10'")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings of a run on a tiny prepared log."""
    folder = tmp_path_factory.mktemp("data")
    assert invoke(["data", "simulate", *TINY_SIMULATION, f"out={folder / 'log'}"]) == 0
    place = (f"path={folder / 'log'}", f"out={folder / 'prepared'}", "name=tiny")
    assert invoke(["data", "prepare", "source=simulated", *place]) == 0
    return tuple(f"data.{setting}" for setting in place)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def submit(*arguments: str, check: bool = False) -> str:
    """Submit as a user does, and return the id of the job."""
    script, folder, config = script_of([*arguments, *JOB], check)
    return send(script, folder, config)


def wait_for_step(cluster: Cluster, job: str, run_dir: Path, step: int) -> None:
    """Wait until a training has done some steps."""
    log = run_dir / METRICS_LOG
    deadline = time.monotonic() + 400
    while not (log.exists() and f"\n{step},0,train/loss" in log.read_text()):
        known = cluster.job(job)
        assert known["JobState"] in ("PENDING", "RUNNING"), outputs(run_dir)
        assert time.monotonic() < deadline, f"{known} {outputs(run_dir)} {cluster.logs()}"
        time.sleep(0.1)


def outputs(run_dir: Path) -> str:
    """What script and ranks have printed."""
    return "\n".join(f"{p}: {p.read_text()[-2000:]}" for p in sorted(run_dir.glob("logs/**/*.log")))


@pytest.mark.slow
def test_a_training_on_two_nodes_is_told_to_stop_queued_again_and_ends_as_if_it_had_not_been(
    cluster: Cluster, data: tuple[str, ...]
) -> None:
    folders = [Path("stopped"), Path("whole")]
    commands = (f"launcher.command='{SLOW}'", "nodes=2")
    stopped, whole = (submit(*RUN, *data, *commands, f"run_dir={folder}") for folder in folders)
    wait_for_step(cluster, stopped, folders[0], 3)
    # what SLURM sends before the time limit
    cluster.ask("scancel", "--batch", "--signal=USR1", stopped)
    ends = [cluster.wait(job, 400) for job in (stopped, whole)]

    for end, folder in zip(ends, folders, strict=True):
        assert end["JobState"] == "COMPLETED", outputs(folder)
    assert [end["Restarts"] for end in ends] == ["1", "0"]
    said = (folders[0] / "logs" / f"job-{stopped}.log").read_text()
    assert "told to stop: the ranks save" in said and "back into the queue" in said
    assert "resume=true" in said
    logs = folders[0] / "logs" / stopped
    assert "Told to stop by SIGUSR1" in (logs / "rank-0.log").read_text()
    assert (logs / "rank-1.log").exists()
    assert not (folders[0] / "hpc_ckpt_1.ckpt").exists()  # Lightning's own way
    assert_frame_equal(read_metrics(folders[0]), read_metrics(folders[1]), check_exact=True)


@pytest.mark.slow
def test_when_a_node_dies_the_training_goes_on_with_another(
    cluster: Cluster, data: tuple[str, ...]
) -> None:
    folders = [Path("struck"), Path("whole")]
    commands = (f"launcher.command='{SLOW}'", "nodes=2", "trainer.checkpoint_every_n_steps=3")
    whole = submit(*RUN, *data, *commands, f"run_dir={folders[1]}")
    assert cluster.wait(whole, 400)["JobState"] == "COMPLETED", outputs(folders[1])
    struck = submit(*RUN, *data, *commands, "logger=wandb", f"run_dir={folders[0]}")
    wait_for_step(cluster, struck, folders[0], 5)
    try:
        cluster.strike(cluster.nodes[1])
        end = cluster.wait(struck, 400)
        assert end["JobState"] == "COMPLETED", outputs(folders[0])
        assert int(end["Restarts"]) >= 1
        wandb = list(folders[0].glob("wandb/offline-run-*/*.wandb"))
        assert len(wandb) >= 2 and len({file.name for file in wandb}) == 1  # one run, gone on with
        assert cluster.nodes[1] not in cluster.ask("scontrol", "show", "hostnames", end["NodeList"])
        assert_frame_equal(read_metrics(folders[0]), read_metrics(folders[1]), check_exact=True)
    finally:
        cluster.start_node(cluster.nodes[1])


def nodes_of(cluster: Cluster, known: dict[str, str]) -> set[str]:
    return set(cluster.ask("scontrol", "show", "hostnames", known["NodeList"]).split())


def test_a_job_whose_check_finds_a_bad_node_is_queued_again_without_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    """A script stands for recsys: it knows a bad node, and trains in no time."""
    bad = cluster.nodes[1]
    fake = tmp_path / "fake"
    fake.write_text(
        "#!/usr/bin/env bash\n"
        'echo "$SLURMD_NODENAME $*"\n'
        "[[ $1 == preflight ]] || exit 0\n"
        'out=${@: -1} && out=${out#out=} && mkdir -p "$out"\n'
        f"[[ $SLURMD_NODENAME != {bad} ]] || {{ echo {bad} >$out/bad_nodes; exit 2; }}\n"
    )
    fake.chmod(0o755)
    place = ("experiment=demo", "run_dir=run", "nodes=2", f"launcher.command={fake}")
    job = submit(*place, "launcher.max_requeues=2", check=True)
    known = cluster.wait(job, 200)
    said = (Path("run") / "logs" / f"job-{job}.log").read_text()
    assert known["JobState"] == "COMPLETED", f"{said} {outputs(Path('run'))}"
    assert known["Restarts"] == "1" and f"back into the queue, without {bad}" in said
    assert known["ExcNodeList"] == bad
    assert nodes_of(cluster, known) == {cluster.nodes[0], cluster.nodes[2]}
    log = (Path("run") / "logs" / job / "rank-0.log").read_text()
    assert "strategy.topology.measured=run/logs" in log


@pytest.mark.slow
def test_nodes_are_checked_by_a_job(cluster: Cluster) -> None:
    job = submit("preflight", "nodes=2", "mebibytes=1", "out=found")
    known = cluster.wait(job, 400)
    [log] = Path("runs/jobs").glob(f"preflight-*/logs/{job}/rank-0.log")
    assert known["JobState"] == "COMPLETED", log.read_text()
    table = log.read_text()
    assert all(node in table for node in nodes_of(cluster, known)) and table.count(" fit ") == 2
    assert "strategy.topology.cross_node_gib_s=" in table
    assert (Path("found") / "preflight.json").is_file()


@pytest.mark.slow
def test_export_publication_and_evaluation_follow_a_training(
    cluster: Cluster, data: tuple[str, ...]
) -> None:
    trained = submit(*RUN, *data, "model.dimension=16", "run_dir=run")
    exported = submit("export", "run_dir=run", "measure=false", f"after=[{trained}]")
    last = [
        submit("publish", "run_dir=run", f"after=[{exported}]"),
        submit("evaluate", "run_dir=run", "split=choose", f"after=[{trained}]"),
    ]
    for job in last:
        assert cluster.wait(job, 600)["JobState"] == "COMPLETED", outputs(Path("run"))
    for left in ("artifact/manifest.json", "publication.json", "predictions/choose.parquet"):
        assert (Path("run") / left).is_file()


def test_an_array_runs_each_task_with_its_settings_in_its_folder(
    cluster: Cluster, tmp_path: Path
) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
    settings = ("run_dir=a,b", "split=choose", "launcher.command=echo")
    command = [SUBMIT, "evaluate", *settings, *JOB]
    submitted = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    for task, folder in enumerate("ab"):
        known = cluster.wait(f"{job}_{task}", 200)
        assert known["JobState"] == "COMPLETED"
        [log] = (tmp_path / folder).glob(f"logs/{job}_{task}/rank-0.log")
        assert log.read_text().split() == ["evaluate", f"run_dir={folder}", "split=choose"]


def test_cycles_of_a_recurring_training_follow_each_other_also_behind_one_that_failed(
    cluster: Cluster, tmp_path: Path
) -> None:
    cycle = tmp_path / "cycle"
    cycle.write_text(
        '#!/usr/bin/env bash\necho "begins $*" >> said\nsleep 1\necho ends >> said\nexit 1\n'
    )
    cycle.chmod(0o755)
    words = ("recur", "folder=feed", "train=[system=dv365]", f"launcher.command={cycle}")
    jobs = [submit(*words, f"path=day_{day}.parquet") for day in range(3)]
    assert [cluster.wait(job, 200)["JobState"] for job in jobs] == ["FAILED"] * 3
    begins = [
        f"begins recur run folder=feed train=[system=dv365] path=day_{d}.parquet" for d in "012"
    ]
    expected = [line for one in begins for line in (one, "ends")]
    assert (tmp_path / "said").read_text().splitlines() == expected
    with Generations(Path("feed")).held():  # the launcher's script is no reason to refuse it
        assert (Path("feed") / "logs" / "job.sh").is_file()


def test_what_an_agent_calls_recsys_runs_on_every_process_of_its_task(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wandb agent` needs wandb's server; in its place a script starts a trial as it does."""
    agent = tmp_path / "bin" / "wandb"
    agent.parent.mkdir()
    agent.write_text("#!/usr/bin/env bash\nWANDB_RUN_ID=trial-$4 recsys train seed=7\n")
    agent.chmod(0o755)
    monkeypatch.setenv("PATH", f"{agent.parent}:{os.environ['PATH']}")
    settings = ["nodes=2", "launcher.processes_per_node=2", "launcher.command=echo", *JOB]
    config = compose("submit", SubmitConfig, settings)
    folder = tmp_path / "sweep"
    job = send(agents_script("me/recsys/abc", 2, config, folder, trials=1), folder, config)
    known = [cluster.wait(f"{job}_{task}", 200) for task in range(2)]
    assert [one["JobState"] for one in known] == ["COMPLETED", "COMPLETED"]
    run_dir = folder / "trial-me/recsys/abc"
    logs = sorted(run_dir.glob("logs/*/rank-*.log"))
    assert [log.name for log in logs] == [f"rank-{rank}.log" for rank in range(4)] * 2
    world = ["strategy=torchrec", "trainer.num_nodes=2", "trainer.devices=2"]
    for log in logs:
        assert log.read_text().split() == ["train", "seed=7", f"run_dir={run_dir}", *world]


@pytest.mark.parametrize(
    ("option", "seen"),
    [
        (None, ["0,1", "0,1"]),
        (f"--gres=gpu:{GPU}:2", ["0,1", "0,1"]),
        ("--gpus-per-task=1", ["0", "1"]),
    ],
)
def test_gpus_are_asked_for_once_and_a_task_may_see_its_own_alone(
    cluster: Cluster, tmp_path: Path, option: str | None, seen: list[str]
) -> None:
    shows = tmp_path / "shows"
    shows.write_text("#!/usr/bin/env bash\necho $SLURM_LOCALID $CUDA_VISIBLE_DEVICES\n")
    shows.chmod(0o755)
    options = [] if option is None else [f"launcher.options=['{option}']"]
    launcher = ("launcher=gpu", "launcher.processes_per_node=2", f"launcher.command={shows}")
    job = submit("experiment=demo", "trainer=gpu", "run_dir=run", *launcher, *options)
    assert cluster.wait(job, 200)["JobState"] == "COMPLETED", outputs(Path("run"))
    logs = [Path("run") / "logs" / job / f"rank-{rank}.log" for rank in range(2)]
    assert [log.read_text().split() for log in logs] == [["0", seen[0]], ["1", seen[1]]]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("launcher.partition=gpux", f"launcher.partition=gpux: this cluster has {PARTITION}"),
        ("nodes=4", f"nodes=4, but partition {PARTITION} has 3"),
        ("launcher.time_limit='9:00:00'", "sbatch refused mine/logs/job.sh: .* time limit"),
    ],
)
def test_what_the_cluster_does_not_have_is_a_sentence(
    cluster: Cluster, setting: str, sentence: str
) -> None:
    script, folder, config = script_of(["experiment=demo", "run_dir=mine", setting])
    with pytest.raises(ConfigError, match=sentence):
        send(script, folder, config)
