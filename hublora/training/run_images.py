"""The images of a training by name, kept in its run folder to tell which of them changed since.

Names may be private, so they stay out of checkpoints, which may be uploaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hublora.filesystem import RUN_IMAGES, write_atomically

_NAMED = 5  # most images that are named


def write_run_images(run: Path, hashes: Mapping[str, str]) -> None:
    """Write the images of a training into its run folder.

    Args:
        run: Run folder.
        hashes: Name of each image -> hash of its file and captions.
    """
    write_atomically(run / RUN_IMAGES, json.dumps(hashes), mode=0o600)


def changed_images(run: Path, now: Mapping[str, str]) -> str | None:
    """Return which images are others than at the start of the training, as a clause; None if that
    is not known.

    Args:
        run: Run folder.
        now: Name of each image -> hash of its file and captions.
    """
    try:
        then = json.loads((run / RUN_IMAGES).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(then, dict):
        return None
    kinds = {
        "changed": [name for name in now if name in then and now[name] != then[name]],
        "new": [name for name in now if name not in then],
        "missing": [name for name in then if name not in now],
    }
    return "; ".join(f"{what}: {_listed(names)}" for what, names in kinds.items() if names) or None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (
        f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    )
