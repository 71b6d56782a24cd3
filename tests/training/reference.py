"""A LoRA training as one plain loop of diffusers, peft and torch, to compare ours with.

It shares with `hublora.training` the random numbers (`hublora.training.rng`) and the weights that
the adapter starts from, and nothing else: images and captions are encoded anew at every step.
Images are resized, mirrored half of the time and cut in the middle, as the diffusers scripts do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.optimization import get_scheduler
from diffusers.training_utils import compute_snr
from peft import LoraConfig
from PIL import Image, ImageOps

from hublora.training.config.training_config import TrainingConfig
from hublora.training.rng import Choices, choose, sample_normals

TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]


class Reference:
    """The plain loop of `train_text_to_image_lora.py`.

    Args:
        base: Folder of the pipeline.
        images: Folder of the images and their metadata.jsonl.
        config: The settings that ours runs with.
        weights: Parameter name -> the values that the adapter starts from.
    """

    pipeline: type = StableDiffusionPipeline

    def __init__(
        self,
        base: Path,
        images: Path,
        config: TrainingConfig,
        weights: Mapping[str, torch.Tensor],
    ) -> None:
        self.config = config
        self.pipe = self.pipeline.from_pretrained(base)
        self.scheduler = DDPMScheduler.from_config(self.pipe.scheduler.config)
        for part in self.pipe.components.values():
            if isinstance(part, torch.nn.Module):
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
        rows = [json.loads(line) for line in (images / "metadata.jsonl").read_text().splitlines()]
        self.captions = [row["text"] for row in rows]
        self.images = [Image.open(images / row["file_name"]).convert("RGB") for row in rows]
        self.side = self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor
        self.flips = 2 if config.data.random_flip else 1

    def losses(self, steps: int) -> list[float]:
        """Train and return the loss of each step."""
        config = self.config
        optimizer = torch.optim.AdamW(
            self.parameters, lr=config.optimizer.learning_rate, weight_decay=1e-2
        )
        schedule = get_scheduler(
            config.schedule.name, optimizer, num_warmup_steps=0, num_training_steps=steps
        )
        batch, accumulation_steps = config.train_batch_size, config.gradient_accumulation_steps
        losses, done = [], 0
        for _ in range(steps):
            total = 0.0
            for _ in range(accumulation_steps):
                loss = self._loss(range(done, done + batch)) / accumulation_steps
                loss.backward()
                total += loss.item()
                done += batch
            torch.nn.utils.clip_grad_norm_(self.parameters, config.optimizer.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(total)
        return losses

    def _loss(self, numbers: range) -> torch.Tensor:
        seed, pipe = self.config.seed, self.pipe
        choices = choose(seed, numbers, len(self.images), self.flips, 0.0)
        timesteps = (choices.uniforms * 1000).long()
        pixels = torch.stack(
            [
                self._pixels(self.images[index], flip == 1)
                for index, flip in zip(choices.indices, choices.variants, strict=True)
            ]
        )
        with torch.no_grad():
            posterior = pipe.vae.encode(pixels).latent_dist
            shape = posterior.mean.shape[1:]
            noise, posterior_noise, _ = sample_normals(seed, numbers, shape, torch.Generator())
            latents = posterior.mean + posterior.std * posterior_noise
            latents = latents * pipe.vae.config.scaling_factor
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        prediction = self._predict(noisy, timesteps, choices)
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = noise
        if velocity:
            target = self.scheduler.get_velocity(latents, noise, timesteps)
        gamma = self.config.objective.snr_gamma
        if gamma is None:
            return F.mse_loss(prediction, target)
        snr = compute_snr(self.scheduler, timesteps)
        weights = torch.minimum(snr, torch.full_like(snr, gamma)) / (snr + 1 if velocity else snr)
        return (F.mse_loss(prediction, target, reduction="none").mean((1, 2, 3)) * weights).mean()

    def _predict(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, choices: Choices
    ) -> torch.Tensor:
        captions = [self.captions[index] for index in choices.indices]
        with torch.no_grad():
            hidden = self.pipe.text_encoder(_tokens(self.pipe.tokenizer, captions))
        return self.pipe.unet(noisy, timesteps, hidden.last_hidden_state).sample

    def _pixels(self, image: Image.Image, flip: bool) -> torch.Tensor:
        image = _resize(image, self.side)
        if flip:
            image = ImageOps.mirror(image)
        top, left = _middle(image, self.side)
        pixels = np.asarray(image, dtype=np.float32)
        pixels = pixels[top : top + self.side, left : left + self.side]
        return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)


class XLReference(Reference):
    """The plain loop of `train_text_to_image_lora_sdxl.py`."""

    pipeline = StableDiffusionXLPipeline

    def _predict(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, choices: Choices
    ) -> torch.Tensor:
        captions = [self.captions[index] for index in choices.indices]
        embeds, pooled = self._encode(captions)
        time_ids = torch.tensor([self._time_ids(self.images[index]) for index in choices.indices])
        conditions = {"time_ids": time_ids, "text_embeds": pooled}
        return self.pipe.unet(
            noisy, timesteps, embeds, added_cond_kwargs=conditions, return_dict=False
        )[0]

    def _encode(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The script's `encode_prompt`."""
        pipe, collected = self.pipe, []
        with torch.no_grad():
            for tokenizer, encoder in (
                (pipe.tokenizer, pipe.text_encoder),
                (pipe.tokenizer_2, pipe.text_encoder_2),
            ):
                output = encoder(
                    _tokens(tokenizer, captions), output_hidden_states=True, return_dict=False
                )
                pooled = output[0]  # of the last encoder
                collected.append(output[-1][-2])
        return torch.concat(collected, dim=-1), pooled

    def _time_ids(self, image: Image.Image) -> tuple[float, ...]:
        """The script's `compute_time_ids(original_size, crop_top_left)`."""
        original = (image.height, image.width)
        crop = _middle(_resize(image, self.side), self.side)
        return tuple(float(value) for value in (*original, *crop, self.side, self.side))


def _tokens(tokenizer: object, captions: list[str]) -> torch.Tensor:
    return tokenizer(  # type: ignore[operator]
        captions, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids


def _resize(image: Image.Image, side: int) -> Image.Image:
    """torchvision's Resize: the shorter side becomes `side`."""
    short, width, height = min(image.size), image.width, image.height
    size = (int(side * width / short), int(side * height / short))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def _middle(image: Image.Image, side: int) -> tuple[int, int]:
    return round((image.height - side) / 2), round((image.width - side) / 2)
