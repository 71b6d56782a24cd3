"""Webhooks: looked after by the client, and what an address that they name is told."""

from __future__ import annotations

import http.server
import json
import queue
import threading
from collections.abc import Iterator

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from hublora.localhub.delivery import post
from hublora.localhub.store.webhooks import Webhook

SECRET = "a-secret"


class Receiver:
    """A server that keeps what it is sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls: queue.Queue[tuple[dict[str, str], dict]] = queue.Queue()

    def told(self) -> dict:
        """Return the next payload."""
        headers, payload = self.calls.get(timeout=20)
        assert headers["x-webhook-secret"] == SECRET
        return payload

    def scopes(self, count: int) -> set[tuple[str, str]]:
        """Return scope and action of the next `count` payloads."""
        events = [self.told()["event"] for _ in range(count)]
        return {(event["scope"], event["action"]) for event in events}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.calls.put((headers, json.loads(body)))
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(f"http://127.0.0.1:{server.server_port}/hook?x=1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def hook(api, receiver, repo) -> Iterator[str]:
    """A webhook that watches the repo; what happened to it before is not told."""
    made = api.create_webhook(
        url=receiver.url,
        watched=[{"type": "model", "name": repo}],
        domains=["repo", "discussion"],
        secret=SECRET,
    )
    yield made.id
    api.delete_webhook(made.id)


def test_a_webhook_is_made_changed_switched_and_forgotten(api, eve, reader):
    watched = [{"type": "user", "name": "julien-c"}, {"type": "org", "name": "guild"}]
    made = api.create_webhook(url="https://webhook.site/test", watched=watched, secret="s")
    assert (made.domains, made.secret, made.disabled) == (["repo", "discussion"], "s", False)
    changed = api.update_webhook(made.id, url="https://webhook.site/new", domains=["repo"])
    assert (changed.url, changed.domains) == ("https://webhook.site/new", ["repo"])
    assert [item.name for item in changed.watched] == ["julien-c", "guild"]
    assert api.disable_webhook(made.id).disabled
    assert not api.enable_webhook(made.id).disabled
    assert made.id in [each.id for each in api.list_webhooks()]
    assert made.id not in [each.id for each in eve.list_webhooks()]
    for stranger in (eve, reader):
        with pytest.raises(HfHubHTTPError):
            stranger.get_webhook(made.id)
        with pytest.raises(HfHubHTTPError):
            stranger.delete_webhook(made.id)
    api.delete_webhook(made.id)
    with pytest.raises(HfHubHTTPError):
        api.get_webhook(made.id)


@pytest.mark.parametrize(
    "wanted",
    [
        {"url": "ftp://x/y"},
        {"url": "http://user:word@x/"},
        {"url": "http://x/\r\nHost: y"},
        {"url": "https://"},
        {"watched": []},
        {"watched": [{"type": "bucket", "name": "x"}]},
        {"domains": ["everything"]},
        {"secret": "ü"},
    ],
)
def test_what_cannot_be_a_webhook_is_refused(api, wanted):
    good = {"url": "https://x/y", "watched": [{"type": "user", "name": "me"}]}
    with pytest.raises(BadRequestError, match="webhook"):
        api.create_webhook(**(good | wanted))
    assert api.list_webhooks() == []


def test_commits_branches_settings_and_names_are_told(api, hook, receiver, repo):
    before = api.model_info(repo).sha
    made = api.create_commit(repo, [CommitOperationAdd("x", b"x")], commit_message="x")
    told = receiver.told()
    assert told["event"] == {"action": "update", "scope": "repo.content"}
    assert told["updatedRefs"] == [{"ref": "refs/heads/main", "oldSha": before, "newSha": made.oid}]
    assert (told["repo"]["name"], told["repo"]["headSha"]) == (repo, made.oid)
    assert told["webhook"] == {"id": hook, "version": 3}
    api.create_branch(repo, branch="side")
    moved = receiver.told()["updatedRefs"]
    assert moved == [{"ref": "refs/heads/side", "oldSha": None, "newSha": made.oid}]
    api.update_repo_settings(repo, private=True)
    assert receiver.told()["updatedConfig"] == {"private": True}
    api.disable_webhook(hook)
    api.create_branch(repo, branch="unseen")
    api.enable_webhook(hook)
    api.delete_branch(repo, branch="side")
    assert [ref["ref"] for ref in receiver.told()["updatedRefs"]] == ["refs/heads/side"]
    api.delete_repo(repo)
    assert receiver.told()["event"] == {"action": "delete", "scope": "repo"}


def test_discussions_and_their_comments_are_told(api, eve, hook, receiver, repo):
    number = eve.create_discussion(repo, "A question", description="Why?").num
    told = receiver.told()
    assert told["event"] == {"action": "create", "scope": "discussion"}
    assert (told["discussion"]["num"], told["discussion"]["title"]) == (number, "A question")
    assert told["comment"]["content"] == "Why?"
    api.comment_discussion(repo, number, "Because")
    assert receiver.told()["comment"]["content"] == "Because"
    api.change_discussion_status(repo, number, "closed", comment="Done")
    assert receiver.scopes(2) == {("discussion.comment", "create"), ("discussion", "update")}
    eve.create_commit(repo, [CommitOperationAdd("x", b"x")], commit_message="Add x", create_pr=True)
    assert receiver.scopes(2) == {("discussion", "create"), ("repo.content", "update")}
    api.merge_pull_request(repo, number + 1)
    assert receiver.scopes(2) == {("discussion", "update"), ("repo.content", "update")}


def test_a_private_repo_is_told_only_to_who_may_read_it(api, eve, receiver, repo):
    api.update_repo_settings(repo, private=True)
    watched = [{"type": "user", "name": "me"}]
    hers = eve.create_webhook(url=receiver.url, watched=watched, secret=SECRET)
    mine = api.create_webhook(url=receiver.url, watched=watched, secret=SECRET)
    api.create_branch(repo, branch="first")
    assert receiver.told()["webhook"]["id"] == mine.id
    api.update_repo_settings(repo, private=False)
    told = {receiver.told()["webhook"]["id"] for _ in range(2)}
    assert told == {hers.id, mine.id}
    for client, webhook in ((eve, hers), (api, mine)):
        client.delete_webhook(webhook.id)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0.0.0.0", "[::ffff:127.0.0.1]"]
)
def test_a_shared_hub_asks_nothing_of_its_own_machine(receiver, host):
    url = receiver.url.replace("127.0.0.1", host)
    webhook = Webhook("0" * 24, 1, url, (), (), None, disabled=False)
    with pytest.raises(OSError, match="of this machine itself"):
        post(webhook, b"{}", anywhere=False)
    assert receiver.calls.empty()
