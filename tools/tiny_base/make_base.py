"""Trains `hublora/tiny-sd`, the demo's base, from nothing: `python -m tools.tiny_base.make_base`.

Draws scenes, trains the autoencoder, caches its latents, trains U-Net and text encoder on them
and saves a Stable Diffusion pipeline in fp16. It runs on a CPU and resumes from `--work`.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tools.tiny_base.base_autoencoder import (
    load_parts,
    new_autoencoder,
    progress,
    standardise_latents,
    train_autoencoder,
)
from tools.tiny_base.base_denoiser import (
    PEAK_LEARNING_RATE,
    Denoiser,
    cache_latents,
    new_scheduler,
    train_denoiser,
)
from tools.tiny_base.styles import ASSETS
from tools.tiny_base.tokenizer import new_tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

BASE = ASSETS / "tiny-sd"


def make_base(
    out: Path,
    work: Path,
    autoencoder_steps: int,
    steps: int,
    scenes: int,
    seed: int,
    snapshot_every: int,
    start_from: Path | None,
    learning_rate: float,
) -> None:
    """Train all parts and save the pipeline to `out`; every `snapshot_every` steps, too.

    With `start_from`, a finished base, its autoencoder is reused and the rest is trained further.
    """
    work.mkdir(parents=True, exist_ok=True)
    if start_from is None:
        autoencoder = make_autoencoder(work / "autoencoder.pt", autoencoder_steps, seed)
    else:
        autoencoder = load_autoencoder(start_from)
    cache = cache_latents(autoencoder, scenes, seed, work / "latents.pt")
    training = train_denoiser(
        cache,
        steps,
        seed,
        work / "denoiser.pt",
        start_from=start_from,
        peak=learning_rate,
    )

    def save_snapshots():
        for step, loss, model in training:
            if step == steps or step % snapshot_every == 0:
                save_pipeline(autoencoder, model, out)
            yield step, loss, model

    progress(save_snapshots(), "denoiser", every=50)


def make_autoencoder(checkpoint: Path, steps: int, seed: int) -> AutoencoderKL:
    """Return the trained autoencoder, its latents standardised; continues its checkpoint."""
    progress(train_autoencoder(steps, seed, checkpoint), "autoencoder", every=50)
    model = new_autoencoder()
    load_parts(checkpoint, {"model": model})
    model.eval().requires_grad_(False)
    standardise_latents(model)
    return model


def load_autoencoder(base: Path) -> AutoencoderKL:
    """Return the autoencoder of a finished base, without the folder's name in its config."""
    from diffusers import AutoencoderKL

    model = new_autoencoder()
    model.load_state_dict(AutoencoderKL.from_pretrained(base, subfolder="vae").state_dict())
    return model.eval().requires_grad_(False)


def save_pipeline(autoencoder: AutoencoderKL, model: Denoiser, folder: Path) -> None:
    """Write a Stable Diffusion pipeline in fp16 to `folder`, whole or not at all.

    The tokenizer is also written as `vocab.json` and `merges.txt`, for readers of older layouts.
    """
    from diffusers import StableDiffusionPipeline

    tokenizer = new_tokenizer()
    pipeline = StableDiffusionPipeline(
        vae=_half(autoencoder),
        text_encoder=_half(model.text_encoder),
        tokenizer=tokenizer,
        unet=_half(model.unet),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial)
    tokenizer.backend_tokenizer.model.save(str(partial / "tokenizer"))
    _declare_single_precision(partial / "text_encoder" / "config.json")
    for card in (folder / "README.md", BASE / "README.md"):
        if card.exists():
            shutil.copy(card, partial / "README.md")
            break
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _declare_single_precision(config: Path) -> None:
    """Write float32 as a transformers model's dtype, whatever the dtype of its file.

    transformers loads a model in the dtype that its config names, diffusers in float32: without
    this a plain `from_pretrained` would mix the two and fail.
    """
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _half(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy in fp16 and in plain memory order."""
    return copy.deepcopy(module).to(torch.float16, memory_format=torch.contiguous_format)


def main() -> None:
    """Parse the command line and make the base."""
    parser = argparse.ArgumentParser(description="Train the demo's tiny base from nothing.")
    parser.add_argument("--out", type=Path, default=BASE, help="pipeline folder to write")
    parser.add_argument("--work", type=Path, default=Path("build/tiny-sd"), help="checkpoints")
    parser.add_argument("--autoencoder-steps", type=int, default=3600)
    parser.add_argument("--steps", type=int, default=2700, help="of U-Net and text encoder")
    parser.add_argument("--scenes", type=int, default=24_000, help="drawn and encoded once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snapshot-every", type=int, default=500)
    parser.add_argument("--start-from", type=Path, help="finished base to train further")
    parser.add_argument("--learning-rate", type=float, default=PEAK_LEARNING_RATE)
    make_base(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
