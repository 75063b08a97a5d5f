"""Keeps other libraries' advice to their developers out of the user's terminal."""

from __future__ import annotations

import logging
import os
import warnings

#: Modules whose warnings say nothing that a user of the command line could act on.
TALKATIVE_MODULES = ("lightning", "torch", "torchrec", "fbgemm_gpu", "torchdata", "torchmetrics")
#: Lightning sets the level of its two root loggers when it is imported, so their children.
TALKATIVE_LOGGERS = (
    *(f"lightning.pytorch.{name}" for name in ("utilities", "trainer", "loops", "callbacks")),
    "lightning.fabric.utilities",
    "torch.fx",
    "torchrec",
)


def quieten() -> None:
    """Silence warnings and advice; errors still come through."""
    for module in TALKATIVE_MODULES:
        warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
    # said where our code calls it; what is to be used instead is not in torch 2.11
    warnings.filterwarnings("ignore", message=r"torch\.distributed\.nn\.functional\.all_gather")
    # of names in a figure, which it would repeat with the control characters in them
    warnings.filterwarnings("ignore", message=r"(?s)Glyph \d+ .* missing from font")
    for logger in TALKATIVE_LOGGERS:
        logging.getLogger(logger).setLevel(logging.ERROR)
    # torch sets up its loggers anew when it is imported; this is how it is told.
    os.environ.setdefault("TORCH_LOGS", "-all")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
