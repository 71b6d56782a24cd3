"""What a server is started with."""

from __future__ import annotations

from dataclasses import dataclass

from hublora.errors import ConfigError
from hublora.memory.quantization import Quantization


@dataclass(frozen=True)
class EngineSettings:
    """How a base model is served.

    Attributes:
        device: A torch device; None for a GPU if there is one.
        dtype: Name of the weights' type; None for the base's half precision on a GPU, else float32.
        quantize: "int8", "fp8" or "nf4" for the linear layers of denoiser and text encoders; None
            leaves them as they are.
        most_requests: Requests in a batch, at most.
        patience: Seconds that a denoising step waits for those of other requests, at most.
        most_waiting: Requests that wait beside those that run, at most.
        most_adapters: Adapters of an image, at most.
        timeout: Seconds that a request may take, waiting included.
        cache_bytes: Memory that adapters may take; those of running requests stay. None for the
            default of `hublora.load`.
        recheck_seconds: How long a branch or tag is taken to be at the commit that it was at.
        commercial: Refuse adapters and bases whose licence forbids commercial use.
    """

    device: str | None = None
    dtype: str | None = None
    quantize: Quantization | None = None
    most_requests: int = 8
    patience: float = 0.1
    most_waiting: int = 64
    most_adapters: int = 16
    timeout: float = 300.0
    cache_bytes: int | None = None
    recheck_seconds: float = 60.0
    commercial: bool = False

    def __post_init__(self) -> None:
        if self.most_requests < 1 or self.most_waiting < 0:
            raise ConfigError(
                "A batch has at least one request, and fewer than none cannot wait, got "
                f"{self.most_requests} and {self.most_waiting}."
            )


@dataclass(frozen=True)
class ServerSettings:
    """What the server answers, and to whom.

    Attributes:
        key: Secret text that clients send as a bearer token; None lets everybody in.
        most_pixels: Pixels of an image, at most.
        most_steps: Denoising steps of an image, at most.
        most_images: Images of one call, at most.
        allow_urls: Whether adapters may be fetched from any https URL.
    """

    key: str | None = None
    most_pixels: int = 2048 * 2048
    most_steps: int = 150
    most_images: int = 10
    allow_urls: bool = False
