"""What one optimizer step does, and when the loop asks for checkpoints and previews."""

from __future__ import annotations

import pytest
import torch

from hublora.training.events import CheckpointDue, StepDone, ValidationDue
from hublora.training.loop import train
from hublora.training.losses import training_losses
from hublora.training.rng import choose


def steps_of(session: object, kind: type) -> list[int]:
    return [event.step for event in train(session) if isinstance(event, kind)]


def test_gradients_are_scaled_down_to_the_limit(start, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: dict[float, list[float]] = {}
    for limit in (1e-3, 1e6):
        session = start(optimizer__max_grad_norm=limit, schedule__max_train_steps=3)
        seen = norms.setdefault(limit, [])

        def remember(optimizer, args, kwargs, session=session, seen=seen) -> None:
            gradients = [parameter.grad.flatten() for parameter in session.parameters]
            seen.append(torch.cat(gradients).norm().item())

        session.optimizer.optimizer.register_step_pre_hook(remember)
        assert steps_of(session, StepDone) == [1, 2, 3]
    assert norms[1e6][0] > 1e-3, "there is something to clip"
    assert norms[1e-3] == pytest.approx([1e-3] * 3, rel=1e-3)


def test_only_the_adapter_is_trained(start) -> None:
    session = start(schedule__max_train_steps=2, optimizer__learning_rate=1e-2)
    frozen = {
        name: tensor.clone()
        for name, tensor in session.pipe.unet.state_dict().items()
        if "lora" not in name
    }
    adapter = session.adapter()
    list(train(session))
    state = session.pipe.unet.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in frozen.items())
    trained = session.adapter()
    for name, before in adapter.layers["unet"].items():
        assert not torch.equal(before.up, trained.layers["unet"][name].up)


def test_an_untrained_adapter_changes_nothing(start) -> None:
    adapter = start().adapter()
    assert all(not layer.up.any() for layer in adapter.layers["unet"].values())
    assert all(layer.down.any() for layer in adapter.layers["unet"].values())


def test_a_step_waits_for_all_of_its_accumulation_steps(start) -> None:
    """One batch of four images and four batches of one are the same step."""
    adapters = []
    for size, accumulation_steps in ((4, 1), (1, 4)):
        session = start(
            train_batch_size=size,
            gradient_accumulation_steps=accumulation_steps,
            schedule__max_train_steps=2,
        )
        losses = [event.loss.item() for event in train(session) if isinstance(event, StepDone)]
        adapters.append((losses, session.adapter()))
    (losses, one), (other_losses, other) = adapters
    assert losses == pytest.approx(other_losses, rel=1e-4)
    for name, layer in one.layers["unet"].items():
        assert torch.allclose(layer.up, other.layers["unet"][name].up, atol=2e-4)


def test_checkpoints_are_due_every_so_many_steps_and_at_the_end(start) -> None:
    session = start(schedule__max_train_steps=7, checkpoint__steps=3)
    assert steps_of(session, CheckpointDue) == [3, 6, 7]


def test_previews_are_due_every_so_many_steps_but_not_at_the_end(start) -> None:
    session = start(schedule__max_train_steps=6, validation__steps=2)
    assert steps_of(session, ValidationDue) == [2, 4]


def test_previews_are_due_whenever_so_many_epochs_are_complete(start) -> None:
    # 6 images, 4 a step: the epochs are complete in the steps 2 (8 images), 3 (12), 5 (20), 6.
    session = start(train_batch_size=4, schedule__max_train_steps=7, validation__epochs=1)
    assert steps_of(session, ValidationDue) == [2, 3, 5, 6]


def test_epochs_decide_the_number_of_steps(start) -> None:
    # 2 epochs of 6 images, 4 a step
    session = start(
        train_batch_size=4, schedule__num_train_epochs=2, schedule__max_train_steps=None
    )
    assert session.total_steps == 3
    assert steps_of(session, StepDone) == [1, 2, 3]


def test_a_number_of_steps_goes_before_epochs_as_in_diffusers(start) -> None:
    session = start(schedule__num_train_epochs=9, schedule__max_train_steps=5)
    assert session.total_steps == 5


def test_the_learning_rate_warms_up_and_comes_down(start) -> None:
    session = start(
        schedule__name="linear",
        schedule__warmup_steps=2,
        schedule__max_train_steps=6,
        optimizer__learning_rate=1e-3,
    )
    rates = [event.learning_rate for event in train(session) if isinstance(event, StepDone)]
    assert rates == pytest.approx([0, 5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4])


def losses_of(session: object) -> list[float]:
    return training_losses(session, range(6), torch.Generator())[0].tolist()


def test_caption_dropout_trains_on_the_empty_caption(start) -> None:
    losses = [losses_of(start(data__caption_dropout=rate)) for rate in (0.0, 1.0)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    "setting",
    [
        {"noise_offset": 0.5},
        {"pyramid_noise": 0.5},
        {"input_perturbation": 0.5},
        {"huber": 0.1},
        {"debiased": True},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_each_setting_of_the_objective_changes_the_loss(start, setting) -> None:
    plain = start()
    losses = losses_of(plain)
    plain.config = plain.config.updated({f"objective.{k}": v for k, v in setting.items()})
    changed = losses_of(plain)
    assert changed != pytest.approx(losses, rel=1e-3)
    if "debiased" in setting:
        uniforms = choose(plain.config.seed, range(6), 6, 1, 0).uniforms
        snr = plain.parameterization.signal_to_noise((uniforms * 1000).long())
        assert changed == pytest.approx((torch.tensor(losses) / snr.sqrt()).tolist(), rel=1e-4)


def test_the_adapter_stays_in_single_precision_on_a_half_precision_base(start) -> None:
    session = start(mixed_precision="bf16", schedule__max_train_steps=2)
    assert session.pipe.unet.conv_in.weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in session.parameters} == {torch.float32}
    losses = [event.loss.item() for event in train(session) if isinstance(event, StepDone)]
    exact = start(schedule__max_train_steps=2)
    theirs = [event.loss.item() for event in train(exact) if isinstance(event, StepDone)]
    assert losses == pytest.approx(theirs, rel=0.02)


def test_latents_do_not_depend_on_the_precision_of_the_training(start, tmp_path) -> None:
    """Half precision rounds the VAE's weights, which shows in the latents."""
    latents = [
        start(mixed_precision=precision, data__cache_dir=tmp_path / str(precision)).data.latents(
            range(6), [0] * 6
        )
        for precision in ("bf16", "no")
    ]
    (mean, std), (exact_mean, exact_std) = latents
    assert torch.equal(mean, exact_mean)
    assert torch.equal(std, exact_std)


def test_gradient_checkpointing_changes_memory_and_not_the_loss(start) -> None:
    curves = []
    for checkpointing in (False, True):
        session = start(gradient_checkpointing=checkpointing, schedule__max_train_steps=3)
        curves.append(
            [event.loss.item() for event in train(session) if isinstance(event, StepDone)]
        )
        assert session.pipe.unet.is_gradient_checkpointing is checkpointing
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
