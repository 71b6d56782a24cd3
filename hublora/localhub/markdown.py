"""Markdown to HTML that cannot do harm: CommonMark and tables, then an allow-list.

Cards are written by anybody. Nothing that runs, styles, frames or loads from elsewhere survives:
no scripts, no style, no forms, only images from the repo itself, only http(s) and mailto links.
"""

from __future__ import annotations

import html
import re
import secrets
from collections.abc import Callable
from functools import cache
from urllib.parse import quote, unquote, urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

from .workbench import BENCH, TooMuchWork

MAX_BYTES = 256 << 10
MAX_HTML = 2 << 20
MAX_DEPTH = 500
MAX_ALL_BYTES = 1 << 20  # of many texts at once
_TAGS = (
    "a abbr b blockquote br caption code dd del details div dl dt em figcaption figure h1 h2 h3 h4"
    " h5 h6 hr i img ins kbd li ol p pre q s samp small span strong sub summary sup table tbody td"
    " tfoot th thead tr tt u ul var video"
)
_ATTRIBUTES = {
    "*": {"align", "title"},
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "video": {"src", "controls", "width", "height", "loop", "muted"},
    "code": {"class"},
    "details": {"open"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan"},
    "ol": {"start"},
}
_GALLERY = re.compile(r"\s{0,3}<Gallery\s*/?>(?:\s*</Gallery>)?\s*", re.IGNORECASE)
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Tags that never stay open around what follows, whether or not their author closes them.
_FLAT = "area base br col dd dt embed hr img input li link meta p source td th tr track wbr"
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
Place = Callable[[str], str]


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def render(text: str, *, file: Place, page: Place, gallery: str = "", origin: str = "") -> str:
    """Return the HTML of a card's body.

    Args:
        text: Markdown, with whatever HTML its author put in.
        file: Address of the content of a path in the repo, for images.
        page: Address of the page of a path in the repo, for links.
        gallery: Trusted HTML that stands where the author wrote `<Gallery />`.
        origin: This Hub's address; images that begin with it are shown.
    """
    if len(text) > MAX_BYTES:
        return as_typed(text)
    mark = f"gallery-{secrets.token_hex(16)}"
    state: dict[str, object] = {}
    try:
        tokens = _parser().parse(_mark_gallery(text, mark), state)
        if _size(tokens) > MAX_HTML:
            return as_typed(text)
        raw = _parser().renderer.render(tokens, _parser().options, state)
    except RecursionError:
        return as_typed(text)
    if _too_deep(raw):
        return as_typed(text)
    clean = nh3.clean(
        raw,
        tags=set(_TAGS.split()),
        clean_content_tags={"script", "style", "iframe", "object", "embed", "svg", "math"},
        attributes=_ATTRIBUTES,
        attribute_filter=lambda tag, name, value: _address(tag, name, value, file, page, origin),
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow ugc",
        strip_comments=True,
    )
    clean = clean.replace("<pre>", '<pre tabindex="0">')  # what scrolls is reached by keyboard
    first, *rest = clean.replace(f"<p>{mark}</p>", mark).split(mark)
    return first + (gallery + "".join(rest) if rest else "")


def render_within_limits(
    text: str, *, file: Place, page: Place, gallery: str = "", origin: str = ""
) -> str:
    """Return what `render` does, or the text as it was typed where that takes too long."""
    try:
        made: str = BENCH.do(render, text, file=file, page=page, gallery=gallery, origin=origin)
    except TooMuchWork:
        return as_typed(text)
    return made


def render_all_within_limits(
    texts: list[str], *, file: Place, page: Place, origin: str = ""
) -> list[str]:
    """Return what `render` makes of each text; what is too much is shown as it was typed."""
    whole: list[str] = []
    size = 0
    for text in texts:
        size += len(text)
        if size > MAX_ALL_BYTES:
            break
        whole.append(text)
    try:
        made: list[str] = BENCH.do(_render_all, whole, file=file, page=page, origin=origin)
    except TooMuchWork:
        made = []
    return made + [as_typed(text) for text in texts[len(made) :]]


def _render_all(texts: list[str], file: Place, page: Place, origin: str) -> list[str]:
    return [render(text, file=file, page=page, origin=origin) for text in texts]


def as_typed(text: str) -> str:
    """Return a text without its markup, at most as much as a card's."""
    return f'<pre tabindex="0">{html.escape(text[:MAX_BYTES])}</pre>'


def _size(tokens: list[Token]) -> int:
    """Return about how long the HTML gets: a link's title may be written once and used often."""
    return sum(
        len(token.content)
        + sum(len(str(value)) for value in token.attrs.values())
        + _size(token.children or [])
        for token in tokens
    )


def has_gallery(text: str) -> bool:
    """Tell whether the author says where the gallery goes."""
    return _mark_gallery(text, "\0") != text


def _mark_gallery(text: str, mark: str) -> str:
    """Put a mark of its own paragraph for each `<Gallery />` outside of code."""
    lines, fence = [], ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if found and (not fence or found[1].startswith(fence)):
            fence = "" if fence else found[1]
        lines.append(f"\n{mark}\n" if not fence and _GALLERY.fullmatch(line) else line)
    return "\n".join(lines)


def _too_deep(raw: str) -> bool:
    """Tell whether tags are nested deeper than any card's: the time to clean them is quadratic."""
    depth, flat = 0, frozenset(_FLAT.split())
    for closes, name in _TAG.findall(raw):
        if name.lower() in flat:
            continue
        depth = max(0, depth - 1) if closes else depth + 1
        if depth > MAX_DEPTH:
            return True
    return False


def _address(tag: str, name: str, value: str, file: Place, page: Place, origin: str) -> str | None:
    """Return an attribute as it may stand: addresses of the repo itself are made whole."""
    if name not in ("src", "href"):
        return value
    path = inside(value)
    if name == "src":
        return file(path) if path else own_file(value, origin)
    if value.startswith("#") or urlsplit(value).scheme in ("http", "https", "mailto"):
        return value
    # Another page of this Hub: browsers drop blanks, so "/\t/host" would be another host.
    if re.fullmatch(r"/([^/\\\s][^\\\s]*)?", value):
        return value
    return page(path) if path else None


_OWN_FILE = re.compile(
    r"(/(?:(?:datasets|spaces)/)?[\w.-]+/[\w.-]+)/(?:resolve|blob|raw)/([^\\\s?#]+)(?:[?#].*)?"
)


def own_file(address: str, origin: str) -> str | None:
    """Return the place of a file on this Hub that an absolute path or a full address means."""
    place = address.strip()
    if origin and place.lower().startswith(f"{origin.lower()}/"):
        place = place[len(origin) :]
    found = _OWN_FILE.fullmatch(place)
    if found is None or ".." in unquote(found[2]).split("/"):
        return None
    return f"{found[1]}/resolve/{found[2]}"


def inside(address: str) -> str | None:
    """Return the repo path that a relative address means, or None for any other address."""
    try:
        parts = urlsplit(address.strip())
    except ValueError:
        return None
    if parts.scheme or parts.netloc or address.startswith(("/", "\\", "#", "?")):
        return None
    path = unquote(parts.path).removeprefix("./")
    return path if path and ".." not in path.split("/") else None


def quoted(path: str) -> str:
    """Return a repo path as it goes into an address."""
    return quote(path, safe="/")
