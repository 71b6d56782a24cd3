"""Adapters are found by name and base, with what calls them and their licence."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hublora.localhub import import_folder

CARD = """---
base_model: {base}
base_model_relation: adapter
license: {license}
instance_prompt: {trigger}
tags: [lora]
---
"""


@pytest.fixture(scope="module")
def listed(hub: object, hub_data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name, base, license, trigger in (
        ("pixel-hills", "bases/epsilon", "mit", "pixel style"),
        ("pixel-cats", "bases/velocity", "openrail", "\x1b[31mpixel \x07cats"),
        ("ink", "bases/epsilon", "mit", "ink"),
        ("old", "runwayml/stable-diffusion-v1-5", "mit", "old"),
        ("new", "stable-diffusion-v1-5/stable-diffusion-v1-5", "mit", "new"),
    ):
        folder = tmp_path_factory.mktemp("listed")
        text = CARD.format(base=base, license=license, trigger=json.dumps(trigger))
        (folder / "README.md").write_text(text)
        import_folder(hub_data, f"finders/{name}", folder)


def ids(done: Any) -> list[str]:
    assert done.status == 0, done.err
    return done.out.split()


def test_name_base_and_author_narrow(listed: None, hublora_cli: Callable[..., Any]) -> None:
    mine = ["--author=finders", "-q"]
    assert set(ids(hublora_cli("search", "pixel", *mine))) == {
        "finders/pixel-hills",
        "finders/pixel-cats",
    }
    assert ids(hublora_cli("search", "pixel", "--base=bases/epsilon", *mine)) == [
        "finders/pixel-hills"
    ]
    assert len(ids(hublora_cli("search", "--limit=2", *mine))) == 2
    assert ids(hublora_cli("search", "--base=sdxl", *mine)) == []


@pytest.mark.parametrize(
    "base",
    ["sd15", "runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"],
)
def test_a_base_is_found_under_the_ids_that_it_has_had(
    listed: None, hublora_cli: Callable[..., Any], base: str
) -> None:
    found = ids(hublora_cli("search", f"--base={base}", "--author=finders", "-q"))
    assert sorted(found) == ["finders/new", "finders/old"]
    newest = ids(hublora_cli("search", f"--base={base}", "--sort=created", "--limit=1", "-q"))
    assert newest == ["finders/new"]


def test_triggers_and_licence_are_printed_and_nothing_obeyed(
    listed: None, hublora_cli: Callable[..., Any]
) -> None:
    done = hublora_cli("search", "pixel", "--author=finders", "--sort=created", "--json")
    found = {one["repo_id"]: one for one in json.loads(done.out)}
    assert found["finders/pixel-hills"]["trigger"] == "pixel style"
    assert found["finders/pixel-cats"]["license"] == "openrail"
    table = hublora_cli("search", "pixel", "--author=finders").out
    assert "\x1b" not in table
    assert "\x07" not in table
    assert "pixel style" in table


def test_a_hub_that_is_away_is_one_sentence_at_once(
    cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = cli("search", "ink", env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: The Hub at http://127.0.0.1:9 could not be reached")
    done = cli("search", "ink", env={"HF_HUB_OFFLINE": "1"})
    assert done.stderr == "Error: HF_HUB_OFFLINE is set, so the Hub cannot be searched. Unset it.\n"
