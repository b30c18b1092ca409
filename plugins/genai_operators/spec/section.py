"""The base of every section of a model file: frozen, and closed against unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping in a model file. An unknown key is an error: a typo must not silently mean the default."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)
