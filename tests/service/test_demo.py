"""`make demo-funnel`, from nothing to the page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
def test_the_demo_ends_with_the_address_of_a_page(tmp_path: Path) -> None:
    written = tmp_path / "written.txt"
    with written.open("w") as file:
        demo = subprocess.Popen(
            ["bash", ROOT / "scripts/demo_funnel.sh", tmp_path / "demo"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PORT": "0"},
        )
    try:
        while demo.poll() is None and "\nhttp://" not in written.read_text():
            time.sleep(0.2)
        told = written.read_text()
        assert demo.poll() is None and "value_per_session" in told, told
        address = told.splitlines()[-1].split()[0]
        assert "Inspector" in httpx.get(f"{address}/", timeout=30).text
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(60)
