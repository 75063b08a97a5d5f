"""What came after the last event of a prepared data set, known at once: events, and items."""

from recsys.data.stores.live.dataset import LiveDataset
from recsys.data.stores.live.events import LiveEvents, Reported
from recsys.data.stores.live.items import GrownDataset

__all__ = ["GrownDataset", "LiveDataset", "LiveEvents", "Reported"]
