"""Two models asked the same questions with the same seeds, through one gateway."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.problems import EvaluationProblem, choose, digest, gym_problems, read_problems
from training.evaluation.answer_forms import ANSWER_FORMS, chat_messages
from training.evaluation.client import Client
from training.evaluation.metrics import GradingMode
from training.evaluation.replies import EvaluatedReply, open_reply_log
from training.evaluation.runner import EvaluationFailed, EvaluationRequest, evaluate_all
from training.evaluation.settings import EvaluationSetting
from training.promotion.decisions import PairedOutcomes

__all__ = ["ComparisonSettings", "DataSet", "evaluate_both", "load_data_set", "pair_replies"]

_TASK_COUNT = 100


@dataclass(frozen=True, slots=True)
class ComparisonSettings:
    """How both are asked."""

    setting: EvaluationSetting
    form: str = "boxed"
    seed: int = 1
    temperature: float = 0.7
    max_tokens: int = 0
    concurrency: int = 4


@dataclass(frozen=True, slots=True)
class DataSet:
    """Questions, and whether the candidate was trained on such ones."""

    name: str
    trained: bool
    problems: tuple[EvaluationProblem, ...]


def load_data_set(source: str, count: int, seed: int, *, trained: bool) -> DataSet:
    """A file of JSON lines where there is one of this name, else a reasoning-gym task. Raises DataError."""
    path = Path(source)
    pool = read_problems(path) if path.exists() else gym_problems(source, count or _TASK_COUNT, seed)
    _, problems = choose(pool, min(count, len(pool)), 0, seed)
    return DataSet(path.name if path.exists() else source, trained, tuple(problems))


async def evaluate_both(
    client: Client,
    data: DataSet,
    models: Sequence[str],
    terms: ComparisonSettings,
    directory: Path,
    *,
    by: GradingMode,
) -> PairedOutcomes:
    """Asks what the directory has no replies to yet, and pairs all of them.

    Raises EvaluationFailed where replies stay missing, AskFailed, ResultsError, OSError.
    """
    replies: list[Mapping[str, EvaluatedReply]] = []
    for model in models:
        path = directory / f"{_filename(data.name)}-{_filename(model)}.jsonl"
        replies.append(await _ask(client, data, model, terms, path))
    return pair_replies(data, replies[0], replies[1], by)


def pair_replies(
    data: DataSet,
    current: Mapping[str, EvaluatedReply],
    candidate: Mapping[str, EvaluatedReply],
    by: GradingMode,
) -> PairedOutcomes:
    """What both made of each problem; one that the grader could not decide counts as wrong."""
    both = [problem.id for problem in data.problems if problem.id in current and problem.id in candidate]
    return PairedOutcomes(
        data.name,
        data.trained,
        tuple((getattr(current[key], by) is True, getattr(candidate[key], by) is True) for key in both),
    )


async def _ask(
    client: Client, data: DataSet, model: str, terms: ComparisonSettings, path: Path
) -> Mapping[str, EvaluatedReply]:
    form = ANSWER_FORMS[terms.form]
    chats = {problem.id: chat_messages(problem, form, []) for problem in data.problems}
    about: dict[str, Any] = {
        "data": data.name,
        "digest": digest(data.problems, chats),
        "setting": terms.setting.name,
        "form": terms.form,
        "seed": terms.seed,
        "temperature": terms.temperature,
        "max_tokens": terms.max_tokens,
        "model": model,
    }
    with open_reply_log(path, about) as held:
        held.begin(model)
        work = [
            EvaluationRequest(terms.setting, problem, _body(model, chats[problem.id], terms, place))
            for place, problem in enumerate(data.problems)
            if (terms.setting.name, problem.id) not in held
        ]
        if work:
            done = len(data.problems) - len(work)
            failures = await evaluate_all(
                client, work, form.find, held.add, concurrency=terms.concurrency, done=done
            )
            if failures:
                told = f"{model} on {data.name}: {len(failures)} replies are missing ({failures[0][1]})"
                raise EvaluationFailed(f"{told}; the same command asks for them again")
        return {reply.id: reply for reply in held}


def _body(model: str, chat: list[dict[str, str]], terms: ComparisonSettings, place: int) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": chat, "temperature": terms.temperature}
    if terms.max_tokens:
        body["max_tokens"] = terms.max_tokens
    return {**body, "seed": terms.seed + 1009 * place}


def _filename(name: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", name)
