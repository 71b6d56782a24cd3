"""The client of the Hub, and the table that maps its exceptions to hublora's.

Protocol: huggingface_hub `errors.py` and `utils/_http.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi, constants
from huggingface_hub import errors as hf
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from hublora.errors import AccessError, HubError, HubloraError, NotFoundError
from hublora.hub.transport import (
    configure_client,
    is_cut_off,
    is_misread,
    is_of_xet,
    reason_of,
    words_of,
)

# Repos that were deleted from the Hub, and that articles and cards still name -> what to use
# instead.
REPLACED_REPOS = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "lambdalabs/pokemon-blip-captions": "lambdalabs/naruto-blip-captions",
}

configure_client()


def api() -> HfApi:
    """Return a client for the endpoint and the token of this process."""
    from hublora._version import __version__

    return HfApi(library_name="hublora", library_version=__version__)


class MissingRevisionError(NotFoundError):
    """A repo that is there has no branch, tag or commit of that name."""


@contextmanager
def without_bars() -> Iterator[None]:
    """Disable huggingface_hub's progress bars, one for each file: workflows report progress.

    `create_commit` takes no bar class, so that only the process-wide switch turns them off.
    """
    were_enabled = not are_progress_bars_disabled()
    if were_enabled:
        disable_progress_bars()
    try:
        yield
    finally:
        if were_enabled:
            enable_progress_bars()


def is_offline() -> bool:
    """Return whether `HF_HUB_OFFLINE` forbids the network."""
    return bool(constants.HF_HUB_OFFLINE)


def endpoint() -> str:
    """Return the Hub's address, without a trailing slash."""
    return constants.ENDPOINT.rstrip("/")


@contextmanager
def translated(what: str, revision: str | None = None) -> Iterator[None]:
    """Raise the client's exceptions as hublora's, with a sentence about `what`.

    Args:
        what: Kind and id, such as "model user/name".
        revision: The revision that was asked for, named if it does not exist.

    Raises:
        NotFoundError: The repo, the revision or the file does not exist.
        AccessError: The token is missing, unknown or lacks a right.
        HubError: The Hub could not be reached or failed.
    """
    try:
        yield
    except HubloraError:
        raise
    except Exception as error:
        for applies, translate in _TRANSLATIONS:
            if applies(error):
                raise translate(error, what, revision) from error
        raise


def _page(what: str) -> str:
    """Return the URL of the repo's page; `what` is like "dataset owner/name"."""
    kind, _, repo = what.partition(" ")
    return f"{endpoint()}/{'' if kind == 'model' else kind + 's/'}{repo}"


def _replaced(what: str) -> HubloraError | None:
    repo = what.split(" ")[-1]
    if repo not in REPLACED_REPOS:
        return None
    return NotFoundError(
        f"{repo} was deleted from the Hub.", f"Use {REPLACED_REPOS[repo]} instead."
    )


def _repo_missing(error: Exception, what: str, revision: str | None) -> HubloraError:
    if replaced := _replaced(what):
        return replaced
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
    """Return a hint for another endpoint than huggingface.co: empty for that one."""
    if "huggingface.co" in endpoint():
        return ""
    return (
        ". This Hub does not hold the repos of huggingface.co: unset HF_ENDPOINT to use that one, "
        "or import a copy with: hublora hub import FOLDER OWNER/NAME"
    )


def _gated(error: Exception, what: str, revision: str | None) -> HubloraError:
    return AccessError(
        f"The {what} is gated and this token has no access yet.", f"Request it at {_page(what)}"
    )


def _revision_missing(error: Exception, what: str, revision: str | None) -> HubloraError:
    return MissingRevisionError(
        f"The {what} has no revision {revision!r}.",
        f"Its branches and tags are listed at {_page(what)}",
    )


def _entry_missing(error: Exception, what: str, revision: str | None) -> HubloraError:
    return NotFoundError(f"A file of the {what} does not exist.", None)


def _offline(error: Exception, what: str, revision: str | None) -> HubloraError:
    return HubError(
        f"The {what} is not in the local cache and HF_HUB_OFFLINE is set.",
        "Unset HF_HUB_OFFLINE once to download it.",
    )


def _unreachable(error: Exception, what: str, revision: str | None) -> HubloraError:
    return HubError(
        f"The Hub at {endpoint()} could not be reached for the {what}: {reason_of(error)}.",
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
        return _replaced(what) or NotFoundError(f"The Hub has no {what}: {said}")
    return HubError(f"The Hub answered {status} for the {what}: {said}")


def _misread(error: Exception, what: str, revision: str | None) -> HubloraError:
    said = words_of(error)[:200]
    return HubError(
        f"What {endpoint()} answered for the {what} is not an answer of a Hub "
        f"({type(error).__name__}: {said}).",
        "Open that address in a browser: the network may want a login first. Else check HF_ENDPOINT"
        " and the proxy.",
    )


def _not_cached(error: Exception, what: str, revision: str | None) -> HubloraError:
    translate = _offline if is_offline() else _misread if is_misread(error) else _unreachable
    return translate(error, what, revision)


def _cut_off(error: Exception, what: str, revision: str | None) -> HubloraError:
    said = (str(error).splitlines() or [""])[0].rstrip(".")  # the rest is advice for a programmer
    return HubError(f"A file of the {what} arrived incomplete: {said}.", "Try again.")


def _xet(error: Exception, what: str, revision: str | None) -> HubloraError:
    return HubError(
        f"Xet, which moves large files of the Hub, failed for the {what}: {words_of(error)}.",
        "Try again, or without Xet: HF_HUB_DISABLE_XET=1",
    )


def _refused(error: Exception, what: str, revision: str | None) -> HubloraError:
    return HubError(f"The Hub refuses the {what}: {words_of(error)}.")


def _is_refusal(error: Exception) -> bool:
    """Return whether huggingface_hub worded an answer itself, as that of validate-yaml."""
    return isinstance(error, ValueError) and isinstance(error.__cause__, hf.HfHubHTTPError)


_Applies = Callable[[Exception], bool]
_Translate = Callable[[Exception, str, "str | None"], HubloraError]


def _is(kind: type[BaseException]) -> _Applies:
    return lambda error: isinstance(error, kind)


# The first match applies: subclasses stand above their parents.
_TRANSLATIONS: tuple[tuple[_Applies, _Translate], ...] = (
    (_is(hf.OfflineModeIsEnabled), _offline),
    (is_of_xet, _xet),
    (_is(hf.GatedRepoError), _gated),
    (_is(hf.RepositoryNotFoundError), _repo_missing),
    (_is(hf.RevisionNotFoundError), _revision_missing),
    (_is(hf.LocalEntryNotFoundError), _not_cached),
    (_is(hf.EntryNotFoundError), _entry_missing),
    (_is(hf.HfHubHTTPError), _http),
    # Transport errors of whichever HTTP library this huggingface_hub uses.
    (_is(hf.HTTPError), _unreachable),
    (_is(ConnectionError), _unreachable),
    (_is_refusal, _refused),
    (is_misread, _misread),
    (is_cut_off, _cut_off),
)
