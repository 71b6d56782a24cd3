"""A LoRA training of flow matching as one plain loop of diffusers, peft and torch.

As `tests.training.reference`, it shares with `hublora.training` the random numbers and the weights
that the adapter starts from, and nothing else: pipelines are called as diffusers' DreamBooth
scripts call them, noise levels are looked up in the scheduler, and the loss is weighted by
diffusers' own function. `benchmarks/script_losses.py` compares with the scripts themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_loss_weighting_for_sd3
from peft import LoraConfig
from PIL import Image

from hublora.training.config.training_config import TrainingConfig
from hublora.training.rng import choose, sample_normals

Predict = Callable[[Any, torch.Tensor, torch.Tensor, float], torch.Tensor]


class FlowReference:
    """The plain loop of diffusers' `train_dreambooth_lora_*.py`.

    Args:
        name: Name of the tiny pipeline.
        base: Folder of the pipeline.
        images: Files of the images, in the order of their names.
        config: The settings that ours runs with; DreamBooth, one image a step.
        weights: Parameter name -> the values that the adapter starts from.
    """

    def __init__(
        self,
        name: str,
        base: Path,
        images: Sequence[Path],
        config: TrainingConfig,
        weights: Mapping[str, torch.Tensor],
    ) -> None:
        self.name, self.config = name, config
        self.pipe = DiffusionPipeline.from_pretrained(base)
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.pipe.scheduler.config)
        for part in self.pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False)
        self.pipe.encode_prompt = cache(self.pipe.encode_prompt)  # one prompt for all images
        transformer, rank = self.pipe.transformer, config.adapter.rank
        targets = config.adapter.targets
        transformer.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
        transformer.train()
        named = {n: p for n, p in transformer.named_parameters() if p.requires_grad}
        assert named.keys() == weights.keys()
        with torch.no_grad():
            for key, parameter in named.items():
                parameter.copy_(weights[key])
        self.parameters = list(named.values())
        self.pixels = [
            torch.from_numpy(np.asarray(Image.open(file).convert("RGB"), dtype=np.float32))
            for file in images
        ]

    def losses(self, steps: int) -> list[float]:
        """Train and return the loss of each step."""
        config, losses = self.config, []
        optimizer = torch.optim.AdamW(
            self.parameters, lr=config.optimizer.learning_rate, weight_decay=1e-2
        )
        for number in range(steps):
            loss = self._loss(number)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, config.optimizer.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    def _loss(self, number: int) -> torch.Tensor:
        seed, scheduler = self.config.seed, self.scheduler
        choices = choose(seed, [number], len(self.pixels), 1, 0.0)
        pixels = self.pixels[choices.indices[0]].permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            mean, std = _LATENTS.get(self.name, _sampled)(self.pipe, pixels)
        noise, posterior, _ = sample_normals(seed, [number], mean.shape[1:], torch.Generator())
        latents = mean + std * posterior
        indices = (choices.uniforms * scheduler.config.num_train_timesteps).long()
        timesteps = scheduler.timesteps[indices]
        sigmas = scheduler.sigmas[indices].view(-1, 1, 1, 1)
        noisy = (1.0 - sigmas) * latents + sigmas * noise
        predict = _PREDICT[self.name.split("-")[0]]
        prediction = predict(self.pipe, noisy, timesteps, self.config.objective.guidance)
        weighting = compute_loss_weighting_for_sd3(weighting_scheme="none", sigmas=sigmas)
        return (weighting * (prediction - (noise - latents)) ** 2).mean()


PROMPT = "a photo of a sks dog"


def _sampled(pipe: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    posterior, config = pipe.vae.encode(pixels).latent_dist, pipe.vae.config
    scale = config.scaling_factor
    return (posterior.mean - config.shift_factor) * scale, posterior.std * scale


def _mode(pipe: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = _sampled(pipe, pixels)
    return mean, torch.zeros_like(std)


def _patches(pipe: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    vae = pipe.vae
    latents = pipe._patchify_latents(vae.encode(pixels).latent_dist.mode())
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    return (latents - mean) / std, torch.zeros_like(latents)


def _frames(pipe: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    posterior, config = pipe.vae.encode(pixels[:, :, None]).latent_dist, pipe.vae.config
    mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1, 1)
    std = 1.0 / torch.tensor(config.latents_std).view(1, -1, 1, 1, 1)
    return ((posterior.mean - mean) * std)[:, :, 0], (posterior.std * std)[:, :, 0]


_LATENTS = {
    "z-image": _mode,
    "flux2-klein": _patches,
    "qwen-image": _frames,
    "krea2": _frames,
}


def _flux(pipe: Any, noisy: torch.Tensor, times: torch.Tensor, guidance: float) -> torch.Tensor:
    batch, _, height, width = noisy.shape
    ids = pipe._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", noisy.dtype)
    embeds, pooled, text_ids = pipe.encode_prompt(PROMPT, prompt_2=None, device="cpu")
    predicted = pipe.transformer(
        hidden_states=pipe._pack_latents(noisy, *noisy.shape),
        timestep=times / 1000,
        guidance=torch.tensor([guidance]),
        pooled_projections=pooled,
        encoder_hidden_states=embeds,
        txt_ids=text_ids,
        img_ids=ids,
        return_dict=False,
    )[0]
    return pipe._unpack_latents(predicted, height * 8, width * 8, 8)


def _flux2(pipe: Any, noisy: torch.Tensor, times: torch.Tensor, guidance: float) -> torch.Tensor:
    embeds, text_ids = pipe.encode_prompt(PROMPT, device="cpu")
    ids = pipe._prepare_latent_ids(noisy)
    predicted = pipe.transformer(
        hidden_states=pipe._pack_latents(noisy),
        timestep=times / 1000,
        guidance=None,
        encoder_hidden_states=embeds,
        txt_ids=text_ids,
        img_ids=ids,
        return_dict=False,
    )[0]
    return pipe._unpack_latents_with_ids(predicted, ids)


def _z_image(pipe: Any, noisy: torch.Tensor, times: torch.Tensor, guidance: float) -> torch.Tensor:
    embeds, _ = pipe.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=False)
    frames = list(noisy.unsqueeze(2).unbind(0))
    predicted = pipe.transformer(frames, (1000 - times) / 1000, embeds, return_dict=False)[0]
    return -torch.stack(predicted).squeeze(2)


def _qwen(pipe: Any, noisy: torch.Tensor, times: torch.Tensor, guidance: float) -> torch.Tensor:
    embeds, mask = pipe.encode_prompt(PROMPT, device="cpu")
    height, width = noisy.shape[-2:]
    predicted = pipe.transformer(
        hidden_states=pipe._pack_latents(noisy, *noisy.shape),
        timestep=times / 1000,
        encoder_hidden_states=embeds,
        encoder_hidden_states_mask=mask,
        img_shapes=[(1, height // 2, width // 2)],
        return_dict=False,
    )[0]
    return pipe._unpack_latents(predicted, height * 8, width * 8, 8)[:, :, 0]


def _krea2(pipe: Any, noisy: torch.Tensor, times: torch.Tensor, guidance: float) -> torch.Tensor:
    embeds, mask = pipe.encode_prompt(PROMPT, device="cpu")
    height, width = noisy.shape[-2:]
    ids = pipe.prepare_position_ids(embeds.shape[1], height // 2, width // 2, "cpu")
    predicted = pipe.transformer(
        hidden_states=pipe._pack_latents(noisy, *noisy.shape),
        encoder_hidden_states=embeds,
        timestep=times / 1000,
        position_ids=ids,
        encoder_attention_mask=mask,
        return_dict=False,
    )[0]
    return pipe._unpack_latents(predicted, height * 8, width * 8)[:, :, 0]


def _sd3(pipe: Any, noisy: torch.Tensor, times: torch.Tensor, guidance: float) -> torch.Tensor:
    embeds, _, pooled, _ = pipe.encode_prompt(PROMPT, prompt_2=None, prompt_3=None, device="cpu")
    return pipe.transformer(
        hidden_states=noisy,
        timestep=times,
        encoder_hidden_states=embeds,
        pooled_projections=pooled,
        return_dict=False,
    )[0]


_PREDICT: Mapping[str, Predict] = {
    "flux": _flux,
    "flux2": _flux2,
    "z": _z_image,
    "qwen": _qwen,
    "krea2": _krea2,
    "sd3": _sd3,
}
