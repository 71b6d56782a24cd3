"""Parses names of tensors in adapter files into component, layer and part of the update.

    layout      a layer's tensors
    diffusers   unet.<module>.lora_A.weight            unet.<module>.lora_B.weight
                unet.<module>.lora.down.weight         unet.<module>.lora.up.weight    (older)
                text_encoder.<module>.lora_linear_layer.down.weight … .up.weight       (older)
                unet.<attn>.processor.to_q_lora.down.weight … .up.weight               (oldest)
    peft        base_model.model.<module>.lora_A.weight …                              (one model)
    kohya       lora_unet_<module with _ for .>.lora_down.weight … .lora_up.weight .alpha
    XLabs       double_blocks.0.processor.qkv_lora1.down.weight … .up.weight           (FLUX.1)
    OMI         clip_l.<module>.lora_down.weight …    (OneTrainer; the U-Net as in diffusers)

Files of AUTOMATIC1111 and OneTrainer may bundle token embeddings, bundle_emb.<token>.<key>, which
`hublora.adapters.embeddings` reads.

Besides the pair of LoRA, a layer's update may have a DoRA magnitude (`lora_magnitude_vector`,
`dora_scale`), the middle factor of a Tucker decomposition (`lora_mid`), or be LyCORIS's products of
Hadamard (`hada_*`) and Kronecker (`lokr_*`).

Files may mix diffusers' namings (its training scripts write them for targets beyond attention);
each tensor is parsed by its own name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from hublora.errors import AdapterError
from hublora.families.registry import (
    COMPONENTS,
    FAMILIES,
    FLAT_PREFIXES,
    NATIVE_PREFIXES,
    UNNAMED_COMPONENT,
    component_of_flat,
    component_of_layer,
    component_of_native,
    current_name,
    unflatten,
)

LYCORIS_PARTS = (
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
)

# Ending of a tensor's name -> which part of the layer's update it is.
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
    ".lora_mid.weight": "mid",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    # PEFT's state dict without `get_peft_model_state_dict`, under the name of the adapter.
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_magnitude_vector.default.weight": "magnitude",
    ".lora_magnitude_vector.default": "magnitude",
    ".dora_scale": "dora_scale",
    ".alpha": "alpha",
    **{f".{part}": part for part in LYCORIS_PARTS},
}

# Ending -> what has such tensors; none of these is a low-rank update of a layer's weight.
_OTHERS = {
    ".diff": "full weights",
    ".diff_b": "full biases",
    ".bias_values": "biases",
    ".lora_B.bias": "biases",
    ".w_norm": "norm weights",
    ".b_norm": "norm biases",
    ".oft_blocks": "OFT",
    ".oft_diag": "OFT",
    ".oft_R": "OFT",
    ".boft_R": "BOFT",
    ".on_input": "IA3",
    ".ia3_l": "IA3",
    ".a1.weight": "GLoRA",
    ".vera_lambda_b": "VeRA",
}
_PEFT_PREFIX = "base_model.model."
# Prefix of OneTrainer's OMI naming, or of whole checkpoints -> the one in `NATIVE_PREFIXES`.
_OTHER_PREFIXES = {
    "model.diffusion_model.": "diffusion_model.",
    "clip_l.": "text_encoders.clip_l.transformer.",
    "clip_g.": "text_encoders.clip_g.transformer.",
}
BUNDLED = "bundle_emb."  # prefix of token embeddings
_XLABS = re.compile(r"(.*\.processor\.\w+_lora[12])\.(down|up)\.weight")
_CLIP = re.compile(r"(?:text_model\.)?encoder\.layers\.\d+\.(?:self_attn|mlp)\b")


def detect_layout(names: Iterable[str]) -> str:
    """Return "kohya", "peft" or "diffusers" from the names of a file's tensors.

    Raises:
        AdapterError: The names are not those of a supported adapter.
    """
    names = list(names)
    if any(name.startswith(FLAT_PREFIXES) for name in names):
        return "kohya"
    if any(name.startswith(_PEFT_PREFIX) for name in names):
        return "peft"
    if any(_split(name) for name in names):
        return "diffusers"
    for name in names:
        if kind := _other_kind(name):
            raise not_low_rank(name, kind)
    shown = ", ".join(sorted(names)[:2])
    raise AdapterError(
        f"This is not a LoRA adapter: its tensors are named like {shown or '(none)'}.",
        "hublora reads LoRA, DoRA, LoHa and LoKr in diffusers, PEFT and kohya layout.",
    )


@functools.lru_cache(maxsize=1 << 14)  # a file's names are read three times, another's are the same
def parse_name(name: str) -> tuple[str, str, str] | None:
    """Return (component, module, part) of one tensor's name, or None if it is of no adapter that
    is read.

    In kohya's layout the module still has `_` where the model has `.`.
    """
    split = _split(name)
    if split is None:
        return None
    module, part = split
    for prefix in FLAT_PREFIXES:
        if module.startswith(prefix):
            flat = module.removeprefix(prefix)
            return component_of_flat(prefix, flat), flat, part
    module = module.removeprefix(_PEFT_PREFIX)
    for prefix, usual in _OTHER_PREFIXES.items():
        if module.startswith(prefix):
            module = usual + module.removeprefix(prefix)
    for prefix in NATIVE_PREFIXES:
        if module.startswith(prefix):
            module = current_name(UNNAMED_COMPONENT, module.removeprefix(prefix))
            named = component_of_native(prefix, module)
            return (named, module, part) if named else None
    if _CLIP.match(module):  # a PEFT folder of a text encoder alone
        return "text_encoder", current_name("text_encoder", module), part
    bare = current_name(UNNAMED_COMPONENT, module)
    component = component_of_layer(bare) or UNNAMED_COMPONENT
    for candidate in COMPONENTS:
        if module.startswith(candidate + "."):
            component, module = candidate, module.removeprefix(candidate + ".")
            break
    return component, current_name(component, module), part


def is_bundled(name: str) -> bool:
    """Tell whether a tensor is of a token's embeddings that are bundled with the adapter."""
    return name.startswith(BUNDLED)


