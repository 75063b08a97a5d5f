"""The command line, end to end on a tiny simulated log."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import recsys
from recsys.cli.main import invoke
from recsys.cli.verbs import DATA_VERBS, EMBEDDING_VERBS, VERBS
from recsys.core.composition import merge
from recsys.core.paths import conf_dir
from recsys.systems.registry import SYSTEMS

COMMAND = [sys.executable, "-m", "recsys"]
SIMULATION = (
    "simulator=demo",
    "simulator.users=60",
    "simulator.catalogue.items=2000",
    "simulator.catalogue.authors=100",
)
RUN = (
    "model.dimension=16",
    "loader.batch_requests=32",
    "trainer.max_steps=6",
    "trainer.validate_every_n_steps=3",
)


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, cwd=folder, timeout=600
    )


def test_help_answers_without_torch() -> None:
    program = (
        "import sys\n"
        "from recsys.cli.main import invoke\n"
        "assert invoke(['--help']) == 0\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    for verb in (
        "train",
        "evaluate",
        "study",
        "export",
        "publish",
        "doctor",
        "bench",
        "report",
        "data",
    ):
        assert verb in finished.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"recsys {recsys.__version__}"


@pytest.mark.parametrize(
    "verb", (*DATA_VERBS, *EMBEDDING_VERBS, *VERBS), ids=lambda verb: verb.name
)
def test_every_verb_has_help_with_examples_that_compose(
    verb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "mine.yaml").write_text("source: log\npath: log.parquet\nout: prepared/mine\n")
    monkeypatch.chdir(tmp_path)
    group = ["data"] * (verb in DATA_VERBS) + ["embeddings"] * (verb in EMBEDDING_VERBS)
    assert invoke([*group, verb.name, "--help"]) == 0
    printed = capsys.readouterr().out
    files = re.findall(r"conf/([\w/<>]+\.yaml)", printed)
    assert f"{verb.module}.yaml" in files
    assert ("system/<system>.yaml" in files) == (verb.name in ("train", "plan"))
    for file, system in itertools.product(files, SYSTEMS):
        assert (conf_dir() / file.replace("<system>", system)).is_file()
    module = importlib.import_module(f"recsys.cli.{verb.module}")
    for example in verb.examples:
        assert f"Example: {example}" in printed
        words = shlex.split(example)
        assert words[: 2 + len(group)] == ["recsys", *group, verb.name]
        if "resume=true" not in words:  # composes with the configuration of that run
            flags = ["--json"] * verb.prints_json
            module.configure([word for word in words[2 + len(group) :] if word not in flags])


def test_bench_examples_fit_the_benchmark() -> None:
    from recsys.cli import bench

    for name in bench.names():
        assert merge(bench._load(name).Config, []) is not None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "trainer.max_epoch=2"], "did you mean `trainer.max_epochs`?"),
        (["train", "experiment=nothing"], "there is no choice 'nothing' for `experiment`"),
        (["train", "experiment=demo", "data.path=nowhere"], "make one with"),
        (["train", "run_dir=nowhere", "resume=true"], "nowhere is not a run folder"),
        (["evaluate"], "`run_dir=…` is needed"),
        (["evaluate", "run_dir=nowhere"], "nowhere is not a run folder"),
        (["export", "run_dir=nowhere"], "nowhere is not a run folder"),
        (["report", "run_dir=nowhere"], "nowhere is not a run folder"),
        (["publish"], "Give either run_dir=… or artifact=…"),
        (["data", "prepare", "source=nothing"], "source is 'nothing', it must be one of log"),
        (["data", "describe", "dataset=nowhere"], "data set (the folder does not exist)"),
        (["bench", "nothing"], "there is no benchmark 'nothing'"),
        (["nothing"], "No such command 'nothing'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_DATA_DIR", raising=False)
    assert invoke(arguments) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert "Traceback" not in printed
    last = [line for line in printed.splitlines() if line.startswith("recsys: ")]
    assert len(last) == 1 and printed.rstrip().endswith(last[0])


def test_an_unexpected_error_says_how_to_see_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(overrides: list[str]) -> None:
        raise ZeroDivisionError("the cause")

    monkeypatch.setattr("recsys.cli.train.run", broken)
    assert invoke(["train"]) == 1
    printed = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: the cause" in printed
    assert "RECSYS_DEBUG=1" in printed and "Traceback" not in printed
    monkeypatch.setenv("RECSYS_DEBUG", "1")
    assert invoke(["train"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback") and "ZeroDivisionError: the cause" in printed


def test_a_bad_setting_in_a_process_of_its_own(tmp_path: Path) -> None:
    finished = run("data", "simulate", "simulator.userz=3", "out=log", folder=tmp_path)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.splitlines() == [
        "recsys: unknown key `simulator.userz` (given as `simulator.userz=3`); did you mean "
        "`simulator.users`?"
    ]
    assert not (tmp_path / "log").exists()


def test_bench_lists_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["bench", "--list", "--json"]) == 0
    descriptions = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert descriptions
    assert all(descriptions.values())


#: Few trees for the baseline that has any.
QUICK = ("boosting.trees=5", "boosting.rows=2000")


@pytest.mark.slow
def test_from_a_simulated_log_to_a_report(tmp_path: Path) -> None:
    """Every verb as a user types it, each in a process of its own."""
    data = ("data.path=log", "data.name=tiny")
    for words in (
        ("data", "simulate", *SIMULATION, "out=log"),
        ("data", "prepare", "data=simulated", "name=tiny", "path=log"),
        ("data", "describe", "dataset=prepared/tiny", "users=20"),
        ("train", "experiment=demo", "run_dir=with", "loader.num_workers=1", *data, *RUN),
        ("train", "run_dir=with", "resume=true", "trainer.max_steps=8"),
        ("train", "experiment=demo_without_timelines", "run_dir=without", *data, *RUN),
        ("evaluate", "run_dir=with", "against=without", "bootstrap.resamples=50", *QUICK),
        ("export", "run_dir=with"),
        ("publish", "run_dir=with"),
        ("report", "run_dir=with", "against=without"),
    ):
        finished = run(*words, folder=tmp_path)
        assert finished.returncode == 0, f"{words}: {finished.stderr}"
        # nothing but our own lines: no advice of other libraries to their developers
        printed = finished.stdout + finished.stderr
        for noise in (r"\w+Warning", "Tip", "GPU available", "weights_only", "deprecated"):
            assert not re.search(noise, printed)

    metrics = json.loads((tmp_path / "with" / "metrics.json").read_text())
    for name in ("val/ne/liked", "report/ne/liked", "report/gain_captured/liked"):
        assert "protocol" in metrics[name]
    assert "against without, same rows" in metrics["report/relative_ne_delta/liked"]["protocol"]
    predictions = pl.read_parquet(tmp_path / "with" / "predictions" / "report.parquet")
    assert predictions["row_id"].to_list() == list(range(len(predictions)))
    assert "mean NE, without timelines" in finished.stdout
    report = (tmp_path / "with" / "report.html").read_text()
    assert report.count("<svg") == 5  # a training of a few steps is said in words
    assert "http://" not in report.replace("http://www.w3.org", "")
