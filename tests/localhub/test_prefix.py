"""A Hub below a path: a proxy takes `/hub` off, and every address that the Hub gives out has it."""

from __future__ import annotations

import asyncio
import html
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
import uvicorn

from hublora.localhub.app import Hub, Settings
from hublora.localhub.store import Store

PREFIX = "/a%20hub"
ADDRESS = re.compile(r'<[a-z][^>]*?\s(href|src|action)="([^"]*)"')
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55")
CARD = """---
tags: [lora]
base_model: me/base
widget: [{{text: a hill, output: {{url: images/0.png}}}}]
---
# Ink
![relative](images/0.png) ![absolute](/me/ink/resolve/main/images/0.png)
![full]({url}/me/ink/resolve/main/images/0.png) [another](/me/base) [image](images/0.png)

`<a href="/me/base">` is code.
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Hub behind a proxy that takes the prefix off and knows no other addresses."""
    store = Store(tmp_path_factory.mktemp("hub"))
    token = store.first_user("me")
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}{PREFIX}"
    app = Hub(store, Settings(public_url=url))
    server = uvicorn.Server(uvicorn.Config(_behind_a_proxy(app), lifespan="off", log_config=None))
    thread = Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    yield SimpleNamespace(url=url, token=token)
    server.should_exit = True
    thread.join(10)


def _behind_a_proxy(app: Hub) -> Callable[..., Any]:
    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        raw = scope["raw_path"].decode()
        if not raw.startswith(f"{PREFIX}/"):
            await send({"type": "http.response.start", "status": 502, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        path = scope["path"][len(PREFIX) - 2 :]  # "%20" is one character there
        rest = raw[len(PREFIX) :].encode()
        await app({**scope, "path": path, "raw_path": rest}, receive, send)

    return proxy


@pytest.fixture(scope="module")
def filled(hub: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same Hub with what pages can show, all of it brought by the real client."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.url, token=hub.token)
    folder = tmp_path_factory.mktemp("ink")
    (folder / "images").mkdir()
    (folder / "images" / "0.png").write_bytes(PNG)
    (folder / "README.md").write_text(CARD.format(url=hub.url))
    (folder / "w.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    for name in ("base", "ink"):
        api.create_repo(f"me/{name}")
    assert str(api.upload_folder(repo_id="me/ink", folder_path=folder)).startswith(hub.url)
    api.upload_folder(repo_id="me/ink", folder_path=folder / "images", path_in_repo="more")
    talk = api.create_discussion("me/ink", title="Nice", description="![](images/0.png)")
    api.create_pull_request("me/ink", title="Change")
    assert talk.url.startswith(hub.url)
    shelf = api.create_collection("Shelf")
    api.add_collection_item(shelf.slug, item_id="me/ink", item_type="model")
    return api


def test_the_client_finds_its_way(hub: Any, filled: Any, tmp_path: Path) -> None:
    paths = [one.path for one in filled.list_repo_tree("me/ink", recursive=True)]
    assert "more/0.png" in paths
    for name in ("w.safetensors", "images/0.png", "README.md"):
        copy = filled.hf_hub_download("me/ink", name, cache_dir=tmp_path)
        assert Path(copy).stat().st_size
    filled.move_repo("me/base", "me/moved")
    assert filled.model_info("me/base").id == "me/moved"  # by a redirect
    filled.move_repo("me/moved", "me/base")


def test_every_address_of_every_page_has_the_prefix_and_leads_somewhere(
    hub: Any, filled: Any
) -> None:
    start = f"{hub.url}/models"
    seen, waiting = {start}, [start]
    with httpx.Client(auth=("me", hub.token), follow_redirects=True) as browser:
        while waiting:
            place = waiting.pop()
            answer = browser.get(place, headers={"Accept": "text/html"})
            signed_out = urlsplit(place).path.endswith("/logout")
            assert answer.status_code == (401 if signed_out else 200), place
            if "text/html" not in answer.headers["content-type"]:
                continue
            here = str(answer.url)
            for kind, address in ADDRESS.findall(answer.text):
                target = urljoin(here, html.unescape(address)).partition("#")[0]
                if not target.startswith(urljoin(hub.url, "/")):
                    continue  # another site
                assert target.startswith(f"{hub.url}/"), (here, address)
                if kind != "action" and target not in seen and "/compare/" not in target:
                    seen.add(target)
                    waiting.append(target)
    assert len(seen) > 25
    assert f"{hub.url}/me/ink/resolve/main/images/0.png" in seen


def test_texts_stay_as_they_are(hub: Any, filled: Any) -> None:
    page = httpx.get(f"{hub.url}/me/ink").text
    assert '&lt;a href="/me/base"&gt;' in page.replace("&quot;", '"').replace("&#34;", '"')


def test_a_form_and_a_sign_in_lead_back_below_the_prefix(hub: Any, filled: Any) -> None:
    with httpx.Client(auth=("me", hub.token)) as browser:
        for place, answer in (
            ("/me/ink/like", browser.post(f"{hub.url}/me/ink/like", data={"liked": "yes"})),
            ("/login", browser.get(f"{hub.url}/login?next=/me/ink")),
        ):
            assert answer.status_code == 303, place
            assert answer.headers["location"] == f"{PREFIX}/me/ink"