def repeated_layers(layers: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return each layer under a flattened name that is in the file under its own name too -> that.

    Some files have both namings, for tools that read either.

    Args:
        layers: (component, module) of each layer in a file.
    """
    known = set(layers)
    found = {}
    for component, module in known:
        if "." not in module and (own := unflatten(module)) and (component, own) in known:
            found[component, module] = (component, own)
    return {flat: own for flat, own in found.items() if flat != own}


def uses_peft_config(names: Iterable[str]) -> bool:
    """Tell whether an `adapter_config.json` beside a file is about it: its names are PEFT's, or
    those of one model alone. Beside files in other layouts it belongs to something else."""
    named = (f"{component}." for component in COMPONENTS)
    others = (*FLAT_PREFIXES, *NATIVE_PREFIXES, *_OTHER_PREFIXES, *named)
    return not any(name.startswith(others) for name in names)


def unknown_tensor(name: str) -> AdapterError:
    """Return the error for a tensor whose name `parse_name` does not parse."""
    if kind := _other_kind(name):
        return not_low_rank(name, kind)
    if _split(name):
        return AdapterError(
            f"The tensor {name!r} belongs to a model family that hublora does not support.",
            f"Supported are: {', '.join(FAMILIES)}.",
        )
    return AdapterError(
        f"The tensor {name!r} is of no kind of adapter that hublora reads.",
        "LoRA, DoRA, LoHa and LoKr in diffusers, PEFT and kohya layout are read.",
    )


def not_low_rank(name: str, kind: str) -> AdapterError:
    """Return the error for a tensor of a known kind that is not supported."""
    return AdapterError(
        f"The tensor {name!r} contains {kind}, which is no low-rank update of a layer.",
        "Ask its author for the adapter as LoRA, DoRA, LoHa or LoKr.",
    )


def _other_kind(name: str) -> str | None:
    return next((kind for ending, kind in _OTHERS.items() if name.endswith(ending)), None)


def _split(name: str) -> tuple[str, str] | None:
    for ending, part in _ENDINGS.items():
        if name.endswith(ending):
            return name.removesuffix(ending), part
    if match := _XLABS.fullmatch(name):
        return match[1], match[2]
    return None
