"""Requests that certainly share batches: each waits after its first step for all the others."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hublora.serve.engine import Engine
from hublora.serve.requests import GenerationRequest, ServedImage, Ticket


def meet(engine: Engine, requests: Sequence[GenerationRequest]) -> list[ServedImage]:
    """Return the images of requests that go on together from their second step on.

    Args:
        engine: One that runs as many requests at once.
        requests: Each of two steps or more.
    """
    met = threading.Barrier(len(requests), timeout=60)

    def tell(done: int, total: int) -> None:
        if done == 1:
            met.wait()

    futures = [engine.submit(one, Ticket(tell)) for one in requests]
    return [future.result() for future in futures]
