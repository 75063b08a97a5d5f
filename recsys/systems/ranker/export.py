"""From a run of the ranker to its artifact."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from recsys.artifacts.manifest import ARTIFACT_FOLDER, describe_files
from recsys.artifacts.ranker_tower import (
    CANDIDATE_INPUTS,
    RANKER_FILE,
    USER_INPUTS,
    RankerManifest,
    open_ranker,
)
from recsys.artifacts.torchscript import save_tower, script_tower
from recsys.core.environment import describe_environment
from recsys.core.errors import ArtifactError
from recsys.core.folders import made_folder
from recsys.data.batches.ranking_reader import RECENT_IDS
from recsys.data.batches.requests import RankingBatch
from recsys.data.content.clusters import candidate_features
from recsys.data.contract.schema import FeatureKind, FeatureSide, Split
from recsys.data.loaders.ranking import RankingDataModule
from recsys.data.stores.fit_vocabulary import FitVocabulary
from recsys.data.stores.vocabulary import vocabulary_path
from recsys.evaluation.calibration import Calibration
from recsys.nn.calibrators import Calibrators, Curve
from recsys.runs.files import CONFIG_FILE
from recsys.systems.base import ExportConfig
from recsys.systems.ranker.config import RankerRun
from recsys.systems.ranker.tower import RankerTower

#: Requests of the choose split on which the exported ranker is compared with the trained one.
_COMPARED = 64
#: Largest difference of a prediction before calibration and of one after it, relative to numbers
#: above 1.
_ROUNDING = 1e-5


def export_run(
    run: RankerRun,
    config: ExportConfig,
    data: RankingDataModule,
    calibration: Calibration | None,
) -> Path:
    """Write the artifact of a run.

    Args:
        run: the trained model.
        config: where to; tables stay float32 whatever ``table_bits`` says, so that scores are
            those of the run.
        data: what reads its rows.
        calibration: of its probabilities; None for none.

    Returns:
        The artifact folder.

    Raises:
        ArtifactError: the exported ranker does not agree with the trained one.
    """
    out = config.folder(run.folder, run.dataset.path)
    names = [task.name for task in run.manifest.tasks]
    calibrators = (
        Calibrators([Curve()] * len(names)) if calibration is None else calibration.module()
    )
    with made_folder(out, ARTIFACT_FOLDER) as folder:
        shutil.copy(run.folder / CONFIG_FILE, folder / CONFIG_FILE)
        _copy_vocabularies(run, folder)
        save_tower(script_tower(RankerTower(run.model, calibrators)), folder / RANKER_FILE)
        manifest = _manifest(run, calibration, (folder / RANKER_FILE).stat().st_size)
        batch = next(iter(data.sample(Split.CHOOSE, _COMPARED)))
        manifest = replace(manifest, agreement=_check(run, folder, manifest, batch, calibrators))
        replace(manifest, files=describe_files(folder)).save(folder, out)
    return out


def _check(
    run: RankerRun,
    folder: Path,
    manifest: RankerManifest,
    batch: RankingBatch,
    calibrators: Calibrators,
) -> dict[str, float]:
    """What was written, opened again, against the trained model.

    A calibration may be steep, and makes more of a rounding than it was: a score is right if it
    lies between the curve's values a little below and a little above the model's prediction, but
    for its own rounding: where the curve is flat, the two are one number.
    """
    with torch.inference_mode():
        predicted = run.model.predict_step(batch, 0)["predictions"]
        rounding = _ROUNDING * predicted.abs().clamp(min=1)
        low, high = calibrators(predicted - rounding), calibrators(predicted + rounding)
        trained = calibrators(predicted)
        own = _ROUNDING * trained.abs().clamp(min=1)
    found = open_ranker(folder, manifest).score_batch(batch)
    largest = float((found - trained).abs().max())
    if not bool(((found >= low - own) & (found <= high + own)).all()):
        raise ArtifactError(
            f"The compiled ranker does not agree with the trained one (a score differs by "
            f"{largest:.2g}); this version of torch compiles it wrongly: export with another one."
        )
    requests, rows = len(batch.rows_per_request), len(batch.row_id)
    return {"requests": requests, "rows": rows, "largest_difference": largest}


def _copy_vocabularies(run: RankerRun, folder: Path) -> None:
    """The ids the model was trained with; an id that is not there is given to it as index 0."""
    known = FitVocabulary.of(run.manifest).sizes
    for name in ("user", *RECENT_IDS):
        run.dataset.vocabulary(name).up_to(known[name]).save(vocabulary_path(folder, name))


def _manifest(run: RankerRun, calibration: Calibration | None, size: int) -> RankerManifest:
    environment = describe_environment()
    del environment["command"]
    adopted = run.model.net.adopted
    return RankerManifest(
        model="ranker",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment,
        training=run.training,
        dataset={
            "name": run.manifest.name,
            "fingerprint": run.manifest.fingerprint,
            "path": str(run.dataset.path),
        },
        inputs={"encode_user": USER_INPUTS, "score": CANDIDATE_INPUTS},
        output={"scores": {"dtype": "float64", "shape": ["C", len(run.manifest.tasks)]}},
        codes={"recent_action": ["", *run.manifest.actions.names]},
        sizes={"file_bytes": float(size)},
        metrics={},
        files={},
        tasks=[{"name": one.name, "kind": str(one.kind)} for one in run.manifest.tasks],
        features=_features(run),
        fit_vocabulary=FitVocabulary.of(run.manifest).sizes,
        gap_hours=run.config.loader.gap_hours,
        max_length=run.config.loader.max_events,
        counting=asdict(run.config.loader.features),
        published=[] if adopted is None else list(adopted.default.shape),
        calibration=_described(calibration),
        agreement={},
    )


def _features(run: RankerRun) -> dict[str, list[str]]:
    """Names of the columns of what is handed in."""

    def names(kind: FeatureKind, *sides: FeatureSide) -> list[str]:
        return [one.name for side in sides for one in run.manifest.select(side, kind)]

    user, row = (FeatureSide.USER,), (FeatureSide.ITEM, FeatureSide.CONTEXT)
    return {
        "user_categorical": names(FeatureKind.CATEGORICAL, *user),
        "user_dense": names(FeatureKind.DENSE, *user),
        "item_categorical": names(FeatureKind.CATEGORICAL, *row),
        "item_dense": names(FeatureKind.DENSE, *row),
        "recent_ids": list(RECENT_IDS),
        "counted": list(candidate_features(run.dataset, run.config.loader.features).names),
    }


def _described(calibration: Calibration | None) -> dict[str, Any]:
    return {} if calibration is None else asdict(calibration)
