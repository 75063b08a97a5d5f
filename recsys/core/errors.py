"""Errors that are sentences for the user: what, where, what was expected, how to mend it."""

from __future__ import annotations

from recsys.core.secrets import mask


class RecsysError(Exception):
    """A problem the user can mend; the command line prints its message alone and exits with 2."""

    def __str__(self) -> str:
        """The sentence, wherever it is printed or written, without secrets."""
        return mask(super().__str__())


class DataError(RecsysError):
    """A file, column or row that cannot be used."""


class ConfigError(RecsysError):
    """A configuration that cannot work."""


class ArtifactError(RecsysError):
    """A run folder, checkpoint or exported artifact that is damaged or does not match."""


class InstallationError(RecsysError):
    """A package that is missing or does not match the others."""


class TrainingError(RecsysError):
    """A training whose numbers went wrong and that cannot go on."""


class HangError(RecsysError):
    """A training that no rank came further with; the sentence names the rank that hangs."""


class PreemptedError(RecsysError):
    """A run that was told to stop and has saved its state; it can go on."""

    #: Of the command line; as EX_TEMPFAIL of sysexits.h, the same again may succeed.
    EXIT_CODE = 75
