"""Updates compositions: lockfile ─ Hub ─▶ newer commits ─ generate both ─▶ sheet, new pins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from hublora.errors import AdapterError
from hublora.generation.generate import generate
from hublora.generation.options import SamplingOptions, check_options, pick_sampling
from hublora.generation.outputs import check_output, check_replaceable
from hublora.generation.sample import sampling_with
from hublora.hub.repo_layout import LOCK
from hublora.hub.resolve import changed_files, inspect_repo
from hublora.progress import Callback, FileWritten, default_callback
from hublora.refs import AdapterRef
from hublora.resolution.adapter import download_adapter
from hublora.resolution.composition_parts import LoadedAdapter, parse_weighted_refs
from hublora.resolution.composition_parts import load_adapters as open_refs
from hublora.resolution.lockfile import Lockfile, read_lockfile
from hublora.workflows.compose import Composed, compose, default_prompts
from hublora.workflows.load import load

if TYPE_CHECKING:
    from PIL import Image

    from hublora.generation.sample import Sampling


@dataclass(frozen=True)
class VersionChange:
    """Pinned and current commit of an adapter or base of a composition.

    Attributes:
        repo: owner/name.
        pinned: Commit in the lockfile, 40 hex digits.
        now: Commit that the branch or tag resolves to now, 40 hex digits.
        changed: Whether the adapter's file differs; for a base, any weights or settings.
    """

    repo: str
    pinned: str
    now: str
    changed: bool

    @property
    def moved(self) -> bool:
        """Whether the branch or tag resolves to another commit now."""
        return self.pinned != self.now


@dataclass(frozen=True)
class Outdated:
    """Version changes of a composition's adapters and base.

    Attributes:
        parts: Version change of each adapter, in order.
        base: Version change of the base.
        sheet: Path of the sheet; None without images.
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
    callback: Callback = default_callback,
    **sampling: Unpack[SamplingOptions],
) -> Outdated:
    """Return which adapters of a composition, and whether its base, have newer commits.

    Args:
        ref: Repo id or folder of a composition.
        sheet: Path of a PNG with the same prompts and seeds at the pinned and the current commits;
            written if a file changed.
        prompts: Prompts of the sheet; those of the adapters' cards by default.
        device: As for `load`.
        callback: Called with each event (`hublora.progress.Event`).
        sampling: As for `run`.

    Raises:
        AdapterError: `ref` is not a composition.
        HubError: The Hub cannot be reached, or an adapter was deleted.
    """
    check_options(sampling, SamplingOptions, outdated)
    sheet = None if sheet is None else Path(sheet)
    check_output(sheet)
    check_replaceable(sheet)
    name, lock = _read(ref)
    parts = _load_current(lock, callback)
    changes = tuple(_version_change(lock, index, part) for index, part in enumerate(parts))
    base = _base_change(lock)
    if sheet is None or not any(one.changed for one in changes):
        return Outdated(changes, base)
    texts = [lock.fill(text) for text in prompts or default_prompts(parts)]
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
        plans = [sampling_with(pipe.hublora, text, **pick_sampling(sampling)) for text in texts]
        generated.append(list(generate(pipe, plans, "auto", callback)))
        del pipe  # one pipeline in memory at a time
    _write_sheet(sheet, name, plans, generated)
    callback(FileWritten("sheet", sheet))
    return Outdated(changes, base, sheet)


def update(
    ref: str,
    *,
    base: bool = False,
    prompts: Sequence[str] = (),
    device: str | None = None,
    callback: Callback = default_callback,
    **sampling: Unpack[SamplingOptions],
) -> Composed | None:
    """Pin a composition's adapters to the current commits of their branches and tags, and push it.

    Returns None if no commit is newer.

    Args:
        ref: Repo id or folder of a composition.
        base: Pin the base to its current commit too.
        prompts: Prompts of the new gallery; those of the adapters' cards by default.
        device: As for `load`.
        callback: Called with each event (`hublora.progress.Event`).
        sampling: As for `run`.

    Raises:
        AdapterError: `ref` is not a composition.
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
            f"{ref} is one adapter, not a composition.", "Name the repo of a composition."
        )
    return parsed.location, read_lockfile(path, parsed.location)


def _load_current(lock: Lockfile, callback: Callback) -> tuple[LoadedAdapter, ...]:
    return open_refs(
        parse_weighted_refs([str(part.followed) for part in lock.parts]), callback
    ).adapters


def _version_change(lock: Lockfile, index: int, part: LoadedAdapter) -> VersionChange:
    locked = lock.parts[index]
    changed = part.adapter.facts.sha256 != locked.sha256
    return VersionChange(locked.repo, locked.commit, str(part.ref.revision), changed)


def _base_change(lock: Lockfile) -> VersionChange:
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
