"""Verifies a repo: its files, their checksums, their consistency, and its gallery.

A push verifies its commit by the same function, `verify_copy`.

Over 300 lines because both ways are here, with every check that they share.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hublora.errors import HubError, HubloraError, NotFoundError, VerificationError
from hublora.filesystem import temporary_folder
from hublora.generation.gallery import gallery_images, image_tolerance
from hublora.hub.checksums import differing_files, download_commit
from hublora.hub.push import PushResult, push_command, reason_for_push
from hublora.hub.repo_layout import LEARNED_EMBEDDINGS, LOCK, WEIGHTS
from hublora.hub.resolve import inspect_repo
from hublora.progress import Callback, Note, Progress, default_callback, no_callback
from hublora.refs import AdapterRef, is_single_file
from hublora.workflows.repo_checks import (
    Finding,
    check_facts,
    check_files,
    check_images,
    check_other_layout,
    content_files,
    every,
)


@dataclass(frozen=True)
class Check:
    """One check of a verification.

    Attributes:
        name: Name of the check.
        passed: Whether it passed; None if there was nothing to check.
        detail: Sentence about the result, without its full stop.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class VerificationReport:
    """The result of a verification.

    Attributes:
        label: The repo at its commit, or the folder.
        checks: All checks, in order.
    """

    label: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)


@dataclass(frozen=True)
class RepoCopy:
    """The files of a repo in a local folder.

    Attributes:
        folder: Folder with the files.
        label: Name in messages.
        commit: (repo id, commit) that the files were downloaded from; None for a run folder.
    """

    folder: Path
    label: str
    commit: tuple[str, str] | None = None


def verify(
    ref: str,
    *,
    base: str | None = None,
    components: str | None = None,
    device: str | None = None,
    callback: Callback = default_callback,
) -> VerificationReport:
    """Verify a repo or a run folder: see `verify_copy`.

    Every file of a repo is downloaded again, not read from the cache.

    Args:
        ref: owner/name, with @revision if it is not the newest; or a folder.
        base: Hub id or folder of the base; None for the one that the images record.
        components: Pipeline that has what a single file lacks; None for the one that they record.
        device: A torch device; None for a GPU if there is one.
        callback: Called with each event (`hublora.progress.Event`).

    Raises:
        HubloraError: It cannot be verified: the repo does not exist, has no adapter, or the Hub
            cannot be reached.
    """
    with downloaded_repo(ref, callback) as copy:
        if not content_files(copy.folder):
            raise NotFoundError(
                f"{copy.label} has no adapter: it has none of {WEIGHTS}, {LEARNED_EMBEDDINGS} and "
                f"{LOCK}.",
                "Name the repo that an adapter was pushed to.",
            )
        return verify_copy(copy, base=base, components=components, device=device, callback=callback)


def verify_push(
    folder: Path, pushed: PushResult, *, base: str | None = None, callback: Callback = no_callback
) -> None:
    """Download a pushed commit once and verify it: see `verify_copy`.

    Of the gallery one image is generated again.

    Raises:
        HubError: The commit cannot be downloaded; it is on the Hub all the same.
        VerificationError: A check failed.
    """
    label = f"{pushed.repo_id}@{pushed.commit[:8]}"
    again = f"All files are kept; push again with: {push_command(folder, pushed.repo_id)}"
    with temporary_folder("verify") as fresh:
        try:
            download_commit(pushed.repo_id, pushed.commit, fresh)
        except (HubError, OSError) as error:
            raise HubError(
                f"{label} was pushed, but could not be downloaded to verify it: "
                f"{reason_for_push(error)}",
                f"Verify it later with: hublora verify {pushed.repo_id}@{pushed.commit}",
            ) from error
        copy = RepoCopy(fresh, label, (pushed.repo_id, pushed.commit))
        report = verify_copy(copy, pushed_from=folder, base=base, images=1, callback=callback)
    if not report.passed:
        failed = [f"{one.name}: {one.detail}" for one in report.checks if one.passed is False]
        raise VerificationError(f"{label} fails verification: {'; '.join(failed)}.", again)
    gallery = report.checks[-1]
    callback(Note(f"Verified: every file is as pushed. Gallery: {gallery.detail}."))


def verify_copy(
    copy: RepoCopy,
    *,
    pushed_from: Path | None = None,
    base: str | None = None,
    components: str | None = None,
    device: str | None = None,
    images: int | None = None,
    callback: Callback = no_callback,
) -> VerificationReport:
    """Check the files of a repo against the Hub's checksums, each other and their own gallery.

    Args:
        copy: The files.
        pushed_from: Folder that they were pushed from and must equal.
        base: Hub id or folder of the base; None for the one that the images record.
        components: Pipeline that has what a single file lacks; None for the one that they record.
        device: A torch device; None for a GPU if there is one.
        images: How many images of the gallery are generated again; None for all.
        callback: Called with each event (`hublora.progress.Event`).
    """
    folder, named = copy.folder, (base, components)
    checks = [
        _check(name, find)
        for name, find in (
            ("files", lambda: check_files(folder)),
            ("hashes", lambda: _hashes(copy, pushed_from)),
            ("facts", lambda: check_facts(folder)),
            ("other layout", lambda: check_other_layout(folder)),
            ("images", lambda: check_images(folder)),
        )
    ]
    if any(one.name == "hashes" and one.passed is False for one in checks):
        checks.append(Check("gallery", None, "not generated from files that differ"))
    else:
        checks.append(_check("gallery", lambda: _gallery(folder, images, named, device, callback)))
    return VerificationReport(copy.label, tuple(checks))


