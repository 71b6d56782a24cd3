"""Downloads a commit past every cache, and compares it with the checksums that the Hub recorded."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from hublora.hub.client import api, translated, without_bars
from hublora.hub.repo_layout import PATTERNS, is_repo_file
from hublora.hub.transport import repeated


@without_bars()
def download_commit(repo_id: str, commit: str, folder: Path) -> None:
    """Download the files of the repo layout at a commit into an empty folder, each from the Hub.

    The usual cache may answer with the files that were uploaded from this machine, and any cache
    downloads files of equal content once.

    Raises:
        HubError: The Hub cannot be reached, or a file arrived incomplete.
        OSError: The disk is full.
    """
    with translated(f"model {repo_id}", commit):
        repeated(
            lambda: snapshot_download(
                repo_id,
                revision=commit,
                local_dir=folder,
                cache_dir=folder / ".cache" / "hub",
                allow_patterns=list(PATTERNS),
            )
        )


def differing_files(repo_id: str, commit: str, folder: Path) -> list[str]:
    """Return the files of the layout that `folder` lacks or has with another checksum, sorted.

    Raises:
        HubError: The Hub cannot be reached.
    """
    with translated(f"model {repo_id}", commit):
        found = repeated(
            lambda: api().verify_repo_checksums(repo_id, revision=commit, local_dir=folder)
        )
    wrong = {*found.missing_paths, *(one["path"] for one in found.mismatches)}
    return sorted(name for name in wrong if is_repo_file(name))
