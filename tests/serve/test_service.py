"""Deadlines, and clients that go away."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from fastapi import Request

from hublora.serve.errors import Cancelled, Loading, TimedOut, Unavailable
from hublora.serve.service import Service
from hublora.serve.settings import EngineSettings, ServerSettings


def client(*messages: dict[str, Any]) -> Request:
    """Return a request of a client that sends these messages, and then nothing."""
    queue = list(messages)

    async def receive() -> dict[str, Any]:
        if queue:
            return queue.pop(0)
        return await asyncio.Future()

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


@pytest.fixture
def service(hub: object) -> Any:
    engine = EngineSettings(device="cpu", timeout=0.5)
    made = Service("bases/epsilon", engine, ServerSettings(most_steps=1000))
    with pytest.raises(Loading):
        _ = made.engine
    made.load()
    yield made
    made.close()


def idle(service: Service) -> bool:
    """Wait until nothing is generated any more."""
    end = time.monotonic() + 60
    while service.engine.waiting and time.monotonic() < end:
        time.sleep(0.02)
    return not service.engine.waiting


def test_a_client_that_is_gone_ends_its_images(service: Service) -> None:
    request = service.request("", "a hill", {"num_inference_steps": 999})
    gone = client({"type": "http.disconnect"})
    with pytest.raises(Cancelled):
        asyncio.run(service.generate(request, 3, gone))
    assert idle(service)
    assert sum(service.engine.batch_sizes.values()) < 999


def test_a_request_that_takes_too_long_is_given_up(service: Service) -> None:
    service.engine.adapters.cache.lock.acquire()  # no prompt is encoded meanwhile
    try:
        request = service.request("", "a hill", {})
        with pytest.raises(TimedOut, match=r"0\.5 seconds"):
            asyncio.run(service.generate(request, 1, client()))
    finally:
        service.engine.adapters.cache.lock.release()
    assert idle(service)


def test_what_cannot_be_loaded_is_told_to_every_request(hub: object) -> None:
    service = Service("bases/absent", EngineSettings(device="cpu"), ServerSettings())
    service.load()
    for _ in range(2):
        with pytest.raises(Unavailable, match="bases/absent"):
            service.request("", "a hill", {})
    service.close()
