"""Send evaluation requests concurrently and grade the replies."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scorers.answers import verify_async
from scorers.grader.pool import WorkerPool
from training.evaluation.client import Client, RequestFailed
from training.evaluation.replies import EvaluatedReply
from training.evaluation.settings import EvaluationSetting
from training.types import Problem

__all__ = ["EvaluationFailed", "EvaluationRequest", "chat_body", "evaluate_all", "grade_reply"]

_MAX_CONSECUTIVE_FAILURES = 5
_SEED_STRIDE = 1009  # the samples of a problem take consecutive seeds; those of two problems must not overlap
_SCORER_FAILURE = re.compile(r'^the scorer ".*" (failed|took longer)')
"""The note that the gateway adds when a vote continued without its scorer (`gateway.runs.voting`)."""


class EvaluationFailed(Exception):
    """The evaluation cannot continue; the message says why."""


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """One problem at one setting, with the body of its chat request."""

    setting: EvaluationSetting
    problem: Problem
    body: Mapping[str, Any]


def chat_body(
    model: str,
    messages: Sequence[Mapping[str, str]],
    *,
    index: int,
    seed: int,
    temperature: float,
    max_tokens: int,
) -> dict[str, Any]:
    """Return the body of a chat request for the problem at `index`; `max_tokens` 0 sets no limit.

    Each problem has its own seed, the same at all settings and for all models.
    """
    body: dict[str, Any] = {"model": model, "messages": messages, "temperature": temperature}
    if max_tokens:
        body["max_tokens"] = max_tokens
    return {**body, "seed": seed + _SEED_STRIDE * index}


async def evaluate_all(
    client: Client,
    requests: Sequence[EvaluationRequest],
    extract: Callable[[str], str | None],
    on_reply: Callable[[EvaluatedReply], None],
    *,
    concurrency: int,
    completed: int = 0,
) -> list[tuple[EvaluationRequest, RequestFailed]]:
    """Send every request, pass each graded reply to `on_reply`, and return the requests that failed.

    `extract` is the strict extraction of the answer form. `completed` is the number of replies from earlier
    runs, for the progress bar. Raises EvaluationFailed after several consecutive failures.
    """
    pending = iter(requests)
    failures: list[tuple[EvaluationRequest, RequestFailed]] = []
    consecutive_failures = 0

    async def worker() -> None:
        nonlocal consecutive_failures
        for request in pending:
            try:
                reply = await _evaluate(client, request, extract, pool)
            except RequestFailed as error:
                failures.append((request, error))
                consecutive_failures += 1
                if consecutive_failures >= _MAX_CONSECUTIVE_FAILURES:
                    return
                continue
            consecutive_failures = 0
            on_reply(reply)
            progress.update(task, advance=1)

    async with WorkerPool() as pool:
        with _progress_bar() as progress:
            task = progress.add_task("asking", total=len(requests) + completed, completed=completed)
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(requests))):
                    group.create_task(worker())
    if consecutive_failures >= _MAX_CONSECUTIVE_FAILURES:
        raise EvaluationFailed(f"{consecutive_failures} questions in a row failed: {failures[-1][1]}")
    return failures


async def _evaluate(
    client: Client,
    request: EvaluationRequest,
    extract: Callable[[str], str | None],
    pool: WorkerPool,
) -> EvaluatedReply:
    body, seconds = await client.complete(request.setting, request.body)
    try:
        choice, usage = body["choices"][0], body["usage"]
        text = choice["message"].get("content") or ""
        tokens = usage["completion_tokens"]
        reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
        samples, finish = body["scaling"]["samples"]["launched"], choice.get("finish_reason") or ""
        notes = [str(note) for note in body["scaling"].get("notes") or ()]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise RequestFailed(f"the reply can't be read ({type(error).__name__}: {error})") from error
    if "X-Scorer" in request.setting.headers:
        # Without its scorer the vote is not the one that the setting names.
        for note in notes:
            if _SCORER_FAILURE.search(note):
                raise RequestFailed(note)
    strict, lenient = await grade_reply(text, request.problem, extract, pool)
    return EvaluatedReply(
        request.setting.name,
        request.problem.id,
        strict,
        lenient,
        tokens,
        reasoning,
        samples,
        round(seconds, 3),
        finish,
        text,
    )


async def grade_reply(
    text: str,
    problem: Problem,
    extract: Callable[[str], str | None],
    pool: WorkerPool | None = None,
) -> tuple[bool | None, bool | None]:
    """Return whether the reply is correct, strictly and leniently; None where the grader can't decide."""

    async def is_right(reply: str) -> bool | None:
        return await verify_async(reply, problem.gold or "", pool, tolerance=problem.tolerance)

    answer = extract(text)
    strict = answer is not None and await is_right(f"\\boxed{{{answer}}}")
    return strict, await is_right(text)


def _progress_bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=Console(stderr=True))
