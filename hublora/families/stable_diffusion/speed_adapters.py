"""Published adapters that let Stable Diffusion 1.x generate in a few steps.

Settings as their cards state them: huggingface.co/latent-consistency/lcm-lora-sdv1-5,
ByteDance/Hyper-SD.
"""

from __future__ import annotations

from hublora.families.speed import SpeedAdapter, SpeedSettings

# Of one step Hyper-SD is sampled with TCD, of more with DDIM whose timesteps end at the noisiest.
SPEED_ADAPTERS = (
    SpeedAdapter(r"lcm[-_]?lora[-_]?sd[-_]?v?1", SpeedSettings(4, 1.0, "LCM"), tag="lcm"),
    SpeedAdapter(r"hyper-sd15-(?P<steps>\d+)steps?-cfg", SpeedSettings(8, 5.0, "DDIM", "trailing")),
    SpeedAdapter(r"hyper-sd15-1step", SpeedSettings(1, 0.0, "TCD")),
    SpeedAdapter(r"hyper-sd15-(?P<steps>\d+)steps", SpeedSettings(4, 0.0, "DDIM", "trailing")),
)
