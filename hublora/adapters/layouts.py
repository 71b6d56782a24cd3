"""Writes adapters in the layouts of diffusers, PEFT and kohya.

`hublora.adapters.tensor_names` describes the names, `hublora.adapters.parse` reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hublora.adapters.adapter import Adapter, LowRank, peft_config
from hublora.adapters.layer_names import WRAPPER
from hublora.errors import AdapterError
from hublora.families.registry import family_of_adapter

if TYPE_CHECKING:
    import torch


def to_diffusers(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return tensors and metadata of diffusers' layout.

    The metadata is what `save_lora_weights` of diffusers writes: `format` and, as JSON,
    the LoraConfig of each component with prefixed keys.
    """
    tensors: dict[str, torch.Tensor] = {}
    config: dict[str, Any] = {}
    for component, modules in sorted(adapter.layers.items()):
        tensors |= lora_tensors(f"{component}.", modules)
        config |= {f"{component}.{key}": value for key, value in peft_config(modules).items()}
    return tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(config, sort_keys=True)}


def to_peft(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of a PEFT folder's `adapter_model.safetensors` and its
    `adapter_config.json`.

    Raises:
        AdapterError: The adapter changes more than one model; a PEFT folder is for one.
    """
    if len(adapter.layers) != 1:
        raise AdapterError(
            f"A PEFT folder is for one model; this adapter changes {', '.join(adapter.layers)}."
        )
    ((component, modules),) = adapter.layers.items()
    if component in _flat_text_encoders(adapter):  # PEFT looks for the names that they have today
        modules = {name.removeprefix(WRAPPER): layer for name, layer in modules.items()}
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": adapter.facts.base_model,
        "revision": adapter.facts.base_revision,
        "inference_mode": True,
        **peft_config(modules),
    }
    return lora_tensors("base_model.model.", modules), config


def _flat_text_encoders(adapter: Adapter) -> tuple[str, ...]:
    """Return the text encoders whose layers transformers has without the level `text_model`."""
    facts = adapter.facts
    family = family_of_adapter(facts.architecture, facts.family, adapter.layers)
    return family.flat_text_encoders


def to_kohya(adapter: Adapter, prefixes: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Return the tensors of kohya's layout, which ComfyUI and AUTOMATIC1111 read.

    Args:
        adapter: An adapter with diffusers' layer names.
        prefixes: Component -> prefix, as `LoraNames.kohya_prefixes` of its family.

    Raises:
        AdapterError: The layout has no prefix for a component of this adapter.
    """
    tensors: dict[str, torch.Tensor] = {}
    for component, modules in sorted(adapter.layers.items()):
        if component not in prefixes:
            raise AdapterError(
                f"kohya's layout has no prefix for the component {component!r}; "
                f"it has them for {', '.join(prefixes)}."
            )
        for module, layer in sorted(modules.items()):
            name = f"{prefixes[component]}_{module.replace('.', '_')}"
            tensors |= kohya_layer(name, layer)
    return tensors


def kohya_layer(name: str, layer: LowRank) -> dict[str, torch.Tensor]:
    """Return the tensors of one layer in kohya's layout, `name` with its prefix."""
    import torch

    alpha = torch.tensor(layer.alpha, dtype=layer.down.dtype)
    exact = float(alpha) == layer.alpha
    tensors = {
        f"{name}.lora_down.weight": layer.down,
        f"{name}.lora_up.weight": layer.up,
        f"{name}.alpha": alpha if exact else torch.tensor(layer.alpha),
    }
    if layer.magnitude is not None:
        ones = [1] * (layer.up.ndim - 1)
        tensors[f"{name}.dora_scale"] = layer.magnitude.reshape(-1, *ones)
    return tensors


def lora_tensors(prefix: str, modules: Mapping[str, LowRank]) -> dict[str, torch.Tensor]:
    """Return the tensors under PEFT's names, each with a prefix.

    A convolution's magnitude is [1, out, 1, 1] there. transformers, which loads those of text
    encoders, only finds magnitudes that end in `.weight`; PEFT and diffusers write them without.
    """
    ending = ".weight" if prefix.startswith("text_encoder") else ""
    tensors: dict[str, torch.Tensor] = {}
    for module, layer in sorted(modules.items()):
        tensors[f"{prefix}{module}.lora_A.weight"] = layer.down
        tensors[f"{prefix}{module}.lora_B.weight"] = layer.up
        if layer.magnitude is not None:
            magnitude = layer.magnitude
            if layer.up.ndim == 4:
                magnitude = magnitude.reshape(1, -1, 1, 1)
            tensors[f"{prefix}{module}.lora_magnitude_vector{ending}"] = magnitude
    return tensors
