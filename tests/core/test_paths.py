"""Names that a description gives are of files beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.paths import plain_name

FOLDER = Path("/somewhere/store")


@given(st.one_of(st.text(), st.text("./\\\0a"), st.none(), st.integers()))
def test_a_name_leads_nowhere_else(name: object) -> None:
    try:
        plain = plain_name(name)
    except ValueError:
        return
    assert (FOLDER / plain).parent == FOLDER and plain not in ("", ".", "..")


@pytest.mark.parametrize("name", ["index.1.faiss", ".metadata", "0-1-2.block", "a b"])
def test_names_of_files_pass(name: str) -> None:
    assert plain_name(name) == name
