"""Noise, target and loss weight of each prediction against its equation and against diffusers."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.training_utils import compute_snr

from hublora.errors import AdapterError, ConfigError
from hublora.families.flow_matching import Flow
from hublora.families.parameterization import Epsilon, Velocity, discrete_of_scheduler

ALPHAS = torch.tensor([0.9, 0.5, 0.1, 0.0])  # the last one: zero terminal SNR
CLEAN = torch.tensor([1.0, -2.0, 0.5, 3.0]).view(4, 1, 1, 1)
NOISE = torch.tensor([0.3, 0.7, -1.5, 2.0]).view(4, 1, 1, 1)
STEPS = torch.tensor([0, 1, 2, 3])
SAMPLES = list(
    zip(ALPHAS.tolist(), CLEAN.flatten().tolist(), NOISE.flatten().tolist(), strict=True)
)
DISCRETE = [Epsilon, Velocity]
SHAPE = (4, 8, 8)


@pytest.mark.parametrize("kind", DISCRETE)
def test_noisy_latents_mix_signal_and_noise(kind: type) -> None:
    noisy = kind(ALPHAS).mix(CLEAN, NOISE, STEPS).flatten().tolist()
    expected = [math.sqrt(a) * x + math.sqrt(1 - a) * e for a, x, e in SAMPLES]
    assert noisy == pytest.approx(expected, rel=1e-6)
    assert noisy[3] == NOISE.flatten()[3]  # nothing of the image is left


def test_epsilon_predicts_the_noise() -> None:
    assert torch.equal(Epsilon(ALPHAS).target(CLEAN, NOISE, STEPS), NOISE)


def test_velocity_is_the_derivative_of_the_mixture() -> None:
    target = Velocity(ALPHAS).target(CLEAN, NOISE, STEPS).flatten().tolist()
    expected = [math.sqrt(a) * e - math.sqrt(1 - a) * x for a, x, e in SAMPLES]
    assert target == pytest.approx(expected, rel=1e-6)
    assert target[3] == -CLEAN.flatten()[3]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # SNR: 9, 1, 1/9, 0; gamma 5
        (Epsilon, [5 / 9, 1.0, 1.0, 1.0]),
        (Velocity, [5 / 10, 1 / 2, (1 / 9) / (10 / 9), 0.0]),
    ],
)
def test_min_snr_weights(kind: type, expected: list[float]) -> None:
    weights = kind(ALPHAS).weight(STEPS, snr_gamma=5.0)
    assert weights.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", DISCRETE)
def test_min_snr_weights_equal_those_of_diffusers(kind: type) -> None:
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    steps = torch.arange(1000)
    snr = compute_snr(scheduler, steps)
    divisor = snr + 1 if kind is Velocity else snr
    theirs = snr.clamp(max=5.0) / divisor
    ours = kind(scheduler.alphas_cumprod).weight(steps, snr_gamma=5.0)
    assert torch.allclose(ours, theirs, rtol=1e-4)


def test_debiased_weights() -> None:
    # SNR: 9, 1, 1/9, 0; the paper's 1/√SNR on the noise
    weights = Epsilon(ALPHAS).weight(STEPS, debiased=True)
    assert weights.tolist() == pytest.approx([1 / 3, 1.0, 3.0, 0.0], rel=1e-5)


def test_debiased_weights_of_velocity_weigh_the_same_error_of_the_image() -> None:
    """What is wrong by d in the image is wrong by √SNR·d in the noise, √(SNR+1)·d in v."""
    snr = torch.tensor([9.0, 1.0, 1 / 9])
    epsilon, velocity = (kind(ALPHAS).weight(STEPS, debiased=True)[:3] for kind in DISCRETE)
    assert torch.allclose(epsilon * snr, velocity * (snr + 1))


@pytest.mark.parametrize("kind", DISCRETE)
def test_without_a_weighting_every_sample_weighs_the_same(kind: type) -> None:
    assert kind(ALPHAS).weight(STEPS) is None


@pytest.mark.parametrize("kind", DISCRETE)
def test_timesteps_are_uniform_numbers_in_equal_parts(kind: type) -> None:
    uniforms = torch.tensor([0.0, 0.25, 0.4999, 0.5, 0.99999], dtype=torch.float64)
    levels = kind(ALPHAS).levels(uniforms, SHAPE)
    assert levels.dtype == torch.int64
    assert levels.tolist() == [0, 1, 1, 2, 3]


@pytest.mark.parametrize("steps", [1000, 100, 77, 10])
def test_the_share_of_a_timestep_falls_into_the_tenth_that_whole_numbers_give(steps: int) -> None:
    levels = torch.arange(steps)
    tenths = (Epsilon(torch.linspace(1, 0, steps)).share(levels) * 10).long()
    assert torch.equal(tenths, levels * 10 // steps)


@pytest.mark.parametrize(("prediction", "kind"), [("epsilon", Epsilon), ("v_prediction", Velocity)])
def test_the_scheduler_says_what_is_predicted_and_which_noise_there_is(
    prediction: str, kind: type
) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction, rescale_betas_zero_snr=True)
    found = discrete_of_scheduler(scheduler)
    assert type(found) is kind
    assert torch.equal(
        found.alphas_cumprod, DDPMScheduler.from_config(scheduler.config).alphas_cumprod
    )


@pytest.mark.parametrize(
    ("scheduler", "named"),
    [
        (DDPMScheduler(prediction_type="sample"), "'sample'"),
        (EDMEulerScheduler(), "EDMEulerScheduler"),
        (FlowMatchEulerDiscreteScheduler(), "None"),
    ],
    ids=["sample", "edm", "flow"],
)
def test_noise_that_is_not_ddpms_is_refused(scheduler: object, named: str) -> None:
    with pytest.raises(AdapterError, match=named):
        discrete_of_scheduler(scheduler)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_mixes_on_a_straight_line_as_its_scheduler_does(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    flow = Flow.of_scheduler(scheduler)
    uniforms = torch.tensor([0.0, 0.2, 0.7, 0.9995], dtype=torch.float64)
    levels = flow.levels(uniforms, SHAPE)
    indices = [0, 200, 700, 999]
    assert torch.equal(levels, scheduler.sigmas[indices])
    noisy = flow.mix(CLEAN, NOISE, levels)
    theirs = scheduler.scale_noise(CLEAN, scheduler.timesteps[indices], NOISE)
    assert torch.allclose(noisy, theirs, atol=1e-6)
    expected = [(1 - s) * x + s * e for s, (_, x, e) in zip(levels.tolist(), SAMPLES, strict=True)]
    assert noisy.flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_one_step_of_the_scheduler_along_the_flow_target_gives_the_clean_latents() -> None:
    """x + (0 − s)·target(x, e) of the noisy latents is what there was before the noise."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[0.6])
    level = scheduler.sigmas[:1]
    flow = Flow.of_scheduler(scheduler)
    noisy = flow.mix(CLEAN[:1], NOISE[:1], level)
    target = flow.target(CLEAN[:1], NOISE[:1], level)
    assert torch.equal(target, NOISE[:1] - CLEAN[:1])
    stepped = scheduler.step(target, scheduler.timesteps[0], noisy).prev_sample
    assert torch.allclose(stepped, CLEAN[:1], atol=1e-6)


