"""Puts the demo's base, images and second adapter into an embedded Hub."""

from __future__ import annotations

from pathlib import Path

from hublora.localhub import import_folder

ASSETS = Path(__file__).parent / "assets"

BASE = "hublora/tiny-sd"
DATASET = "hublora/tiny-sketchbook"
SECOND_DATASET = "hublora/tiny-stripes"
SECOND_ADAPTER = "hublora/tiny-stripes-lora"

# Repo -> its type; each lies in the assets under the last part of its name.
REPOS = {
    BASE: "model",
    DATASET: "dataset",
    SECOND_DATASET: "dataset",
    SECOND_ADAPTER: "model",
}


# Of the commits: the repos have the same history on every Hub, so a pin from one holds on another.
_TIME = 1_767_225_600  # 2026-01-01


def seed(data_dir: Path | str) -> list[str]:
    """Import the demo's repos into the Hub in `data_dir`; return their ids.

    Works with and without a server on that folder; a repo that has the content already is left.
    """
    for repo_id, repo_type in REPOS.items():
        folder = ASSETS / repo_id.split("/")[1]
        import_folder(
            data_dir, repo_id, folder, repo_type, "Seed the demo", mirror=True, time=_TIME
        )
    return list(REPOS)
