"""The exceptions that hublora raises, as one tree.

    HubloraError                 anything a person can fix; `hint` says how
    ├── RefError                 a ref that does not parse
    ├── ConfigError              a training or generation setting that cannot work
    ├── DataError                a dataset, a column or an image that cannot be used
    ├── AdapterError             an adapter file that is broken, unsafe or for another base
    ├── HubError                 the Hub said no, or could not be reached
    │   ├── NotFoundError        a repo, revision or file that does not exist
    │   ├── AccessError          no token, not enough rights, gated
    │   └── PushError            an upload that did not complete; the files are still on disk
    ├── VerificationError        a repo does not hold what was pushed or recorded
    └── Interrupted              a person stopped a training; `checkpoint` is where to resume

The library raises; `hublora.cli.errors` alone turns these into sentences. As text, an error speaks
of flags to the command line and of keywords to Python (`hublora.flag_names`).
"""

from __future__ import annotations

from pathlib import Path

from hublora.flag_names import in_python


class HubloraError(Exception):
    """Says in one sentence what went wrong and, in `hint`, what fixes it.

    Args:
        message: One sentence, without a trailing newline.
        hint: The command to type or the setting to change next.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return in_python(f"{self.message} {self.hint}" if self.hint else self.message)


class RefError(HubloraError, ValueError):
    """A ref that does not parse."""


class ConfigError(HubloraError, ValueError):
    """A setting that is unknown, out of range or at odds with another one."""


class DataError(HubloraError, ValueError):
    """A dataset, a column or an image that cannot be used."""


class AdapterError(HubloraError, ValueError):
    """An adapter file that is broken, unsafe to open or made for another base."""


class HubError(HubloraError):
    """The Hub said no, or could not be reached."""


class NotFoundError(HubError):
    """A repo, a revision or a file that does not exist."""


class AccessError(HubError):
    """No token, one without the needed rights, or a gated repo."""


class PushError(HubError):
    """An upload that did not complete; the files are still on disk."""


class VerificationError(HubloraError):
    """A repo does not hold what was pushed or recorded."""


class Interrupted(HubloraError):
    """A person stopped a training; `checkpoint` is the folder to resume from, if one was saved."""

    def __init__(self, message: str, hint: str | None, checkpoint: Path | None) -> None:
        super().__init__(message, hint)
        self.checkpoint = checkpoint
