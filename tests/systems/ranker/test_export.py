"""The exported ranker against the run it is of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.artifacts.open import open_artifact
from recsys.artifacts.ranker_tower import RankerArtifact, candidate_inputs, user_inputs
from recsys.core.errors import ArtifactError
from recsys.data.batches.given_rows import GivenRows
from recsys.data.batches.hour_of_day import with_hour
from recsys.data.batches.requests import RankingBatch
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.embeddings.rows import quantize_rows
from recsys.embeddings.stores import open_store
from recsys.systems.base import ExportConfig
from recsys.systems.choice import compose_run
from recsys.systems.ranker.config import RankerRun
from recsys.systems.ranker.system import RankerSystem
from recsys.systems.runs import load_run, train
from tests.evaluation.baselines.planted import HOUR, START
from tests.systems.ranker.test_system import log, replace_calibration, settings  # noqa: F401

ITEMS = 300


@pytest.fixture(scope="module")
def run(log: Path, tmp_path_factory: pytest.TempPathFactory) -> RankerRun:  # noqa: F811
    folder = tmp_path_factory.mktemp("runs") / "ranker"
    train(compose_run(settings(log, folder, "trainer.max_steps=30")))
    return load_run(folder)


@pytest.fixture(scope="module")
def artifact(run: RankerRun) -> RankerArtifact:
    folder = RankerSystem().export(run, ExportConfig(run_dir=str(run.folder)))
    return open_artifact(folder)


def one_request(run: RankerRun, user: int, items: int = ITEMS) -> tuple[RankingBatch, GivenRows]:
    moment = START + 5 * 24 * HOUR
    item = 1 + np.arange(items) % (run.dataset.manifest.vocabulary_sizes["item"] - 1)
    rows = GivenRows(np.full(items, user), item, np.full(items, moment))
    reader = RankerSystem().data(run.config, run.dataset).reader
    context = with_hour(rows, run.dataset.manifest).context_of(np.arange(items))
    one = (np.array([user]), np.array([moment]), np.array([items]))
    return reader.given(*one, item, context), rows


def scored(artifact: RankerArtifact, batch: RankingBatch, rows: slice) -> torch.Tensor:
    state = artifact.encode_user(**user_inputs(batch, 0))
    return artifact.score(state, **candidate_inputs(batch, rows))


def assert_are_of_the_run(run: RankerRun, rows: GivenRows, found: torch.Tensor) -> None:
    """Within 1e-6 of its predictions, of which a steep calibration may make more."""
    system = RankerSystem()
    predicted = system.score(replace_calibration(run, "none"), rows)
    raw = np.stack(list(predicted.values()), axis=1)
    calibration = system.calibration(run)
    low, high = raw - 1e-6, raw + 1e-6
    if calibration is not None:
        low, high = calibration.apply(low), calibration.apply(high)
    assert ((low <= found.numpy()) & (found.numpy() <= high)).all()


@pytest.mark.parametrize("user", [0, 1, 3])
def test_scores_are_those_of_the_run(run: RankerRun, artifact: RankerArtifact, user: int) -> None:
    batch, rows = one_request(run, user)
    assert_are_of_the_run(run, rows, scored(artifact, batch, slice(None)))


def test_a_candidate_has_the_same_bits_whatever_is_beside_it(
    run: RankerRun, artifact: RankerArtifact
) -> None:
    batch, _ = one_request(run, 3)
    together = scored(artifact, batch, slice(None))
    for rows in (slice(7, 8), slice(100, 300), slice(200, 201), slice(64, 130)):
        assert torch.equal(scored(artifact, batch, rows), together[rows])
    assert scored(artifact, batch, slice(0, 0)).shape == (0, together.shape[1])


def test_only_the_newest_events_count(run: RankerRun, artifact: RankerArtifact) -> None:
    batch, _ = one_request(run, 3, 4)
    inputs = user_inputs(batch, 0)
    more = dict(inputs)
    for name in ("recent_ids", "recent_action", "recent_time", "recent_dwell"):
        more[name] = torch.cat([inputs[name][:5], inputs[name]])
    assert len(inputs["recent_time"]) == run.config.loader.max_events
    states = [artifact.encode_user(**one) for one in (inputs, more)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_its_page_names_the_ranker(run: RankerRun) -> None:
    page = RankerSystem().report(run.folder, None, None)
    assert page.subtitle.startswith("A ranker, trained on log")


def test_the_manifest_says_what_is_handed_in(run: RankerRun, artifact: RankerArtifact) -> None:
    manifest = json.loads((artifact.folder / "manifest.json").read_text())
    reader = RankerSystem().data(run.config, run.dataset).reader
    assert manifest["features"]["counted"] == list(reader.candidates.names)
    assert manifest["features"]["recent_ids"] == ["item", "author", "topic"]
    assert manifest["codes"]["recent_action"] == ["", *run.manifest.actions.names]
    assert [one["name"] for one in manifest["tasks"]] == [one.name for one in run.manifest.tasks]
    assert manifest["calibration"]["method"] == "isotonic"
    assert manifest["agreement"]["largest_difference"] < 1e-6


def test_what_does_not_fit_is_a_sentence(run: RankerRun, artifact: RankerArtifact) -> None:
    batch, _ = one_request(run, 3, 4)
    state = artifact.encode_user(**user_inputs(batch, 0))
    given = candidate_inputs(batch, slice(None))
    with pytest.raises(ArtifactError, match=r"missing or not known: counted"):
        artifact.score(state, **{k: v for k, v in given.items() if k != "counted"})
    with pytest.raises(ArtifactError, match=r"counted has 2 columns, but"):
        artifact.score(state, **{**given, "counted": torch.zeros(4, 2)})


def test_loading_needs_neither_torchrec_nor_fbgemm(artifact: RankerArtifact) -> None:
    code = (
        "import sys\nfrom recsys.artifacts.ranker_tower import load_ranker\n"
        f"load_ranker({str(artifact.folder)!r}, trust=True)\n"
        "print([name for name in ('torchrec', 'fbgemm_gpu', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "more",
    [
        ("model.net.interaction.kind=dcn", "model.calibration=platt"),
        ("model.net.experts.kind=ple", "model.calibration=none"),
        ("model.net.experts.kind=shared_bottom", "model.net.adoption.kind=gated"),
        ("loader.features.counters=[]", "loader.features.cross_features=[]"),
        ("model.net.adoption.kind=projected",),
        ("model.net.adoption.kind=unprojected",),
        ("model.net.adoption.kind=prepended", "model.net.adoption.vectors=2"),
    ],
)
def test_every_kind_of_ranker_is_exported(
    log: Path,  # noqa: F811
    tmp_path: Path,
    more: tuple[str, ...],
) -> None:
    settings_of = settings(log, tmp_path / "run", "trainer.max_steps=3", *more)
    if any("adoption" in one for one in more):
        dataset, _ = open_or_prepare(compose_run(settings_of).data)
        ids = dataset.vocabulary("user").table["raw"].to_list()
        with open_store(str(tmp_path / "store")) as store:
            store.begin(START + 4 * 24 * HOUR, {})
            store.put_many(ids[::2], quantize_rows(torch.randn(len(ids), 3, 16)).numpy()[::2])
            store.commit()
        settings_of.append(f"loader.user_embeddings.stores=[{tmp_path / 'store'}]")
    train(compose_run(settings_of))
    run = load_run(tmp_path / "run")
    artifact = open_artifact(RankerSystem().export(run, ExportConfig(run_dir=str(run.folder))))
    for user in (1, 2, 3):
        batch, rows = one_request(run, user, 20)
        together = scored(artifact, batch, slice(None))
        assert_are_of_the_run(run, rows, together)
        assert torch.equal(scored(artifact, batch, slice(7, 8)), together[7:8])
