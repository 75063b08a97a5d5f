"""What happened after the last event of a prepared data set, known at once."""

from recsys.data.stores.live.dataset import LiveDataset
from recsys.data.stores.live.events import LiveEvents, Reported

__all__ = ["LiveDataset", "LiveEvents", "Reported"]
