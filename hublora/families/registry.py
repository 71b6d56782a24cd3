"""The model families, and which one a base model, a name or an adapter belongs to."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from hublora.errors import AdapterError
from hublora.families.base import Family, LayerInputs
from hublora.families.chroma.family import Chroma
from hublora.families.flux.family import Flux
from hublora.families.flux.kontext import FluxKontext
from hublora.families.flux2.family import Flux2, Flux2Klein
from hublora.families.krea2.family import Krea2
from hublora.families.pipeline import Pipeline
from hublora.families.qwen_image.edit import QwenImageEdit, QwenImageEditPlus
from hublora.families.qwen_image.family import QwenImage
from hublora.families.single_file import denoiser_shapes
from hublora.families.speed import SpeedSettings, find_speed
from hublora.families.stable_diffusion.family import StableDiffusion, StableDiffusionInpainting
from hublora.families.stable_diffusion_3.family import StableDiffusion3
from hublora.families.stable_diffusion_xl.family import (
    StableDiffusionXL,
    StableDiffusionXLInpainting,
)
from hublora.families.z_image.family import ZImage

_ALL: tuple[Family, ...] = (
    StableDiffusion(),
    StableDiffusionXL(),
    StableDiffusionInpainting(),
    StableDiffusionXLInpainting(),
    StableDiffusion3(),
    # Edit models stand before the family whose architecture theirs begin with.
    FluxKontext(),
    Flux(),
    Flux2Klein(),
    Flux2(),
    ZImage(),
    QwenImageEditPlus(),
    QwenImageEdit(),
    QwenImage(),
    Krea2(),
    Chroma(),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}

# Components in names of diffusers' files, also of families that are not supported yet, so that
# their files are refused for what they are.
COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
# The component of layer names that state none, and that no family knows.
UNNAMED_COMPONENT = "unet"

_NAMES = tuple({id(family.names): family.names for family in _ALL}.values())
# Names of the components that predict, of all families.
DENOISERS = tuple({family.denoiser: None for family in _ALL})
_BLOCKS = tuple({id(family.blocks): family.blocks for family in _ALL}.values())

FLAT_PREFIXES = tuple(sorted({prefix for names in _NAMES for prefix in names.flat_prefixes}))
NATIVE_PREFIXES = tuple(sorted({prefix for names in _NAMES for prefix in names.native_prefixes}))
SHORT_NAMES = {
    short: hub_id for family in _ALL for short, hub_id in family.known_bases.short_names.items()
}


def family_of_folder(folder: Path) -> Family:
    """Return the family of the pipeline in a local folder.

    Raises:
        AdapterError: Its pipeline class belongs to no family, or its index does not parse.
    """
    try:
        index = json.loads((folder / "model_index.json").read_bytes())
        name = str(index.get("_class_name"))
    except (ValueError, AttributeError, RecursionError) as error:
        raise AdapterError(
            f"The model_index.json of {folder} does not parse.", "Download it again."
        ) from error
    return _by_class(name)


def family_of_pipeline(pipe: Pipeline) -> Family:
    """Return the family of a pipeline object.

    Raises:
        AdapterError: Its class belongs to no family.
    """
    return _by_class(type(pipe).__name__)


def family_of_architecture(architecture: str) -> Family | None:
    """Return the family of a modelspec name such as "stable-diffusion-v1/lora", None if it is of
    none."""
    return next(
        (f for f in _ALL if architecture.startswith(f.known_bases.architecture_prefix)), None
    )


def family_of_adapter(
    architecture: str | None, family: str | None, components: Collection[str]
) -> Family:
    """Return the family whose layer names an adapter has.

    Args:
        architecture: Modelspec name of its base model's architecture, if it is known.
        family: Name in the registry, if it is known.
        components: Components that it changes; a family that has them all is preferred.
    """
    stated = [family_of_architecture(architecture or ""), FAMILIES.get(family or "")]
    candidates = [one for one in (*stated, *_ALL) if one is not None]
    fitting = (one for one in candidates if set(components) <= set(one.adaptable))
    return next(fitting, candidates[0])


def families_of_adapter(
    architecture: str | None, family: str | None, layers: Mapping[str, Collection[str]]
) -> list[Family]:
    """Return the families that an adapter may belong to: the stated one, else all that have such
    layers.

    Args:
        architecture: Modelspec name of its base model's architecture, if it is known.
        family: Name in the registry, if it is known.
        layers: Component -> names of its layers, diffusers' or the original's.
    """
    stated = FAMILIES.get(family or "") or family_of_architecture(architecture or "")
    if stated is not None:
        return [stated]
    return [
        one
        for one in _ALL
        if set(layers) <= set(one.adaptable)
        if all(
            one.names.knows(layer) or one.names.knows_flat(layer)
            for layer in layers.get(one.denoiser, ())
        )
    ]


def architecture_of_layers(inputs: LayerInputs) -> str | None:
    """Return the modelspec name of the base models that an adapter's layers fit, None if they do
    not determine it."""
    found = {family.architecture_of_layers(inputs) for family in _ALL} - {None}
    return found.pop() if len(found) == 1 else None


def architecture_of_base(hub_id: str) -> str | None:
    """Return the modelspec name of a published base model, None if it is not known."""
    known = (family.known_bases.architectures.get(hub_id) for family in _ALL)
    return next((name for name in known if name), None)


def architecture_of_kohya(version: str) -> str | None:
    """Return the modelspec name for kohya's `ss_base_model_version`, None if it is not known."""
    known = (family.known_bases.kohya_versions.get(version) for family in _ALL)
    return next((name for name in known if name), None)


