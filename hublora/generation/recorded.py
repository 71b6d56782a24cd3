"""What a generated image records about itself, parsed: a stranger may have written it.

An image can name adapters and models on the Hub, and adapters by a public https URL. It cannot name
a file or folder of this computer: those are recorded by their hash alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from hublora.adapter_weights import CompositionMode, Weight
from hublora.errors import ConfigError, HubloraError
from hublora.generation.metadata import read_image
from hublora.generation.prompt_placeholders import TriggerMode
from hublora.generation.sample import Sampling
from hublora.generation.sheet import SheetAxes
from hublora.memory.quantization import Quantization
from hublora.refs import AdapterRef, BaseRef, Revision, parse_revision
from hublora.resolution.device import DTYPES

MAX_ADAPTERS = 64
MAX_SIDE = 8192  # pixels
_MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class RecordedAdapter:
    """An adapter that an image was generated with.

    Attributes:
        ref: Repo at a commit and file, or public https URL; None for a local file.
        followed: Branch or tag that the person named; None for the default or a commit.
        weight: Factor on the update, which may be a schedule.
        title: Name without a path.
        sha256: Hash of the file, in hex; empty if it is not recorded.
    """

    ref: AdapterRef | None
    followed: Revision | None
    weight: Weight
    title: str
    sha256: str


@dataclass(frozen=True)
class RecordedImage:
    """How an image was generated.

    Attributes:
        base: Base model on the Hub at its commit; its folder's name, unchecked, with
            `has_base_folder`.
        has_base_folder: Whether the base was a folder, or a file of this machine.
        base_sha256: Hash of a single file as base, in hex; empty for a pipeline.
        base_components: Pipeline, as owner/name@commit, that had what the single file lacks; None
            for a pipeline or a folder.
        adapters: Adapters in order.
        compose: How the adapters are combined.
        dtype: Torch name of the weights' type.
        quantize: Kind in which the base was quantised; None if it was not.
        device: Kind of device, e.g. "cuda"; None if it is not recorded.
        plan: Sampling settings.
        trigger: "auto" adds missing trigger words.
        conditions: JSON of the inputs besides the prompt (`hublora.generation.inputs`).
        versions: Version of hublora and of each library.
        sheet: Settings that vary over a sheet of images; None for one image.
    """

    base: BaseRef
    has_base_folder: bool
    base_sha256: str
    base_components: str | None
    adapters: tuple[RecordedAdapter, ...]
    compose: CompositionMode
    dtype: str
    quantize: Quantization | None
    device: str | None
    plan: Sampling
    trigger: TriggerMode
    conditions: Mapping[str, Any]
    versions: Mapping[str, str]
    sheet: SheetAxes | None


class _Unsaid(ValueError):
    """A value is missing or not of its type; the text names it."""


def read_recorded(png: Path) -> RecordedImage:
    """Return how an image was generated, as it says itself.

    Raises:
        ConfigError: It is no PNG, or does not say, or says what cannot be meant.
    """
    facts = read_image(png)
    try:
        return _parse(facts)
    except _Unsaid as error:
        raise ConfigError(
            f"{png} does not say how it was made ({error}).",
            "Only images from `hublora run` can be replayed, and only as they were written.",
        ) from error
    except HubloraError as error:
        raise ConfigError(
            f"{png} records what cannot be replayed: {error.message}", error.hint
        ) from error


def _parse(facts: Mapping[str, Any]) -> RecordedImage:
    revision = facts.get("base_revision")
    base = _text(facts, "base")
    if revision is None:
        named = BaseRef(None, Path(Path(base).name))
    else:
        named = BaseRef.parse(f"hf://{base.removeprefix('hf://')}", _text(facts, "base_revision"))
    adapters = facts.get("adapters")
    if not isinstance(adapters, list) or len(adapters) > MAX_ADAPTERS:
        raise _Unsaid("adapters")
    libraries = facts.get("versions", {})
    versions = {"hublora": facts.get("hublora"), **(_mapping(libraries, "versions"))}
    return RecordedImage(
        base=named,
        has_base_folder=revision is None,
        base_sha256=_text(facts, "base_sha256") if facts.get("base_sha256") else "",
        base_components=_components(facts),
        adapters=tuple(_adapter(_mapping(one, "adapters")) for one in adapters),
        compose=_choice(facts, "compose", get_args(CompositionMode), "sum"),
        dtype=_choice(facts, "dtype", tuple(DTYPES)),
        quantize=_choice(facts, "quantize", get_args(Quantization))
        if facts.get("quantize") is not None
        else None,
        device=_text(facts, "device") if facts.get("device") is not None else None,
        plan=_plan(_mapping(facts.get("sampling"), "sampling")),
        trigger=_choice(facts, "trigger", get_args(TriggerMode), "off"),
        conditions=_mapping(facts.get("conditions", {}), "conditions"),
        versions={name: one for name, one in versions.items() if isinstance(one, str)},
        sheet=SheetAxes.restore(_mapping(facts["sheet"], "sheet")) if "sheet" in facts else None,
    )


def _components(facts: Mapping[str, Any]) -> str | None:
    """Return the pipeline on the Hub that had what a single file lacks."""
    if facts.get("base_components") is None:
        return None
    ref = _ref(_text(facts, "base_components"))
    if ref.kind != "repo" or ref.path is not None:
        raise _Unsaid("base_components")
    return f"hf://{ref}"


def _adapter(entry: Mapping[str, Any]) -> RecordedAdapter:
    weight, followed = entry.get("weight"), entry.get("revision")
    if isinstance(weight, bool) or not isinstance(weight, str | int | float):
        raise _Unsaid("weight")
    return RecordedAdapter(
        ref=_ref(_text(entry, "ref")) if "ref" in entry else None,
        followed=None if followed is None else parse_revision(_text(entry, "revision")),
        weight=Weight.parse(str(weight)),
        title=_text(entry, "title") if "title" in entry else "",
        sha256=_text(entry, "sha256") if entry.get("sha256") else "",
    )


def _ref(text: str) -> AdapterRef:
    """Return a ref that names no local file, whatever files there are."""
    if "|" in text:
        raise _Unsaid("ref")
    if text.startswith(("http://", "https://")):
        return AdapterRef.parse(text)
    return AdapterRef.parse(f"hf://{text.removeprefix('hf://')}")


def _plan(sampling: Mapping[str, Any]) -> Sampling:
    known = {field.name for field in fields(Sampling)}
    values = {name: value for name, value in sampling.items() if name in known}
    for name in ("prompt", "negative_prompt", "scheduler", "timestep_spacing"):
        if name in values and not isinstance(values[name], str):
            raise _Unsaid(name)
    for name, most in (
        ("seed", _MAX_SEED),
        ("num_inference_steps", 10_000),
        ("width", MAX_SIDE),
        ("height", MAX_SIDE),
    ):
        least = 0 if name == "seed" else 1
        if name in values and not (_is_whole(values[name]) and least <= values[name] <= most):
            raise _Unsaid(name)
    shift = values.get("shift", 1.0)
    if isinstance(shift, bool) or not isinstance(shift, int | float):
        raise _Unsaid("shift")
    guidance = values.get("guidance_scale", 0.0)
    if not (isinstance(guidance, int | float) and abs(guidance) < math.inf):
        raise _Unsaid("guidance_scale")
    return Sampling(**{"prompt": "", **values})


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or "\0" in value:
        raise _Unsaid(name)
    return value


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Unsaid(name)
    return value


def _choice(
    values: Mapping[str, Any], name: str, allowed: tuple[Any, ...], usual: Any = None
) -> Any:
    value = values.get(name, usual)
    if not isinstance(value, str) or value not in allowed:
        raise _Unsaid(name)
    return value
