"""Sets up a training session: adapters, token embeddings, optimizer, schedule, streams.

Over 300 lines because the parts of a session are set up here, each from those before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from hublora.adapters.adapter import LowRank
from hublora.data.cache import CachedDataset
from hublora.errors import ConfigError
from hublora.families import Family, family_of_pipeline, text_encoders_of
from hublora.families.parameterization import LevelDensity, Parameterization
from hublora.memory.block_swap import BlockSwap, check_swap
from hublora.memory.frozen_linear import is_quantized, keep_no_weights, linear_layers
from hublora.memory.offload import parse_blocks
from hublora.training.bucket_sampler import BucketSampler
from hublora.training.config.training_config import TrainingConfig
from hublora.training.lora_module import LoraModule, adapt, start_from
from hublora.training.methods import method_of
from hublora.training.optimizers import (
    check_optimizer,
    make_optimizer,
    make_schedule,
    parameter_groups,
    resolve_weight_decay,
    token_group,
)
from hublora.training.rng import derived_seed, split
from hublora.training.session import InputHashes, SampleStream, Session, total_steps
from hublora.training.target_layers import find_targets, trained_components
from hublora.training.token_embeddings import Tokens, add_tokens, check_tokens


def check_settings(config: TrainingConfig, family: Family, pipe: Any) -> None:
    """Check what can be checked of the settings before anything is encoded.

    Raises:
        ConfigError: A target matches no layer of the base, a placeholder token is not new, a
            package is missing, or the base has no such noise levels or no negative prompt.
    """
    check_optimizer(config.optimizer)
    parameterization_of(config, family, pipe)
    family.call_arguments(pipe, "", config.validation.negative_prompt, 1.0)
    if method_of(config).trains_tokens:
        check_tokens(config.tokens, family, pipe)
    if config.base.offload is not None:
        check_swap(getattr(pipe, family.denoiser), parse_blocks(config.base.offload))
    for component in trained_components(config, family):
        find_targets(config.adapter, component, getattr(pipe, component), family)


def parameterization_of(config: TrainingConfig, family: Family, pipe: Any) -> Parameterization:
    """Return the noise and the prediction of a base, with the levels that the settings state.

    Raises:
        ConfigError: The base has no such weighting or density.
    """
    objective, found = config.objective, family.parameterization(pipe)
    found.check_weighting(objective.snr_gamma, objective.debiased)
    return found.with_density(
        LevelDensity(objective.density, objective.logit_mean, objective.logit_std, objective.shift)
    )


def check_schedule(config: TrainingConfig, images_per_epoch: int, processes: int) -> None:
    """Check the schedule against the number of optimizer steps, which epochs leave open until the
    images are known.

    Args:
        config: Settings of the training.
        images_per_epoch: Training images, repeats included.
        processes: Number of processes.

    Raises:
        ConfigError: The learning rate never reaches its peak, or the adapter is never trained.
    """
    batch = config.train_batch_size * config.gradient_accumulation_steps * processes
    steps = total_steps(config, images_per_epoch, batch)
    start = method_of(config).adapter_start_step(config, steps)
    if start >= steps:
        raise ConfigError(
            f"tokens.first_steps must be less than the {steps} steps of this training, got "
            f"{start}: the adapter is never trained.",
            "Lower tokens.first_steps, or train for more steps.",
        )
    warmup = config.schedule.warmup_steps
    if warmup and warmup >= steps - start:
        phase = f"the {steps - start} steps that train the adapter" if start else f"{steps} steps"
        raise ConfigError(
            f"--lr-warmup-steps must be less than {phase}, got {warmup}: the learning rate never "
            "reaches its peak.",
            "Lower --lr-warmup-steps, or train for more steps.",
        )


def start_session(
    config: TrainingConfig,
    pipe: Any,
    data: CachedDataset,
    inputs: InputHashes,
    accelerator: Accelerator,
    initial_updates: Mapping[str, Mapping[str, LowRank]] | None = None,
    class_images: int = 0,
) -> Session:
    """Add what the method trains to the base, and make optimizer and schedule.

    Args:
        config: Settings of the training.
        pipe: Pipeline of the base.
        data: Encoded images and captions.
        inputs: Hashes of base, images and captions.
        accelerator: Device, precision and processes.
        initial_updates: Component -> layer, as the base names it -> initial update.
        class_images: Number of images at the end of `data` that are class images.

    Raises:
        ConfigError: `initial_updates` do not fit what is trained, or no image is left to train on.
    """
    set_seed(config.seed)
    family = family_of_pipeline(pipe)
    config = resolve_weight_decay(config, family)
    adapted = _adapt_all(config, family, pipe, accelerator.device, initial_updates or {})
    tokens = _add_token_embeddings(config, family, pipe, accelerator.device)
    denoiser = getattr(pipe, family.denoiser)
    swap = _place_denoiser(config, denoiser, accelerator.device)
    for name in (family.denoiser, *text_encoders_of(family, pipe)):
        _keep_no_quantized_weights(getattr(pipe, name))
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    streams, held_out_indices = _streams(config, data, class_images)
    images = config.train_batch_size * config.gradient_accumulation_steps
    steps = total_steps(config, len(streams[0].images), images * accelerator.num_processes)
    method = method_of(config)
    start_step = dict.fromkeys(adapted, method.adapter_start_step(config, steps))
    groups = parameter_groups(config.optimizer, adapted, family.denoiser)
    starts = [method.adapter_start_step(config, steps)] * len(groups)
    if tokens is not None:
        groups += token_group(tokens.parameters.values(), config.token_embedding_lr)
        starts.append(0)
    optimizer = make_optimizer(config, groups, accelerator.device)
    return Session(
        config=config,
        family=family,
        pipe=pipe,
        data=data,
        inputs=inputs,
        adapted=adapted,
        tokens=tokens,
        start_step=start_step,
        parameterization=parameterization_of(config, family, pipe).to(accelerator.device),
        accelerator=accelerator,
        # Without trained parameters in it, several processes have no gradients to share.
        denoiser=accelerator.prepare(denoiser, device_placement=[swap is None])
        if family.denoiser in adapted
        else denoiser,
        swap=swap,
        optimizer=accelerator.prepare(optimizer),
        schedule=make_schedule(
            config.schedule,
            optimizer,
            steps,
            starts,
            one_rate=config.optimizer.name == "prodigy",
        ),
        streams=streams,
        held_out_indices=held_out_indices,
        average=_average(config, [p for group in groups for p in group["params"]]),
    )


def split_images(config: TrainingConfig, count: int) -> tuple[list[int], list[int]]:
    """Return the indices of training images and of held-out images.

    Raises:
        ConfigError: No image is left to train on.
    """
    train_indices, held_out_indices = split(config.seed, count, config.holdout.images)
    if not train_indices:
        images = "only image" if count == 1 else f"{count} images"
        raise ConfigError(
            f"holdout.images holds out the {images}, and none is left to train on.",
            "Lower holdout.images, or leave it out.",
        )
    return train_indices, held_out_indices


def _streams(
    config: TrainingConfig, data: CachedDataset, class_images: int
) -> tuple[tuple[SampleStream, ...], list[int]]:
    """Return the sample streams and the indices of held-out items."""
    own = max(data.image_of) + 1 - class_images
    trained, held_out = map(set, split_images(config, own))
    items = range(len(data))
    train_indices = [
        index
        for index in items
        if data.image_of[index] in trained
        for _ in range(data.repeats[index])
    ]
    held_out_indices = [index for index in items if data.image_of[index] in held_out]
    streams = [_stream(config, data, train_indices, 1.0, config.seed)]
    if class_images:
        seed, weight = derived_seed(config.seed, "class"), config.dreambooth.prior_weight
        of_class = [index for index in items if data.image_of[index] >= own]
        streams.append(_stream(config, data, of_class, weight, seed))
    if config.objective.preserve:
        weight = config.objective.preserve_weight
        streams.append(replace(streams[0], weight=weight, preserves=True))
    return tuple(streams), held_out_indices


def _stream(
    config: TrainingConfig, data: CachedDataset, images: Sequence[int], weight: float, seed: int
) -> SampleStream:
    if not config.data.has_several_shapes and len({data.bucket_of[one] for one in images}) == 1:
        return SampleStream(images, weight, seed)
    buckets: list[list[int]] = [[] for _ in data.bucket_sizes]
    for index in images:
        buckets[data.bucket_of[index]].append(index)
    size = config.data.bucket_batch or config.train_batch_size
    return SampleStream(images, weight, seed, BucketSampler(seed, buckets, size))


def _adapt_all(
    config: TrainingConfig,
    family: Family,
    pipe: Any,
    device: torch.device,
    initial_updates: Mapping[str, Mapping[str, LowRank]],
) -> dict[str, LoraModule]:
    """Add the adapter to every component that gets one; move text encoders to the device."""
    for name in (family.denoiser, *text_encoders_of(family, pipe)):
        getattr(pipe, name).requires_grad_(False)
    adapted: dict[str, LoraModule] = {}
    for name in trained_components(config, family):
        model = getattr(pipe, name)
        ranks = find_targets(config.adapter, name, model, family)
        adapted[name] = adapt(config.adapter, model, ranks)
        start_from(adapted[name], initial_updates.get(name, {}), ranks)
        if name != family.denoiser:
            _to_device(model, device)
    if stray := initial_updates.keys() - adapted.keys():
        raise ConfigError(
            f"adapter.start_from has layers of the {min(stray)}, which is not trained here.",
            "Add --train-text-encoder.",
        )
    return adapted


def _place_denoiser(
    config: TrainingConfig, model: torch.nn.Module, device: torch.device
) -> BlockSwap | None:
    """Move the denoiser to the device, in training mode; return what swaps its blocks, if any."""
    if config.base.offload is None:
        _to_device(model, device)
        return None
    model.train()
    return BlockSwap(model, parse_blocks(config.base.offload), device)


def _keep_no_quantized_weights(model: torch.nn.Module) -> None:
    """Make quantised layers keep no dequantised copy of their weights for the gradients."""
    for _, layer in linear_layers(model):
        if is_quantized(layer):
            keep_no_weights(layer)


def _add_token_embeddings(
    config: TrainingConfig, family: Family, pipe: Any, device: torch.device
) -> Tokens | None:
    """Add the token embeddings, if the method trains any, and move text encoders to the device."""
    if not method_of(config).trains_tokens:
        return None
    tokens = add_tokens(config.tokens, family, pipe, config.seed)
    for name in text_encoders_of(family, pipe):
        _to_device(getattr(pipe, name), device)
    return tokens


def _to_device(model: Any, device: torch.device) -> Any:
    """Move a component to the device, in training mode."""
    model.to(device, memory_format=_memory_format(device))
    return model.train()


def _average(config: TrainingConfig, parameters: Sequence[torch.nn.Parameter]) -> Any:
    if config.adapter.ema_decay is None:
        return None
    from diffusers.training_utils import EMAModel

    return EMAModel(parameters, decay=config.adapter.ema_decay, foreach=True)


def _memory_format(device: torch.device) -> torch.memory_format:
    """Return the memory format in which convolutions are fastest.

    A GPU's tensor cores want channels last. A CPU is no faster for it (up to a fifth slower at
    batch 1), and the reordered copy would stay beside the weights that are mapped from the file.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format
