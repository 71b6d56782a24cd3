"""Names of a U-Net's layers in adapter files.

    layout              a layer's name
    diffusers           down_blocks.1.attentions.0.proj_in
    diffusers, oldest   …attn1.processor.to_q_lora (a processor instead of its layers)
    original            input_blocks.4.1.proj_in   (blocks numbered throughout; ComfyUI, and kohya's
                                                    tools for SDXL)
    flattened           either of them with _ for .

Sources: kohya-ss sd-scripts `library/sdxl_model_util.py`, `make_unet_conversion_map`; diffusers
`_maybe_map_sgm_blocks_to_diffusers` and `state_dict_utils.DIFFUSERS_OLD_TO_PEFT`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

# Resnets in a block on the way down, in every Stable Diffusion that was published.
LAYERS_PER_BLOCK = 2

_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
_SAMPLER = re.compile(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_NATIVE_BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)")
_NATIVE_MIDDLE = re.compile(r"middle_block\.([012])\.(.+)")
_NATIVE_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_NATIVE_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {native: layer for layer, native in _NATIVE_RESNET.items()}
_OUTSIDE = {native: layer for layer, native in _NATIVE_OUTSIDE.items()}

# The words between the dots of a layer's name, of U-Nets in both namings and of text encoders.
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
_UNET_STARTS = (
    *("down_blocks.", "mid_block.", "up_blocks.", "conv_in", "conv_out", "time_embedding."),
    *("add_embedding.", "input_blocks.", "middle_block.", "output_blocks."),
    *("time_embed.0", "time_embed.2", "label_emb.", "out."),
)
_FLAT_STARTS = tuple(start.replace(".", "_") for start in _UNET_STARTS)
_CONVOLUTIONS_3X3 = ("conv1", "conv2", "conv_in", "conv_out", "samplers.0.conv")


@dataclass(frozen=True)
class UNetLoraNames:
    """Layer names of a family with a U-Net; see `hublora.families.lora_names.LoraNames`.

    Attributes:
        kohya_prefixes: Component -> prefix in kohya's layout, as it is written.
        flat_prefixes: Prefix of names whose dots are underscores -> component, as it is read.
        kohya_is_native: Whether kohya's tools flatten the original names or diffusers'.
        pointwise_architectures: Beginnings of the modelspec names of architectures whose `proj_in`
            and `proj_out` are 1×1 convolutions; linear layers elsewhere.
        native_prefixes: Prefix of dotted original names -> component, as ComfyUI writes them.
    """

    kohya_prefixes: Mapping[str, str]
    flat_prefixes: Mapping[str, str]
    kohya_is_native: bool
    pointwise_architectures: tuple[str, ...] = ()
    native_prefixes: Mapping[str, str] = field(
        default_factory=lambda: {
            "diffusion_model.": "unet",
            "text_encoders.clip_l.transformer.": "text_encoder",
            "text_encoders.clip_g.transformer.": "text_encoder_2",
        }
    )

    def native_layers(self, layers: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        """Return the original name of each layer; none of a U-Net's is fused."""
        return {native: (layer,) for layer, native in native_names(layers).items()}

    def readable_layers(self, layers: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        return self.native_layers(layers)

    def knows(self, layer: str) -> bool:
        return layer.startswith(_UNET_STARTS)

    def knows_flat(self, name: str) -> bool:
        return name.startswith(_FLAT_STARTS)

    def is_swapped(self, layer: str, shape: tuple[int, ...] | None) -> bool:
        return False

    def kohya_layers(
        self, layers: Collection[str], base_layers: Collection[str] | None = None
    ) -> Mapping[str, str]:
        native = {}
        if self.kohya_is_native:
            native = (
                native_names(base_layers) if base_layers else native_names(layers, LAYERS_PER_BLOCK)
            )
        return {layer: native.get(layer, layer) for layer in layers}

    def kernel(self, layer: str, architecture: str | None) -> tuple[int, int] | None:
        if layer.endswith(_CONVOLUTIONS_3X3):
            return 3, 3
        pointwise: tuple[str, ...] = (".conv_shortcut",)
        if architecture is not None and architecture.startswith(self.pointwise_architectures):
            pointwise += (".proj_in", ".proj_out")
        return (1, 1) if layer.endswith(pointwise) else None

    def unflatten(self, name: str) -> str | None:
        return unflatten(name)

    def diffusers_name(self, name: str) -> str | None:
        return from_native(name)

    def current_name(self, component: str, layer: str) -> str:
        """Undo the naming by attention processors: `attn1.processor.to_out` is the layer
        `attn1.to_out.0`, and in a text encoder `self_attn.to_q` is `self_attn.q_proj`."""
        if component.startswith("text_encoder"):
            return re.sub(r"\.self_attn\.to_(q|k|v|out)\Z", r".self_attn.\1_proj", layer)
        layer = layer.replace(".processor.", ".")
        return re.sub(r"(\.attn\d+)\.to_out\Z", r"\1.to_out.0", layer)


def native_names(layers: Collection[str], layers_per_block: int | None = None) -> dict[str, str]:
    """Return the layers of a diffusers U-Net -> their names in Stability's own.

    Args:
        layers: Layers of a U-Net; those of other models are left out.
        layers_per_block: Resnets in a block on the way down; None determines it from `layers`,
            which are then all layers of the U-Net, or all its attentions.
    """
    if layers_per_block is None:
        layers_per_block = _layers_per_block(layers)
    attentive = {
        (match[1], match[2])
        for layer in layers
        if (match := _BLOCK.match(layer))
        if match[3] == "attentions"
    }
    found = {}
    for layer in layers:
        if native := _native_name(layer, layers_per_block, attentive):
            found[layer] = native
    return found


def from_native(name: str, layers_per_block: int = LAYERS_PER_BLOCK) -> str:
    """Return diffusers' name of a layer of Stability's U-Net; any other name is returned as it is.

    The inverse of `native_names`.
    """
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    if match := _NATIVE_MIDDLE.fullmatch(name):
        place, rest = int(match[1]), match[2]
        if place == 1:
            return f"mid_block.attentions.0.{rest}"
        return f"mid_block.resnets.{place // 2}.{_RESNET.get(rest, rest)}"
    if match := _NATIVE_BLOCK.fullmatch(name):
        side, number, place, rest = match[1], int(match[2]), int(match[3]), match[4]
        way = "down" if side == "input" else "up"
        block, index = divmod(number - (way == "down"), layers_per_block + 1)
        if rest == "op":
            return f"down_blocks.{block}.downsamplers.0.conv"
        if rest == "conv":
            return f"up_blocks.{block}.upsamplers.0.conv"
        if place == 1:
            return f"{way}_blocks.{block}.attentions.{index}.{rest}"
        return f"{way}_blocks.{block}.resnets.{index}.{_RESNET.get(rest, rest)}"
    return name


def unflatten(name: str, layers_per_block: int = LAYERS_PER_BLOCK) -> str | None:
    """Return diffusers' name of a layer, None if the name has a word that is not known.

    Args:
        name: A flattened name without its prefix, e.g. "input_blocks_4_1_proj_in".
        layers_per_block: Resnets in a block of the U-Net on the way down.
    """
    parts, end = [], 0
    while end < len(name):
        match = _WORD.match(name, end)
        if match is None:
            return None
        parts.append(match[1])
        end = match.end()
    return from_native(".".join(parts), layers_per_block)


def _layers_per_block(layers: Collection[str]) -> int:
    """A block on the way up has one layer more than one on the way down."""
    counts = [1]
    for layer in layers:
        if match := _BLOCK.match(layer):
            counts.append(int(match[4]) + (match[1] == "down"))
    return max(counts)


def _native_name(
    layer: str, layers_per_block: int, attentive: Collection[tuple[str, str]]
) -> str | None:
    if layer in _NATIVE_OUTSIDE:
        return _NATIVE_OUTSIDE[layer]
    if match := _MIDDLE.fullmatch(layer):
        kind, index, rest = match.groups()
        place = 1 if kind == "attentions" else 2 * int(index)
        return f"middle_block.{place}.{_native_rest(kind, rest)}"
    if match := _SAMPLER.fullmatch(layer):
        first = (layers_per_block + 1) * int(match[2])
        if match[1] == "down":
            return f"input_blocks.{first + layers_per_block + 1}.0.op"
        place = 2 if match.groups() in attentive else 1
        return f"output_blocks.{first + layers_per_block}.{place}.conv"
    if match := _BLOCK.fullmatch(layer):
        way, block, kind, index, rest = match.groups()
        number = (layers_per_block + 1) * int(block) + int(index) + (way == "down")
        side = "input" if way == "down" else "output"
        place = int(kind == "attentions")
        return f"{side}_blocks.{number}.{place}.{_native_rest(kind, rest)}"
    return None


def _native_rest(kind: str, rest: str) -> str:
    return _NATIVE_RESNET.get(rest, rest) if kind == "resnets" else rest
