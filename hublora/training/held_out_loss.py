"""The loss on held-out images: where it rises, the adapter overfits.

Noise and timesteps are the same at every measure, so that measures differ by the weights alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch

from hublora.training import objectives
from hublora.training.losses import Samples, masked, predict
from hublora.training.rng import sample_extra_normals
from hublora.training.session import Session

BUCKETS = 10  # equal parts of the timesteps, the one with the least noise first


@dataclass(frozen=True)
class Measure:
    """The loss on the held-out images after a step.

    Attributes:
        step: Optimizer steps that were done.
        loss: Mean squared error, over images and timesteps.
        buckets: Mean loss by range of timesteps; None for a range without samples.
        is_best: Whether every measure before was higher.
    """

    step: int
    loss: float
    buckets: tuple[float | None, ...]
    is_best: bool


def is_due(session: Session) -> bool:
    """Tell whether it is time to measure: every so many steps, and at the end."""
    if not session.held_out_indices:
        return False
    every = session.config.holdout.steps or max(1, session.total_steps // 10)
    return session.step % every == 0 or session.step == session.total_steps


def measure(session: Session, generator: torch.Generator) -> Measure:
    """Measure the adapter that people would use now, and remember it if it is the best."""
    accelerator = session.accelerator
    count = len(session.held_out_indices) * session.config.holdout.timesteps
    # Losses and shares of noise, each at its measurement's number, whoever measures it.
    record = torch.zeros(2, count, dtype=torch.float64, device=accelerator.device)
    models = list(session.trained.values())
    for model in models:
        model.eval()
    try:
        with session.averaged(), torch.no_grad():
            for numbers in _batches(session):
                losses, levels = _losses(session, numbers, generator)
                record[0, numbers] = losses.double()
                record[1, numbers] = session.parameterization.share(levels).double()
    finally:
        for model in models:
            model.train()
    if accelerator.num_processes > 1:
        record = accelerator.reduce(record, "sum")
    losses, shares = record.cpu().unbind()
    buckets = torch.zeros(2, BUCKETS, dtype=torch.float64)
    add_to_buckets(buckets, losses, shares)
    loss = losses.mean().item()
    best = session.best_loss is None or loss < session.best_loss
    session.measures.append((session.step, loss))
    session.last_losses = losses
    if best:
        session.remember_best()
    return Measure(session.step, loss, bucket_means(*buckets.tolist()), best)


def has_stalled(session: Session) -> bool:
    """Tell whether the last measures were all no better than one before them."""
    patience, measures = session.config.holdout.patience, session.measures
    if patience is None or len(measures) <= patience:
        return False
    return min(loss for _, loss in measures[-patience:]) >= min(
        loss for _, loss in measures[:-patience]
    )


def add_to_buckets(record: torch.Tensor, losses: torch.Tensor, share: torch.Tensor) -> None:
    """Add losses to the sums and counts by noise level.

    Args:
        record: [2, BUCKETS], sums and counts; changed in place.
        losses: [B].
        share: [B] in [0, 1], from no noise to pure noise.
    """
    which = (share * BUCKETS).long().clamp(max=BUCKETS - 1)
    values = losses.detach().to(record.dtype)
    record[0].index_add_(0, which, values)
    record[1].index_add_(0, which, torch.ones_like(values))


def bucket_means(sums: Sequence[float], counts: Sequence[float]) -> tuple[float | None, ...]:
    """Return the mean loss of each bucket, None where nothing fell."""
    return tuple(
        total / count if count else None for total, count in zip(sums, counts, strict=True)
    )


def _batches(session: Session) -> Iterator[list[int]]:
    """Yield the numbers of this process's measurements, those of one shape together."""
    accelerator, each = session.accelerator, session.config.holdout.timesteps
    shapes: dict[int, list[int]] = {}
    for number in range(len(session.held_out_indices) * each):
        bucket = session.data.bucket_of[session.held_out_indices[number // each]]
        shapes.setdefault(bucket, []).append(number)
    for numbers in shapes.values():
        mine = numbers[accelerator.process_index :: accelerator.num_processes]
        for first in range(0, len(mine), session.config.train_batch_size):
            yield mine[first : first + session.config.train_batch_size]


def _losses(
    session: Session, numbers: Sequence[int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return losses and noise levels, each [B], of the measurements `numbers`.

    Each image is measured in the middle of each of so many equal parts of the noise levels.
    """
    data, each = session.data, session.config.holdout.timesteps
    indices = [session.held_out_indices[number // each] for number in numbers]
    shape = data.shape(indices[0])
    normals = sample_extra_normals(
        session.config.seed, "held out", numbers, 2 * prod(shape), generator
    )
    uniforms = torch.tensor([(n % each + 0.5) / each for n in numbers], dtype=torch.float64)
    noise, posterior_noise = normals.view(len(numbers), 2, *shape).unbind(1)
    samples = Samples(
        indices=indices,
        variants=[0] * len(numbers),
        captions=[0] * len(numbers),
        inpaint_mask_choices=[0] * len(numbers),
        levels=session.parameterization.levels(uniforms, shape),
        noise=noise,
        posterior_noise=posterior_noise,
    )
    # Processes measure different numbers of samples, so not through what keeps them in step.
    denoiser = getattr(session.pipe, session.family.denoiser)
    prediction, target, levels = predict(session, samples, noise, denoiser)
    errors = masked(session, samples, objectives.squared_error(prediction, target))
    return objectives.per_sample(errors), levels
