"""Does a repo hold what it says? Its files, their hashes, what they say of each other, images."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from hublora.adapters.files import load_adapter
from hublora.adapters.header import read_file_header
from hublora.adapters.similarity import likeness
from hublora.errors import HubloraError, NotFoundError
from hublora.generation.metadata import read_image
from hublora.hub.push import fresh_copy, recorded_hashes, wrong_files
from hublora.hub.repo_layout import CARD, LEARNED_EMBEDDINGS, SETTINGS, WEIGHTS
from hublora.hub.resolve import inspect_repo, read_card
from hublora.progress import Callback, Progress, no_callback
from hublora.refs import AdapterRef
from hublora.training.config.training_config import flatten, read_settings_file
from hublora.workflows.push import image_tolerance

if TYPE_CHECKING:
    from hublora.generation.sample import Sampling

_SAME_ADAPTER = 0.9999  # cosine of one adapter in two layouts; halves of floats are lost in some


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        passed: Whether it is as it should be; None where there was nothing to look at.
        told: What was found, as a sentence without its full stop.
    """

    name: str
    passed: bool | None
    told: str


@dataclass(frozen=True)
class VerificationReport:
    """What a repo was found to be.

    Attributes:
        label: The repo at its commit, or the folder.
        checks: Everything that was looked at.
    """

    label: str
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is other than it should be."""
        return all(check.passed is not False for check in self.checks)


def verify(
    ref: str,
    *,
    base: str | None = None,
    device: str | None = None,
    callback: Callback = no_callback,
) -> VerificationReport:
    """Look whether a repo, or the folder of a run, holds what it says.

    Every file is read anew, not from the cache, and the gallery is drawn again.

    Args:
        ref: owner/name, with @revision if it is not the newest; or a folder.
        base: Hub id or folder of the base, if the adapter does not name it.
        device: A torch device; a GPU if there is one.
        callback: Is told what happens.

    Raises:
        HubloraError: It cannot be looked at: there is no such repo or no adapter in it, or the Hub
            is away.
    """
    with downloaded_repo(ref, callback) as (folder, label, hashes):
        if not has_adapter(folder):
            raise NotFoundError(
                f"{label} holds no adapter: it has neither {WEIGHTS} nor {LEARNED_EMBEDDINGS}.",
                "Name the repo that an adapter was pushed to.",
            )
        checks = [
            _check(name, look)
            for name, look in (
                ("files", lambda: _files(folder)),
                ("hashes", lambda: _hashes(folder, hashes)),
                ("facts", lambda: _facts(folder)),
                ("other layout", lambda: _other_layout(folder)),
                ("images", lambda: _images(folder)),
                ("gallery", lambda: _gallery(folder, base, device, callback)),
            )
        ]
        return VerificationReport(label, tuple(checks))


@contextmanager
def downloaded_repo(ref: str, callback: Callback) -> Iterator[tuple[Path, str, Mapping[str, str]]]:
    """Lend a folder with a repo's files at one commit, its label, and hashes the Hub recorded.

    Of a run folder there are none.
    """
    parsed = AdapterRef.parse(ref)
    if parsed.kind != "repo":
        yield Path(parsed.location).expanduser(), parsed.location, {}
        return
    snapshot = inspect_repo(parsed.location, "model", parsed.revision)
    with tempfile.TemporaryDirectory(prefix="hublora-verify-") as fresh:
        callback(Progress("Reading", 0, len(snapshot.files), "files"))
        folder = fresh_copy(parsed.location, snapshot.commit, Path(fresh))
        callback(Progress("Reading", len(snapshot.files), len(snapshot.files), "files"))
        hashes = recorded_hashes(parsed.location, snapshot.commit)
        yield folder, f"{parsed.location}@{snapshot.commit[:8]}", hashes


def has_adapter(folder: Path) -> bool:
    """Tell whether a folder has an adapter, or learned words, under their usual names."""
    return any((folder / name).is_file() for name in (WEIGHTS, LEARNED_EMBEDDINGS))


def trained_files(folder: Path) -> list[str]:
    """Return the files with what was learned: the adapter first, learned words after it.

    Raises:
        NotFoundError: There are none.
    """
    found = [name for name in (WEIGHTS, LEARNED_EMBEDDINGS) if (folder / name).is_file()]
    found += [f"embeddings/{path.name}" for path in sorted(folder.glob("embeddings/*.safetensors"))]
    if not found:
        raise NotFoundError(f"There is neither {WEIGHTS} nor {LEARNED_EMBEDDINGS}.")
    return found


def gallery_plans(folder: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Return the images of a gallery that say how they were made, and what they say."""
    found: list[tuple[Path, Mapping[str, Any]]] = []
    for path in sorted(folder.glob("images/*.png")):
        try:
            facts = read_image(path)
        except (OSError, ValueError, SyntaxError):  # Pillow's, of an image that is none
            continue
        if isinstance(facts.get("sampling"), dict) and facts.get("adapters"):
            found.append((path, facts))
    return found


def _check(name: str, look: Callable[[], tuple[bool | None, str]]) -> Check:
    """Look; what cannot be looked at is not as it should be."""
    try:
        return Check(name, *look())
    except HubloraError as error:
        return Check(name, False, error.message.rstrip("."))


def _files(folder: Path) -> tuple[bool, str]:
    """Look whether the adapter is there and everything that the card shows or links to."""
    card = folder / CARD
    if not card.is_file():
        return False, f"there is no {CARD}"
    named = set(trained_files(folder)) | _named_files(card)
    missing = sorted(name for name in named if not (folder / name).is_file())
    if missing:
        return False, f"the card names what is not there: {', '.join(missing)}"
    return True, f"{_every(named, 'file is', 'files are')} there that the card names"


