"""One embedded Hub for the whole run; every client in this process believes it to be the Hub.

It starts before anything imports huggingface_hub, which reads its address once, when imported.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

_state: dict[str, object] = {}
# The same examples on every run: a red test is red for everybody.
settings.register_profile("hublora", deadline=None, derandomize=True, database=None)
settings.load_profile("hublora")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("tx", None) and not hasattr(config, "workerinput"):
        return  # it only hands the tests out to its workers
    from hublora.localhub import LocalHub, import_folder
    from tests.tiny import save_images, save_pipeline, save_xl_pipeline

    home = tempfile.TemporaryDirectory(prefix="hublora-tests-")
    root = Path(home.name)
    os.environ |= {
        "HF_HOME": str(root / "hf"),
        "HUBLORA_CACHE": str(root / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",  # the models are so small that threads only wait for each other
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    os.environ.pop("HF_HUB_OFFLINE", None)
    hub = LocalHub.start(root / "hub", log_file=root / "hub.log")
    os.environ |= hub.environ()
    _state.update(home=home, hub=hub, root=root)
    save_pipeline(root / "epsilon")
    save_pipeline(root / "velocity", prediction="v_prediction")
    save_pipeline(root / "wide", width=32)
    save_xl_pipeline(root / "xl")
    save_images(root / "images")
    for name in ("epsilon", "velocity", "wide", "xl"):
        import_folder(root / "hub", f"bases/{name}", root / name)
    import_folder(root / "hub", "bases/images", root / "images", repo_type="dataset")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests: one that came last would keep one worker busy alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_unconfigure(config: pytest.Config) -> None:
    if "hub" in _state:
        _state["hub"].stop()  # type: ignore[attr-defined]
        _state["home"].cleanup()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test with the same global random numbers, whichever ran before it."""
    random.seed(0)
    for name, seed in (("numpy.random", "seed"), ("torch", "manual_seed")):
        if name in sys.modules:
            getattr(sys.modules[name], seed)(0)


@pytest.fixture(scope="session")
def hub() -> object:
    """The Hub: bases/epsilon, bases/velocity, bases/wide, bases/xl, the dataset bases/images."""
    return _state["hub"]


@pytest.fixture(scope="session")
def hub_data() -> Path:
    """The Hub's data folder."""
    return _state["root"] / "hub"  # type: ignore[operator]


@pytest.fixture(scope="session")
def bases() -> Path:
    """The folder with the pipelines and images that the Hub was seeded with."""
    return _state["root"]  # type: ignore[return-value]


@pytest.fixture(scope="session")
def libraries() -> None:
    """Whoever forks programs finds the process that has loaded the libraries."""
    from tests.processes import start_libraries

    start_libraries()


@pytest.fixture
def cli(tmp_path: Path, libraries: None) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `hublora …` in a process of its own, in the test's folder."""
    from tests.processes import hublora

    def run(
        *args: str, env: dict[str, str] | None = None, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        if not any(name.startswith("HF_") for name in env or {}):
            return hublora(list(args), tmp_path, env).finish(timeout)
        return subprocess.run(  # huggingface_hub reads them when it is imported
            [sys.executable, "-m", "hublora", *args],
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
