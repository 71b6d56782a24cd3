"""Opens what a picture may be drawn from: pictures and ControlNets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import NotFoundError

if TYPE_CHECKING:
    from PIL import Image


def open_picture(path: Path | None) -> Image.Image | None:
    """Return a picture, None where none is named.

    Raises:
        ConfigError: It cannot be read.
    """
    from hublora.generation.conditions import open_image

    return None if path is None else open_image(path)


def find_controlnet(repo_id: str | None) -> Any:
    """Return the ControlNet in a repo at its commit, None where none is named.

    Raises:
        NotFoundError: There is none, or only pickle weights.
    """
    if repo_id is None:
        return None
    from diffusers import ControlNetModel

    from hublora.hub.client import translated
    from hublora.hub.resolve import inspect_repo

    snapshot = inspect_repo(repo_id)
    if "config.json" not in snapshot.files or not any(
        name.endswith(".safetensors") for name in snapshot.files
    ):
        raise NotFoundError(f"{repo_id} holds no ControlNet in safetensors.")
    with translated(f"model {repo_id}", snapshot.commit):
        return ControlNetModel.from_pretrained(
            repo_id, revision=snapshot.commit, use_safetensors=True
        )
