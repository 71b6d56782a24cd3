"""kohya's flattened names without the base at hand: dots put back by the vocabulary of U-Nets and
CLIP, and Stability's block numbers turned into diffusers' blocks.

With the base, its own names are looked up instead (`hublora.adapters.fit`), whatever they are.
"""

from __future__ import annotations

import re

from hublora.adapters.modules import OUTSIDE_BLOCKS, RESNET_PARTS

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
_MIDDLE = re.compile(r"middle_block\.([012])\.(.+)")
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

    The inverse of `hublora.adapters.modules.sgm_names`.
    """
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    if match := _MIDDLE.fullmatch(name):
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
