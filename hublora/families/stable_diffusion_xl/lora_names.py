"""Names in adapter files of Stable Diffusion XL: kohya's tools flatten Stability's own names.

Source: kohya-ss sd-scripts, `library/sdxl_model_util.py`, `make_unet_conversion_map`.
"""

from __future__ import annotations

from hublora.families.latent_diffusion.lora_names import UNetLoraNames

NAMES = UNetLoraNames(
    kohya_prefixes={
        "unet": "lora_unet",
        "text_encoder": "lora_te1",
        "text_encoder_2": "lora_te2",
    },
    flat_prefixes={
        "lora_unet_": "unet",
        "lora_te1_": "text_encoder",
        "lora_te2_": "text_encoder_2",
        "lycoris_": "unet",  # LyCORIS's own wrapper, used on the denoiser
    },
    kohya_is_native=True,
)