@contextmanager
def downloaded_repo(ref: str, callback: Callback) -> Iterator[RepoCopy]:
    """Download a repo at one commit into a temporary folder; a local folder is used as it is."""
    parsed = AdapterRef.parse(ref)
    if parsed.kind != "repo":
        yield RepoCopy(Path(parsed.location).expanduser(), parsed.location)
        return
    snapshot = inspect_repo(parsed.repo_id, "model", parsed.revision)
    with temporary_folder("verify") as fresh:
        callback(Progress("Reading", 0, len(snapshot.files), "files"))
        download_commit(parsed.location, snapshot.commit, fresh)
        callback(Progress("Reading", len(snapshot.files), len(snapshot.files), "files"))
        label = f"{parsed.location}@{snapshot.commit[:8]}"
        yield RepoCopy(fresh, label, (parsed.location, snapshot.commit))


def _check(name: str, find: Callable[[], Finding]) -> Check:
    """Run a check; one that raises fails."""
    try:
        return Check(name, *find())
    except HubloraError as error:
        return Check(name, False, error.message.rstrip("."))


def _hashes(copy: RepoCopy, pushed_from: Path | None) -> Finding:
    """Check every file, byte for byte, against the Hub's checksums and the folder it came from."""
    if copy.commit is None:
        return None, "the Hub recorded none for a local folder"
    wrong = differing_files(*copy.commit, copy.folder)
    if pushed_from is not None:
        wrong += differing_files(*copy.commit, pushed_from)
    if wrong:
        return False, ", ".join(f"{name} (differs)" for name in sorted(set(wrong)))
    return True, "every file has the checksum that the Hub recorded"


def _gallery(
    folder: Path,
    limit: int | None,
    named: tuple[str | None, str | None],
    device: str | None,
    callback: Callback,
) -> Finding:
    """Generate images of the gallery again and compare them.

    Args:
        folder: Folder of the repo.
        limit: How many images, at most; None for all.
        named: Base and components that were given; None for those that the images record.
        device: A torch device; None for a GPU if there is one.
        callback: Called with each event (`hublora.progress.Event`).
    """
    from PIL import Image

    from hublora.generation.sample import image_difference

    gallery = gallery_images(folder)
    images = gallery[:limit]
    if not images:
        return None, "no image records how it was generated"
    if named[0] is None and not images[0][1].get("base_revision"):
        return None, f"generated on a folder, {images[0][1].get('base')!r}: name it with --base"
    worst = -1.0
    for (path, facts), generated in zip(
        images, _generate(folder, images, named, device, callback), strict=True
    ):
        with Image.open(path) as original:
            difference = image_difference(generated, original)
        if difference > image_tolerance(facts["dtype"]):
            return False, (
                f"it generates another image than {path.name} ({difference:.1f} levels of 255 "
                f"apart on average): {_keep(generated)}"
            )
        worst = max(worst, difference)
    if len(images) < len(gallery):
        repeated = f"{len(images)} of {len(gallery)} images is"
    else:
        repeated = every(images, "image is", "images are")
    return True, f"{repeated} generated again, at most {worst:.1f} levels of 255 apart"


def _keep(image: Any) -> str:
    """Save an image for a person to look at; return its path."""
    with tempfile.NamedTemporaryFile(suffix=".png", prefix="hublora-", delete=False) as file:
        image.save(file)
    return file.name


def _generate(
    folder: Path,
    images: Sequence[tuple[Path, Mapping[str, Any]]],
    named: tuple[str | None, str | None],
    device: str | None,
    callback: Callback,
) -> Iterator[Any]:
    """Load the adapter on its base and generate images by their metadata."""
    import torch

    from hublora.generation.generate import generate
    from hublora.generation.inputs import restore_inputs
    from hublora.generation.sample import Sampling, use_scheduler_of
    from hublora.workflows.load import load

    facts = images[0][1]
    (base, components), revision = named, facts.get("base_revision")
    if components is None and is_single_file(base):
        components = facts.get("base_components")
    pipe = load(
        str(folder),
        base=base or (facts["base"] if revision else None),
        base_revision=None if base else revision,
        components=components,
        dtype=getattr(torch, facts["dtype"]),
        quantize=facts.get("quantize"),
        device=device,
    )
    plans = [Sampling(**facts["sampling"]) for _, facts in images]
    use_scheduler_of(pipe, plans[0])
    for plan, (path, own) in zip(plans, images, strict=True):
        conditions = None
        if references := own.get("conditions", {}).get("references"):
            inputs = restore_inputs({"references": references}, path.parent, {}).open()
            inputs.check_family(pipe.hublora.base.family, pipe.hublora.base.name)
            conditions = inputs.conditions
        yield from generate(pipe, [plan], facts.get("trigger", "off"), callback, conditions)
