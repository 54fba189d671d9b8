"""A training run's settings: one TOML file, checked before anything is loaded."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

__all__ = ["ConfigError", "Lora", "ModelSource"]


class ConfigError(Exception):
    """The settings can't be used; the message names each field and what is allowed."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Table):
    """A low-rank adapter on all linear layers (LoRA, arXiv:2106.09685)."""

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32


class ModelSource(_Table):
    """Where a model comes from: a directory or GGUF file, with an adapter's directory or a fresh adapter."""

    path: str
    adapter: Path | None = None
    lora: Lora | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