def test_a_used_scheduler_does_not_change_the_levels_that_are_trained() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    before = Flow.of_scheduler(scheduler).sigmas
    scheduler.set_timesteps(4)
    assert torch.equal(Flow.of_scheduler(scheduler).sigmas, before)
    assert len(before) == 1000


def test_the_share_of_a_flow_level_is_the_level() -> None:
    levels = torch.tensor([1.0, 0.5, 0.001])
    assert torch.equal(Flow(levels).share(levels), levels)
    assert Flow(levels).weight(levels) is None


@pytest.mark.parametrize("weighting", [{"snr_gamma": 5.0}, {"debiased": True}])
def test_flow_refuses_weightings_by_signal_to_noise(weighting: dict[str, object]) -> None:
    flow = Flow(torch.tensor([1.0, 0.5]))
    with pytest.raises(ConfigError, match=f"objective.{next(iter(weighting))}"):
        flow.weight(torch.tensor([0.5]), **weighting)
    with pytest.raises(ConfigError, match="flow-matching"):
        flow.check_weighting(**{"snr_gamma": None, "debiased": False, **weighting})


@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_noise_levels_that_are_none_are_refused(shift: float) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    with pytest.raises(AdapterError, match="do not decrease from 1 to 0"):
        Flow.of_scheduler(FlowMatchEulerDiscreteScheduler(shift=shift))
    with pytest.raises(AdapterError, match="one size of images twice"):
        Flow.of_scheduler(
            FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_image_seq_len=256)
        )
