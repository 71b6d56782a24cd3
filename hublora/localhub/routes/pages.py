"""Pages for a browser: server-rendered, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import re
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from hublora import rendering
from hublora.strict_yaml import split_front_matter

from .. import gallery, markdown
from ..addresses import file_address, page_address
from ..call import Call
from ..facts import View
from ..problems import Refusal
from ..routing import Route
from ..store import cards
from ..store.access import Right
from ..store.repos import Repo
from ..store.search import search
from .lists import read_query, whole_number

PAGE_SIZE = 30
_METADATA_BYTES = 16 << 20
_LOCK = "hublora.lock.json"  # names the adapters of a composition, which holds no weights
_POLICY = (
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
# The addresses of a page that begin at this Hub's root; in texts, "<" is written "&lt;".
_TAG = re.compile(r"<[a-z][^>]*>")
_PLACE = re.compile(r'(?<=\s)(href|src|action)="/(?!/)')
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
    if call.prefix:
        text = _TAG.sub(lambda tag: _PLACE.sub(rf'\1="{call.prefix}/', tag[0]), text)
    headers = _HEADERS
    if "script" in facts:  # this one text and no other runs, whatever else gets into the page
        digest = base64.b64encode(sha256(facts["script"].encode()).digest()).decode()
        headers = headers | {"Content-Security-Policy": f"{_POLICY}; script-src 'sha256-{digest}'"}
    return Response(text, status, headers, media_type="text/html; charset=utf-8")


@cache
def copy_script() -> str:
    """Return the script that puts a copy button beside each command of a page."""
    return (Path(rendering.template_folder()) / "hub" / "copy.js").read_text("utf-8")


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


_ASK = {"WWW-Authenticate": 'Basic realm="hublora", charset="UTF-8"'}


def login(call: Call) -> Response:
    """GET /login: makes the browser ask for a token (as password), then goes back."""
    if not call.caller.known:
        return _with(page(call, "login", 401, back=_local(call.query("next", "/"))), _ASK)
    return RedirectResponse(_local(call.query("next", "/")), 303)


def logout(call: Call) -> Response:
    """GET /logout: refuses the token that the browser sent, which makes it forget it."""
    return _with(page(call, "logout", 401, signed_out=True), _ASK)


def _local(place: str) -> str:
    """Return a path of this server only: `//host` and `/\\host` would lead elsewhere."""
    return place if place.startswith("/") and not place.startswith(("//", "/\\")) else "/"


def _with(response: Response, headers: dict[str, str]) -> Response:
    response.headers.update(headers)
    return response


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
        repos=[{"repo": repo, "cover": cover(repo, call.origin), "note": None} for repo in found],
        author=call.query("author"),
        search=" ".join(call.queries("search")),
        tags=call.queries("filter"),
        following=following,
    )


def owner_page(call: Call) -> Response:
    """GET /{owner}: what somebody has."""
    owner = call.store.people.find(call.pieces["name"])["name"]
    return RedirectResponse(f"/models?author={owner}", 303)


def cover(repo: Repo, origin: str) -> str | None:
    """Return the address of the first still image of a repo's gallery."""
    for image in gallery.images(repo.card, repo.name, origin):
        if not image.moves and not repo.gated:
            return f"/{repo.path}/resolve/{repo.head}/{markdown.quoted(image.path)}"
    return None


def repo_page(call: Call) -> Response:
    """GET /{repo}: the card, its gallery, and how to use it."""
    repo = call.repo(Right.KNOW)
    view = View(call.store, repo)
    right = call.store.right(repo, call.caller)
    readme = view.git.read_file(view.sha, "README.md", cards.MAX_README_BYTES) or b""
    _, body = split_front_matter(readme.decode("utf-8", "replace"))
    shown, following = _shown(call, repo, view) if right >= Right.READ else ([], None)
    images = rendering.render(
        "hub/gallery.html.jinja", images=shown, file=partial(file_address, repo.path, view.sha)
    )
    has_place = markdown.has_gallery(body)
    text = markdown.render_within_limits(
        body,
        file=partial(file_address, repo.path, view.sha),
        page=partial(page_address, repo.path, "main"),
        gallery=images,
        origin=call.origin,
    )
    return page(
        call,
        "repo",
        repo=repo,
        tab="card",
        card=view.card,
        body=text,
        gallery="" if has_place or not shown else images,
        following=following,
        script=copy_script(),
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


def _shown(call: Call, repo: Repo, view: View) -> tuple[list[gallery.Image], str | None]:
    """Return the images of the card, or a page of a dataset's own, and where the next one is."""
    shown = gallery.images(view.card, repo.name, call.origin)
    if shown or repo.kind != "dataset":
        return shown, None
    skip = whole_number(call, "images", 0)
    read = partial(view.git.read_file, view.sha, limit=_METADATA_BYTES)
    shown, more = gallery.dataset_images(view.paths, read, skip)
    return shown, f"?images={skip + len(shown)}" if more else None


ROUTES = [
    Route("GET", "/", home),
    Route("GET", "/login", login),
    Route("GET", "/logout", logout),
    Route("GET", "/_static/{name}", static),
    Route("GET", "/{kind}", list_page),
    Route("GET", "/{prefix}{repo}", repo_page),
    Route("GET", "/{name}", owner_page),
]
