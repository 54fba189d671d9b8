"""Evaluate two models on the same problems with the same seeds, through one gateway."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.gym import gym_problems
from training.data.problems import choose_problems, problems_digest
from training.data.readers import read_answered
from training.evaluation.answer_forms import ANSWER_FORMS, chat_messages
from training.evaluation.client import Client
from training.evaluation.metrics import GradingMode
from training.evaluation.replies import EvaluatedReply, open_reply_log
from training.evaluation.runner import EvaluationFailed, EvaluationRequest, chat_body, evaluate_all
from training.evaluation.settings import EvaluationSetting
from training.promotion.decisions import PairedOutcomes
from training.types import Problem

__all__ = ["ComparisonSettings", "DataSet", "evaluate_both", "load_data_set", "pair_replies"]

_DEFAULT_TASK_COUNT = 100


@dataclass(frozen=True, slots=True)
class ComparisonSettings:
    """How both models are asked."""

    setting: EvaluationSetting
    form: str = "boxed"
    seed: int = 1
    temperature: float = 0.7
    max_tokens: int = 0
    concurrency: int = 4


@dataclass(frozen=True, slots=True)
class DataSet:
    """Problems to compare on, and whether the candidate was trained on this kind."""

    name: str
    trained: bool
    problems: tuple[Problem, ...]


def load_data_set(source: str, count: int, seed: int, *, trained: bool) -> DataSet:
    """Load the file `source`, or the reasoning-gym task if no such file exists. Raises DataError."""
    path = Path(source)
    if path.exists():
        name, pool = path.name, read_answered(path)
    else:
        name, pool = source, gym_problems(source, count or _DEFAULT_TASK_COUNT, seed)
    _, problems = choose_problems(pool, min(count, len(pool)), 0, seed)
    return DataSet(name, trained, tuple(problems))


async def evaluate_both(
    client: Client,
    data: DataSet,
    models: Sequence[str],
    settings: ComparisonSettings,
    directory: Path,
    *,
    mode: GradingMode,
) -> PairedOutcomes:
    """Evaluate (current, candidate) and pair their replies; replies in the directory are not asked again.

    Raises EvaluationFailed if replies stay missing; also RequestFailed, ReplyLogError and OSError.
    """
    replies: list[Mapping[str, EvaluatedReply]] = []
    for model in models:
        path = directory / f"{_filename(data.name)}-{_filename(model)}.jsonl"
        replies.append(await _evaluate(client, data, model, settings, path))
    return pair_replies(data, replies[0], replies[1], mode)


def pair_replies(
    data: DataSet,
    current: Mapping[str, EvaluatedReply],
    candidate: Mapping[str, EvaluatedReply],
    mode: GradingMode,
) -> PairedOutcomes:
    """Pair both models' outcomes by problem; a reply that the grader could not decide counts as wrong."""
    ids = [problem.id for problem in data.problems if problem.id in current and problem.id in candidate]
    return PairedOutcomes(
        data.name,
        data.trained,
        tuple((getattr(current[id_], mode) is True, getattr(candidate[id_], mode) is True) for id_ in ids),
    )


async def _evaluate(
    client: Client, data: DataSet, model: str, settings: ComparisonSettings, path: Path
) -> Mapping[str, EvaluatedReply]:
    form = ANSWER_FORMS[settings.form]
    chats = {problem.id: chat_messages(problem, form) for problem in data.problems}
    about: dict[str, Any] = {
        "data": data.name,
        "problems_digest": problems_digest(data.problems, chats),
        "setting": settings.setting.name,
        "form": settings.form,
        "seed": settings.seed,
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "model": model,
    }
    with open_reply_log(path, about) as log:
        log.begin(model)
        requests = [
            EvaluationRequest(settings.setting, problem, _body(model, chats[problem.id], settings, index))
            for index, problem in enumerate(data.problems)
            if (settings.setting.name, problem.id) not in log
        ]
        if requests:
            failures = await evaluate_all(
                client,
                requests,
                form.extract,
                log.add,
                concurrency=settings.concurrency,
                completed=len(data.problems) - len(requests),
            )
            if failures:
                reason = f"{model} on {data.name}: {len(failures)} replies are missing ({failures[0][1]})"
                raise EvaluationFailed(f"{reason}; run the same command to ask for them again")
        return {reply.id: reply for reply in log}


def _body(
    model: str, messages: Sequence[Mapping[str, str]], settings: ComparisonSettings, index: int
) -> dict[str, Any]:
    return chat_body(
        model,
        messages,
        index=index,
        seed=settings.seed,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
    )


def _filename(name: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", name)
