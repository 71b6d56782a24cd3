"""What every section of the settings has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Settings of one concern: unknown keys are refused, and values are checked when set."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)
