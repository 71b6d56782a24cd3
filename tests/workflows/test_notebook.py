"""Results in a notebook: their image and fields, whatever a stranger wrote into them."""

from __future__ import annotations

import base64
from pathlib import Path

from PIL import Image

from hublora.hub.push import PushResult
from hublora.workflows.caption import Captioned
from hublora.workflows.replay import Replayed
from hublora.workflows.run_batch import BatchItem
from hublora.workflows.train.artifacts import TrainingResult

HOSTILE = "<script>alert('1')</script>\x1b[31m&\""
ESCAPED = "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;"


def test_an_image_is_shown_with_its_path_and_facts(tmp_path: Path) -> None:
    path = tmp_path / 'a"b.png'
    Image.new("RGB", (8, 8), "red").save(path)
    html = Replayed(path, (HOSTILE, "torch was 1"), 0.25)._repr_html_()
    assert base64.b64encode(path.read_bytes()).decode() in html
    assert 'alt="a&quot;b.png"' in html
    assert "<script" not in html
    assert "\x1b" not in html
    assert ESCAPED in html
    assert "<br>torch was 1" in html
    assert "0.25" in html


def test_results_without_an_image_are_tables(tmp_path: Path) -> None:
    missing = BatchItem(tmp_path / "gone.png", False, HOSTILE)._repr_html_()
    assert "<img" not in missing
    assert ESCAPED in missing
    pushed = PushResult("me/a", "0" * 40, "https://example.com/me/a", ())
    assert ">https://example.com/me/a<" in pushed._repr_html_()
    assert "0" * 40 in pushed._repr_html_()
    result = TrainingResult(tmp_path, 3, 1.5, 0.123456789, 3, 0.5, pushed)._repr_html_()
    assert ">https://example.com/me/a<" in result
    assert ">0.123457<" in result
    captioned = Captioned(tmp_path, 1, 0, 0, captions={"a.png": HOSTILE})._repr_html_()
    assert f"a.png: {ESCAPED}" in captioned
    assert "<th style='text-align:left'>pushed</th>" not in captioned
