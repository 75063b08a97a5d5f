"""What the report shows of a run of a retrieval system."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from recsys.artifacts.manifest import ARTIFACT
from recsys.core.environment import read_environment
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.reports import figures
from recsys.reports import retrieval_sections as sections
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
    log = read_metrics(material.folder)
    label = f"{metric.removeprefix('val/')}, choose split"
    return Section(
        "Training",
        note=f"The checkpoint is chosen by: {material.monitor.rule}.",
        figure=figures.curves({material.config.name: log}, metric, label),
    )


def _data(material: RetrievalMaterial) -> Section:
    """What was trained on, and the bounds of the splits."""
    manifest, sequences = material.trained_on, material.config.sequences
    counts = manifest.counts
    facts = {
        "data set": manifest.name,
        "events": f"{counts['events']:,}",
        "users": f"{counts['users']:,}",
        "items": f"{manifest.vocabulary_sizes['item'] - 1:,}",
        "engagements are": _engagements(manifest, sequences),
        "a user's further engagements with an item": "count" if sequences.repeats else "left out",
    }
    if sequences.has_times:
        facts |= {
            f"split {split}": f"{_moment(first)} to {_moment(last)}"
            for split, (first, last) in manifest.split_bounds.items()
        }
    return Section("Data", facts=facts)


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


def _moment(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M}"
