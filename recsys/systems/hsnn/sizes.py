"""Of which levels an HSNN is made, and of which size each is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from omegaconf import MISSING

from recsys.core.bounds import Number, Settings
from recsys.core.errors import ConfigError
from recsys.nn.hierarchy.nodes import IndexConfig
from recsys.nn.interaction.backbone import FeatureVectorsConfig
from recsys.nn.tables.collection import IdSpread
from recsys.systems.hsnn.monn import MonnConfig

_Few = Annotated[int, Number(at_least=1, at_most=64)]


@dataclass(frozen=True)
class LevelConfig(Settings):
    """A level of nodes.

    Attributes:
        codes: K_l, by which every node of the level above is divided.
        size: of its network, a name of ``sizes``.
    """

    codes: Annotated[int, Number(at_least=1, at_most=2**20)] = MISSING
    size: str = MISSING


@dataclass(frozen=True)
class HsnnNetConfig(Settings):
    """Sizes of HSNN.

    Attributes:
        sizes: of networks, by name.
        size: of the network of the items, a name of ``sizes``.
        levels: of nodes above the items, the coarsest first; without any every item is scored.
        index: how nodes are learned.
        dimension: E, width of features' vectors.
        recent_vectors: summaries of a user's recent events.
        counted_vectors: vectors made of what is counted of a pair.
        features: tables and dense networks of the features.
        id_spread: of the rows of item, author and topic at the start.
    """

    sizes: dict[str, MonnConfig] = field(default_factory=lambda: {"S": MonnConfig()})
    size: str = "S"
    levels: list[LevelConfig] = field(default_factory=list)
    index: IndexConfig = field(default_factory=IndexConfig)
    dimension: Annotated[int, Number(at_least=4, at_most=4_096, multiple_of=4)] = 32
    recent_vectors: _Few = 4
    counted_vectors: _Few = 4
    features: FeatureVectorsConfig = field(default_factory=FeatureVectorsConfig)
    id_spread: IdSpread = field(default_factory=IdSpread)

    def __post_init__(self) -> None:
        """Refuse sizes that nobody has named."""
        super().__post_init__()
        for key, name in [("size", self.size)] + [
            (f"levels[{number}].size", level.size) for number, level in enumerate(self.levels)
        ]:
            if name not in self.sizes:
                raise ConfigError(
                    f"model.net.{key} is {name}, which is no size; model.net.sizes has "
                    f"{', '.join(self.sizes) or 'none'}."
                )
