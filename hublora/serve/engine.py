"""One warm base model, and the requests that it generates images for, many in a batch."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch

from hublora.generation.composition import Composition
from hublora.generation.generate import image_facts, prompt_inputs
from hublora.generation.metadata import encode_image
from hublora.generation.options import LoadOptions
from hublora.generation.sample import (
    Sampling,
    check_plan,
    sample,
    sampling_with,
    use_scheduler_of,
)
from hublora.generation.speed import use_speed
from hublora.progress import no_callback
from hublora.serve.adapters import (
    AdapterStore,
    RequestAdapters,
    StepAdapters,
    activate_text_encoders,
)
from hublora.serve.batching.calls import DenoiserCall
from hublora.serve.batching.invariance import RowInvariance
from hublora.serve.batching.rendezvous import Rendezvous
from hublora.serve.batching.row_lora import RequestLoras, RowLora
from hublora.serve.errors import Overloaded
from hublora.serve.requests import GenerationRequest, ServedImage, Ticket
from hublora.serve.settings import EngineSettings
from hublora.workflows.load import load_pipeline


class Engine:
    """Generates images with one base model and any adapters.

    Each request runs the base's own diffusers pipeline in a thread, with a scheduler of its own;
    the calls of the denoiser meet (`hublora.serve.batching.rendezvous`).

    Args:
        base: Hub id or folder of the base.
        settings: How it is served.

    Attributes:
        pipeline: The base's own, without adapters in its denoiser.
        adapters: The adapters in memory.
        rendezvous: Joins the denoiser calls of requests; its thread runs the denoiser.

    Raises:
        HubloraError: The base cannot be loaded.
    """

    def __init__(self, base: str, settings: EngineSettings | None = None) -> None:
        self.settings = settings or EngineSettings()
        options: LoadOptions = {"base": base, "device": self.settings.device}
        options |= {"dtype": self.settings.dtype, "commercial": self.settings.commercial}
        options["quantize"] = self.settings.quantize
        if self.settings.cache_bytes is not None:
            options["cache_bytes"] = self.settings.cache_bytes
        self.pipeline = load_pipeline((), options)
        self._composition: Composition = self.pipeline.hublora
        self.adapters = AdapterStore(self._composition, self.settings)
        self._family = self._composition.base.family
        self._denoiser = getattr(self.pipeline, self._family.denoiser)
        self._vae, self._vae_lock = getattr(self.pipeline, self._family.vae), threading.Lock()
        if self._vae.dtype == torch.float16 and self._vae.config.get("force_upcast"):
            self._vae.to(torch.float32)  # once, not in turns by the pipelines that share it
        self._rows = RowLora(self._denoiser)
        on_cpu = next(self._denoiser.parameters()).device.type == "cpu"
        self._invariance = RowInvariance(self._denoiser) if on_cpu else None
        self.rendezvous = Rendezvous(
            self._run_batch, self.settings.most_requests, self.settings.patience
        )
        self._threads = ThreadPoolExecutor(self.settings.most_requests, "hublora-request")
        self._lock = threading.Lock()
        self._accepted = 0  # running and waiting
        self._numbers = itertools.count()

    @property
    def base(self) -> str:
        """Name of the base."""
        return self._composition.base.name

    @property
    def resolution(self) -> int:
        """Side of the images that the base was trained on, in pixels."""
        return self._family.resolution(self.pipeline)

    @property
    def waiting(self) -> int:
        """Requests that were accepted and have no image yet."""
        return self._accepted

    @property
    def batch_sizes(self) -> Mapping[int, int]:
        """Requests in a batch -> number of denoiser calls that had so many."""
        return dict(self.rendezvous.batch_sizes)

    def plan(self, request: GenerationRequest) -> Sampling:
        """Return the settings of a request's image, the base's own where it states none.

        Raises:
            ConfigError: One of them is out of range, or not of this base.
        """
        return sampling_with(self._composition, request.prompt, **request.sampling)

    def submit(
        self, request: GenerationRequest, ticket: Ticket | None = None
    ) -> Future[ServedImage]:
        """Accept a request; its image is the future's result.

        Raises:
            Overloaded: Too many wait already.
        """
        with self._lock:
            if self._accepted >= self.settings.most_requests + self.settings.most_waiting:
                raise Overloaded(
                    f"{self._accepted} requests are waiting.", "Try again in a few seconds."
                )
            self._accepted += 1
        future = self._threads.submit(self._generate, request, ticket or Ticket())
        future.add_done_callback(self._finished)
        return future

    def close(self) -> None:
        """Finish what was accepted, then stop."""
        self._threads.shutdown()
        self.rendezvous.close()

    def _finished(self, _: Future[ServedImage]) -> None:
        with self._lock:
            self._accepted -= 1

    def _generate(self, request: GenerationRequest, ticket: Ticket) -> ServedImage:
        ticket.check()
        with self.adapters.using(request.refs, request.compose) as adapters:
            composition = adapters.composition
            if composition.lock:
                request = replace(request, prompt=composition.lock.fill(request.prompt))
            plan = sampling_with(composition, request.prompt, **request.sampling)
            pipe = self._pipeline(plan, adapters)
            image = self._sample(pipe, plan, adapters, request, ticket)
            facts = image_facts(composition, plan, request.trigger)
            facts |= {"size": f"{image.width}x{image.height}"}
            prompt = facts.get("expanded_prompt", plan.prompt)
            return ServedImage(encode_image(image, facts), prompt, plan.seed, facts)

    def _pipeline(self, plan: Sampling, adapters: RequestAdapters) -> Any:
        """Return the pipeline of one request: shared components, a scheduler of its own, and the
        shared denoiser behind the rendezvous."""
        pipe = copy.copy(self.pipeline)
        pipe.scheduler = copy.deepcopy(self.pipeline.scheduler)
        pipe.hublora = replace(adapters.composition, base_scheduler=pipe.scheduler)
        use_speed(pipe, None, no_callback)
        use_scheduler_of(pipe, plan)
        check_plan(pipe, self._family.size_step(pipe), plan)
        steps = StepAdapters(
            adapters, self._family.denoiser, lambda: pipe.scheduler, self._family.scheduler_timestep
        )
        shared = _SharedDenoiser(self._denoiser, self.rendezvous, steps, next(self._numbers))
        # Not modules, which diffusers would register.
        pipe.__dict__[self._family.denoiser] = shared
        pipe.__dict__[self._family.vae] = _SharedVae(self._vae, self._vae_lock)
        return pipe

    def _sample(
        self,
        pipe: Any,
        plan: Sampling,
        adapters: RequestAdapters,
        request: GenerationRequest,
        ticket: Ticket,
    ) -> Any:
        inputs = self._encode(pipe, plan, adapters, request)
        inside = _Inside(self.rendezvous)

        def after(step: int) -> None:
            total = pipe.num_timesteps
            if step >= total:
                inside.end()  # what is left is decoding: the others need not wait for it
            ticket.on_step(step, total)
            ticket.check()

        try:
            inside.begin()
            return sample(pipe, plan, after, inputs=inputs)
        finally:
            inside.end()

    @torch.inference_mode()
    def _encode(
        self, pipe: Any, plan: Sampling, adapters: RequestAdapters, request: GenerationRequest
    ) -> Mapping[str, Any]:
        """Return the arguments of the pipeline's call, prompts as embeddings."""
        expanded = pipe.hublora.expand(plan.prompt, request.trigger)
        with self.adapters.cache.lock:  # text encoders have the adapters of one request at a time
            activate_text_encoders(self.adapters.cache, adapters)
            inputs = prompt_inputs(pipe, plan, expanded, no_callback)
            if "prompt" not in inputs:  # embeddings of a weighted or long prompt
                return inputs
            texts = self._family.texts_of_call(inputs)
            embedded = {text: self._family.encode_prompts(pipe, [text]) for text in texts}
            return self._family.with_embeddings(pipe, inputs, embedded)

    @torch.inference_mode()
    def _run_batch(
        self, args: Sequence[Any], kwargs: dict[str, Any], adapters: Sequence[RequestLoras]
    ) -> Any:
        self._rows.set_rows(adapters)
        if self._invariance is not None:
            self._invariance.requests = len(adapters)
        return self._denoiser(*args, **kwargs)


