"""Requests that certainly share batches: each waits after its first step for all the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hublora.serve.engine import Engine
from hublora.serve.requests import GenerationRequest, ServedImage, Ticket

PATIENT = 60.0  # seconds: no batch begins without those who are on their way


@contextmanager
def aside(engine: Engine) -> Iterator[None]:
    """Let the other requests go on without the one of this thread."""
    engine.rendezvous.leave()
    yield
    engine.rendezvous.enter()


def meet(engine: Engine, requests: Sequence[GenerationRequest]) -> list[ServedImage]:
    """Return the images of requests that go on together from their second step on.

    Args:
        engine: A patient one, which runs as many requests at once.
        requests: Each of two steps or more.
    """

    def enter() -> None:
        for _ in requests:
            engine.rendezvous.enter()

    met = threading.Barrier(len(requests), action=enter, timeout=60)

    def tell(done: int, total: int) -> None:
        if done == 1:
            engine.rendezvous.leave()
            met.wait()

    futures = [engine.submit(one, Ticket(tell)) for one in requests]
    return [future.result() for future in futures]
