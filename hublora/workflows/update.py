"""Updates of compositions: lockfile ─ Hub ─▶ what changed ─ generate both ─▶ sheet, new pins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from hublora.errors import AdapterError
from hublora.generation.generate import generate
from hublora.generation.options import SamplingOptions, check_options, pick_sampling
from hublora.generation.sample import sampling_for
from hublora.hub.repo_layout import LOCK
from hublora.hub.resolve import changed_files, inspect_repo
from hublora.progress import Callback, FileWritten, no_callback
from hublora.refs import AdapterRef
from hublora.resolution.adapter import download_adapter
from hublora.resolution.composition_parts import LoadedAdapter, parse_weighted_refs
from hublora.resolution.composition_parts import load_adapters as open_refs
from hublora.resolution.lockfile import Lockfile, read_lockfile
from hublora.workflows.compose import Composed, compose, usual_prompts
from hublora.workflows.load import load

if TYPE_CHECKING:
    from PIL import Image

    from hublora.generation.sample import Sampling


@dataclass(frozen=True)
class VersionChange:
    """One adapter of a composition, or its base, then and now.

    Attributes:
        repo: owner/name.
        pinned: The commit in the lockfile.
        now: The commit that its branch or tag stands for now.
        changed: Whether its file is another one; of a base, any of its weights or settings.
    """

    repo: str
    pinned: str
    now: str
    changed: bool

    @property
    def moved(self) -> bool:
        return self.pinned != self.now


@dataclass(frozen=True)
class Outdated:
    """How a composition's parts and its base moved, and what the parts' moving changes.

    Attributes:
        parts: One for each adapter.
        base: Change of the base.
        sheet: Path of the sheet; None where nothing was generated.
    """

    parts: tuple[VersionChange, ...]
    base: VersionChange
    sheet: Path | None = None


def outdated(
    ref: str,
    *,
    sheet: Path | str | None = None,
    prompts: Sequence[str] = (),
    device: str | None = None,
    callback: Callback = no_callback,
    **sampling: Unpack[SamplingOptions],
) -> Outdated:
    """Return which adapters of a composition, and whether its base, moved since it was pinned.

    Args:
        ref: A composition's repo id, or a folder.
        sheet: Path of a grid of the same prompts and seeds, pinned and as of now; written
            if a file changed.
        prompts: Prompts of the sheet; from the adapters' own cards if not given.
        device: As for `load`.
        callback: Called with progress, notes and files.
        sampling: As for `run`.

    Raises:
        AdapterError: It is no composition.
        HubError: The Hub is away, or a part is gone.
    """
    check_options(sampling, SamplingOptions, outdated)
    sheet = None if sheet is None else Path(sheet)
    name, lock = _read(ref)
    parts = _now(lock, callback)
    movements = tuple(_movement(lock, index, part) for index, part in enumerate(parts))
    base = _base_movement(lock)
    if sheet is None or not any(one.changed for one in movements):
        return Outdated(movements, base)
    texts = [lock.fill(text) for text in prompts or usual_prompts(parts)]
    generated, plans = [], []
    for refs in ([str(one.ref) for one in lock.parts], [str(part.ref) for part in parts]):
        pipe = load(
            *refs,
            base=lock.base.repo,
            base_revision=lock.base.commit,
            compose=lock.compose,
            weights=_weights(lock),
            device=device,
            callback=callback,
        )
        plans = [sampling_for(pipe.hublora.base, text, **pick_sampling(sampling)) for text in texts]
        generated.append(list(generate(pipe, plans, "auto", callback)))
        del pipe  # one of them in memory at a time
    _write_sheet(sheet, name, plans, generated)
    callback(FileWritten("sheet", sheet))
    return Outdated(movements, base, sheet)


def update(
    ref: str,
    *,
    base: bool = False,
    prompts: Sequence[str] = (),
    device: str | None = None,
    callback: Callback = no_callback,
    **sampling: Unpack[SamplingOptions],
) -> Composed | None:
    """Pin a composition's adapters to what their branches and tags stand for now, and push it.

    Returns None if nothing has moved.

    Args:
        ref: A composition's repo id, or a folder.
        base: Pin its base anew too; it stays where it is otherwise.
        prompts: Prompts of the new gallery.
        device: As for `load`.
        callback: Called with progress, notes and files.
        sampling: As for `run`.

    Raises:
        AdapterError: It is no composition.
        HubloraError: As `compose`.
    """
    check_options(sampling, SamplingOptions, update)
    name, lock = _read(ref)
    found = outdated(ref, callback=callback)
    if not any(one.moved for one in (*found.parts, *([found.base] if base else []))):
        return None
    parsed = AdapterRef.parse(ref)
    folder = Path(parsed.location) if parsed.kind == "local" else None
    return compose(
        [str(part.followed) for part in lock.parts],
        output=folder,
        push_to=None if folder else name,
        compose=lock.compose,
        weights=_weights(lock),
        template=lock.prompt,
        prompts=prompts,
        base=lock.base.repo,
        base_revision=None if base else lock.base.commit,
        device=device,
        callback=callback,
        **sampling,
    )


def _read(ref: str) -> tuple[str, Lockfile]:
    parsed = AdapterRef.parse(ref)
    _, path = download_adapter(replace(parsed, weight=1.0))
    if path.name != LOCK:
        raise AdapterError(
            f"{ref} is one adapter, not a composition.", "Only compositions pin others."
        )
    return parsed.location, read_lockfile(path, parsed.location)


def _now(lock: Lockfile, callback: Callback) -> tuple[LoadedAdapter, ...]:
    return open_refs(
        parse_weighted_refs([str(part.followed) for part in lock.parts]), callback
    ).adapters


def _movement(lock: Lockfile, index: int, part: LoadedAdapter) -> VersionChange:
    locked = lock.parts[index]
    changed = part.adapter.facts.sha256 != locked.sha256
    return VersionChange(locked.repo, locked.commit, str(part.ref.revision), changed)


def _base_movement(lock: Lockfile) -> VersionChange:
    base = lock.base
    now = inspect_repo(base.repo).commit
    if now == base.commit:
        return VersionChange(base.repo, base.commit, now, False)
    changed = changed_files(base.repo, base.commit, now)
    affects = changed is None or any(not name.endswith((".md", ".png")) for name in changed)
    return VersionChange(base.repo, base.commit, now, affects)


def _weights(lock: Lockfile) -> dict[str, str | float]:
    return {str(index + 1): part.weight for index, part in enumerate(lock.parts)}


def _write_sheet(
    path: Path, name: str, plans: Sequence[Sampling], generated: Sequence[Sequence[Image.Image]]
) -> None:
    from hublora.generation.metadata import save_image
    from hublora.image_grid import sheet

    rows = [list(pair) for pair in zip(*generated, strict=True)]
    labels = [f"{plan.prompt} (seed {plan.seed})" for plan in plans]
    save_image(
        sheet(rows, row_labels=labels, column_labels=["pinned", "now"], title=name),
        path,
        {"sampling": {"prompt": name}},
    )