def _every(things: Collection[object], one: str, several: str) -> str:
    return f"all {len(things)} {several}" if len(things) > 1 else f"the only {one}"


def _named_files(card: Path) -> set[str]:
    """Return the paths in the repo that a card shows or links to."""
    front = read_card(card)
    widgets = front.get("widget") or []
    shown = {
        str(one["output"]["url"])
        for one in widgets
        if isinstance(one, dict) and isinstance(one.get("output"), dict) and "url" in one["output"]
    }
    text = card.read_text(encoding="utf-8")
    shown |= set(re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text))
    shown |= set(re.findall(r"\]\(/[^/\s)]+/[^/\s)]+/resolve/main/([^)\s]+)\)", text))
    return {unquote(one) for one in shown if "://" not in one and not one.startswith("/")}


def _hashes(folder: Path, recorded: Mapping[str, str]) -> tuple[bool | None, str]:
    """Look whether every file is, byte for byte, what the Hub recorded when it was pushed."""
    if not recorded:
        return None, "of a folder none were recorded"
    if wrong := wrong_files(folder, recorded):
        return False, f"not what the Hub recorded: {', '.join(wrong)}"
    return True, f"{_every(recorded, 'file is', 'files are')} what the Hub recorded"


def _facts(folder: Path) -> tuple[bool | None, str]:
    """Look whether card, adapter and settings name the same base and dataset."""
    card, metadata = read_card(folder / CARD), _metadata(folder)
    settings = flatten(read_settings_file(folder / SETTINGS)) if _has_settings(folder) else {}
    said: dict[str, dict[str, Any]] = {
        "base": {
            "the card": _single(card.get("base_model")),
            "the adapter": metadata.get("hublora.base_model"),
            "the settings": settings.get("base.model"),
        },
        "commit of the base": {
            "the adapter": metadata.get("hublora.base_revision"),
            "the settings": settings.get("base.revision"),
        },
        "dataset": {
            "the card": _single(card.get("datasets")),
            "the adapter": metadata.get("hublora.dataset"),
            "the settings": settings.get("data.dataset"),
        },
    }
    for what, by_whom in said.items():
        known = {who: value for who, value in by_whom.items() if value}
        if len(set(known.values())) > 1:
            told = ", ".join(f"{value} ({who})" for who, value in known.items())
            return False, f"the {what} is said to be {told}"
    return True, "card, adapter and settings name the same base and dataset"


def _metadata(folder: Path) -> Mapping[str, str]:
    return read_file_header(folder / trained_files(folder)[0]).metadata


def _has_settings(folder: Path) -> bool:
    return (folder / SETTINGS).is_file()


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _other_layout(folder: Path) -> tuple[bool | None, str]:
    """Look whether the files in ComfyUI's layout hold the same adapter."""
    others = sorted(folder.glob("comfyui/*.safetensors"))
    if not others or not (folder / WEIGHTS).is_file():
        return None, "there is none"
    adapter = load_adapter(folder / WEIGHTS)
    for other in others:
        cosine = likeness(adapter, load_adapter(other)).cosine
        if cosine < _SAME_ADAPTER:
            return False, f"comfyui/{other.name} holds another adapter (cosine {cosine:.4f})"
    return True, "it holds the same adapter"


def _images(folder: Path) -> tuple[bool | None, str]:
    """Look whether the images were drawn with this very file."""
    from hublora.filesystem import sha256_of

    plans = gallery_plans(folder)
    if not plans:
        return None, "none says how it was made"
    name = trained_files(folder)[0]
    digest = sha256_of(folder / name)
    strange = [
        path.name
        for path, facts in plans
        if digest not in [one.get("sha256") for one in facts["adapters"]]
    ]
    if strange:
        return False, f"drawn with another file than {name}: {', '.join(strange)}"
    return True, f"{_every(plans, 'one was', 'were')} drawn with this adapter"


def _gallery(
    folder: Path, base: str | None, device: str | None, callback: Callback
) -> tuple[bool | None, str]:
    """Load the adapter on its base and look whether it draws its gallery again."""
    from PIL import Image

    from hublora.generation.sample import image_difference

    plans = gallery_plans(folder)
    if not plans:
        return None, "none says how it was made"
    if base is None and not plans[0][1].get("base_revision"):
        return None, f"drawn on a folder, {plans[0][1].get('base')!r}: name it with --base"
    worst, tolerance, where = 0.0, 0.0, ""
    drawings = _draw(folder, plans, base, device, callback)
    for (path, facts), drawn in zip(plans, drawings, strict=True):
        with Image.open(path) as shown:
            difference = image_difference(drawn, shown)
        if difference >= worst:
            worst, where, tolerance = difference, path.name, image_tolerance(facts["dtype"])
    told = f"at most {worst:.1f} levels of 255 apart on average"
    if worst > tolerance:
        return False, f"{where} is another image when it is drawn again ({told})"
    return True, f"{_every(plans, 'one is', 'are')} drawn again: {told}"


def _draw(
    folder: Path,
    plans: list[tuple[Path, Mapping[str, Any]]],
    base: str | None,
    device: str | None,
    callback: Callback,
) -> Iterator[Any]:
    import torch

    from hublora.generation.generate import generate
    from hublora.generation.sample import Sampling, use_scheduler
    from hublora.workflows.load import load

    facts = plans[0][1]
    revision = facts.get("base_revision")
    pipe = load(
        str(folder),
        base=base or (facts["base"] if revision else None),
        base_revision=None if base else revision,
        dtype=getattr(torch, facts["dtype"]),
        device=device,
    )
    wanted: list[Sampling] = [Sampling(**facts["sampling"]) for _, facts in plans]
    use_scheduler(pipe, wanted[0].scheduler)
    return generate(pipe, wanted, facts.get("trigger", "off"), callback)
