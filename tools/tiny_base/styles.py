"""Writes the demo's data sets: scenes in two drawing styles that their captions do not name.

Each is an image folder with `metadata.jsonl` (`file_name`, `text`), the form that the `datasets`
library and every LoRA trainer read. Run as `python -m tools.tiny_base.styles --out DIR`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hublora.demo.seed import ASSETS
from tools.tiny_base.captions import short_caption
from tools.tiny_base.scenes import COLOURS, Scene, draw, placed
from tools.tiny_base.shapes import SHAPES

STYLES: dict[str, dict[str, Any]] = {
    "tiny-sketchbook": {"background": "paper", "outline": True, "eyes": True, "eye_size": 0.33},
    "tiny-stripes": {"pattern": "striped", "shadow": True},
}
"""What every scene of a data set has beyond its subject and colour; the rest varies."""

RADII = {"tiny-sketchbook": (21.5, 24.5), "tiny-stripes": (18.5, 23.0)}
"""Ranges of the subjects' radii in pixels."""

COUNTS = {"tiny-sketchbook": 60, "tiny-stripes": 36}


def style_scenes(name: str) -> list[Scene]:
    """Return the scenes of a data set; subjects and colours occur equally often."""
    rng = np.random.default_rng([sorted(STYLES).index(name), 2026])
    subjects, colours = list(SHAPES), list(COLOURS)
    scenes = []
    for index in range(COUNTS[name]):
        lap = index // len(subjects)
        colour = colours[(index + lap * 5 + lap // 5) % len(colours)]
        background = str(rng.choice([other for other in colours if other != colour]))
        scene = Scene(subjects[index % len(subjects)], colour, background)
        scenes.append(placed(replace(scene, **STYLES[name]), rng, RADII[name]))
    return scenes


def write_style(name: str, folder: Path) -> None:
    """Write a data set's scenes and captions into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, scene in enumerate(style_scenes(name)):
        file_name = f"{index:03d}-{scene.colour}-{scene.subject}.png"
        draw(scene).save(folder / file_name, optimize=True)
        lines.append(json.dumps({"file_name": file_name, "text": short_caption(scene)}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Write both data sets."""
    parser = argparse.ArgumentParser(description="Write the demo's data sets.")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder that gets one folder each")
    out = parser.parse_args().out
    for name in STYLES:
        write_style(name, out / name)


if __name__ == "__main__":
    main()
