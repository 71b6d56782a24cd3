"""How files call a model's layers, where that is not what the model calls them itself.

transformers 5.6 took the level `text_model` out of `CLIPTextModel`; every file, in every layout,
still has it (`text_encoder.text_model.encoder.…`, `lora_te_text_model_encoder_…`), and so do the
other tools that read what hublora writes. Files by newer diffusers may lack it.

kohya's tools train SDXL on Stability's own U-Net, whose blocks are numbered throughout
(`input_blocks.4.1.…`); ComfyUI writes those names too. Sources: kohya-ss sd-scripts
`library/sdxl_model_util.py`, `make_unet_conversion_map`; diffusers
`_maybe_map_sgm_blocks_to_diffusers`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

WRAPPER = "text_model."

_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
_SAMPLER = re.compile(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
RESNET_PARTS = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def file_prefix(model: Any) -> str:
    """Return what files put before the names of this model's layers; mostly nothing."""
    flat = type(model).__name__ == "CLIPTextModel" and not hasattr(model, "text_model")
    return WRAPPER if flat else ""


def names_in_files(model: Any, names: Iterable[str]) -> dict[str, str]:
    """Return each name that a file may have for a layer of `model` -> the model's own name.

    Args:
        model: A component of a pipeline.
        names: Its layers, as it calls them.
    """
    return file_names(list(names), file_prefix(model))


def file_names(names: Collection[str], prefix: str | None = None) -> dict[str, str]:
    """Return each name that a file may have for a layer -> the layer's own name.

    Args:
        names: All layers of a model, as it or its weights call them.
        prefix: What files put before them; None to tell it from the names.
    """
    if prefix is None:
        text = any(name.startswith("encoder.layers.") for name in names)
        prefix = WRAPPER if text else ""
    own = {name: name for name in names}
    wrapped = {prefix + name: name for name in own}
    bare = {name.removeprefix(WRAPPER): name for name in own}
    sgm = {name: layer for layer, name in sgm_names(names).items()}
    return sgm | bare | wrapped | own


def sgm_names(names: Collection[str], layers_per_block: int | None = None) -> dict[str, str]:
    """Return the layers of a diffusers U-Net -> what Stability's own U-Net calls them.

    Args:
        names: Layers of a U-Net; those of other models are left out.
        layers_per_block: Resnets in a block on the way down; told from `names` if they are all
            the U-Net has, or all its attentions.
    """
    if layers_per_block is None:
        layers_per_block = _layers_per_block(names)
    attentive = {
        (match[1], match[2])
        for name in names
        if (match := _BLOCK.match(name))
        if match[3] == "attentions"
    }
    found = {}
    for name in names:
        if sgm := _sgm_name(name, layers_per_block, attentive):
            found[name] = sgm
    return found


def _layers_per_block(names: Collection[str]) -> int:
    """A block on the way up has one layer more than one on the way down."""
    counts = [1]
    for name in names:
        if match := _BLOCK.match(name):
            counts.append(int(match[4]) + (match[1] == "down"))
    return max(counts)


def _sgm_name(name: str, layers: int, attentive: Collection[tuple[str, str]]) -> str | None:
    if name in OUTSIDE_BLOCKS:
        return OUTSIDE_BLOCKS[name]
    if match := _MIDDLE.fullmatch(name):
        kind, index, rest = match.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{_inner(kind, rest)}"
    if match := _SAMPLER.fullmatch(name):
        first = (layers + 1) * int(match[2])
        if match[1] == "down":
            return f"input_blocks.{first + layers + 1}.0.op"
        place = 2 if match.groups() in attentive else 1
        return f"output_blocks.{first + layers}.{place}.conv"
    if match := _BLOCK.fullmatch(name):
        way, block, kind, index, rest = match.groups()
        number = (layers + 1) * int(block) + int(index) + (way == "down")
        side = "input" if way == "down" else "output"
        return f"{side}_blocks.{number}.{int(kind == 'attentions')}.{_inner(kind, rest)}"
    return None


def _inner(kind: str, rest: str) -> str:
    return RESNET_PARTS.get(rest, rest) if kind == "resnets" else rest
