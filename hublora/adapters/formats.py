"""Layouts of adapter files: names of tensors in each, and one function each way.

    layout      a layer's tensors
    diffusers   unet.<module>.lora_A.weight            unet.<module>.lora_B.weight
                unet.<module>.lora.down.weight         unet.<module>.lora.up.weight    (older)
                text_encoder.<module>.lora_linear_layer.down.weight … .up.weight       (older)
                unet.<attn>.processor.to_q_lora.down.weight … .up.weight               (oldest)
    peft        base_model.model.<module>.lora_A.weight …                              (one model)
    kohya       lora_unet_<module with _ for .>.lora_down.weight … .lora_up.weight .alpha

Files that mix the diffusers namings exist (its own training scripts write them for targets beyond
attention); each tensor is read by its own name, so they are read whole.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hublora.adapters.adapter import Adapter, LowRank, peft_config
from hublora.errors import AdapterError

if TYPE_CHECKING:
    import torch

COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
KOHYA_PREFIXES = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}

# Ending of a tensor's name -> which half of the pair it is.
_ENDINGS = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}
_PEFT_PREFIX = "base_model.model."


def detect_layout(names: Iterable[str]) -> str:
    """Return "kohya", "peft" or "diffusers" from the names of a file's tensors.

    Raises:
        AdapterError: The names are those of no adapter known here.
    """
    names = list(names)
    if any(name.startswith(tuple(KOHYA_PREFIXES)) for name in names):
        return "kohya"
    if any(name.startswith(_PEFT_PREFIX) for name in names):
        return "peft"
    if any(_split(name) for name in names):
        return "diffusers"
    shown = ", ".join(sorted(names)[:2])
    raise AdapterError(
        f"This is not a LoRA adapter: its tensors are named like {shown or '(none)'}."
    )


def parse_name(name: str, component: str = "unet") -> tuple[str, str, str] | None:
    """Return (component, module, half) of one tensor's name, or None if it is of no adapter.

    In kohya's layout the module still has `_` where the model has `.`; see `restore_kohya_names`.
    """
    split = _split(name)
    if split is None:
        return None
    module, half = split
    for prefix, kohya_component in KOHYA_PREFIXES.items():
        if module.startswith(prefix):
            return kohya_component, module.removeprefix(prefix), half
    module = module.removeprefix(_PEFT_PREFIX)
    for candidate in COMPONENTS:
        if module.startswith(candidate + "."):
            component, module = candidate, module.removeprefix(candidate + ".")
            break
    return component, _plain_module(module, component), half


def read_layers(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    config: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, LowRank]]:
    """Return the updates in a file by component and module, every tensor accounted for.

    Args:
        tensors: The file's tensors.
        metadata: The file's `__metadata__`; `lora_adapter_metadata` gives ranks' alphas.
        config: `adapter_config.json` of a PEFT folder, if there is one.

    Raises:
        AdapterError: A tensor belongs to no known kind of adapter, or lacks its other half.
    """
    halves: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        parsed = parse_name(name)
        if parsed is None:
            raise AdapterError(
                f"The tensor {name!r} belongs to no kind of adapter that hublora reads.",
                "LoRA in diffusers, PEFT and kohya layout is read.",
            )
        component, module, half = parsed
        if half in halves.setdefault((component, module), {}):
            raise AdapterError(f"The layer {module!r} is in the file twice, under two names.")
        halves[component, module][half] = tensor
    layers: dict[str, dict[str, LowRank]] = {}
    for (component, module), found in halves.items():
        if "down" not in found or "up" not in found:
            raise AdapterError(f"The file has only one half of the layer {module!r}.")
        down, up = found["down"], found["up"]
        fits = down.ndim >= 2 and up.ndim >= 2 and 0 < down.shape[0] == up.shape[1]
        if not fits:
            raise AdapterError(
                f"The two halves of the layer {module!r} do not fit: "
                f"{tuple(down.shape)} and {tuple(up.shape)}."
            )
        if "alpha" in found:
            alpha = _number(found["alpha"], module)
        else:
            alpha = _alpha(component, module, int(down.shape[0]), metadata, config)
        layers.setdefault(component, {})[module] = LowRank(down, up, alpha)
    return layers


def restore_kohya_names(
    layers: Mapping[str, Mapping[str, LowRank]], modules: Mapping[str, Collection[str]]
) -> dict[str, dict[str, LowRank]]:
    """Return `layers` with kohya's flattened names replaced by the model's own.

    Flattening is not reversible by itself (`to_out_0`), so the names are looked up among the
    modules of the base. Names that are not found stay as they are: they fit nothing, and the check
    before loading says so.

    Args:
        layers: As `read_layers` returns them for a kohya file.
        modules: Component -> names of its modules.
    """
    restored: dict[str, dict[str, LowRank]] = {}
    for component, updates in layers.items():
        by_flat = {name.replace(".", "_"): name for name in modules.get(component, ())}
        restored[component] = {by_flat.get(flat, flat): layer for flat, layer in updates.items()}
    return restored


def to_diffusers(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return tensors and metadata of the diffusers layout, in one naming throughout.

    The metadata is what `save_lora_weights` of diffusers writes: `format` and, as JSON,
    the LoraConfig of each component with prefixed keys.
    """
    tensors: dict[str, torch.Tensor] = {}
    config: dict[str, Any] = {}
    for component, modules in sorted(adapter.layers.items()):
        for module, layer in sorted(modules.items()):
            tensors[f"{component}.{module}.lora_A.weight"] = layer.down
            tensors[f"{component}.{module}.lora_B.weight"] = layer.up
        config |= {f"{component}.{key}": value for key, value in peft_config(modules).items()}
    return tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(config, sort_keys=True)}


