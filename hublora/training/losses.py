"""From the numbers of samples to their losses, for every family and objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod

import torch

from hublora.families import Conditioning, DenoiserInputs
from hublora.training import objectives
from hublora.training.accelerator import weight_dtype
from hublora.training.preservation import rewording
from hublora.training.rng import (
    choose,
    sample_extra_normals,
    sample_integer,
    sample_normals,
    sample_uniforms,
)
from hublora.training.session import SampleStream, Session
from hublora.training.target_layers import encodes_prompts


@dataclass(frozen=True)
class Samples:
    """Indices, noise levels and noise of B samples.

    Attributes:
        indices: Indices of B images.
        variants: Number of the crop and flip of each image, from 0.
        captions: Number of the caption of each image; negative is the empty caption.
        levels: [B] noise levels of the base model's parameterization, on the CPU.
        inpaint_mask_choices: Number of the inpainting mask of each image, from 0.
        noise: [B, c, h, w] on the device, standard normal.
        posterior_noise: [B, c, h, w] on the device, standard normal.
        reword: Applied to each caption; None leaves it.
    """

    indices: list[int]
    variants: list[int]
    captions: list[int]
    levels: torch.Tensor
    inpaint_mask_choices: Sequence[int]
    noise: torch.Tensor
    posterior_noise: torch.Tensor
    reword: Callable[[str], str] | None = None


def training_losses(
    session: Session, numbers: Sequence[int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses of the samples `numbers` of a training, and their noise levels.

    The loss of a sample is the weighted sum over its images, one of each stream. They share a noise
    level. Nothing is preserved while there is no adapter that could change it.

    Returns:
        [B] in float32 with gradients, and [B], both on the device.
    """
    waits = any(session.step < step for step in session.start_step.values())
    streams = [stream for stream in session.streams if not (stream.preserves and waits)]
    (losses, levels), *others = [
        _stream_losses(session, stream, numbers, generator) for stream in streams
    ]
    for stream, (more, _) in zip(streams[1:], others, strict=True):
        losses = losses + stream.weight * more
    return losses, levels


