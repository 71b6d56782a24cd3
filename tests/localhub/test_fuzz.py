"""Every route, asked by anybody for anything: refused or answered, never a failure of the server.

`HUBLORA_FUZZ=20000 pytest -n 0 tests/localhub/test_fuzz.py` looks longer.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hublora.localhub import LocalHub, add_user, create_token
from hublora.localhub.routes import ROUTES
from hublora.localhub.routing import Route
from hublora.localhub.store import Store

EXAMPLES = int(os.environ.get("HUBLORA_FUZZ", "600"))


def words(text: str) -> st.SearchStrategy[str]:
    """Return a choice of the words of a text."""
    return st.sampled_from(text.split())


ODD = (
    words("0 -1 999999999999999999999999 1e9 null true é ../.. % %2e [ {} ' \\\\ : main~1 *")
    | words("refs/heads/main HEAD")
    | st.sampled_from(["", " ", "\n", "\x00", "\u202e", "a" * 300])
)
KNOWN = words("main me eve studio lora model dataset open closed manual a.txt read write v1 all")
WORDS = ODD | st.text(max_size=12) | KNOWN
REPOS = words("me/open me/open eve/own me/vault me/gated me/none me/a--b x")
REVISIONS = words("main main refs/pr/1 refs/pr/9 v1 none main..v1") | st.just("0" * 40)
PATHS = words("a.txt README.md w.safetensors d d/b.txt none/x") | st.just("")
NUMBERS = words("0 1 2 3 999999999 x -1 111111111111111111111111111111")
PARAMETERS = words(
    """
    limit cursor sort direction search filter author full cardData expand gated recursive create_pr
    diff p type status item owner blobs service next download formatted proof include_prs q
    pipeline_tag tags models datasets num_parameters apps inference
    """
)
KEYS = words(
    """
    name type organization visibility private sdk gated title description comment content status
    files path size sample gitIgnore startingPoint tag message operation objects oid transfers
    deletions sha rewriteHistory parts fromRepo toRepo repository user requestId namespace item id
    note position theme repoType pullRequest paths expand url watched domains secret liked visible
    summary parentCommit encoding key value license_name disabled
    """
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS
    | REPOS
    | REVISIONS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=6)
OPERATIONS = words("header file lfsFile deletedFile deletedFolder x")
LINES = st.lists(
    st.fixed_dictionaries(
        {
            "key": OPERATIONS,
            "value": OBJECTS
            | st.fixed_dictionaries({"summary": WORDS})
            | st.fixed_dictionaries({"path": PATHS | WORDS, "content": WORDS, "oid": WORDS}),
        }
    ),
    max_size=4,
)
FILES = st.fixed_dictionaries({"path": PATHS | WORDS, "size": VALUES, "sample": WORDS})
BODIES = {  # what a route expects, some of it
    "discussions": {"title": WORDS, "description": WORDS, "pullRequest": st.booleans()},
    "comment": {"comment": WORDS},
    "status": {"status": st.sampled_from(["open", "closed", "x"]), "comment": WORDS},
    "edit": {"content": WORDS},
    "title": {"title": WORDS},
    "collections": {"title": WORDS, "namespace": WORDS, "private": st.booleans()},
    "items": {"item": st.fixed_dictionaries({"type": WORDS, "id": REPOS}), "note": WORDS},
    "preupload": {
        "files": st.lists(
            st.fixed_dictionaries({"path": PATHS | WORDS, "size": VALUES}), max_size=3
        ),
        "gitIgnore": WORDS,
    },
    "batch": {
        "operation": st.sampled_from(["upload", "download"]),
        "objects": st.lists(st.fixed_dictionaries({"oid": WORDS, "size": VALUES}), max_size=2),
        "transfers": VALUES,
    },
    "create": {"name": WORDS | REPOS, "type": WORDS, "sdk": WORDS, "private": st.booleans()},
    "move": {"fromRepo": REPOS, "toRepo": WORDS | REPOS, "type": WORDS},
    "duplicate": {"repository": REPOS},
    "validate-yaml": {"content": WORDS.map(lambda text: f"---\n{text}\n---\n"), "repoType": WORDS},
    "webhooks": {"url": WORDS, "watched": VALUES, "domains": VALUES, "secret": VALUES},
}
HEADERS = st.dictionaries(
    words("accept range if-range if-none-match content-type x-request-id content-encoding"),
    words('text/html application/json bytes=0-1 bytes=-5 bytes=9-1 * gzip "a" x-www-form'),
    max_size=2,
)


def quoted(text: str) -> str:
    """Return a text as it goes into an address, halves of surrogate pairs as their three bytes."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@st.composite
