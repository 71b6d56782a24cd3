"""A composition is a repo too: pinned, credited, licensed, and run as one adapter."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi, ModelCard, hf_hub_download

import hublora
from hublora.adapters.licenses import LicenseSummary
from hublora.errors import AdapterError, ConfigError
from hublora.generation.metadata import read_image
from hublora.hub.search import search
from hublora.progress import Note
from hublora.resolution.lockfile import read_lockfile

Publish = Callable[..., str]


def page_aside(hub: Any, repo_id: str) -> str:
    """Return what stands beside the card on a repo's page."""
    page = httpx.get(f"{hub.url}/{repo_id}", headers={"accept": "text/html"})
    return page.text.split("<aside>")[1]


@pytest.fixture(scope="module")
def mix(publish: Publish) -> str:
    """A composition of two adapters, one of them by a hostile title."""
    from hublora.workflows.compose import compose

    refs = [publish("mix-ink", 1, "openrail", "ink style"), publish("mix-dog", 2, "mit")]
    done = compose(
        [f"{refs[0]}:0.7", f"{refs[1]}:0.5"],
        push_to="me/the-mix",
        compose="switch",
        weights={"2": "0.2..0.9"},
        template="{prompt} | <b>by</b> <1>",
        num_inference_steps=2,
        scheduler="LCM",
    )
    assert done.pushed is not None
    return done.pushed.repo_id


def test_the_lockfile_pins_everything(mix: str) -> None:
    lock = read_lockfile(Path(hf_hub_download(mix, "hublora.lock.json")), mix)
    heads = {name: HfApi().repo_info(name).sha for name in ("me/mix-ink", "me/mix-dog")}
    assert {part.repo: part.commit for part in lock.parts} == heads
    assert [part.weight for part in lock.parts] == ["0.7", "0.2..0.9"]
    assert lock.base.commit == HfApi().repo_info("bases/epsilon").sha
    assert lock.compose == "switch"
    assert all(len(part.sha256) == 64 for part in lock.parts)


def test_its_images_are_by_the_scheduler_that_they_name(mix: str, tmp_path: Path) -> None:
    png = Path(hf_hub_download(mix, "images/0.png"))
    assert read_image(png)["sampling"]["scheduler"] == "LCM"
    assert hublora.replay(png, output=tmp_path / "again.png").difference == 0.0


def test_its_card_credits_licenses_and_escapes(mix: str) -> None:
    text = Path(hf_hub_download(mix, "README.md")).read_text()
    card = ModelCard(text)
    assert card.data.license == "openrail"  # the strictest of openrail, mit and the base's
    assert "[`me/mix-ink`](/me/mix-ink) | 0.7 |" in text
    assert "[`me/mix-dog`](/me/mix-dog) | 0.2..0.9 |" in text
    assert card.data.widget[0]["output"]["url"] == "images/0.png"
    assert card.data.library_name == "hublora"
    assert "stable-diffusion" in card.data.tags
    body = text.split("---", 2)[2]
    assert body.count("<b>") == len(re.findall(r"`[^`]*<b>by</b> <1>`", body)) > 0
    assert 'hublora run me/the-mix "a mix-ink hill"' in text
    assert "none of them forbids commercial use" in text
    assert re.search(r"Generated with 2 steps of `\w+`, guidance [\d.]+, \d+ × \d+ pixels\.", text)
    assert "ink style, " not in text  # <1> in the template names it
    assert "hublora puts them in front of a prompt" in text


