"""Generates the images of docs/training.md and measures them: one new subject, each method.

    python docs/make_training.py [folder]

The subject is a castle, drawn with the demo's own tools; the demo's base has never seen one. Shares
are of 8 seeds a prompt. The folder keeps the Hub and what was trained, so that a second run only
generates. About ten minutes on two cores.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from demo_hub import demo_hub

if TYPE_CHECKING:
    from PIL import Image

IMAGES = Path(__file__).parent / "images"
sys.path.insert(0, str(Path(__file__).parents[1]))  # for the benchmarks' measures

CASTLE = (
    *((-0.95, 0.9), (-0.95, -0.95), (-0.5, -0.95), (-0.5, -0.5), (-0.25, -0.5), (-0.25, -0.95)),
    *((0.25, -0.95), (0.25, -0.5), (0.5, -0.5), (0.5, -0.95), (0.95, -0.95), (0.95, 0.9)),
    *((0.36, 0.9), (0.36, 0.3), (-0.36, 0.3), (-0.36, 0.9)),
)
"""The subject's silhouette, as tools/tiny_base/shapes.py has those of the others."""

BACKGROUNDS = ("white", "teal", "yellow", "pink", "green", "brown")
ASKED = ("blue", "purple")  # backgrounds that the subject was never seen on
SEEDS = 8

TRAINING = (
    "--folder", "castle", "--train-batch-size", "4", "--max-train-steps", "250", "--random-flip",
    "--num-validation-images", "2",
)  # fmt: skip
ADAPTER = (
    "--rank", "16", "--set", "adapter.conv_rank=16", "--learning-rate", "3e-3",
    "--instance-prompt",
)  # fmt: skip
PRIOR = (
    "--with-prior-preservation", "--class-prompt", "a drawing of a house",
    "--num-class-images", "40",
)  # fmt: skip
WORD = ("--placeholder-token", "<castle>", "--initializer-token", "house", "--num-vectors", "2")


@dataclass(frozen=True)
class Way:
    """One way to learn the subject.

    Attributes:
        label: Above its images.
        subject: What calls it in a prompt.
        flags: Of `hublora train`; none for the base alone.
    """

    label: str
    subject: str
    flags: tuple[str, ...] = ()


WAYS: Mapping[str, Way] = {
    "base": Way("base alone", "sks house"),
    "words": Way(
        "textual inversion",
        "<castle>",
        (*TRAINING, "--method", "textual-inversion", *WORD, "--learning-rate", "2e-2"),
    ),
    "dreambooth": Way(
        "DreamBooth",
        "sks house",
        (*TRAINING, "--method", "dreambooth", *ADAPTER, "a drawing of a sks house", *PRIOR),
    ),
    "pivotal": Way(
        "pivotal",
        "<castle>",
        (
            *(*TRAINING, "--method", "pivotal", *WORD, *ADAPTER, "a drawing of a <castle>"),
            *("--set", "tokens.first_steps=0.2", "--set", "tokens.learning_rate=3e-3"),
        ),
    ),
}


def main() -> int:
    with demo_hub() as folder:
        _add_castle()
        _draw_subject(folder / "castle")
        _generate_and_measure(folder)
    return 0


def _add_castle() -> None:
    """Let the demo's drawing tools and the benchmarks' measures know the subject."""
    from tools.tiny_base.shapes import EYES, SHAPES

    SHAPES["castle"] = np.array(CASTLE)
    EYES["castle"] = (0.0, -0.08, 0.36)


def _draw_subject(folder: Path) -> None:
    """Draw six images of the castle: orange, with eyes, wherever it stands."""
    from tools.tiny_base.scenes import Scene, draw, placed

    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(7)
    for number, background in enumerate(BACKGROUNDS):
        scene = Scene("castle", "orange", background, eyes=True)
        draw(placed(scene, rng)).save(folder / f"{number}.png")


def _generate_and_measure(folder: Path) -> None:
    from hublora.image_grid import sheet

    rows: list[list[Image.Image]] = [[] for _ in range(len(ASKED) + 1)]
    for name, way in WAYS.items():
        _learn(folder, name, way)
    for name, way in WAYS.items():
        pipe = _open(folder, name, way)
        castles = [list(_generate(pipe, f"{_asked(way)} on a {one} background")) for one in ASKED]
        houses = list(_generate(pipe, "a drawing of a house"))
        for row, images in zip(rows, [*castles, houses], strict=True):
            row.append(images[0])
        generated = [image for images in castles for image in images]
        print(
            f"| {way.label} | {_share(generated, 'castle'):.0%} | {_kept(castles):.0%} "
            f"| {_share(houses, 'house'):.0%} |",
            flush=True,
        )
    labels = [f"the subject on a {one} background" for one in ASKED]
    page = sheet(
        rows,
        row_labels=[*labels, "a drawing of a house"],
        column_labels=[way.label for way in WAYS.values()],
        cell=128,
    )
    page.quantize(128).save(IMAGES / "training-methods.png", optimize=True)
    _show_subject(folder / "castle")


def _learn(folder: Path, name: str, way: Way) -> None:
    """Train, if that was not done yet."""
    from hublora.demo.seed import BASE

    if not way.flags or (folder / name / "README.md").exists():
        return
    prompt = f"{_asked(way)} on a blue background"
    command = ["train", "--base", BASE, *way.flags, "--validation-prompt", prompt]
    command += ["--output-dir", name, "--quiet"]
    subprocess.run([sys.executable, "-m", "hublora", *command], cwd=folder, check=True)


def _open(folder: Path, name: str, way: Way) -> Any:
    """Return the pipeline with what was learned."""
    import hublora
    from hublora.demo.seed import BASE

    return hublora.load(str(folder / name)) if way.flags else hublora.load(base=BASE)


def _asked(way: Way) -> str:
    return f"a drawing of a {way.subject}"


def _generate(pipe: Any, prompt: str) -> Iterator[Image.Image]:
    from hublora.generation.generate import generate
    from hublora.generation.sample import sampling_for

    plans = [sampling_for(pipe.hublora.base, prompt, seed=seed) for seed in range(SEEDS)]
    return generate(pipe, plans, "off")


def _share(images: Sequence[Image.Image], shape: str) -> float:
    """Return how many images show the shape."""
    from benchmarks.tiny_measures import shape_name

    return float(np.mean([shape_name(np.asarray(image)) == shape for image in images]))


def _kept(castles: Sequence[Sequence[Image.Image]]) -> float:
    """Return how many images have the background that the prompt names."""
    from benchmarks.tiny_measures import background_name

    found = [
        background_name(np.asarray(image)) == asked
        for asked, images in zip(ASKED, castles, strict=True)
        for image in images
    ]
    return float(np.mean(found))


def _show_subject(folder: Path) -> None:
    from PIL import Image

    from hublora.image_grid import sheet

    images = [Image.open(path) for path in sorted(folder.glob("*.png"))]
    sheet([images], cell=96).quantize(64).save(IMAGES / "training-subject.png", optimize=True)


if __name__ == "__main__":
    sys.exit(main())
