"""Writes the tiny pipelines as original single files: diffusers' names turned into the originals'.

The names are those of https://github.com/CompVis/stable-diffusion,
https://github.com/Stability-AI/generative-models and https://github.com/Tongyi-MAI/Z-Image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def stable_diffusion_file(pipe: Any, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write a StableDiffusionPipeline or StableDiffusionXLPipeline as one original file."""
    tensors = _prefixed("model.diffusion_model.", _unet(pipe.unet))
    tensors |= _prefixed("first_stage_model.", _vae(pipe.vae))
    if hasattr(pipe, "text_encoder_2"):
        tensors |= _prefixed("conditioner.embedders.0.transformer.", _clip(pipe.text_encoder))
        tensors |= _prefixed("conditioner.embedders.1.model.", _open_clip(pipe.text_encoder_2))
    else:
        tensors |= _prefixed("cond_stage_model.transformer.", _clip(pipe.text_encoder))
    return _save(tensors, path, dtype)


def z_image_file(transformer: Any, path: Path, prefix: str = "model.diffusion_model.") -> Path:
    """Write the transformer of a ZImagePipeline as one original file."""
    found: Tensors = {}
    fused: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in transformer.state_dict().items():
        if match := re.fullmatch(r"(.*attention)\.to_([qkv])\.weight", name):
            fused.setdefault(match[1], {})[match[2]] = tensor
            continue
        for own, native in (
            ("all_x_embedder.2-1", "x_embedder"),
            ("all_final_layer.2-1", "final_layer"),
            ("attention.to_out.0", "attention.out"),
            ("attention.norm_q", "attention.q_norm"),
            ("attention.norm_k", "attention.k_norm"),
        ):
            name = name.replace(own, native)
        found[name] = tensor
    for name, parts in fused.items():
        found[f"{name}.qkv.weight"] = torch.cat([parts[one] for one in "qkv"])
    return _save(_prefixed(prefix, found), path, torch.float32)


def _save(tensors: Tensors, path: Path, dtype: torch.dtype) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: one.to(dtype).clone() for name, one in tensors.items()}, path)
    return path


def _prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _renamed(tensors: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> Tensors:
    """Return the tensors under other names, the beginnings of which a table states."""
    found = {}
    for name, tensor in tensors.items():
        begins = [one for one in names if name.startswith(f"{one}.")]
        (begin,) = begins or [""]
        found[names[begin] + name.removeprefix(begin) if begin else name] = tensor
    return found


def _unet(unet: Any) -> Tensors:
    names = dict(_UNET)
    for own, native in _unet_blocks(unet):
        names[own] = native
    renamed = _renamed(unet.state_dict(), names)
    blocks = r"(?:input_blocks\.\d+|output_blocks\.\d+|middle_block)\.\d+"
    return {_resnet(name, _RESNET, blocks): one for name, one in renamed.items()}


def _resnet(name: str, parts: Mapping[str, str], before: str) -> str:
    for own, native in parts.items():
        name = re.sub(rf"({before})\.{re.escape(own)}\.", rf"\1.{native}.", name)
    return name


def _unet_blocks(unet: Any) -> Iterator[tuple[str, str]]:
    """Yield the beginnings of names in down and up blocks, in both namings."""
    number = 1
    for index, block in enumerate(unet.down_blocks):
        own = f"down_blocks.{index}"
        for layer in range(len(block.resnets)):
            yield f"{own}.resnets.{layer}", f"input_blocks.{number}.0"
            yield f"{own}.attentions.{layer}", f"input_blocks.{number}.1"
            number += 1
        if block.downsamplers:
            yield f"{own}.downsamplers.0.conv", f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for index, block in enumerate(unet.up_blocks):
        own, attends = f"up_blocks.{index}", hasattr(block, "attentions")
        for layer in range(len(block.resnets)):
            yield f"{own}.resnets.{layer}", f"output_blocks.{number}.0"
            yield f"{own}.attentions.{layer}", f"output_blocks.{number}.1"
            number += 1
        if block.upsamplers:
            place = 2 if attends else 1
            yield f"{own}.upsamplers.0.conv", f"output_blocks.{number - 1}.{place}.conv"


def _vae(vae: Any) -> Tensors:
    found: Tensors = {}
    top = len(vae.decoder.up_blocks) - 1
    for name, tensor in vae.state_dict().items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        if match := re.search(r"up_blocks\.(\d+)", name):
            name = name.replace(match[0], f"up.{top - int(match[1])}")
        name = name.replace("upsamplers.0", "upsample")
        name = re.sub(r"(up\.\d+)\.resnets\.(\d+)", r"\1.block.\2", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = _resnet(name, _VAE_RESNET, r"block\.\d+")
        if "mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1")
            name = _resnet(name, _VAE_ATTENTION, "attn_1")
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        found[name.replace("conv_norm_out", "norm_out")] = tensor
    return found


def _clip(model: Any) -> Tensors:
    bare = {name.removeprefix("text_model."): one for name, one in model.state_dict().items()}
    return _prefixed("text_model.", {n: t for n, t in bare.items() if "position_ids" not in n})


def _open_clip(model: Any) -> Tensors:
    found: Tensors = {}
    fused: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix("text_model.")
        if match := re.fullmatch(r"encoder\.(.*)\.self_attn\.([qkv])_proj\.(weight|bias)", name):
            place = f"transformer.{match[1].replace('layers', 'resblocks')}.attn.in_proj_{match[3]}"
            fused.setdefault(place, {})[match[2]] = tensor
        elif name.startswith("encoder.layers."):
            name = name.replace("encoder.layers", "transformer.resblocks")
            found[_resnet(name, _OPEN_CLIP, r"resblocks\.\d+")] = tensor
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.T.contiguous()
        elif name == "embeddings.position_embedding.weight":
            found["positional_embedding"] = tensor
        elif "position_ids" not in name:
            name = name.replace("embeddings.token_embedding", "token_embedding")
            found[name.replace("final_layer_norm", "ln_final")] = tensor
    return found | {name: torch.cat([one[part] for part in "qkv"]) for name, one in fused.items()}
