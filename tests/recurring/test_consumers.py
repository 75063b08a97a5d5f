"""A ranker that reads published embeddings is asked before they are replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from recsys.core.errors import ConfigError
from recsys.data.contract.moments import to_text
from recsys.embeddings.publish import PublishConfig, publish
from recsys.recurring.config import GateConfig
from recsys.recurring.cycle import run_cycle
from recsys.recurring.generations import REFUSED, SERVED, TRAINED, TRIED, Generations
from recsys.systems.choice import compose_run
from recsys.systems.runs import train
from tests.recurring.days import DAY, FIRST_DAYS, configured, next_day
from tests.systems.ranker.test_system import SMALL


@pytest.mark.slow  # two cycles, and a ranker
def test_a_consumer_is_asked(days: Path, tmp_path: Path) -> None:
    config = configured(days, tmp_path)
    (first,) = run_cycle(config)
    generations = Generations(Path(config.folder))
    run_dir = generations.run_dir(first.generation)
    early = first.generation.done[TRAINED]["report_from"] - 5 * DAY
    store = str(tmp_path / "early")
    publish(PublishConfig(run_dir=str(run_dir), as_of=to_text(early), store=store))
    ranker = tmp_path / "ranker"
    data = ["system=ranker", "data=log", f"data.out={tmp_path / 'prepared'}", f"run_dir={ranker}"]
    reads = [f"loader.user_embeddings.stores=[{store}]", "model.net.adoption.kind=unprojected"]
    train(compose_run([*data, *reads, *SMALL]))

    gate = GateConfig(worse_percent=None, consumers=[str(ranker)], skew_percent=1_000)
    grown = replace(next_day(config, days, FIRST_DAYS), gate=gate)
    (second,) = run_cycle(grown)
    assert second.generation.state == SERVED
    lost = second.generation.done[TRIED]["consumers"][str(ranker)]
    assert lost["low"] <= lost["value"] <= lost["high"]
    assert lost["value"] != 0  # the towers were trained anew
    assert not (generations.run_dir(second.generation) / "tried").exists()

    # a run that is no consumer is told, and the cycle goes on once that is mended
    gate = replace(gate, consumers=[str(run_dir)])
    grown = replace(next_day(config, days, FIRST_DAYS + 1), gate=gate)
    with pytest.raises(ConfigError, match="is a run of dv365, which reads no published user"):
        run_cycle(grown)
    assert generations.current() == second.generation
    never = GateConfig(worse_percent=None, least_cosine=0.99999)
    (third,) = run_cycle(replace(grown, gate=never))
    assert third.generation.state == REFUSED
