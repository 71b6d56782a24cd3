"""Original single files of base models: read by diffusers once, kept as a pipeline's folder.

    <cache>/single_files/<key>/   a diffusers pipeline; what the file lacks is the components' own

The key is a hash of the file and of the pipeline that its configs and missing components are from,
so that a file is converted once, and every other part of hublora sees a folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.adapters.header import Header
from hublora.errors import AdapterError, HubloraError
from hublora.families import Family
from hublora.families.registry import family_of_file
from hublora.families.single_file import (
    DENOISER_PREFIXES,
    TEXT_PREFIXES,
    VAE_PREFIXES,
    denoiser_shapes,
)
from hublora.filesystem import cache_root
from hublora.quiet import quiet_loading
from hublora.resolution.model_folder import INDEX, check_model_folder, read_json

if TYPE_CHECKING:
    import torch

FOLDER = "single_files"
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
# Marks of NoobAI's files, which state their prediction by tensors without values.
_VELOCITY, _ZERO_SNR = "v_pred", "ztsnr"
_SLACK = 1.1  # buffers, and tensors that two layers share


@dataclass(frozen=True)
class SingleFile:
    """What the header of an original single file says.

    Attributes:
        family: Family of its denoiser.
        version_of: Hub id of the published base model that it is a version of; "" if several may
            be it.
        dtype: Torch name of the denoiser's weights, e.g. "float16".
        elements: Numbers in the denoiser's weights.
        vae_elements: Numbers in the VAE's weights; 0 without a VAE.
        has_text_encoders: Whether it has text encoders.
        scheduler: Settings of the scheduler that the file asks for.
    """

    family: Family
    version_of: str
    dtype: str
    elements: int
    vae_elements: int
    has_text_encoders: bool
    scheduler: Mapping[str, Any]

    @property
    def replaced(self) -> tuple[str, ...]:
        """Components that are the file's own, of which the pipeline's weights are not needed."""
        whole = self.family.whole_files
        vae = (self.family.vae,) if whole and self.vae_elements else ()
        texts = self.family.text_encoders if whole and self.has_text_encoders else ()
        return (self.family.denoiser, *vae, *texts)


def read_single_file(header: Header, label: str) -> SingleFile:
    """Return what a header says of a base model.

    Args:
        header: Header of the file.
        label: The file, in messages.

    Raises:
        AdapterError: It is no base model of a known family, or in 8 bit or fewer.
    """
    found = family_of_file(header.shapes)
    if found is None:
        shown = ", ".join(sorted(header.shapes)[:2])
        raise AdapterError(
            f"{label} is no base model of a family that hublora knows: its tensors are named like "
            f"{shown or '(none)'}.",
            "Name a diffusers pipeline, or the original file of a base model.",
        )
    family, version_of = found
    denoiser = denoiser_shapes(header.shapes)
    prefixed = (prefix + name for name in denoiser for prefix in (*DENOISER_PREFIXES, ""))
    kinds = Counter(header.dtypes[name] for name in prefixed if name in header.dtypes)
    others = sorted(set(kinds) - set(_DTYPES))
    if others:
        raise AdapterError(
            f"{label} has weights of the type {others[0]}, which is no type to train or generate "
            "with.",
            "Take the file in BF16, F16 or F32.",
        )
    vae = (s for name, s in header.shapes.items() if name.startswith(VAE_PREFIXES))
    scheduler: dict[str, Any] = {}
    if _VELOCITY in header.shapes:
        scheduler["prediction_type"] = "v_prediction"
    if _ZERO_SNR in header.shapes:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return SingleFile(
        family,
        version_of,
        _DTYPES[kinds.most_common(1)[0][0]],
        sum(math.prod(shape) for shape in denoiser.values()),
        sum(math.prod(shape) for shape in vae),
        any(name.startswith(TEXT_PREFIXES) for name in header.shapes),
        scheduler,
    )


def convert_single_file(
    file: Path, single: SingleFile, components: Path, identity: str, label: str
) -> Path:
    """Return the folder of the pipeline that a single file and its components make, from the cache
    if it has it.

    Args:
        file: The file.
        single: Facts from its header.
        components: Folder of a pipeline, which may lack the weights of `single.replaced`.
        identity: Hashes or commits of the file and of its components, as one text.
        label: The file, in messages.

    Raises:
        AdapterError: The components are of other sizes, or weights would be left out.
    """
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]
    final = cache_root() / FOLDER / key
    if _is_whole(final):
        return final
    _check_sizes(single, components, label)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{key}."))
    try:
        with quiet_loading():
            _convert(file, single, components, temporary, label)
        about = {"file": label, "identity": identity}
        (temporary / "index.json").write_text(json.dumps(about))
        temporary.chmod(0o755)
        shutil.rmtree(final, ignore_errors=True)  # whose components are gone
        os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def _is_whole(folder: Path) -> bool:
    return (folder / INDEX).is_file() and all(one.exists() for one in folder.iterdir())


def _check_sizes(single: SingleFile, components: Path, label: str) -> None:
    """Check that the denoiser that the components' config describes is the file's."""
    from hublora.resolution.parameter_count import count_parameters

    name = single.family.denoiser
    check_model_folder(components / name, f"the components of {label}/{name}", weights=False)
    library, kind = read_json(components / INDEX, label)[name]
    asked = count_parameters(getattr(import_module(library), kind), components / name, label)
    if not single.elements / _SLACK <= asked <= single.elements * _SLACK:
        raise AdapterError(
            f"{label} has a {name} of {single.elements:,} parameters, and its components describe "
            f"one of {asked:,}.",
            "Name the base model that it is a version of: --components owner/name",
        )


def _convert(file: Path, single: SingleFile, components: Path, folder: Path, label: str) -> None:
    import torch

    dtype = getattr(torch, single.dtype)
    try:
        if single.family.whole_files:
            _convert_pipeline(file, single, components, folder, dtype)
        else:
            _convert_denoiser(file, single, components, folder, dtype)
    except HubloraError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdapterError(
            f"{label} cannot be read as a base model of {single.family.name}: {reason}",
            "Name the base model that it is a version of: --components owner/name",
        ) from error


def _convert_pipeline(
    file: Path, single: SingleFile, components: Path, folder: Path, dtype: torch.dtype
) -> None:
    import diffusers

    family = single.family
    pipe = getattr(diffusers, family.pipeline_classes[0]).from_single_file(
        str(file),
        config=str(components),
        local_files_only=True,
        dtype=dtype,
        safety_checker=None,
        feature_extractor=None,
    )
    _check_whole(getattr(pipe, family.denoiser), single.elements, family.denoiser)
    if single.vae_elements:
        _check_whole(getattr(pipe, family.vae), single.vae_elements, family.vae)
    if single.scheduler:
        scheduler = pipe.scheduler
        pipe.scheduler = type(scheduler).from_config(scheduler.config, **single.scheduler)
    pipe.save_pretrained(folder)


def _convert_denoiser(
    file: Path, single: SingleFile, components: Path, folder: Path, dtype: torch.dtype
) -> None:
    name = single.family.denoiser
    index = json.loads((components / INDEX).read_bytes())
    library, kind = index[name]
    model = getattr(import_module(library), kind).from_single_file(
        str(file), config=str(components), subfolder=name, local_files_only=True, dtype=dtype
    )
    _check_whole(model, single.elements, name)
    model.save_pretrained(folder / name)
    shutil.copyfile(components / INDEX, folder / INDEX)
    for other in sorted(components.iterdir()):
        if other.is_dir() and other.name != name and isinstance(index.get(other.name), list):
            (folder / other.name).symlink_to(other.resolve(), target_is_directory=True)


def _check_whole(model: Any, elements: int, name: str) -> None:
    """Check that a model has all numbers of its file, and no others.

    Raises:
        AdapterError: Some were left out, or are missing.
    """
    tensors = model.state_dict().values()
    found = sum(tensor.numel() for tensor in tensors)
    if found != elements or any(tensor.is_meta for tensor in tensors):
        raise AdapterError(
            f"Of the {elements:,} weights of the {name} in the file, diffusers makes {found:,}.",
            "Name the base model that it is a version of: --components owner/name",
        )
