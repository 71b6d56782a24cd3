"""Published adapters that let Stable Diffusion 3 generate in a few steps.

Settings as their card states them: huggingface.co/ByteDance/Hyper-SD.
"""

from __future__ import annotations

from hublora.families.speed import SpeedAdapter, SpeedSettings

SPEED_ADAPTERS = (
    SpeedAdapter(r"hyper-sd3-(?P<steps>\d+)steps-cfg", SpeedSettings(8, 5.0, weight=0.125)),
)
