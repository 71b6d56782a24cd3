"""A LoRA training as one plain loop of diffusers, peft and torch, to hold ours against.

It shares with `hublora.training` what is drawn (`hublora.training.randomness`) and the weights that
the adapter starts from, and nothing else: pictures and captions are encoded anew at every step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.optimization import get_scheduler
from diffusers.training_utils import compute_snr
from peft import LoraConfig
from PIL import Image

from hublora.training.config import TrainingConfig
from hublora.training.randomness import choose, draw_normals

TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]


class Reference:
    """The plain loop.

    Args:
        base: Folder of the pipeline.
        pictures: Folder of the pictures and their metadata.jsonl.
        config: The settings that ours runs with.
        weights: Parameter name -> the values that the adapter starts from.
    """

    def __init__(
        self,
        base: Path,
        pictures: Path,
        config: TrainingConfig,
        weights: Mapping[str, torch.Tensor],
    ) -> None:
        self.config = config
        self.pipe = StableDiffusionPipeline.from_pretrained(base)
        self.scheduler = DDPMScheduler.from_config(self.pipe.scheduler.config)
        for part in (self.pipe.vae, self.pipe.text_encoder, self.pipe.unet):
            part.requires_grad_(False)
        rank = config.adapter.rank
        self.pipe.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))
        self.pipe.unet.train()
        named = {n: p for n, p in self.pipe.unet.named_parameters() if p.requires_grad}
        assert named.keys() == weights.keys()
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(weights[name])
        self.parameters = list(named.values())
        rows = [json.loads(line) for line in (pictures / "metadata.jsonl").read_text().splitlines()]
        self.captions = [row["text"] for row in rows]
        self.pixels = [_pixels(pictures / row["file_name"]) for row in rows]

    def losses(self, steps: int) -> list[float]:
        """Train and return the loss of each step."""
        config = self.config
        optimizer = torch.optim.AdamW(
            self.parameters, lr=config.optimizer.learning_rate, weight_decay=1e-2
        )
        schedule = get_scheduler(
            config.schedule.name, optimizer, num_warmup_steps=0, num_training_steps=steps
        )
        batch, passes = config.train_batch_size, config.gradient_accumulation_steps
        losses, shown = [], 0
        for _ in range(steps):
            total = 0.0
            for _ in range(passes):
                loss = self._loss(range(shown, shown + batch)) / passes
                loss.backward()
                total += loss.item()
                shown += batch
            torch.nn.utils.clip_grad_norm_(self.parameters, config.optimizer.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(total)
        return losses

    def _loss(self, numbers: range) -> torch.Tensor:
        seed, pipe = self.config.seed, self.pipe
        drawn = choose(seed, numbers, len(self.pixels), 1, 1000, 0.0)
        pixels = torch.stack([self.pixels[index] for index in drawn.indices])
        with torch.no_grad():
            posterior = pipe.vae.encode(pixels).latent_dist
            shape = posterior.mean.shape[1:]
            noise, posterior_noise, _ = draw_normals(seed, numbers, shape, torch.Generator())
            latents = posterior.mean + posterior.std * posterior_noise
            latents = latents * pipe.vae.config.scaling_factor
            tokens = pipe.tokenizer(
                [self.captions[index] for index in drawn.indices],
                padding="max_length",
                truncation=True,
                return_tensors="pt",
            )
            hidden = pipe.text_encoder(tokens.input_ids).last_hidden_state
        noisy = self.scheduler.add_noise(latents, noise, drawn.timesteps)
        prediction = pipe.unet(noisy, drawn.timesteps, hidden).sample
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = noise
        if velocity:
            target = self.scheduler.get_velocity(latents, noise, drawn.timesteps)
        gamma = self.config.objective.snr_gamma
        if gamma is None:
            return F.mse_loss(prediction, target)
        snr = compute_snr(self.scheduler, drawn.timesteps)
        weights = torch.minimum(snr, torch.full_like(snr, gamma)) / (snr + 1 if velocity else snr)
        return (F.mse_loss(prediction, target, reduction="none").mean((1, 2, 3)) * weights).mean()


def _pixels(path: Path) -> torch.Tensor:
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)
