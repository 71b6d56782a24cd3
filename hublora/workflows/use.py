"""Use: adapter refs ─ resolve ─▶ adapters ─▶ compose ─▶ picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora._version import __version__
from hublora.adapters.licenses import Meet
from hublora.errors import AdapterError, ConfigError, NotFoundError
from hublora.generation.concepts import Concept, Expanded, TriggerMode, expand
from hublora.generation.memory import Offload, default_dtype, place
from hublora.generation.mixing import Mixer, Way
from hublora.generation.weights import Weight
from hublora.workflows.bases import Base, open_base
from hublora.workflows.drawing import draw, save
from hublora.workflows.inspection import refuse_misfits
from hublora.workflows.models import find_controlnet, open_picture
from hublora.workflows.outputs import output_paths, save_grid
from hublora.workflows.parts import OpenPart, open_parts, settle
from hublora.workflows.progress import Note, Observer, Wrote, ignore

if TYPE_CHECKING:
    import torch

    from hublora.workflows.lock import Lock


@dataclass(frozen=True)
class Composition:
    """What a pipeline was put together from; `hublora.load` leaves it in `pipe.hublora`.

    Attributes:
        base: The base at its commit.
        parts: The adapters, in order.
        concepts: What each of them is called by in a prompt.
        dtype: Torch name of the weights' type, e.g. "float32".
        way: How the adapters act together.
        mixer: What makes them; None where nothing was loaded.
        lock: Of the composition that was asked for, if it was one and alone.
        name: The composition's pinned ref.
        device: Where the pipeline is.
        scheduler: Class name of the base's own scheduler.
    """

    base: Base
    parts: tuple[OpenPart, ...]
    concepts: tuple[Concept, ...]
    dtype: str
    way: Way = "sum"
    mixer: Mixer | None = None
    lock: Lock | None = None
    name: str | None = None
    device: str = "cpu"
    scheduler: str | None = None

    @property
    def licenses(self) -> Meet:
        """The licences of base and adapters."""
        return license_meet(self.base, self.parts)

    def prompt(self, text: str, trigger: TriggerMode = "auto") -> str:
        """Return `text` as the pipeline is to be given it: in the composition's template, `<1>`,
        `<2>`, … and learned tokens replaced, missing trigger words in front.

        Raises:
            ConfigError: A placeholder stands for nothing.
        """
        return self.expand(self.lock.fill(text) if self.lock else text, trigger).text

    def expand(self, text: str, trigger: TriggerMode = "auto") -> Expanded:
        """Return what `prompt` returns, and which words were added."""
        return expand(text, self.concepts, trigger)

    def facts(self) -> dict[str, Any]:
        """Return what a picture says about it."""
        return {
            "hublora": __version__,
            "base": self.base.name,
            "base_revision": self.base.commit,
            "dtype": self.dtype,
            "device": self.device.partition(":")[0],
            "compose": self.way,
            "adapters": [part.facts() for part in self.parts],
            "license": self.licenses.facts(),
            **({"composition": self.name} if self.name else {}),
        }

    def on_step_end(
        self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        """What a pipeline whose adapters switch, or whose weights move over the steps, is called
        with: `pipe(…, callback_on_step_end=pipe.hublora.on_step_end)`."""
        return self.mixer.on_step_end(pipe, step, timestep, tensors) if self.mixer else tensors


def load(
    *refs: str,
    base: str | None = None,
    base_revision: str | None = None,
    compose: Way | None = None,
    weights: Mapping[str, str | float] | None = None,
    commercial: bool = False,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    offload: Offload | None = None,
    tiled_vae: bool = False,
    observer: Observer = ignore,
) -> Any:
    """Return the diffusers pipeline of the base with the adapters active.

    Args:
        refs: Adapter refs such as "user/name", "user/name@main:0.7" or a file; none for the base.
        base: Hub id or folder of the base; found from the adapters' own facts if not given.
        base_revision: Branch, tag or commit of `base`.
        compose: How several adapters act together: "sum", "switch" or "composite"; as a
            composition says, else "sum".
        weights: Place from 1, or ref -> weight, such as "0.2..0.9" over the steps or "1,mid:0" by
            block (`hublora.generation.weights`). What moves or switches needs
            `callback_on_step_end=pipe.hublora.on_step_end` in the pipeline's call.
        commercial: Refuse what its licence forbids to use commercially.
        device: A torch device; a GPU if there is one.
        dtype: Type of the weights; float16 on a GPU, float32 elsewhere.
        offload: "model" or "sequential" keeps only what is needed on the GPU.
        tiled_vae: Decode in tiles, which large pictures need less memory for.
        observer: Is told what happens.

    Raises:
        RefError: A ref does not parse.
        NotFoundError: A repo, revision or file is not there.
        AdapterError: A file is broken, or does not fit the base.
    """

    wanted = settle(refs, weights)
    device = _check_device(device) if device else default_device()
    found = open_parts(wanted, observer)
    parts, lock = found.parts, found.lock
    if lock and base is None:
        base, base_revision = lock.base.repo, lock.base.commit
    opened = _find_base(parts, base, base_revision, observer)
    _check_licenses(opened, parts, commercial, observer)
    dtype = dtype or default_dtype(device)
    pipe = opened.load(dtype)
    concepts = tuple(_teach(pipe, part) for part in parts)
    way = compose or (lock.compose if lock else "sum")
    mixer = _mix(pipe, opened, parts, way)
    place(pipe, device, offload, tiled_vae)
    pipe.hublora = Composition(
        base=opened,
        parts=parts,
        concepts=concepts,
        dtype=str(dtype)[6:],
        way=way,
        mixer=mixer,
        lock=lock,
        name=found.composition,
        device=device,
        scheduler=type(pipe.scheduler).__name__,
    )
    return pipe


def reweigh(pipe: Any, weights: Sequence[Weight]) -> None:
    """Give the adapters of a pipeline that `load` returned other weights; loads nothing.

    Raises:
        ConfigError: A weight names a block that its adapter has no layers in.
    """
    composition: Composition = pipe.hublora
    if [part.weight for part in composition.parts] == list(weights) or not composition.mixer:
        return
    composition.mixer.reweigh(weights)
    pairs = list(zip(composition.parts, composition.concepts, weights, strict=True))
    pipe.hublora = replace(
        composition,
        parts=tuple(replace(part, weight=weight) for part, _, weight in pairs),
        concepts=tuple(replace(one, wanted=weight.positive) for _, one, weight in pairs),
    )


def run(
    refs: Sequence[str],
    prompt: str,
    *,
    output: Path | None = None,
    num_images: int = 1,
    grid: bool = False,
    seed: int = 0,
    base: str | None = None,
    base_revision: str | None = None,
    device: str | None = None,
    scheduler: str | None = None,
    trigger: TriggerMode = "auto",
    compose: Way | None = None,
    weights: Mapping[str, str | float] | None = None,
    commercial: bool = False,
    offload: Offload | None = None,
    tiled_vae: bool = False,
    image: Path | None = None,
    strength: float | None = None,
    mask: Path | None = None,
    controlnet: str | None = None,
    control_image: Path | None = None,
    observer: Observer = ignore,
    **sampling: Any,
) -> list[Path]:
    """Draw `prompt` with the adapters and save the pictures as PNG.

    Args:
        refs: Adapter refs; none draws with `base` alone.
        prompt: What to draw.
        output: A .png file, or a folder; the current folder if not given.
        num_images: Pictures; the k-th has the seed `seed + k`.
        grid: Write one labelled sheet besides.
        seed: Of the first picture.
        base: As for `load`.
        base_revision: As for `load`.
        device: As for `load`.
        scheduler: Class name of a diffusers scheduler.
        trigger: "auto" puts trigger words that the prompt lacks in front, "off" does not.
        compose: As for `load`.
        weights: As for `load`.
        commercial: As for `load`.
        offload: As for `load`.
        tiled_vae: As for `load`.
        image: A picture to start from.
        strength: How much of `image` is drawn anew, in (0, 1].
        mask: White where `image` is drawn anew.
        controlnet: Hub id of a ControlNet.
        control_image: What that follows.
        observer: Is told what happens.
        sampling: Fields of `generation.sample.Sampling`; None means the base's own.

    Returns:
        The files written, the sheet last.

    Raises:
        HubloraError: As `load`, and ConfigError for a scheduler that does not fit.
    """
    from hublora.generation.conditions import Conditions
    from hublora.generation.sample import check_plan, use_scheduler

    pictures = Conditions(
        open_picture(image),
        strength,
        open_picture(mask),
        find_controlnet(controlnet),
        open_picture(control_image),
    )
    pipe = load(
        *refs,
        base=base,
        base_revision=base_revision,
        compose=compose,
        weights=weights,
        commercial=commercial,
        offload=offload,
        tiled_vae=tiled_vae,
        device=device,
        observer=observer,
    )
    use_scheduler(pipe, scheduler)
    if pipe.hublora.lock:
        prompt = pipe.hublora.lock.fill(prompt)
    plan = pipe.hublora.base.sampling(prompt, scheduler=scheduler, **sampling)
    check_plan(pipe, pipe.hublora.base.family.size_step(pipe), plan)
    plans = [plan.with_seed(seed + index) for index in range(num_images)]
    paths = output_paths(output, prompt, [p.seed for p in plans])
    images = []
    drawing = draw(pipe, plans, trigger, observer, pictures)
    for drawn, one, path in zip(drawing, plans, paths, strict=True):
        save(drawn, path, pipe.hublora, one, trigger, pictures)
        observer(Wrote("picture", path))
        images.append(drawn)
    if grid:
        paths.append(save_grid(images, plans, paths[0]))
        observer(Wrote("sheet", paths[-1]))
    return paths


def _check_licenses(
    base: Base, parts: Sequence[OpenPart], commercial: bool, observer: Observer
) -> None:
    """Tell the licences, and refuse commercial use where one of them forbids it."""
    meet = license_meet(base, parts)
    if commercial and meet.forbidding:
        raise ConfigError(
            f"The licence of {', '.join(meet.forbidding)} forbids commercial use.",
            "Leave --commercial out for other use, or choose another adapter.",
        )
    observer(Note(str(meet), warning=commercial and bool(meet.unknown)))


def license_meet(base: Base, parts: Sequence[OpenPart]) -> Meet:
    """Return the licences of a base and of adapters."""
    of_parts = {part.title: part.adapter.facts.license for part in parts}
    return Meet({base.name: license_of(base.card)} | of_parts)


def license_of(card: Mapping[str, Any]) -> str | None:
    """Return a card's licence; the name of one that is "other"."""
    stated = card.get("license_name") if card.get("license") == "other" else card.get("license")
    return stated if isinstance(stated, str) else None


