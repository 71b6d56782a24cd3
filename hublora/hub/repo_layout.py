"""The files of an adapter repo on the Hub; no other file is ever uploaded.

The Hub counts downloads by top-level `.safetensors` files, so there is exactly one. The repo of a
composition has none: its lockfile names its adapters.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from hublora.errors import NotFoundError

CARD = "README.md"
WEIGHTS = "pytorch_lora_weights.safetensors"
LEARNED_EMBEDDINGS = "learned_embeds.safetensors"  # diffusers' name; stands in place of WEIGHTS
LOCK = "hublora.lock.json"
SETTINGS = "training/config.yaml"
ENVIRONMENT = "training/environment.json"
CONTENTS = (WEIGHTS, LEARNED_EMBEDDINGS, LOCK)  # every repo has one of them
PATTERNS = (
    CARD,
    *CONTENTS,
    "images/*.png",
    "embeddings/*.safetensors",
    "comfyui/*.safetensors",
    SETTINGS,
    ENVIRONMENT,
    "training/history.jsonl",
    "training/loss.png",
)


def is_repo_file(path: str) -> bool:
    """Return whether a POSIX path inside a folder belongs to the layout; hidden files never do."""
    parts = path.split("/")
    return not any(part.startswith(".") for part in parts) and any(
        len(pattern.split("/")) == len(parts) and fnmatchcase(path, pattern) for pattern in PATTERNS
    )


def check_contents(folder: Path) -> None:
    """Check that a folder has what the repo of an adapter or a composition has.

    Raises:
        NotFoundError: It has neither.
    """
    if not any((folder / name).is_file() for name in CONTENTS):
        raise NotFoundError(f"{folder} has no {WEIGHTS}.", "Push the folder of a finished run.")


def repo_files(folder: Path) -> list[str]:
    """Return the paths in `folder` that belong to the layout, sorted, without symbolic links."""
    return sorted(
        name
        for path in folder.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and is_repo_file(name := path.relative_to(folder).as_posix())
    )
