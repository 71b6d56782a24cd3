"""The one client, and one table that turns its exceptions into hublora's.

Protocol: huggingface_hub `errors.py` and `utils/_http.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import HfApi, constants
from huggingface_hub import errors as hf
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from hublora.errors import AccessError, HubError, HubloraError, NotFoundError

# Ids that old articles name and that are gone from the Hub, with what took their place.
REPLACED_REPOS = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "lambdalabs/pokemon-blip-captions": "lambdalabs/naruto-blip-captions",
}


def api() -> HfApi:
    """Return a client for the endpoint and the token of this process."""
    from hublora._version import __version__

    return HfApi(library_name="hublora", library_version=__version__)


@contextmanager
def without_bars() -> Iterator[None]:
    """Show none of huggingface_hub's bars, one for each file; what happens is told by workflows.

    Commits take no class of bars, so that only the switch for all of the process turns them off.
    """
    were_shown = not are_progress_bars_disabled()
    if were_shown:
        disable_progress_bars()
    try:
        yield
    finally:
        if were_shown:
            enable_progress_bars()


def is_offline() -> bool:
    """Tell whether `HF_HUB_OFFLINE` forbids the network."""
    return bool(constants.HF_HUB_OFFLINE)


def endpoint() -> str:
    """Return the Hub's address, without a trailing slash."""
    return constants.ENDPOINT.rstrip("/")


@contextmanager
def translated(what: str, revision: str | None = None) -> Iterator[None]:
    """Turn the client's exceptions into sentences about `what` (e.g. "model user/name").

    Raises:
        NotFoundError: The repo, the revision or the file is not there.
        AccessError: The token is missing, wrong or not enough.
        HubError: The Hub could not be reached or failed.
    """
    try:
        yield
    except HubloraError:
        raise
    except Exception as error:
        for kind, translate in _TRANSLATIONS:
            if isinstance(error, kind):
                raise translate(error, what, revision) from error
        raise


def _page(what: str) -> str:
    """Return the address of the repo's page; `what` is like "dataset owner/name"."""
    kind, _, repo = what.partition(" ")
    return f"{endpoint()}/{'' if kind == 'model' else kind + 's/'}{repo}"


def _gone(what: str) -> HubloraError | None:
    repo = what.split(" ")[-1]
    if repo not in REPLACED_REPOS:
        return None
    return NotFoundError(f"{repo} was taken off the Hub.", f"Use {REPLACED_REPOS[repo]} instead.")


def _repo_missing(error: Exception, what: str, revision: str | None) -> HubloraError:
    gone = _gone(what)
    if gone:
        return gone
    if "Invalid credentials" in str(error):
        return AccessError(
            f"The Hub at {endpoint()} does not know this token.",
            "Log in again with: hf auth login",
        )
    return NotFoundError(
        f"There is no {what} on {endpoint()}, or this token may not see it.",
        "Check the spelling; for a private repo log in with: hf auth login" + _elsewhere(),
    )


def _elsewhere() -> str:
    """Return what else may be the reason where another Hub than the public one is asked."""
    if "huggingface.co" in endpoint():
        return ""
    return (
        ". What huggingface.co has is not on this Hub by itself: unset HF_ENDPOINT to ask there, "
        "or take a copy in with: hublora hub import FOLDER OWNER/NAME"
    )


def _gated(error: Exception, what: str, revision: str | None) -> HubloraError:
    return AccessError(
        f"The {what} is gated and this token has no access yet.", f"Ask for it at {_page(what)}"
    )


def _revision_missing(error: Exception, what: str, revision: str | None) -> HubloraError:
    return NotFoundError(
        f"The {what} has no revision {revision!r}.",
        f"Its branches and tags are listed at {_page(what)}",
    )


def _entry_missing(error: Exception, what: str, revision: str | None) -> HubloraError:
    return NotFoundError(f"A file is missing: {what} does not have it.", None)


def _offline(error: Exception, what: str, revision: str | None) -> HubloraError:
    return HubError(
        f"The {what} is not in the local cache and HF_HUB_OFFLINE is set.",
        "Unset HF_HUB_OFFLINE once to download it.",
    )


def _unreachable(error: Exception, what: str, revision: str | None) -> HubloraError:
    return HubError(
        f"The Hub at {endpoint()} could not be reached for the {what}.",
        "Check the network and HF_ENDPOINT; what is already cached works with HF_HUB_OFFLINE=1.",
    )


def _http(error: Exception, what: str, revision: str | None) -> HubloraError:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    said = (getattr(error, "server_message", None) or str(error).splitlines()[0]).strip()
    if status in (401, 403):
        return AccessError(
            f"The Hub refused access to the {what} ({status}): {said}",
            "Log in with a token that may do this: hf auth login",
        )
    if status == 404:
        return _gone(what) or NotFoundError(f"The Hub has no {what}: {said}")
    return HubError(f"The Hub answered {status} for the {what}: {said}")


def _not_cached(error: Exception, what: str, revision: str | None) -> HubloraError:
    return (_offline if is_offline() else _unreachable)(error, what, revision)


_Translate = Callable[[Exception, str, "str | None"], HubloraError]

# The first match wins: subclasses stand above their parents.
_TRANSLATIONS: tuple[tuple[type[BaseException], _Translate], ...] = (
    (hf.OfflineModeIsEnabled, _offline),
    (hf.GatedRepoError, _gated),
    (hf.RepositoryNotFoundError, _repo_missing),
    (hf.RevisionNotFoundError, _revision_missing),
    (hf.LocalEntryNotFoundError, _not_cached),
    (hf.EntryNotFoundError, _entry_missing),
    (hf.HfHubHTTPError, _http),
    # The transport errors of whichever HTTP library this huggingface_hub is built on.
    (hf.HTTPError, _unreachable),
    (ConnectionError, _unreachable),
)


def whoami() -> dict[str, Any]:
    """Return who the token belongs to and what it may do.

    Raises:
        AccessError: There is no token, or the Hub does not know it.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise AccessError("There is no Hub token.", "Log in with: hf auth login (or set HF_TOKEN)")
    with translated("token's owner"):
        try:
            return api().whoami()
        except hf.HfHubHTTPError as error:
            if getattr(error.response, "status_code", None) == 401:
                raise AccessError(
                    f"The Hub at {endpoint()} does not know this token.",
                    "Log in again with: hf auth login",
                ) from error
            raise
