"""Names in adapter files of Stable Diffusion 1.x and 2.x; kohya's tools flatten diffusers'."""

from __future__ import annotations

from hublora.families.latent_diffusion.lora_names import UNetLoraNames
from hublora.families.stable_diffusion.known_bases import V1

NAMES = UNetLoraNames(
    kohya_prefixes={"unet": "lora_unet", "text_encoder": "lora_te"},
    flat_prefixes={
        "lora_unet_": "unet",
        "lora_te_": "text_encoder",
        "lycoris_": "unet",  # LyCORIS's own wrapper, used on the denoiser
    },
    kohya_is_native=False,
    pointwise_architectures=(V1,),
)
