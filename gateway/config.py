"""The settings: a TOML file, beaten by THINKGATE_* variables, beaten by the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from gateway.scorer_settings import SCORERS, AnyScorer, check_scorers
from policies.stopping import parse_stop
from scorers.confidence import WINDOW
from scorers.votes import VOTES

__all__ = [
    "Allowance",
    "ConfigError",
    "KeySettings",
    "LevelSettings",
    "ModelSettings",
    "Redactable",
    "Settings",
    "load_settings",
]

_PREFIX = "THINKGATE_"

Redactable = Literal["question", "reasoning", "text"]
"""What a recording can leave out: the user's words, the thinking, the replies' own text."""

RouteName = Literal["/v1/chat/completions", "/v1/responses", "/v1/messages"]
"""The paths that take budgets."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A time limit; timers can't count to infinity."""


class ConfigError(Exception):
    """The settings can't be used; the message names the file or variable and the field."""


class LevelSettings(BaseModel):
    """Settings of one level; a field that is not set keeps its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: Annotated[int, Field(ge=0)] | None = None
    """Hard limit in thinking tokens."""
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """The largest share of the model's context that thinking may take."""
    prompt: str | None = None
    samples: Annotated[int, Field(ge=1)] | None = None
    vote: str | None = None
    stop: str | None = None
    waits: Annotated[int, Field(ge=0, le=16)] | None = None
    """How often the gateway delays an early end of thinking."""

    @field_validator("vote")
    @classmethod
    def _known_vote(cls, value: str | None) -> str | None:
        if value is not None and value not in VOTES:
            raise ValueError(f"unknown vote {value!r}; allowed: {', '.join(VOTES)}")
        return value

    @field_validator("stop")
    @classmethod
    def _known_stop(cls, value: str | None) -> str | None:
        if value is not None:
            parse_stop(value)
        return value


class ModelSettings(BaseModel):
    """Settings of the models whose names match a pattern."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str | None = None
    default_budget: str | None = None
    """A level or a number of thinking tokens, for requests that name none."""
    budget_cap: Annotated[int, Field(ge=0)] | None = None
    """The most thinking tokens that a request may have."""
    answer_reserve: Annotated[int, Field(ge=1)] | None = None
    answer_cap: Annotated[int, Field(ge=1)] | None = None
    """The most tokens of an answer if thinking is limited and the client caps nothing."""
    levels: dict[str, LevelSettings] = {}


class Allowance(BaseModel):
    """What a key or a route may spend; a field that is not set follows the general settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default_budget: str | None = None
    """A level or a number of thinking tokens, for requests that name none."""
    budget_cap: Annotated[int, Field(ge=0)] | None = None
    """The most thinking tokens; the lowest of all caps holds."""
    max_samples: Annotated[int, Field(ge=1)] | None = None


class KeySettings(Allowance):
    """One client's key, as its SHA-256 in hex, because only the client needs the key itself."""

    secret_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    models: tuple[str, ...] = ("*",)
    """Patterns of the model names that the key may use; it sees no others."""
    training_allowed: bool = True
    """Whether training may use the recorded requests of the key."""


