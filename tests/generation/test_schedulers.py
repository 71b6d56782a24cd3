"""Schedulers by the names of diffusers and AUTOMATIC1111, against diffusers' own calls."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import diffusers
import pytest
import torch

from hublora.adapter_weights import Weight
from hublora.errors import ConfigError
from hublora.generation.sample import Sampling, check_plan
from hublora.generation.schedulers import fitting_schedulers, sampler_name, use_scheduler
from tests.lora import Weighted, apply_adapters, random_adapter

KARRAS = {"use_karras_sigmas": True}
TRAILING = {"timestep_spacing": "trailing"}
# The table at https://huggingface.co/docs/diffusers/api/schedulers/overview, and how the cards of
# acceleration adapters (LCM-LoRA, TCD, Hyper-SD, SDXL-Lightning) set schedulers.
TABLE: list[tuple[str, str | None, str, dict[str, Any]]] = [
    ("DPM++ 2M", None, "DPMSolverMultistepScheduler", {}),
    ("dpm++ 2m karras", None, "DPMSolverMultistepScheduler", KARRAS),
    ("DPM++ 2M SDE", None, "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    (
        *("DPM++ 2M SDE Karras", None, "DPMSolverMultistepScheduler"),
        {"algorithm_type": "sde-dpmsolver++", **KARRAS},
    ),
    ("DPM2", None, "KDPM2DiscreteScheduler", {}),
    ("DPM2 Karras", None, "KDPM2DiscreteScheduler", KARRAS),
    ("DPM2 a", None, "KDPM2AncestralDiscreteScheduler", {}),
    ("DPM2 a Karras", None, "KDPM2AncestralDiscreteScheduler", KARRAS),
    ("Euler", None, "EulerDiscreteScheduler", {}),
    ("Euler a", None, "EulerAncestralDiscreteScheduler", {}),
    ("Heun", None, "HeunDiscreteScheduler", {}),
    ("LMS Karras", None, "LMSDiscreteScheduler", KARRAS),
    ("UniPC", None, "UniPCMultistepScheduler", {}),
    ("DPMSolverMultistep Karras", None, "DPMSolverMultistepScheduler", KARRAS),
    ("LCM", None, "LCMScheduler", {}),
    ("LCMScheduler", None, "LCMScheduler", {}),
    ("TCD", None, "TCDScheduler", {}),
    ("DDIM", "trailing", "DDIMScheduler", TRAILING),
    ("Euler", "trailing", "EulerDiscreteScheduler", TRAILING),
]


def latents(pipe: Any, steps: int = 3) -> torch.Tensor:
    return pipe(
        "a hill",
        num_inference_steps=steps,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
    ).images


@pytest.mark.parametrize(("name", "spacing", "kind", "settings"), TABLE)
def test_a_name_means_what_diffusers_documents(
    name: str, spacing: str | None, kind: str, settings: dict[str, Any], pipe: Any
) -> None:
    own = pipe.scheduler
    use_scheduler(pipe, name, spacing)
    found = latents(pipe)
    pipe.scheduler = getattr(diffusers, kind).from_config(own.config, **settings)
    assert torch.equal(found, latents(pipe))


def test_every_scheduler_that_is_offered_generates_or_says_what_it_needs(pipe: Any) -> None:
    own = pipe.scheduler
    for name in fitting_schedulers(own):
        pipe.scheduler = own
        kind = getattr(diffusers, name)
        missing = [one for one in getattr(kind, "_backends", ()) if find_spec(one) is None]
        if missing:
            with pytest.raises(ConfigError) as refused:
                use_scheduler(pipe, name)
            assert refused.value.hint == f"Install it: pip install {missing[0]}"
            continue
        use_scheduler(pipe, name)
        assert latents(pipe, 2).isfinite().all(), name


def test_what_one_scheduler_was_given_does_not_stay_for_the_next(bases: Any) -> None:
    import hublora

    pipe = hublora.load(base="bases/epsilon")
    use_scheduler(pipe, "DPMSolverMultistep")
    plain = latents(pipe)
    use_scheduler(pipe, "DPM++ 3M SDE Karras", "trailing")
    assert not torch.equal(latents(pipe), plain)
    use_scheduler(pipe, "DPMSolverMultistep")
    assert torch.equal(latents(pipe), plain)


def test_after_lcm_any_other_can_be_used(pipe: Any) -> None:
    offered = fitting_schedulers(pipe.scheduler)
    use_scheduler(pipe, "LCM")
    assert fitting_schedulers(pipe.scheduler) == offered
    use_scheduler(pipe, "DDIM")
    assert type(pipe.scheduler) is diffusers.DDIMScheduler


@pytest.mark.parametrize("name", ["DPM++ 2M Karras", "LCM", "TCD"])
def test_adapters_that_switch_follow_it(name: str, pipe: Any) -> None:
    """Their schedule finds each step by the timestep that the scheduler states."""
    adapters = [random_adapter(pipe, seed=seed) for seed in (1, 2)]
    schedule = apply_adapters(pipe, [Weighted(one) for one in adapters])
    use_scheduler(pipe, name)
    seen: list[Any] = []
    schedule.activate(schedule.adapters, [Weight.parse("0..1"), Weight.of(0.0)])
    pipe.unet.register_forward_hook(lambda *_: seen.append(schedule._progress))
    latents(pipe)
    assert seen == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("name", "spacing", "sentence"),
    [
        ("DPM fast", None, "The scheduler 'DPM fast' does not fit"),
        ("EDMEuler", None, "does not fit"),
        ("EulerAncestralDiscrete Karras", None, "EulerAncestralDiscrete has no Karras noise"),
        ("DPMSolverSinglestep", "trailing", "DPMSolverSinglestep has no timestep spacing"),
    ],
)
def test_what_a_scheduler_cannot_is_refused(
    name: str, spacing: str | None, sentence: str, pipe: Any
) -> None:
    own = pipe.scheduler
    with pytest.raises(ConfigError, match=sentence):
        use_scheduler(pipe, name, spacing)
    assert pipe.scheduler is own


def test_plans_are_checked() -> None:
    with pytest.raises(ConfigError, match="must be one of leading, linspace, trailing, got 'sgm'"):
        Sampling("a", timestep_spacing="sgm")
    with pytest.raises(ConfigError, match="must be a name, got 3"):
        Sampling("a", scheduler=3)  # type: ignore[arg-type]


def test_more_steps_than_a_distilled_schedule_has_are_refused(pipe: Any) -> None:
    use_scheduler(pipe, "LCM")
    with pytest.raises(ConfigError, match="The scheduler has 50 timesteps; 51 steps"):
        check_plan(pipe, 8, Sampling("a", num_inference_steps=51))
    check_plan(pipe, 8, Sampling("a", num_inference_steps=50))


@pytest.mark.parametrize(
    ("name", "sampler", "schedule"),
    [
        ("EulerDiscreteScheduler", "Euler", None),
        ("PNDMScheduler", "PLMS", None),
        ("DPMSolverMultistepScheduler", "DPM++ 2M", None),
        ("DPMSolverMultistep Karras", "DPM++ 2M", "Karras"),
        ("dpm++ 2m sde karras", "DPM++ 2M SDE", "Karras"),
        ("SASolverScheduler", "SASolver", None),
        ("", "", None),
    ],
)
def test_images_name_samplers_as_other_tools_do(
    name: str, sampler: str, schedule: str | None
) -> None:
    assert sampler_name(name) == (sampler, schedule)
