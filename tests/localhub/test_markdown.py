"""Cards are written by anybody: what is rendered is read, never run."""

from __future__ import annotations

import pytest

from hublora.localhub.markdown import has_gallery, render


def shown(text: str, gallery: str = "") -> str:
    """Render with addresses that say what they are."""
    return render(text, file="/file/{}".format, page="/page/{}".format, gallery=gallery)


@pytest.mark.parametrize(
    "attack",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '<a href="javascript:alert(1)">x</a>',
        "[x](javascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](https://evil.example/pixel.png)",
        '<img src="//evil.example/pixel.png">',
        '<img src="\\\\evil.example\\pixel.png">',
        "<iframe src=https://evil.example></iframe>",
        "<style>body{background:url(https://evil.example)}</style>",
        '<p style="background:url(https://evil.example)">x</p>',
        "<svg onload=alert(1)><script>alert(1)</script></svg>",
        "<math><mtext><script>alert(1)</script></mtext></math>",
        "<form action=https://evil.example><input name=token></form>",
        "<object data=https://evil.example></object><embed src=https://evil.example>",
        "<video src=https://evil.example/v.mp4 poster=https://evil.example/p.png></video>",
        '<meta http-equiv="refresh" content="0;url=https://evil.example">',
        "<link rel=stylesheet href=https://evil.example/a.css>",
        "<base href=https://evil.example/>",
        '<a href="jav&#x0A;ascript:alert(1)">x</a>',
        "```html\n<script>alert(1)</script>\n```",
        '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    ],
)
def test_nothing_runs_and_nothing_is_fetched_from_elsewhere(attack):
    html = shown(attack).lower()
    for trace in (
        "<script",
        "onerror=a",
        'href="javascript',
        "<iframe",
        "<style",
        " style=",
        "<svg",
    ):
        assert trace not in html.replace("&lt;", ""), html
    assert 'src="https://' not in html
    assert 'src="//' not in html
    for tag in ("<form", "<input", "<object", "<embed", "<meta", "<link", "<base", "poster="):
        assert tag not in html


def test_images_and_links_of_the_repo_are_made_whole():
    html = shown("![a](images/0.png) [b](./training/config.yaml) [c](#part) [d](https://x.example)")
    assert 'src="/file/images/0.png"' in html
    assert 'href="/page/training/config.yaml"' in html
    assert 'href="#part"' in html
    assert 'href="https://x.example"' in html


def test_the_gallery_stands_where_the_author_put_it_but_not_in_code():
    text = "# T\n<Gallery />\nafter\n```\n<Gallery />\n```\n"
    html = shown(text, "<div>IMAGES</div>")
    assert html.count("IMAGES") == 1
    assert html.index("IMAGES") < html.index("after")
    assert "&lt;Gallery /&gt;" in html
    assert has_gallery(text)
    assert not has_gallery("# T\n")


def test_a_path_out_of_the_repo_is_dropped():
    html = shown("![a](../../secret.png) ![b](/etc/passwd) [c](a/../../b)")
    assert "secret" not in html.replace("alt", "")
    assert "passwd" not in html
    assert "<a" not in html.replace("<a rel", "")


def test_deep_nesting_is_rendered_or_shown_as_text_not_crashed_on():
    for text in (">" * 5000 + "x", "[" * 20000, "*" * 20000, "<div>" * 20000, "- " * 3000 + "x"):
        assert isinstance(shown(text), str)


def test_html_nested_deeper_than_any_cards_is_shown_as_text():
    for tag in ("div", "b", "a href='x'", "details"):
        assert shown(f"<{tag}>" * 40_000).startswith("<pre tabindex=")
    assert shown("<div>" * 100 + "\n\n*deep*\n\n" + "</div>" * 100).count("<em>deep</em>") == 1
    assert shown("<p>one<br>\n" * 2000).count("<br>") == 2000