def test_added_trigger_words_are_reported_once_and_on_the_card(
    publish: Publish, hublora_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refs = [publish("front-ink", 1, "mit", "ink"), publish("front-dog", 2, "mit", "dog")]
    prompts = ["--prompt=an ink hill", "--prompt=a dog", "--prompt=a dog in ink", "--steps=1"]
    done = hublora_cli("compose", *refs, "-o", "both", *prompts)
    assert done.status == 0, done.err
    assert "Trigger words put in front of 'an ink hill': dog\n" in done.err
    assert "Trigger words put in front of 'a dog': ink\n" in done.err
    card = (tmp_path / "both" / "README.md").read_text()
    assert "- `a dog` with `ink` in front, seed 1\n" in card
    assert "- `a dog in ink`, seed 2\n" in card


def test_without_images_nothing_is_warned_of_and_the_card_has_no_gallery(
    publish: Publish, hublora_cli: Any
) -> None:
    name = publish("bare", 1, "mit", "ink")
    done = hublora_cli("compose", name, "--push-to-hub=me/bare-mix", "--no-gallery")
    assert done.status == 0, done.err
    assert "no image records how it was generated" in done.err
    assert "Warning" not in done.err
    assert "<Gallery" not in ModelCard.load("me/bare-mix").content
    assert 'Use it: hublora run me/bare-mix "…"' in done.out


def test_run_generates_with_it_like_with_one_adapter(
    mix: str, hublora_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = hublora_cli("run", f"{mix}:0.5", "a hill", "--steps=2", "-o", "a.png")
    assert done.status == 0, done.err
    assert "Licences: apache-2.0 (bases/epsilon), openrail (me/mix-ink), mit" in done.err
    facts = read_image(tmp_path / "a.png")
    assert facts["compose"] == "switch"
    assert [one["weight"] for one in facts["adapters"]] == [0.35, "0.1..0.45"]
    assert facts["composition"].startswith(f"{mix}@")
    assert facts["sampling"]["prompt"] == "a hill | <b>by</b> <1>"
    assert facts["expanded_prompt"] == "a hill | <b>by</b> ink style"
    assert facts["license"]["commercial_use"] is True


def test_it_is_found_and_its_page_shows_what_works(mix: str, hub: Any) -> None:
    assert mix in [one.repo_id for one in search("the-mix")]
    assert mix in [one.repo_id for one in search("the-mix", base="bases/epsilon")]
    aside = page_aside(hub, mix)
    assert "hublora run me/the-mix" in aside
    assert "DiffusionPipeline" not in aside


def test_what_needs_one_adapter_refuses_a_composition(mix: str, tmp_path: Path) -> None:
    from hublora.refs import AdapterRef
    from hublora.resolution.adapter import open_adapter

    with pytest.raises(AdapterError, match="me/the-mix is a composition of several adapters"):
        open_adapter(AdapterRef.parse(mix))


def test_python_fills_the_template_too(mix: str) -> None:
    composition = hublora.load(mix).hublora
    assert composition.prompt("a hill") == "a hill | <b>by</b> ink style"
    assert re.fullmatch(
        r"<hublora: bases/epsilon\S* with me/mix-ink:0\.7, me/mix-dog:0\.2\.\.0\.9, switch>",
        repr(composition),
    )


def test_it_is_found_by_the_trigger_words_of_its_adapters(mix: str) -> None:
    assert mix in [one.repo_id for one in search("ink style")]


def test_a_part_that_is_another_file_is_refused(mix: str, tmp_path: Path) -> None:
    lock = json.loads(Path(hf_hub_download(mix, "hublora.lock.json")).read_text())
    lock["parts"][0]["sha256"] = "0" * 64
    (tmp_path / "hublora.lock.json").write_text(json.dumps(lock))
    with pytest.raises(AdapterError, match="another hash than the lockfile"):
        hublora.load(str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"parts": []},
        {"compose": "glue"},
        {"format": 2},
        {"more": 1},
        {"parts": [{"file": "../x.safetensors"}]},
        {"parts": [{"commit": "main"}]},
        {"parts": [{"weight": "strong"}]},
        {"parts": [{"repo": "https://example.com/x"}]},
        "no json",
    ],
)
def test_a_wrong_lockfile_is_one_sentence(mix: str, tmp_path: Path, change: Any) -> None:
    lock = json.loads(Path(hf_hub_download(mix, "hublora.lock.json")).read_text())
    path = tmp_path / "hublora.lock.json"
    if isinstance(change, dict) and change.get("parts"):
        lock["parts"] = [{**lock["parts"][0], **change["parts"][0]}]
    elif isinstance(change, dict):
        lock |= change
    path.write_text(change if isinstance(change, str) else json.dumps(lock))
    with pytest.raises(AdapterError, match="lockfile of me/mix cannot be read") as caught:
        read_lockfile(path, "me/mix")
    assert "\n" not in str(caught.value)