class _Inside:
    """A request's time between its first and last step, ended once."""

    def __init__(self, rendezvous: Rendezvous) -> None:
        self._rendezvous, self._is_inside = rendezvous, False

    def begin(self) -> None:
        self._is_inside = True
        self._rendezvous.enter()

    def end(self) -> None:
        if self._is_inside:
            self._is_inside = False
            self._rendezvous.leave()


class _SharedVae:
    """What a request's pipeline takes for the VAE, which one thread at a time uses: those of videos
    keep what they have seen of an image on themselves.

    Args:
        model: The VAE.
        lock: Held while it is used.
    """

    def __init__(self, model: Any, lock: threading.Lock) -> None:
        self._model, self._lock = model, lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self._model.encode(*args, **kwargs)

    def decode(self, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self._model.decode(latents.to(self._model.dtype), *args, **kwargs)


class _SharedDenoiser:
    """What a request's pipeline takes for the denoiser.

    Args:
        model: The denoiser.
        rendezvous: Joins its calls with those of other requests.
        steps: Adapters of the request.
        number: Number of the request, from 0.
    """

    def __init__(
        self, model: Any, rendezvous: Rendezvous, steps: StepAdapters, number: int
    ) -> None:
        self._model, self._rendezvous = model, rendezvous
        self._steps, self._number = steps, number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = DenoiserCall(args, kwargs)
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        return self._steps.predict(
            timestep, lambda own: self._rendezvous.call(call, own, self._number)
        )
