"""The training loop, for every family and method: a generator of events.

Inside a step nothing waits for the device: losses are yielded as tensors, and random numbers are
a function of the number of the sample (`hublora.training.rng`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch

from hublora.training.events import CheckpointDue, Event, StepDone, ValidationDue
from hublora.training.held_out_loss import BUCKETS, add_to_buckets, has_stalled, is_due, measure
from hublora.training.losses import training_losses
from hublora.training.session import Session


def train(session: Session) -> Iterator[Event]:
    """Train from `session.step` to the last step, yielding events.

    Between two events the session is between two steps, so checkpoints may be saved and images
    generated.
    """
    config = session.config
    generator = torch.Generator(session.accelerator.device)
    total = session.total_steps
    while session.step < total and not session.is_over:
        rates = session.schedule.get_last_lr()
        of_words = rates[-1] if session.adapted and session.tokens is not None else None
        loss, buckets = _step(session, generator)
        session.step += 1
        taken = measure(session, generator) if is_due(session) else None
        yield StepDone(session.step, loss, rates[0], buckets, taken, of_words)
        last = session.step == total or (taken is not None and has_stalled(session))
        session.is_over = last
        if not last and _is_due(session, config.validation.steps, config.validation.epochs):
            yield ValidationDue(session.step)
        if last or session.step % config.checkpoint.steps == 0:
            yield CheckpointDue(session.step)


def _step(session: Session, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Do one optimizer step; return the mean loss over all of its samples, and by noise level."""
    config, accelerator = session.config, session.accelerator
    size, accumulation_steps = config.train_batch_size, config.gradient_accumulation_steps
    first = session.step * session.images_per_step
    buckets = torch.zeros(2, BUCKETS, device=accelerator.device)
    for index in range(accumulation_steps):
        start = first + (index * accelerator.num_processes + accelerator.process_index) * size
        is_last = index == accumulation_steps - 1
        with nullcontext() if is_last else accelerator.no_sync(session.denoiser):
            losses, levels = training_losses(session, range(start, start + size), generator)
            accelerator.backward(losses.mean() / accumulation_steps)
        add_to_buckets(buckets, losses, session.parameterization.share(levels))
    for parameter in session.frozen_parameters:
        parameter.grad = None  # what has no gradient stays as it is, momentum and all
    _share_text_gradients(session)
    accelerator.clip_grad_norm_(session.parameters, config.optimizer.max_grad_norm)
    session.optimizer.step()
    session.schedule.step()
    session.optimizer.zero_grad()
    if session.average is not None:
        session.average.step(session.parameters)
    if accelerator.num_processes > 1:
        buckets = accelerator.reduce(buckets, "sum")
    return buckets[0].sum() / session.images_per_step, buckets


def _share_text_gradients(session: Session) -> None:
    """Average the gradients of the text encoders over the processes; the denoiser's already are."""
    accelerator = session.accelerator
    if accelerator.num_processes == 1:
        return
    for name, part in session.trainables.items():
        if name != session.family.denoiser:
            for parameter in part.parameters.values():
                if parameter.grad is not None:
                    parameter.grad = accelerator.reduce(parameter.grad, "mean")


def _is_due(session: Session, steps: int | None, epochs: int | None) -> bool:
    if steps is not None and session.step % steps == 0:
        return True
    if epochs is None:
        return False
    images, every = session.images_per_step, epochs * len(session.train_indices)
    return session.step * images // every > (session.step - 1) * images // every
