"""Replies of a teacher behind an OpenAI-compatible endpoint, such as a gateway that votes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from policies.thinking import split_thinking
from training.config import SftTable
from training.types import Problem

__all__ = ["Replies", "TeacherError", "ask_endpoint"]

_CONCURRENCY = 16
_TIMEOUT_SECONDS = 600.0

Replies = Sequence[tuple[str, str]]
"""A teacher's replies to one question, as (thinking, answer)."""


class TeacherError(Exception):
    """The teacher failed to answer too many questions. The message gives the first reason."""


def ask_endpoint(
    table: SftTable,
    problems: Sequence[Problem],
    budgets: Sequence[str | None],
    *,
    earlier: Mapping[str, Replies] | None = None,
    save: Callable[[str, Replies], None] = lambda problem, replies: None,
) -> list[Replies]:
    """Return `table.samples` replies to each problem; a question that fails has fewer, or none.

    The budget is sent as the gateway's header, and the environment's THINKGATE_KEY as the key. Problems with
    `earlier` replies, by their ids, are not asked again; `save` is called with other replies as they arrive.
    Raises TeacherError if more than `table.max_failure_rate` of the questions failed. With the saved replies
    the next call asks only those.
    """
    replies = dict(earlier or {})
    questions = [
        (problem, budget)
        for problem, budget in zip(problems, budgets, strict=True)
        if problem.id not in replies
    ]
    new_replies, failures = asyncio.run(_ask_all(table, questions, save))
    replies.update(new_replies)
    if len(failures) > table.max_failure_rate * len(problems):
        raise TeacherError(
            f"{table.endpoint} did not answer {len(failures)} of {len(problems)} questions ({failures[0]}). "
            "Run the stage again to ask only those."
        )
    return [replies.get(problem.id, ()) for problem in problems]


async def _ask_all(
    table: SftTable,
    questions: Sequence[tuple[Problem, str | None]],
    save: Callable[[str, Replies], None],
) -> tuple[dict[str, Replies], list[str]]:
    """Return the replies by problem, and the reasons of those that failed."""
    slots = asyncio.Semaphore(_CONCURRENCY)
    key = os.environ.get("THINKGATE_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    failures: list[str] = []
    replies: dict[str, Replies] = {}
    writing = asyncio.Lock()
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:

        async def ask(problem: Problem, budget: str | None) -> None:
            async with slots:
                try:
                    replies[problem.id] = await _ask(http, table, problem, budget)
                except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
                    failures.append(str(error) or type(error).__name__)
                    return
                async with writing:
                    await asyncio.to_thread(save, problem.id, replies[problem.id])

        async with asyncio.TaskGroup() as group:
            for problem, budget in questions:
                group.create_task(ask(problem, budget))
    return replies, failures


async def _ask(http: aiohttp.ClientSession, table: SftTable, problem: Problem, budget: str | None) -> Replies:
    body: dict[str, Any] = {
        "model": table.endpoint_model or "",
        "messages": [{"role": "user", "content": problem.question}],
        "temperature": table.temperature,
        "max_tokens": table.max_tokens,
        "n": table.samples,
    }
    headers = {"X-Reasoning-Budget": budget} if budget else {}
    url = f"{(table.endpoint or '').rstrip('/')}/chat/completions"
    async with http.post(url, json=body, headers=headers) as response:
        if response.status >= 400:
            raise ValueError(f"{response.status}: {(await response.text())[:300]}")
        choices = (await response.json())["choices"]
    return [_reply(choice) for choice in choices if choice.get("finish_reason") == "stop"]


def _reply(choice: dict[str, Any]) -> tuple[str, str]:
    """Return (thinking, answer), with thinking from its own field or else from tags in the text."""
    message = choice["message"]
    text = message.get("content") or ""
    thinking = message.get("reasoning_content") or message.get("reasoning")
    return (thinking.strip(), text) if thinking else split_thinking(text)
