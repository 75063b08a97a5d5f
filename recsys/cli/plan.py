"""`recsys plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.distributed.planning import PlanDoesNotFitError
from recsys.runs.config import RunConfig
from recsys.runs.pricing import PlanConfig, Priced, price
from recsys.runs.sharding_plan import WIDTH, dominating, exchange_lines, plan_report, start_line
from recsys.systems.choice import compose_run
from recsys.systems.registry import system_named


def configure(overrides: Sequence[str]) -> tuple[PlanConfig, RunConfig]:
    """Compose conf/plan.yaml from its own keys, and the run from all others."""
    own = {field.name for field in fields(PlanConfig)}
    of_plan = [one for one in overrides if one.partition("=")[0].partition(".")[0] in own]
    of_run = [one for one in overrides if one not in of_plan]
    return compose("plan", PlanConfig, of_plan), compose_run(of_run)


def run(overrides: Sequence[str]) -> None:
    """Print the plan, what dominates it, what a step and a start cost, and whether it fits.

    Raises:
        PlanDoesNotFitError: it does not.
    """
    config, planned = configure(overrides)
    priced = price(config, system_named(planned.system), planned)
    console = output_console(WIDTH)
    console.print(plan_report(priced.plan, console.width))
    console.print(dominating(priced.plan))
    for line in exchange_lines(priced.plan, planned.strategy.topology):
        console.print(line)
    console.print(start_line(priced.plan, priced.numbers_per_second))
    if priced.problem is not None:
        raise PlanDoesNotFitError(f"With unlimited memory: {_need(priced)} {priced.problem}")
    console.print(f"It fits: {_need(priced)}")


def _need(priced: Priced) -> str:
    """What the fullest rank needs of what it has."""
    plan, machine = priced.plan, priced.machine
    need, on_host = max(plan.bytes_per_rank()), max(plan.host_bytes_per_rank())
    if plan.device == "cpu":
        return f"the fullest process needs {_of(need, machine.host_bytes)} of host memory."
    text = f"the fullest rank needs {_of(need, machine.device_bytes)} of its GPU's memory"
    return f"{text} and {_of(on_host, machine.host_bytes)} of host memory."


def _of(need: int, have: int) -> str:
    return f"{need / 2**30:,.1f} of {have / 2**30:,.1f} GiB ({need / have:.0%})"
