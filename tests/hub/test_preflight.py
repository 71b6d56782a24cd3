"""`hublora inspect` and what it is made of: facts, fit and contradictions from headers alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hublora.adapters.adapter import Adapter
from hublora.adapters.layouts import to_kohya
from hublora.localhub import import_folder
from hublora.workflows.inspect import preflight
from tests.lora import random_adapter, save_adapter
from tests.proxy import Proxy

Cli = Callable[..., Any]
BOTH = {"unet": ("to_q", "conv1"), "text_encoder": ("q_proj",)}


def fresh(bases: Path, name: str) -> Any:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(bases / name)


@pytest.fixture(scope="module")
def adapters(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of adapters: one for each base, and one in kohya's layout."""
    folder = tmp_path_factory.mktemp("adapters")
    for base in ("epsilon", "wide", "xl"):
        adapter = random_adapter(fresh(bases, base), BOTH)
        save_adapter(adapter, folder / base, f"bases/{base}")
    adapter = random_adapter(fresh(bases, "epsilon"), BOTH, alpha=1.5)
    named = {
        component: {
            name
            if name.startswith("text_model") or component == "unet"
            else f"text_model.{name}": x
            for name, x in modules.items()
        }
        for component, modules in adapter.layers.items()
    }
    tensors = to_kohya(Adapter(named), {"unet": "lora_unet", "text_encoder": "lora_te"})
    save_file(tensors, folder / "kohya.safetensors", {"ss_base_model_version": "sd_v1"})
    return folder


def real_width(path: Path, width: int, **metadata: str) -> Path:
    """Write a file whose cross-attention has the width of a real base's embeddings."""
    stem = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {f"{stem}.lora_A.weight": torch.ones(2, width)}
    save_file(tensors | {f"{stem}.lora_B.weight": torch.ones(640, 2)}, path, metadata)
    return path


@pytest.mark.parametrize("name", ["epsilon", "xl", "kohya.safetensors"])
def test_every_layer_is_found_on_the_base_it_was_made_for(adapters: Path, name: str) -> None:
    base = f"bases/{'epsilon' if 'kohya' in name else name}"
    found = preflight(str(adapters / name), base=base)
    (one,) = found.adapters
    assert one.fit is not None
    assert (one.fit.fraction, one.fit.missing, one.fit.wrong_shape) == (1.0, (), ())
    assert one.fit.total > 10
    assert not one.problems
    assert found.base is not None
    assert found.base.family == ("stable-diffusion-xl" if name == "xl" else "stable-diffusion")


def test_a_folder_is_a_base_too(adapters: Path, bases: Path) -> None:
    (one,) = preflight(str(adapters / "xl"), base=str(bases / "xl")).adapters
    assert one.fit is not None
    assert one.fit.fraction == 1.0


def test_the_share_that_would_apply_is_reported_with_a_layer_that_would_not(adapters: Path) -> None:
    (one,) = preflight(str(adapters / "wide"), base="bases/epsilon").adapters
    assert one.fit is not None
    text = [name for name in one.fit.matched if name[0] == "text_encoder"]
    assert len(one.fit.matched) == len(text) > 0
    assert 0 < one.fit.fraction < 0.5
    assert not one.fit.missing
    assert one.problems[0] == "It was trained on bases/wide, not on bases/epsilon."
    assert f"of its {one.fit.total} layers 0 are not in the base" in one.problems[1]


def test_the_alpha_of_a_kohya_file_is_read_from_its_first_tensor(adapters: Path) -> None:
    (one,) = preflight(str(adapters / "kohya.safetensors")).adapters
    assert one.facts.alphas == (1.5,)
    assert one.facts.architecture == "stable-diffusion-v1"
    assert one.facts.family == "stable-diffusion"


@pytest.mark.parametrize(
    ("width", "architecture", "family"),
    [
        (768, "stable-diffusion-v1", "stable-diffusion"),
        (1024, "stable-diffusion-v2", "stable-diffusion"),
        (2048, "stable-diffusion-xl-v1-base", "stable-diffusion-xl"),
        (320, None, None),
    ],
)
def test_the_family_is_inferred_from_shapes(
    tmp_path: Path, width: int, architecture: str | None, family: str | None
) -> None:
    (one,) = preflight(str(real_width(tmp_path / "a.safetensors", width))).adapters
    assert (one.facts.architecture, one.facts.family) == (architecture, family)
    assert not one.problems


def test_a_base_on_the_card_that_the_tensors_contradict_is_reported(tmp_path: Path) -> None:
    path = real_width(tmp_path / "a.safetensors", 2048, ss_base_model_version="sd_v1")
    (tmp_path / "README.md").write_text(
        "---\nbase_model: stable-diffusion-v1-5/stable-diffusion-v1-5\n---\n"
    )
    (one,) = preflight(str(path)).adapters
    by_card, by_metadata = one.problems
    assert "stable-diffusion-xl-v1-base" in by_card
    assert "base stable-diffusion-v1-5/stable-diffusion-v1-5 (stable-diffusion-v1)" in by_card
    assert "its metadata names the architecture (stable-diffusion-v1)" in by_metadata


