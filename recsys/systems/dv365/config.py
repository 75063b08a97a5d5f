"""The configuration of a run of DV365."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.data.loaders.requests import LoaderConfig
from recsys.data.slices.families import SliceConfig
from recsys.nn.encoders.base import EncoderConfig
from recsys.runs.config import RunConfig
from recsys.runs.load import LoadedRun
from recsys.systems.dv365.module import DV365, DV365Config, OptimConfig


@dataclass(frozen=True)
class DV365RunConfig(RunConfig):
    """Everything a run of DV365 depends on; conf/system/dv365.yaml composes it.

    Attributes:
        slices: which slices of the timelines are pooled.
        encoder: how pooled slices become the user embedding.
        model: sizes of tables and backbone, the gap, weights of the tasks.
        optim: optimisers of the tables and of everything else.
        loader: batches and workers.
    """

    system: str = "dv365"
    slices: SliceConfig = field(default_factory=SliceConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    model: DV365Config = field(default_factory=DV365Config)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)


#: A trained DV365 with its run.
DV365Run = LoadedRun[DV365RunConfig, DV365]
