"""Asks many questions at once, but not too many, and marks what comes back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scorers.answers import verify_async
from scorers.grader.pool import MathPool
from training.data.problems import EvaluationProblem
from training.evaluation.client import Client, RequestFailed
from training.evaluation.replies import EvaluatedReply
from training.evaluation.settings import EvaluationSetting

__all__ = ["EvaluationFailed", "EvaluationRequest", "evaluate_all", "grade_reply"]

_IN_A_ROW = 5
_FAILED = re.compile(r'^the scorer ".*" (failed|took longer)')
"""What the gateway notes where a vote went on without its scorer (`gateway.runs.voting`)."""


class EvaluationFailed(Exception):
    """The evaluation can't go on; the message says why."""


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """One question to be asked at one setting, with the chat request for it."""

    setting: EvaluationSetting
    problem: EvaluationProblem
    body: Mapping[str, Any]


async def evaluate_all(
    client: Client,
    work: Sequence[EvaluationRequest],
    find: Callable[[str], str | None],
    keep: Callable[[EvaluatedReply], None],
    *,
    concurrency: int,
    done: int = 0,
) -> list[tuple[EvaluationRequest, RequestFailed]]:
    """Hands every reply to `keep` once it is marked; returns what stayed without one.

    `find` is the strict reading; `done` replies were there before, for the progress bar.
    Raises EvaluationFailed where several questions in a row could not be asked.
    """
    left = iter(work)
    failures: list[tuple[EvaluationRequest, RequestFailed]] = []
    in_a_row = 0

    async def worker() -> None:
        nonlocal in_a_row
        for item in left:
            try:
                reply = await _ask(client, item, find, pool)
            except RequestFailed as error:
                failures.append((item, error))
                in_a_row += 1
                if in_a_row >= _IN_A_ROW:
                    return
                continue
            in_a_row = 0
            keep(reply)
            bar.update(task, advance=1)

    async with MathPool() as pool:
        with _bar() as bar:
            task = bar.add_task("asking", total=len(work) + done, completed=done)
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(work))):
                    group.create_task(worker())
    if in_a_row >= _IN_A_ROW:
        raise EvaluationFailed(f"{in_a_row} questions in a row failed: {failures[-1][1]}")
    return failures


async def _ask(
    client: Client, work: EvaluationRequest, find: Callable[[str], str | None], pool: MathPool
) -> EvaluatedReply:
    body, seconds = await client.ask(work.setting, work.body)
    try:
        choice, usage = body["choices"][0], body["usage"]
        text = choice["message"].get("content") or ""
        tokens = usage["completion_tokens"]
        reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
        samples, finish = body["scaling"]["samples"]["launched"], choice.get("finish_reason") or ""
        notes = [str(note) for note in body["scaling"].get("notes") or ()]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise RequestFailed(f"the reply can't be read ({type(error).__name__}: {error})") from error
    if "X-Scorer" in work.setting.headers and (failed := [note for note in notes if _FAILED.search(note)]):
        raise RequestFailed(failed[0])  # the vote is another one than the setting says
    strict, lenient = await grade_reply(text, work.problem, find, pool)
    return EvaluatedReply(
        work.setting.name,
        work.problem.id,
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
    text: str, problem: EvaluationProblem, find: Callable[[str], str | None], pool: MathPool | None = None
) -> tuple[bool | None, bool | None]:
    """Whether the reply is right (strictly, leniently); None where the grader could not decide."""

    async def right(reply: str) -> bool | None:
        return await verify_async(reply, problem.gold, pool, tolerance=problem.tolerance)

    declared = find(text)
    strict = declared is not None and await right(f"\\boxed{{{declared}}}")
    return strict, await right(text)


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=Console(stderr=True))
