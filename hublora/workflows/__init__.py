"""The map: what hublora does, one function each.

make    `train`    dataset ref ─ data ─▶ training ─▶ adapter ─▶ card ─▶ run folder
share   `push`     run folder ─ check ─▶ one commit ─ read back ─▶ user/name@commit
use     `load`     adapter refs ─ resolve ─▶ adapters ─ compose ─▶ pipeline
        `run`      … ─ sample ─▶ pictures that say how they were made
        `inspect`  adapter refs ─ headers and cards ─▶ facts
"""

from hublora.workflows.adapters import inspect
from hublora.workflows.make import train
from hublora.workflows.results import TrainingResult
from hublora.workflows.share import push, verify
from hublora.workflows.use import load, run

__all__ = ["TrainingResult", "inspect", "load", "push", "run", "train", "verify"]
