"""The health check of a container: cheap, and it says what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from recsys.cli import health
from recsys.cli.main import invoke


def test_it_imports_none_of_what_it_looks_for() -> None:
    program = (
        "import sys; from recsys.cli.main import invoke; code = invoke(['health'])\n"
        "print(code, {'torch', 'polars', 'numpy', 'rich'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.stdout.splitlines()[-1] == "0 set()", shown.stderr


def test_a_missing_package_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "_NEEDED", ("torch", "no_such_package"))
    assert invoke(["health"]) == 2
    assert "no_such_package is not installed" in " ".join(capsys.readouterr().err.split())