def test_a_merged_adapter_generates_what_the_sum_generates(
    hub: Any,
    publish: Publish,
    hublora_cli: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    refs = [f"{publish('cat-a', 3)}:0.7", f"{publish('cat-b', 4)}:-0.4"]
    flags = ["--prompt=a red hill", "--steps=1", "--seed=4"]
    done = hublora_cli("compose", *refs, "--merge=cat", "-o", "one", "--json", *flags)
    assert done.status == 0, done.err
    assert json.loads(done.out)["error"] < 1e-6
    latents = []
    for pipe in (hublora.load(*refs), hublora.load("./one")):
        generator = torch.Generator().manual_seed(0)
        settings = {"num_inference_steps": 2, "generator": generator, "output_type": "latent"}
        latents.append(pipe("a hill", **settings).images)
    assert torch.allclose(*latents, atol=1e-4)
    card = (tmp_path / "one" / "README.md").read_text()
    assert "me/cat-a" in card
    assert "url: images/0.png" in card
    facts = read_image(tmp_path / "one" / "images" / "0.png")
    assert facts["sampling"]["prompt"] == "a red hill"
    assert facts["sampling"]["seed"] == 4
    assert facts["license"]["commercial_use"] is True
    before = (tmp_path / "one" / "pytorch_lora_weights.safetensors").read_bytes()
    for more in ([], ["--merge=cat"]):
        again = hublora_cli("compose", refs[0], "./one:0.5", *more, "-o", "one", *flags)
        assert again.status == 1
        assert "one exists and is not an empty folder" in again.err
    assert (tmp_path / "one" / "pytorch_lora_weights.safetensors").read_bytes() == before
    pushed = hublora_cli("compose", *refs, "--merge=cat", "--push-to-hub=me/cat-both", "-q", *flags)
    assert pushed.status == 0, pushed.err
    assert "me/cat-both" in [one.repo_id for one in search("cat-both")]
    tags = ModelCard.load("me/cat-both").data.tags
    assert {"lora", "template:sd-lora", "stable-diffusion"} <= set(tags)
    assert "hublora-composition" not in tags
    assert "pipe.load_lora_weights(&#34;me/cat-both&#34;" in page_aside(hub, "me/cat-both")


def test_what_nobody_else_has_cannot_be_locked(bases: Path, tmp_path: Path, publish: Any) -> None:
    from hublora.workflows.compose import compose

    with pytest.raises(ConfigError, match="needs a folder or a repo"):
        compose(["me/mix-ink"])
    name = publish("lone", 5)
    with pytest.raises(ConfigError, match="is a local folder and cannot be pinned"):
        compose([name], output=tmp_path / "x", base=str(bases / "epsilon"))
    assert not (tmp_path / "x").exists()


def test_licences_meet() -> None:
    assert LicenseSummary({"a": "mit", "b": "openrail++"}).commercial is True
    assert LicenseSummary({"a": "mit", "b": None}).commercial is None
    assert LicenseSummary({"a": None, "b": "cc-by-nc-4.0"}).commercial is False
    assert (
        LicenseSummary({"a": "mit", "b": "cc-by-sa-4.0", "c": "openrail"}).strictest
        == "cc-by-sa-4.0"
    )
    assert LicenseSummary({"a": "mit", "b": "my-own"}).strictest is None
    assert LicenseSummary({"a": "mit", "b": "my-own"}).unknown == ("b",)


def test_commercial_refuses_what_is_forbidden_and_warns_of_the_unknown(
    publish: Publish, hublora_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    never = publish("never", 6, "cc-by-nc-4.0")
    done = hublora_cli("run", never, "a", "--commercial", "--steps=1")
    assert done.status == 1
    assert "The licence of me/never forbids commercial use" in done.err
    assert not list(tmp_path.iterdir())
    done = hublora_cli("run", publish("mute", 7, None), "a", "--commercial", "--steps=1", "-q")
    assert done.status == 0
    assert "Warning: Licences: apache-2.0 (bases/epsilon), unknown (me/mute)" in done.err


def test_a_composition_beside_another_adapter_says_what_becomes_of_its_mode(
    mix: str, publish: Publish
) -> None:
    other = publish("mix-other", 3)
    notes: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    said = "combines its adapters by switch; with other adapters beside it, all are combined by sum"
    pipe = hublora.load(mix, other, callback=listen)
    assert pipe.hublora.mode == "sum"
    assert any(said in text for text in notes)
    notes.clear()
    hublora.use(pipe, mix, callback=listen)
    hublora.use(pipe, mix, other, compose="switch", callback=listen)
    assert not any(said in text for text in notes)
    hublora.use(pipe, mix, other, callback=listen)
    assert any(said in text for text in notes)


def test_settings_of_images_are_refused_without_images(
    publish: Publish, tmp_path: Path, hublora_cli: Any
) -> None:
    refs = [publish("bare-a", 1), publish("bare-b", 2)]
    command = ["compose", *refs, "-o", str(tmp_path / "mix"), "--no-gallery"]
    for flags, name in (
        (["--prompt", "a hill"], "prompts"),
        (["--steps", "3"], "num_inference_steps"),
        (["--seed", "4"], "seed"),
        (["--prompt", "a", "--merge", "cat"], "prompts"),
    ):
        done = hublora_cli(*command, *flags)
        assert done.status == 1
        assert f"{name} would have no effect" in done.err
    done = hublora_cli(*command, "--merge", "dare_linear", "--seed", "4")
    assert done.status == 0, done.err


@pytest.mark.parametrize("how", [[], ["--merge", "cat"]])
@pytest.mark.parametrize("name", ["README.md", "images/0.png", ".git/HEAD"])
def test_a_folder_of_somebody_else_is_refused_and_untouched(
    hublora_cli: Any, tmp_path: Path, publish: Any, how: list[str], name: str
) -> None:
    mine = tmp_path / "mine" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    refs = [publish("ink", seed=1), publish("sepia", seed=2)]
    done = hublora_cli("compose", *refs, *how, "--no-gallery", "-o", str(tmp_path / "mine"))
    assert done.status == 1
    assert "is not an empty folder" in done.err
    files = [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]
    assert [(path, path.read_text()) for path in files] == [(mine, "mine")]
