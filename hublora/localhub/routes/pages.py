"""Pages for a browser: server-rendered, no script, nothing from elsewhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from hublora import rendering
from hublora.strict_yaml import split_front_matter

from .. import gallery, markdown
from ..call import Call
from ..facts import View
from ..problems import Refusal
from ..routing import Route
from ..store import cards
from ..store.access import Right
from ..store.repos import Repo
from ..store.search import search
from .lists import read_query

PAGE_SIZE = 30
_METADATA_BYTES = 1 << 20
_LOCK = "hublora.lock.json"  # names the adapters of a composition, which holds no weights
_POLICY = (
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def page(call: Call, template: str, status: int = 200, **facts: Any) -> Response:
    """Render a page of `templates/hub/`."""
    text = rendering.render(
        f"hub/{template}.html.jinja",
        viewer=call.caller.name,
        origin=call.origin,
        here=call.request.scope["raw_path"].decode("latin-1"),
        url=markdown.quoted,
        **facts,
    )
    return Response(text, status, _HEADERS, media_type="text/html; charset=utf-8")


def speaks(call: Call, repo: Repo) -> bool:
    """Tell whether a page offers its reader to say something about a repo."""
    return call.may_take_part(repo) and not call.settings.read_only


def writes(call: Call, repo: Repo) -> bool:
    """Tell whether a page offers its reader to change a repo."""
    may = call.store.right(repo, call.caller) >= Right.WRITE
    return may and not call.settings.read_only


def home(call: Call) -> Response:
    """GET /: the list of models."""
    return RedirectResponse("/models", 307)


def login(call: Call) -> Response:
    """GET /login: makes the browser ask for a token (as password), then goes back."""
    if not call.caller.known:
        raise Refusal(
            401,
            "Sign in with any user name and a token as the password.",
            {"WWW-Authenticate": 'Basic realm="hublora", charset="UTF-8"'},
        )
    back = call.query("next", "/")
    # A path of this server only: `//host` and `/\host` would lead elsewhere.
    local = back.startswith("/") and not back.startswith(("//", "/\\"))
    return RedirectResponse(back if local else "/", 303)


_STATIC = {"hub.css": "text/css", "icon.svg": "image/svg+xml"}


def static(call: Call) -> Response:
    """GET /_static/{name}: the stylesheet and the icon."""
    name = call.pieces["name"]
    if name not in _STATIC:
        raise Refusal(404, "This Hub has nothing at this address.")
    content = (Path(rendering.template_folder()) / "hub" / name).read_bytes()
    return Response(content, media_type=_STATIC[name], headers={"Cache-Control": "max-age=300"})


def list_page(call: Call) -> Response:
    """GET /models, /datasets, /spaces: what there is, with search and tags."""
    found, cursor = search(
        call.store.database,
        call.store.repos,
        read_query(call, PAGE_SIZE, in_text=True),
        call.caller,
    )
    pairs = [p for p in call.request.query_params.multi_items() if p[0] != "cursor"]
    following = f"?{urlencode([*pairs, ('cursor', cursor)])}" if cursor else None
    return page(
        call,
        "list",
        kind=call.kind,
        repos=[{"repo": repo, "cover": cover(repo), "note": None} for repo in found],
        author=call.query("author"),
        search=" ".join(call.queries("search")),
        tags=call.queries("filter"),
        following=following,
    )


def owner_page(call: Call) -> Response:
    """GET /{owner}: what somebody has."""
    owner = call.store.people.find(call.pieces["name"])["name"]
    return RedirectResponse(f"/models?author={owner}", 303)


def cover(repo: Repo) -> str | None:
    """Return the address of the first still picture of a repo's gallery."""
    for picture in gallery.pictures(repo.card, repo.name):
        if not picture.moves and not repo.gated:
            return f"/{repo.path}/resolve/{repo.head}/{markdown.quoted(picture.path)}"
    return None


def repo_page(call: Call) -> Response:
    """GET /{repo}: the card, its gallery, and how to use it."""
    repo = call.repo(Right.KNOW)
    view = View(call.store, repo)
    right = call.store.right(repo, call.caller)
    readme = view.git.read_file(view.sha, "README.md", cards.MAX_README_BYTES) or b""
    _, body = split_front_matter(readme.decode("utf-8", "replace"))
    shown = _shown(repo, view) if right >= Right.READ else []
    pictures = rendering.render(
        "hub/gallery.html.jinja", pictures=shown, file=partial(file_address, repo, view.sha)
    )
    has_place = markdown.has_gallery(body)
    text = markdown.render_within_limits(
        body,
        file=partial(file_address, repo, view.sha),
        page=partial(page_address, repo, "main"),
        gallery=pictures,
    )
    return page(
        call,
        "repo",
        repo=repo,
        tab="card",
        card=view.card,
        body=text,
        gallery="" if has_place or not shown else pictures,
        prompt=shown[0].prompt if shown else "",
        bases=cards.adapter_of(view.card),
        **_usage(view),
        sha=view.sha,
        right=int(right),
        speaks=speaks(call, repo),
        likes_it=call.store.repos.likes(repo, call.caller.user_id),
        waiting=call.store.gates.requests(repo, "pending") if right >= Right.OWN else [],
        consent=call.store.gates.consent(repo, call.caller).status,
    )


def _usage(view: View) -> dict[str, Any]:
    """Return whether `hublora run` draws with a repo, and the file that diffusers loads alone.

    Not alone are learned words, which want code of their own, on the card.
    """
    words = "textual_inversion" in view.tags
    words |= any(path.startswith("embeddings/") for path in view.paths)
    composed = _LOCK in view.paths
    weights = [path for path in view.paths if "/" not in path and path.endswith(".safetensors")]
    alone = weights[0] if weights and not (words or composed) else None
    return {"runs": words or composed or "lora" in view.tags, "weights": alone}


def _shown(repo: Repo, view: View) -> list[gallery.Picture]:
    """Return the pictures of the card, or the first ones of a dataset whose card has none."""
    shown = gallery.pictures(view.card, repo.name)
    if shown or repo.kind != "dataset":
        return shown
    metadata = view.git.read_file(view.sha, "metadata.jsonl", _METADATA_BYTES)
    return gallery.first_pictures(view.paths, metadata or b"")


def file_address(repo: Repo, sha: str, path: str) -> str:
    """Return where the content of a file is."""
    return f"/{repo.path}/resolve/{sha}/{markdown.quoted(path)}"


def page_address(repo: Repo, revision: str, path: str) -> str:
    """Return where the page about a file is."""
    return f"/{repo.path}/blob/{markdown.quoted(revision)}/{markdown.quoted(path)}"


ROUTES = [
    Route("GET", "/", home),
    Route("GET", "/login", login),
    Route("GET", "/_static/{name}", static),
    Route("GET", "/{kind}", list_page),
    Route("GET", "/{prefix}{repo}", repo_page),
    Route("GET", "/{name}", owner_page),
]
