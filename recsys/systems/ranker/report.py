"""What the report shows of a run of the ranker."""

from __future__ import annotations

from pathlib import Path

from recsys.reports.page import Page
from recsys.reports.task_material import read_material
from recsys.reports.task_page import task_page
from recsys.runs.load import load_config
from recsys.systems.ranker.config import RankerRunConfig


def report_page(folder: Path, against: Path | None, dataset_folder: str | None) -> Page:
    """The page and the table a run ends with.

    Args:
        folder: the run folder.
        against: the folder of the run it was evaluated against.
        dataset_folder: the prepared data set, where it was moved since the training.

    Raises:
        ArtifactError: a folder is no run, a file of it is damaged, or the run was not evaluated
            against what lies in ``against`` now.
    """
    config = load_config(folder, RankerRunConfig)
    labels = (str(folder), "" if against is None else str(against))
    material = read_material(folder, against, labels, config, dataset_folder)
    made_of = _made_of(config)
    facts = {
        "model": made_of,
        "recent events": str(config.loader.max_events),
        "gap": f"{config.loader.gap_hours:g} hours",
        "batch": f"{config.loader.batch_requests} requests",
        "published user embeddings": str(len(config.loader.user_embeddings.stores) or "none"),
        "calibration": config.model.calibration,
    }
    return task_page(material, "A ranker", f"ranker ({made_of})", facts)


def _made_of(config: RankerRunConfig) -> str:
    net = config.model.net
    return f"{net.interaction.kind}, {net.experts.kind}, width {net.dimension}"
