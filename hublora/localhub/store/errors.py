"""What the store refuses, as one tree. No HTTP here: `localhub.problems` gives each a status.

StoreError
├── RepoNotFound, RevisionNotFound, EntryNotFound, NotThere    it is not there, or not for you
├── NoCredentials, BadCredentials, Forbidden, GatedRepo        who asks is not enough
├── AlreadyExists, StaleParent, Conflict                       the world moved on
├── Malformed, InvalidPath, TooLarge                           what was sent cannot be meant
└── DamagedRepo                                                what is stored cannot be read
"""

from __future__ import annotations

from hublora.errors import HubloraError


class StoreError(HubloraError):
    """Something the store does not do, with the reason as a sentence."""


class RepoNotFound(StoreError):
    """No such repo, or none that the caller may know of."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Repository not found: {name}")


class RevisionNotFound(StoreError):
    """No branch, tag, pull request or commit of that name."""

    def __init__(self, revision: str) -> None:
        super().__init__(f"Invalid rev id: {revision}")


class EntryNotFound(StoreError):
    """No file or folder at that path; `commit` is the revision that was looked at."""

    def __init__(self, path: str, commit: str | None = None, message: str | None = None) -> None:
        super().__init__(message or f"Entry not found: {path}")
        self.commit = commit


class DamagedRepo(StoreError):
    """A repo whose git repository cannot be read, until whoever runs the Hub has mended it."""

    def __init__(self, name: str, damage: str) -> None:
        super().__init__(
            f"The repository {name} is damaged and set aside: {damage}",
            "Whoever runs this Hub can restore it from a backup and start the Hub again.",
        )


class NotThere(StoreError):
    """No such user, token, discussion, collection or access request."""


class NoCredentials(StoreError):
    """The call needs a token and came without one."""

    def __init__(self, message: str = "This call needs a token.") -> None:
        super().__init__(message)


class BadCredentials(StoreError):
    """A token that was never given out or has been revoked."""

    def __init__(self) -> None:
        # huggingface_hub tells "wrong token" from "no such repo" by exactly this sentence.
        super().__init__("Invalid credentials in Authorization header")


class Forbidden(StoreError):
    """A known caller without the right to do this."""


class GatedRepo(StoreError):
    """A repo whose files wait for the owner's consent."""


class AlreadyExists(StoreError):
    """The name is taken; `name` is what has it."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class StaleParent(StoreError):
    """The branch moved on since the caller looked."""


class Conflict(StoreError):
    """Two changes that cannot both hold, for example a merge."""


class Malformed(StoreError, ValueError):
    """A name, path, revision or body that is not one."""


class InvalidPath(Malformed):
    """A path that no file of a repo may have."""


class TooLarge(StoreError):
    """More than this store takes in one go."""
