"""Resolve and check what a training needs: settings ─▶ base, images, latents.

Over 300 lines because what can be checked before a training is checked here, in one order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.hub.push import check_can_push
from hublora.hub.xet import check_xet
from hublora.memory.quantization import check_quantization
from hublora.progress import Callback, Note, Progress, no_callback
from hublora.refs import BaseRef, is_repo
from hublora.resolution.base import Base, download_base, resolve_base
from hublora.resolution.base_access import check_access
from hublora.workflows.train.cache_keys import image_key, prompt_key
from hublora.workflows.train.destination import pin_revisions, resolve_destination
from hublora.workflows.train.find_checkpoint import find_checkpoint
from hublora.workflows.train.generation_base import (
    GenerationBase,
    download_generation_base,
    resolve_generation_base,
)
from hublora.workflows.train.hub_checkpoint import (
    BRANCH,
    check_no_checkpoint,
    discard,
    install_checkpoint,
)
from hublora.workflows.train.image_sizes import (
    bucket_note,
    enlarged_note,
    resolution_note,
    resolutions,
    resolve_bucket_batch,
)
from hublora.workflows.train.notes import (
    distilled_warning,
    quantized_note,
    report_destination,
    report_source,
    swap_note,
)
from hublora.workflows.train.other_adapters import check_other_adapters, with_known_assistant
from hublora.workflows.train.reference_images import (
    check_pairs,
    reference_encoders,
    with_references,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hublora.data import CachedDataset, Source
    from hublora.data.crops import Resolution
    from hublora.training.config.training_config import TrainingConfig
    from hublora.training.session import InputHashes


@dataclass(frozen=True)
class PreparedRun:
    """Resolved, validated inputs of a training run; nothing has been encoded or trained yet.

    Attributes:
        config: Settings with destination and pinned revisions.
        checkpoint: Folder of the checkpoint to resume from; None starts a new training.
        accelerator: Device, precision and processes.
        source: Images and captions.
        base: The base, downloaded.
        generation: The base that images are generated with; None where that is `base`.
        pipe: Pipeline of the base, on the CPU.
        checkpoints_at: Branch of the Hub repo that checkpoints are uploaded to, and whether it is
            public or private; None without `checkpoint.to_hub`.
        inputs: Hashes of base, images and captions.
    """

    config: TrainingConfig
    checkpoint: Path | None
    accelerator: Accelerator
    source: Source
    base: Base
    generation: GenerationBase | None
    pipe: Any
    checkpoints_at: str | None
    inputs: InputHashes


def prepare_run(config: TrainingConfig, resume: str | None, callback: Callback) -> PreparedRun:
    """Resolve and check everything that a training needs.

    Raises:
        HubloraError: The training cannot start.
    """
    from hublora.training.distributed import on_main
    from hublora.training.run_folder import check_own

    config = on_main(lambda: resolve_destination(config, resume))
    on_main(lambda: check_own(config.run_folder))
    if config.hub.push or config.checkpoint.to_hub:
        on_main(lambda: check_can_push(str(config.hub.model_id)))
    checkpoint = on_main(lambda: find_checkpoint(config, resume, callback))
    if checkpoint is None or not is_repo(resume):
        return _check(config, checkpoint, callback)
    try:
        ready = _check(config, checkpoint, callback, f"{resume}@{BRANCH}")
    except BaseException:
        discard(checkpoint)
        raise
    return replace(
        ready, checkpoint=on_main(lambda: install_checkpoint(checkpoint, config.run_folder))
    )


def _check(
    config: TrainingConfig, checkpoint: Path | None, callback: Callback, label: str = ""
) -> PreparedRun:
    """Resolve what the settings name, and check it against a checkpoint, which messages call
    `label` where its folder is a temporary one."""
    # Over 60 lines because each check needs what those before it found.
    import torch

    from hublora.training.accelerator import make_accelerator, weight_dtype
    from hublora.training.checkpoint import check_checkpoint
    from hublora.training.config.for_family import check_precision, fit_to_family
    from hublora.training.distributed import main_first, on_main
    from hublora.training.optimizers import resolve_weight_decay
    from hublora.training.setup import check_schedule, check_settings, split_images
    from hublora.training.target_layers import encodes_prompts

    if config.checkpoint.to_hub and checkpoint is None:
        on_main(lambda: check_no_checkpoint(str(config.hub.model_id)))
    checkpoints_at = on_main(lambda: report_destination(config, callback))
    config = with_known_assistant(config)
    accelerator = make_accelerator(config)
    check_quantization(config.base.quantize, accelerator.device.type)
    if said := swap_note(config, accelerator):
        callback(Note(said, warning=True))
    named = config.base
    base_ref = BaseRef.parse(named.model, named.revision, named.components)
    resolved = on_main(lambda: resolve_base(base_ref))
    on_main(lambda: check_access(resolved))
    if config.hub.push or config.checkpoint.to_hub:
        on_main(lambda: check_xet(resolved.ref.repo_id, config.hub.model_id))
    other = on_main(lambda: resolve_generation_base(config, resolved, callback))
    main_first(lambda: check_other_adapters(config, resolved, callback))
    paired = on_main(lambda: with_references(config, resolved))
    source = main_first(lambda: open_dataset(paired, callback))
    split_images(config, len(source.examples))
    if len(config.data.sides) < 2:  # else an epoch depends on what the base can be trained at
        check_schedule(config, epoch_length(config, source), accelerator.num_processes)
    base = main_first(lambda: download_base(resolved, callback))
    callback(Note(f"Base: {base.label}"))
    generation = None
    if other is not None:
        shares = not encodes_prompts(config)
        generation = main_first(lambda: download_generation_base(other, base, shares, callback))
    elif config.adapter.assistant is None and (warning := distilled_warning(base)):
        callback(Note(warning, warning=True))
    config = pin_revisions(config, base, source, generation.base if generation else None)
    config = resolve_weight_decay(config, base.family)
    config, notes = fit_to_family(config, base.family)
    for note in notes:
        callback(Note(note))
    check_precision(accelerator.mixed_precision, base.family)
    config = resolve_bucket_batch(config, checkpoint)
    inputs = main_first(lambda: input_hashes(base, source))
    if checkpoint is not None:
        check_checkpoint(checkpoint, config, inputs, accelerator, label)
    # The VAE is only needed for encoding, and half precision shows in the latents of some bases.
    dtype = weight_dtype(accelerator)
    pipe = base.load({"default": dtype, base.family.vae: torch.float32}, config.base.quantize)
    if sizes := quantized_note(config, base, pipe):
        callback(Note(sizes))
    check_settings(config, base.family, pipe)
    sides = resolutions(config, base, pipe)
    check_schedule(config, epoch_length(config, source, sides), accelerator.num_processes)
    check_pairs(source, base.family, pipe, [size[0] for size, _ in sides], callback)
    return PreparedRun(
        config, checkpoint, accelerator, source, base, generation, pipe, checkpoints_at, inputs
    )


def epoch_length(config: TrainingConfig, source: Source, sizes: Sequence[Resolution] = ()) -> int:
    """Return the number of training images of an epoch: repeats included, and each at all of its
    resolutions.

    Args:
        config: Settings of the training.
        source: Images and captions.
        sizes: As `resolutions` returns them; none counts each image once.
    """
    from hublora.data.crops import assign_buckets
    from hublora.training.setup import split_images

    trained = set(split_images(config, len(source.examples))[0])
    repeats = [one.repeats if n in trained else 0 for n, one in enumerate(source.examples)]
    if len(sizes) < 2:
        return sum(repeats)
    *smaller, (size, step) = sizes
    buckets = assign_buckets(source.examples, config.data, size, step, smaller)
    return sum(repeats[index] for bucket in buckets for index in bucket.members)


def input_hashes(base: Base, source: Source) -> InputHashes:
    """Return the hashes of what a training reads."""
    from hublora.data.source import hash_parts
    from hublora.training.session import InputHashes

    each = {one.name: hash_parts(one.digest, one.captions)[:16] for one in source.examples}
    return InputHashes(source.fingerprint, None if base.commit else base.version(), each)


def open_dataset(config: TrainingConfig, callback: Callback = no_callback) -> Source:
    """Return the images that the settings name, under the captions of their method.

    Raises:
        DataError: They cannot be used.
    """
    from hublora.data import open_source
    from hublora.training.methods import method_of

    method = method_of(config)
    source = open_source(
        method.data(config),
        lambda done, total: callback(Progress("Looking at images", done, total)),
    )
    source = method.caption(config, source)
    _check_trigger_words(config, source)
    report_source(source, callback)
    return source


def _check_trigger_words(config: TrainingConfig, source: Source) -> None:
    """Check that the captions contain the trigger words.

    Raises:
        ConfigError: One is in no caption, so that nothing would be learned under it.
    """
    captions = {caption.lower() for one in source.examples for caption in one.captions}
    for word in config.adapter.trigger_words:
        if not any(word.lower() in caption for caption in captions):
            raise ConfigError(
                f"No caption contains the trigger word {word!r} (--trigger), so it would not be "
                "learned.",
                f'Put it into the captions, or give all images one: --instance-prompt "a photo of '
                f'{word}" --method dreambooth.',
            )


def encode(
    config: TrainingConfig,
    base: Base,
    pipe: Any,
    source: Source,
    device: Any,
    callback: Callback = no_callback,
) -> CachedDataset:
    """Return latents and prompt embeddings, from the cache where it has them.

    Afterwards the encoders are on the CPU and the VAE has the dtype of the text encoders.
    """
    # Over 60 lines because the two encoding functions close over pipeline and device.
    import torch

    from hublora.data import Encoders, build_cache, cached_texts
    from hublora.data.captions import count_truncated, truncation_note
    from hublora.families import text_encoders_of
    from hublora.training.preservation import preservation_note, rewording
    from hublora.training.target_layers import encodes_prompts
    from hublora.training.token_embeddings import count_tokens

    family = base.family
    *smaller, (size, bucket_step) = resolutions(config, base, pipe)
    captions = [caption for example in source.examples for caption in example.captions]
    longest = family.max_tokens(pipe)
    cut = count_truncated(
        captions, lambda texts: count_tokens(config.tokens, family, pipe, texts), longest
    )
    if note := truncation_note(cut, len(captions), longest):
        callback(Note(note + ".", warning=True))
    if note := preservation_note(config, captions):
        callback(Note(note))

    vae = getattr(pipe, family.vae)
    text_encoders = [getattr(pipe, name) for name in text_encoders_of(family, pipe)]
    dtype = text_encoders[0].dtype
    reword = rewording(config)
    caches_prompts = not encodes_prompts(config)
    # Padding that the denoiser never sees would be most of the cache.
    length = (
        family.padded_length(pipe, cached_texts(source, config.data, reword))
        if caches_prompts
        else None
    )

    def encode_images(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        vae.to(device)
        with torch.no_grad():
            mean, std = family.encode_images(pipe, pixels)
        return mean.cpu(), None if std is None else std.cpu()

    def encode_prompts(prompts: list[str]) -> dict[str, torch.Tensor]:
        vae.to("cpu")  # latents are encoded before: it makes place for the text encoders
        for encoder in text_encoders:
            encoder.to(device)
        with torch.no_grad():
            encoded = family.encode_prompts(pipe, prompts, length)
        return {name: tensor.cpu() for name, tensor in encoded.items()}

    data = build_cache(
        source,
        config.data,
        Encoders(
            encode_images,
            encode_prompts if caches_prompts else None,
            image_key=image_key(base, device),
            prompt_key=prompt_key(base, device, dtype, length or longest, config.base.quantize),
            batch_size=4 if device.type == "cuda" else 1,
            inpaints=family.inpaints(pipe),
            references=reference_encoders(family, pipe, device),
        ),
        size=size,
        bucket_step=bucket_step,
        smaller=smaller,
        reword=reword,
        progress=lambda done, total: callback(Progress("Encoding", done, total)),
    )
    for encoder in (vae, *text_encoders):
        encoder.to("cpu")
    torch.nn.Module.to(vae, dtype)  # diffusers' own warns even of a cast that loses nothing
    if data.reused:
        callback(Note("Latents and prompts are reused from the cache."))
    if smaller:
        callback(Note(resolution_note(data, config.data.sides)))
    if bucket_step is not None:
        callback(Note(bucket_note(data)))
    if note := enlarged_note(data, [example.size for example in source.examples]):
        callback(Note(note, warning=True))
    return data
