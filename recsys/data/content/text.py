"""Texts of items as jagged token indices: hashed n-grams, or a pretrained model's tokens."""

from __future__ import annotations

import importlib
import re
import unicodedata
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.bounds import Buckets, Few, Number, Settings
from recsys.core.errors import ConfigError, InstallationError
from recsys.core.progress import track

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class HashedTextConfig(Settings):
    """How a text becomes hashed n-grams.

    Attributes:
        buckets: number of indices the n-grams are hashed to.
        word_ngrams: 1 for words alone, 2 for words and pairs of neighbours, and so on.
        character_ngrams: length of the pieces of a word that are taken beside it, its beginning
            and end marked, so that forms of a word share most of them; 0 for none.
    """

    buckets: Buckets = 65_536
    word_ngrams: Few = 2
    character_ngrams: Annotated[int, Number(at_least=0, at_most=1_024)] = 3


def ngrams(text: str, config: HashedTextConfig) -> Iterator[str]:
    """The n-grams of a text, with repetitions: compatible forms unified, case folded.

    >>> list(ngrams("Toy Story", HashedTextConfig(word_ngrams=2, character_ngrams=0)))
    ['toy', 'story', 'toy story']
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    for length in range(1, config.word_ngrams + 1):
        for first in range(len(words) - length + 1):
            yield " ".join(words[first : first + length])
    if config.character_ngrams:
        for word in words:
            marked = f"<{word}>"
            for first in range(len(marked) - config.character_ngrams + 1):
                yield marked[first : first + config.character_ngrams]


def hashed_ngrams(
    texts: Sequence[str | None], config: HashedTextConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The n-grams of each text, hashed by CRC-32, the same on every machine.

    Args:
        texts: of P items; ``None`` where an item has none.
        config: which n-grams, and how many buckets.

    Returns:
        Indices in ``[0, buckets)``, the items' one after the other, and their number per item [P];
        0 for an item without text or of a text without a word.
    """
    return _jagged(
        (
            [zlib.crc32(gram.encode()) % config.buckets for gram in ngrams(text or "", config)]
            for text in track(texts, "Hashing texts")
        ),
        len(texts),
    )


def pretrained_tokens(
    texts: Sequence[str | None], path: str | Path, max_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens of each text by the tokeniser of a pretrained Hugging Face model.

    Args:
        texts: of P items; ``None`` where an item has none.
        path: folder of the model: tokeniser, configuration and weights.
        max_tokens: longer texts are cut.

    Returns:
        Token indices, special tokens included, and their number per item [P]; 0 for an item without
        text.

    Raises:
        InstallationError: the package transformers is not installed.
        ConfigError: there is no tokeniser in the folder.
    """
    transformers = require_transformers(path)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} holds no tokeniser that transformers can load "
            f"({str(error).splitlines()[0]}); give a folder written by save_pretrained."
        ) from error
    return _jagged(
        (
            tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"] if text else []
            for text in track(texts, "Splitting texts into tokens")
        ),
        len(texts),
    )


def require_transformers(path: str | Path) -> Any:
    """The package transformers, which is no requirement of recsys, and the folder of a model.

    Raises:
        InstallationError: it is not installed.
        ConfigError: ``path`` is no folder. Nothing is ever downloaded.
    """
    if not Path(path).is_dir():
        raise ConfigError(
            f"{path} is no folder; a pretrained text encoder is read from a local folder with its "
            "tokeniser and weights, and never downloaded."
        )
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise InstallationError(
            f"The text encoder in {path} needs the package transformers: `pip install "
            "transformers`, or use hashed n-grams (leave the path out)."
        ) from error


def _jagged(
    rows: Iterable[Sequence[int]], num_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    values, lengths = array("q"), np.zeros(num_rows, np.int64)
    for position, row in enumerate(rows):
        values.extend(row)
        lengths[position] = len(row)
    return np.array(values, np.int64), lengths
