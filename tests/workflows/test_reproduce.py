"""An adapter's repo is checked against what it says, and makes the adapter again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from safetensors.torch import load_file, save_file

import hublora
from hublora.errors import ConfigError, NotFoundError
from hublora.workflows.reproduce import compare, reproduce
from hublora.workflows.train.recipe import Recipe, read_recipe, remake
from hublora.workflows.verify import verify
from tests.entry import Done

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WEIGHTS = "pytorch_lora_weights.safetensors"
REPO = "me/made-again"
Cli = Callable[..., Done]


@pytest.fixture(scope="module")
def run(hub: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that was pushed to REPO."""
    folder = tmp_path_factory.mktemp("runs") / "made-again"
    settings = {
        "base.model": "bases/epsilon",
        "data.dataset": "bases/images",
        "schedule.max_train_steps": 3,
        "optimizer.learning_rate": 1e-2,
        "validation.prompts": ["Totoro"],
        "validation.num_images": 1,
        "hub.push": True,
        "hub.model_id": REPO,
        "output_dir": folder,
    }
    hublora.train(hublora.TrainingConfig.from_settings(settings))
    return folder


@pytest.fixture(scope="module")
def api(hub: object) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A copy of the run's folder, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "copied"))


def recipe(**changes: object) -> Recipe:
    settings = {
        "base.model": "a/b",
        "base.revision": "f" * 40,
        "data.dataset": "c/d",
        "data.revision": "e" * 40,
        "data.caption_column": "text",
        "data.folder": None,
        "data.archive": None,
        "adapter.rank": 4,
    }
    return Recipe("x/y@12345678", "y", {**settings, **changes}, {})


