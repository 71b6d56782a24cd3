"""Schedulers by their names in diffusers and in AUTOMATIC1111's web UI.

    EulerDiscrete, EulerDiscreteScheduler   a class of diffusers
    DPM++ 2M, Euler a, LCM                  a sampler of AUTOMATIC1111's web UI
    … Karras                                either, with Karras noise levels (2206.00364, eq. 5)

Each is made from the settings of the base's own scheduler, which state its noise process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from inspect import signature
from typing import Any

from hublora.errors import ConfigError

SPACINGS = ("leading", "linspace", "trailing")
MAX_SHIFT = 100
# Beside a shift that is the same at every size.
_STATIC_SHIFT: Mapping[str, Any] = {"use_dynamic_shifting": False, "shift_terminal": None}
_KARRAS = " karras"
_FLOW = "FlowMatch"
_MULTISTEP = "DPMSolverMultistep"
# Sampler of AUTOMATIC1111 -> class in diffusers without "Scheduler", and its settings.
SAMPLERS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "DDIM": ("DDIM", {}),
    "DDPM": ("DDPM", {}),
    "DEIS": ("DEISMultistep", {}),
    "DPM2": ("KDPM2Discrete", {}),
    "DPM2 a": ("KDPM2AncestralDiscrete", {}),
    "DPM++ 2M": (_MULTISTEP, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "DPM++ 2M SDE": (_MULTISTEP, {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "DPM++ 3M SDE": (_MULTISTEP, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    "DPM++ SDE": ("DPMSolverSDE", {}),
    "Euler": ("EulerDiscrete", {}),
    "Euler a": ("EulerAncestralDiscrete", {}),
    "Heun": ("HeunDiscrete", {}),
    "LCM": ("LCM", {}),
    "LMS": ("LMSDiscrete", {}),
    "PLMS": ("PNDM", {}),
    "TCD": ("TCD", {}),
    "UniPC": ("UniPCMultistep", {}),
}
# Settings that the base's own scheduler may lack: noise that is not from the generator of the call
# needs a seed, or no image is made again; Runge-Kutta steps fail in an image of few steps.
_DEFAULTS: dict[str, Mapping[str, Any]] = {
    "DPMSolverSDEScheduler": {"noise_sampler_seed": 0},
    "PNDMScheduler": {"skip_prk_steps": True},
}
_CONSISTENCY = {"LCMScheduler", "TCDScheduler"}  # which diffusers does not list as compatible
_OTHER_NOISE = {"EDMEulerScheduler"}  # which it does, though its denoiser's input is scaled


def use_scheduler(
    pipe: Any, name: str | None, timestep_spacing: str | None = None, shift: float | None = None
) -> None:
    """Give the pipeline a scheduler of the same noise process.

    Args:
        pipe: A diffusers pipeline.
        name: Scheduler as in diffusers or AUTOMATIC1111's web UI; None for the base's own.
        timestep_spacing: "leading", "linspace" or "trailing"; None for the scheduler's own.
        shift: Shift of the noise levels at any size, above 0; None for the scheduler's own.

    Raises:
        ConfigError: There is no scheduler of that name, it does not fit, has no such setting, or
            needs a package that is not installed.
    """
    composition = getattr(pipe, "hublora", None)
    own = getattr(composition, "base_scheduler", None) or pipe.scheduler
    if name is None and timestep_spacing is None and shift is None:
        if getattr(composition, "speed", None) is not None:  # which brought another one
            pipe.scheduler = own
        return
    kind, settings = (type(own), {}) if name is None else _find(own, name)
    if timestep_spacing is not None:
        settings = {**settings, "timestep_spacing": timestep_spacing}
    if shift is not None:
        settings = {**settings, **_STATIC_SHIFT, "shift": shift}
    _check_settings(kind, settings)
    pipe.scheduler = kind.from_config(own.config, **settings)


def check_scheduler(
    name: str | None, timestep_spacing: str | None, shift: float | None = None
) -> None:
    """Check what can be checked without a pipeline.

    Raises:
        ConfigError: The name is no text, there is no such spacing, or the shift is out of range.
    """
    if shift is not None and not 0 < shift <= MAX_SHIFT:
        raise ConfigError(
            f"shift must be above 0 and at most {MAX_SHIFT}, got {shift:g}.", "1 to 7 are usual."
        )
    if not isinstance(name, str | None):
        raise ConfigError(f"The scheduler must be a name, got {name!r:.40}.", "LCM, for example.")
    if timestep_spacing not in (None, *SPACINGS):
        raise ConfigError(
            f"timestep_spacing must be one of {', '.join(SPACINGS)}, got {timestep_spacing!r:.40}."
        )


def sampler_name(scheduler: str) -> tuple[str, str | None]:
    """Return sampler and schedule type as AUTOMATIC1111's web UI names them.

    A scheduler that it has no name for keeps that of its class.

    Args:
        scheduler: A name that `use_scheduler` takes.
    """
    bare, karras = _split(scheduler)
    known = {name.casefold(): name for name in SAMPLERS}
    stem = bare.removesuffix("Scheduler")
    of_class = {kind: name for name, (kind, _) in reversed(SAMPLERS.items())}
    return known.get(bare.casefold()) or of_class.get(stem, stem), "Karras" if karras else None


def fitting_schedulers(scheduler: Any) -> list[str]:
    """Return the class names of diffusers' schedulers for the noise process of one of them."""
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

    discrete = {kind.name for kind in KarrasDiffusionSchedulers} - _OTHER_NOISE
    own = type(scheduler).__name__
    found = {kind.__name__ for kind in scheduler.compatibles}
    if own in _CONSISTENCY or found & discrete:
        found = found - _OTHER_NOISE | discrete | _CONSISTENCY
    return sorted(found | {own})


