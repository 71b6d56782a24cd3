"""Trains the tiny base's U-Net and text encoder together, on cached latents of drawn scenes.

v-prediction with zero terminal SNR (Lin et al. 2024, https://arxiv.org/abs/2305.08891): at this
resolution the usual schedule leaves enough signal at its last step to give the background away, so
that sampling from pure noise would miss its colour. Min-SNR's weight would be 0 exactly where the
background is decided, so it is shifted by one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from tools.tiny_base.base_autoencoder import load_parts, save_parts, to_tensor
from tools.tiny_base.captions import random_caption
from tools.tiny_base.scenes import Scene, random_scene
from tools.tiny_base.tokenizer import MAX_TOKENS, new_tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

BATCH = 48
PEAK_LEARNING_RATE = 1e-3
WARM_UP_STEPS = 100
COOL_DOWN = 0.3
"""Share of the steps over which the learning rate falls to 0; before that it is constant."""

EMPTY_CAPTIONS = 0.1
"""Share of examples without a caption, for classifier-free guidance."""

MIN_SNR_GAMMA = 5.0
EMA_DECAY = 0.999
CHECKPOINT_EVERY = 250
TEXT_WIDTH = 128


@dataclass(slots=True)
class LatentCache:
    """Scenes and their latents' posterior: `mean` and `std`, (N, 4, 16, 16) float32."""

    scenes: list[Scene]
    mean: torch.Tensor
    std: torch.Tensor


class Denoiser(torch.nn.Module):
    """U-Net and text encoder, trained together."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet = new_unet()
        self.text_encoder = new_text_encoder(tokenizer)

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Return the predicted v, of the shape of `noisy`."""
        context = self.text_encoder(tokens).last_hidden_state
        return self.unet(noisy, timesteps, context).sample


def new_scheduler() -> DDIMScheduler:
    """Return the base's noise schedule, also the sampler it is shipped with."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
    )


def new_unet() -> UNet2DConditionModel:
    """Return an untrained U-Net for 4×16×16 latents: 4.1 M parameters.

    At 4×4 the middle needs no attention of its own, and without it the base is a tenth smaller.
    """
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained CLIP text encoder, two layers of 128."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


@torch.no_grad()
def cache_latents(autoencoder: AutoencoderKL, count: int, seed: int, file: Path) -> LatentCache:
    """Draw `count` scenes and encode each once, unless `file` holds the latents already."""
    rng = np.random.default_rng([seed, 1])
    scenes = [random_scene(rng) for _ in range(count)]
    if not file.exists():
        means, stds = [], []
        for start in range(0, count, 32):
            posterior = autoencoder.encode(to_tensor(scenes[start : start + 32])).latent_dist
            means.append(posterior.mean)
            stds.append(posterior.std)
        latents = {"mean": torch.cat(means).contiguous(), "std": torch.cat(stds).contiguous()}
        torch.save(latents, file)
    return LatentCache(scenes, **torch.load(file, weights_only=True))


def learning_rate(step: int, steps: int, peak: float = PEAK_LEARNING_RATE) -> float:
    """Return the learning rate of a step: warm-up, constant, then a linear fall to 0.

    The constant part does not depend on `steps`, so a resumed run may have another number of steps.
    """
    left = (steps - step) / max(1, round(COOL_DOWN * steps))
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS, left)


def load_fitting(model: Denoiser, base: Path) -> None:
    """Load the weights of a finished base into every layer of the same name and shape."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(base)
    for name in ("unet", "text_encoder"):
        part = getattr(model, name)
        own, given = part.state_dict(), getattr(pipe, name).state_dict()
        own |= {
            key: given[key] for key in own if key in given and given[key].shape == own[key].shape
        }
        part.load_state_dict(own)


def train_denoiser(
    cache: LatentCache,
    steps: int,
    seed: int = 0,
    checkpoint: Path | None = None,
    *,
    start_from: Path | None = None,
    peak: float = PEAK_LEARNING_RATE,
) -> Iterator[tuple[int, float, Denoiser]]:
    """Train for `steps`, yielding (step, loss, averaged model); resumes a checkpoint.

    Args:
        cache: Scenes and their latents.
        steps: Optimizer steps.
        seed: Seed of weights, batches and noise.
        checkpoint: File of the training state; None saves none.
        start_from: Folder of a finished base to start from; None is random weights.
        peak: Learning rate after the warm-up.
    """
    tokenizer, scheduler = new_tokenizer(), new_scheduler()
    torch.manual_seed(seed)
    model = Denoiser(tokenizer)
    if start_from is not None:
        load_fitting(model, start_from)
    model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        model.parameters(), peak, (0.9, 0.99), weight_decay=1e-3, fused=True
    )
    parts = {"model": model, "average": average, "optimizer": optimizer}
    for step in range(load_parts(checkpoint, parts), steps):
        rng = np.random.default_rng([seed, step])
        torch.manual_seed(int(rng.integers(2**31)))
        latents, tokens = _examples(cache, tokenizer, rng)
        timesteps, noise = _spread_timesteps(scheduler), torch.randn_like(latents)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        target = _velocity(scheduler, latents, noise, timesteps)
        errors = (model(noisy, timesteps, tokens) - target).square().mean(dim=(1, 2, 3))
        loss = (_weights(scheduler, timesteps) * errors).mean()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _update_average(average, model, step)
        done = step + 1
        if checkpoint and (done % CHECKPOINT_EVERY == 0 or done == steps):
            save_parts(checkpoint, parts, done)
        yield done, loss.item(), average


def _examples(
    cache: LatentCache, tokenizer: CLIPTokenizer, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one batch: sampled latents (B, 4, 16, 16) and caption tokens (B, 32)."""
    chosen = rng.integers(len(cache.scenes), size=BATCH)
    mean, std = cache.mean[chosen], cache.std[chosen]
    latents = (mean + std * torch.randn_like(mean)).to(memory_format=torch.channels_last)
    captions = [
        "" if rng.random() < EMPTY_CAPTIONS else random_caption(cache.scenes[index], rng)
        for index in chosen
    ]
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    return latents, tokens.input_ids


def _spread_timesteps(scheduler: DDIMScheduler) -> torch.Tensor:
    """Return one random timestep from each of `BATCH` equal slices of the schedule."""
    count = scheduler.config.num_train_timesteps
    return ((torch.arange(BATCH) + torch.rand(BATCH)) / BATCH * count).long().clamp(max=count - 1)


def _velocity(
    scheduler: DDIMScheduler, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """Return v = √ᾱ·ε - √(1-ᾱ)·x₀ (Salimans & Ho 2022, https://arxiv.org/abs/2202.00512)."""
    alphas = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return alphas.sqrt() * noise - (1 - alphas).sqrt() * latents


def _weights(scheduler: DDIMScheduler, timesteps: torch.Tensor) -> torch.Tensor:
    """Return (min(SNR, γ) + 1) / (SNR + 1), in (0, 1]: less weight where only fine detail is left.

    Min-SNR (Hang et al. 2023, https://arxiv.org/abs/2303.09556) with 1 added on both sides.
    """
    alphas = scheduler.alphas_cumprod[timesteps]
    snr = alphas / (1 - alphas)
    return (snr.clamp(max=MIN_SNR_GAMMA) + 1) / (snr + 1)


@torch.no_grad()
def _update_average(average: Denoiser, model: Denoiser, step: int) -> None:
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