def test_train_from_a_repo_gives_the_same_bytes(
    run: Path, hublora_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = hublora_cli("train", "--from", REPO, "--quiet")
    assert done.status == 0, done.err
    assert done.out.strip() == "runs/made-again"
    assert Path(done.out.strip(), WEIGHTS).read_bytes() == (run / WEIGHTS).read_bytes()
    done = hublora_cli("train", "--from", REPO, "--rank", "2", "--seed", "0", "--dry-run", "--json")
    assert done.status == 0, done.err
    assert "adapter.rank is 2 (was 4)" in done.err
    assert "seed is" not in done.err, "it is what it was"
    settings = json.loads(done.out)["settings"]
    assert settings["adapter.rank"] == 2
    assert settings["optimizer.learning_rate"] == 1e-2


def test_a_repo_that_holds_what_it_says_is_verified_and_made_again(
    run: Path, hublora_cli: Cli
) -> None:
    done = hublora_cli("verify", REPO, "--reproduce", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["passed"]
    assert {one["name"]: one["passed"] for one in found["checks"]} == {
        "files": True,
        "hashes": True,
        "facts": True,
        "other layout": True,
        "images": True,
        "gallery": True,
    }
    again = found["reproduced"]
    assert again["same_bytes"]
    assert again["drift"] == []
    assert again["images"] == 0


def test_what_is_not_as_the_repo_says_is_named(
    run: Path, copied: Path, api: HfApi, hublora_cli: Cli
) -> None:
    import torch

    tensors = {name: torch.randn_like(one) for name, one in load_file(run / WEIGHTS).items()}
    save_file(tensors, copied / WEIGHTS, {"hublora.base_model": "bases/velocity"})
    (copied / "images" / "before-after.png").unlink()
    api.create_repo("me/made-wrong")
    beside = ["checkpoint-*", ".cache/*"]
    api.upload_folder(repo_id="me/made-wrong", folder_path=copied, ignore_patterns=beside)
    done = hublora_cli("verify", "me/made-wrong")
    assert done.status == 1
    wrong = [line.split()[1] for line in done.out.splitlines() if "WRONG" in line]
    assert wrong == ["files", "facts", "other", "images", "gallery"]
    assert "images/before-after.png" in done.out
    assert "bases/velocity (the adapter)" in done.out
    assert "fails verification: files, facts" in done.err


@pytest.mark.parametrize("method", ["textual-inversion", "pivotal"])
def test_token_embeddings_are_verified_and_reproduced(
    bases: Path, method: str, tmp_path: Path
) -> None:
    """On a base that is a folder, which only its owner can name."""
    folder, base = tmp_path / method, str(bases / "epsilon")
    settings = {
        "base.model": base,
        "data.dataset": "bases/images",
        "method": method,
        "tokens.placeholders": ["<x>"],
        "tokens.first_steps": 1 if method == "pivotal" else 0.4,
        "schedule.max_train_steps": 2,
        "validation.prompts": ["a <x>"],
        "validation.num_images": 1,
        "output_dir": folder,
    }
    hublora.train(hublora.TrainingConfig.from_settings(settings))
    (gallery,) = (one for one in verify(str(folder)).checks if one.name == "gallery")
    assert gallery.passed is None
    assert "'epsilon': name it with --base" in gallery.detail
    found = verify(str(folder), base=base)
    assert found.passed, found.checks
    assert {one.name for one in found.checks if one.passed} >= {"files", "images", "gallery"}
    with pytest.raises(ConfigError, match="base=FOLDER"):
        reproduce(str(folder))
    assert reproduce(str(folder), given={"base.model": base}).same_bytes
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    (file,) = [*other.glob("learned_embeds.safetensors"), *other.glob("embeddings/*")]
    save_file({name: one + 1 for name, one in load_file(file).items()}, file)
    assert compare(folder, folder).difference < 1e-6
    assert compare(folder, other).difference > 0.1


def test_another_adapter_is_not_called_made_again(
    copied: Path, hublora_cli: Cli, tmp_path: Path
) -> None:
    """The settings of the copy do not give its adapter: another seed does."""
    settings = copied / "training" / "config.yaml"
    settings.write_text(settings.read_text().replace("\nseed: 0", "\nseed: 1"))
    environment = copied / "training" / "environment.json"
    facts = json.loads(environment.read_text())
    environment.write_text(json.dumps(facts | {"torch": "1.0", "device": "Abacus"}))
    found = reproduce(str(copied), output=tmp_path / "again")
    assert not found.same_bytes
    assert not found.exact
    assert not found.is_reproduced
    assert found.similarity.cosine < 0.5
    assert found.images is not None
    assert found.drift[0] == f"The device was Abacus and is {facts['device']}."
    assert found.drift[1].startswith("torch was 1.0 and is ")
    assert found.folder is not None
    assert (found.folder / WEIGHTS).is_file()


def test_where_nothing_drifted_only_the_same_bytes_will_do() -> None:
    from hublora.adapters.similarity import Similarity
    from hublora.workflows.reproduce import Reproduced

    alike = Similarity(0.999, 0.01)
    assert Reproduced("x", False, alike, 1.0, ("torch was 1 and is 2.",), False, None).is_reproduced
    assert not Reproduced("x", False, alike, 1.0, (), True, None).is_reproduced


def test_what_is_not_on_the_hub_must_be_named() -> None:
    for changes, word in (
        ({"base.model": "mine", "base.revision": None}, "base=FOLDER"),
        ({"data.dataset": None, "data.folder": "dogs"}, "folder=FOLDER"),
        ({"data.dataset": None, "data.archive": "dogs.zip"}, "archive=FILE"),
        ({"adapter.start_from": "mine.safetensors"}, "adapter.start_from=FILE"),
    ):
        with pytest.raises(ConfigError, match=word):
            remake(recipe(**changes), {})
    named = remake(recipe(**{"data.dataset": None, "data.folder": "dogs"}), {"data.folder": "/x"})
    assert named["data.folder"] == "/x"


def test_another_source_brings_its_own_revision_and_columns() -> None:
    same = remake(recipe(), {"data.dataset": "c/d", "base.model": "a/b"})
    assert same["data.revision"] == "e" * 40
    assert same["base.revision"] == "f" * 40
    other = remake(recipe(), {"data.folder": Path("dogs"), "base.model": "a/c"})
    assert "data.dataset" not in other
    assert "data.revision" not in other
    assert "data.caption_column" not in other
    assert "base.revision" not in other


def test_a_repo_without_recorded_settings_is_refused(run: Path, api: HfApi) -> None:
    with pytest.raises(NotFoundError, match=r"no recorded settings \(training/config\.yaml\)"):
        read_recipe("bases/epsilon")
    with pytest.raises(NotFoundError, match="me/nobody"):
        read_recipe("me/nobody")
    with pytest.raises(NotFoundError, match=r"bases/epsilon@.* has no adapter"):
        verify("bases/epsilon")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.folder", "/home/you/images"),
        ("data.archive", "/home/you/images.zip"),
        ("base.model", "/home/you/base"),
        ("adapter.start_from", "../adapter.safetensors"),
    ],
)
def test_a_repo_does_not_choose_among_files_of_this_machine(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match="not on the Hub"):
        remake(recipe(**{"data.dataset": None, key: value}), {})


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:9", "[::1]:9"])
def test_a_repo_does_not_choose_addresses_in_a_private_network(tmp_path: Path, host: str) -> None:
    from hublora.data.archive import fetch_archive
    from hublora.errors import HubError
    from hublora.refs import AdapterRef
    from hublora.resolution.adapter import download_adapter

    archive, adapter = f"https://{host}/a.zip", f"https://{host}/a.safetensors"
    theirs = {"data.dataset": None, "data.archive": archive, "adapter.start_from": f"{adapter}:0.5"}
    remake(recipe(**theirs), {})
    with pytest.raises(HubError, match="is in a private network"):
        fetch_archive(archive, tmp_path)
    with pytest.raises(HubError, match="is in a private network"):
        download_adapter(AdapterRef.parse(adapter))
    remake(recipe(**theirs), {"data.archive": archive})  # the person names it too
    with pytest.raises(HubError, match=r"cannot be fetched: .*(refused|assign)"):
        fetch_archive(archive, tmp_path)