def test_a_card_and_a_file_that_name_different_bases_are_reported(tmp_path: Path) -> None:
    path = real_width(tmp_path / "a.safetensors", 768, **{"hublora.base_model": "me/one"})
    (tmp_path / "README.md").write_text("---\nbase_model: me/two\n---\n")
    assert preflight(str(path)).adapters[0].problems == (
        "Its card names the base me/two, its file me/one.",
    )
    (tmp_path / "README.md").write_text("---\nbase_model: [me/one, me/two]\n---\n")
    assert preflight(str(path)).adapters[0].problems == ("Its card names 2 bases: me/one, me/two.",)


def test_adapters_of_different_bases_conflict(adapters: Path, tmp_path: Path) -> None:
    found = preflight(str(adapters / "epsilon"), str(adapters / "wide"))
    (conflict,) = found.conflicts
    assert conflict.startswith("They have different bases (")
    assert conflict.endswith("bases/wide): choose one with --base.")
    one = real_width(tmp_path / "a.safetensors", 768)
    two = real_width(tmp_path / "b.safetensors", 2048)
    called = [conflict.split(" (")[0] for conflict in preflight(str(one), str(two)).conflicts]
    assert called == ["They have different architectures", "They have different families"]
    assert not preflight(str(adapters / "epsilon"), str(adapters / "kohya.safetensors")).conflicts


def test_an_adapter_costs_three_requests_and_a_hundredth_of_its_bytes(
    repo_id: str, hub_data: Path, through: Callable[..., Proxy], tmp_path: Path
) -> None:
    tensors = {}
    for index in range(200):
        stem = f"base_model.model.down_blocks.{index}.attn1.to_q"
        tensors[f"{stem}.lora_A.weight"] = torch.ones(8, 8_000)
        tensors[f"{stem}.lora_B.weight"] = torch.ones(8_000, 8)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    settings = {"peft_type": "LORA", "lora_alpha": 4, "r": 8}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    import_folder(hub_data, repo_id, tmp_path)
    proxy = through()
    (one,) = preflight(repo_id).adapters
    assert (one.facts.ranks, one.facts.alphas, one.facts.size) == ((8,), (4.0,), size)
    assert len(proxy.requests) <= 3, proxy.requests
    assert proxy.sent <= size / 100


def test_a_base_costs_its_headers(
    adapters: Path, through: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    proxy = through()
    (one,) = preflight(str(adapters / "xl"), base="bases/xl").adapters
    assert one.fit is not None
    assert one.fit.fraction == 1.0
    assert not list(tmp_path.rglob("*.safetensors"))
    weights = [request for request in proxy.requests if "safetensors" in request]
    assert len(weights) == 2, proxy.requests  # the U-Net's and the text encoder's


def test_inspecting_loads_no_torch(adapters: Path) -> None:
    code = (
        "import sys; from hublora.workflows.inspect import preflight; "
        f"preflight({str(adapters / 'xl')!r}, base='bases/xl'); "
        "print(*(name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_the_command_tells_a_person_and_a_program_the_same(
    hublora_cli: Cli, adapters: Path
) -> None:
    args = ["inspect", str(adapters / "epsilon"), str(adapters / "wide"), "--base=bases/epsilon"]
    done = hublora_cli(*args)
    assert done.status == 0, done.err
    for line in (
        "base           bases/wide",
        "kind           lora",
        "rank           3",
        "alpha          2",
        "licence        unknown",
        "layout         diffusers",
        "- It was trained on bases/wide, not on bases/epsilon.",
        "- They have different bases (",
    ):
        assert f"  {line}" in done.out
    said = json.loads(hublora_cli(*args, "--json").out)
    first, second = said["adapters"]
    assert (
        f"{first['fit']['matched']} of {first['fit']['layers']} layers of bases/epsilon" in done.out
    )
    assert (first["fit"]["fraction"], first["problems"]) == (1.0, [])
    assert second["fit"]["fraction"] < 0.5
    assert len(second["fit"]["wrong_shape"]) + second["fit"]["matched"] == second["fit"]["layers"]
    assert said["base"]["name"] == "bases/epsilon"
    assert said["base"]["license"] == "apache-2.0"
    assert len(said["conflicts"]) == 1
    assert first["architecture"] is None
    assert first["methods"] == ["lora"]


def test_a_base_that_does_not_fit_is_not_downloaded(
    adapters: Path, through: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    import hublora
    from hublora.errors import AdapterError

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    proxy = through()
    with pytest.raises(AdapterError, match=r"does not fit bases/epsilon: .* have another shape"):
        hublora.load(str(adapters / "wide"), base="bases/epsilon")
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("model_index.json"))
    assert len(proxy.requests) <= 6, proxy.requests


def test_a_hub_that_sends_everything_is_not_listened_to_for_long(
    adapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some proxies do not know ranges, and answer with gigabytes."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    from huggingface_hub import constants

    from hublora.hub.download import range_reader

    sent = [0]

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while sent[0] < 1 << 30:
                    sent[0] += self.wfile.write(bytes(range(256)) * 256)
            except OSError:
                pass

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    try:
        read = range_reader("me/x", "0" * 40, "a.safetensors")
        assert read(3, 4) == bytes([3, 4, 5, 6])
        assert read(200_000, 3) == bytes([64, 65, 66])
    finally:
        server.shutdown()
        server.server_close()
    assert sent[0] < 100 << 20
