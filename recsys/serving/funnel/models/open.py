"""Opening a model that a funnel names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recsys.artifacts.hsnn_tower import HsnnManifest, load_hsnn
from recsys.artifacts.manifest import model_of
from recsys.artifacts.ranker_tower import RankerManifest, load_ranker
from recsys.artifacts.sequence_tower import MANIFESTS, load_sequence_tower
from recsys.core.errors import ArtifactError, ConfigError
from recsys.data.stores.live import LiveDataset
from recsys.serving.funnel.config import ModelConfig
from recsys.serving.funnel.model import Model, Numbering
from recsys.serving.funnel.models.rankers import RankerModel
from recsys.serving.funnel.models.towers import TowerModel
from recsys.serving.funnel.models.trees import TreeModel


def open_model(
    name: str, config: ModelConfig, dataset: LiveDataset, numbering: Numbering | None = None
) -> Model:
    """A model of a funnel.

    Args:
        name: of the model there.
        config: the artifact that `recsys export` wrote.
        dataset: that it was trained on, and what has come since.
        numbering: of the funnel's users and items; None for that of the data set.

    Raises:
        ArtifactError: it cannot be read, is not trusted, or was trained on another data set.
        ConfigError: it is no model for a funnel.
    """
    numbers = numbering or Numbering.of(dataset)
    folder = Path(config.path)
    system = model_of(folder)
    if config.stores and system not in MANIFESTS and system != RankerManifest.system:
        raise ConfigError(
            f"funnel.models.{name}: {folder} reads no published user embeddings; leave stores out."
        )
    if system == RankerManifest.system:
        ranker = load_ranker(folder)
        _check_dataset(folder, ranker.manifest.dataset, dataset)
        return RankerModel(name, ranker, dataset, numbers, config)
    if system == HsnnManifest.system:
        networks = load_hsnn(folder)
        _check_dataset(folder, networks.manifest.dataset, dataset)
        return TreeModel(name, networks, dataset, numbers, config)
    if system in MANIFESTS:
        tower = load_sequence_tower(folder)
        _check_dataset(folder, tower.manifest.dataset, dataset)
        return TowerModel(name, tower, dataset, numbers, config)
    raise ConfigError(
        f"funnel.models.{name}: {folder} is an artifact of {system}, which neither finds nor "
        f"scores items; name one of {', '.join([RankerManifest.system, *MANIFESTS])} or "
        f"{HsnnManifest.system}."
    )


def _check_dataset(folder: Path, trained_on: Mapping[str, str], dataset: LiveDataset) -> None:
    if trained_on["fingerprint"] not in dataset.newest.lineage:
        raise ArtifactError(
            f"{folder} was trained on {trained_on['path']}, which is another data set than "
            f"{dataset.path}: its indices would mean other users and items; name models of one "
            "data set."
        )
