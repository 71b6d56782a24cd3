"""Device placement of a pipeline's weights while it generates, and tiling of its decoder."""

from __future__ import annotations

from typing import Any

from hublora.errors import ConfigError
from hublora.families import Family, family_of_pipeline, text_encoders_of
from hublora.memory.offload import check_offload_name, parse_blocks


def check_offload(device: str, offload: str | None) -> None:
    """Check that the device can offload.

    Raises:
        ConfigError: It is the CPU, or there is no such way to offload.
    """
    if offload is not None:
        check_offload_name(offload)
    if offload is not None and device.startswith("cpu"):
        raise ConfigError("Everything is on the CPU: there is no GPU to offload from.")


def place(pipe: Any, device: str, offload: str | None = None, tiled_vae: bool = False) -> None:
    """Move a pipeline to the device, whole or component by component as it is needed.

    Args:
        pipe: A diffusers pipeline with its adapters.
        device: A torch device.
        offload: "model" keeps one component on the device at a time, "blocks" of the denoiser two
            blocks, "blocks:8" all blocks but eight, and "sequential" one layer: less memory, and
            slower.
        tiled_vae: Decode images one by one and in tiles.

    Raises:
        ConfigError: The device is the CPU, which cannot offload.
    """
    if tiled_vae:
        pipe.vae.enable_slicing()
        pipe.vae.enable_tiling()
    check_offload(device, offload)
    if offload is None:
        pipe.to(device)
        return
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload != "sequential":
        swap_blocks(pipe, family_of_pipeline(pipe), device, parse_blocks(offload))
    else:
        pipe.enable_sequential_cpu_offload(device=device)
        keep_adapters(pipe, device)


def swap_blocks(pipe: Any, family: Family, device: str, count: int | None) -> None:
    """Swap blocks of the denoiser with the CPU's memory, and have every other component on the
    device only while it computes.

    Args:
        pipe: A diffusers pipeline on the CPU.
        family: Family of the pipeline.
        device: A torch device.
        count: Number of blocks that are swapped; None swaps all.

    Raises:
        ConfigError: The denoiser has fewer blocks.
    """
    import torch
    from accelerate import cpu_offload_with_hook

    from hublora.memory.block_swap import BlockSwap

    on, denoiser = torch.device(device), getattr(pipe, family.denoiser)
    before: list[Any] = []  # components that are not needed any more when the denoiser computes
    hook = None
    for name in (*text_encoders_of(family, pipe), family.vae):
        _, hook = cpu_offload_with_hook(getattr(pipe, name), on, prev_module_hook=hook)
        before.append(hook)
    BlockSwap(denoiser, count, on)

    def release(*_: Any) -> None:
        for one in before:
            one.offload()

    denoiser.register_forward_pre_hook(release)


def keep_adapters(pipe: Any, device: str) -> None:
    """Move the adapters of a pipeline that is offloaded layer by layer to the device for good.

    They are small, and change while an image is generated.
    """
    from accelerate.hooks import remove_hook_from_module
    from peft.tuners.lora.layer import LoraLayer

    for model in pipe.components.values():
        for layer in model.modules() if hasattr(model, "modules") else ():
            if isinstance(layer, LoraLayer):
                for own in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
                    remove_hook_from_module(own, recurse=True)
                    own.to(device)
