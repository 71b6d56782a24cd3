"""The map: what hublora does, one function each.

make    `caption`    pictures ─ captioning model ─▶ captioned pictures
        `train`      dataset ref ─ data ─▶ training ─▶ adapter ─▶ card ─▶ run folder
        `fit`        config ─ measured steps ─▶ batch and passes that fit into memory
share   `push`       run folder ─ check ─▶ one commit ─ read back ─▶ user/name@commit
        `verify_repo`  user/name ─ read anew, draw again ─▶ whether it holds what it says
        `reproduce`  user/name ─ its recipe ─ `train` ─▶ whether it is made again
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
        `find_runs`  folder ─▶ the trainings in it, and how far each is

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
    from hublora.workflows.fitting import fit
    from hublora.workflows.inspection import inspect, preflight
    from hublora.workflows.loading import load, use
    from hublora.workflows.make import train
    from hublora.workflows.replaying import replay
    from hublora.workflows.reproduction import reproduce
    from hublora.workflows.results import TrainingResult
    from hublora.workflows.running import run
    from hublora.workflows.runs import find_runs
    from hublora.workflows.share import push, verify
    from hublora.workflows.upkeep import outdated, update
    from hublora.workflows.verification import verify_repo

__all__ = [
    "TrainingResult",
    "caption",
    "compose",
    "convert",
    "find_runs",
    "fit",
    "inspect",
    "load",
    "outdated",
    "preflight",
    "push",
    "replay",
    "reproduce",
    "run",
    "search",
    "train",
    "update",
    "use",
    "verify",
    "verify_repo",
]

_MODULES = {
    "TrainingResult": "workflows.results",
    "caption": "workflows.captions",
    "compose": "workflows.compositions",
    "convert": "workflows.conversion",
    "find_runs": "workflows.runs",
    "fit": "workflows.fitting",
    "inspect": "workflows.inspection",
    "load": "workflows.loading",
    "outdated": "workflows.upkeep",
    "preflight": "workflows.inspection",
    "push": "workflows.share",
    "replay": "workflows.replaying",
    "reproduce": "workflows.reproduction",
    "run": "workflows.running",
    "search": "hub.search",
    "train": "workflows.make",
    "update": "workflows.upkeep",
    "use": "workflows.loading",
    "verify": "workflows.share",
    "verify_repo": "workflows.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'hublora.workflows' has no attribute {name!r}")
    return getattr(import_module(f"hublora.{_MODULES[name]}"), name)
