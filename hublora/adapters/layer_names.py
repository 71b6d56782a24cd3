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


LAYERS_PER_BLOCK = 2  # of every Stable Diffusion that was published

_WORDS = (
    *("down_blocks", "mid_block", "up_blocks", "attentions", "resnets", "downsamplers"),
    *("upsamplers", "transformer_blocks", "attn1", "attn2", "to_q", "to_k", "to_v", "to_out"),
    *("ff", "net", "proj", "proj_in", "proj_out", "conv", "conv1", "conv2", "conv_in", "conv_out"),
    *("conv_shortcut", "time_emb_proj", "time_embedding", "add_embedding", "linear_1", "linear_2"),
    *("input_blocks", "middle_block", "output_blocks", "in_layers", "out_layers", "emb_layers"),
    *("skip_connection", "time_embed", "label_emb", "op", "out"),
    *("text_model", "encoder", "layers", "self_attn", "mlp", "fc1", "fc2"),
    *("q_proj", "k_proj", "v_proj", "out_proj", "text_projection"),
)
_WORD = re.compile("(" + "|".join([*sorted(_WORDS, key=len, reverse=True), r"\d+"]) + r")(?:_|\Z)")
_NUMBERED = re.compile(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)")
_SGM_MIDDLE = re.compile(r"middle_block\.([012])\.(.+)")
_RESNET_LAYERS = {theirs: ours for ours, theirs in RESNET_PARTS.items()}
_OUTSIDE = {theirs: ours for ours, theirs in OUTSIDE_BLOCKS.items()}


def unflatten(flat: str, layers_per_block: int = LAYERS_PER_BLOCK) -> str | None:
    """Return diffusers' name of a layer, None if the name has a word that is not known.

    Args:
        flat: The name in kohya's layout without its prefix, e.g. "input_blocks_4_1_proj_in".
        layers_per_block: Resnets in a block of the U-Net on the way down.
    """
    parts, end = [], 0
    while end < len(flat):
        match = _WORD.match(flat, end)
        if match is None:
            return None
        parts.append(match[1])
        end = match.end()
    return from_sgm(".".join(parts), layers_per_block)


def from_sgm(name: str, layers_per_block: int = LAYERS_PER_BLOCK) -> str:
    """Return diffusers' name of a layer of Stability's U-Net; others stay as they are.

    The inverse of `hublora.adapters.layer_names.sgm_names`.
    """
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    if match := _SGM_MIDDLE.fullmatch(name):
        place, rest = int(match[1]), match[2]
        if place == 1:
            return f"mid_block.attentions.0.{rest}"
        return f"mid_block.resnets.{place // 2}.{_RESNET_LAYERS.get(rest, rest)}"
    if match := _NUMBERED.fullmatch(name):
        side, number, place, rest = match[1], int(match[2]), int(match[3]), match[4]
        way = "down" if side == "input" else "up"
        block, index = divmod(number - (way == "down"), layers_per_block + 1)
        if rest == "op":
            return f"down_blocks.{block}.downsamplers.0.conv"
        if rest == "conv":
            return f"up_blocks.{block}.upsamplers.0.conv"
        if place == 1:
            return f"{way}_blocks.{block}.attentions.{index}.{rest}"
        return f"{way}_blocks.{block}.resnets.{index}.{_RESNET_LAYERS.get(rest, rest)}"
    return name
