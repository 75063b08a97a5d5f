"""From a run of HSNN to its artifact: networks and tree together."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from recsys.artifacts.hsnn_tower import (
    CANDIDATE_INPUTS,
    HSNN_FILE,
    USER_INPUTS,
    HsnnManifest,
    open_hsnn,
    user_inputs,
)
from recsys.artifacts.manifest import ARTIFACT_FOLDER, describe_files
from recsys.artifacts.torchscript import save_tower, script_tower
from recsys.core.environment import describe_environment
from recsys.core.errors import ArtifactError
from recsys.core.folders import made_folder
from recsys.data.batches.ranking_reader import RECENT_IDS, RankingReader
from recsys.data.content.clusters import candidate_features
from recsys.data.contract.schema import FeatureKind, FeatureSide, Split
from recsys.data.stores.fit_vocabulary import FitVocabulary
from recsys.data.stores.vocabulary import vocabulary_path
from recsys.index.hierarchy.descent import Allowed, descend
from recsys.index.hierarchy.scoring import ItemTree
from recsys.runs.files import CONFIG_FILE
from recsys.systems.base import ExportConfig
from recsys.systems.hsnn.config import HsnnRun
from recsys.systems.hsnn.scoring import Scoring
from recsys.systems.hsnn.tower import HsnnTower

#: Requests of the choose split for which the exported model is compared with the trained one, and
#: the largest difference of a score.
_COMPARED, _ROUNDING = 8, 1e-6


def export_run(
    run: HsnnRun, config: ExportConfig, scoring: Scoring, reader: RankingReader, task: int
) -> Path:
    """Write the artifact of a run.

    Args:
        run: the trained model.
        config: where to; tables stay float32 whatever ``table_bits`` says, so that scores are
            those of the run.
        scoring: of the run.
        reader: of its rows.
        task: position of the task by which nodes are ranked.

    Returns:
        The artifact folder.

    Raises:
        ArtifactError: the exported model does not agree with the trained one.
    """
    out = config.folder(run.folder, run.dataset.path)
    items = ItemTree(scoring, np.arange(1, run.manifest.vocabulary_sizes["item"]))
    with made_folder(out, ARTIFACT_FOLDER) as folder:
        shutil.copy(run.folder / CONFIG_FILE, folder / CONFIG_FILE)
        _copy_vocabularies(run, folder)
        save_tower(script_tower(HsnnTower(run.model, items, task)), folder / HSNN_FILE)
        manifest = _manifest(run, items, task, (folder / HSNN_FILE).stat().st_size)
        manifest = replace(
            manifest, agreement=_check(run, folder, manifest, scoring, reader, items, task)
        )
        replace(manifest, files=describe_files(folder)).save(folder, out)
    return out


def _check(
    run: HsnnRun,
    folder: Path,
    manifest: HsnnManifest,
    scoring: Scoring,
    reader: RankingReader,
    items: ItemTree,
    task: int,
) -> dict[str, float]:
    """What was written, opened again, against the trained model, where both come to an item."""
    artifact, beam = open_hsnn(folder, manifest), run.config.descent.beam
    requests = run.dataset.requests(Split.CHOOSE)
    number = min(len(requests), _COMPARED)
    pairs, largest = 0, 0.0
    for one in range(number):
        place = slice(one, one + 1)
        user = requests.user[place].astype(np.int64)
        moment = np.array(requests.request_time[place])
        users = scoring.users(user, moment)
        reached = descend(items.tree, 1, items.scorer(users, task), beam, 1, Allowed())
        trained = np.full(len(items.indices), np.nan)
        trained[reached.item] = scoring.prediction(reached.value, task)
        batch = reader.given(user, moment, np.zeros(1, np.int64), user[:0])
        state = artifact.encode_user(**user_inputs(batch, 0))
        position, above = artifact.descend(state, beam, 1)
        index = items.indices[position.numpy()]
        of_pairs = reader.given(user, moment, np.array([len(index)]), index)
        categorical, dense = (part.repeat(len(index), axis=0) for part in users.context)
        scores = artifact.score(
            state,
            position,
            above,
            counted=of_pairs.counted,
            context_categorical=torch.from_numpy(categorical).long(),
            context_dense=torch.from_numpy(dense),
        )
        gap = np.abs(scores[:, task].numpy() - trained[position.numpy()])
        gap = gap[~np.isnan(gap)]  # of nodes that are worth the same, either may be kept
        largest, pairs = max(largest, float(gap.max(initial=0))), pairs + len(gap)
    if not pairs or not largest <= _ROUNDING:
        raise ArtifactError(
            f"The compiled HSNN does not agree with the trained one (of {pairs:,} scores one "
            f"differs by {largest:.2g}); this version of torch compiles it wrongly: export with "
            "another one."
        )
    return {"requests": number, "pairs": pairs, "largest_difference": largest}


def _copy_vocabularies(run: HsnnRun, folder: Path) -> None:
    """The ids the model was trained with, and of items all that are in the tree."""
    known = FitVocabulary.of(run.manifest).sizes | {"item": run.manifest.vocabulary_sizes["item"]}
    for name in ("user", *RECENT_IDS):
        run.dataset.vocabulary(name).up_to(known[name]).save(vocabulary_path(folder, name))


def _manifest(run: HsnnRun, items: ItemTree, task: int, size: int) -> HsnnManifest:
    environment = describe_environment()
    del environment["command"]
    tasks = [{"name": one.name, "kind": str(one.kind)} for one in run.manifest.tasks]
    codes = run.model.net.nodes.sizes
    return HsnnManifest(
        model="hsnn",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment,
        training=run.training,
        dataset={
            "name": run.manifest.name,
            "fingerprint": run.manifest.fingerprint,
            "path": str(run.dataset.path),
        },
        inputs={"encode_user": USER_INPUTS, "score": CANDIDATE_INPUTS},
        output={"scores": {"dtype": "float64", "shape": ["C", len(tasks)]}},
        codes={"recent_action": ["", *run.manifest.actions.names]},
        sizes={"file_bytes": float(size)},
        metrics={},
        files={},
        tasks=tasks,
        ranked_by=tasks[task]["name"],
        beam=run.config.descent.beam,
        features=_features(run),
        fit_vocabulary=FitVocabulary.of(run.manifest).sizes,
        gap_hours=run.config.loader.gap_hours,
        max_length=run.config.loader.max_events,
        counting=asdict(run.config.loader.features),
        levels=[
            {"codes": code, "nodes": len(nodes)}
            for code, nodes in zip(codes, items.tree.codes, strict=True)
        ],
        first_item=1,
        items=len(items.indices),
        agreement={},
    )


def _features(run: HsnnRun) -> dict[str, list[str]]:
    """Names of the columns of what is handed in."""
    found = {
        f"{side}_{kind}": [one.name for one in run.manifest.select(side, kind)]
        for side in (FeatureSide.USER, FeatureSide.ITEM, FeatureSide.CONTEXT)
        for kind in (FeatureKind.CATEGORICAL, FeatureKind.DENSE)
    }
    found["recent_ids"] = list(RECENT_IDS)
    found["counted"] = list(candidate_features(run.dataset, run.config.loader.features).names)
    return found
