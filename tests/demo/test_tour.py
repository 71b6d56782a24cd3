"""The demo's Hub can be seeded, and the tour's commands are ones that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hublora.cli.main import hublora
from hublora.demo.seed import ASSETS, REPOS, seed
from hublora.demo.tour import stops
from hublora.localhub import LocalHub


def test_seeding_twice_makes_one_commit_each(tmp_path: Path) -> None:
    seed(tmp_path / "hub")
    seed(tmp_path / "hub")
    with LocalHub.start(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        for repo_id, repo_type in REPOS.items():
            commits = api.list_repo_commits(repo_id, repo_type=repo_type)
            assert [commit.title for commit in commits].count("Seed the demo") == 1


def test_the_repos_have_the_same_commits_on_every_hub(tmp_path: Path) -> None:
    commits = []
    for name in ("one", "other"):
        seed(tmp_path / name)
        with LocalHub.start(tmp_path / name, user=name) as hub:
            api = HfApi(endpoint=hub.url, token=hub.token)
            commits.append([api.repo_info(repo, repo_type=REPOS[repo]).sha for repo in REPOS])
    assert commits[0] == commits[1]


def base_files() -> list[Path]:
    return [path for path in (ASSETS / "tiny-sd").rglob("*") if path.is_file()]


def test_the_base_is_safe() -> None:
    assert base_files()
    assert not [path for path in base_files() if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


def test_the_base_is_small() -> None:
    assert sum(path.stat().st_size for path in base_files()) <= 12e6


@pytest.mark.parametrize(
    "stop",
    [*stops("runs/x"), *stops("runs/x", resume=True)[:1]],
    ids=lambda stop: stop.command[1],
)
def test_every_stop_is_a_command_that_parses(stop) -> None:
    name, *args = stop.command[1:]
    parent = hublora.make_context("hublora", [name], resilient_parsing=True)
    command = hublora.get_command(parent, name)
    assert command is not None
    command.make_context(name, args, parent=parent)


def test_the_readme_speaks_of_repos_and_images_that_the_demo_has() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(hublora/[\w-]+)`", text))
    assert named
    assert named <= set(REPOS)
    images = re.search(r"trains on (\d+) sketchbook images", text)
    assert images is not None
    assert int(images[1]) == len(list((ASSETS / "tiny-sketchbook").rglob("*.png")))
    pushed = re.search(r"pushes `(\S+)`", text)
    assert pushed is not None
    assert any(pushed[1] in stop.command for stop in stops("runs/x"))
