"""Lists under rules: hand-computed ones, and properties of any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ConfigError
from recsys.serving.funnel.rerank import Apart, AtMost, Downrank, RerankConfig, rerank

NAN = float("nan")


def lists(config: RerankConfig, value: list[float], k: int, **columns: list) -> list[int]:
    found = rerank(config, np.array([value]), {n: np.array([c]) for n, c in columns.items()}, k)
    return found.place[0].tolist()


def test_without_rules_the_most_valuable_come_first() -> None:
    assert lists(RerankConfig(), [1.0, NAN, 3.0, 3.0], 5) == [2, 3, 0, -1, -1]


def test_the_example_of_the_docstring() -> None:
    config = RerankConfig(apart=[Apart("author", 2)])
    assert lists(config, [5.0, 4.0, 3.0], 3, author=[8, 8, 9]) == [0, 2, 1]


def test_unknown_authors_are_shared_with_nobody() -> None:
    config = RerankConfig(apart=[Apart("author", 3)])
    assert lists(config, [5.0, 4.0, 3.0], 3, author=[0, 0, 0]) == [0, 1, 2]


def test_a_topic_fills_its_share_and_no_more() -> None:
    config = RerankConfig(at_most=[AtMost("topic", 0.5)])
    assert lists(config, [9.0, 8.0, 7.0, 2.0, 1.0], 4, topic=[1, 1, 1, 2, 3]) == [0, 1, 3, 4]


def test_a_rule_is_let_go_where_nothing_else_is_left() -> None:
    config = RerankConfig(apart=[Apart("author", 2)])
    found = rerank(config, np.array([[5.0, 4.0]]), {"author": np.array([[8, 8]])}, 3)
    assert found.place.tolist() == [[0, 1, -1]]
    assert found.let_go.tolist() == [[False, True, False]]


def test_downranked_values_fall_whatever_their_sign() -> None:
    config = RerankConfig(downrank=[Downrank("integrity", below=0.5, factor=0.5)])
    of = {"integrity": [0.1, 0.9, 0.1, 0.9]}
    assert lists(config, [1.0, 0.6, -1.0, -1.5], 4, **of) == [1, 0, 3, 2]


def test_maximal_marginal_relevance_by_hand() -> None:
    # values 1, 0.9, 0 are their own unit range. After the first: the second is its like (cosine 1),
    # 0.5 * 0.9 - 0.5 * 1 = -0.05; the third is not, 0.5 * 0 - 0.5 * -1 = 0.5
    embedding = np.array([[[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]], np.float32)
    found = rerank(RerankConfig(relevance=0.5), np.array([[1.0, 0.9, 0.0]]), {}, 3, embedding)
    assert found.place.tolist() == [[0, 2, 1]]


def test_rules_about_what_nobody_knows_are_refused() -> None:
    with pytest.raises(ConfigError, match="no column author; they have topic"):
        lists(RerankConfig(apart=[Apart("author", 2)]), [1.0], 1, topic=[1])
    with pytest.raises(ConfigError, match="nothing says how alike"):
        lists(RerankConfig(relevance=0.5), [1.0], 1)


VALUES = st.lists(st.one_of(st.floats(-5, 5), st.just(NAN)), min_size=0, max_size=12)


@given(VALUES, st.integers(1, 8), st.data())
def test_any_list_is_as_long_as_can_be_and_obeys_where_it_says_so(
    value: list[float], k: int, data: st.DataObject
) -> None:
    author = data.draw(st.lists(st.integers(0, 3), min_size=len(value), max_size=len(value)))
    topic = data.draw(st.lists(st.integers(0, 2), min_size=len(value), max_size=len(value)))
    config = RerankConfig(apart=[Apart("author", 3)], at_most=[AtMost("topic", 0.4)])
    columns = {"author": np.array([author], np.int64), "topic": np.array([topic], np.int64)}
    found = rerank(config, np.array([value], np.float64), columns, k)
    chosen = [one for one in found.place[0].tolist() if one >= 0]
    assert len(chosen) == len(set(chosen)) == min(k, sum(one == one for one in value))
    limit = int(np.ceil(0.4 * k))
    for at, one in enumerate(chosen):
        if found.let_go[0, at]:
            continue
        near = [author[other] for other in chosen[max(at - 2, 0) : at]]
        assert author[one] == 0 or author[one] not in near
        before = [topic[other] for other in chosen[:at]]
        assert topic[one] == 0 or before.count(topic[one]) < limit
    # padded among others, the same list
    wider = rerank(
        config,
        np.array([[*value, NAN], [1.0, *value]], np.float64),
        {name: np.pad(np.vstack([c, c]), ((0, 0), (0, 1))) for name, c in columns.items()},
        k,
    )
    assert wider.place[0].tolist() == found.place[0].tolist()