def _stream_losses(
    session: Session, stream: SampleStream, numbers: Sequence[int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return losses and noise levels, each [B], of one stream's share of the samples."""
    config = session.config
    samples = _sample(session, stream, numbers, generator)
    if stream.preserves:
        return _preserving_losses(session, samples)
    added = samples.noise
    if config.objective.input_perturbation:
        size = prod(added.shape[1:])
        other = sample_extra_normals(stream.seed, "perturbation", numbers, size, generator)
        strength = config.objective.input_perturbation
        added = objectives.perturbed_input(added, other.view_as(added), strength)
    prediction, target, levels = predict(session, samples, added)
    errors = masked(session, samples, _errors(session, prediction, target))
    objective = config.objective
    weights = session.parameterization.weight(levels, objective.snr_gamma, objective.debiased)
    return objectives.per_sample(errors, weights), levels


def _preserving_losses(session: Session, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Return losses and noise levels, each [B], of predictions that are to stay the base's own.

    Masks do not apply: they say where the captions are learned.
    """
    with torch.no_grad(), session.base_alone():
        # Not through what keeps processes in step: there is nothing to keep in step.
        alone = getattr(session.pipe, session.family.denoiser)
        base, _, _ = predict(session, samples, samples.noise, alone)
    prediction, _, levels = predict(session, samples, samples.noise)
    objective = session.config.objective
    weights = session.parameterization.weight(levels, objective.snr_gamma, objective.debiased)
    return objectives.per_sample(_errors(session, prediction, base), weights), levels


def _sample(
    session: Session, stream: SampleStream, numbers: Sequence[int], generator: torch.Generator
) -> Samples:
    """Return the samples `numbers` of one stream."""
    config, data = session.config, session.data
    dropout = config.data.caption_dropout
    images = len(stream.images)
    choices = choose(stream.seed, numbers, images, data.variants, dropout)
    of_run = choose(config.seed, numbers, images, data.variants, dropout)
    indices = [stream.images[index] for index in choices.indices]
    if stream.order is not None:
        indices = stream.order.images(numbers)
    captions, reword = choices.captions, None
    if stream.preserves:
        captions, reword = _undropped(captions), rewording(config)
    shape = data.shape(indices[0])
    levels = session.parameterization.levels(of_run.uniforms, shape)
    noise, posterior_noise, offsets = sample_normals(stream.seed, numbers, shape, generator)
    if config.objective.noise_offset:
        noise = objectives.offset_noise(noise, offsets, config.objective.noise_offset)
    if config.objective.pyramid_noise:
        noise = _with_pyramid(session, stream, noise, numbers, generator)
    return Samples(
        indices,
        choices.variants,
        captions,
        levels,
        [sample_integer(stream.seed, "hole", number) for number in numbers],
        noise,
        posterior_noise,
        reword,
    )


def _undropped(captions: Sequence[int]) -> list[int]:
    """Return numbers of captions with the first one where none was trained on."""
    return [max(choice, 0) for choice in captions]


def predict(
    session: Session,
    samples: Samples,
    added: torch.Tensor,
    denoiser: torch.nn.Module | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what the denoiser predicts for the samples, what it should, and their noise levels.

    Args:
        session: The training.
        samples: Samples of one batch.
        added: [B, c, h, w], the noise that is mixed in; the target is made of the samples' own.
        denoiser: The session's, as prepared for several processes, unless another is given.

    Returns:
        Prediction and target, each [B, c, h, w], and noise levels, [B], all on the device.
    """
    data, parameterization = session.data, session.parameterization
    device = session.accelerator.device
    mean, std = data.latents(samples.indices, samples.variants)
    clean = _to(mean, device)
    if std is not None:
        clean = clean + _to(std, device) * samples.posterior_noise
    levels = _to(samples.levels, device)
    noisy = parameterization.mix(clean, added, levels)
    target = parameterization.target(clean, samples.noise, levels)
    size_conditioning = _to(data.size_conditioning(samples.indices, samples.variants), device)
    dtype = weight_dtype(session.accelerator)
    with session.accelerator.autocast() if session.family.autocast else nullcontext():
        conditioning = _conditioning(session, samples, dtype)
        inputs = DenoiserInputs(
            _with_inpaint_mask(session, samples, noisy).to(dtype),
            levels,
            conditioning,
            size_conditioning,
            levels.new_full((len(levels),), session.config.objective.guidance, dtype=torch.float32),
            [
                _to(latents, device).to(dtype)
                for latents in data.references(samples.indices, samples.variants)
            ],
        )
        prediction = session.family.predict(session.pipe, denoiser or session.denoiser, inputs)
    return prediction, target, levels


def _with_inpaint_mask(session: Session, samples: Samples, noisy: torch.Tensor) -> torch.Tensor:
    """Return the denoiser's input; for a base that inpaints, with mask and masked-image latents."""
    if not session.data.has_inpaint_masks:
        return noisy
    seen = session.data.inpaint_masks(
        samples.indices, samples.variants, samples.inpaint_mask_choices
    )
    return torch.cat([noisy, *(_to(tensor, noisy.device) for tensor in seen)], dim=1)


def masked(session: Session, samples: Samples, errors: torch.Tensor) -> torch.Tensor:
    """Return the errors, [B, c, h, w], weighted by the images' masks, if there are masks."""
    if not session.data.has_masks:
        return errors
    mask = _to(session.data.masks(samples.indices, samples.variants), errors.device)
    return objectives.masked(errors, mask, session.config.objective.outside_mask)


def _errors(session: Session, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    threshold = session.config.objective.huber
    if threshold is None:
        return objectives.squared_error(prediction, target)
    return objectives.pseudo_huber_error(prediction, target, threshold)


def _with_pyramid(
    session: Session,
    stream: SampleStream,
    noise: torch.Tensor,
    numbers: Sequence[int],
    generator: torch.Generator,
) -> torch.Tensor:
    _, channels, height, width = noise.shape
    largest = objectives.pyramid_sizes(height, width)
    count = channels * sum(rows * columns for rows, columns in largest)
    normals = sample_extra_normals(stream.seed, "pyramid", numbers, count, generator)
    samples = []
    for one, values, number in zip(noise, normals, numbers, strict=True):
        # The factor from level to level is random in [2, 4), "rather than always going 2x".
        factors = [2 + 2 * u for u in sample_uniforms(stream.seed, "pyramid", number, len(largest))]
        levels, used = [], 0
        for rows, columns in objectives.pyramid_sizes(height, width, factors):
            size = channels * rows * columns
            levels.append(values[used : used + size].reshape(channels, rows, columns))
            used += size
        samples.append(
            objectives.pyramid_noise(one, levels, session.config.objective.pyramid_noise)
        )
    return torch.stack(samples)


def _conditioning(session: Session, samples: Samples, dtype: torch.dtype) -> Conditioning:
    """Return cached embeddings, or fresh ones when the text encoder is trained too."""
    data, device = session.data, session.accelerator.device
    if encodes_prompts(session.config):
        pairs = zip(samples.indices, samples.captions, strict=True)
        captions = [data.caption(*pair) for pair in pairs]
        texts = captions if samples.reword is None else [samples.reword(one) for one in captions]
        return session.family.encode_prompts(session.pipe, texts)
    cached = data.prompts(samples.indices, samples.captions, samples.reword, samples.variants)
    return {name: _to(tensor, device).to(dtype) for name, tensor in cached.items()}


def _to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
