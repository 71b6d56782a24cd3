"""Imports the demo's base model, datasets and second adapter into an embedded Hub."""

from __future__ import annotations

from pathlib import Path

from hublora.localhub import import_folder

ASSETS = Path(__file__).parent / "assets"

BASE = "hublora/tiny-sd"
DATASET = "hublora/tiny-sketchbook"
SECOND_DATASET = "hublora/tiny-stripes"
SECOND_ADAPTER = "hublora/tiny-stripes-lora"

# Repo id -> repo type; the assets are in a folder with the last part of the id.
REPOS = {
    BASE: "model",
    DATASET: "dataset",
    SECOND_DATASET: "dataset",
    SECOND_ADAPTER: "model",
}


# Time of the commits: the same on every Hub, so that their hashes are the same too.
_TIME = 1_767_225_600  # 2026-01-01


def seed(data_dir: Path | str) -> list[str]:
    """Import the demo's repos into the Hub in `data_dir`; return their ids.

    Works with and without a server on that folder; a repo with the same content stays unchanged.
    """
    for repo_id, repo_type in REPOS.items():
        folder = ASSETS / repo_id.split("/")[1]
        import_folder(
            data_dir, repo_id, folder, repo_type, "Seed the demo", mirror=True, time=_TIME
        )
    return list(REPOS)
