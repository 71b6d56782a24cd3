"""Whom the Hub's token belongs to, and where it may write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import errors as hf
from huggingface_hub import get_token

from hublora.errors import AccessError, HubError
from hublora.hub.client import api, endpoint, translated
from hublora.hub.transport import repeated

# (endpoint, token) -> its owner: the Hub lets few such requests through.
_known: dict[tuple[str, str], TokenOwner] = {}


@dataclass(frozen=True)
class TokenOwner:
    """The owner and the rights of a token.

    Attributes:
        name: User name.
        is_read_only: Whether the token may write nowhere.
        organisations: Names of the user's organisations, without those where the user only reads.
        scopes: For a fine-grained token, the users, organisations (name) and repos (owner/name)
            that it may write to; None for a token without such limits.
    """

    name: str
    is_read_only: bool
    organisations: tuple[str, ...]
    scopes: frozenset[str] | None

    def may_write(self, repo_id: str) -> bool:
        """Return whether the token's scopes include a repo; the owner is not looked at."""
        owner = repo_id.split("/")[0]
        return self.scopes is None or not self.scopes.isdisjoint({owner, repo_id})


def token_owner() -> TokenOwner:
    """Return the owner of this process's token; the Hub is asked once, until `forget_owner`.

    Raises:
        AccessError: No token is set, or the Hub does not know it.
        HubError: The Hub cannot be reached.
    """
    token = get_token()
    if not token:
        raise AccessError("There is no Hub token.", "Log in with: hf auth login (or set HF_TOKEN)")
    key = (endpoint(), token)
    if key not in _known:
        _known[key] = _ask()
    return _known[key]


def forget_owner() -> None:
    """Ask the Hub again the next time: its owner may have got more rights meanwhile."""
    _known.clear()


def _ask() -> TokenOwner:
    with translated("token's owner"):
        try:
            found = repeated(api().whoami)
        except hf.HfHubHTTPError as error:
            if getattr(error.response, "status_code", None) == 401:
                raise AccessError(
                    f"The Hub at {endpoint()} does not know this token.",
                    "Log in again with: hf auth login",
                ) from error
            raise
    name = _mapping(found).get("name")
    if not isinstance(name, str):
        raise HubError(
            f"{endpoint()} does not say whose this token is.", "Check that HF_ENDPOINT is a Hub."
        )
    about = _mapping(_mapping(_mapping(found).get("auth")).get("accessToken"))
    organisations = [_mapping(one) for one in _list(_mapping(found).get("orgs"))]
    return TokenOwner(
        name,
        about.get("role") == "read",
        tuple(
            str(one["name"])
            for one in organisations
            if "name" in one and one.get("roleInOrg") != "read"
        ),
        _scopes(about),
    )


def _scopes(about: Mapping[str, Any]) -> frozenset[str] | None:
    """Return what a fine-grained token may write to, None if the Hub states no scopes."""
    stated = _mapping(about.get("fineGrained")).get("scoped")
    if not isinstance(stated, list):
        return None
    return frozenset(
        str(_mapping(one.get("entity")).get("name"))
        for one in map(_mapping, stated)
        if "repo.write" in _list(one.get("permissions"))
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
