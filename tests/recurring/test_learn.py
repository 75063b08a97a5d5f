"""A service's stages, each learned twice: from what later ones select, from what users do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from recsys.cli.main import invoke
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.service.config import ServeConfig
from recsys.service.generations import ServiceState
from recsys.service.messages import Event, Item, Recommend
from recsys.service.worker import Worker
from recsys.systems.runs import load_config
from tests.service.small_service import prepare

TRAIN = (
    "kept=[25]",
    "model.items.width=16",
    "model.items.output_width=16",
    "model.users.width=16",
    "model.users.layers=1",
    "loader.batch_size=8",
    "trainer.max_epochs=2",
    "trainer.progress_bar=false",
    "optim.dense.learning_rate=0.01",
)
HOUR = 3_600_000


def serve(state: Path, hour: int, requests: int) -> list[int]:
    """Ask for lists in an hour, with an event between them; the generations that answered."""
    worker = Worker(ServeConfig(state=str(state), clock="log"))
    users = worker.served.some_users()

    async def ask() -> list[int]:
        await worker.announce([Item(item=700_000 + hour)])
        begin = worker.served.dataset.manifest.counts["last_timestamp"] + hour * HOUR
        found = []
        for place in range(requests):
            user, moment = users[place % len(users)], begin + place * 1_000
            answer = await worker.recommend(Recommend(user=user, k=10, moment=moment))
            shown = [Event(user=user, item=one, timestamp=moment + 1) for one in answer.items[:2]]
            liked = Event(user=user, item=answer.items[0], timestamp=moment + 2, action="liked")
            await worker.report([*shown, liked])
            found.append(answer.generation)
            assert answer.fallback is None and answer.outcome is not None
            first = answer.outcome.candidates.scores.get("first")
            assert (first is not None and np.isfinite(first).any()) == (answer.generation > 1)
        return found

    found = asyncio.run(ask())
    worker.close()
    worker.served.dataset.live.close()
    return found


@pytest.mark.slow
def test_what_is_learned_is_served_and_learned_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared, state = prepare(tmp_path), tmp_path / "state"
    funnel = tmp_path / "funnel.yaml"
    funnel.write_text(
        "sources: {trending: {quota: 200}, fresh: {quota: 50, hours: 48}}\n"
        "second: {scorer: rates, candidates: 100}\n"
        "value: {expression: p(liked) + 0.01 * watch_time}\n"
    )
    asked = [f"state={state}", f"dataset={prepared}", f"funnel={funnel}"]
    assert invoke(["service", "swap", *asked]) == 0
    learn = ["recur", "learn", f"state={state}", f"folder={tmp_path / 'first'}"]
    learn.append(f"train=[{','.join(TRAIN)}]")
    assert invoke(learn) == 2
    assert "the ledgers hold 0 requests of 24 h" in capsys.readouterr().err
    fingerprint = PreparedDataset.open(prepared).manifest.fingerprint
    for number in (1, 2):
        assert set(serve(state, number, 60)) == {number}
        assert invoke(learn) == 0
        out = capsys.readouterr().err
        assert "by the first stage that was served" in out, out
        assert f"serves generation {number + 1}" in out, out
        assert ("weights" in out.lower()) == (number == 2), out
        data = PreparedDataset.open(tmp_path / "first" / f"{number + 1:06d}" / "data")
        assert data.manifest.fingerprint == fingerprint
        assert data.manifest.tasks[0].name == "selected"
        assert data.requests(Split.FIT).item.max() < data.manifest.vocabulary_sizes["item"]
    assert set(serve(state, 3, 2)) == {3}
    # the data set that is served is as it was
    assert PreparedDataset.open(prepared).manifest.tasks[0].name != "selected"


RANKER = (
    "system=ranker",
    "model.net.dimension=8",
    "loader.max_events=12",
    "loader.num_workers=0",
    "trainer.progress_bar=false",
)


@pytest.mark.slow
def test_a_second_stage_goes_on_from_the_weights_that_are_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared, state, run = prepare(tmp_path), tmp_path / "state", tmp_path / "ranker"
    data = ["data=simulated", f"data.path={tmp_path / 'log'}", f"data.out={prepared}"]
    assert invoke(["train", *data, *RANKER, "trainer.max_steps=2", f"run_dir={run}"]) == 0
    assert invoke(["export", f"run_dir={run}", "measure=false"]) == 0
    funnel = tmp_path / "funnel.yaml"
    funnel.write_text(
        "sources: {trending: {quota: 60}, fresh: {quota: 20, hours: 48}}\n"
        f"models: {{mine: {{path: {run / 'artifact'}, context: {{position: 0}}}}}}\n"
        "second: {scorer: mine, candidates: 60}\n"
        "value: {expression: p(liked) + 0.01 * watch_time}\n"
    )
    asked = [f"state={state}", f"dataset={prepared}", f"funnel={funnel}"]
    assert invoke(["service", "swap", *asked]) == 0
    folder = tmp_path / "second"
    learn = ["recur", "learn", "stage=second", f"state={state}", f"folder={folder}"]
    learn.append("train=[trainer.max_steps=20,optim.dense.learning_rate=0.01]")
    served, fitted = run, None
    for number in (1, 2):
        ask(state, number, 60)
        assert invoke(learn) == 0
        out = capsys.readouterr().err
        assert "mean NE of the newest rows" in out and f"serves generation {number + 1}" in out
        new = folder / f"{number:06d}" / "run"
        config = load_config(new)
        assert config.warm_start.checkpoint == str(served / "checkpoints" / "best.ckpt")
        assert config.model.net.dimension == 8  # as of the run that it goes on from
        data_set = PreparedDataset.open(new.parent / "data")
        first, choose = data_set.manifest.split_bounds[Split.FIT]
        # rows that the former one was fitted on are not fitted on again
        assert fitted is None or first >= fitted
        served, fitted = new, choose
        labels = data_set.requests(Split.FIT).labels
        names = [task.name for task in data_set.manifest.tasks]
        # each list was looked at twice, and its first item was liked
        assert np.nanmean(labels[:, names.index("liked")]) == 0.5
    assert not (folder / "000001" / "data").exists()
    assert ServiceState(state).current().funnel.models["mine"].path == str(served / "artifact")
    funnel.write_text(funnel.read_text().replace("scorer: mine", "scorer: rates"))
    assert invoke(["service", "swap", f"state={state}", f"funnel={funnel}"]) == 0
    assert invoke(learn) == 2
    assert (
        "the second stage of the funnel is rates, which does not learn" in capsys.readouterr().err
    )


def ask(state: Path, hour: int, requests: int) -> None:
    """Ask for lists in an hour, each of which is looked at twice and liked once."""
    worker = Worker(ServeConfig(state=str(state), clock="log"))
    users = worker.served.some_users()

    async def asked() -> None:
        begin = worker.served.dataset.manifest.counts["last_timestamp"] + hour * HOUR
        for place in range(requests):
            user, moment = users[place % len(users)], begin + place * 1_000
            answer = await worker.recommend(Recommend(user=user, k=10, moment=moment))
            own = [Event(user=user, item=one, timestamp=moment + 1) for one in answer.items[:2]]
            liked = Event(user=user, item=answer.items[0], timestamp=moment + 2, action="liked")
            await worker.report([*own, liked])

    asyncio.run(asked())
    worker.close()
    worker.served.dataset.live.close()
