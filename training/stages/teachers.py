"""Replies of a teacher behind an OpenAI-compatible endpoint: a gateway that votes among them, say."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from policies.thinking import split_thinking
from training.config import SftTable
from training.types import Problem

__all__ = ["TeacherError", "ask_endpoint"]

_AT_ONCE = 16
_SECONDS = 600.0

Replies = Sequence[tuple[str, str]]
"""A teacher's replies to one question, as (thinking, answer)."""


class TeacherError(Exception):
    """The teacher failed at too many questions; the message says why."""


def ask_endpoint(
    table: SftTable,
    rows: Sequence[Problem],
    budgets: Sequence[str | None],
    *,
    known: Mapping[str, Replies] | None = None,
    keep: Callable[[str, Replies], None] = lambda row, replies: None,
) -> list[Replies]:
    """`table.samples` replies (thinking, answer) to each row; a question that fails has fewer, or none.

    The budget goes along as the gateway's header; a key in the environment's THINKGATE_KEY too.
    Rows that `known` has replies to, by their ids, are not asked; `keep` is given those of the others as
    they come in. Raises TeacherError where more than `table.may_fail` of the questions failed: with what
    `keep` took, the next call has to ask only those.
    """
    told = dict(known or {})
    asked = [(row, budget) for row, budget in zip(rows, budgets, strict=True) if row.id not in told]
    found, failures = asyncio.run(_ask_all(table, asked, keep))
    told.update(found)
    if len(failures) > table.may_fail * len(rows):
        raise TeacherError(
            f"{table.endpoint} did not answer {len(failures)} of {len(rows)} questions ({failures[0]}); "
            "the stage, run again, asks those alone"
        )
    return [told.get(row.id, ()) for row in rows]


async def _ask_all(
    table: SftTable, asked: Sequence[tuple[Problem, str | None]], keep: Callable[[str, Replies], None]
) -> tuple[dict[str, Replies], list[str]]:
    """The replies by row, and what went wrong with those that have none."""
    turns = asyncio.Semaphore(_AT_ONCE)
    key = os.environ.get("THINKGATE_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    failures: list[str] = []
    found: dict[str, Replies] = {}
    writing = asyncio.Lock()
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=_SECONDS)) as http:

        async def ask(row: Problem, budget: str | None) -> None:
            async with turns:
                try:
                    found[row.id] = await _replies(http, table, row, budget)
                except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
                    failures.append(str(error) or type(error).__name__)
                    return
                async with writing:
                    await asyncio.to_thread(keep, row.id, found[row.id])

        async with asyncio.TaskGroup() as group:
            for row, budget in asked:
                group.create_task(ask(row, budget))
    return found, failures


async def _replies(http: aiohttp.ClientSession, table: SftTable, row: Problem, budget: str | None) -> Replies:
    body: dict[str, Any] = {
        "model": table.endpoint_model or "",
        "messages": [{"role": "user", "content": row.question}],
        "temperature": table.temperature,
        "max_tokens": table.max_tokens,
        "n": table.samples,
    }
    headers = {"X-Reasoning-Budget": budget} if budget else {}
    async with http.post(
        f"{(table.endpoint or '').rstrip('/')}/chat/completions", json=body, headers=headers
    ) as reply:
        if reply.status >= 400:
            raise ValueError(f"{reply.status}: {(await reply.text())[:300]}")
        choices = (await reply.json())["choices"]
    return [_reply(choice) for choice in choices if choice.get("finish_reason") == "stop"]


def _reply(choice: dict[str, Any]) -> tuple[str, str]:
    """Thinking from its own field, under either name, else from tags in the text."""
    message = choice["message"]
    text = message.get("content") or ""
    thinking = message.get("reasoning_content") or message.get("reasoning")
    return (thinking.strip(), text) if thinking else split_thinking(text)
