"""From the numbers of samples to their losses, for every family and objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from hublora.families import Conditioning
from hublora.training import objectives
from hublora.training.randomness import choose, draw_more, draw_normals
from hublora.training.session import Session, weight_dtype


@dataclass(frozen=True)
class Samples:
    """B samples, before anything is drawn for them on the device.

    Attributes:
        indices: Which pictures, B numbers.
        variants: Which crop and flip of each.
        captions: Which caption of each; negative leaves it out.
        timesteps: [B] integers in [0, T), on the CPU.
        noise: [B, c, h, w] on the device, standard normal.
        posterior_noise: [B, c, h, w] on the device, standard normal.
    """

    indices: list[int]
    variants: list[int]
    captions: list[int]
    timesteps: torch.Tensor
    noise: torch.Tensor
    posterior_noise: torch.Tensor


def training_losses(
    session: Session, numbers: Sequence[int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses of the samples `numbers` of a training, and their timesteps.

    Returns:
        [B] in float32 with gradients, and [B] integers in [0, T), both on the device.
    """
    config, data = session.config, session.data
    choices = choose(
        config.seed,
        numbers,
        len(session.shown),
        data.variants,
        len(session.diffusion.alphas_cumprod),
        config.data.caption_dropout,
    )
    indices = [session.shown[index] for index in choices.indices]
    if session.order is not None:
        indices = session.order.pictures(numbers)
    shape = data.shape(indices[0])
    noise, posterior_noise, offsets = draw_normals(config.seed, numbers, shape, generator)
    if config.objective.pyramid_noise:
        noise = _with_pyramid(session, noise, numbers, generator)
    if config.objective.noise_offset:
        noise = objectives.offset_noise(noise, offsets, config.objective.noise_offset)
    added = noise
    if config.objective.input_perturbation:
        other = draw_more(config.seed, "perturbation", numbers, prod(shape), generator)
        strength = config.objective.input_perturbation
        added = objectives.perturbed_input(noise, other.view_as(noise), strength)
    samples = Samples(
        indices,
        choices.variants,
        choices.captions,
        choices.timesteps,
        noise,
        posterior_noise,
    )
    prediction, target, timesteps = predict(session, samples, added)
    errors = masked(session, samples, _errors(session, prediction, target))
    return objectives.per_sample(errors, _weights(session, timesteps)), timesteps


def predict(
    session: Session,
    samples: Samples,
    added: torch.Tensor,
    denoiser: torch.nn.Module | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what the denoiser predicts for the samples, what it should, and their timesteps.

    Args:
        session: The training.
        samples: What is shown.
        added: [B, c, h, w], the noise that is mixed in; the target is made of the samples' own.
        denoiser: The session's, as prepared for several processes, unless another is given.

    Returns:
        Prediction and target, each [B, c, h, w], and [B] integers, all on the device.
    """
    data, diffusion = session.data, session.diffusion
    alphas = diffusion.alphas_cumprod
    device = alphas.device
    mean, std = data.latents(samples.indices, samples.variants)
    clean = _to(mean, device) + _to(std, device) * samples.posterior_noise
    timesteps = _to(samples.timesteps, device)
    noisy = objectives.add_noise(clean, added, alphas, timesteps)
    target = objectives.TARGETS[diffusion.prediction](clean, samples.noise, alphas, timesteps)
    frames = _to(data.frames(samples.indices, samples.variants), device)
    dtype = weight_dtype(session.accelerator)
    with session.accelerator.autocast():
        conditioning = _conditioning(session, samples, dtype)
        prediction = session.family.predict(
            denoiser or session.denoiser, noisy.to(dtype), timesteps, conditioning, frames
        )
    return prediction, target, timesteps


def masked(session: Session, samples: Samples, errors: torch.Tensor) -> torch.Tensor:
    """Return the errors, [B, c, h, w], weighted by the pictures' masks, if there are masks."""
    if not session.data.has_masks:
        return errors
    mask = _to(session.data.masks(samples.indices, samples.variants), errors.device)
    return objectives.masked(errors, mask, session.config.objective.outside_mask)


def _errors(session: Session, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    threshold = session.config.objective.huber
    if threshold is None:
        return objectives.squared_error(prediction, target)
    return objectives.pseudo_huber_error(prediction, target, threshold)


def _weights(session: Session, timesteps: torch.Tensor) -> torch.Tensor | None:
    objective, diffusion = session.config.objective, session.diffusion
    if objective.snr_gamma is not None:
        return objectives.min_snr_weight(
            diffusion.alphas_cumprod, timesteps, objective.snr_gamma, diffusion.prediction
        )
    if objective.debiased:
        return objectives.debiased_weight(diffusion.alphas_cumprod, timesteps, diffusion.prediction)
    return None


def _with_pyramid(
    session: Session, noise: torch.Tensor, numbers: Sequence[int], generator: torch.Generator
) -> torch.Tensor:
    batch, channels, height, width = noise.shape
    sizes = objectives.pyramid_sizes(height, width)
    counts = [channels * rows * columns for rows, columns in sizes]
    drawn = draw_more(session.config.seed, "pyramid", numbers, sum(counts), generator)
    levels = [
        part.reshape(batch, channels, *size)
        for part, size in zip(drawn.split(counts, dim=1), sizes, strict=True)
    ]
    return objectives.pyramid_noise(noise, levels, session.config.objective.pyramid_noise)


def _conditioning(session: Session, samples: Samples, dtype: torch.dtype) -> Conditioning:
    """Return cached embeddings, or fresh ones when the text encoder is trained too."""
    data, device = session.data, session.accelerator.device
    if session.config.adapter.text_encoder:
        pairs = zip(samples.indices, samples.captions, strict=True)
        return session.family.encode_prompts(session.pipe, [data.caption(*pair) for pair in pairs])
    cached = data.prompts(samples.indices, samples.captions)
    return {name: _to(tensor, device).to(dtype) for name, tensor in cached.items()}


def _to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
