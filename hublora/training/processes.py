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

Result = TypeVar("Result")

_PATIENCE = timedelta(days=2)  # how long the others wait for the main one to encode, draw or push


def join_processes() -> PartialState:
    """Meet the other processes, if there are others."""
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
