"""Files of a commit, read anew, and the hashes that the Hub recorded of them.

Large files have their SHA-256, others git's SHA-1 of "blob <size>\\0<bytes>".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import snapshot_download

from hublora.filesystem import sha256_of
from hublora.hub.client import api, translated
from hublora.hub.layout import PATTERNS, is_repo_file


def fresh_copy(repo_id: str, commit: str, folder: Path) -> Path:
    """Download the layout's files of a commit into a cache of its own below `folder`.

    The usual cache may answer with what was uploaded from this machine.

    Returns:
        The folder with the files.

    Raises:
        HubError: The Hub is away.
    """
    with translated(f"model {repo_id}", commit):
        copied = snapshot_download(
            repo_id, revision=commit, cache_dir=folder, allow_patterns=list(PATTERNS)
        )
    return Path(copied)


def recorded_hashes(repo_id: str, commit: str) -> dict[str, str]:
    """Return what the Hub recorded of each of the layout's files: 64 or 40 hexadecimal digits.

    Raises:
        HubError: The Hub is away.
    """
    with translated(f"model {repo_id}", commit):
        siblings = api().model_info(repo_id, revision=commit, files_metadata=True).siblings or []
    digests = {one.rfilename: one.lfs.sha256 if one.lfs else one.blob_id for one in siblings}
    return {name: digest for name, digest in digests.items() if digest and is_repo_file(name)}


def wrong_files(folder: Path, recorded: Mapping[str, str]) -> list[str]:
    """Return the files in `folder` that are missing or not what was recorded, sorted."""
    return sorted(
        name
        for name, digest in recorded.items()
        if not (folder / name).is_file() or _hash(folder / name, len(digest)) != digest
    )


def _hash(path: Path, digits: int) -> str:
    if digits == 64:
        return sha256_of(path)
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
