"""A dataset repo of images with a .txt beside each, which `datasets` cannot read as captions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hublora.data.config import DataConfig
from hublora.data.examples import Listing
from hublora.data.folder import SIDECAR_ENDING, list_folder
from hublora.data.folder_files import ENDINGS
from hublora.data.metadata import METADATA

if TYPE_CHECKING:
    from hublora.hub.resolve import RepoSnapshot

# What `datasets` reads as a table, or as an archive of images.
_TABLES = (".parquet", ".arrow", ".jsonl", ".csv", ".tsv", ".tar", ".zip", ".gz")


def has_pairs(snapshot: RepoSnapshot) -> bool:
    """Return whether a repo has images with .txt files beside them, and no table of its own."""
    paths = [PurePosixPath(name) for name in snapshot.files]
    if "configs" in snapshot.card or any(
        path.name in METADATA or path.suffix.lower() in _TABLES for path in paths
    ):
        return False
    images = {path.with_suffix("") for path in paths if path.suffix.lower() in ENDINGS}
    return any(path.suffix == SIDECAR_ENDING and path.with_suffix("") in images for path in paths)


def list_pairs(config: DataConfig, snapshot: RepoSnapshot) -> Listing:
    """Return the images and captions of such a repo, downloaded at its commit.

    Raises:
        HubloraError: The files cannot be downloaded, or are no folder of images.
    """
    from huggingface_hub import snapshot_download

    from hublora.hub.client import translated, without_bars
    from hublora.hub.transport import repeated

    wanted = (*ENDINGS, SIDECAR_ENDING)
    names = [name for name in snapshot.files if name.lower().endswith(wanted)]
    with translated(f"dataset {snapshot.repo_id}", snapshot.commit), without_bars():
        folder = repeated(
            lambda: snapshot_download(
                snapshot.repo_id,
                repo_type="dataset",
                revision=snapshot.commit,
                allow_patterns=[name.replace("[", "[[]") for name in names],
            )
        )
    return replace(list_folder(config, Path(folder), str(config.dataset)), revision=snapshot.commit)
