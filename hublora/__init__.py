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
from hublora.errors import (
    AccessError,
    AdapterError,
    ConfigError,
    DataError,
    HubError,
    HubloraError,
    Interrupted,
    NotFoundError,
    PushError,
    RefError,
    VerificationError,
)

if TYPE_CHECKING:
    from hublora.hub.search import search
    from hublora.refs import AdapterRef
    from hublora.training.config.training_config import TrainingConfig
    from hublora.workflows.caption import caption
    from hublora.workflows.compose import compose
    from hublora.workflows.convert import convert
    from hublora.workflows.inspect import inspect, preflight
    from hublora.workflows.list_runs import list_runs
    from hublora.workflows.load import load, use, using
    from hublora.workflows.merge import merge
    from hublora.workflows.push import push
    from hublora.workflows.replay import replay
    from hublora.workflows.reproduce import reproduce
    from hublora.workflows.run import run
    from hublora.workflows.run_batch import run_batch
    from hublora.workflows.train.artifacts import TrainingResult
    from hublora.workflows.train.dry_run import dry_run
    from hublora.workflows.train.fit_memory import fit
    from hublora.workflows.train.train import train
    from hublora.workflows.update import outdated, update
    from hublora.workflows.verify import verify

__all__ = [
    "AccessError",
    "AdapterError",
    "AdapterRef",
    "ConfigError",
    "DataError",
    "HubError",
    "HubloraError",
    "Interrupted",
    "NotFoundError",
    "PushError",
    "RefError",
    "TrainingConfig",
    "TrainingResult",
    "VerificationError",
    "__version__",
    "caption",
    "compose",
    "convert",
    "dry_run",
    "fit",
    "inspect",
    "list_runs",
    "load",
    "merge",
    "outdated",
    "preflight",
    "push",
    "replay",
    "reproduce",
    "run",
    "run_batch",
    "search",
    "train",
    "update",
    "use",
    "using",
    "verify",
]

# Where each public name is imported from on its first use.
_MODULES = {
    "AdapterRef": "refs",
    "TrainingConfig": "training.config.training_config",
    "TrainingResult": "workflows.train.artifacts",
    "caption": "workflows.caption",
    "compose": "workflows.compose",
    "convert": "workflows.convert",
    "dry_run": "workflows.train.dry_run",
    "fit": "workflows.train.fit_memory",
    "inspect": "workflows.inspect",
    "list_runs": "workflows.list_runs",
    "load": "workflows.load",
    "merge": "workflows.merge",
    "outdated": "workflows.update",
    "preflight": "workflows.inspect",
    "push": "workflows.push",
    "replay": "workflows.replay",
    "reproduce": "workflows.reproduce",
    "run": "workflows.run",
    "run_batch": "workflows.run_batch",
    "search": "hub.search",
    "train": "workflows.train.train",
    "update": "workflows.update",
    "use": "workflows.load",
    "using": "workflows.load",
    "verify": "workflows.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'hublora' has no attribute {name!r}")
    return getattr(import_module(f"hublora.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
