"""The line for cron in launchers/cron, run as cron runs it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.recurring.generations import Generations
from tests.recurring.days import FIRST_DAYS

ROOT = Path(__file__).parents[2]
DESCRIPTION = """source: log
name: feed
path: {feed}/days
out: {feed}/prepared
options: {{choose_days: 1, report_days: 1, attribution_hours: 1}}
"""


@pytest.mark.slow  # two cycles with the settings as they ship
def test_the_line_makes_a_generation_each_night(days: Path, tmp_path: Path) -> None:
    lines = (ROOT / "launchers" / "cron" / "recur.crontab").read_text().splitlines()
    places = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]+=", line))
    assert list(places) == ["CHECKOUT", "FEED"]
    line = next(line for line in lines if re.match(r"(\S+ ){5}\$CHECKOUT", line))
    command = line.split(" ", 5)[5]
    assert "%" not in command  # the end of a line for cron

    feed, checkout = tmp_path / "feed", tmp_path / "checkout"
    (feed / "days").mkdir(parents=True)
    (feed / "feed.yaml").write_text(DESCRIPTION.format(feed=feed))
    program = checkout / ".venv" / "bin" / "recsys"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m recsys "$@"\n')
    program.chmod(0o755)
    environment = {"CHECKOUT": str(checkout), "FEED": str(feed), "HOME": str(tmp_path)}
    for number, file in enumerate(("first", str(FIRST_DAYS)), start=1):
        shutil.copy(days / f"{file}.parquet", feed / "days")
        night = subprocess.run(
            ["/bin/sh", "-c", command],
            env={**environment, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
        )
        log = (feed / "recur.log").read_text()
        assert night.returncode == 0, log
        generations = Generations(feed / "recurring")
        assert generations.current().number == number
        assert f"Generation {number} is served" in log