def _find(own: Any, name: str) -> tuple[Any, Mapping[str, Any]]:
    """Return class and settings of a named scheduler."""
    import diffusers

    fitting = fitting_schedulers(own)
    bare, karras = _split(name)
    settings: dict[str, Any] = {}
    stem = bare
    for sampler, (kind_name, own_settings) in SAMPLERS.items():
        if sampler.casefold() == bare.casefold():
            stem, settings = kind_name, dict(own_settings)
    if type(own).__name__.startswith(_FLOW) and f"{_FLOW}{stem}Scheduler" in fitting:
        stem = f"{_FLOW}{stem}"  # the same method on the base's other noise
    found = next((one for one in (stem, f"{stem}Scheduler") if one in fitting), None)
    if found is None:
        raise ConfigError(
            f"The scheduler {name!r} does not fit this pipeline.", _fitting_names(fitting)
        )
    kind = getattr(diffusers, found, None) or type(own)
    missing = [one for one in getattr(kind, "_backends", ()) if find_spec(one) is None]
    if missing:
        raise ConfigError(
            f"The scheduler {name} needs a package that is not installed.",
            f"Install it: pip install {' '.join(missing)}",
        )
    defaults = _DEFAULTS.get(found, {}).items()
    settings |= {key: value for key, value in defaults if own.config.get(key) is None}
    if karras:
        settings["use_karras_sigmas"] = True
    elif bare != stem and "use_karras_sigmas" in signature(kind.__init__).parameters:
        settings["use_karras_sigmas"] = False  # another tool's name says all
    return kind, settings


def _fitting_names(fitting: Collection[str]) -> str:
    """Return a sentence on the names that fit, AUTOMATIC1111's where it has one."""
    samplers = {f"{kind}Scheduler": key for key, (kind, _) in reversed(SAMPLERS.items())}
    own = [one.removesuffix("Scheduler") for one in fitting if one not in samplers]
    named = [key for key, (kind, _) in SAMPLERS.items() if f"{kind}Scheduler" in fitting]
    also = " Most also with Karras behind the name." if len(fitting) > 1 else ""
    return f"These do: {', '.join([*named, *own])}.{also}"


def _split(name: str) -> tuple[str, bool]:
    """Return a scheduler's name without "Karras", and whether it has it."""
    stripped = " ".join(name.split())
    karras = stripped.casefold().endswith(_KARRAS)
    return (stripped[: -len(_KARRAS)] if karras else stripped), karras


def _check_settings(kind: Any, settings: Mapping[str, Any]) -> None:
    known = signature(kind.__init__).parameters
    what = {
        "use_karras_sigmas": "Karras noise levels",
        "timestep_spacing": "timestep spacing",
        "shift": "shift of noise levels",
    }
    for setting in what.keys() & settings.keys() - known.keys():
        name = kind.__name__.removesuffix("Scheduler")
        raise ConfigError(
            f"The scheduler {name} has no {what[setting]}.",
            "FlowMatchEulerDiscrete has one, for flow-matching bases."
            if setting == "shift"
            else "EulerDiscrete and DPMSolverMultistep have both, for example.",
        )
