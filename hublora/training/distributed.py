"""Several processes of one training: the main one writes and speaks, the others wait for it.

`accelerate launch` and `torchrun` start them; without these there is one process, and everything
here just calls what it is given. A process that fails ends, and the launcher ends the others.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env

from hublora.errors import ConfigError

Result = TypeVar("Result")

# What `accelerate launch` and its configurations set -> its name.
_SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
_PATIENCE = timedelta(days=2)  # how long the others wait for the main one to encode, draw or push


def join_processes() -> PartialState:
    """Meet the other processes, if there are others.

    Raises:
        ConfigError: They are to share one copy of the weights, which nothing here reads or saves.
    """
    for flag, name in _SHARDING.items():
        if parse_flag_from_env(flag):
            raise ConfigError(
                f"{name} is for weights that do not fit into one device; an adapter's are small, "
                "and the base is whole on each.",
                "Launch without it: accelerate launch --multi_gpu … -m hublora train …",
            )
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_PATIENCE)


def on_main(work: Callable[[], Result]) -> Result:
    """Let the main process do `work`, and return its result in every process."""
    state = PartialState()
    if state.num_processes == 1:
        return work()
    results = [work() if state.is_main_process else None]
    broadcast_object_list(results)
    return results[0]  # type: ignore[return-value]


def main_first(work: Callable[[], Result]) -> Result:
    """Let the main process do `work`, then the others, who find what it has cached."""
    with PartialState().main_process_first():
        return work()
