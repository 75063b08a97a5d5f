"""N-grams by hand, hashing that never changes, texts that are not there, missing encoders."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ConfigError, InstallationError
from recsys.data.content.text import HashedTextConfig, hashed_ngrams, ngrams, pretrained_tokens


def test_words_pairs_and_pieces_by_hand() -> None:
    config = HashedTextConfig(word_ngrams=2, character_ngrams=3)
    assert list(ngrams("Heat, (1995)", config)) == [
        *("heat", "1995", "heat 1995"),
        *("<he", "hea", "eat", "at>"),
        *("<19", "199", "995", "95>"),
    ]
    assert list(ngrams("a", config)) == ["a", "<a>"]


def test_case_and_compatible_characters_are_unified() -> None:
    config = HashedTextConfig(character_ngrams=0)
    assert list(ngrams("STRASSE \uff36\uff18", config)) == list(ngrams("straße v8", config))


def test_indices_are_the_crc_of_the_ngrams() -> None:
    """Trained tables depend on it: the same text has the same rows on every machine, always."""
    config = HashedTextConfig(buckets=1000, word_ngrams=1, character_ngrams=0)
    indices, lengths = hashed_ngrams(["Story 123456789", None, "", "?!", "story"], config)
    # 0xCBF43926, that is 3,421,780,262, is the check value of CRC-32 for the digits 1 to 9
    assert indices.tolist() == [zlib.crc32(b"story") % 1000, 262, indices[0]]
    assert lengths.tolist() == [2, 0, 0, 0, 1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.none() | st.text(max_size=20), max_size=5))
def test_any_texts_give_indices_in_range_and_the_same_as_alone(texts: list[str | None]) -> None:
    config = HashedTextConfig(buckets=50)
    indices, lengths = hashed_ngrams(texts, config)
    assert indices.dtype == lengths.dtype == np.int64
    assert len(lengths) == len(texts) and lengths.sum() == len(indices)
    assert ((indices >= 0) & (indices < 50)).all()
    alone = [hashed_ngrams([text], config)[0] for text in texts]
    assert np.array_equal(indices, np.concatenate([np.empty(0, np.int64), *alone]))


@pytest.mark.parametrize("wrong", [{"buckets": 0}, {"word_ngrams": 0}, {"character_ngrams": -1}])
def test_values_without_ngrams_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="it must be a whole number from"):
        HashedTextConfig(**wrong)


def test_a_pretrained_encoder_is_a_local_folder_and_needs_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="xlm-roberta-base is no folder"):
        pretrained_tokens(["text"], "xlm-roberta-base", 8)
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    with pytest.raises(InstallationError, match="pip install transformers"):
        pretrained_tokens(["text"], tmp_path, 8)
