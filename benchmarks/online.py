"""How fast a world is played: visits of `simulator=explore` under a cheap policy, one thread.

The limit it is measured beside is a million visits in ten minutes. Making the world is timed apart.
Processor seconds are given beside those of the clock, for machines that do other things meanwhile.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace

from recsys.cli.simulate import configure as configure_simulation
from recsys.core.console import output_console, text_table
from recsys.data.contract.schema import MILLISECONDS_PER_DAY
from recsys.data.simulator.world.world import World
from recsys.online.compare import played
from recsys.online.policies import make_policy

DESCRIPTION = "visits per second of a world that is played, beside a million in ten minutes"

#: A million visits in ten minutes.
LIMIT = 1_000_000 / 600

_TICK_MS = 5 * 60_000


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        simulator: of conf/simulator.
        policy: that is played.
        users: of the world.
        days: that are played, from its first on; the world ends with them.
    """

    simulator: str = "explore"
    policy: str = "recent_popular"
    users: int = 50_000
    days: int = 10


def run(config: Config) -> dict[str, object]:
    """Make the world, play it once, print a table, and return the figures."""
    simulation = configure_simulation([f"simulator={config.simulator}", "out=unused"]).simulator
    scale = simulation.activity.scale
    if simulation.world is not None:
        scale *= config.days / (simulation.days + simulation.world.online_days)
        simulation = replace(
            simulation,
            users=config.users,
            days=config.days,
            fit_days=0,
            choose_days=0,
            report_days=0,
            activity=replace(simulation.activity, scale=scale),  # as many visits a day
            world=replace(simulation.world, online_days=0),
        )
    began = time.perf_counter()
    world = World(simulation)
    made = time.perf_counter() - began
    visits = world.visits(world.start, world.start + config.days * MILLISECONDS_PER_DAY)
    clock, processor = time.perf_counter(), time.process_time()
    sums = played(world, make_policy(config.policy, world), visits, _TICK_MS, new_hours=6.0)
    seconds, busy = time.perf_counter() - clock, time.process_time() - processor
    impressions = float(sums.sums[:, sums.names.index("impressions")].sum())
    figures = {
        "visits": len(visits),
        "impressions": impressions,
        "items": len(world.items.rank),
        "make_seconds": made,
        "seconds": seconds,
        "processor_seconds": busy,
        "visits_per_second": len(visits) / seconds,
        "visits_per_processor_second": len(visits) / busy,
        "limit_visits_per_second": LIMIT,
    }
    rows = [["", ""], *([name, f"{value:,.1f}"] for name, value in figures.items())]
    output_console().print(text_table(f"{config.policy} on {config.simulator}", rows))
    return {"config": asdict(config), **figures}