def _teach(pipe: Any, part: OpenPart) -> Concept:
    """Put the adapter's learned tokens on the pipeline; return what it is called by."""
    triggers = part.adapter.facts.trigger_words
    names: dict[str, tuple[str, ...]] = {}
    if part.tokens:
        from hublora.generation.embeddings import add_tokens

        names = add_tokens(pipe, part.tokens, part.label)
    return Concept(part.label, triggers, names, wanted=part.weight.positive)


def _mix(pipe: Any, base: Base, parts: Sequence[OpenPart], way: Way) -> Mixer:
    """Put the adapters on the pipeline and let them act together."""
    from hublora.generation.compose import Part, apply_adapters

    weights = [part.weight for part in parts]
    names = apply_adapters(
        pipe,
        [Part(part.adapter, part.weight.rest.start) for part in parts],
        base.name,
    )
    return Mixer(pipe, names, weights, way, base.family.denoiser)


def _find_base(
    parts: Sequence[OpenPart], base: str | None, revision: str | None, observer: Observer
) -> Base:
    adapters = [part.adapter for part in parts]
    if base is not None:
        return _open_fitting(parts, base, revision, observer)
    if not adapters:
        raise AdapterError("Neither an adapter nor a base was given.", "Name the base: --base …")
    stated = {a.facts.base_model: a for a in adapters if a.facts.base_model}
    if not stated:
        which = ", ".join(str(a.facts.source) for a in adapters)
        raise AdapterError(f"{which} does not say which base it was made for.", "Name it: --base …")
    if len(stated) > 1:
        said = "; ".join(f"{a.facts.source} for {name}" for name, a in stated.items())
        raise AdapterError(
            f"These adapters were made for different bases: {said}.", "Choose one with --base."
        )
    name = next(iter(stated))
    commits = {a.facts.base_revision for a in adapters if a.facts.base_revision}
    if len(commits) != 1 or Path(str(name)).exists():
        return _open_fitting(parts, str(name), None, observer)
    try:
        return _open_fitting(parts, str(name), commits.pop(), observer)
    except NotFoundError:
        observer(Note(f"The commit of {name} that was trained on is gone; using main.", True))
        return _open_fitting(parts, str(name), None, observer)


def _open_fitting(
    parts: Sequence[OpenPart], model: str, revision: str | None, observer: Observer
) -> Base:
    """Bring a base to this machine, unless its headers show that an adapter does not fit it."""
    refuse_misfits([(part.label, part.adapter) for part in parts], model, revision)
    return open_base(model, revision, observer)


def _check_device(name: str) -> str:
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"PyTorch cannot use the device {name!r} here.", "Leave --device out, or name cpu."
        ) from error
    return name


def default_device() -> str:
    """Return "cuda" or "mps" where there is such a device, else "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
