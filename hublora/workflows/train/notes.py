"""What is told of a training before it starts: what is read, where checkpoints go, warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hublora.cards.format import format_count, format_size
from hublora.errors import ConfigError
from hublora.families import text_encoders_of
from hublora.memory.quantization import DESCRIPTIONS
from hublora.progress import Callback, Note
from hublora.resolution.base import Base
from hublora.workflows.train.hub_checkpoint import describe_destination

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hublora.data import Source
    from hublora.training.config.training_config import TrainingConfig


def distilled_warning(base: Base) -> str | None:
    """Return what training on a distilled base model alone does to the result; None for any
    other."""
    if not base.family.is_distilled(base.name, base.folder):
        return None
    steps = base.family.sampling(base.name, base.folder).num_inference_steps
    known = base.family.known_bases
    ways = []
    if other := known.undistilled.get(base.name):
        ways.append(f"train on {other} (--base {other} --generation-base {base.name})")
    if assistant := known.assistants.get(base.name):
        ways.append(f"add --assistant {assistant}")
    advice = " or ".join(ways)
    return (
        f"{base.name} was distilled to {steps} steps, which training undoes: with the adapter its "
        f"images become blurred at {steps} steps." + (f" To avoid it, {advice}." if ways else "")
    )


def quantized_note(config: TrainingConfig, base: Base, pipe: Any) -> str | None:
    """Return what quantisation makes of the size of a loaded base model; None without it."""
    kind = config.base.quantize
    if kind is None:
        return None
    from hublora.memory.frozen_linear import weight_bytes

    family = base.family
    names = (family.denoiser, *text_encoders_of(family, pipe))
    sizes = [weight_bytes(getattr(pipe, name)) for name in names]
    now, plain = (sum(column) for column in zip(*sizes, strict=True))
    return (
        f"Quantised to {DESCRIPTIONS[kind]}: denoiser and text encoders are {format_size(now)} "
        f"instead of {format_size(plain)}."
    )


def swap_note(config: TrainingConfig, accelerator: Accelerator) -> str | None:
    """Return what block swap does not do on this device; None where it works or is not wanted.

    Raises:
        ConfigError: There are several processes, which would copy each block several times.
    """
    if config.base.offload is None:
        return None
    if accelerator.num_processes > 1:
        raise ConfigError("--offload works in one process.", "Leave it out.")
    if accelerator.device.type == "cpu":
        return "Everything is on the CPU: swapped blocks are copied within its memory for nothing."
    return None


def report_destination(config: TrainingConfig, callback: Callback) -> str | None:
    """Report the branch that checkpoints will be uploaded to, before the first one is; None without
    `checkpoint.to_hub`."""
    if not config.checkpoint.to_hub:
        return None
    place = describe_destination(str(config.hub.model_id), config.hub.private)
    callback(Note(f"Checkpoints will be uploaded to {place}."))
    return place


def report_source(source: Source, callback: Callback) -> None:
    """Report the images and captions that are read, and what was left out."""
    at = f"@{source.revision[:8]}" if source.revision else ""
    callback(Note(f"Data: {source.id}{at}, {format_count(len(source.examples), 'image')}"))
    if source.captions_from is not None:
        callback(Note(f"Captions: {source.captions_from}"))
    for said in source.notes:
        callback(Note(said))
    if note := source.skipped_note():
        callback(Note(note, warning=True))
