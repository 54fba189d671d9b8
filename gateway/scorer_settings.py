"""The scorers that clients can name: those that need no settings, and `[scorers.<name>]` in the settings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, model_validator

from scorers.agreement import AgreementScorer
from scorers.confidence import WINDOW, ConfidenceScorer
from scorers.judge import QUESTION, RUBRIC, JudgeScorer
from scorers.trained import TEMPLATE
from scorers.types import Scorer

__all__ = [
    "SCORERS",
    "AgreementTable",
    "AnyScorer",
    "CombinedTable",
    "ConfidenceTable",
    "JudgeTable",
    "TrainedTable",
    "check_scorers",
]

SCORERS: Mapping[str, Scorer] = MappingProxyType(
    {"confidence": ConfidenceScorer(), "agreement": AgreementScorer(), "judge": JudgeScorer()}
)
"""The scorers that need no settings. To add one, write it in `scorers/` and name it here.

A scorer with settings needs a table below, a place in `AnyScorer`, and a line in
`gateway.runs.scorers.Scorers`, which makes it from the table.
"""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ConfidenceTable(_Table):
    """`kind = "confidence"`: how sure the model is of its own tokens."""

    kind: Literal["confidence"]
    measure: Literal["bottom", "lowest", "mean", "tail", "certainty", "probability"] = "bottom"
    window: Annotated[int, Field(ge=1)] = WINDOW


class AgreementTable(_Table):
    """`kind = "agreement"`: how much the other samples agree."""

    kind: Literal["agreement"]


class JudgeTable(_Table):
    """`kind = "judge"`: a language model that picks, grades or, if it is trained for that, checks."""

    kind: Literal["judge"]
    method: Literal["pick", "grade", "check"] = "pick"
    url: HttpUrl | None = None
    """The judge's own server, ending in /v1. None: the request's upstream."""
    key: SecretStr | None = None
    key_env: str | None = None
    model: str | None = None
    budget: str | None = None
    """Its reasoning budget. None: off at the request's upstream, and the server's default at `url`."""
    rubric: str = RUBRIC
    rounds: Annotated[int, Field(ge=1, le=16)] = 2
    seed: int = 0
    characters: Annotated[int, Field(ge=1)] = 24_000
    max_tokens: Annotated[int, Field(ge=1)] = 512
    concurrency: Annotated[int, Field(ge=1)] = 8
    question: str = QUESTION
    calibration: Path | None = None
    gate: Path | None = None
    """The file of the release gate of a judge that checks (`scorers.gate`)."""
    unproven: bool = False

    @model_validator(mode="before")
    @classmethod
    def _accept_old_name(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "effort" not in values:
            return values
        if "budget" in values:
            raise ValueError("effort is the old name of budget: give budget alone")
        warnings.warn(
            "a judge's effort is budget now; effort is accepted until 1.0", FutureWarning, stacklevel=2
        )
        renamed = {name: value for name, value in values.items() if name != "effort"}
        return {**renamed, "budget": values["effort"]}

    @model_validator(mode="after")
    def _check(self) -> JudgeTable:
        if "{answer}" not in self.question:
            raise ValueError("the question must contain {answer}")
        if self.url is not None and self.model is None:
            raise ValueError("a judge with a url needs model, the model's name there")
        if self.url is None and (self.key or self.key_env):
            raise ValueError("key and key_env need a url")
        return self


class TrainedTable(_Table):
    """`kind = "trained"`: a classifier behind `url`, or in the local `directory`."""

    kind: Literal["trained"]
    url: HttpUrl | None = None
    key: SecretStr | None = None
    key_env: str | None = None
    """The name of an environment variable that holds the key, which keeps it out of the file."""
    model: str | None = None
    endpoint: Literal["classify", "score"] = "classify"
    directory: Path | None = None
    template: str = TEMPLATE
    label: int = -1
    batch: Annotated[int, Field(ge=1)] = 64
    max_tokens: Annotated[int, Field(ge=1)] = 4096
    calibration: Path | None = None
    gate: Path | None = None
    """The file of its release gate (`scorers.gate`). None: gate.json in the directory."""
    unproven: bool = False
    """Whether to serve it without a passing gate."""

    @model_validator(mode="after")
    def _check(self) -> TrainedTable:
        if (self.url is None) == (self.directory is None):
            raise ValueError("a trained scorer needs either a url or a directory")
        if "{answer}" not in self.template:
            raise ValueError("the template must contain {answer}")
        return self


class CombinedTable(_Table):
    """`kind = "combined"`: other scorers by name, each with its weight."""

    kind: Literal["combined"]
    weights: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]


AnyScorer = Annotated[
    ConfidenceTable | AgreementTable | JudgeTable | TrainedTable | CombinedTable, Field(discriminator="kind")
]


def check_scorers(tables: Mapping[str, AnyScorer]) -> None:
    """Raise ValueError for the name `none`, and for a combination that names no single scorer."""
    single = {*SCORERS, *(name for name, table in tables.items() if not isinstance(table, CombinedTable))}
    for name, table in tables.items():
        if name == "none":
            raise ValueError('a scorer can\'t have the name "none"')
        if isinstance(table, CombinedTable) and (unknown := table.weights.keys() - single):
            raise ValueError(
                f"{name}.weights: unknown {', '.join(sorted(unknown))}; allowed: {', '.join(sorted(single))}"
            )
