"""A metric's protocol names everything that decides the number."""

from __future__ import annotations

from recsys.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    dataset="ebnerd_demo",
    split="report",
    rows=1000,
    users=30,
    seed=7,
    checkpoint="best.ckpt",
    chosen_by="lowest val/ne/mean",
)


def test_sentence_names_every_choice() -> None:
    assert PROTOCOL.sentence() == (
        "ebnerd_demo, split report: 1000 rows of 30 users; candidates: logged impressions; "
        "seed 7; checkpoint best.ckpt (chosen by: lowest val/ne/mean)"
    )


def test_value_travels_with_its_protocol() -> None:
    measured = PROTOCOL.measure(0.9)
    assert measured.as_dict() == {"value": 0.9, "protocol": PROTOCOL.sentence()}