def addresses(draw: st.DrawFn, route: Route) -> str:
    """Return an address that a route answers to."""
    pools: dict[str, Any] = {
        "kind": st.sampled_from(["models", "models", "datasets", "spaces"]),
        "prefix": st.sampled_from(["", "", "datasets/", "spaces/"]),
        "repo": REPOS,
        "event": WORDS.map(quoted),
        "rev": (REVISIONS | WORDS).map(quoted),
        "path": (PATHS | WORDS).map(lambda path: "/".join(map(quoted, path.split("/")))),
        "number": NUMBERS | WORDS.map(quoted),
        "size": NUMBERS,
        "name": (WORDS | st.sampled_from(["me", "studio", "v1", "hub.css"])).map(quoted),
    }
    pieces = re.split(r"\{(\w+)\}", route.template)
    for place in range(1, len(pieces), 2):
        pieces[place] = draw(pools.get(pieces[place], WORDS.map(quoted)))
    pairs = draw(st.lists(st.tuples(PARAMETERS, WORDS | REPOS), max_size=3))
    asked = urlencode([(k, v.encode("utf-8", "surrogatepass")) for k, v in pairs])
    return "".join(pieces) + (f"?{asked}" if asked else "")


@dataclass
class Asked:
    """One request."""

    method: str
    address: str
    who: str
    headers: dict[str, str]
    body: bytes = field(default=b"", repr=True)


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    """Return a request for one of the routes."""
    route = draw(st.sampled_from(ROUTES))
    method = draw(st.sampled_from(route.methods.split()))
    address = draw(addresses(route))
    who = draw(st.sampled_from(["nobody", "me", "me", "eve", "reader", "wrong"]))
    headers, body = draw(HEADERS), b""
    if method != "GET":
        shape = draw(st.sampled_from(["json", "lines", "form", "bytes"]))
        if shape == "json":
            last = [part for part in route.template.split("/") if part in BODIES][-1:]
            meant = st.fixed_dictionaries({}, optional=BODIES[last[0]]) if last else OBJECTS
            body = json.dumps(draw(meant | OBJECTS | VALUES)).encode()
        elif shape == "lines":
            body = b"".join(json.dumps(line).encode() + b"\n" for line in draw(LINES))
        elif shape == "form":
            pairs = draw(st.lists(st.tuples(KEYS, WORDS), max_size=4))
            body = urlencode([(k, v.encode("utf-8", "surrogatepass")) for k, v in pairs]).encode()
        else:
            body = draw(st.binary(max_size=60))
    return Asked(method, address, who, headers, body)


