"""Published adapters that let Stable Diffusion XL generate in a few steps.

Settings as their cards state them: huggingface.co/latent-consistency/lcm-lora-sdxl,
ByteDance/SDXL-Lightning, ByteDance/Hyper-SD.
"""

from __future__ import annotations

from hublora.families.speed import SpeedAdapter, SpeedSettings

SPEED_ADAPTERS = (
    SpeedAdapter(r"lcm[-_]?lora[-_]?(sdxl|ssd)", SpeedSettings(4, 1.0, "LCM"), tag="lcm"),
    SpeedAdapter(
        r"sdxl[-_]lightning[-_](?P<steps>\d+)steps?",
        SpeedSettings(4, 0.0, "EulerDiscrete", "trailing"),
    ),
    SpeedAdapter(r"hyper-sdxl-(?P<steps>\d+)steps?-cfg", SpeedSettings(8, 5.0, "DDIM", "trailing")),
    SpeedAdapter(r"hyper-sdxl-1step", SpeedSettings(1, 0.0, "TCD")),
    SpeedAdapter(r"hyper-sdxl-(?P<steps>\d+)steps", SpeedSettings(4, 0.0, "DDIM", "trailing")),
)