def generation_base_of(hub_id: str) -> str | None:
    """Return the Hub id of the base model that adapters of a published one are used on, None if it
    is that one itself or is not known."""
    known = (family.known_bases.generation.get(hub_id) for family in _ALL)
    return next((name for name in known if name), None)


def family_of_file(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Family, str] | None:
    """Return the family of an original single file of a base model, and the Hub id of the published
    one that it is a version of, "" if several may be it; None if it is of no family.

    Args:
        shapes: Name -> shape of the file's tensors.
    """
    tensors = denoiser_shapes(shapes)
    found = ((family, family.base_of_file(tensors)) for family in _ALL)
    return next(((family, base) for family, base in found if base is not None), None)


def known_assistants() -> tuple[str, ...]:
    """Return the refs of adapters that undo a base model's distillation while one is trained."""
    return tuple(ref for family in _ALL for ref in family.known_bases.assistants.values())


def speed_of(names: Iterable[str], tags: Iterable[str] = ()) -> SpeedSettings | None:
    """Return how images are sampled with a published adapter that makes a base model fast, by its
    names or tags; None for any other adapter."""
    known = [one for family in _ALL for one in family.known_bases.speed_adapters]
    return find_speed(known, names, tags)


def native_layers(layers: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """Return each family's other names of these layers, as `LoraNames.readable_layers`."""
    found: dict[str, tuple[str, ...]] = {}
    for names in _NAMES:
        found |= names.readable_layers(layers)
    return found


def is_swapped(layer: str, shape: tuple[int, ...] | None) -> bool:
    """Tell whether an original implementation has the two halves of the rows of a diffusers layer
    in the other order, as `LoraNames.is_swapped`."""
    return any(names.is_swapped(layer, shape) for names in _NAMES)


def component_of_layer(layer: str) -> str | None:
    """Return the denoiser of the families that have layers named like this one, None if none
    has."""
    return next((family.denoiser for family in _ALL if family.names.knows(layer)), None)


def component_of_flat(prefix: str, name: str) -> str:
    """Return the component of a flattened name.

    Args:
        prefix: One of `FLAT_PREFIXES`, which the name had.
        name: The name without it.
    """
    having = [names for names in _NAMES if prefix in names.flat_prefixes]
    chosen = next((names for names in having if names.knows_flat(name)), having[0])
    return chosen.flat_prefixes[prefix]


def component_of_native(prefix: str, layer: str) -> str | None:
    """Return the component of an original name, None where no family has such a layer.

    Args:
        prefix: One of `NATIVE_PREFIXES`, which the name had.
        layer: The name without it.
    """
    components = {names.native_prefixes.get(prefix) for names in _NAMES} - {None}
    denoiser = component_of_layer(layer)
    return next((one for one in components if one == denoiser or one not in DENOISERS), None)


def unflatten(name: str) -> str | None:
    """Return diffusers' name of a layer from its flattened name without the prefix, None where the
    name alone does not determine it."""
    knowing = [names for names in _NAMES if names.knows_flat(name)] or _NAMES
    found = {names.unflatten(name) for names in knowing}
    if knowing is _NAMES:
        found -= {None}
    return found.pop() if len(found) == 1 else None


def diffusers_name(name: str) -> str | None:
    """Return diffusers' name of a layer from it or its original name, None where the name alone
    does not determine it; a name that no family knows stands for itself."""
    found = {names.diffusers_name(name) for names in _NAMES if names.knows(name)}
    if not found:
        return name
    return found.pop() if len(found) == 1 else None


def current_name(component: str, layer: str) -> str:
    """Return the present name of a layer that older versions of diffusers named otherwise."""
    for names in _NAMES:
        layer = names.current_name(component, layer)
    return layer


def block_path(block: str) -> str:
    """Return the beginning of the names of a block's layers, "down_blocks.1" for "down.1"; any
    other text stands for itself."""
    found = (blocks.path(block) for blocks in _BLOCKS)
    return next((path for path in found if path), block)


def find_block(layer: str) -> tuple[str, str] | None:
    """Return the block that a layer is in, as `Blocks.find`; None for a layer outside of blocks."""
    found = (blocks.find(layer) for blocks in _BLOCKS)
    return next((block for block in found if block), None)


def _by_class(name: str) -> Family:
    for family in FAMILIES.values():
        if name in family.pipeline_classes:
            return family
    known = ", ".join(sorted(c for family in FAMILIES.values() for c in family.pipeline_classes))
    raise AdapterError(
        f"The pipeline class {name!r} belongs to no family that hublora supports.",
        f"Supported are: {known}.",
    )