@dataclass
class Server:
    """The Hub that is asked."""

    url: str
    log: Path
    tokens: dict[str, str]

    def ask(self, asked: Asked) -> tuple[int, bytes]:
        """Return status and body of the answer."""
        headers = dict(asked.headers)
        if token := self.tokens.get(asked.who):
            headers["authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request(asked.method, asked.address, asked.body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Hub with some of everything."""
    folder = tmp_path_factory.mktemp("fuzz")
    data = folder / "data"
    with LocalHub.start(data, log_file=folder / "log") as hub:
        add_user(data, "eve")
        store = Store(data)
        store.people.add("studio", "org")
        store.people.set_member("studio", "me", "admin")
        api, eve = (
            HfApi(endpoint=hub.url, token=token) for token in (hub.token, create_token(data, "eve"))
        )
        for who, name in ((api, "open"), (api, "vault"), (api, "gated"), (eve, "own")):
            made = who.create_repo(name, private=name == "vault").repo_id
            header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
            files = {
                "a.txt": b"a\nb\n",
                "d/b.txt": b"b",
                "README.md": b"---\ntags: [x]\n---\n# Hi\n",
                "w.safetensors": len(header).to_bytes(8, "little") + header + bytes(4),
            }
            operations = [CommitOperationAdd(path, content) for path, content in files.items()]
            who.create_commit(made, operations, commit_message="fill")
            who.create_tag(made, tag="v1")
            proposed = [CommitOperationAdd("c.txt", b"c")]
            who.create_commit(made, proposed, commit_message="propose", create_pr=True)
            who.create_discussion(made, "talk", description="**words**")
        api.update_repo_settings("me/gated", gated="manual")
        collection = api.create_collection("all of it")
        api.add_collection_item(collection.slug, "me/open", "model")
        tokens = {
            "me": hub.token,
            "eve": str(eve.token),
            "reader": create_token(data, "me", "read"),
            "wrong": "hf_wrong",
        }
        yield Server(hub.url, folder / "log", tokens)


@given(asked=requests())
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_no_request_makes_the_server_fail(server: Server, asked: Asked):
    status, body = server.ask(asked)
    assert status < 500, (status, body[:300], server.log.read_text()[-2500:])
    assert b"Traceback" not in body


HALF = "\\ud800"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/models/me/open/discussions/2/comment", f'{{"comment": "{HALF}"}}'),
        ("POST", "/api/models/me/open/discussions", f'{{"title": "abc{HALF}"}}'),
        ("POST", "/api/collections", f'{{"title": "{HALF}"}}'),
        ("POST", "/api/repos/create", f'{{"name": "{HALF}"}}'),
        ("POST", "/api/models/me/open/tag/main", f'{{"tag": "x", "message": "{HALF}"}}'),
        ("POST", "/api/models/me/open/commit/main", f'{{"key": "header", "value": "{HALF}"}}'),
        ("POST", "/api/repos/create", '{"name": 1e999, "type": ' + "9" * 30 + "}"),
        ("GET", "/api/models?" + "search=a+a+a&" * 90, ""),
        ("GET", "/api/models?filter=" + ",".join(["a"] * 1500), ""),
        ("GET", "/api/models?" + "filter=a&" * 1500, ""),
        ("GET", "/models?search=" + "a+" * 1500, ""),
        ("GET", "/api/collections?" + "item=models/me/open&" * 1500, ""),
        ("GET", "/api/collections?" + "owner=a&" * 1500, ""),
        ("GET", "/api/models?" + "expand=sha&" * 1500, ""),
    ],
)
def test_what_was_a_failure_once_is_refused(server: Server, method: str, path: str, body: str):
    status, answer = server.ask(Asked(method, path, "me", {}, body.encode()))
    assert 400 <= status < 500, (status, answer[:300])
    status, answer = server.ask(
        Asked("GET", "/me/open/discussions/2", "me", {"accept": "text/html"})
    )
    assert status == 200, answer[:300]


def test_health_is_answered_while_strangers_ask_for_what_is_slow(server: Server):
    """Whatever the workers do, `/health` comes between, and the requests come to an end."""
    card = "---\n" + "a: 1:1:1:1\n" + "b: [" + "1," * 30_000 + "]\n---\n"
    slow = [
        Asked("POST", "/api/validate-yaml", "nobody", {}, json.dumps({"content": card}).encode()),
        Asked("GET", "/api/models?full=1&expand=siblings&expand=safetensors", "nobody", {}),
        Asked("POST", "/api/repos/create", "nobody", {}, b"[" * 1_000_000),
        Asked("GET", "/models?search=" + "+".join(["a"] * 30), "nobody", {}),
    ]
    answers: list[int] = []

    def keep_asking(asked: Asked) -> None:
        for _ in range(5):
            answers.append(server.ask(asked)[0])

    threads = [threading.Thread(target=keep_asking, args=(each,)) for each in slow * 10]
    for thread in threads:
        thread.start()
    asked_meanwhile = 0
    while any(thread.is_alive() for thread in threads):
        assert server.ask(Asked("GET", "/health", "nobody", {})) == (200, b'{"status":"ok"}')
        asked_meanwhile += 1
    assert asked_meanwhile > 3
    assert len(answers) == 5 * len(threads)
    assert max(answers) < 500
