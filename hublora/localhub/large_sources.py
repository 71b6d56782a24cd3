"""Where a mirror gets large files from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from .store.errors import EntryNotFound
from .store.git import Entry

# Gives the content of one file of a commit, or None where it is not to be had.
FetchFile = Callable[[str, Entry], Path | None]


def from_hub(endpoint: str, repo_id: str, kind: str, token: str | None, folder: Path) -> FetchFile:
    """Return what downloads from another Hub, into `folder`; each file replaces the one before."""

    def fetch(commit: str, entry: Entry) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        shutil.rmtree(folder, ignore_errors=True)
        try:
            found = hf_hub_download(
                repo_id,
                entry.path,
                repo_type=kind,
                revision=commit,
                endpoint=endpoint,
                token=token or False,
                local_dir=folder,
            )
        except HfHubHTTPError as problem:
            raise EntryNotFound(entry.path, commit, f"{entry.path}: {problem}") from problem
        return Path(found)

    return fetch


def from_clone(clone: Path) -> FetchFile:
    """Return what looks into the large files of a clone, and into its working tree."""
    hidden = clone / ".git" if (clone / ".git").is_dir() else clone

    def fetch(_: str, entry: Entry) -> Path | None:
        oid = entry.etag
        places: Iterable[Path] = (
            hidden / "lfs" / "objects" / oid[:2] / oid[2:4] / oid,
            clone / entry.path,
        )
        whole = (p for p in places if p.is_file() and p.stat().st_size == entry.size)
        return next(whole, None)

    return fetch
