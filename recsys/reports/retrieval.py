"""What the report shows of a run of a retrieval system."""

from __future__ import annotations

from collections.abc import Iterator

from recsys.artifacts.manifest import ARTIFACT
from recsys.core.environment import read_environment
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.reports import retrieval_sections as sections
from recsys.reports.data_section import data
from recsys.reports.page import (
    Page,
    Section,
    closing_table,
    megabytes,
    places,
    revision,
    setting,
)
from recsys.reports.retrieval_material import RetrievalMaterial
from recsys.reports.training_section import training
from recsys.runs.checkpoints import CHECKPOINTS, LAST
from recsys.runs.files import EXPORT_PREFIX
from recsys.runs.metrics_log import read_metrics


def report_page(material: RetrievalMaterial) -> Page:
    """The page and the table a run ends with."""
    environment = read_environment(material.folder)
    counts, name = material.trained_on.counts, material.trained_on.name
    trained = material.described
    where = {"prepared data set": material.dataset.path}
    if material.artifact:
        where["artifact"] = material.folder / ARTIFACT
    lie = places(material.folder, where)
    measured = material.measured()
    return Page(
        folder=material.folder,
        title=material.config.name,
        subtitle=(
            f"{trained['model']} trained on {name}: {counts['events']:,} events of "
            f"{counts['users']:,} users{revision(environment)}"
        ),
        headline=material.winners(),
        tiles=[
            {"name": key, "value": value, "accent": place == 0}
            for place, (key, value) in enumerate(measured.items())
        ],
        sections=[
            *sections.measured(material),
            *sections.differences(material),
            *sections.groups(material),
            *sections.from_ranks(material),
            *sections.over_time(material),
            *sections.cold_start(material),
            _training(material),
            _data(material),
            *_export(material),
            Section("Where everything lies", facts=lie),
            setting(material.config, environment, trained | _weights(material)),
        ],
        closing=closing_table(
            material.config.name,
            {"trained": f"{trained['model']}, on {material.config.data.title}"} | measured,
            lie,
        ),
    )


def _training(material: RetrievalMaterial) -> Section:
    metric = material.monitor.metric
    return training(
        {material.config.name: read_metrics(material.folder)},
        metric,
        f"{metric.removeprefix('val/')}, choose split",
        f"The checkpoint is chosen by: {material.monitor.rule}.",
    )


def _data(material: RetrievalMaterial) -> Section:
    """What was trained on, and the bounds of the splits."""
    sequences = material.config.sequences
    facts = {
        "engagements are": _engagements(material.trained_on, sequences),
        "a user's further engagements with an item": "count" if sequences.repeats else "left out",
    }
    return data(material.trained_on, facts, [], material.has_times)


def _engagements(manifest: DatasetManifest, sequences: SequenceConfig) -> str:
    if set(sequences.actions) in (set(), set(manifest.actions.positive)):
        return "every positive explicit action"
    return ", ".join(sequences.actions)


def _export(material: RetrievalMaterial) -> Iterator[Section]:
    if not material.artifact:
        return
    facts = {
        name.replace("_bytes", "").replace("_", " "): megabytes(size)
        for name, size in material.artifact.get("sizes", {}).items()
        if name.endswith("_bytes")
    }
    facts |= {
        f"int8 against float, {name.replace('_', ' ')}": f"{value:.4f}"
        for name, value in material.artifact.get("agreement", {}).items()
    }
    measured = {
        name.removeprefix(f"{EXPORT_PREFIX}/"): metric
        for name, metric in material.metrics.items()
        if name.startswith(f"{EXPORT_PREFIX}/")
    }
    facts |= {name: f"{metric['value']:.4f}" for name, metric in measured.items()}
    note = next((metric["protocol"] for metric in measured.values()), "")
    yield Section("Export", note=note, facts=facts)


def _weights(material: RetrievalMaterial) -> dict[str, str]:
    """Size of the model, from its last checkpoint."""
    state = open_checkpoint(material.folder / CHECKPOINTS / LAST).weights()
    count = sum(tensor.numel() for tensor in state.values())
    return {"weights": f"{count:,}"}
