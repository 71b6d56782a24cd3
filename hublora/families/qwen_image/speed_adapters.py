"""Published adapters that let Qwen-Image generate in a few steps.

Settings as their card states them, huggingface.co/lightx2v/Qwen-Image-Lightning: the exponential
shift by log 3 for all sizes is the shift 3, and the schedule has no end of its own.
"""

from __future__ import annotations

from hublora.families.speed import SpeedAdapter, SpeedSettings

SPEED_ADAPTERS = (
    SpeedAdapter(
        r"qwen-image(-\d+)?-lightning-(?P<steps>\d+)steps", SpeedSettings(4, 1.0, shift=3.0)
    ),
)
