"""The page of a run says what was measured, beside what, and of which data."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.cli import report
from recsys.core.composition import compose
from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.json_files import write_json
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.evaluation.metrics_file import replace_metrics
from recsys.reports.page import write_page
from recsys.runs.files import CONFIG_FILE
from recsys.systems.dv365.report import (
    Exported,
    export_lines,
    read_material,
    report_page,
)
from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.evaluate import evaluate
from recsys.systems.runs import load_run, train
from tests.rewritten import ARTIFACT_KIND
from tests.small_runs import TINY_RUN
from tests.systems.evaluated import BOOTSTRAP, asked

START = 1_700_000_000_000


def test_the_page_says_what_the_data_are(runs: tuple[Path, Path]) -> None:
    [data] = [
        one for one in report_page(read_material(runs[0], None)).sections if one.title == "Data"
    ]
    store = load_run(runs[0]).dataset.requests(Split.CHOOSE)
    assert data.rows[0][2] == f"choose: {store.num_rows:,} rows"
    liked = next(row for row in data.rows if row[0] == "liked")
    assert liked[2] == f"{np.nanmean(store.labels[:, 6], dtype=np.float64):.3%}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d to .* \(UTC\)", data.facts["split report"])


def test_the_report_stands_alone(runs: tuple[Path, Path]) -> None:
    page = write_page(report_page(read_material(*runs))).read_text()
    assert page.count("<svg") == 6
    for wanted in ("Share of the possible gain", "Calibration", "split report", "config.yaml"):
        assert wanted in page
    for outside in ("<script", "<link", "<img", "@import"):
        assert outside not in page


def test_the_report_draws_the_other_run_only_as_it_was_compared(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    assert read_material(*runs).labels == ("with timelines", "without timelines")
    alone = read_material(runs[0], None)
    # the numbers name whom
    assert f"Against {runs[1]}" in write_page(report_page(alone)).read_text()
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    with pytest.raises(ArtifactError, match=r"was not evaluated against .*other; run `recsys eva"):
        read_material(runs[0], other)
    evaluate(asked(str(runs[0]), against=str(other), bootstrap=BOOTSTRAP))
    assert read_material(runs[0], other).control is not None
    evaluate(asked(str(other), checkpoint="last"))
    with pytest.raises(ArtifactError, match="made by another checkpoint"):
        read_material(runs[0], other)
    replace(DatasetManifest.load(other), fingerprint="another").save(other)
    with pytest.raises(ArtifactError, match="was trained on another data set"):
        read_material(runs[0], other)
    evaluate(asked(str(runs[0]), against=str(runs[1]), bootstrap=BOOTSTRAP))


def test_a_report_beside_a_run_of_another_system_is_refused_with_a_sentence(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / CONFIG_FILE).write_text("system: sequence\n")
    with pytest.raises(
        ConfigError, match=r"is a run of sequence and .* one of dv365: against= tak"
    ):
        report.run([f"run_dir={runs[0]}", f"against={other}"])
    with pytest.raises(ArtifactError, match="nowhere is not a run folder"):
        report.run([f"run_dir={runs[0]}", f"against={tmp_path / 'nowhere'}"])


def test_two_runs_with_timelines_are_told_apart(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copies = tmp_path / "one", tmp_path / "other"
    for copy in copies:
        shutil.copytree(runs[0], copy)
    evaluate(asked(str(copies[0]), against=str(copies[1]), bootstrap=BOOTSTRAP))
    material = read_material(*copies)
    assert material.labels == (str(copies[0]), str(copies[1]))
    assert f"mean NE, {copies[1]}" in material.numbers()


def test_the_report_counts_what_was_trained_on(runs: tuple[Path, Path], tmp_path: Path) -> None:
    grown = tmp_path / "grown"
    shutil.copytree(load_run(runs[0]).config.data.out, grown)
    manifest = DatasetManifest.load(grown)
    events = manifest.counts["events"]
    replace(manifest, counts=manifest.counts | {"events": events + 1}).save(grown)
    assert (
        f": {events:,} events of" in report_page(read_material(runs[0], None, str(grown))).subtitle
    )


def test_the_report_says_as_of_when_it_was_published(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    publication = {"active_users": 400, "published_users": 0, "as_of": 1_700_000_000_000}
    sizes = dict.fromkeys(
        (
            "tables_float32_bytes",
            "tables_bytes",
            "tables_compression",
            "embedding_float32_bytes",
            "embedding_bytes",
            "embedding_compression",
        ),
        1.0,
    )
    lines = export_lines(read_material(run, None), Exported(sizes, publication))
    assert lines["last publication"].startswith("400 users as of 2023-11-14")


def test_the_report_shows_the_export_beside_the_trained_model(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    values = {"ne/skip": 0.9123, "trained/ne/skip": 0.9034, "ne_delta/skip": 0.0099}
    values |= {"ne/mean": 0.9567, "trained/ne/mean": 0.9478, "ne_delta/mean": 0.0094}
    measured = {
        f"export/val/{name}": {"value": value, "protocol": "4-bit, as measured by hand"}
        for name, value in values.items()
    }
    replace_metrics(copy, "export/val/", measured)
    sizes = dict.fromkeys(("tables_float32_bytes", "tables_bytes", "tables_compression"), 8.0)
    sizes |= dict.fromkeys(
        ("embedding_float32_bytes", "embedding_bytes", "embedding_compression"), 4.0
    )
    (copy / "artifact").mkdir()
    write_json(copy / "artifact" / "manifest.json", ARTIFACT_KIND, {"sizes": sizes})
    line = export_lines(read_material(copy, None), Exported.of(copy))["mean NE exported"]
    assert line == "0.9567 quantised, 0.9478 before (+0.94%; split choose)"
    page = write_page(report_page(read_material(copy, None))).read_text()
    row = page[page.index("exported: NE (MSE)") :]
    cells = re.findall(r"<td>(.*?)</td>", row[: row.index("</table>")])
    assert cells[:4] == ["skip", "0.9034", "0.9123", "+0.99"]
    assert "4-bit, as measured by hand" in page


def test_a_page_of_a_regression_task_alone(tmp_path: Path) -> None:
    """No NE anywhere: the mean squared error stands in its place."""
    draw = np.random.default_rng(0)
    log = {
        "user_id": draw.integers(0, 20, 900),
        "item_id": draw.integers(0, 30, 900),
        "timestamp": np.sort(START + draw.integers(0, 20 * 86_400_000, 900)),
        "action_type": ["impression"] * 900,
        "dwell_time": draw.random(900) * 30,
    }
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    own = [one for one in TINY_RUN if not one.startswith("experiment")]
    words = ["data=log", f"data.path={tmp_path / 'log.parquet'}", f"data.out={tmp_path / 'data'}"]
    config = compose("train", DV365RunConfig, ["system=dv365", *own, *words])
    run = train(replace(config, run_dir=str(tmp_path / "run")))
    evaluate(asked(str(run), bootstrap=BOOTSTRAP))
    page = report_page(read_material(run, None))
    assert page.tiles[0]["name"].startswith("MSE of watch_time [")
    assert "smoothed user mean: MSE of watch_time" in page.headline[0]
