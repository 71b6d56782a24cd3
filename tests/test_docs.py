"""The documentation cannot lie: its reference is in step, and the README's Python runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)

# What a reader's Hub has -> what the tests' Hub has.
STAND_INS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "bases/epsilon",
    "lambdalabs/naruto-blip-captions": "bases/images",
}


@pytest.mark.parametrize("script", ["make_cli.py", "make_api.py", "make_families.py"])
def test_a_reference_is_in_step(script: str) -> None:
    # In a process of its own: click keeps a command's help option from whoever asked first, and
    # other tests ask for commands without their group, which is what adds -h.
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / script), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_command_is_in_the_reference() -> None:
    from hublora.cli.main import COMMANDS

    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert all(f"\n## hublora {name}\n" in text for name in COMMANDS)


def test_every_public_name_is_in_the_reference() -> None:
    import hublora

    text = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    assert all(f"\n## {name}\n" in text for name in hublora.__all__ if not name.startswith("_"))


@pytest.fixture(scope="module")
def seeded(
    hub: object, bases: Path, hub_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Give the Hub every adapter that the README names."""
    from diffusers import StableDiffusionPipeline

    from hublora.localhub import import_folder
    from tests.lora import random_adapter, save_adapter

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    loaded = re.findall(r"hublora\.load\(([^)]*)\)", "".join(SNIPPETS))
    names = {name for call in loaded for name in re.findall(r'"([\w-]+/[\w-]+)', call)}
    for seed, name in enumerate(sorted(names)):
        folder = tmp_path_factory.mktemp("adapter")
        save_adapter(random_adapter(pipe, seed=seed), folder, "bases/epsilon")
        import_folder(hub_data, name, folder)


def test_the_readme_has_snippets() -> None:
    assert len(SNIPPETS) >= 2


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_of_the_readme_runs(
    number: int, seeded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = SNIPPETS[number]
    for name, stand_in in STAND_INS.items():
        code = code.replace(name, stand_in)
    code = re.sub(r"(max_train_steps\W+)\d+", r"\g<1>2", code)  # fewer, not other, steps
    code = re.sub(r"(num_inference_steps=)\d+", r"\g<1>2", code)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"README.md, snippet {number + 1}", "exec"), {"__name__": "__main__"})


def test_links_of_the_readme_lead_to_files_that_are_there() -> None:
    text = (ROOT / "README.md").read_text()
    local = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    missing = [link for link in local if not (ROOT / link).exists()]
    assert not missing
