"""Image inputs besides the prompt: paths and refs, loaded, and recorded in the image's metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError, RefError
from hublora.families import family_of_pipeline
from hublora.refs import AdapterRef
from hublora.resolution.controlnet_ip_adapter import IpAdapter, download_ip_adapter, load_controlnet

if TYPE_CHECKING:
    from hublora.families import Family
    from hublora.generation.conditions import Conditions

# Field of an input image -> its flag.
FLAGS = {
    "image": "--image",
    "mask": "--mask",
    "control_image": "--control-image",
    "ip_adapter_image": "--ip-adapter-image",
}
MOST_REFERENCES = 16  # of a recorded image, which a stranger may have written
_MOST_SCALE = 10.0


@dataclass(frozen=True)
class Inputs:
    """Paths and refs of the inputs besides the prompt.

    Attributes:
        image: Image to start from.
        strength: How much of `image` is generated anew, in (0, 1]; None is the pipeline's own.
        mask: Inpainting mask, white where `image` is generated anew.
        controlnet: Ref of a ControlNet.
        control_image: Conditioning image of the ControlNet.
        ip_adapter: Ref of an IP-Adapter.
        ip_adapter_image: Image prompt of the IP-Adapter.
        ip_adapter_scale: Strength of the IP-Adapter, -10 to 10; None is 0.6.
        reference: Reference images of an edit model, in order, or one.
    """

    image: Path | str | None = None
    strength: float | None = None
    mask: Path | str | None = None
    controlnet: str | None = None
    control_image: Path | str | None = None
    ip_adapter: str | None = None
    ip_adapter_image: Path | str | None = None
    ip_adapter_scale: float | None = None
    reference: Sequence[Path | str] | Path | str = ()

    def __post_init__(self) -> None:
        if (self.ip_adapter is None) != (self.ip_adapter_image is None):
            raise ConfigError(
                "--ip-adapter and --ip-adapter-image go together.", "Give both or neither."
            )
        if (self.controlnet is None) != (self.control_image is None):
            raise ConfigError(
                "--controlnet and --control-image go together.", "Give both or neither."
            )
        if self.strength is not None and not isinstance(self.strength, int | float):
            raise TypeError(f"strength must be a number, got {self.strength!r}")
        scale = self.ip_adapter_scale
        if scale is None:
            return
        if self.ip_adapter is None:
            raise ConfigError("--ip-adapter-scale requires --ip-adapter.", "Add --ip-adapter REPO.")
        if not (math.isfinite(scale) and abs(scale) <= _MOST_SCALE):
            raise ConfigError(
                f"--ip-adapter-scale must be between -10 and 10, got {scale:g}.", "0.6 is usual."
            )

    @property
    def references(self) -> tuple[Path, ...]:
        """Paths of the reference images."""
        given = self.reference
        return tuple(Path(one) for one in ([given] if isinstance(given, Path | str) else given))

    def open(self) -> OpenedInputs:
        """Load the inputs: read the images and download the models.

        Raises:
            ConfigError: An image cannot be read, or inputs exclude each other.
            NotFoundError: A model does not exist.
        """
        from hublora.generation.conditions import Conditions, fingerprint, open_image

        paths = {name: Path(path) for name in FLAGS if (path := getattr(self, name)) is not None}
        images: dict[str, Any] = {name: open_image(path) for name, path in paths.items()}
        stated: dict[str, Any] = {
            name: {"sha256": fingerprint(image), "name": paths[name].name}
            for name, image in images.items()
        }
        references = [open_image(path) for path in self.references]
        if references:
            stated["references"] = [
                {
                    "sha256": fingerprint(image),
                    "name": path.name,
                    "size": f"{image.width}x{image.height}",
                }
                for path, image in zip(self.references, references, strict=True)
            ]
        checked = Conditions(
            strength=self.strength, **images, controlnet=self.controlnet, references=references
        )
        controlnet = None
        if self.controlnet:
            controlnet, stated["controlnet"] = load_controlnet(self.controlnet)
        if self.strength is not None:
            stated["strength"] = self.strength
        ip_adapter = download_ip_adapter(self.ip_adapter) if self.ip_adapter else None
        scale = 0.6 if self.ip_adapter_scale is None else self.ip_adapter_scale
        if ip_adapter:
            stated |= {"ip_adapter": ip_adapter.name, "ip_adapter_scale": scale}
        conditions = replace(checked, controlnet=controlnet, stated=stated)
        return OpenedInputs(conditions, ip_adapter, scale)


@dataclass(frozen=True)
class OpenedInputs:
    """Loaded inputs besides the prompt.

    Attributes:
        conditions: Image inputs of the pipeline.
        ip_adapter: Files of the IP-Adapter; None without one.
        scale: Strength of the IP-Adapter, -10 to 10.
    """

    conditions: Conditions
    ip_adapter: IpAdapter | None = None
    scale: float = 0.6

    def check_family(self, family: Family, base: str) -> None:
        """Check that a family's base models take these inputs, before one is downloaded.

        Args:
            family: Family of the base.
            base: Name of the base, for the message.

        Raises:
            ConfigError: The base takes another number of references.
        """
        if self.conditions.image is not None and family.references.most:
            raise ConfigError(
                f"{base} starts from no image; it takes reference images.",
                "Use --reference in place of --image.",
            )
        family.references.check(len(self.conditions.references), base)

    def prepare(self, pipe: Any) -> None:
        """Load the IP-Adapter into a pipeline that is not yet on its device.

        Raises:
            AdapterError: The IP-Adapter does not fit the base.
            ConfigError: The base is of a family without ControlNets or IP-Adapters here.
        """
        self._check_family(pipe)
        if self.ip_adapter is None:
            return
        from hublora.generation.ip_adapter import add_ip_adapter
        from hublora.quiet import quiet_loading

        adapter = self.ip_adapter
        with quiet_loading():
            add_ip_adapter(
                pipe, adapter.folder, adapter.file, adapter.encoder, self.scale, adapter.name
            )

    def _check_family(self, pipe: Any) -> None:
        """Check that ControlNet and IP-Adapter are used with a base that may have them."""
        if self.conditions.controlnet is not None:
            name, flag = "a ControlNet", "--controlnet"
        elif self.ip_adapter is not None:
            name, flag = "an IP-Adapter", "--ip-adapter"
        else:
            return
        family = family_of_pipeline(pipe)
        if not family.takes_controlnets:
            raise ConfigError(
                f"The base is of the family {family.name}; {name} is used with Stable Diffusion "
                "and SDXL only.",
                f"Leave {flag} out.",
            )


def restore_inputs(
    stated: Mapping[str, Any],
    near: Path,
    given: Mapping[str, Path | str | None],
    references: Sequence[Path | str] = (),
) -> Inputs:
    """Return the inputs that a generated image records, after a check of each input image.

    Args:
        stated: JSON "conditions" of the image's metadata.
        near: Folder to search for input images, before the current folder.
        given: Field of `Inputs` -> path or ref that replaces the recorded one.
        references: Files of the reference images, in any order, that are not in `near`.

    Raises:
        ConfigError: An input image is missing, or its pixels differ from the recorded ones.
    """
    found: dict[str, Any] = {
        name: stated[name]
        for name in ("strength", "controlnet", "ip_adapter", "ip_adapter_scale")
        if name in stated
    }
    try:
        for name in ("controlnet", "ip_adapter"):
            if not isinstance(found.get(name, ""), str):
                raise TypeError(name)
        if given.get("ip_adapter"):
            found["ip_adapter"] = given["ip_adapter"]
        elif "ip_adapter" in found:
            found["ip_adapter"] = _recorded_repo(found["ip_adapter"])
        for name, flag in FLAGS.items():
            if name in stated:
                found[name] = _find_image(stated[name], flag, near, given.get(name))
        if "references" in stated:
            found["reference"] = _find_references(stated["references"], near, references)
        return Inputs(**found)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ConfigError("The metadata on the inputs of this image is incomplete.") from error


def _recorded_repo(name: str) -> str:
    """Return the ref of a recorded IP-Adapter, which names no file of this computer.

    Raises:
        ConfigError: It was a local file.
    """
    try:
        return f"hf://{AdapterRef.parse(f'hf://{name}')}"
    except RefError as error:
        raise ConfigError(
            f"The image was generated with an IP-Adapter that was not on the Hub: {name!r}.",
            "Give its file: --ip-adapter FILE",
        ) from error


def _find_references(
    entries: Sequence[Mapping[str, Any]], near: Path, given: Sequence[Path | str]
) -> list[Path]:
    """Return the files of the recorded reference images, of those that are given or near.

    Raises:
        ConfigError: One is missing.
    """
    from hublora.generation.conditions import fingerprint, open_image

    if not isinstance(entries, list) or len(entries) > MOST_REFERENCES:
        raise TypeError("references")
    known = {fingerprint(open_image(Path(path))): Path(path) for path in given}
    return [
        known.get(str(entry["sha256"])) or _find_image(entry, "--reference", near, None)
        for entry in entries
    ]


def _find_image(entry: Mapping[str, Any], flag: str, near: Path, given: Path | str | None) -> Path:
    from hublora.generation.conditions import fingerprint, open_image

    name, wanted = Path(str(entry["name"])).name, str(entry["sha256"])
    for path in [Path(given)] if given else [near / name, Path(name)]:
        if path.is_file():
            if fingerprint(open_image(path)) == wanted:
                return path
            if given:
                raise ConfigError(f"{path} is not the input image {name!r}: its pixels differ.")
    raise ConfigError(
        f"The image was generated from {name!r} (sha256 {wanted[:12]}…), which was not found.",
        f"Name it: {flag} FILE",
    )
