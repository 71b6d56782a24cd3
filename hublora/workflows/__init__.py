"""The map: what hublora does, one function each.

make    `caption`    pictures ─ captioning model ─▶ captioned pictures
        `train`      dataset ref ─ data ─▶ training ─▶ adapter ─▶ card ─▶ run folder
share   `push`       run folder ─ check ─▶ one commit ─ read back ─▶ user/name@commit
use     `load`       adapter refs ─ resolve ─▶ adapters ─ compose ─▶ pipeline
        `use`        … other adapters for a pipeline that is there
        `run`        … ─ sample ─▶ pictures that say how they were made
        `replay`     picture ─ its metadata ─▶ the picture again
        `convert`    adapter ref ─ resolve ─▶ adapter ─▶ the same in another layout
mix     `compose`    adapter refs ─ pin ─▶ lockfile, card, gallery ─▶ user/mix@commit
        `outdated`   lockfile ─ ask the Hub ─▶ what moved;  `update` pins anew
look    `search`     words ─ the Hub's lists ─▶ adapters
        `inspect`    adapter refs ─ headers and cards ─▶ facts
        `preflight`  … and a base's headers ─▶ what fits, and what does not add up

Each is imported when it is used: looking at headers needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hublora.hub.search import search
    from hublora.workflows.captions import caption
    from hublora.workflows.compositions import compose
    from hublora.workflows.conversion import convert
    from hublora.workflows.inspection import inspect, preflight
    from hublora.workflows.loading import load, use
    from hublora.workflows.make import train
    from hublora.workflows.replaying import replay
    from hublora.workflows.results import TrainingResult
    from hublora.workflows.running import run
    from hublora.workflows.share import push, verify
    from hublora.workflows.upkeep import outdated, update

__all__ = [
    "TrainingResult",
    "caption",
    "compose",
    "convert",
    "inspect",
    "load",
    "outdated",
    "preflight",
    "push",
    "replay",
    "run",
    "search",
    "train",
    "update",
    "use",
    "verify",
]

_MODULES = {
    "TrainingResult": "workflows.results",
    "caption": "workflows.captions",
    "compose": "workflows.compositions",
    "convert": "workflows.conversion",
    "inspect": "workflows.inspection",
    "load": "workflows.loading",
    "outdated": "workflows.upkeep",
    "preflight": "workflows.inspection",
    "push": "workflows.share",
    "replay": "workflows.replaying",
    "run": "workflows.running",
    "search": "hub.search",
    "train": "workflows.make",
    "update": "workflows.upkeep",
    "use": "workflows.loading",
    "verify": "workflows.share",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'hublora.workflows' has no attribute {name!r}")
    return getattr(import_module(f"hublora.{_MODULES[name]}"), name)
