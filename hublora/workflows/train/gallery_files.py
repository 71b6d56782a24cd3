"""Sheets of a training's generated images, and the references that are written beside them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hublora.filesystem import write_atomically
from hublora.generation.conditions import Conditions, fingerprint, open_image
from hublora.training.result_files import ResultFiles

if TYPE_CHECKING:
    from PIL import Image

    from hublora.workflows.train.gallery import GeneratedImage


def gallery_sheet(images: Sequence[GeneratedImage], title: str | None = None) -> Image.Image:
    """Return a sheet with one row per prompt, the references first."""
    from hublora.image_grid import sheet

    prompts = list(dict.fromkeys(one.plan.prompt for one in images))
    most = max(len(one.references) for one in images)
    rows = []
    for prompt in prompts:
        row = [one for one in images if one.plan.prompt == prompt]
        rows.append([*_beside(row[0], most), *(one.image for one in row)])
    return sheet(rows, row_labels=prompts, title=title)


def _beside(one: GeneratedImage, count: int) -> list[Image.Image]:
    """Return the references of an image in its own height, and white ones up to a count."""
    from PIL import Image

    height = one.image.height
    shown = [
        image.resize((max(1, round(image.width * height / image.height)), height))
        for image in one.references
    ]
    return shown + [Image.new("RGB", one.image.size, "white")] * (count - len(shown))


def before_after_sheet(
    before: Sequence[GeneratedImage], after: Sequence[GeneratedImage], learned: str = "adapter"
) -> Image.Image:
    """Return a sheet of two columns, base and trained, at the same prompts and seeds.

    Args:
        before: Images of the base alone.
        after: Images with the trained weights, of the same sampling settings.
        learned: Noun of the second column's label.
    """
    from hublora.image_grid import sheet

    most = max(len(one.references) for one in after)
    pairs = zip(before, after, strict=True)
    rows = [[*_beside(new, most), old.image, new.image] for old, new in pairs]
    given = ["reference"] if most == 1 else [f"reference {n + 1}" for n in range(most)]
    labels = [f"{one.plan.prompt} (seed\N{NO-BREAK SPACE}{one.plan.seed})" for one in after]
    return sheet(rows, row_labels=labels, column_labels=[*given, "base", f"with the {learned}"])


def write_references(files: ResultFiles, folder: Path, one: GeneratedImage) -> Conditions | None:
    """Write the references of an image beside it, unless they are there, for who generates it
    again; return them as its conditions."""
    if not one.references:
        return None
    stated = []
    for image in one.references:
        digest = fingerprint(image)
        path = folder / "images" / f"reference-{digest[:8]}.png"
        if not (path.exists() and fingerprint(open_image(path)) == digest):
            encoded = io.BytesIO()
            image.save(encoded, "PNG")
            write_atomically(files.make_way(path), encoded.getvalue())
            files.add(path)
        stated.append(
            {"sha256": digest, "name": path.name, "size": f"{image.width}x{image.height}"}
        )
    return Conditions(references=one.references, stated={"references": stated})
