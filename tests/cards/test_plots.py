"""The loss plot."""

from __future__ import annotations

import math

import pytest
from PIL import Image

from hublora.cards.plots import loss_plot, smooth


def history(count: int) -> list[dict]:
    return [
        {"step": step, "loss": 0.1 + 1 / step, "lr": 1e-4 * (1 - step / count)}
        for step in range(1, count + 1)
    ]


@pytest.mark.parametrize("count", [1, 2, 10, 21, 20_000])
def test_short_and_long_trainings_are_plotted(tmp_path, count):
    path = loss_plot(history(count), tmp_path / "loss.png", title="50 $ a {step}")
    with Image.open(path) as image:
        assert image.width == 1400
        assert image.convert("L").getextrema() != (255, 255)


def test_plot_has_the_held_out_loss_wherever_it_lies(tmp_path):
    plain = loss_plot(history(100), tmp_path / "plain.png")
    measured = [
        row | ({"held_out": 5 + row["step"]} if row["step"] % 10 == 0 else {})
        for row in history(100)
    ]
    shown = loss_plot(measured, tmp_path / "measured.png")
    colours = []
    for path in (plain, shown):
        with Image.open(path) as image:
            colours.append({colour for _, colour in image.convert("RGB").getcolors(1 << 20)})
    assert (0x7A, 0x3F, 0xB8) in colours[1] - colours[0]


def test_plot_leaves_out_what_is_not_a_number(tmp_path):
    broken = [*history(30), {"step": 31, "loss": math.nan, "lr": None}, {"step": 32}]
    plots = [
        loss_plot(rows, tmp_path / f"{number}.png").read_bytes()
        for number, rows in enumerate((history(30), broken, history(32)))
    ]
    assert plots[0] == plots[1] != plots[2]


def test_plot_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="finite loss"):
        loss_plot([{"step": 1, "loss": math.inf}], tmp_path / "loss.png")


def test_average_preserves_constants_and_lags_in_neither_direction():
    assert smooth([3.0] * 7, 5) == pytest.approx([3.0] * 7)
    peak = smooth([0.0] * 200 + [1.0] + [0.0] * 200, 9)
    assert peak.index(max(peak)) == 200
    assert peak[195] == pytest.approx(peak[205], rel=1e-6)


def test_plot_has_the_learning_rate_of_token_embeddings_beside_that_of_the_adapter(tmp_path):
    rows = [row | {"lr": 0.0, "token_embedding_lr": 5e-3} for row in history(40)]
    path = loss_plot(rows, tmp_path / "loss.png", title="x")
    with Image.open(path) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert (0x1A, 0x7F, 0x6B) in colours


def test_plot_names_the_first_and_the_last_step():
    from matplotlib.figure import Figure

    from hublora.cards.plots import _mark_steps

    for first, last in ((1, 1), (1, 2), (1, 50), (1, 1000), (201, 999)):
        axes = Figure().subplots()
        _mark_steps(axes, first, last)
        ticks = axes.get_xticks()
        assert (ticks[0], ticks[-1]) == (first, last)
