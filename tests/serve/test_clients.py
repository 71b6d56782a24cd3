"""Clients that exist, unmodified, against the server in a process of its own."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import hublora
from hublora.generation.metadata import read_image


@pytest.fixture(scope="module")
def served(
    hub: Any, adapters: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """URL and key of `hublora serve`, as its --env file states them."""
    folder = tmp_path_factory.mktemp("serve")
    command = [sys.executable, "-m", "hublora", "serve", "--base", "bases/epsilon"]
    command += ["--device", "cpu", "--port", "0", "--env", str(folder / "serve.env")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, cwd=folder)
    try:
        for _ in range(1800):
            if (folder / "serve.env").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert (folder / "serve.env").exists(), (folder / "log").read_text()
        lines = (folder / "serve.env").read_text().split()
        facts = dict(line.split("=", 1) for line in lines if "=" in line)
        yield {**facts, "file": str(folder / "serve.env")}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (folder / "log").read_text()


@pytest.fixture(scope="module")
def openai_client(served: dict[str, str]) -> Any:
    import openai

    url = f"{served['HUBLORA_SERVE_URL']}/v1"
    return openai.OpenAI(base_url=url, api_key=served["HUBLORA_SERVE_KEY"], max_retries=0)


def difference(one: Path, other: Path) -> int:
    from PIL import Image

    first, second = (np.asarray(Image.open(path), dtype=int) for path in (one, other))
    return int(np.abs(first - second).max())


def test_openai_generates_with_a_composition_as_its_model(
    openai_client: Any, adapters: dict[str, str], tmp_path: Path
) -> None:
    refs = [f"{adapters['attention']}:0.7", f"{adapters['texts']}:0.5"]
    answer = openai_client.images.generate(
        model="|".join(refs),
        prompt="a hill",
        n=2,
        size="64x64",
        response_format="b64_json",
        extra_body={"seed": 4, "num_inference_steps": 3},
    )
    assert [one.seed for one in answer.data] == [4, 5]
    expected = hublora.run(
        refs, "a hill", output=tmp_path, seed=4, num_images=2, steps=3, width=64, height=64,
        device="cpu",
    )  # fmt: skip
    for one, path in zip(answer.data, expected, strict=True):
        (tmp_path / "served.png").write_bytes(base64.b64decode(one.b64_json))
        assert difference(tmp_path / "served.png", path) <= 1
        assert read_image(tmp_path / "served.png") == read_image(path)


def test_openai_is_told_in_its_own_form_what_is_wrong(
    openai_client: Any, served: dict[str, str], adapters: dict[str, str]
) -> None:
    import openai

    def generate(**arguments: Any) -> Any:
        return openai_client.images.generate(**{"prompt": "a hill", "model": "", **arguments})

    with pytest.raises(openai.NotFoundError, match="served/absent"):
        generate(model="served/absent")
    for arguments, message in (
        ({"model": "not a ref"}, "not a ref"),
        ({"model": "/etc/hosts"}, "not a repo"),
        ({"model": "https://example.com/x.safetensors"}, "Hub only"),
        ({"size": "12"}, "1024x1024"),
        ({"size": "9999x9999"}, "pixels"),
        ({"n": 11}, "images"),
        ({"extra_body": {"num_inference_steps": 1000}}, "steps"),
        ({"extra_body": {"scheduler": "Nothing"}}, "does not fit"),
        ({"extra_body": {"seed": 2**64}}, "Seeds"),
        ({"size": "0x64"}, "1 pixel"),
        ({"model": "|".join([adapters["dora"]] * 17)}, "too many"),
    ):
        with pytest.raises(openai.BadRequestError, match=message):
            generate(**arguments)
    with pytest.raises(openai.UnprocessableEntityError, match="guidance"):
        generate(extra_body={"guidance": 3})
    stranger = openai.OpenAI(base_url=f"{served['HUBLORA_SERVE_URL']}/v1", api_key="wrong")
    with pytest.raises(openai.AuthenticationError, match="key"):
        stranger.models.list()


def test_openai_lists_the_base_and_the_adapters_in_memory(
    openai_client: Any, adapters: dict[str, str]
) -> None:
    model = f"{adapters['dora']}:0.7"
    openai_client.images.generate(
        model=model, prompt="a hill", extra_body={"num_inference_steps": 1}
    )
    names = [one.id for one in openai_client.models.list()]
    assert names[0] == "bases/epsilon"
    assert adapters["dora"] in names
    assert openai_client.models.retrieve(model).id == model


def test_the_hubs_own_client_generates(
    served: dict[str, str], adapters: dict[str, str], tmp_path: Path
) -> None:
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError

    url, key = served["HUBLORA_SERVE_URL"], served["HUBLORA_SERVE_KEY"]
    ref = f"{adapters['convolutions']}:0.7"
    client = InferenceClient(model=f"{url}/models/{ref}", token=key)
    image = client.text_to_image("a hill", num_inference_steps=3, seed=6, negative_prompt="fog")
    (path,) = hublora.run(
        ref, "a hill", output=tmp_path / "x.png", seed=6, steps=3, negative_prompt="fog",
        device="cpu",
    )  # fmt: skip
    image.save(tmp_path / "served.png")
    assert difference(tmp_path / "served.png", path) <= 1
    alone = InferenceClient(base_url=url, token=key).text_to_image("a hill", num_inference_steps=1)
    assert alone.size == (64, 64)
    with pytest.raises(HfHubHTTPError, match="multiple"):
        client.text_to_image("a hill", width=63)


def test_programs_that_speak_automatic1111_generate(
    served: dict[str, str], adapters: dict[str, str], tmp_path: Path
) -> None:
    import webuiapi

    url = f"{served['HUBLORA_SERVE_URL']}/sdapi/v1"
    client = webuiapi.WebUIApi(baseurl=url, username="any", password=served["HUBLORA_SERVE_KEY"])
    wanted = {"seed": 5, "steps": 3, "cfg_scale": 2.0, "width": 64, "height": 64}
    tag = f"<lora:{adapters['texts']}:te=0.3:unet=0.8>"
    answer = client.txt2img(
        prompt=f"a hill {tag}", sampler_name="Euler", scheduler="karras", batch_size=2, **wanted
    )
    assert answer.info["all_seeds"] == [5, 6]
    paths = hublora.run(
        adapters["texts"], "a hill", output=tmp_path, num_images=2, seed=5, steps=3, width=64,
        height=64, guidance_scale=2.0, scheduler="Euler Karras", device="cpu",
        weights={"1": "0.8,text:0.3"},
    )  # fmt: skip
    for image, path, text in zip(answer.images, paths, answer.info["infotexts"], strict=True):
        image.save(tmp_path / "served.png")
        assert difference(tmp_path / "served.png", path) <= 1
        assert "Sampler: Euler, Schedule type: Karras" in text
    short = client.txt2img(prompt="a hill <lora:texts:0.3:0.8>", sampler_name="Euler", **wanted)
    assert short.info["seed"] == 5
    assert adapters["texts"] in [one["name"] for one in client.get_loras()]
    for arguments, message in (
        ({"prompt": "a hill <lora:unknown:1>"}, "unknown"),
        ({"prompt": "a hill <lora:a/b|c/d:1>"}, "not one adapter"),
        ({"prompt": "a hill <lora:bases/epsilon:1>"}, "not one adapter"),
        ({"enable_hr": True}, "enable_hr"),
        ({"sampler_name": "Euler", "scheduler": "exponential"}, "exponential"),
    ):
        with pytest.raises(RuntimeError, match=message):
            client.txt2img(**{"prompt": "a hill", "sampler_name": "Euler", **arguments})


def test_it_answers_who_watches_it_and_refuses_other_sites(served: dict[str, str]) -> None:
    url, key = served["HUBLORA_SERVE_URL"], served["HUBLORA_SERVE_KEY"]
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{url}/ready").json() == {"base": "bases/epsilon"}
    headers = {"Authorization": f"Bearer {key}", "Origin": "https://evil.example"}
    refused = httpx.post(f"{url}/models/x/y", headers=headers, json={"inputs": "a hill"})
    assert refused.status_code == 403
    assert "openapi" in httpx.get(f"{url}/openapi.json", headers=headers).json()
    assert httpx.get(f"{url}/v1/models").status_code == 401
    wrong = {"Authorization": f"Digest {key}"}
    assert httpx.get(f"{url}/v1/models", headers=wrong).status_code == 401
    own = {"Authorization": f"Bearer {key}"}
    large = {"inputs": "a" * (2 << 20)}
    assert httpx.post(f"{url}/", headers=own, json=large).status_code in (400, 413)
    assert oct(os.stat(served["file"]).st_mode)[-3:] == "600"


def test_a_host_that_others_reach_wants_a_key(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hublora", "serve", "--base", "bases/epsilon"]
    command += ["--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "HUBLORA_SERVE_KEY" in done.stderr


def test_what_the_docs_show_runs(
    served: dict[str, str],
    adapters: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    snippets = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(snippets) == 2
    monkeypatch.chdir(tmp_path)
    for name in ("HUBLORA_SERVE_URL", "HUBLORA_SERVE_KEY"):
        monkeypatch.setenv(name, served[name])
    for snippet in snippets:
        exec(snippet.replace("hublora/tiny-stripes-lora", adapters["attention"]), {})
        assert (tmp_path / "fish.png").stat().st_size
        (tmp_path / "fish.png").unlink()
