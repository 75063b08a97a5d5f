from __future__ import annotations

import yaml  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.infer.yaml_text import element, note, scalar, setting, written

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@settings(max_examples=300)
@given(TEXT)
def test_a_text_is_read_as_it_was(text: str) -> None:
    assert yaml.safe_load(scalar(text)) == text


@given(st.none() | st.booleans() | st.integers() | st.floats(0.1, 0.9))
def test_other_values_too(value: object) -> None:
    assert yaml.safe_load(scalar(value)) == value


@settings(max_examples=100)
@given(TEXT, TEXT, TEXT)
def test_comments_change_nothing(key: str, value: str, comment: str) -> None:
    lines = [
        note(comment),
        setting("options", ..., comment * 20),
        setting(key, value, comment * 20, 2),
        setting("several of them", ..., "", 2),
        element(value, comment, 4),
        note(comment * 20, 4),
    ]
    content = {"options": {key: value, "several of them": [value]}}
    if key != "several of them":
        assert yaml.safe_load(written(lines)) == content


def test_a_long_comment_goes_on_below() -> None:
    lines = written([setting("split", "time", "why " * 30)]).splitlines()
    assert lines[0].startswith("split: time                     # why why")
    assert lines[1].startswith(" " * 32 + "# why")
    assert max(map(len, lines)) <= 100
