"""From a run of NxtPost to the artifact of its user tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from recsys.data.progress import track
from recsys.data.schema import Split
from recsys.data.sequences import EngagementStore, SequenceDataModule
from recsys.evaluation.ranking import DotProductScorer
from recsys.export.artifact import ExportConfig
from recsys.export.sequence_artifact import (
    Embed,
    Measure,
    SequenceExport,
    export_sequence_tower,
)
from recsys.training.load import CONFIG_FILE
from recsys.training.metrics_file import replace_metrics
from recsys.training.posts import load_posts, posts_path
from recsys.training.report.outcome import ARTIFACT, EXPORT_PREFIX
from recsys.training.retrieval import BATCH
from recsys.training.retrieval_evaluation import protocol_of
from recsys.training.systems.nxtpost import NxtPostRun, NxtPostSystem


def export_nxtpost(run: NxtPostRun, config: ExportConfig) -> Path:
    """Write the artifact of a run, and what it measured into the run's ``metrics.json`` too.

    Returns:
        The artifact folder.

    Raises:
        ArtifactError: an exported tower does not agree with the trained one.
    """
    folder = Path(config.out) if config.out is not None else run.folder / ARTIFACT
    known = load_posts(run.config.posts, run.dataset).known
    engagements = EngagementStore.open(run.dataset, run.config.sequences, known)
    data = SequenceDataModule(run.config.loader, run.dataset, engagements)
    examples = next(iter(data.loader(Split.CHOOSE, shuffle=False)))
    export = SequenceExport(
        post_embeddings=str(posts_path(run.config.posts).resolve()),
        training={
            "run": str(run.folder),
            "checkpoint": run.checkpoint,
            "step": run.step,
            "chosen_by": run.chosen_by,
            "seed": run.config.seed,
        },
        dataset_path=run.dataset.path,
        sequences=asdict(run.config.sequences),
        config_file=run.folder / CONFIG_FILE,
        examples=(examples, run.model.posts[examples.item]),
        measure=_measure(run, data) if config.measure else None,
    )
    manifest = export_sequence_tower(run.model.tower, run.manifest, folder, export)
    if config.measure:
        replace_metrics(run.folder, f"{EXPORT_PREFIX}/", manifest.metrics)
    return folder


def _measure(run: NxtPostRun, data: SequenceDataModule) -> Measure:
    """Metrics of the choose split's batches with an exported tower."""
    protocol = NxtPostSystem().protocol(run.config, run.dataset, Split.CHOOSE)
    candidates = protocol.candidates([BATCH])

    def measure(embed: Embed) -> Mapping[str, Mapping[str, Any]]:
        ids, users = [], []
        for batch in track(data.loader(Split.CHOOSE, shuffle=False), "Measuring the export"):
            ids.append(batch.query_id)
            users.append(embed(batch, run.model.posts[batch.item]))
        in_order = torch.cat(users)[torch.cat(ids).argsort()]
        scorer = DotProductScorer(in_order, run.model.posts)
        ranks = protocol.rank(scorer, candidates)
        said = protocol_of(run, Split.CHOOSE, ranks[BATCH])
        return {name: said.measure(v).as_dict() for name, v in protocol.values(ranks).items()}

    return measure
