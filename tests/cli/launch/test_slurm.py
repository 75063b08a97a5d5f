"""The scripts for sbatch, without a SLURM; tests/slurm runs them."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from recsys.cli.launch import slurm
from recsys.cli.launch.config import SubmitConfig
from recsys.cli.launch.script import agents_script
from recsys.cli.launch.slurm import check_cluster, script_of
from recsys.cli.main import invoke
from recsys.core.composition import compose
from recsys.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


def checked(script: str) -> str:
    """A script that bash can read."""
    read = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert read.returncode == 0, read.stderr
    return script


def directives(script: str) -> list[str]:
    """What it asks of SLURM."""
    prefix = "#SBATCH "
    return [line.removeprefix(prefix) for line in script.splitlines() if line.startswith(prefix)]


def test_dry_run_prints_the_script_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")  # it needs no SLURM
    assert invoke(["experiment=demo", "nodes=2", "--dry-run"], slurm.app, "submit") == 0
    assert capsys.readouterr().out.startswith("#!/usr/bin/env bash\n")
    assert not list(tmp_path.iterdir())
    assert invoke(["experiment=demo", "nodes=2"], slurm.app, "submit") == 2
    assert "sbatch is not on this machine" in capsys.readouterr().err


def test_help_has_examples_that_compose(capsys: pytest.CaptureFixture[str]) -> None:
    for example in slurm.EXAMPLES.strip().split("\n\n")[1:]:
        program, *words = shlex.split(example)
        assert (ROOT / program).is_file()
        assert invoke([*words, "--dry-run"], slurm.app, program) == 0
        checked(capsys.readouterr().out)


def test_a_training_asks_for_a_task_per_gpu_and_is_told_before_its_limit() -> None:
    script, folder, _ = script_of(
        [
            *("experiment=demo", "run_dir=runs/mine", "nodes=2", "launcher=gpu", "trainer=gpu"),
            *("launcher.partition=a100", "launcher.account=us", "launcher.memory=900G"),
            *("launcher.options=['--qos=long']", "after=[7,8]", "launcher.signal_seconds=100"),
        ]
    )
    assert folder == Path("runs/mine/logs")
    asked = directives(checked(script))
    for option in (
        *("--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=8"),
        *("--mem=900G", "--partition=a100", "--account=us", "--qos=long", "--time=04:00:00"),
        *("--dependency=afterok:7:8", "--requeue", "--signal=B:USR1@100"),
        "--output=runs/mine/logs/job-%j.log",
    ):
        assert option in asked
    assert not any(option.startswith("--array") for option in asked)
    assert "sleep 70" in script and "strategy=torchrec" in script


@pytest.mark.parametrize(
    "option",
    [
        "--gres=gpu:h100:8",
        "--gpus=h100:16",
        "--gpus-per-task=1",
        "--gpus-per-node=a100:8",
        "--tres-per-task=cpu:8,gres/gpu:1",
    ],
)
def test_gpus_that_the_options_ask_for_are_not_asked_for_again(option: str) -> None:
    given = ("experiment=demo", "launcher=gpu", "trainer=gpu", f"launcher.options=['{option}']")
    script, _, _ = script_of(given)
    asked = [one for one in directives(checked(script)) if "gpu" in one]
    assert asked == [option]


def test_other_options_leave_a_gpu_for_each_process() -> None:
    options = "launcher.options=['--gpu-bind=closest','--gres=nvme:1','--comment=gpu']"
    script, _, _ = script_of(["experiment=demo", "launcher=gpu", "trainer=gpu", options])
    assert "--gpus-per-node=8" in directives(checked(script))


def test_an_evaluation_is_divided_and_other_verbs_run_in_one_process_without_signal_and_gpu() -> (
    None
):
    arguments = ["evaluate", "run_dir=runs/a,runs/b", "launcher=gpu", "at_once=1"]
    with pytest.raises(ConfigError, match=r"runs/a is not there; .* after=\[…\]"):
        script_of(arguments)
    arguments.append("after=[7]")
    script, folder, _ = script_of(arguments)
    asked = directives(checked(script))
    assert "--ntasks-per-node=8" in asked and "--array=0-1%1" in asked
    assert not any(option.startswith(("--gpus", "--signal")) for option in asked)
    assert "processes=8" in script and "MASTER_ADDR" in script and "resume=true" not in script
    assert folder.parent == Path("runs/jobs")
    assert "processes=16" in script_of([*arguments, "nodes=2"])[0]
    export = ["export", *arguments[1:]]
    script, _, _ = script_of(export)
    assert "--ntasks-per-node=1" in directives(checked(script)) and "MASTER_ADDR" not in script
    with pytest.raises(ConfigError, match="`export` runs in one process"):
        script_of([*export, "nodes=2"])


def test_the_nodes_are_checked_before_a_training_and_alone() -> None:
    with_gpus = ["nodes=2", "launcher=gpu", "trainer=gpu", "experiment=demo", "run_dir=runs/mine"]
    script = checked(script_of(with_gpus, check=True)[0])
    check = script.index('preflight processes=16 gpus=8 "out=$logs/check"')
    assert check < script.index(' train "${settings[@]}"')
    assert 'settings+=("strategy.topology.measured=$logs/check/preflight.json")' in script
    assert "preflight" not in script_of(with_gpus)[0]
    script, folder, _ = script_of(["preflight", "nodes=3", "mebibytes=8"])
    assert "processes=3" in checked(script) and "mebibytes=8" in script
    assert (
        folder.parent.name.startswith("preflight-") and f"out={folder.parent / 'check'}" in script
    )
    with pytest.raises(ConfigError, match="`evaluate` has no --check"):
        script_of(["evaluate", "run_dir=a"], check=True)
    with pytest.raises(ConfigError, match="knows how many processes it starts"):
        script_of(["preflight", "processes=3"])


def test_a_cycle_waits_for_those_before_it_however_they_end() -> None:
    settings = ["folder=recurring/feed", "train=[data=mine.yaml,system=dv365]"]
    script, folder, _ = script_of(["recur", *settings, "path=days", "after=[7]"])
    asked = directives(checked(script))
    assert folder == Path("recurring/feed/logs")
    assert "--dependency=afterok:7,singleton" in asked
    assert "--job-name=recsys-recur-feed" in asked
    assert "recsys recur run" in script and "'train=[data=mine.yaml,system=dv365]'" in script
    with pytest.raises(ConfigError, match="Several cycles cannot run in recurring/feed at once"):
        script_of(["recur", *settings, "path=monday,tuesday"])


def test_an_array_s_script_and_its_runs_have_one_time_in_their_names() -> None:
    script, folder, _ = script_of(["experiment=demo", "seed=1,2"])
    stamp = folder.name.removeprefix("train-demo-")
    assert f"run_dir=runs/demo/{stamp}/1\n" in script


def test_settings_with_special_characters_reach_the_command_as_they_were_given() -> None:
    given = "data.path='/a b/$HOME;\"x\"'"
    script, _, _ = script_of(["experiment=demo", "run_dir=runs/mine", given])
    settings = script[script.index("settings=(") : script.index(")\n", script.index("settings=("))]
    shown = subprocess.run(
        ["bash", "-c", f'{settings})\nprintf "%s\\n" "${{settings[@]}}"'],
        capture_output=True,
        text=True,
    )
    assert given in shown.stdout.splitlines()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["runtime=apptainer", "image=recsys.sif", "mounts=[/data]"],
            'apptainer exec --nv --bind "$PWD" --pwd "$PWD" --bind /data recsys.sif recsys train',
        ),
        (
            ["runtime=pyxis", "image=recsys.sqsh", "mounts=[/data]"],
            '--container-image=recsys.sqsh --container-mounts="$PWD:$PWD,/data:/data" '
            '--container-workdir="$PWD"',
        ),
    ],
)
def test_a_container_runs_the_command_of_its_image(settings: list[str], words: str) -> None:
    container = [f"launcher.container.{setting}" for setting in settings]
    script, _, _ = script_of(["experiment=demo", "launcher=gpu", "trainer=gpu", *container])
    assert words in checked(script)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("launcher=slrum", "there is no choice 'slrum' for `launcher`; choose one of cpu, gpu"),
        (
            "launcher.partion=x",
            "unknown key `launcher.partion`.* mean `launcher.partition`",
        ),
        ("launcher.time_limit=4hours", "is no time of SLURM's"),
        ("launcher.memory=64GB", "is no size of SLURM's"),
        ("launcher.options=['qos=x']", "options of sbatch as '--name=value'"),
        (
            "launcher.environment={NCCL SOCKET: ib0}",
            "launcher.environment has 'NCCL SOCKET': 'ib0'",
        ),
        ("launcher.environment={NCCL_DEBUG: null}", "write names of variables, each with a value"),
        ("launcher.signal_seconds=20", "a whole number above 30"),
        ("launcher.processes_per_node=0", "launcher.processes_per_node is 0"),
        ("launcher.container.runtime=docker", "one of apptainer, pyxis"),
        ("launcher.container.image=x.sif", "runtime and image together"),
        ("nodes=0", "nodes is 0"),
        ("after=4711", r"`after=4711`\): it takes a list; write `after=\[value\]`\.$"),
    ],
)
def test_a_launcher_that_cannot_work_is_a_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        script_of(["experiment=demo", setting])


def test_a_cluster_of_ones_own_is_a_file_of_conf(tmp_path: Path) -> None:
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "mine.yaml").write_text(
        "defaults: [cpu, _self_]\npartition: long\nsetup: [module load gcc]\n"
        "environment: {NCCL_SOCKET_IFNAME: ib0}\n"
    )
    own = [f"hydra.searchpath=[file://{tmp_path}]", "launcher=mine"]
    script, _, _ = script_of(["experiment=demo", *own])
    assert "--partition=long" in directives(checked(script))
    assert "\nmodule load gcc\n" in script and "\nexport NCCL_SOCKET_IFNAME=ib0\n" in script
    given = ("launcher.environment={NCCL_DEBUG: INFO}", "launcher.environment.GLOO_X=eth0")
    script, _, _ = script_of(["experiment=demo", *own, *given])
    for line in ("NCCL_SOCKET_IFNAME=ib0", "NCCL_DEBUG=INFO", "GLOO_X=eth0"):
        assert f"\nexport {line}\n" in script


def test_an_array_of_agents_trains_each_trial_on_all_processes(tmp_path: Path) -> None:
    config = compose("submit", SubmitConfig, ["nodes=2", "at_once=3"])
    script = agents_script("me/recsys/abc", 4, config, tmp_path / "sweep", trials=5)
    asked = directives(checked(script))
    assert "--array=0-3%3" in asked and "--nodes=2" in asked
    assert "wandb agent --count 5 me/recsys/abc" in script


def test_without_slurm_the_check_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="sbatch is not on this machine"):
        check_cluster(SubmitConfig())


@pytest.mark.parametrize(
    "setting",
    ["store=redis://:GEHEIM@host:6379/0", "store=unix:///run/redis.sock?password=GEHEIM"],
)
def test_a_script_is_not_written_with_a_password(tmp_path: Path, setting: str) -> None:
    (tmp_path / "run").mkdir()
    given = ["publish", f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match="would be written into the script") as caught:
        script_of([*given, setting])
    assert "GEHEIM" not in str(caught.value)
    named = "store=redis://:${oc.env:HOME}@host:6379/0"
    script, _, _ = script_of([*given, named])
    assert shlex.quote(named) in checked(script)
