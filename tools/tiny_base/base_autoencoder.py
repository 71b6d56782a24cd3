"""Trains the tiny base's autoencoder on the demo's scenes.

64×64 scenes become 4×16×16 latents. Reconstruction is judged by colour (L1 + L2) and by edges
(L1 of neighbouring pixels' differences), because outlines, eyes and ruled lines are one or two
pixels wide. The decoder is fed latents with a little noise, so that it forgives what a small U-Net
gets slightly wrong.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from tools.tiny_base.scenes import Scene, draw, random_scene

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

BATCH = 12
PEAK_LEARNING_RATE = 2e-3
KL_WEIGHT = 1e-4
LATENT_NOISE = 0.1
"""Noise added before decoding, in standard deviations of the latents."""

CHECKPOINT_EVERY = 250


def new_autoencoder() -> AutoencoderKL:
    """Return an untrained autoencoder: three levels, 4 latent channels, 0.95 M parameters."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=64,
        scaling_factor=1.0,
        force_upcast=False,
    )


def to_tensor(scenes: list[Scene]) -> torch.Tensor:
    """Return the drawn scenes: (N, 3, 64, 64) floats in [-1, 1]."""
    pixels = np.stack([np.asarray(draw(scene)) for scene in scenes])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def scene_batch(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Return `count` random scenes: (count, 3, 64, 64) floats in [-1, 1]."""
    return to_tensor([random_scene(rng) for _ in range(count)])


def reconstruction_loss(decoded: torch.Tensor, scenes: torch.Tensor) -> torch.Tensor:
    """Return L1 + L2 of the pixels plus half the L1 of their horizontal and vertical steps."""
    loss = F.l1_loss(decoded, scenes) + F.mse_loss(decoded, scenes)
    for axis in (-1, -2):
        loss = loss + 0.5 * F.l1_loss(decoded.diff(dim=axis), scenes.diff(dim=axis))
    return loss


def train_autoencoder(
    steps: int, seed: int = 0, checkpoint: Path | None = None
) -> Iterator[tuple[int, float, AutoencoderKL]]:
    """Train for `steps`, yielding (step, loss, autoencoder) after each; resumes a checkpoint."""
    torch.manual_seed(seed)
    model = new_autoencoder().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    start = load_parts(checkpoint, parts)
    for step in range(start + 1, steps + 1):
        rng = np.random.default_rng([seed, step])
        scenes = scene_batch(BATCH, rng).to(memory_format=torch.channels_last)
        posterior = model.encode(scenes).latent_dist
        latents = posterior.sample()
        spread = latents.std(dim=(0, 2, 3), keepdim=True).detach()
        decoded = model.decode(latents + LATENT_NOISE * spread * torch.randn_like(latents)).sample
        rebuilt = reconstruction_loss(decoded, scenes)
        loss = rebuilt + KL_WEIGHT * posterior.kl().mean() / latents[0].numel()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if checkpoint and (step % CHECKPOINT_EVERY == 0 or step == steps):
            save_parts(checkpoint, parts, step)
        yield step, rebuilt.item(), model


def load_parts(path: Path | None, parts: dict) -> int:
    """Restore every part from a checkpoint, if there is one, and return its step."""
    if path is None or not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return saved["step"]


def save_parts(path: Path, parts: dict, step: int) -> None:
    """Write every part's state to `path`, whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save({"step": step, **{n: p.state_dict() for n, p in parts.items()}}, partial)
    partial.replace(path)


@torch.no_grad()
def standardise_latents(model: AutoencoderKL, seed: int = 1, scenes: int = 256) -> None:
    """Shift and scale the latents to mean 0 and deviation 1 in each channel, in place.

    Both go into the 1×1 convolutions on either side of the latents, so `scaling_factor` stays 1
    and the mean, for which a Stable Diffusion pipeline has no setting, is gone too.
    """
    batch = scene_batch(scenes, np.random.default_rng([seed, 0]))
    latents = torch.cat([model.encode(part).latent_dist.mean for part in batch.split(32)])
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    before, after = model.quant_conv, model.post_quant_conv
    channels = len(mean)
    before.weight[:channels] /= std[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean) / std
    before.bias[channels:] -= 2 * std.log()
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= std[None, :, None, None]


def progress(steps: Iterator[tuple[int, float, torch.nn.Module]], what: str, every: int) -> None:
    """Run a training to its end, printing the mean loss now and then."""
    losses, started = [], time.monotonic()
    for step, loss, _ in steps:
        losses.append(loss)
        if step % every == 0:
            mean = sum(losses) / len(losses)
            print(f"{what} {step}: loss {mean:.4f}, {time.monotonic() - started:.0f} s", flush=True)
            losses.clear()
