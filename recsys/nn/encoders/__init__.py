"""User encoders: the Funnel Summarization Arch and its alternatives (DV365 table 1)."""

from recsys.nn.encoders.base import EncoderConfig, UserEncoder
from recsys.nn.encoders.build import NO_TIMELINES, build_encoder

__all__ = ["NO_TIMELINES", "EncoderConfig", "UserEncoder", "build_encoder"]
