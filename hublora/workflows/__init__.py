"""The map: what hublora does, one function each.

make    `caption`    pictures ─ captioning model ─▶ captioned pictures
        `train`      dataset ref ─ data ─▶ training ─▶ adapter ─▶ card ─▶ run folder
share   `push`       run folder ─ check ─▶ one commit ─ read back ─▶ user/name@commit
use     `load`       adapter refs ─ resolve ─▶ adapters ─ compose ─▶ pipeline
        `run`        … ─ sample ─▶ pictures that say how they were made
        `convert`    adapter ref ─ resolve ─▶ adapter ─▶ the same in another layout
look    `inspect`    adapter refs ─ headers and cards ─▶ facts
        `preflight`  … and a base's headers ─▶ what fits, and what does not add up

Each is imported when it is used: looking at headers needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hublora.workflows.captions import caption
    from hublora.workflows.conversion import convert
    from hublora.workflows.inspection import inspect, preflight
    from hublora.workflows.make import train
    from hublora.workflows.results import TrainingResult
    from hublora.workflows.share import push, verify
    from hublora.workflows.use import load, run

__all__ = [
    "TrainingResult",
    "caption",
    "convert",
    "inspect",
    "load",
    "preflight",
    "push",
    "run",
    "train",
    "verify",
]

_MODULES = {
    "TrainingResult": "results",
    "caption": "captions",
    "convert": "conversion",
    "inspect": "inspection",
    "load": "use",
    "preflight": "inspection",
    "push": "share",
    "run": "use",
    "train": "make",
    "verify": "share",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'hublora.workflows' has no attribute {name!r}")
    return getattr(import_module(f"hublora.workflows.{_MODULES[name]}"), name)
