"""The exported HSNN against the run it is of, and nodes of items that came later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.artifacts.hsnn_tower import HsnnArtifact, user_inputs
from recsys.artifacts.open import open_artifact
from recsys.cli.main import invoke
from recsys.core.errors import ArtifactError
from recsys.index.hierarchy.descent import Allowed, descend
from recsys.index.hierarchy.scoring import ItemTree
from recsys.systems.hsnn.system import HsnnSystem
from recsys.systems.runs import load_run
from tests.systems.own_log import DAY, START, RunOf

NOW = START + 25 * DAY


@pytest.fixture(scope="module")
def exported(run_of: RunOf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "artifact"
    assert invoke(["export", f"run_dir={run_of('hsnn')}", f"out={out}"]) == 0
    return out


def test_networks_and_tree_are_those_of_the_run(run_of: RunOf, exported: Path) -> None:
    artifact = open_artifact(exported)
    assert isinstance(artifact, HsnnArtifact)
    assert artifact.manifest.agreement["largest_difference"] <= 1e-6
    assert [one["codes"] for one in artifact.manifest.levels] == [4, 3]
    system, run = HsnnSystem(), load_run(run_of("hsnn"))
    scoring, reader = system.scoring(run), system.data(run.config, run.dataset).reader
    items = ItemTree(scoring, np.arange(1, 1 + artifact.manifest.items))
    for user in (0, 1, 7):
        users, moment = np.array([user]), np.array([NOW])
        of_run = items.scorer(scoring.users(users, moment), 0)
        batch = reader.given(users, moment, np.zeros(1, np.int64), users[:0])
        state = artifact.encode_user(**user_inputs(batch, 0))
        for beam, k in ((1, 1), (2, 20), (100, 1)):
            expected = descend(items.tree, 1, of_run, beam, k, Allowed())
            position, above = artifact.descend(state, beam, k)
            assert sorted(position.tolist()) == sorted(expected.item.tolist())
            assert above.shape[1] == 2
    eligible = torch.zeros(artifact.manifest.items, dtype=torch.bool)
    eligible[5:9] = True
    position, _ = artifact.descend(state, 1, 4, eligible)
    assert sorted(position.tolist()) == [5, 6, 7, 8]


def test_items_have_their_nodes_from_their_features(run_of: RunOf, exported: Path) -> None:
    artifact = open_artifact(exported)
    assert isinstance(artifact, HsnnArtifact)
    system, run = HsnnSystem(), load_run(run_of("hsnn"))
    scoring, reader = system.scoring(run), system.data(run.config, run.dataset).reader
    some = np.arange(1, 20)
    expected = scoring.codes(scoring.items(some))
    assert torch.equal(artifact.node_of(*reader.items(some)), expected)


def test_a_tower_of_another_generation_is_refused(exported: Path) -> None:
    path = exported / "hsnn.pt"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + b"x")
        with pytest.raises(ArtifactError):
            open_artifact(exported)
    finally:
        path.write_bytes(content)
