"""Does hublora learn as much in as many steps as the diffusers script?

    python benchmarks/quality.py --reference PATH/train_text_to_image_lora.py

Both train on the demo's base and on the demo's drawings without some of them, with the same
settings, once for each seed. Then plain diffusers loads each adapter and measures the loss on the
held-out drawings, with the same noise at the same timesteps for all. Printed is a
Markdown table; the goal is that hublora's loss is at most 1.02 times the other one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from train import run_side
from train_side import SIDES, Job

from tools.tiny_base.make_base import BASE
from tools.tiny_base.styles import ASSETS

IMAGES = ASSETS / "tiny-sketchbook"
SIDE = 64
GOAL = 1.02
HELD_OUT = 5  # every fifth drawing is held out
TIMESTEPS = 10  # the middles of as many equal parts
NOISES = 4  # for each drawing and timestep

Drawing = tuple[Path, str]  # and its caption


def split_drawings(folder: Path) -> tuple[list[Drawing], list[Drawing]]:
    """Return the drawings to train on and the held-out ones."""
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    drawings = [(folder / row["file_name"], _caption(row)) for row in rows]
    apart = drawings[HELD_OUT - 1 :: HELD_OUT]
    return [one for one in drawings if one not in apart], apart


def save_drawings(drawings: Sequence[Drawing], folder: Path) -> Path:
    """Copy drawings into an imagefolder and return it."""
    folder.mkdir()
    rows = []
    for path, caption in drawings:
        (folder / path.name).write_bytes(path.read_bytes())
        rows.append({"file_name": path.name, "text": caption})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def held_out_loss(adapter: Path | None, drawings: Sequence[Drawing]) -> float:
    """Return the mean squared error on drawings, with fixed noise at fixed timesteps.

    Args:
        adapter: Folder of the adapter; None measures the base alone.
        drawings: What to measure on.
    """
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(BASE, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    if adapter is not None:
        pipe.load_lora_weights(adapter, weight_name="pytorch_lora_weights.safetensors")
    schedule = diffusers.DDPMScheduler.from_config(pipe.scheduler.config)
    generator = torch.Generator().manual_seed(0)
    total = schedule.config.num_train_timesteps
    times = torch.tensor([int((n + 0.5) / TIMESTEPS * total) for n in range(TIMESTEPS)])
    losses = []
    with torch.no_grad():
        for path, caption in drawings:
            latent = _encode(pipe, path)
            embeddings = pipe.encode_prompt(caption, pipe.device, 1, False)[0]
            for _ in range(NOISES):
                latents = latent.expand(TIMESTEPS, -1, -1, -1)
                noise = torch.randn(latents.shape, generator=generator)
                noisy = schedule.add_noise(latents, noise, times)
                conditions = embeddings.expand(TIMESTEPS, -1, -1)
                predicted = pipe.unet(noisy, times, conditions).sample
                target = noise
                if schedule.config.prediction_type == "v_prediction":
                    target = schedule.get_velocity(latents, noise, times)
                losses.append(torch.nn.functional.mse_loss(predicted, target).item())
    return mean(losses)


def _caption(row: Mapping[str, Any]) -> str:
    said = row["text"] if "text" in row else row["caption"]
    return str(said[0] if isinstance(said, list) else said)


def _encode(pipe: Any, path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.asarray(small, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
    latent = pipe.vae.encode(pixels[None]).latent_dist.mode() * pipe.vae.config.scaling_factor
    return torch.as_tensor(latent)


def train_both(template: dict[str, Any], seed: int, apart: Sequence[Drawing]) -> dict[str, float]:
    """Train with both and return the held-out loss of each."""
    losses = {}
    for side in SIDES:
        with tempfile.TemporaryDirectory() as work:
            run_side(Job(**template, side=side, seed=seed, work=work), Path(work))
            losses[side] = held_out_loss(Path(work, "adapter"), apart)
        print(f"seed {seed}, {side}: {losses[side]:.5f}", file=sys.stderr, flush=True)
    return losses


def render(base: float, by_seed: Mapping[int, Mapping[str, float]]) -> str:
    """Return the losses as a Markdown table."""
    lines = ["| seed | hublora | reference | ratio |", "| --- | --- | --- | --- |"]
    rows = [(str(seed), one["hublora"], one["reference"]) for seed, one in by_seed.items()]
    ours, theirs = (mean(row[column] for row in rows) for column in (1, 2))
    for name, mine, other in [*rows, ("mean", ours, theirs)]:
        lines.append(f"| {name} | {mine:.5f} | {other:.5f} | {mine / other:.4f} |")
    verdict = "met" if ours <= GOAL * theirs else "missed"
    return "\n".join([*lines, "", f"The base alone: {base:.5f}. Goal: at most {GOAL}: {verdict}."])


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what is learned in equal steps.")
    parser.add_argument("--reference", type=Path, required=True, help="the diffusers script")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    train, apart = split_drawings(IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        template = {
            "reference": str(arguments.reference.resolve()),
            "base": str(BASE),
            "images": str(save_drawings(train, Path(folder, "images"))),
            "resolution": SIDE,
            "batch": arguments.batch,
            "rank": arguments.rank,
            "precision": "no",
            "steps": arguments.steps,
            "warm_up": 1,
            "learning_rate": arguments.learning_rate,
        }
        found = {seed: train_both(template, seed, apart) for seed in arguments.seeds}
    print(
        f"{arguments.steps} steps of {arguments.batch} on {len(train)} drawings, rank "
        f"{arguments.rank}, AdamW at {arguments.learning_rate}; measured on {len(apart)} drawings, "
        f"{TIMESTEPS} timesteps, {NOISES} noises each\n"
    )
    print(render(held_out_loss(None, apart), found))


if __name__ == "__main__":
    main()
