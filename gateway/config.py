"""Settings: a TOML file, overridden by THINKGATE_* environment variables."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, ValidationError

__all__ = ["ConfigError", "Settings", "load_settings"]

_PREFIX = "THINKGATE_"


class ConfigError(Exception):
    """The configuration can't be used; the message names the file or variable and the field."""


class Settings(BaseModel):
    """What an operator may set. Every field may stand in the TOML file or in THINKGATE_<FIELD>."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    upstream: HttpUrl | None = None
    """Base URL of an OpenAI-compatible engine, ending in /v1. None: the embedded engine."""
    upstream_key: SecretStr | None = None
    family: str | None = None
    """Model family, where its name doesn't tell (see docs/families.md)."""
    idle_timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds the upstream may stay silent before a request is given up."""
    max_samples: Annotated[int, Field(ge=1)] = 64
    """The most samples one request may draw."""
    answer_reserve: Annotated[int, Field(ge=1)] = 1024
    """Tokens kept for the answer where thinking is limited (at most a quarter of the context)."""
    embedded_model: Path | None = None
    """A GGUF file for the embedded engine. None: SmolLM2-135M-Instruct, fetched once."""
    embedded_slots: Annotated[int, Field(ge=1)] = 16
    embedded_context: Annotated[int, Field(ge=256)] = 2048
    """Context length of each of the embedded engine's slots, in tokens."""


def load_settings(
    path: Path | None = None, environ: Mapping[str, str] | None = None, **overrides: Any
) -> Settings:
    """Reads the settings; the environment beats the file, and `overrides` that aren't None beat both.

    Raises `ConfigError`.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: can't be read ({error.strerror}).") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid TOML: {error}.") from error
    for field in Settings.model_fields:
        if (value := environ.get(_PREFIX + field.upper())) is not None and value != "":
            values[field] = value
    values |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        field = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{field}: unknown setting; known: {', '.join(Settings.model_fields)}.")
        else:
            lines.append(f"{field} ({_PREFIX}{field.upper()}): {problem['msg']}.")
    return "\n".join(lines)
