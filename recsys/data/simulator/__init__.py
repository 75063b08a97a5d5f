"""A simulator of interaction logs whose best possible metrics are known (docs/simulator.md)."""

from recsys.data.simulator.config import SimulatorConfig
from recsys.data.simulator.simulate import simulate

__all__ = ["SimulatorConfig", "simulate"]
