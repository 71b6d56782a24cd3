"""The files that a diffusers pipeline is loaded from, among those of its repo."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hublora.errors import NotFoundError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def check_pipeline(name: str, files: Collection[str]) -> None:
    """Check that a repo or folder with these files is a diffusers pipeline in safetensors.

    Raises:
        NotFoundError: It is not a pipeline, or a component only has pickle weights.
    """
    if "model_index.json" not in files:
        raise NotFoundError(
            f"{name} is not a diffusers pipeline: it has no model_index.json.",
            "Name a base such as stable-diffusion-v1-5/stable-diffusion-v1-5.",
        )
    safe = {file.rpartition("/")[0] for file in files if file.endswith(".safetensors")}
    for file in files:
        component = file.rpartition("/")[0]
        if file.endswith(PICKLES) and component not in {"", "safety_checker", *safe}:
            raise NotFoundError(
                f"The {component} of {name} only has pickle weights, which can run code.",
                "Name a base that has .safetensors files.",
            )


def read_components(index: Path) -> set[str]:
    """Return the components of a pipeline that are loaded; none if its index does not parse, which
    loading will say."""
    try:
        stated = json.loads(index.read_bytes())
        named = {name for name, value in stated.items() if _names_class(value)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return set()
    return named - {"safety_checker"}


def _names_class(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value)
    )


def pipeline_files(files: Collection[str], components: Collection[str]) -> list[str]:
    """Return those of a pipeline's files that it is loaded from, weights in one precision.

    Args:
        files: Paths of all files.
        components: Components that are loaded.
    """
    return [name for name in files if _is_pipeline_file(name, files, components)]


def _is_pipeline_file(name: str, files: Collection[str], components: Collection[str]) -> bool:
    if name in ("model_index.json", "README.md"):
        return True
    folder, _, file = name.rpartition("/")
    if folder not in components:
        return False
    if file.endswith((".json", ".txt", ".model", ".jinja")):
        return True
    if not file.endswith(".safetensors"):
        return False
    full = re.sub(r"\.(fp16|bf16|non_ema)\.", ".", name)
    return name == full or (full not in files and ".non_ema." not in name)
