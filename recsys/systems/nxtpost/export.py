"""From a run of NxtPost to the artifact of its user tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from recsys.artifacts.sequence_export import Measure, SequenceExport, export_sequence_tower
from recsys.artifacts.sequence_tower import Embed
from recsys.core.progress import track
from recsys.data.contract.schema import Split
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.evaluation.metrics_file import replace_metrics
from recsys.evaluation.ranking import DotProductScorer
from recsys.evaluation.retrieval import BATCH, RetrievalProtocol
from recsys.evaluation.retrieval_evaluation import protocol_of
from recsys.runs.files import CONFIG_FILE, EXPORT_PREFIX
from recsys.systems.base import ExportConfig
from recsys.systems.nxtpost.config import NxtPostRun
from recsys.systems.nxtpost.items import items_path


def export_run(run: NxtPostRun, config: ExportConfig, protocol: RetrievalProtocol) -> Path:
    """Write the artifact of a run, and what it measured into the run's ``metrics.json`` too.

    Args:
        run: the trained model.
        config: where to, and whether to measure.
        protocol: queries and candidates of the choose split.

    Returns:
        The artifact folder.

    Raises:
        ArtifactError: an exported tower does not agree with the trained one.
    """
    folder = config.folder(run.folder, run.dataset.path)
    data = SequenceDataModule(
        run.config.loader, run.dataset, protocol.engagements, run.config.evaluation.max_queries
    )
    examples = next(iter(data.loader(Split.CHOOSE, shuffle=False)))
    export = SequenceExport(
        post_embeddings=str(items_path(run.config.posts, run.dataset).resolve()),
        training=run.training,
        dataset_path=run.dataset.path,
        sequences=asdict(run.config.sequences),
        max_length=run.model.tower.max_length,
        gap_hours=run.config.loader.gap_hours,
        config_file=run.folder / CONFIG_FILE,
        examples=(examples, run.model.items[examples.item]),
        measure=_measure(run, protocol, data) if config.measure else None,
    )
    manifest = export_sequence_tower(run.model.tower, run.manifest, folder, export)
    if config.measure:
        replace_metrics(run.folder, f"{EXPORT_PREFIX}/", manifest.metrics)
    return folder


def _measure(run: NxtPostRun, protocol: RetrievalProtocol, data: SequenceDataModule) -> Measure:
    """Metrics of the choose split's batches with an exported tower."""
    candidates = protocol.candidates([BATCH])

    def measure(embed: Embed) -> Mapping[str, Mapping[str, Any]]:
        ids, users = [], []
        for batch in track(data.loader(Split.CHOOSE, shuffle=False), "Measuring the export"):
            ids.append(batch.query_id)
            users.append(embed(batch, run.model.items[batch.item]))
        in_order = torch.cat(users)[torch.cat(ids).argsort()]
        scorer = DotProductScorer(in_order, run.model.items)
        ranks = protocol.rank(scorer, candidates)
        said = protocol_of(run.identity, Split.CHOOSE, ranks[BATCH])
        return {name: said.measure(v).as_dict() for name, v in protocol.values(ranks).items()}

    return measure
