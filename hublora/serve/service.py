"""What the protocols have in common: the engine, limits, deadlines, clients that go away."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hublora.errors import AccessError, ConfigError, HubError, HubloraError, NotFoundError
from hublora.serve.errors import Cancelled, Loading, Overloaded, TimedOut, Unavailable
from hublora.serve.requests import GenerationRequest, ServedImage, Ticket, parse_model
from hublora.serve.settings import EngineSettings, ServerSettings

if TYPE_CHECKING:
    from fastapi import Request

    from hublora.serve.engine import Engine

log = logging.getLogger("hublora.serve")

_POLL = 0.2  # seconds between looks at whether the client is still there
_MOST_SEED = 2**32 - 1
MOST_CHARACTERS = 10_000  # of a prompt


class Service:
    """The engine of a server, which loads while the server answers already.

    Args:
        base: Hub id or folder of the base.
        engine_settings: How it is served.
        settings: Key, and limits of a call.
    """

    def __init__(
        self, base: str, engine_settings: EngineSettings, settings: ServerSettings
    ) -> None:
        self.base, self.settings = base, settings
        self._engine_settings = engine_settings
        self._engine: Engine | None = None
        self._error: str | None = None
        self.loaded = threading.Event()

    def load(self) -> None:
        """Load the engine; `loaded` is set afterwards, also if it failed."""
        from hublora.serve.engine import Engine

        try:
            self._engine = Engine(self.base, self._engine_settings)
        except Exception as error:
            log.exception("%s cannot be loaded", self.base)
            self._error = str(error)
        finally:
            self.loaded.set()

    @property
    def timeout(self) -> float:
        """Seconds that a request may take."""
        return self._engine_settings.timeout

    def close(self) -> None:
        """Finish what was accepted, then stop."""
        if self._engine is not None:
            self._engine.close()

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            Loading: It is not there yet.
            Unavailable: It could not be loaded.
        """
        if self._error is not None:
            raise Unavailable(f"The base could not be loaded: {self._error}")
        if self._engine is None:
            raise Loading(f"{self.base} is being loaded.", "Try again in a few seconds.")
        return self._engine

    def request(
        self, model: str, prompt: str, sampling: dict[str, Any], **more: Any
    ) -> GenerationRequest:
        """Return a client's request.

        Args:
            model: Refs joined by "|", the base's name, or empty.
            prompt: Text of the image.
            sampling: Fields of `Sampling`; None is left out, and a missing seed is a random one.
            more: Other fields of `GenerationRequest`.

        Raises:
            HubloraError: Something is wrong with it.
        """
        given = {name: value for name, value in sampling.items() if value is not None}
        given.setdefault("seed", secrets.randbelow(_MOST_SEED))
        bases = (self.base, self.engine.base)
        refs = parse_model(model, bases=bases, allow_urls=self.settings.allow_urls)
        return GenerationRequest(prompt, refs, given, **more)

    async def generate(
        self, request: GenerationRequest, count: int, client: Request
    ) -> list[ServedImage]:
        """Return images of a request, the k-th with the seed `seed + k`.

        Args:
            request: The request.
            count: Number of images.
            client: HTTP request of the client; when it is disconnected, generating ends.

        Raises:
            HubloraError: Something is wrong with it, or it takes too long.
            Cancelled: The client is gone.
        """
        engine = self.engine
        self._check_limits(engine, request, count)
        tickets = [Ticket() for _ in range(count)]
        futures = []
        try:
            for index, ticket in enumerate(tickets):
                seed = request.sampling["seed"] + index
                one = replace(request, sampling={**request.sampling, "seed": seed})
                futures.append(asyncio.wrap_future(engine.submit(one, ticket)))
            await self._wait(futures, client)
            return [future.result() for future in futures]
        finally:
            for ticket in tickets:
                ticket.cancel()
            for future in futures:
                future.cancel()  # what has not begun leaves the queue
                future.add_done_callback(_retrieve)

    async def _wait(self, futures: Sequence[asyncio.Future[Any]], client: Request) -> None:
        end = time.monotonic() + self.timeout
        pending = set(futures)
        while pending:
            done, pending = await asyncio.wait(
                pending, timeout=_POLL, return_when=asyncio.FIRST_EXCEPTION
            )
            for future in done:
                future.result()
            if pending and await client.is_disconnected():
                raise Cancelled
            if pending and time.monotonic() > end:
                raise TimedOut(
                    f"The request was not done in {self.timeout:g} seconds.",
                    "Try again, or with fewer steps.",
                )

    def _check_limits(self, engine: Engine, request: GenerationRequest, count: int) -> None:
        plan = engine.plan(request)
        side = engine.resolution
        if not 0 <= plan.seed <= _MOST_SEED - count + 1:
            raise ConfigError(f"Seeds are from 0 to {_MOST_SEED}, got {plan.seed}.")
        if any(one is not None and one < 1 for one in (plan.width, plan.height)):
            raise ConfigError(f"A side is at least 1 pixel, got {plan.width}×{plan.height}.")
        pixels = (plan.width or side) * (plan.height or side)
        for value, most, what in (
            (count, self.settings.most_images, "images in one call"),
            (plan.num_inference_steps, self.settings.most_steps, "steps"),
            (pixels, self.settings.most_pixels, "pixels"),
        ):
            if not 1 <= value <= most:
                raise ConfigError(f"This server generates 1 to {most} {what}, got {value}.")


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error."""
    statuses: tuple[tuple[type[Exception], int], ...] = (
        (Loading, 503),
        (Unavailable, 503),
        (Overloaded, 429),
        (TimedOut, 504),
        (NotFoundError, 404),
        (AccessError, 403),
        (HubError, 502),
        (HubloraError, 400),
    )
    return next((status for kind, status in statuses if isinstance(error, kind)), 500)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Take the exception of a future that nobody waits for any more."""
    if not future.cancelled():
        future.exception()
