"""The training loop, for every family and method: a generator of events.

Inside a step nothing waits for the device: losses are handed out as tensors, and what is random is
drawn from the number of the sample (`hublora.training.randomness`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch

from hublora.families import Conditioning
from hublora.training import objectives
from hublora.training.events import CheckpointDue, Event, StepDone, ValidationDue
from hublora.training.randomness import Choices, choose, draw_normals
from hublora.training.session import Session, weight_dtype


def train(session: Session) -> Iterator[Event]:
    """Train from `session.step` to the end, telling what happens.

    Whoever iterates may save or draw between two events: the session is then between two steps.
    """
    config = session.config
    generator = torch.Generator(session.accelerator.device)
    total = session.total_steps
    while session.step < total:
        learning_rate = session.schedule.get_last_lr()[0]
        loss = _step(session, generator)
        session.step += 1
        yield StepDone(session.step, loss, learning_rate)
        last = session.step == total
        if not last and _is_due(session, config.validation.steps, config.validation.epochs):
            yield ValidationDue(session.step)
        if last or session.step % config.checkpoint.steps == 0:
            yield CheckpointDue(session.step)


def _step(session: Session, generator: torch.Generator) -> torch.Tensor:
    """Do one optimizer step; return the mean loss over all of its samples, on the device."""
    config, accelerator = session.config, session.accelerator
    size, passes = config.train_batch_size, config.gradient_accumulation_steps
    first = session.step * session.images_per_step
    total = torch.zeros((), device=accelerator.device)
    for index in range(passes):
        start = first + (index * accelerator.num_processes + accelerator.process_index) * size
        is_last = index == passes - 1
        with nullcontext() if is_last else accelerator.no_sync(session.denoiser):
            loss = compute_loss(session, range(start, start + size), generator) / passes
            accelerator.backward(loss)
        total += loss.detach()
    accelerator.clip_grad_norm_(session.parameters, config.optimizer.max_grad_norm)
    session.optimizer.step()
    session.schedule.step()
    session.optimizer.zero_grad()
    return accelerator.reduce(total, "mean") if accelerator.num_processes > 1 else total


def compute_loss(session: Session, numbers: range, generator: torch.Generator) -> torch.Tensor:
    """Return the loss of the samples `numbers`, a scalar in float32 that can be differentiated."""
    config, data, diffusion = session.config, session.data, session.diffusion
    alphas = diffusion.alphas_cumprod
    device = alphas.device
    choices = choose(
        config.seed, numbers, len(data), data.variants, len(alphas), config.data.caption_dropout
    )
    mean, std = data.latents(choices.indices, choices.variants)
    noise, posterior_noise, offsets = draw_normals(config.seed, numbers, mean.shape[1:], generator)
    clean = _to(mean, device) + _to(std, device) * posterior_noise
    if config.objective.noise_offset:
        noise = objectives.offset_noise(noise, offsets, config.objective.noise_offset)
    timesteps = _to(choices.timesteps, device)
    noisy = objectives.add_noise(clean, noise, alphas, timesteps)
    target = objectives.TARGETS[diffusion.prediction](clean, noise, alphas, timesteps)
    frames = _to(data.frames(choices.indices, choices.variants), device)
    dtype = weight_dtype(session.accelerator)
    with session.accelerator.autocast():
        conditioning = _conditioning(session, choices, dtype)
        prediction = session.family.predict(
            session.denoiser, noisy.to(dtype), timesteps, conditioning, frames
        )
    weights = None
    if config.objective.snr_gamma is not None:
        weights = objectives.min_snr_weight(
            alphas, timesteps, config.objective.snr_gamma, diffusion.prediction
        )
    return objectives.weighted_mse(prediction, target, weights)


def _conditioning(session: Session, choices: Choices, dtype: torch.dtype) -> Conditioning:
    """Return cached embeddings, or fresh ones when the text encoder is trained too."""
    data, device = session.data, session.accelerator.device
    if session.config.adapter.text_encoder:
        pairs = zip(choices.indices, choices.captions, strict=True)
        return session.family.encode_prompts(session.pipe, [data.caption(*pair) for pair in pairs])
    cached = data.prompts(choices.indices, choices.captions)
    return {name: _to(tensor, device).to(dtype) for name, tensor in cached.items()}


def _to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _is_due(session: Session, steps: int | None, epochs: int | None) -> bool:
    if steps is not None and session.step % steps == 0:
        return True
    if epochs is None:
        return False
    images, every = session.images_per_step, epochs * len(session.data)
    return session.step * images // every > (session.step - 1) * images // every
