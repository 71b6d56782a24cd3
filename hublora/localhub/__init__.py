"""The embedded Hub: a server that speaks the Hugging Face Hub's API, with real git underneath.

`LocalHub` runs it in a process of its own; `import_folder`, `add_user` and `create_token` work on
its data folder, with or without a server running.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hublora.errors import HubloraError

if TYPE_CHECKING:
    from .offline import add_user, create_token, import_folder
    from .process import LocalHub

__all__ = ["LocalHub", "add_user", "create_token", "import_folder"]
_HOMES = {
    "LocalHub": "process",
    "add_user": "offline",
    "create_token": "offline",
    "import_folder": "offline",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: the command line stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if os.name == "nt":
        raise HubloraError("The embedded Hub needs Linux or macOS.", "On Windows, use it in WSL.")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
