from __future__ import annotations

from tests.entry import hublora_cli

__all__ = ["hublora_cli"]
