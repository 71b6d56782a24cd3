"""Sheets of labelled images: the settings that vary over rows and columns, and the drawn sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.adapter_weights import Weight
from hublora.errors import ConfigError
from hublora.generation.metadata import save_image, shown_prompt
from hublora.generation.sweep_axes import Axis

if TYPE_CHECKING:
    from PIL import Image

    from hublora.generation.composition import Composition
    from hublora.generation.sample import Sampling

MAX_CELLS = 1000  # of a recorded sheet


@dataclass(frozen=True)
class Cell:
    """One image of a sheet.

    Attributes:
        row: Index of the row, from 0.
        column: Index of the column, from 0.
        plan: Sampling settings of the image.
        weights: Weights of the adapters, in order.
    """

    row: int
    column: int
    plan: Sampling
    weights: tuple[Weight, ...]


@dataclass(frozen=True)
class SheetAxes:
    """What varies over a sheet.

    Attributes:
        columns: Setting that varies over the columns.
        rows: Setting that varies over the rows; None for one row.
        wrapped: Whether the one row is wrapped into a square, each image with its own label.
    """

    columns: Axis
    rows: Axis | None = None
    wrapped: bool = False

    @classmethod
    def of_seeds(cls, seeds: Sequence[int]) -> SheetAxes:
        """Return the axes of a sheet whose images differ in their seeds alone."""
        return cls(Axis("seed", tuple(map(str, seeds))), wrapped=True)

    @classmethod
    def restore(cls, recorded: Mapping[str, Any]) -> SheetAxes:
        """Return the axes that `facts` returned.

        Raises:
            ConfigError: They are incomplete, or have over 1000 cells.
        """
        try:
            rows = recorded.get("rows")
            axes = cls(
                _axis(recorded["columns"]),
                None if rows is None else _axis(rows),
                recorded.get("wrapped") is True and rows is None,
            )
        except (KeyError, TypeError) as error:
            raise ConfigError("The metadata of this sheet is incomplete.") from error
        count = len(axes.columns.values) * (len(axes.rows.values) if axes.rows else 1)
        if not 0 < count <= MAX_CELLS:
            raise ConfigError(f"A sheet must have 1 to {MAX_CELLS} images, got {count}.")
        return axes

    def facts(self) -> dict[str, Any]:
        """Return the axes as JSON values, for the sheet's metadata."""
        axes = {"columns": self.columns, "rows": self.rows}
        named = {
            key: {"name": axis.name, "values": list(axis.values)}
            for key, axis in axes.items()
            if axis is not None
        }
        return {**named, "wrapped": self.wrapped}

    def cells(self, plan: Sampling, weights: Sequence[Weight]) -> list[Cell]:
        """Return the images of the sheet, row by row.

        Args:
            plan: Settings of all images but for the axes.
            weights: Weights of the adapters but for the axes.

        Raises:
            ConfigError: An axis varies the weight of an adapter that is not there.
        """
        cells = []
        for row, below in enumerate(self.rows.values if self.rows else [""]):
            for column, beside in enumerate(self.columns.values):
                one, changed = plan, list(weights)
                for axis, value in ((self.rows, below), (self.columns, beside)):
                    if axis is not None:
                        one = axis.apply(one, value)
                        _set_weight(changed, axis, value)
                cells.append(Cell(row, column, one, tuple(changed)))
        return cells

    def draw(
        self,
        images: Sequence[Image.Image],
        composition: Composition,
        facts: Mapping[str, Any],
    ) -> Image.Image:
        """Return the sheet under its prompt, in which placeholders are replaced.

        Args:
            images: Images of `cells`, in their order.
            composition: Adapters, whose names label an axis of weights.
            facts: Metadata that the images have in common.
        """
        from hublora.image_grid import sheet

        titles, title = [part.title for part in composition.adapters], shown_prompt(facts)
        labels = _labels(self.columns, titles)
        if self.wrapped:
            across = math.ceil(len(images) ** 0.5)
            return sheet(_rows(images, across), title=title, captions=_rows(labels, across))
        return sheet(
            _rows(images, len(labels)),
            row_labels=_labels(self.rows, titles) if self.rows else None,
            column_labels=labels,
            title=title,
        )


def save_sheet(
    path: Path,
    axes: SheetAxes,
    images: Sequence[Image.Image],
    composition: Composition,
    facts: Mapping[str, Any],
) -> None:
    """Write a sheet with the metadata from which it can be generated again.

    Args:
        path: Path of the PNG; replaced if it exists.
        axes: Settings that vary over the sheet.
        images: Images of the axes' cells, in their order.
        composition: Base and adapters.
        facts: Metadata that the images have in common.
    """
    drawn = axes.draw(images, composition, facts)
    save_image(drawn, path, {**facts, "sheet": axes.facts()})


def _axis(recorded: Mapping[str, Any]) -> Axis:
    return Axis.of(str(recorded["name"]), [str(value) for value in recorded["values"]])


def _labels(axis: Axis, titles: Sequence[str]) -> list[str]:
    return [axis.label(value, titles) for value in axis.values]


def _rows(items: Sequence[Any], across: int) -> list[list[Any]]:
    return [list(items[start : start + across]) for start in range(0, len(items), across)]


def _set_weight(weights: list[Weight], axis: Axis, value: str) -> None:
    if axis.adapter is None:
        return
    if axis.adapter >= len(weights):
        raise ConfigError(
            f"The axis {axis.name} names adapter {axis.adapter + 1} of {len(weights)}.",
            "Adapters are counted from 1: weight.1, weight.2, …",
        )
    weights[axis.adapter] = Weight.of(float(value))
