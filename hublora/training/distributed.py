"""Several processes of one training: the main one writes and logs, the others wait for it.

`accelerate launch` and `torchrun` start them; without these there is one process, and the functions
here just call their argument. A process that fails ends, and the launcher ends the others.
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
_PATIENCE = timedelta(
    days=2
)  # how long the others wait for the main one to encode, generate or push


def join_processes() -> PartialState:
    """Join the process group, if there are several processes.

    Raises:
        ConfigError: The launcher shards the weights, which is not supported.
    """
    for flag, name in _SHARDING.items():
        if parse_flag_from_env(flag):
            raise ConfigError(
                f"{name} shards weights, which is not supported: the base is whole on each device.",
                "Launch without it: accelerate launch --multi_gpu … -m hublora train …",
            )
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_PATIENCE)


def on_main(work: Callable[[], Result]) -> Result:
    """Run `work` in the main process, and return its result in every process."""
    state = PartialState()
    if state.num_processes == 1:
        return work()
    results = [work() if state.is_main_process else None]
    broadcast_object_list(results)
    return results[0]  # type: ignore[return-value]


def main_first(work: Callable[[], Result]) -> Result:
    """Run `work` in the main process, then in the others, which find its result in the cache."""
    with PartialState().main_process_first():
        return work()
