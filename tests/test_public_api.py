"""What `import hublora` offers, and what it does not load."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from importlib.resources import files

import pytest

import hublora

HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "datasets", "huggingface_hub"}


def test_the_public_names_are_these() -> None:
    assert hublora.__all__ == [
        "AccessError",
        "AdapterError",
        "AdapterRef",
        "ConfigError",
        "DataError",
        "HubError",
        "HubloraError",
        "Interrupted",
        "NotFoundError",
        "PushError",
        "RefError",
        "TrainingConfig",
        "TrainingResult",
        "VerificationError",
        "__version__",
        "caption",
        "compose",
        "convert",
        "dry_run",
        "fit",
        "inspect",
        "list_runs",
        "load",
        "merge",
        "outdated",
        "preflight",
        "push",
        "replay",
        "reproduce",
        "run",
        "run_batch",
        "search",
        "train",
        "update",
        "use",
        "using",
        "verify",
    ]
    assert dir(hublora) == hublora.__all__


@pytest.mark.parametrize("name", hublora.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(hublora, name)
    assert isinstance(found, str) or (callable(found) and found.__doc__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = hublora.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "code",
    [
        "import hublora, hublora.refs, hublora.errors",
        "import hublora.cli.main",
        "from hublora.cli.main import hublora; hublora.main(['--help'], standalone_mode=False)",
    ],
)
def test_importing_is_cheap(code: str) -> None:
    check = f"{code}\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not HEAVY & loaded


def test_every_error_that_a_docstring_names_is_public() -> None:
    public = [getattr(hublora, name) for name in hublora.__all__ if not name.startswith("_")]
    named = {
        name
        for found in public
        for name in re.findall(r"^ +(\w+(?:Error|Interrupted)):", found.__doc__ or "", re.M)
    }
    assert named
    assert named <= {*hublora.__all__, *dir(builtins)}


def test_type_checkers_read_the_package() -> None:
    assert files("hublora").joinpath("py.typed").is_file()
