"""Values of the right type that cannot work: one sentence, before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.cli.main import invoke


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "seed=-1"], "seed is -1, it must be a whole number from 0 to 4,294,967,295"),
        (["train", "trainer.max_steps=0"], "trainer.max_steps is 0"),
        (["train", "trainer.validate_every_n_steps=0"], "trainer.validate_every_n_steps is 0"),
        (["train", "trainer.checkpoint_every_n_steps=0"], "trainer.checkpoint_every_n_steps is 0"),
        (["train", "loader.gap_hours=nan"], "loader.gap_hours is nan"),
        (["train", "model.dimension=30"], "model.dimension is 30"),
        (["data", "simulate", "simulator.users=0", "out=log"], "simulator.users is 0"),
        (["data", "simulate", "simulator=demo", "out=/dev/null/log"], "/dev/null is a file"),
        (["data", "describe", "dataset=data", "users=0"], "users is 0"),
        (["data", "prepare", "data=simulated", "path=log", "partitions=0"], "partitions is 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_it_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(arguments) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("recsys: ") and sentence in printed
    assert "\n" not in printed
    assert not list(tmp_path.iterdir())
