"""Everything that a training holds in memory, put together once before the first step."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

from hublora.adapters.adapter import Adapter, AdapterFacts, LowRank
from hublora.adapters.modules import file_prefix
from hublora.data.cache import TrainingData
from hublora.errors import ConfigError
from hublora.families import Diffusion, Family
from hublora.training.config import TrainingConfig
from hublora.training.optimizers import check_optimizer, make_optimizer, make_schedule
from hublora.training.trackers import FOLDER, choose_trackers

ADAPTER_NAME = "default"
DEFAULT_STEPS = 1000
_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class Session:
    """The parts of one training.

    Attributes:
        config: Its settings.
        family: Of the base.
        pipe: The base; its denoiser (and text encoder, if asked) carries the adapter.
        data: Encoded pictures and captions.
        data_fingerprint: Identity of the pictures and captions; a resumed run needs the same.
        diffusion: The base's noising process, on the device.
        accelerator: Device, precision and processes.
        denoiser: The denoiser as prepared for the devices.
        optimizer: Over the adapter's weights.
        schedule: Of the learning rate.
        step: Optimizer steps done.
    """

    config: TrainingConfig
    family: Family
    pipe: Any
    data: TrainingData
    data_fingerprint: str
    diffusion: Diffusion
    accelerator: Accelerator
    denoiser: torch.nn.Module
    optimizer: Any
    schedule: Any
    step: int = 0

    @property
    def trained(self) -> dict[str, torch.nn.Module]:
        """The components that carry the adapter, unwrapped."""
        names = trained_components(self.config, self.family)
        return {name: getattr(self.pipe, name) for name in names}

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return trainable(self.trained.values())

    @property
    def images_per_step(self) -> int:
        config = self.config
        return (
            config.train_batch_size
            * config.gradient_accumulation_steps
            * self.accelerator.num_processes
        )

    @property
    def total_steps(self) -> int:
        return total_steps(self.config, len(self.data), self.images_per_step)

    def adapter(self, facts: AdapterFacts | None = None) -> Adapter:
        """Return a copy of the adapter as it is now, in float32 on the CPU."""
        layers = {name: read_updates(model) for name, model in self.trained.items()}
        return Adapter(layers, facts or AdapterFacts())


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """Return the accelerator for the settings.

    Raises:
        ConfigError: The precision does not work on this device, or a tracker is not there.
    """
    precision = config.mixed_precision or _default_precision()
    if precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError(
            "fp16 needs a GPU; this machine has none that PyTorch can use.",
            "Leave --mixed-precision out.",
        )
    # accelerate keeps the first precision of a process; a notebook may train again in another.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=precision,
        log_with=choose_trackers(config.report_to),
        project_dir=config.run_folder / FOLDER,
    )


def weight_dtype(accelerator: Accelerator) -> torch.dtype:
    """Return the type of the frozen weights."""
    return _DTYPES[accelerator.mixed_precision]


def check_settings(config: TrainingConfig, family: Family, pipe: Any) -> None:
    """Check what can be checked of the settings before anything is encoded.

    Raises:
        ConfigError: A target matches no layer of the base, or a package is missing.
    """
    check_optimizer(config.optimizer)
    for component in trained_components(config, family):
        targets = target_layers(config, component, family)
        _check_targets(targets, component, getattr(pipe, component))


def start_session(
    config: TrainingConfig,
    family: Family,
    pipe: Any,
    data: TrainingData,
    data_fingerprint: str,
    accelerator: Accelerator,
) -> Session:
    """Put an untrained adapter on the base and make optimizer and schedule.

    Raises:
        ConfigError: Text encoders are to be trained in several processes.
    """
    components = trained_components(config, family)
    if len(components) > 1 and accelerator.num_processes > 1:
        raise ConfigError(
            "Text encoders can only be trained in one process.", "Leave --train-text-encoder out."
        )
    set_seed(config.seed)
    for name in family.text_encoders:
        getattr(pipe, name).requires_grad_(False)
    for name in components:
        add_adapter(config, name, getattr(pipe, name), family)
    trained = [getattr(pipe, name) for name in components]
    for model in trained:
        model.to(accelerator.device, memory_format=_memory_format(accelerator.device))
        model.train()
    denoiser = trained[0]
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    optimizer = make_optimizer(config.optimizer, trainable(trained), accelerator.device)
    images = config.train_batch_size * config.gradient_accumulation_steps
    steps = total_steps(config, len(data), images * accelerator.num_processes)
    schedule = make_schedule(config.schedule, optimizer, steps)
    diffusion = family.diffusion(pipe)
    return Session(
        config=config,
        family=family,
        pipe=pipe,
        data=data,
        data_fingerprint=data_fingerprint,
        diffusion=Diffusion(diffusion.prediction, diffusion.alphas_cumprod.to(accelerator.device)),
        accelerator=accelerator,
        denoiser=accelerator.prepare(denoiser),
        optimizer=accelerator.prepare(optimizer),
        schedule=schedule,
    )


def trained_components(config: TrainingConfig, family: Family) -> tuple[str, ...]:
    """Return the components that the adapter changes, the denoiser first."""
    text_encoders = family.text_encoders if config.adapter.text_encoder else ()
    return (family.denoiser, *text_encoders)


def target_layers(config: TrainingConfig, component: str, family: Family) -> Sequence[str]:
    """Return the names of the layers of `component` that the adapter changes."""
    own = config.adapter.targets if component == family.denoiser else None
    return own or family.default_targets[component]


def total_steps(config: TrainingConfig, pictures: int, images_per_step: int) -> int:
    """Return how many optimizer steps the settings ask for; a number of steps goes first."""
    steps, epochs = config.schedule.max_train_steps, config.schedule.num_train_epochs
    if steps is not None or epochs is None:
        return steps or DEFAULT_STEPS
    return max(1, -(-epochs * pictures // images_per_step))


def trainable(models: Iterable[torch.nn.Module]) -> list[torch.nn.Parameter]:
    """Return the parameters that are trained, as a list: an iterator would be spent once."""
    return [p for model in models for p in model.parameters() if p.requires_grad]


def read_updates(model: torch.nn.Module) -> dict[str, LowRank]:
    """Return the updates that PEFT holds in `model`, under the names that files use, copied in
    float32 to the CPU."""
    updates: dict[str, LowRank] = {}
    prefix = file_prefix(model)
    for name, layer in adapted_layers(model):
        updates[prefix + name] = LowRank(
            down=_copy(layer.lora_A[ADAPTER_NAME].weight),
            up=_copy(layer.lora_B[ADAPTER_NAME].weight),
            alpha=float(layer.lora_alpha[ADAPTER_NAME]),
        )
    return updates


def adapted_layers(model: torch.nn.Module) -> list[tuple[str, Any]]:
    """Return name and PEFT layer of every layer that carries the adapter."""
    from peft.tuners.lora import LoraLayer

    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and ADAPTER_NAME in module.lora_A
    ]


def _copy(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().float().cpu().contiguous().clone()


def add_adapter(
    config: TrainingConfig, component: str, model: torch.nn.Module, family: Family
) -> None:
    """Put an untrained adapter on `model`, in float32, and freeze everything else of it."""
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    settings = config.adapter
    model.requires_grad_(False)
    model.add_adapter(
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha if settings.alpha is not None else settings.rank,
            lora_dropout=settings.dropout,
            target_modules=list(target_layers(config, component, family)),
            init_lora_weights="gaussian",
        ),
        adapter_name=ADAPTER_NAME,
    )
    cast_training_params([model], dtype=torch.float32)


def _check_targets(targets: Iterable[str], component: str, model: torch.nn.Module) -> None:
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    for target in targets:
        if not any(name == target or name.endswith("." + target) for name in names):
            endings = sorted({_ending(name) for name in names})
            raise ConfigError(
                f"The target {target!r} is the name of no layer of the {component}.",
                f"There are: {', '.join(endings)}.",
            )


def _ending(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def _memory_format(device: torch.device) -> torch.memory_format:
    """Return the layout in which convolutions are fastest.

    A GPU's tensor cores want channels last. A CPU is no faster for it (up to a fifth slower at
    batch 1), and the reordered copy would stay beside the weights that are mapped from the file.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def _default_precision() -> str:
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "no"


def device_name(accelerator: Accelerator) -> str:
    """Return what the training runs on, for logs and cards."""
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return f"{accelerator.device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"
