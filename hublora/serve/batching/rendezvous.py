"""Where the denoiser calls of many requests meet and run as one.

Each request runs its own pipeline in its own thread, with its own scheduler and number of steps;
only the denoiser is shared. A call waits until every request that is between its first and last
step has made its own, or until its patience ends; then the oldest one runs together with those that
can be joined with it. So requests join at any step, and leave when they are done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hublora.serve.batching.calls import DenoiserCall, join, split
from hublora.serve.batching.row_lora import RequestLoras

# Runs the denoiser: arguments, keyword arguments, the adapters of each request → its result.
RunBatch = Callable[[Sequence[Any], dict[str, Any], Sequence[RequestLoras]], Any]


@dataclass(eq=False)
class _Waiting:
    """A call that waits for its result."""

    call: DenoiserCall
    adapters: RequestLoras
    number: int
    since: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None


class Rendezvous:
    """Joins the denoiser calls of many threads.

    Args:
        run_batch: Runs the denoiser; called by one thread, its own.
        most_requests: Requests in a batch, at most.
        patience: Seconds that a call waits for the others, at most.

    Attributes:
        batch_sizes: Requests in a batch -> number of batches of that size that ran.
    """

    def __init__(self, run_batch: RunBatch, most_requests: int, patience: float) -> None:
        self._run_batch, self._most, self._patience = run_batch, most_requests, patience
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._inside = 0  # requests between their first and last step
        self._closed = False
        self.batch_sizes: dict[int, int] = {}
        self._thread = threading.Thread(target=self._work, name="hublora-denoiser", daemon=True)
        self._thread.start()

    def enter(self) -> None:
        """Tell that a request is about to make its first call."""
        with self._changed:
            self._inside += 1

    def leave(self) -> None:
        """Tell that a request will make no more calls; nobody waits for it any longer."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def call(self, call: DenoiserCall, adapters: RequestLoras, number: int) -> Any:
        """Return the result of a denoiser call, which ran together with others'.

        Args:
            call: The call.
            adapters: Adapters of its request at this step.
            number: Number of its request; a batch is in their order, whoever came first.
        """
        waiting = _Waiting(call, adapters, number)
        with self._changed:
            if self._closed:
                raise RuntimeError("the denoiser is closed")
            self._waiting.append(waiting)
            self._changed.notify_all()
        waiting.done.wait()
        if waiting.error is not None:
            raise waiting.error
        return waiting.result

    def close(self) -> None:
        """Run what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            batch = self._next_batch()
            if not batch:
                return
            self._run(batch)

    def _next_batch(self) -> list[_Waiting]:
        """Wait for calls and take those that run next; empty at the end."""
        with self._changed:
            while not self._is_time():
                if self._closed and not self._waiting:
                    return []
                self._changed.wait(self._time_left())
            first = self._waiting[0]
            fitting = [one for one in self._waiting if one.call.signature == first.call.signature]
            batch = fitting[: self._most]
            self._waiting = [one for one in self._waiting if one not in batch]
            return sorted(batch, key=lambda one: one.number)

    def _is_time(self) -> bool:
        if not self._waiting:
            return False
        return self._closed or len(self._waiting) >= self._inside or self._time_left() == 0

    def _time_left(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0].since + self._patience - time.monotonic())

    def _run(self, batch: list[_Waiting]) -> None:
        try:
            parts = self._results(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                batch[0].done.set()
                return
            parts = []
        if not parts:  # what one of them cannot do, the others may; the failed batch is gone
            for one in batch:
                self._run([one])
            return
        self.batch_sizes[len(batch)] = self.batch_sizes.get(len(batch), 0) + 1
        for one, part in zip(batch, parts, strict=True):
            one.result = part
            one.done.set()

    def _results(self, batch: list[_Waiting]) -> list[Any]:
        args, kwargs = join([one.call for one in batch])
        result = self._run_batch(args, kwargs, [one.adapters for one in batch])
        return split(result, len(batch), batch[0].call.rows)
