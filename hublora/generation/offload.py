"""Device placement of a pipeline's weights while it generates, and tiling of its decoder."""

from __future__ import annotations

from typing import Any, Literal

from hublora.errors import ConfigError

Offload = Literal["model", "sequential"]


def check_offload(device: str, offload: Offload | None) -> None:
    """Check that the device can offload.

    Raises:
        ConfigError: It is the CPU.
    """
    if offload is not None and device.startswith("cpu"):
        raise ConfigError("Everything is on the CPU: there is no GPU to offload from.")


def place(pipe: Any, device: str, offload: Offload | None = None, tiled_vae: bool = False) -> None:
    """Move a pipeline to the device, whole or component by component as it is needed.

    Args:
        pipe: A diffusers pipeline with its adapters.
        device: A torch device.
        offload: "model" keeps one component on the device at a time, "sequential" one layer:
            less memory, and slower.
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
    else:
        pipe.enable_sequential_cpu_offload(device=device)
        keep_adapters(pipe, device)


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
