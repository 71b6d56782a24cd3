"""Sessions as `hublora.train` starts them, for tests that look inside a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hublora.training.config.training_config import TrainingConfig
from hublora.training.session import Session


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: faster for tiny models, and the same sums in every process."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., TrainingConfig]:
    """Build a config for the seeded base and images from dotted keys with `__` for `.`."""

    def build(**changes: Any) -> TrainingConfig:
        keys: dict[str, Any] = {
            "base.model": "bases/epsilon",
            "data.dataset": "bases/images",
            "schedule.max_train_steps": 4,
            "optimizer.learning_rate": 1e-3,
            "output_dir": tmp_path / "run",
        }
        keys |= {name.replace("__", "."): value for name, value in changes.items()}
        return TrainingConfig.from_settings(
            {key: value for key, value in keys.items() if value is not None}
        )

    return build


@pytest.fixture
def start(settings: Callable[..., TrainingConfig]) -> Callable[..., Session]:
    """Start a session from settings, encoded and ready for its first step; the last
    `class_images` of its images are not to be learned but preserved."""

    def begin(class_images: int = 0, **changes: Any) -> Session:
        import torch

        from hublora.refs import BaseRef
        from hublora.resolution.base import download_base, resolve_base
        from hublora.training.accelerator import make_accelerator, weight_dtype
        from hublora.training.setup import start_session
        from hublora.workflows.train.other_adapters import initial_updates
        from hublora.workflows.train.prepare import encode, input_hashes, open_dataset

        config = settings(**changes)
        accelerator = make_accelerator(config)
        base = download_base(resolve_base(BaseRef.parse(config.base.model)))
        source = open_dataset(config)
        pipe = base.load({"default": weight_dtype(accelerator), "vae": torch.float32})
        data = encode(config, base, pipe, source, accelerator.device)
        initial = initial_updates(config, base, pipe)
        return start_session(
            config,
            pipe,
            data,
            input_hashes(base, source),
            accelerator,
            initial,
            class_images=class_images,
        )

    return begin
