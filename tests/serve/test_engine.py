"""An image does not depend on who is in its batch, and is the one that `hublora run` makes."""

from __future__ import annotations

import io
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hublora
from hublora.errors import ConfigError, NotFoundError
from hublora.generation.metadata import read_image
from hublora.serve.engine import Engine
from hublora.serve.errors import Cancelled, Overloaded
from hublora.serve.requests import GenerationRequest, Ticket, parse_model
from hublora.serve.settings import EngineSettings
from tests.serve.meeting import aside, meet


def request(model: str, prompt: str = "a hill", **sampling: Any) -> GenerationRequest:
    compose = sampling.pop("compose", None)
    refs = parse_model(model, bases=(), allow_urls=False)
    return GenerationRequest(prompt, refs, {"num_inference_steps": 3, **sampling}, compose)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


@pytest.fixture(scope="module")
def mixed(adapters: dict[str, str]) -> list[GenerationRequest]:
    """Requests with other adapters, weights, prompts, seeds, steps and schedulers each."""
    names = list(adapters.values())
    found = [request(name, f"hill {n}", seed=n) for n, name in enumerate(names)]
    found += [
        request("", "no adapter", seed=7),
        request(f"{names[0]}:0.4|{names[4]}:-0.5", seed=8, guidance_scale=3.5),
        request(f"{names[0]}|{names[1]}", seed=9, compose="switch", num_inference_steps=5),
        request(f"{names[0]}|{names[3]}", seed=10, compose="composite"),
        request(names[2], seed=11, scheduler="Euler a"),
        request(names[1], seed=12, guidance_scale=1.0),
        request(names[0], seed=13, scheduler="DPM++ 2M Karras", num_inference_steps=4),
    ]
    return found


def test_an_image_has_the_same_bits_whoever_is_in_its_batch(
    engine: Engine, mixed: list[GenerationRequest]
) -> None:
    alone = [engine.submit(one).result().png for one in mixed]
    assert len(set(alone)) == len(mixed)
    for seed in range(3):
        order = random.Random(seed).sample(range(len(mixed)), engine.settings.most_requests)
        found = meet(engine, [mixed[index] for index in order])
        assert [one.png for one in found] == [alone[index] for index in order]
    assert max(engine.batch_sizes) > 2


def test_it_is_the_image_that_run_makes(
    engine: Engine, adapters: dict[str, str], tmp_path: Path
) -> None:
    names = list(adapters.values())
    for index, refs in enumerate(zip(names[2:], names[:3], strict=True)):
        compose = ("sum", "switch", "composite")[index]
        (path,) = hublora.run(
            refs,
            "a hill",
            output=tmp_path / f"{index}.png",
            seed=index,
            steps=3,
            device="cpu",
            compose=compose,
        )
        found = engine.submit(request("|".join(refs), seed=index, compose=compose)).result()
        assert np.abs(pixels(found.png) - pixels(path.read_bytes())).max() <= 1
        (tmp_path / "served.png").write_bytes(found.png)
        facts, expected = read_image(tmp_path / "served.png"), read_image(path)
        assert facts == expected == found.facts


def test_a_served_image_is_replayed(
    engine: Engine, adapters: dict[str, str], tmp_path: Path
) -> None:
    png = engine.submit(request(adapters["texts"], seed=3)).result().png
    (tmp_path / "served.png").write_bytes(png)
    again = hublora.replay(tmp_path / "served.png", output=tmp_path / "again.png")
    assert np.abs(pixels(png) - pixels((tmp_path / "again.png").read_bytes())).max() <= 1
    assert again is not None


def test_a_request_joins_others_that_have_begun(engine: Engine, adapters: dict[str, str]) -> None:
    late = request(adapters["wide"], seed=1, num_inference_steps=9)
    early = request(adapters["texts"])
    alone = [engine.submit(one).result().png for one in (early, late)]
    begun, joined, sizes = threading.Event(), threading.Event(), dict(engine.batch_sizes)

    def wait(done: int, total: int) -> None:
        if done == 1:
            begun.set()
            with aside(engine):
                assert joined.wait(60)

    first = engine.submit(early, Ticket(wait))
    assert begun.wait(60)
    second = engine.submit(late, Ticket(lambda done, total: joined.set()))
    assert [first.result().png, second.result().png] == alone
    assert engine.batch_sizes[2] > sizes.get(2, 0)


def test_a_request_that_fails_or_is_cancelled_leaves_the_others_alone(
    engine: Engine, adapters: dict[str, str]
) -> None:
    good = request(adapters["attention"], seed=2, num_inference_steps=20)
    alone = engine.submit(good).result().png
    ticket = Ticket(lambda done, total: ticket.cancel() if done == 2 else None)
    cancelled = engine.submit(request(adapters["wide"], num_inference_steps=30), ticket)
    absent = engine.submit(request("served/absent"))
    odd = engine.submit(request(adapters["dora"], width=60, height=64))
    assert engine.submit(good).result().png == alone
    with pytest.raises(Cancelled):
        cancelled.result()
    with pytest.raises(NotFoundError):
        absent.result()
    with pytest.raises(ConfigError, match="not a multiple"):
        odd.result()


def test_more_requests_than_may_wait_are_refused(hub: object, adapters: dict[str, str]) -> None:
    small = Engine("bases/epsilon", EngineSettings(device="cpu", most_requests=1, most_waiting=1))
    try:
        held = threading.Event()
        running = small.submit(request(""), Ticket(lambda *_: held.wait(60) and None))
        waiting = small.submit(request(adapters["attention"]))
        with pytest.raises(Overloaded):
            small.submit(request(""))
        held.set()
        running.result()
        waiting.result()
        small.submit(request("")).result()
    finally:
        small.close()


def test_adapters_beyond_the_limit_are_discarded_when_nobody_uses_them(
    hub: object, adapters: dict[str, str]
) -> None:
    small = Engine("bases/epsilon", EngineSettings(device="cpu", cache_bytes=0))
    try:
        with ThreadPoolExecutor(3) as pool:
            names = list(adapters.values()) * 2
            list(pool.map(lambda name: small.submit(request(name)).result(), names))
        assert small.adapters.cache.names == []
    finally:
        small.close()


def test_an_adapter_of_few_steps_brings_them_to_its_own_request_alone(
    engine: Engine, adapters: dict[str, str], hub_data: Path, tmp_path: Path
) -> None:
    from hublora.localhub import import_folder
    from tests.lora import random_adapter, save_adapter

    adapter = random_adapter(engine.pipeline, rank=2, seed=6)
    save_adapter(
        adapter,
        tmp_path,
        "bases/epsilon",
        **{"hublora.speed": '{"num_inference_steps": 2, "guidance_scale": 2}'},
    )
    import_folder(hub_data, "served/quick", tmp_path)
    quick = GenerationRequest("a hill", parse_model("served/quick", bases=(), allow_urls=False))
    other = request(adapters["dora"], seed=3)
    alone = [engine.submit(one).result() for one in (quick, other)]
    assert alone[0].facts["sampling"]["num_inference_steps"] == 2
    found = meet(engine, [quick, other, quick, other])
    assert [one.png for one in found] == [one.png for one in (*alone, *alone)]
