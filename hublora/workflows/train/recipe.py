"""Recipes: adapter ref ─ recorded settings in its repo ─▶ those settings, at their commits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError, NotFoundError, RefError
from hublora.hub.download import download
from hublora.hub.repo_layout import ENVIRONMENT, SETTINGS
from hublora.hub.resolve import inspect_repo
from hublora.hub.urls import set_trust
from hublora.progress import Callback, Note
from hublora.refs import AdapterRef, parse_repo_id
from hublora.training.config.resolve import without_dependent_defaults
from hublora.training.config.training_config import flatten, read_settings_file

if TYPE_CHECKING:
    from hublora.training.session import Session

_SOURCES = ("data.dataset", "data.folder", "data.archive")
# Settings that locate images within one source, and are dropped with it.
_OF_THE_SOURCE = (
    "data.revision",
    "data.config_name",
    "data.split",
    "data.image_column",
    "data.caption_column",
)
# Destinations are chosen by whoever trains, never by the repo.
_NOT_ITS_OWN = ("hub.", "output_dir", "report_to", "data.cache_dir")
_OF_NO_EFFECT = (*_NOT_ITS_OWN, "checkpoint.")

# Settings that may name something of the author's own, and the flag for it.
_PRIVATE = {
    "base.model": "--base FOLDER",
    "base.components": "--components FOLDER",
    "base.generation": "--generation-base FOLDER",
    "data.folder": "--folder FOLDER",
    "data.archive": "--archive FILE",
    "adapter.start_from": "--set adapter.start_from=FILE",
    "adapter.assistant": "--assistant FILE",
    "dreambooth.class_folder": "--class-data-dir FOLDER",
}


@dataclass(frozen=True)
class Recipe:
    """Recorded settings and environment of a training, from a repo or a run folder.

    Attributes:
        label: Repo at its commit, or folder, for messages.
        name: Last part of the repo id or folder.
        settings: Settings under dotted keys; base and dataset at their commits.
        environment: Versions and hardware, as `describe_environment` returned them.
    """

    label: str
    name: str
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]


def read_recipe(ref: str) -> Recipe:
    """Return the recorded settings and environment of the adapter `ref`.

    Args:
        ref: owner/name, with @revision if it is not the newest; or the folder of a run.

    Raises:
        RefError: The ref does not parse.
        NotFoundError: No such repo or folder, or it has no recorded settings.
        ConfigError: The recorded settings do not parse.
    """
    parsed = AdapterRef.parse(ref)
    if parsed.kind == "url":
        raise NotFoundError(
            f"{parsed.public} is a file alone, without recorded settings.", "Name its repo."
        )
    if parsed.kind == "local":
        folder = Path(parsed.location).expanduser()
        settings, environment = folder / SETTINGS, folder / ENVIRONMENT
        if not settings.is_file():
            raise _no_settings(str(folder))
        return _recipe(str(folder), folder.resolve().name, settings, environment)
    snapshot = inspect_repo(parsed.repo_id, "model", parsed.revision)
    if SETTINGS not in snapshot.files:
        raise _no_settings(parsed.location)
    settings, environment = (
        download(parsed.location, snapshot.commit, name) if name in snapshot.files else Path(name)
        for name in (SETTINGS, ENVIRONMENT)
    )
    label = f"{parsed.location}@{snapshot.commit[:8]}"
    return _recipe(label, parsed.location.split("/")[-1], settings, environment)


def remake(recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, under dotted keys, of a training that makes the adapter again; loads no
    torch.

    A path is refused even where this machine has such a file: a repo does not choose among those.
    Nor does it choose an address in a private network: such a URL will not be fetched, unless it
    is given.

    Args:
        recipe: The recorded settings.
        given: Settings under dotted keys that replace recorded ones, such as the learning rate.

    Raises:
        ConfigError: A recorded setting names something that is not on the Hub, and `given` names
            nothing in its place.
    """
    recorded = _without_replaced(recipe.settings, given)
    for key in unpublished(recorded):
        if key not in given:
            flag = _PRIVATE[key]
            by_key = f"--set {key}={flag.rpartition(' ')[2]}"
            raise ConfigError(
                f"{recipe.label} was made with {str(recorded[key])!r}, which is not on the Hub.",
                f"Name it: {flag}" if "--set" in flag else f"Name it: {flag}, or {by_key}",
            )
    for settings, trusted in ((recorded, False), (given, True)):
        for key in _PRIVATE:
            if url := _url_of(settings.get(key)):
                set_trust(url, trusted)
    return {**recorded, **given}