class Settings(BaseModel):
    """What an operator can set, in the TOML file or in THINKGATE_<FIELD>; tables only in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    upstream: HttpUrl | None = None
    """Base URL of an OpenAI-compatible engine, ending in /v1. None: the embedded engine."""
    upstream_key: SecretStr | None = None
    family: str | None = None
    """The model family, if the model's name does not reveal it (see docs/reference/families.md)."""
    connect_timeout: Seconds = 10.0
    """Seconds to connect to the upstream."""
    first_token_timeout: Seconds | None = None
    """Seconds until the upstream's first token. None: as long as `idle_timeout`."""
    idle_timeout: Seconds = 600.0
    """Seconds between two tokens of the upstream before the gateway gives up on a request."""
    total_timeout: Seconds | None = None
    """Seconds for a whole upstream reply. None: no limit."""
    max_event_bytes: Annotated[int, Field(ge=1024)] = 8 * 2**20
    """The largest event of an upstream's stream."""
    max_reply_bytes: Annotated[int, Field(ge=1024)] = 64 * 2**20
    """The most bytes of an upstream reply, for each choice."""
    max_logprobs_reply_bytes: Annotated[int, Field(ge=1024)] = 128 * 2**20
    """The same where log probabilities were asked for."""
    max_compression_ratio: Annotated[int, Field(ge=1)] = 100
    """How many times larger a compressed upstream reply may become."""
    max_header_bytes: Annotated[int, Field(ge=1024)] = 64 * 2**10
    """The most bytes of all headers of an upstream reply."""
    heartbeat: Seconds = 10.0
    """The longest silence of a streamed reply, in seconds: then the gateway sends a sign of life."""
    plain_replies: bool = False
    """Whether replies to requests that ask for nothing come without `scaling` and the gateway's headers."""
    max_samples: Annotated[int, Field(ge=1)] = 64
    """The most samples that one request may draw."""
    auto_samples: Annotated[int, Field(ge=1)] = 8
    """The most samples if difficulty decides how many to draw (`X-Samples: auto`)."""
    launch: Literal["waves", "all"] = "waves"
    """Whether a vote launches as many samples as its stopping rule may need, or all at once."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """The most samples of one request in flight. None: no cap."""
    free_form: str = "mbr"
    """What chooses among free texts, whose answers can't be counted: mbr, first, or a scorer."""
    math_workers: Annotated[int, Field(ge=0)] = 2
    """Processes that compare answers by computer algebra, started on first use. 0: none."""
    scorer_seconds: Seconds = 30.0
    """Seconds that a scorer may take before the vote continues without it."""
    top_logprobs: Annotated[int, Field(ge=2)] = 20
    """Log probabilities to request for every token if confidence counts (DeepConf's k)."""
    confidence_window: Annotated[int, Field(ge=1)] = WINDOW
    """Tokens in the sliding average of confidence."""
    answer_reserve: Annotated[int, Field(ge=1)] = 1024
    """Tokens kept free for the answer if thinking is limited (at most a quarter of the context)."""
    answer_cap: Annotated[int, Field(ge=1)] | None = None
    """The most tokens of an answer if thinking is limited and the client caps nothing. None: no cap."""
    default_budget: str | None = None
    budget_cap: Annotated[int, Field(ge=0)] | None = None
    list_variants: bool = False
    """Whether /v1/models lists `name:low` and so on, for clients that can't send headers."""
    scorers: dict[str, AnyScorer] = {}
    """By the name that clients send as `X-Scorer`; see docs/reference/scorers.md."""
    levels: dict[str, LevelSettings] = {}
    models: dict[str, ModelSettings] = {}
    """By pattern ("qwen3-*"); the first that matches a model's name beats the settings above."""
    keys: dict[str, KeySettings] = {}
    """By owner. If there are any, /v1 refuses requests without one."""
    routes: dict[RouteName, Allowance] = {}
    """Defaults and caps of single routes."""
    aliases: Path | None = None
    """A TOML or JSON file of aliases (see docs/how-to/publish.md), read again when it is replaced."""
    record_to: Path | None = None
    """A file that records answered requests, for `thinkgate replay`; gzipped if it ends in .gz."""
    record_redact: tuple[Redactable, ...] = ()
    """What the recording leaves out (docs/reference/recordings.md); in the environment a list with commas."""
    record_images: bool = False
    """Whether to store the images of recorded conversations beside the file, each once."""
    embedded_model: Path | None = None
    """A GGUF file for the embedded engine. None: SmolLM2-135M-Instruct, fetched once."""
    embedded_adapters: tuple[Path, ...] = ()
    """LoRA adapters in GGUF form, each served as a model of its own under its file's name."""
    embedded_slots: Annotated[int, Field(ge=1)] = 16
    embedded_context: Annotated[int, Field(ge=256)] = 2048
    """Context length of each of the embedded engine's slots, in tokens."""

    @field_validator("record_redact", "embedded_adapters", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(",") if part.strip()]

    @model_validator(mode="after")
    def _keys_differ(self) -> Settings:
        owners: dict[str, str] = {}
        for name, key in self.keys.items():
            if (other := owners.setdefault(key.secret_sha256, name)) != name:
                raise ValueError(f"keys: {other} and {name} have the same secret_sha256")
        return self

    @model_validator(mode="after")
    def _known_scorers(self) -> Settings:
        check_scorers(self.scorers)
        if self.free_form not in {"mbr", "first", *SCORERS, *self.scorers}:
            scorers = ", ".join({**SCORERS, **self.scorers})
            raise ValueError(f"free_form: unknown value {self.free_form!r}; allowed: mbr, first, {scorers}")
        return self


def load_settings(
    path: Path | None = None, environ: Mapping[str, str] | None = None, **overrides: Any
) -> Settings:
    """Read the settings: `overrides` that aren't None beat the environment, which beats the TOML file.

    `environ` stands in for the process's own environment. Raises `ConfigError`.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        if path is not None:
            path.open("rb").close()  # pydantic-settings passes over a file that isn't there
        loaded = _loader(path, environ)(**given)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}).") from error
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from error
    return Settings.model_construct(loaded.model_fields_set, **vars(loaded))


def _loader(path: Path | None, environ: Mapping[str, str] | None) -> type[Settings]:
    """Return `Settings` as a class that reads its own values from the environment and the file.

    The import stands here because only commands read settings; the app gets them ready-made.
    """
    from pydantic_settings import (
        BaseSettings,
        EnvSettingsSource,
        PydanticBaseSettingsSource,
        SettingsConfigDict,
        TomlConfigSettingsSource,
    )

    class Environment(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            if environ is None:
                return super()._load_env_vars()
            return {name.lower(): value for name, value in environ.items() if value != ""}

    class Loader(BaseSettings, Settings):
        # An empty variable counts as none; lists with commas are the fields' own work, not JSON.
        model_config = SettingsConfigDict(
            env_prefix=_PREFIX, env_ignore_empty=True, enable_decoding=False, extra="forbid", frozen=True
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, Environment(settings_cls), TomlConfigSettingsSource(settings_cls, path)

    return Loader


def _explain(error: ValidationError) -> str:
    """Return one line for each problem: the setting, its variable, what is wrong and what is allowed."""
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        location, message = problem["loc"], problem["msg"].removeprefix("Value error, ")
        field = ".".join(map(str, location))
        if not field:
            lines.append(f"{message}.")
        elif problem["type"] == "extra_forbidden" and len(location) > 1:
            lines.append(f"{field}: unknown setting.")
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{field}: unknown setting; known: {', '.join(Settings.model_fields)}.")
        elif any(isinstance(part, str) for part in location[1:]):  # of a table, which no variable can hold
            lines.append(f"{field}: {message}.")
        else:
            lines.append(f"{field} ({_PREFIX}{str(location[0]).upper()}): {message}.")
    return "\n".join(lines)
