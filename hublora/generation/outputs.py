"""Names images and writes them, with how they were made inside; overwrites nothing unasked."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora._version import __version__
from hublora.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

    from hublora.generation.sample import Sampling

_OTHER_FORMATS = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


def check_output(output: Path | None) -> None:
    """Check that images can be written to a place, before anything is generated.

    Raises:
        ConfigError: It is of another format, or nothing can be written there.
    """
    if output is not None and output.suffix.lower() in _OTHER_FORMATS:
        raise ConfigError(
            f"Images are written as PNG, not as {output.suffix}.",
            f"Name {output.with_suffix('.png')} or a folder.",
        )
    is_file = output is not None and output.suffix.lower() == ".png"
    if is_file and output is not None and output.is_dir():
        raise ConfigError(f"{output} is a folder, and an image was to get that name.")
    folder = output.parent if is_file and output is not None else output or Path()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"Nothing can be written to {output or folder.resolve()}: {error.strerror}.",
            "Name another place with -o.",
        ) from error


def check_replaceable(output: Path | None) -> None:
    """Check that an image which would be overwritten is one of hublora's own.

    Raises:
        ConfigError: It is a file of another kind.
    """
    from hublora.generation.metadata import read_image

    if output is None or output.suffix.lower() != ".png" or not output.exists():
        return
    try:
        made = read_image(output)
    except (OSError, ValueError, SyntaxError):  # Pillow has no image there, or a broken one
        made = {}
    if not made:
        raise ConfigError(
            f"{output} is there already, and hublora has not made it.",
            "Name another file with -o, or remove it.",
        )


def output_paths(output: Path | None, prompt: str, seeds: Sequence[int]) -> list[Path]:
    """Return one file per seed; only a single file that was named may exist already.

    Args:
        output: A .png file, or a folder; the current folder if None.
        prompt: Gives files their names in a folder.
        seeds: Seeds of the images, all different.

    Raises:
        ConfigError: As `check_output`.
    """
    check_output(output)
    if output is not None and output.suffix.lower() == ".png":
        if len(seeds) == 1:
            return [output]
        return [_unused(output.with_stem(f"{output.stem}-{seed}")) for seed in seeds]
    folder = output or Path()
    stem = slug(prompt)
    return [_unused(folder / f"{stem}-{seed}.png") for seed in seeds]


def save_grid(images: Sequence[Image.Image], plans: Sequence[Sampling], first: Path) -> Path:
    """Write one sheet with all images beside the first one; return its path."""
    from hublora.generation.metadata import save_image
    from hublora.image_grid import sheet

    columns = math.ceil(len(images) ** 0.5)
    rows = [list(images[i : i + columns]) for i in range(0, len(images), columns)]
    path = _unused(first.with_stem(first.stem + "-grid"))
    facts: Mapping[str, Any] = {
        "hublora": __version__,
        "seeds": [plan.seed for plan in plans],
        "sampling": {"prompt": plans[0].prompt},
    }
    save_image(sheet(rows, title=plans[0].prompt), path, facts)
    return path


def slug(prompt: str) -> str:
    """Return a name for the files of a prompt."""
    words = "".join(c if c.isalnum() else " " for c in prompt.lower()).split()
    return "-".join(words)[:48].strip("-") or "image"


def _unused(path: Path) -> Path:
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate
