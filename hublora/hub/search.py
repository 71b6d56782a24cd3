"""Searches adapters on the Hub through its list API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hublora.errors import HubError
from hublora.families.registry import SHORT_NAMES
from hublora.hub.client import REPLACED_REPOS, api, is_offline, translated
from hublora.hub.resolve import license_of
from hublora.hub.transport import ask_hub, repeated

# Sort order -> its name in the list API.
SORTS = {
    "downloads": "downloads",
    "likes": "likes",
    "trending": "trending_score",
    "created": "created_at",
    "updated": "last_modified",
}


@dataclass(frozen=True)
class FoundAdapter:
    """An adapter in the Hub's list.

    Attributes:
        repo_id: owner/name.
        base: Hub id of the base that its card names; None if that names none or several.
        trigger: Trigger words, as its card writes them; empty without any.
        license: Licence id of its card; None if that names none.
        downloads: Downloads in the last 30 days.
        likes: Number of likes.
    """

    repo_id: str
    base: str | None
    trigger: str
    license: str | None
    downloads: int
    likes: int


def search(
    text: str = "",
    *,
    base: str | None = None,
    author: str | None = None,
    sort: str = "downloads",
    limit: int = 20,
) -> list[FoundAdapter]:
    """Return adapters, ordered by `sort`.

    Args:
        text: Part of the repo's name; empty for all.
        base: Hub id or short name (`SHORT_NAMES`) of the base that they were trained on; those
            whose card has an earlier id of it are found too.
        author: User or organisation.
        sort: A key of `SORTS`.
        limit: Largest number of results.

    Raises:
        HubError: The Hub cannot be reached, or offline mode is on.
    """
    if is_offline():
        raise HubError("HF_HUB_OFFLINE is set, so the Hub cannot be searched.", "Unset it.")
    with translated("search for adapters"):
        repeated(ask_hub)  # which, unlike the lists below, does not insist on a Hub that is away
    found: dict[str, Any] = {}
    for tag in _tags(base):
        with translated("search for adapters"):
            listed = api().list_models(
                search=text or None,
                author=author,
                filter=tag,
                sort=SORTS[sort],  # type: ignore[arg-type]
                limit=limit,
                cardData=True,
            )
            found |= {info.id: info for info in listed}
    # One list is in the Hub's own order; several are merged by what that order is by.
    ordered = list(found.values())
    if len(_tags(base)) > 1:
        ordered.sort(key=lambda info: _sort_value(info, SORTS[sort]), reverse=True)
    return [_adapter(info) for info in ordered[:limit]]


def _tags(base: str | None) -> list[str]:
    """Return the tags to search by: one for each id that a base has had."""
    if not base:
        return ["lora"]
    name = SHORT_NAMES.get(base.lower(), base)
    name = REPLACED_REPOS.get(name, name)
    earlier = [old for old, new in REPLACED_REPOS.items() if new == name]
    return [f"base_model:adapter:{one}" for one in (name, *earlier)]


def _sort_value(info: Any, attribute: str) -> float:
    value = getattr(info, attribute, None)
    return float(value.timestamp() if isinstance(value, datetime) else value or 0)


def _adapter(info: Any) -> FoundAdapter:
    card: Mapping[str, Any] = info.card_data.to_dict() if info.card_data is not None else {}
    base = card.get("base_model")
    if isinstance(base, list):
        base = base[0] if len(base) == 1 else None
    trigger = card.get("instance_prompt")
    return FoundAdapter(
        info.id,
        base if isinstance(base, str) else None,
        trigger if isinstance(trigger, str) else "",
        license_of(card),
        info.downloads or 0,
        info.likes or 0,
    )
