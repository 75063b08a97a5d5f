"""`recsys data check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recsys.cli.described import with_dataset
from recsys.core.bounds import Settings, Store
from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.core.engines import EngineConfig
from recsys.core.errors import ConfigError
from recsys.core.open_engine import open_engine
from recsys.data.stores.check import check_dataset
from recsys.data.stores.dataset import PreparedDataset
from recsys.embeddings.stores import open_store


@dataclass(frozen=True)
class CheckConfig(Settings):
    """What to check: ``dataset``, ``store``, or both.

    Attributes:
        dataset: a prepared data set.
        store: ``redis://host:port/database``, or the folder of an LMDB.
        engine: what reads the files of the data set.
    """

    dataset: str | None = None
    store: Store | None = None
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        """Refuse what would check nothing."""
        super().__post_init__()
        if self.dataset is None and self.store is None:
            raise ConfigError(
                "Give dataset=… to check a prepared data set, store=… to check published user "
                "embeddings, or both."
            )


def configure(overrides: Sequence[str]) -> CheckConfig:
    """Compose conf/check.yaml; the description of a data set stands for its folder."""
    return compose("check", CheckConfig, with_dataset(overrides))


def run(overrides: Sequence[str]) -> None:
    """Read everything and say how much it was; what is damaged is an error."""
    config = configure(overrides)
    console = message_console()
    if config.dataset is not None:
        folder = Path(config.dataset)
        dataset = PreparedDataset.open(folder)
        with open_engine(config.engine, folder) as engine:
            checked = check_dataset(dataset, anew=True, engine=engine)
        size = f"{checked.files:,} files, {checked.bytes / 1e6:,.1f} MB"
        console.print(f"{config.dataset}: {size}, all as they were written.")
    if config.store is not None:
        with open_store(config.store, readonly=True) as store:
            records = store.check()
        console.print(f"The store of embeddings: {records:,} records, all as they were written.")
