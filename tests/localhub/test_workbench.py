"""What is too much for a worker ends, and the next job is done as if nothing had been."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hublora.localhub import markdown
from hublora.localhub.workbench import Bench, TooMuchWork


def spin(number: int) -> int:
    """Never end."""
    while True:
        number += 1


def swell(size: int) -> int:
    """Take memory."""
    return len(b"x" * size)


def end(code: int) -> None:
    """End the process."""
    os._exit(code)


def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def same(text: str) -> str:
    """Return the text, and print."""
    print("x" * 100)
    return text


def test_what_never_ends_takes_too_much_memory_or_dies_is_told_and_forgotten():
    bench = Bench(workers=1)
    assert bench.do(double, 3) == 6
    for function, argument in ((spin, 0), (swell, 4 << 30), (end, 3), (double, "x" * (80 << 20))):
        with pytest.raises(TooMuchWork):
            bench.do(function, argument)
        assert bench.do(double, 4) == 8


def test_large_jobs_and_answers_pass_and_printing_does_not_get_between():
    bench, text = Bench(workers=1), "é" * (4 << 20)
    assert bench.do(same, text) == text
    assert bench.do(double, 5) == 10


def test_many_threads_share_the_workers():
    bench = Bench(workers=2)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda n: bench.do(double, n), range(100))) == [
            2 * n for n in range(100)
        ]


def test_the_same_again_is_not_done_again():
    bench = Bench(workers=1)
    first = bench.do(time.monotonic_ns)
    assert bench.do(time.monotonic_ns) == first


def nowhere(path: str) -> str:
    """Lead nowhere."""
    return ""


@pytest.mark.parametrize(
    "text",
    [
        f'[a]: x "{"t" * 40_000}"\n' + "[a] " * 10_000,
        f"[a]: {'x' * 40_000}\n" + "![a] " * 10_000,
        "|" + "a|" * 2000 + "\n|" + "-|" * 2000 + "\n" + "|\n" * 20_000,
        "> " * 20_000,
        "*_" * 20_000,
        "<a " * 40_000,
        "&" * 100_000,
    ],
)
def test_a_cards_html_is_never_much_longer_than_the_card(text):
    made = markdown.render_within_limits(text, file=nowhere, page=nowhere)
    assert len(made) < 12 * len(text) + markdown.MAX_HTML


def test_many_comments_are_rendered_and_what_is_too_much_is_shown_as_typed():
    texts = ["**a**", "x" * markdown.MAX_ALL_BYTES, "<b>"]
    assert markdown.render_all_within_limits(texts, file=nowhere, page=nowhere) == [
        "<p><strong>a</strong></p>\n",
        f'<pre tabindex="0">{"x" * markdown.MAX_BYTES}</pre>',
        '<pre tabindex="0">&lt;b&gt;</pre>',
    ]
