"""The layers of a base that get the adapter, and their ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch

from hublora.errors import ConfigError
from hublora.families import Family
from hublora.training.config.sections import AdapterSettings
from hublora.training.config.training_config import TrainingConfig
from hublora.training.methods import method_of


def trained_components(config: TrainingConfig, family: Family) -> tuple[str, ...]:
    """Return the components that get the adapter, the denoiser first; none if the method trains no
    adapter.

    Raises:
        ConfigError: The text encoders are to be trained, and the family's are not adaptable.
    """
    if not method_of(config).trains_adapter:
        return ()
    if not config.adapter.text_encoder:
        return (family.denoiser,)
    if len(family.adaptable) == 1:
        raise ConfigError(
            f"Pipelines load no adapter onto the text encoder of {family.name}.",
            "Leave --train-text-encoder out.",
        )
    return family.adaptable


def encodes_prompts(config: TrainingConfig) -> bool:
    """Tell whether the text encoders run in every step, because something in them is trained."""
    return config.adapter.text_encoder or method_of(config).trains_tokens


def find_targets(
    settings: AdapterSettings, component: str, model: torch.nn.Module, family: Family
) -> dict[str, int]:
    """Return name and rank of every layer of `component` that gets the adapter.

    Raises:
        ConfigError: A target or a block matches no layer.
    """
    names = [name for name, module in model.named_modules() if _is_layer(module)]
    return find_ranks(settings, component, names, family)


def find_ranks(
    settings: AdapterSettings, component: str, names: Sequence[str], family: Family
) -> dict[str, int]:
    """Return the same as `find_targets`, for a component of which only the layers' names are
    known."""
    own = settings.targets if component == family.denoiser else None
    targets = own or family.default_targets[component]
    ranks: dict[str, int] = {}
    if component == family.denoiser and settings.conv_rank is not None:
        convolutions = family.convolutions.get(component, ())
        ranks = {name: settings.conv_rank for name in names if _matches_any(name, convolutions)}
    for target in targets:
        found = [name for name in names if _matches(name, target)]
        if not found:
            raise _no_layer(target, component, names)
        ranks |= dict.fromkeys(found, settings.rank)
    if component == family.denoiser and settings.blocks:
        return _in_blocks(ranks, _parse_blocks(settings.blocks), component)
    return ranks


def _is_layer(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear | torch.nn.Conv2d)


def _matches(name: str, target: str) -> bool:
    """Tell whether a target, the end of a name or a pattern of the whole of it, means a layer."""
    if "*" in target:
        return fnmatchcase(name, target)
    return name == target or name.endswith("." + target)


def _matches_any(name: str, targets: Iterable[str]) -> bool:
    return any(_matches(name, target) for target in targets)


def _parse_blocks(blocks: Iterable[str]) -> dict[str, int | None]:
    """Return block -> its own rank, None for the usual one, from "up_blocks.1" or "mid_block=8"."""
    parsed: dict[str, int | None] = {}
    for block in blocks:
        name, equals, rank = block.partition("=")
        if equals and not (rank.isdecimal() and int(rank) > 0):
            raise ConfigError(
                f"The rank in adapter.blocks {block!r} must be a positive integer.",
                "Write it like mid_block=8.",
            )
        parsed[name] = int(rank) if equals else None
    return parsed


def _in_blocks(
    ranks: Mapping[str, int], blocks: Mapping[str, int | None], component: str
) -> dict[str, int]:
    """Return the layers in the blocks, with their ranks; the longest matching block name wins."""
    kept: dict[str, int] = {}
    for block in sorted(blocks, key=len):
        inside = [name for name in ranks if name.startswith(block + ".") or name == block]
        if not inside:
            known = sorted({".".join(name.split(".")[:2]) for name in ranks})
            raise ConfigError(
                f"No targeted layer of the {component} lies in the block {block!r}.",
                f"Choose from {', '.join(known)}.",
            )
        kept |= {name: blocks[block] or ranks[name] for name in inside}
    return {name: kept[name] for name in ranks if name in kept}


def _no_layer(target: str, component: str, names: Iterable[str]) -> ConfigError:
    endings = sorted({_ending(name) for name in names})
    return ConfigError(
        f"The target {target!r} matches no layer of the {component}.",
        f"Choose from {', '.join(endings)}.",
    )


def _ending(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]
