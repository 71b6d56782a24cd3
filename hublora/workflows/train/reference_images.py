"""Pairs of a training: whether the base model takes references, and how they are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.families import Family
from hublora.progress import Callback, Note
from hublora.resolution.base import ResolvedBase, read_family

if TYPE_CHECKING:
    import torch

    from hublora.data import Source
    from hublora.data.pair_cache import ReferenceEncoders
    from hublora.training.config.training_config import TrainingConfig


def with_references(config: TrainingConfig, base: ResolvedBase) -> TrainingConfig:
    """Return the settings with `data.references` as the base model's family needs it, to read the
    images with.

    Args:
        config: Settings of the training.
        base: The base model, of which only the index is downloaded.

    Raises:
        ConfigError: A setting contradicts the family.
    """
    label, data, takes = base.ref.name, config.data, read_family(base).references
    if not takes.most:
        if data.references or data.reference_column is not None:
            named = "data.references" if data.references else "data.reference_column"
            raise ConfigError(
                f"{label} takes no reference images, so it is not trained on pairs.",
                f"Leave {named} out, or train on an edit model such as FLUX.1 Kontext.",
            )
        return config.updated({"data.references": False})
    if takes.required and data.references is False:
        raise ConfigError(
            f"{label} edits images and is trained on pairs only.", "Leave data.references out."
        )
    if config.dreambooth.prior_preservation and takes.required:
        raise ConfigError(
            f"Prior preservation generates class images from text, and {label} needs a reference.",
            "Leave it out, or train on a base model that generates from text.",
        )
    return config.updated({"data.references": True}) if takes.required else config


def check_pairs(
    source: Source, family: Family, pipe: Any, sides: Sequence[int], callback: Callback
) -> None:
    """Check every image's references before anything is encoded, and report other aspect ratios.

    Args:
        source: Images of the training.
        family: Family of the base model.
        pipe: A pipeline of the family, on any device.
        sides: Resolutions of the training: sides of squares in pixels.
        callback: Called with each event (`hublora.progress.Event`).

    Raises:
        ConfigError: An image has too many references, or one that the base model cannot take.
    """
    most = family.references.most
    for example in source.examples:
        if (count := len(example.reference_sizes)) > most:
            raise ConfigError(
                f"A base of {family.name} takes at most {most} reference "
                f"image{'' if most == 1 else 's'}, and "
                f"{example.name} has {count}.",
                "Remove some, or name the column of one: --set data.reference_column=…",
            )
        for size in example.reference_sizes:
            try:
                for side in sides:
                    family.reference_size(pipe, size, side)
            except ConfigError as error:
                raise ConfigError(f"{example.name}: {error.message}", error.hint) from error
    _report_other_sizes(source, callback)


def reference_encoders(family: Family, pipe: Any, device: torch.device) -> ReferenceEncoders | None:
    """Return how the references of pairs are encoded; None where the base model takes none.

    Args:
        family: Family of the base model.
        pipe: A pipeline of the family, on any device.
        device: Device that encodes.
    """
    import torch

    from hublora.data.pair_cache import ReferenceEncoders
    from hublora.families import text_encoders_of

    if not family.references.most:
        return None
    encoders = ReferenceEncoders(
        lambda size, side: family.reference_size(pipe, size, side),
        lambda image, side: family.fit_reference(pipe, image, side),
    )
    if not family.references.in_prompts:
        return encoders
    models = [getattr(pipe, name) for name in text_encoders_of(family, pipe)]

    def encode_instruction(text: str, images: Any, length: int) -> dict[str, torch.Tensor]:
        for model in models:
            model.to(device)
        with torch.no_grad():
            encoded = family.encode_instruction(pipe, text, images, length)
        return {name: tensor.cpu() for name, tensor in encoded.items()}

    return replace(
        encoders,
        instruction=encode_instruction,
        count_tokens=lambda texts, sizes: family.count_instruction_tokens(pipe, texts, sizes),
    )


def _report_other_sizes(source: Source, callback: Callback) -> None:
    """Report references of another aspect ratio than their image, which are not cropped with it."""
    from hublora.data.references import shares_crops

    others = [
        one.name
        for one in source.examples
        if not all(shares_crops(one.size, size) for size in one.reference_sizes)
    ]
    if not others:
        return
    images = "image has a reference" if len(others) == 1 else "images have references"
    named = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
    callback(
        Note(
            f"{len(others)} {images} of another aspect ratio, used whole in the size that the base "
            f"model gives them: {named}."
        )
    )
