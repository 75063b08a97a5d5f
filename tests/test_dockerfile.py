"""The Dockerfile without an engine: linted, what it copies is there, and its commands run."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recsys.core.installation import PYTHON_MINORS

ROOT = Path(__file__).resolve().parent.parent
#: Commands of the system itself, which only an engine can run.
OF_THE_SYSTEM = ("apt-get",)


@dataclass
class Stage:
    """A stage of the build.

    Attributes:
        base: the stage or image it begins with.
        instructions: its lines in order, as (name, rest).
    """

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [rest for instruction, rest in self.instructions if instruction == name]


def stages() -> dict[str, Stage]:
    """The stages of the Dockerfile by name, in order."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            current = found.setdefault(stage, Stage(base))
        elif name and current is not None:
            current.instructions.append((name, rest))
    return found


def line_of(target: str) -> list[Stage]:
    """A stage and what it begins with, oldest first."""
    found = stages()
    stage = found[target]
    return [*(line_of(stage.base) if stage.base in found else []), stage]


def copied(stage: Stage) -> list[tuple[list[str], str]]:
    """What a stage takes from the checkout, as (sources, target)."""
    lines = [line.split() for line in stage.all("COPY") if not line.startswith("--from=")]
    return [(words[:-1], words[-1]) for words in lines]


def test_hadolint_has_no_objection() -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint is not installed; `make setup` does it")
    linted = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for stage in stages().values():
        for sources, _ in copied(stage):
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source not in ignored
        for line in stage.all("COPY"):
            other = re.match(r"--from=(\S+)", line)
            assert other is None or other[1] in stages(), line


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_both_images_run_recsys_as_nobody_in_particular_and_look_after_it(target: str) -> None:
    line = line_of(target)
    last = {name: rest for stage in line for name, rest in stage.instructions}
    assert last["USER"].isdigit() and int(last["USER"]) > 0
    assert line[-1].instructions[-1][0] == "USER"  # what comes before is the system's
    [command] = re.findall(r"CMD (.*)", last["HEALTHCHECK"])
    assert json.loads(command) == ["recsys", "health"]
    assert json.loads(last["ENTRYPOINT"]) == ["recsys"]
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].strip().startswith("recsys =")
    assert last["ENV"].startswith("NVIDIA" if target == "cuda" else "PATH")


def test_images_are_pinned_and_of_a_python_that_is_supported() -> None:
    text = (ROOT / "Dockerfile").read_text()
    [minor] = re.findall(r"^ARG PYTHON=3\.(\d+)\.\d+-slim-\w+$", text, re.MULTILINE)
    assert int(minor) in PYTHON_MINORS
    for stage in stages().values():
        for line in stage.all("RUN"):
            for install in re.findall(r"apt-get install -y --no-install-recommends ([^&]*)", line):
                assert all("=" in package for package in install.split()), install


def copy(stage: Stage, folder: Path) -> None:
    """Do what a stage's COPY lines say, in ``folder`` for the working directory."""
    for sources, target in copied(stage):
        for source in sources:
            place = folder / target
            if (ROOT / source).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(
                    ROOT / source, place, symlinks=True, ignore=ignore, dirs_exist_ok=True
                )
            else:
                place = place / Path(source).name if target.endswith("/") else place
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)


def run(stage: Stage, folder: Path, root: Path, environment: dict[str, str]) -> None:
    """Run a stage's commands in ``folder``, with ``root`` for /srv."""
    for command in stage.all("RUN"):
        if command.startswith(OF_THE_SYSTEM):
            continue
        moved = command.replace("/srv/", f"{root}/")
        done = subprocess.run(
            ["sh", "-c", moved], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def test_the_installer_finds_all_it_reads_among_what_is_copied_for_it(tmp_path: Path) -> None:
    copy(stages()["installer"], tmp_path)
    run(stages()["installer"], tmp_path, tmp_path, dict(os.environ))
    program = (
        "from recsys.install import fingerprint, pins; import recsys.cli.doctor\n"
        "from recsys.core.installation import SUPPORTED_SETS\n"
        "print(len(pins(SUPPORTED_SETS[-1], 'fbgemm-gpu', dev=False)))"
    )
    shown = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert int(shown.stdout) > 50, shown.stderr
    commands = [c for name in ("cpu", "cuda") for c in stages()[f"packages-{name}"].all("RUN")]
    for command in commands:
        words = shlex.split(command)
        asked = subprocess.run(
            [sys.executable, "-S", *words[words.index("-m") :], "--help"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert asked.returncode == 0, asked.stderr


@pytest.mark.slow
def test_the_commands_of_the_cpu_image_install_a_recsys_that_works(tmp_path: Path) -> None:
    """Each stage has a folder to work in; what it leaves in /srv is there for the others."""
    root = tmp_path / "srv"
    # the image's own Python, into which the wheel's stage installs setuptools
    venv.EnvBuilder(with_pip=True, symlinks=True).create(tmp_path / "system")
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment["PATH"] = f"{tmp_path / 'system' / 'bin'}:{os.environ['PATH']}"
    for names in (("installer", "packages-cpu"), ("wheel",), ("cpu",)):
        folder = tmp_path / names[-1]
        folder.mkdir()
        for name in names:
            copy(stages()[name], folder)
            run(stages()[name], folder, root, environment)
    recsys = root / "recsys" / ".venv" / "bin" / "recsys"
    health = subprocess.run([recsys, "doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert health.returncode == 0, health.stdout + health.stderr
    simulation = ["data", "simulate", "simulator=demo", "simulator.users=20", "out=log"]
    made = subprocess.run([recsys, *simulation], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
