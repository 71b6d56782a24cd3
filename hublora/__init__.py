"""Train, share and run diffusion LoRA adapters by Hub repo id.

    import hublora

    pipe = hublora.load("user/pokemon-lora")          # a native diffusers pipeline
    pipe("Totoro").images[0]

Importing this loads no torch; the first use of a name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hublora._version import __version__
from hublora.errors import HubloraError

if TYPE_CHECKING:
    from hublora.refs import AdapterRef
    from hublora.training.config import TrainingConfig
    from hublora.workflows import (
        TrainingResult,
        caption,
        compose,
        convert,
        inspect,
        load,
        outdated,
        push,
        replay,
        run,
        search,
        train,
        update,
        use,
    )

__all__ = [
    "AdapterRef",
    "HubloraError",
    "TrainingConfig",
    "TrainingResult",
    "__version__",
    "caption",
    "compose",
    "convert",
    "inspect",
    "load",
    "outdated",
    "push",
    "replay",
    "run",
    "search",
    "train",
    "update",
    "use",
]

_ELSEWHERE = {"AdapterRef": "hublora.refs", "TrainingConfig": "hublora.training.config"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hublora' has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "hublora.workflows")), name)


def __dir__() -> list[str]:
    return __all__
