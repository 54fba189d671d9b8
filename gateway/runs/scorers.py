"""The scorers that clients may name, made from `[scorers.<name>]` in the settings; the model they may ask."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from gateway.runs.budget import RequestedSampling, parse_budget
from gateway.runs.events import RunResult
from gateway.runs.request import ReplyOptions, RunRequest, ServedModel, plan_request
from gateway.scorer_settings import (
    SCORERS,
    AgreementTable,
    AnyScorer,
    CombinedTable,
    ConfidenceTable,
    JudgeTable,
    TrainedTable,
)
from gateway.upstreams.connections import send
from policies.families import Family, find_family
from scorers.agreement import AgreementScorer
from scorers.calibration import Calibration, read_calibration
from scorers.combined import CombinedScorer
from scorers.confidence import ConfidenceScorer
from scorers.gate import GATE_FILE, require_release
from scorers.judge import JudgeScorer
from scorers.local_classifier import LocalClassifier
from scorers.remote_judge import JudgeServer, RemoteJudge
from scorers.trained import ServedClassifier, TrainedScorer
from scorers.types import Sample, Scorer, ScorerError

__all__ = ["RequestModel", "Scorers"]

CALIBRATION_FILE = "calibration.json"
"""A calibration may lie under this name beside the weights of a classifier in a local directory."""


class Scorers:
    """An app's scorers by name, and what they hold open. Raises ValueError where a file can't be used.

    `embedded` are the files of models that the embedded engine serves under their names: a judge among
    them has its weights here.
    """

    def __init__(self, tables: Mapping[str, AnyScorer], embedded: Sequence[Path] = ()) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._classifiers: list[LocalClassifier] = []
        for name, table in tables.items():
            if isinstance(table, TrainedTable) or (isinstance(table, JudgeTable) and table.method == "check"):
                _check_gate(name, table, embedded)
        single = {
            name: self._make(table) for name, table in tables.items() if not isinstance(table, CombinedTable)
        }
        self.scorers: dict[str, Scorer] = {**SCORERS, **single}
        for name, table in tables.items():
            if isinstance(table, CombinedTable):
                parts = [(self.scorers[part], weight) for part, weight in table.weights.items()]
                self.scorers[name] = CombinedScorer(parts)

    async def close(self) -> None:
        """Free what is held."""
        for classifier in self._classifiers:
            classifier.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _make(self, table: ConfidenceTable | AgreementTable | JudgeTable | TrainedTable) -> Scorer:
        if isinstance(table, TrainedTable):
            return self._trained(table)
        if isinstance(table, JudgeTable):
            return self._judge(table)
        options = table.model_dump(exclude={"kind"})
        return ConfidenceScorer(**options) if isinstance(table, ConfidenceTable) else AgreementScorer()

    def _judge(self, table: JudgeTable) -> Scorer:
        options = table.model_dump(
            exclude={"kind", "url", "key", "key_env", "calibration", "gate", "unproven"}
        )
        judge = JudgeScorer(**options, calibration=_calibration(table))
        if table.url is None:
            return judge
        return RemoteJudge(judge, JudgeServer(str(table.url), self._post, _key(table)))

    def _trained(self, table: TrainedTable) -> Scorer:
        calibration = _calibration(table)
        if table.directory is not None:
            local = LocalClassifier(
                table.directory,
                template=table.template,
                label=table.label,
                max_tokens=table.max_tokens,
                batch=min(table.batch, 16),
            )
            self._classifiers.append(local)
            return TrainedScorer(local, calibration)
        served = ServedClassifier(
            str(table.url),
            self._post,
            model=table.model,
            key=_key(table),
            endpoint=table.endpoint,
            template=table.template,
            label=table.label,
            batch=table.batch,
        )
        return TrainedScorer(served, calibration)

    async def _post(self, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:
        """Post to a scorer's server (see `scorers.trained.Post`). The caller sets the time limit."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(None, sock_connect=10))
        all_headers = {**headers, "Content-Type": "application/json"}
        try:
            data = orjson.dumps(body)
            async with await send(self._session, "POST", url, data=data, headers=all_headers) as response:
                payload = await response.read()
                status = response.status
        except (aiohttp.ClientError, OSError) as error:
            raise ScorerError(f"its server can't be reached ({type(error).__name__})") from error
        value: Any = None
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(payload)
        if status >= 400 or not isinstance(value, dict):
            raise ScorerError(f"its server answered {status}")
        return value


@dataclass(slots=True)
class RequestModel:
    """The request's own model as a scorer may ask it (a `ScorerModel`): limits hold, tokens count.

    `ask` runs one more request. `spent` are the tokens that the request has already generated, `tokens` those
    that scorers have read and written.
    """

    ask: Callable[[RunRequest], Awaitable[RunResult]]
    request: RunRequest
    spent: int
    tokens: int = 0

    def count(self, tokens: int) -> None:
        """See `ScorerModel`."""
        self.tokens += tokens

    async def complete(self, messages: Sequence[Mapping[str, Any]], **params: Any) -> Sample:
        """See `ScorerModel`. `reasoning_effort` is the budget, off by default; `model` may name another."""
        limit = self.request.sampling.limits.max_tokens
        if limit is not None and self.spent >= limit:
            raise ScorerError("the request's limit in tokens is reached")
        model = self.request.model
        if (name := params.pop("model", model.name)) != model.name:
            model = ServedModel(name, self._family(name))
        thinking = parse_budget(params.pop("reasoning_effort", "off"), "reasoning_effort", model.levels)
        body = {"model": name, "messages": list(messages), **params}
        result = await self.ask(plan_request(body, RequestedSampling(thinking), ReplyOptions(), model))
        self.spent += result.generated
        self.tokens += result.generated + result.upstream_prompt
        return result.chosen[0]

    def _family(self, name: str) -> Family:
        """Return a model's family; an unknown name is an adapter's, on the base of the request's model."""
        own, family = self.request.model, find_family(name)
        return own.family if family is find_family("") and own.card and own.card.base else family


def _check_gate(name: str, table: TrainedTable | JudgeTable, embedded: Sequence[Path]) -> None:
    """Raise ValueError for a trained scorer without a passing release gate, unless it is called unproven."""
    if table.unproven:
        return
    path, directory = table.gate, _directory(table)
    if path is None and directory is not None:
        path = directory / GATE_FILE
    require_release(f"scorers.{name}", path, directory or _embedded(table, embedded))


def _embedded(table: TrainedTable | JudgeTable, files: Sequence[Path]) -> Path | None:
    """Return the embedded engine's file of a judge's model, if it serves that (see `EmbeddedEngine`)."""
    if isinstance(table, TrainedTable) or table.url is not None:
        return None
    return next((path for path in files if path.stem == table.model), None)


def _key(table: TrainedTable | JudgeTable) -> str | None:
    """Return the key of the scorer's own server, from the settings or the environment."""
    if table.key is not None:
        return table.key.get_secret_value()
    return None if table.key_env is None else os.environ.get(table.key_env)


def _directory(table: TrainedTable | JudgeTable) -> Path | None:
    """Return where a classifier's weights lie; a judge's are those of the engine that serves it."""
    return table.directory if isinstance(table, TrainedTable) else None


def _calibration(table: TrainedTable | JudgeTable) -> Calibration:
    """Return the calibration from the file in the settings, or beside a local model's weights, or none."""
    path, directory = table.calibration, _directory(table)
    if path is None and directory is not None and (directory / CALIBRATION_FILE).exists():
        path = directory / CALIBRATION_FILE
    try:
        return Calibration() if path is None else read_calibration(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"the calibration {path} can't be used: {error}") from error
