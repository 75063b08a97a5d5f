"""Raw ids, against the vocabulary they are of."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.stores.vocabulary import IdMode, Vocabulary
from recsys.service.raw_ids import RawIds

_IDS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_ASKED = _IDS | _TEXTS | st.sampled_from(["007", "+7", "7.0", "-0", 10**30])


def vocabulary(ids: list[int] | list[str], hashed: bool) -> Vocabulary:
    raw = pl.Series("raw", ids, pl.Int64() if not ids or isinstance(ids[0], int) else pl.String())
    seen = pl.DataFrame({"raw": raw, "first_seen": pl.Series(range(len(ids)), dtype=pl.Int64)})
    if hashed:
        return Vocabulary.build(seen, IdMode.HASHED, 8)
    return Vocabulary.build(seen)


@given(
    st.lists(_IDS, unique=True, max_size=20) | st.lists(_TEXTS, unique=True, max_size=20),
    st.lists(_ASKED, max_size=20),
    st.booleans(),
)
def test_they_are_found_as_the_vocabulary_finds_them(
    ids: list[int] | list[str], others: list[int | str], hashed: bool
) -> None:
    known = vocabulary(ids, hashed)
    raw_ids = RawIds(known)
    asked = [*ids, *others]
    expected = known.indices_of(asked).tolist()
    assert raw_ids.indices(asked).tolist() == expected
    reported = raw_ids.reported(asked).tolist()
    for one, index in zip(reported, expected, strict=True):
        assert one == index or (index == 0 and raw_ids.size <= one < 2**31)
    if not hashed:
        assert raw_ids.raw(raw_ids.indices(ids)) == ids
    assert raw_ids.raw(raw_ids.indices([])) == []
