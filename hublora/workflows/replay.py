"""Replay: image ─ its own metadata ─▶ the same refs, settings and seed ─▶ the image again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from hublora._version import __version__
from hublora.errors import ConfigError, NotFoundError
from hublora.filesystem import sha256_of
from hublora.generation.generate import generate, library_versions, save
from hublora.generation.inputs import OpenedInputs, restore_inputs
from hublora.generation.options import (
    InputOptions,
    LoadOptions,
    ReplayOptions,
    check_options,
    pick,
)
from hublora.generation.outputs import check_output, output_paths
from hublora.progress import Callback, FileWritten, Note, no_callback
from hublora.refs import AdapterRef, parse_revision
from hublora.resolution.adapter import download_adapter
from hublora.resolution.device import DTYPES
from hublora.workflows.load import load_pipeline

if TYPE_CHECKING:
    from PIL import Image

    from hublora.generation.sample import Sampling


@dataclass(frozen=True)
class Replayed:
    """An image that was made again.

    Attributes:
        path: Path of the new image.
        drift: Differences to the recorded setup, one sentence each.
        difference: Mean difference to the old image in 8-bit levels; None with another seed.
    """

    path: Path
    drift: tuple[str, ...]
    difference: float | None


def replay(
    png: Path | str,
    *,
    seed: int | None = None,
    output: Path | str | None = None,
    adapters: Sequence[Path | str] = (),
    callback: Callback = no_callback,
    **options: Unpack[ReplayOptions],
) -> Replayed:
    """Make an image again from what it says about itself.

    Args:
        png: A PNG that hublora wrote.
        seed: Another one than the image's.
        output: A .png file or a folder; beside the image if not given.
        adapters: Files of the adapters that were not on the Hub.
        callback: Called with each event (`hublora.progress.Event`).
        options: The following.
        base: Folder of the base, if it was a folder.
        device: As for `load`.
        image: Image that it started from, if it is not in the same folder any more.
        mask: Inpainting mask, likewise.
        control_image: Conditioning image, likewise.
        ip_adapter: File of the IP-Adapter, if it was not on the Hub.
        ip_adapter_image: Image prompt, likewise.

    Raises:
        ConfigError: The image does not say how it was made, or a file is needed.
        HubloraError: As `load`.
    """
    check_options(options, ReplayOptions, replay)
    png = Path(png)
    facts = _read(png)
    plan, drift = _plan(facts), _version_drift(facts)
    suffix = "-replay" if seed is None else f"-{seed}"
    output = Path(output) if output else png.with_stem(png.stem + suffix)
    check_output(output)
    given = pick(options, InputOptions)
    inputs = restore_inputs(facts["conditions"], png.parent, given).open()
    pipe = _load_again(facts, [Path(one) for one in adapters], options, inputs, drift, callback)
    plan = plan if seed is None else plan.with_seed(seed)
    (made,) = generate(pipe, [plan], facts["trigger"], callback, inputs.conditions)
    (path,) = output_paths(output, plan.prompt, [plan.seed])
    save(made, path, pipe.hublora, plan, facts["trigger"], inputs.conditions)
    callback(FileWritten("image", path))
    same_seed = seed in (None, facts["sampling"].get("seed"))
    return Replayed(path, tuple(drift), _difference(made, png) if same_seed else None)


def _load_again(
    facts: Mapping[str, Any],
    adapters: Sequence[Path],
    options: ReplayOptions,
    inputs: OpenedInputs,
    drift: list[str],
    callback: Callback,
) -> Any:
    """Return the pipeline of an image; report, and add to `drift`, what differs from the record."""
    from hublora.generation.sample import use_scheduler

    refs = [_find(one, adapters, drift) for one in facts["adapters"]]
    base = options.get("base")
    loading: LoadOptions = {
        "base": base or _base(facts),
        "base_revision": None if base else facts["base_revision"],
        "compose": facts["compose"],
        "weights": {str(i + 1): one["weight"] for i, one in enumerate(facts["adapters"])},
        "dtype": facts["dtype"],
        "device": options.get("device"),
    }
    pipe = load_pipeline(refs, loading, callback, inputs.prepare)
    for part, entry in zip(pipe.hublora.adapters, facts["adapters"], strict=True):
        if part.ref.kind == "url" and part.adapter.facts.sha256 != entry.get("sha256"):
            drift.append(f"{part.title} is another file now.")
    if pipe.hublora.facts()["device"] != facts.get("device"):
        drift.append(f"It was generated on {facts.get('device')}, now on {pipe.hublora.device}.")
    for sentence in drift:
        callback(Note(sentence, warning=True))
    use_scheduler(pipe, facts["sampling"].get("scheduler"))
    return pipe


def _difference(made: Image.Image, png: Path) -> float:
    from PIL import Image

    from hublora.generation.sample import image_difference

    with Image.open(png) as recorded:
        return image_difference(made, recorded)


def _read(png: Path) -> dict[str, Any]:
    """Return what the image says, checked as far as it is used."""
    from PIL import UnidentifiedImageError

    from hublora.generation.metadata import read_image

    try:
        facts = read_image(png)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise ConfigError(f"{png} is not an image that can be read.") from error
    whole = (
        isinstance(facts, dict)
        and isinstance(facts.get("base"), str)
        and isinstance(facts.get("sampling"), dict)
        and isinstance(facts.get("adapters"), list)
        and all(isinstance(one, dict) and "weight" in one for one in facts["adapters"])
        and facts.get("dtype") in DTYPES
        and isinstance(facts.get("conditions", {}), dict)
    )
    if not whole:
        raise ConfigError(
            f"{png} does not say how it was made.",
            "Only images from `hublora run` can be replayed, and only as they were written.",
        )
    usual: dict[str, Any] = {
        "compose": "sum",
        "trigger": "off",
        "base_revision": None,
        "conditions": {},
    }
    return {**usual, **facts}


def _plan(facts: Mapping[str, Any]) -> Sampling:
    from hublora.generation.sample import Sampling

    known = {field.name for field in fields(Sampling)}
    try:
        return Sampling(**{k: v for k, v in facts["sampling"].items() if k in known})
    except TypeError as error:
        raise ConfigError("The image does not say what its prompt was.") from error


def _version_drift(facts: Mapping[str, Any]) -> list[str]:
    then = {"hublora": facts.get("hublora"), **(facts.get("versions") or {})}
    now = {"hublora": __version__, **library_versions()}
    return [
        f"{name} was {then[name]} and is {now[name]}."
        for name in now
        if then.get(name) not in (None, now[name])
    ]


def _base(facts: Mapping[str, Any]) -> str:
    if facts["base_revision"] is None:
        raise ConfigError(
            f"The image was generated with a folder as base, {facts['base']!r}.",
            "Name it: --base FOLDER",
        )
    return str(facts["base"])


def _find(entry: Mapping[str, Any], files: Sequence[Path], drift: list[str]) -> str:
    """Return a ref for an adapter that an image names."""
    if "ref" not in entry:
        return _find_file(entry, files)
    ref = AdapterRef.parse(str(entry["ref"]))
    if ref.kind != "repo":
        return str(ref)
    try:
        download_adapter(ref)
    except NotFoundError:
        followed_revision = entry.get("revision")
        revision = parse_revision(str(followed_revision)) if followed_revision else None
        followed = AdapterRef("repo", ref.location, revision, ref.path)
        _, path = download_adapter(followed)
        same = "the same file" if sha256_of(path) == entry.get("sha256") else "another file"
        drift.append(
            f"{ref.location} has no commit {str(ref.revision)[:8]} any more; "
            f"{followed.revision or 'main'} has {same}."
        )
        return str(followed)
    return str(ref)


def _find_file(entry: Mapping[str, Any], files: Sequence[Path]) -> str:
    for file in files:
        _, path = download_adapter(AdapterRef("local", str(file)))
        if sha256_of(path) == entry.get("sha256"):
            return str(file.resolve())
    raise ConfigError(
        f"The image was generated with an adapter that was not on the Hub: {entry.get('title')!r} "
        f"(sha256 {str(entry.get('sha256'))[:12]}…).",
        "Give its file: --adapter FILE",
    )
