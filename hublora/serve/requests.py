"""One request for an image, whatever protocol it came by."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hublora.adapter_weights import CompositionMode, Weight
from hublora.errors import RefError
from hublora.generation.prompt_placeholders import TriggerMode
from hublora.refs import AdapterRef, parse_refs
from hublora.resolution.composition_parts import WeightedRef
from hublora.serve.errors import Cancelled


@dataclass(frozen=True)
class GenerationRequest:
    """One image to generate.

    Attributes:
        prompt: Text of the image.
        refs: Adapters, each with its weight; none for the base alone.
        sampling: Fields of `Sampling` besides the prompt; what is missing is the base's own.
        compose: How several adapters act together; None as a composition says, else "sum".
        trigger: "auto" puts missing trigger words in front of the prompt, "off" does not.
    """

    prompt: str
    refs: tuple[WeightedRef, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    compose: CompositionMode | None = None
    trigger: TriggerMode = "auto"

    def with_weights(self, weights: Sequence[Weight]) -> GenerationRequest:
        """Return the request with other weights, one for each adapter."""
        pairs = zip(self.refs, weights, strict=True)
        return replace(self, refs=tuple(replace(one, weight=weight) for one, weight in pairs))


@dataclass(frozen=True)
class ServedImage:
    """An image and what is known of it.

    Attributes:
        png: The PNG, with the metadata that `hublora replay` reads.
        prompt: The prompt with trigger words.
        seed: Seed of its noise.
        facts: The metadata.
    """

    png: bytes
    prompt: str
    seed: int
    facts: Mapping[str, Any]


class Ticket:
    """What the client of a request and its work tell each other.

    Args:
        on_step: Called after each step with (steps done, steps in all).
    """

    def __init__(self, on_step: Callable[[int, int], None] = lambda done, total: None) -> None:
        self.on_step = on_step
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End the request at its next step."""
        self._cancelled.set()

    def check(self) -> None:
        """Check that somebody waits for the image.

        Raises:
            Cancelled: Nobody does.
        """
        if self._cancelled.is_set():
            raise Cancelled


def parse_model(text: str, *, bases: tuple[str, ...], allow_urls: bool) -> tuple[WeightedRef, ...]:
    """Return the adapters that a client names as its model: none for the base alone.

    Args:
        text: Refs joined by "|", such as "me/ink-lora@v1:0.7|me/cat-lora"; may be empty, or the
            name of a base.
        bases: Names of the bases that are served.
        allow_urls: Whether adapters may be fetched from any https URL.

    Raises:
        RefError: A ref does not parse, or names what clients cannot use: a file of the server's, or
            a URL that is not of the Hub.
    """
    if text.strip() in ("", *bases):
        return ()
    refs = (_parse_remote(one, allow_urls) for one in text.split("|"))
    return tuple(WeightedRef(ref, Weight.of(ref.weight)) for ref in refs)


def _parse_remote(text: str, allow_urls: bool) -> AdapterRef:
    (ref,) = parse_refs([text])
    if ref.hidden_repo is not None:  # a folder of the server has the name of a repo
        (ref,) = parse_refs([f"hf://{text.strip().removeprefix('hf://')}"])
    if ref.kind == "local":
        raise RefError(
            f"{text.strip()!r} is not a repo of the Hub.",
            "Name an adapter like user/name@main:0.8.",
        )
    if ref.kind == "url" and not allow_urls:
        raise RefError(
            "This server takes adapters from the Hub only.", "Name one like user/name@main:0.8."
        )
    return ref
