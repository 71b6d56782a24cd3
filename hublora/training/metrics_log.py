"""The log of a training's metrics: one line of JSON per step, written in small batches."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from hublora.filesystem import write_atomically
from hublora.training.events import StepDone
from hublora.training.failures import Diverged
from hublora.training.held_out_loss import BUCKETS, bucket_means
from hublora.training.run_folder import read_history


class MetricsLog:
    """Collects steps and appends them to a JSON-lines file.

    Losses stay on the device until `flush`: reading one waits for the device, so that is done for
    many steps at once.

    Args:
        path: The file; lines of steps after `step` are removed, so a resumed run has no duplicates.
        step: Optimizer steps that are done already.
        writes: Whether this process writes the file; only the main one does.
    """

    def __init__(self, path: Path, step: int = 0, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.rows: list[dict[str, Any]] = [row for row in read_history(path) if row["step"] <= step]
        self._pending: list[StepDone] = []
        if not writes:
            return
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, event: StepDone) -> None:
        """Add a step; `flush` writes it."""
        self._pending.append(event)

    def flush(self) -> list[dict[str, Any]]:
        """Write the steps since the last flush and return their rows, waiting for the device once.

        Raises:
            Diverged: A loss is not finite; the steps before it are written.
        """
        if not self._pending:
            return []
        values = torch.stack([_on_one_line(event) for event in self._pending]).tolist()
        rows = [_row(*pair) for pair in zip(self._pending, values, strict=True)]
        self._pending.clear()
        good = list(takewhile(lambda row: math.isfinite(row["loss"]), rows))
        self.rows += good
        if self.writes:
            self._append(good)
        if len(good) < len(rows):
            raise Diverged(rows[len(good)]["step"], "loss")
        return rows

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())


def _on_one_line(event: StepDone) -> torch.Tensor:
    return torch.cat([event.loss[None], event.buckets.flatten()])


def _row(event: StepDone, values: list[float]) -> dict[str, Any]:
    """Return the log's row of a step.

    `lr` is the learning rate of the adapter, and `token_embedding_lr` that of token embeddings
    which are trained beside it; `buckets` is the mean loss by tenth of the timesteps, the least
    noisy first; `held_out` is the loss on the held-out images, where it was measured.
    """
    loss, *sums_and_counts = values
    sums, counts = sums_and_counts[:BUCKETS], sums_and_counts[BUCKETS:]
    means = bucket_means(sums, counts)
    row: dict[str, Any] = {"step": event.step, "loss": loss, "lr": event.learning_rate}
    if event.token_embedding_lr is not None:
        row["token_embedding_lr"] = event.token_embedding_lr
    row["buckets"] = {str(number): mean for number, mean in enumerate(means) if mean is not None}
    if event.measure is not None:
        row |= {"held_out": event.measure.loss, "held_out_buckets": list(event.measure.buckets)}
    return row
