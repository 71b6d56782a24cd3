"""Plots loss and learning rate over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#1f2328"
_QUIET = "#59636e"
_GRID = "#e4e7eb"
_LOSS = "#2f6fdb"
_RATE = "#c2571a"
_RATES = {"adapter": "lr", "token embeddings": "token_embedding_lr"}
_RATE_LINES = {"adapter": (_RATE, "-"), "token embeddings": ("#1a7f6b", "--")}
_HELD_OUT = "#7a3fb8"

_SIZE = (7.0, 4.4)  # inches; at 700 px wide an inch is 100 px, so 10 pt is 14 px
_DPI = 200

_FEW = 20  # losses up to which each is plotted without an average
_MOST_DOTS = 4000


def loss_plot(
    history: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    title: str | None = None,
    result_step: int | None = None,
) -> Path:
    """Plot loss and learning rate over the steps into a PNG and return its path.

    Args:
        history: One mapping per step with `step`, `loss` and, where known, `lr`,
            `token_embedding_lr` and `held_out`, the loss on images that are not trained on.
        path: PNG file that is written.
        title: Text above the plot, without any markup; None without a title.
        result_step: Step whose weights are the result; None if it is not known.

    Raises:
        ValueError: No entry has a finite loss.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = _series(history, "loss")
    rates = {name: _series(history, key) for name, key in _RATES.items()}
    if not losses:
        raise ValueError("a loss plot needs at least one finite loss")
    figure = Figure(figsize=_SIZE, dpi=_DPI, facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    upper, lower = _panels(figure, with_rate=any(rates.values()))
    _draw_loss(upper, losses)
    _draw_held_out(upper, _series(history, "held_out"), result_step)
    if lower is not None:
        _draw_rates(lower, {name: series for name, series in rates.items() if series})
    (lower or upper).set_xlabel("step", color=_INK, fontsize=10)
    _mark_steps(lower or upper, losses[0][0], losses[-1][0])
    above = _draw_legend(upper)
    if title:
        # A title is any text: "$" must not start a formula.
        upper.set_title(title, loc="left", color=_INK, fontsize=12, pad=above, parse_math=False)
    canvas.print_png(path)
    return path


def smooth(values: Sequence[float], span: float) -> list[float]:
    """Return the moving average of `values`, weighted over about `span` of them.

    An exponential average runs forwards and then backwards over its own result, so that it lags in
    neither direction and does not start at the first value.
    """
    return _decaying(_decaying(values, span)[::-1], span)[::-1]


def _decaying(values: Sequence[float], span: float) -> list[float]:
    # Corrected for its start as in Adam (https://huggingface.co/papers/1412.6980, algorithm 1).
    decay = 1 - 2 / (span + 1)
    averages, total, weight = [], 0.0, 0.0
    for value in values:
        total = decay * total + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        averages.append(total / weight)
    return averages


def _series(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [
        (int(entry["step"]), float(entry[name]))
        for entry in history
        if entry.get(name) is not None and math.isfinite(entry[name])
    ]


def _panels(figure: Figure, with_rate: bool) -> tuple[Axes, Axes | None]:
    if not with_rate:
        axes = figure.subplots()
        _style(axes)
        return axes, None
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    for axes in (upper, lower):
        _style(axes)
    upper.spines["bottom"].set_visible(False)
    return upper, lower


def _style(axes: Axes) -> None:
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    axes.tick_params(colors=_QUIET, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)


def _draw_loss(axes: Axes, losses: Sequence[tuple[int, float]]) -> None:
    steps, values = zip(*losses, strict=True)
    count = len(values)
    axes.set_ylabel("loss", color=_INK, fontsize=10)
    if count <= _FEW:
        axes.plot(steps, values, color=_LOSS, linewidth=2, marker="o", markersize=4)
        return
    span = max(3, round(count / 25))
    every = slice(None, None, 1 + count // _MOST_DOTS)
    size = 8 if count < 500 else 4
    axes.scatter(
        steps[every], values[every], size, color=_LOSS, alpha=0.25, linewidths=0, label="one step"
    )
    label = f"average of about {span:,} steps"
    axes.plot(steps, smooth(values, span), color=_LOSS, linewidth=2, label=label)
    axes.set_ylim(*_limits(values))


def _draw_held_out(
    axes: Axes, losses: Sequence[tuple[int, float]], result_step: int | None
) -> None:
    """Plot the held-out loss with a ring around its minimum, which says if it is the result."""
    if not losses:
        return
    steps, values = zip(*losses, strict=True)
    axes.plot(
        steps, values, color=_HELD_OUT, linewidth=2, marker="o", markersize=4, label="held out"
    )
    step, value = min(losses, key=lambda pair: pair[1])
    label = f"{'result' if step == result_step else 'lowest'}, step {step:,}"
    axes.scatter([step], [value], 90, facecolors="none", edgecolors=_HELD_OUT, label=label)
    low, high = axes.get_ylim()
    padding = (high - low) * 0.06
    axes.set_ylim(min(low, min(values) - padding), max(high, max(values) + padding))


def _draw_legend(axes: Axes) -> float:
    """Place the legend above the plot; return the padding in points that a title needs."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return 10
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=len(labels),
        fontsize=9,
        labelcolor=_QUIET,
        frameon=False,
        borderaxespad=0.1,
    )
    return 24


def _mark_steps(axes: Axes, first: int, last: int) -> None:
    """Put ticks at round steps, and at the first and the last one."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    apart = (last - first) / 12
    found = MaxNLocator(8, integer=True).tick_values(first, last)
    between = [tick for tick in found if first + apart < tick < last - apart]
    axes.set_xticks(sorted({first, *between, last}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return a range with nearly all values, so that single outliers do not flatten the rest."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 200], ordered[-1 - len(ordered) // 200]
    padding = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - padding, high + padding


def _draw_rates(axes: Axes, rates: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Plot one or several learning rates, each relative to its own maximum."""
    axes.set_ylabel("learning rate", color=_INK, fontsize=10)
    peaks = {name: max(value for _, value in series) or 1.0 for name, series in rates.items()}
    for name, series in rates.items():
        steps, values = zip(*series, strict=True)
        shares = [value / peaks[name] for value in values]
        colour, style = _RATE_LINES[name]
        marker = "o" if len(values) == 1 else None
        label = f"{name}, up to {peaks[name]:.3g}"
        axes.plot(
            steps,
            shares,
            style,
            color=colour,
            linewidth=1.6,
            marker=marker,
            markersize=4,
            label=label,
        )
    axes.set_ylim(0, 1.15)
    if len(rates) == 1:
        (peak,) = peaks.values()
        axes.set_yticks([0, 1], labels=["0", f"{peak:.3g}"])
        return
    axes.set_yticks([0, 1], labels=["0", "highest"])
    _draw_legend(axes)
