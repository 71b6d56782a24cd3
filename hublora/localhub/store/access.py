"""Who may do what to a repo: one table, asked by every route, by git and by the pages alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .errors import Forbidden, GatedRepo, NoCredentials, RepoNotFound
from .people import Caller
from .repos import Repo


class Right(IntEnum):
    """Rights to a repo, each including those before it."""

    NONE = 0
    KNOW = 1  # that it exists, and its card: a gated repo's public face
    READ = 2  # the files
    WRITE = 3  # commits, branches, merging
    OWN = 4  # settings, moving, deleting


@dataclass(frozen=True)
class Consent:
    """What a gated repo's owner has said about a user: nothing, or one of the words below."""

    status: str | None = None

    @property
    def given(self) -> bool:
        """Whether the owner let the user in."""
        return self.status == "accepted"


# A writer creates, renames and deletes repos too; an admin looks after the members besides.
_ORGANISATION_RIGHTS = {"admin": Right.OWN, "write": Right.OWN, "read": Right.READ}
_TOKEN_LIMITS = {"write": Right.OWN, "read": Right.READ}


def right_to(repo: Repo, caller: Caller, consent: Consent = Consent()) -> Right:
    """Return the most that `caller` may do to `repo`."""
    personal = _personal_right(repo, caller)
    if caller.role == "fineGrained":
        if caller.only_repo == repo.id:
            limit = Right.WRITE if caller.repo_role == "write" else Right.READ
        else:
            personal, limit = Right.NONE, Right.READ
    else:
        limit = _TOKEN_LIMITS[caller.role]
    right = min(personal, limit)
    if right >= Right.READ or repo.private:
        return right
    if repo.gated and not (consent.given and caller.role != "fineGrained"):
        return Right.KNOW
    return Right.READ


def _personal_right(repo: Repo, caller: Caller) -> Right:
    if caller.name is None:
        return Right.NONE
    if caller.name.lower() == repo.owner.lower():
        return Right.OWN
    for organisation, role in caller.organisations.items():
        if organisation.lower() == repo.owner.lower():
            return _ORGANISATION_RIGHTS[role]
    return Right.NONE


def require(repo: Repo, caller: Caller, wanted: Right, consent: Consent = Consent()) -> Right:
    """Return the caller's right, or raise the refusal that gives nothing away.

    Raises:
        RepoNotFound: The caller may not even know that it exists.
        GatedRepo: It waits for the owner's consent.
        NoCredentials, Forbidden: It can be seen, but not changed.
    """
    right = right_to(repo, caller, consent)
    if right >= wanted:
        return right
    if right is Right.NONE:
        raise RepoNotFound(repo.name)
    if wanted is Right.READ:
        raise GatedRepo(_gate_message(repo, caller, consent))
    if not caller.known:
        raise NoCredentials("You must be authenticated with a write token to do this.")
    if caller.role != "write" and _personal_right(repo, caller) >= wanted:
        raise Forbidden("This token is read-only: a token with the role 'write' is needed.")
    raise Forbidden(f"You don't have the rights to change {repo.name}.")


def _gate_message(repo: Repo, caller: Caller, consent: Consent) -> str:
    if not caller.known:
        return f"Access to {repo.kind} {repo.name} is restricted. You must be authenticated."
    if consent.status == "pending":
        return f"Your request to access {repo.kind} {repo.name} is awaiting a review."
    if consent.status == "rejected":
        return f"Your request to access {repo.kind} {repo.name} has been rejected by its owner."
    return (
        f"Access to {repo.kind} {repo.name} is restricted and you are not in the authorized list."
        f" Ask for access on the repo's page."
    )
