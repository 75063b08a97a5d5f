"""Lists made off-peak, for when the funnel cannot be afforded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from omegaconf import MISSING, OmegaConf

from recsys.core.bounds import Count, ItemsPerUser, OneOf, Settings, StoreAddress
from recsys.data.stores.live import LiveDataset
from recsys.service.config import LOG, MACHINE, ServeConfig
from recsys.service.generations import ServiceState
from recsys.service.lists import StoredLists
from recsys.service.served import Served, changed_funnel
from recsys.serving.funnel.live_knowledge import KnowledgeConfig

#: Users whose lists are made together.
_AT_A_TIME = 64


@dataclass(frozen=True)
class PrecomputeConfig(Settings):
    """Whose lists are made.

    Attributes:
        state: folder of the service; the lists are those of the generation that is served.
        k: items of a list, of which a user gets those that are unseen by then.
        users: the first so many; None for all.
        changes: settings of the funnel that are otherwise, since there is time.
        clock: as of `recsys serve`; events likewise.
        known: likewise.
    """

    state: str = MISSING
    k: ItemsPerUser = 100
    users: Count | None = None
    changes: list[str] = field(default_factory=list)
    clock: Annotated[str, OneOf((MACHINE, LOG))] = MACHINE
    events: Annotated[str, StoreAddress()] | None = None
    known: KnowledgeConfig = field(default_factory=KnowledgeConfig)


def precompute(config: PrecomputeConfig) -> int:
    """Make the lists of a state's generation; running workers give them within seconds.

    Returns:
        How many were made.

    Raises:
        ConfigError: the changes make no funnel.
        RecsysError: the generation cannot be served, or the file system is full.
    """
    state = ServiceState(Path(config.state))
    generation = state.current()
    changes: Any = OmegaConf.to_container(OmegaConf.from_dotlist(config.changes))
    generation = replace(generation, funnel=changed_funnel(generation.funnel, changes))
    serving = ServeConfig(state=config.state, clock=config.clock, known=config.known)
    dataset = LiveDataset.open(generation.dataset, config.events or state.events)
    served = Served(generation, serving, dataset)
    lists = StoredLists(state.lists(generation.number), readonly=False)
    users = np.arange(1, served.users.size)[: config.users]
    for first in range(0, len(users), _AT_A_TIME):
        some = users[first : first + _AT_A_TIME]
        lists.put(some, served.lists(some, config.k))
    lists.close()
    served.dataset.live.close()
    return len(users)
