"""Published adapters that let FLUX.1 dev generate in a few steps.

Settings as their cards state them: huggingface.co/alimama-creative/FLUX.1-Turbo-Alpha,
ByteDance/Hyper-SD.
"""

from __future__ import annotations

from hublora.families.speed import SpeedAdapter, SpeedSettings

SPEED_ADAPTERS = (
    SpeedAdapter(r"flux\.1-turbo-alpha", SpeedSettings(8, 3.5)),
    SpeedAdapter(r"hyper-flux\.1-dev-(?P<steps>\d+)steps", SpeedSettings(8, 3.5, weight=0.125)),
)
