"""How well does `hublora/tiny-sd` follow prompts, and how well does an adapter steer it?

    python benchmarks/tiny_base.py                       # the base, on held-out combinations
    python benchmarks/tiny_base.py --check               # the measures, on drawn scenes
    python benchmarks/tiny_base.py --adapter FOLDER      # a tiny-sketchbook adapter on the base

Prompts and seeds are fixed. Held-out combinations of subject, colour and background were never
drawn for training (`tools.tiny_base.scenes.is_held_out`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tiny_measures import (
    background_name,
    eye_count,
    has_outline,
    is_sketchbook,
    is_striped,
    shape_name,
    subject_colour_name,
)

from tools.tiny_base.captions import full_caption, short_caption
from tools.tiny_base.scenes import COLOURS, SIZE, Scene, draw, is_held_out, placed
from tools.tiny_base.shapes import SHAPES
from tools.tiny_base.styles import ASSETS, STYLES, style_scenes

Measure = Callable[[np.ndarray, Scene], bool]

FOLLOWS: dict[str, Measure] = {
    "background colour is right": lambda image, asked: background_name(image) == asked.background,
    "subject colour is right": lambda image, asked: subject_colour_name(image) == asked.colour,
    "shape is right": lambda image, asked: shape_name(image) == asked.subject,
    "no outline (none was asked for)": lambda image, asked: not has_outline(image),
    "no eyes (none were asked for)": lambda image, asked: eye_count(image) < 2,
    "no stripes (none were asked for)": lambda image, asked: not is_striped(image),
}

STYLE: dict[str, dict[str, Measure]] = {
    "tiny-sketchbook": {
        "cream paper": lambda image, asked: background_name(image) == "paper",
        "thick outline": lambda image, asked: has_outline(image),
        "two eyes": lambda image, asked: eye_count(image) >= 2,
        "the whole style": lambda image, asked: is_sketchbook(image),
    },
    "tiny-stripes": {"striped": lambda image, asked: is_striped(image)},
}
SUBJECT: dict[str, Measure] = {
    name: FOLLOWS[name] for name in ("subject colour is right", "shape is right")
}


def held_out_scenes(count: int) -> list[Scene]:
    """Return `count` plain scenes whose combination was kept from training."""
    combinations = [
        Scene(subject, colour, background)
        for subject, colour, background in product(SHAPES, COLOURS, COLOURS)
        if colour != background and is_held_out(subject, colour, background)
    ]
    order = np.random.default_rng(0).permutation(len(combinations))
    return [combinations[index] for index in order[:count]]


def subjects(count: int) -> list[Scene]:
    """Return `count` scenes of every subject and colour, for prompts that name no more."""
    pairs = list(product(SHAPES, COLOURS))
    order = np.random.default_rng(1).permutation(len(pairs))
    return [Scene(*pairs[index], background="") for index in order[:count]]


def generate(pipeline: Any, prompts: list[str], steps: int, guidance: float) -> list[np.ndarray]:
    """Return one generated 64×64 image per prompt; prompt number n uses seed n."""
    import torch

    images: list[np.ndarray] = []
    for start in range(0, len(prompts), 10):
        batch = prompts[start : start + 10]
        seeds = [torch.Generator().manual_seed(start + n) for n in range(len(batch))]
        result = pipeline(
            batch,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=seeds,
            output_type="np",
        )
        images += list((result.images * 255).round().astype(np.uint8))
    return images


def report(
    title: str,
    images: Iterable[np.ndarray],
    asked: list[Scene],
    measures: dict[str, Measure],
) -> None:
    """Print a Markdown table: the share of images on which each measure holds."""
    images = list(images)
    print(f"\n### {title} ({len(images)} images)\n\n| measure | share |\n|---|---|")
    for name, measure in measures.items():
        hits = sum(measure(image, scene) for image, scene in zip(images, asked, strict=True))
        print(f"| {name} | {100 * hits / len(images):.0f} % |")


def save_sheet(images: list[np.ndarray], file: Path, columns: int = 10) -> None:
    """Write the images as one contact sheet."""
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * SIZE, rows * SIZE))
    for index, image in enumerate(images):
        place = (index % columns * SIZE, index // columns * SIZE)
        sheet.paste(Image.fromarray(image), place)
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(file)


def check_measures(count: int) -> None:
    """Print what the measures say about drawn scenes, where the truth is known."""
    rng = np.random.default_rng(2)
    plain = [placed(scene, rng) for scene in held_out_scenes(count)]
    drawn = [np.asarray(draw(scene)) for scene in plain]
    report("Drawn plain scenes", drawn, plain, FOLLOWS)
    for style in STYLES:
        scenes = style_scenes(style)
        drawn = [np.asarray(draw(scene)) for scene in scenes]
        report(f"Scenes of {style}", drawn, scenes, STYLE[style] | SUBJECT)


def main() -> None:
    """Run the measurement that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default=str(ASSETS / "tiny-sd"), help="folder or repo id")
    parser.add_argument("--adapter", help="folder or repo id of a LoRA")
    parser.add_argument("--style", choices=list(STYLE), default="tiny-sketchbook")
    parser.add_argument("--check", action="store_true", help="measure drawn scenes instead")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet here")
    options = parser.parse_args()
    if options.check:
        check_measures(options.count)
        return

    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(options.base)
    pipeline.set_progress_bar_config(disable=True)

    def images(prompts: list[str]) -> list[np.ndarray]:
        return generate(pipeline, prompts, options.steps, options.guidance)

    if not options.adapter:
        asked = held_out_scenes(options.count)
        made = images([full_caption(scene) for scene in asked])
        report("Held-out combinations", made, asked, FOLLOWS)
    else:
        asked = subjects(options.count)
        prompts = [short_caption(scene) for scene in asked]
        measures = STYLE[options.style] | SUBJECT
        report("The base alone", images(prompts), asked, measures)
        pipeline.load_lora_weights(options.adapter)
        made = images(prompts)
        report("With the adapter", made, asked, measures)
    if options.sheet:
        save_sheet(made, options.sheet)


if __name__ == "__main__":
    main()
