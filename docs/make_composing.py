"""Generates the images of docs/composing.md with the demo's base and adapters.

    python docs/make_composing.py [folder]

The folder keeps the Hub and the trained adapter, so that a second run only generates. A few minutes
on two cores.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo_hub import demo_hub

IMAGES = Path(__file__).parent / "images"
PROMPTS = ("a drawing of a purple cat", "a drawing of a red mushroom", "a drawing of a blue house")
FIRST, SECOND = "demo/sketchbook-lora", "hublora/tiny-stripes-lora"

# Label -> refs and how they act together.
WAYS: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "no adapter": ((), {"base": "hublora/tiny-sd"}),
    "sketchbook": ((FIRST,), {}),
    "stripes": ((SECOND,), {}),
    "sum": ((f"{FIRST}:0.6", f"{SECOND}:0.6"), {}),
    "switch": ((FIRST, SECOND), {"compose": "switch"}),
    "composite": ((FIRST, SECOND), {"compose": "composite"}),
}
WEIGHTS: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    text: ((SECOND,), {"weights": {"1": text}})
    for text in ("0.5", "0..1", "1..0", "0,up:1", "1,up:0")
}


def main() -> int:
    with demo_hub() as folder:
        from huggingface_hub import repo_exists

        if not repo_exists(FIRST):
            _train(folder)
        _generate_sheet(WAYS, IMAGES / "composing-ways.png")
        _generate_sheet(WEIGHTS, IMAGES / "composing-weights.png")
        generate_from_images(folder, IMAGES / "composing-images.png")
        _run(
            folder, "run", SECOND, PROMPTS[1], "--rows", "weight=0..1:3", "--columns", "seed=4",
            "-o", "axes", "-q",
        )  # fmt: skip
        (sheet,) = (folder / "axes").glob("*-sheet-*.png")
        _save(sheet, IMAGES / "composing-axes.png")
    return 0


def _train(folder: Path) -> None:
    from hublora.demo.seed import BASE, DATASET
    from hublora.demo.tour import TRAINING

    _run(
        folder, "train", "--base", BASE, "--dataset", DATASET, *TRAINING, "--output-dir",
        "sketchbook", "--push-to-hub", "--hub-model-id", FIRST, "--validation-prompt", PROMPTS[0],
    )  # fmt: skip


def _generate_sheet(
    columns: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]], path: Path
) -> None:
    import hublora
    from hublora.generation.generate import generate
    from hublora.generation.sample import sampling_for
    from hublora.image_grid import sheet

    generated = []
    for refs, settings in columns.values():
        pipe = hublora.load(*refs, **settings)
        plans = [sampling_for(pipe.hublora.base, prompt, seed=3) for prompt in PROMPTS]
        generated.append(list(generate(pipe, plans, "auto")))
    rows = [list(row) for row in zip(*generated, strict=True)]
    labels = [prompt.removeprefix("a drawing of ") for prompt in PROMPTS]
    page = sheet(rows, row_labels=labels, column_labels=list(columns), cell=128)
    page.quantize(128).save(path, optimize=True)


def generate_from_images(folder: Path, path: Path) -> None:
    """Generate with the second adapter from an image: with three strengths, and where a mask is."""
    from PIL import Image

    import hublora
    from hublora.image_grid import sheet

    start, mask = folder / "start.png", folder / "mask.png"
    hublora.run([], PROMPTS[1], base="hublora/tiny-sd", seed=3, output=start)
    half = Image.new("L", (64, 64))
    half.paste(255, (32, 0, 64, 64))
    half.save(mask)
    ways: dict[str, dict[str, Any]] = {
        f"--strength {strength}": {"strength": strength} for strength in (0.5, 0.7, 0.9)
    } | {"--mask, the right half": {"mask": mask, "strength": 1.0}}
    rows = []
    for prompt in (PROMPTS[0], PROMPTS[2]):
        row = [_opened(start)]
        for number, settings in enumerate(ways.values()):
            output = folder / f"from-{number}.png"
            hublora.run([SECOND], prompt, image=start, output=output, seed=1, **settings)
            row.append(_opened(output))
        rows.append(row)
    labels = [prompt.removeprefix("a drawing of ") for prompt in (PROMPTS[0], PROMPTS[2])]
    page = sheet(rows, row_labels=labels, column_labels=["--image", *ways], cell=128)
    page.quantize(128).save(path, optimize=True)


def _opened(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.copy()


def _save(sheet: Path, path: Path) -> None:
    from PIL import Image

    with Image.open(sheet) as page:
        page.reduce(2).quantize(128).save(path, optimize=True)


def _run(folder: Path, *command: str) -> None:
    subprocess.run([sys.executable, "-m", "hublora", *command], cwd=folder, check=True)


if __name__ == "__main__":
    sys.exit(main())
