"""The record of a training: one line of JSON per step, written in small batches."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import torch

from hublora.errors import ConfigError
from hublora.filesystem import write_atomically
from hublora.training.events import StepDone


class History:
    """Collects steps and appends them to a JSON-lines file.

    Losses stay on the device until `flush`: reading one waits for the device, so that is done for
    many steps at once.

    Args:
        path: The file; lines of steps after `step` are cut off, so a resumed run leaves no doubles.
        step: Steps that are done already.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = [row for row in _read(path) if row["step"] <= step]
        self._pending: list[StepDone] = []
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, event: StepDone) -> None:
        """Take note of a step."""
        self._pending.append(event)

    def flush(self) -> list[dict[str, Any]]:
        """Write what was added since the last time and return it, waiting for the device once.

        Raises:
            ConfigError: A loss is not finite: the training has diverged.
        """
        if not self._pending:
            return []
        losses = torch.stack([event.loss for event in self._pending]).tolist()
        rows = [
            {"step": event.step, "loss": loss, "lr": event.learning_rate}
            for event, loss in zip(self._pending, losses, strict=True)
        ]
        self._pending.clear()
        for row in rows:
            if not math.isfinite(row["loss"]):
                raise ConfigError(
                    f"The loss of step {row['step']} is not finite: the training has diverged.",
                    "Lower --learning-rate, or use bf16 in place of fp16; the last checkpoint is "
                    "good.",
                )
        with open(self.path, "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows
        return rows


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break  # a line cut short by a crash is the last one
    return rows