def test_a_repo_does_not_choose_where_things_go(copied: Path) -> None:
    hostile = "hub: {push: true, model_id: eve/stolen}\noutput_dir: /home/you\nreport_to: [wandb]\n"
    settings = copied / "training" / "config.yaml"
    settings.write_text("base: {model: a/b}\n" + hostile)
    assert set(read_recipe(str(copied)).settings) == {"base.model"}


def test_what_is_needed_is_asked_for_before_anything_is_loaded(
    copied: Path, hublora_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hublora.cli.progress

    settings = copied / "training" / "config.yaml"
    tree = yaml.safe_load(settings.read_text())
    tree["data"] |= {"dataset": None, "revision": None, "folder": "dogs"}
    settings.write_text(yaml.safe_dump(tree))

    def too_late() -> None:
        raise AssertionError("the libraries were loaded first")

    monkeypatch.setattr(hublora.cli.progress, "_quieten", too_late)
    for command in (("train", "--from", str(copied)), ("verify", str(copied), "--reproduce")):
        done = hublora_cli(*command)
        assert done.status == 1
        assert "made with 'dogs', which is not on the Hub" in done.err
        assert "--folder FOLDER, or --set data.folder=FOLDER" in done.err
        done = hublora_cli(*command, "--set", "data.folder=./nowhere")
        assert "The folder nowhere does not exist" in done.err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "a0: &a0 {x: 1}" + "".join(f"\na{n + 1}: &a{n + 1} [*a{n}, *a{n}]" for n in range(40)),
            "more than 20000 values",
        ),
        ("seed: !!int ''", "the tag .* is not taken .line 1."),
        ("\n".join(f"k{n}: v" for n in range(50_000)), "more than 20000 values"),
        ("seed: 1\n#" + "x" * (40 << 20), "larger than 1024 KiB"),
    ],
    ids=["aliases", "a tag", "50,000 keys", "40 MB"],
)
def test_a_stranger_s_settings_do_not_grow(copied: Path, text: str, reason: str) -> None:
    (copied / "training" / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_recipe(str(copied))