def to_kohya(adapter: Adapter, prefixes: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Return the tensors of kohya's layout, which ComfyUI and AUTOMATIC1111 read.

    Args:
        adapter: The adapter.
        prefixes: Component -> kohya prefix, e.g. {"unet": "lora_unet"}; a family's own fact.

    Raises:
        AdapterError: The layout has no prefix for a component of this adapter.
    """
    import torch

    tensors: dict[str, torch.Tensor] = {}
    for component, modules in sorted(adapter.layers.items()):
        if component not in prefixes:
            raise AdapterError(f"kohya's layout has no place for the component {component!r}.")
        for module, layer in sorted(modules.items()):
            name = f"{prefixes[component]}_{module.replace('.', '_')}"
            tensors[f"{name}.lora_down.weight"] = layer.down
            tensors[f"{name}.lora_up.weight"] = layer.up
            tensors[f"{name}.alpha"] = torch.tensor(layer.alpha, dtype=layer.down.dtype)
    return tensors


def _split(name: str) -> tuple[str, str] | None:
    for ending, half in _ENDINGS.items():
        if name.endswith(ending):
            return name.removesuffix(ending), half
    return None


def _plain_module(module: str, component: str) -> str:
    """Undo the oldest diffusers naming, which named the processors of attention, not its layers.

    `attn1.processor.to_out` is the layer `attn1.to_out.0`; in a text encoder, `self_attn.to_q` is
    `self_attn.q_proj` (diffusers `state_dict_utils.DIFFUSERS_OLD_TO_PEFT`).
    """
    if component.startswith("text_encoder"):
        return re.sub(r"\.self_attn\.to_(q|k|v|out)\Z", r".self_attn.\1_proj", module)
    module = module.replace(".processor.", ".")
    return re.sub(r"(\.attn\d+)\.to_out\Z", r"\1.to_out.0", module)


def stated_config(component: str, metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the LoraConfig that a diffusers file states for a component, None if it has none.

    Raises:
        AdapterError: It does not parse.
    """
    text = metadata.get("lora_adapter_metadata")
    if text is None:
        return None
    try:
        everything = json.loads(text)
    except ValueError as error:
        raise AdapterError("The file's lora_adapter_metadata is not JSON.") from error
    if not isinstance(everything, dict):
        raise AdapterError("The file's lora_adapter_metadata holds no settings.")
    prefix = component + "."
    return {
        key.removeprefix(prefix): value
        for key, value in everything.items()
        if key.startswith(prefix)
    }


def _alpha(
    component: str,
    module: str,
    rank: int,
    metadata: Mapping[str, str],
    config: Mapping[str, Any] | None,
) -> float:
    """Return the alpha that the file's metadata states for a layer; alpha = rank if none does.

    Rank-stabilised adapters scale by alpha / √rank (https://huggingface.co/papers/2312.03732);
    theirs is turned into the alpha that gives the same scale here.
    """
    stated = stated_config(component, metadata)
    if stated is None:
        stated = dict(config or {})
    patterns = stated.get("alpha_pattern")
    own = [
        alpha
        for pattern, alpha in (patterns.items() if isinstance(patterns, dict) else ())
        if _matches(pattern, module)
    ]
    alpha = own[0] if own else stated.get("lora_alpha")
    if alpha is None:
        return float(rank)
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise AdapterError(f"The alpha stated for the layer {module!r} is no number: {alpha!r}.")
    return alpha * math.sqrt(rank) if stated.get("use_rslora") else float(alpha)


def _number(tensor: torch.Tensor, module: str) -> float:
    if tensor.numel() != 1:
        raise AdapterError(f"The alpha of the layer {module!r} is not one number.")
    return float(tensor)


def _matches(pattern: str, module: str) -> bool:
    """Tell whether a PEFT pattern names this module: `peft.utils.other.get_pattern_key`'s rule.

    Patterns come out of files of strangers, so they are never run as regular expressions.
    """
    bare = re.sub(r"\\(.)", r"\1", pattern.removeprefix("^").removesuffix("$"))
    if not re.fullmatch(r"[\w.-]+", bare):
        raise AdapterError(
            f"The file's alpha_pattern {pattern!r} is not the name of a layer.",
            "Save the adapter again with full layer names.",
        )
    return module == bare or (not pattern.startswith("^") and module.endswith("." + bare))