def _url_of(value: Any) -> str | None:
    """Return the URL that a setting names, None for anything else."""
    named = str(value or "")
    if "://" not in named:
        return None
    try:
        ref = AdapterRef.parse(named)
    except RefError:
        return named  # of an archive
    return ref.location if ref.kind == "url" else None


def report_changes(recipe: Recipe, given: Mapping[str, Any], callback: Callback) -> None:
    """Tell the callback which settings, and which versions of packages and hardware, differ from
    those of the recipe."""
    for key, value in given.items():
        recorded = recipe.settings.get(key)
        if not key.startswith(_OF_NO_EFFECT) and _plain(value) != recorded:
            callback(Note(f"Other than {recipe.label}: {key} is {_plain(value)} (was {recorded})."))
    for sentence in drift_since(recipe):
        callback(Note(f"Since {recipe.label}: {sentence}", warning=True))


def unpublished(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the settings, under dotted keys, that name something which is not on the Hub."""
    named = {key: settings.get(key) for key in _PRIVATE}
    return tuple(
        key for key, value in named.items() if value is not None and not _is_public(key, str(value))
    )


def drift_since(recipe: Recipe) -> tuple[str, ...]:
    """Return the differences of versions and hardware to the recorded ones, one sentence each."""
    import torch

    from hublora.cards.environment import describe_environment, drift

    now = describe_environment("cuda" if torch.cuda.is_available() else "cpu")
    return drift(recipe.environment, now)


def recorded_settings(session: Session) -> dict[str, Any]:
    """Return the settings that train the adapter again on one device, as a tree, with base and
    dataset at their commits and the precision that the device chose."""
    tree = session.config.shareable()
    tree["mixed_precision"] = session.accelerator.mixed_precision
    tree["gradient_accumulation_steps"] *= session.accelerator.num_processes
    return tree


def _no_settings(label: str) -> NotFoundError:
    return NotFoundError(
        f"{label} has no recorded settings ({SETTINGS}).",
        "Only adapters that hublora trained can be trained again.",
    )


def _recipe(label: str, name: str, settings: Path, environment: Path) -> Recipe:
    known: Any = {}
    if environment.is_file():
        try:
            known = json.loads(environment.read_bytes())
        except (ValueError, RecursionError):
            known = {}  # then everything counts as drifted
    tree = own_settings(read_settings_file(settings))
    return Recipe(label, name, tree, known if isinstance(known, dict) else {})


def own_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded settings under dotted keys, without destinations and dependent defaults."""
    own = {key: one for key, one in flatten(tree).items() if not key.startswith(_NOT_ITS_OWN)}
    return without_dependent_defaults(own)


def _without_replaced(then: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded settings without those that belong to a replaced source or base."""
    kept = dict(then)
    if "base.model" in given and given["base.model"] != then.get("base.model"):
        kept.pop("base.revision", None)
    named = {key: _plain(given[key]) for key in _SOURCES if key in given}
    if not named or all(then.get(key) == value for key, value in named.items()):
        return kept
    same_kind = all(then.get(key) is not None and key != "data.dataset" for key in named)
    for key in _SOURCES if same_kind else (*_SOURCES, *_OF_THE_SOURCE):
        kept.pop(key, None)
    return kept


def _is_public(key: str, named: str) -> bool:
    if key in ("data.folder", "dreambooth.class_folder"):
        return False
    if key == "data.archive":
        return named.startswith("https://")
    try:
        if key.startswith("base."):
            parse_repo_id("/".join(named.partition("@")[0].split("/")[:2]))
            return True
        return AdapterRef.parse(named).kind != "local"
    except RefError:
        return False


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
