"""The reward for replies that can't be verified: a language model grades them by a rubric."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from scorers.judge import RUBRIC, JudgeScorer
from scorers.types import Sample
from training.types import Completion, Problem

__all__ = ["Judge", "Rubric"]


@dataclass(frozen=True, slots=True)
class Judge:
    """A model behind an OpenAI-compatible endpoint; `url` ends in /v1.

    `budget` is its reasoning budget; None sends none. One judgement may take `seconds`, and `max_tokens` with
    its thinking. The reward asks for `concurrency` judgements at once.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    budget: str | None = None
    seconds: float = 60.0
    max_tokens: int = 512
    concurrency: int = 8


@dataclass(frozen=True, slots=True)
class Rubric:
    """The judge's grade over 10, by the problem's rubric or `scorers.judge.RUBRIC`; in [0, 1].

    The prompt is that of serving's judge, which shows the answer without the thinking. None where a judgement
    fails, takes too long or can't be read. A truncated or empty reply gets 0.0 without a judgement.
    """

    judge: Judge

    def __call__(self, problem: Problem, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`. Blocks, also where an event loop runs."""
        indices = [
            index for index, reply in enumerate(completions) if reply.finished and reply.answer.strip()
        ]
        samples = [Sample(index, completions[index].answer) for index in indices]
        # A thread of its own, because this one may already run an event loop.
        with ThreadPoolExecutor(1) as thread:
            grades = thread.submit(asyncio.run, _grades(self.judge, problem, samples)).result()
        rewards = dict(zip(indices, grades, strict=True))
        return [rewards.get(index, 0.0) for index in range(len(completions))]


async def _grades(judge: Judge, problem: Problem, samples: Sequence[Sample]) -> list[float | None]:
    """Ask the judge for a grade of each sample."""
    grader = JudgeScorer(
        method="grade",
        model=judge.model,
        rubric=problem.rubric or RUBRIC,
        max_tokens=judge.max_tokens,
        concurrency=judge.concurrency,
    )
    headers = {"Authorization": f"Bearer {judge.key}"} if judge.key else {}
    limit = aiohttp.ClientTimeout(total=judge.seconds)
    async with aiohttp.ClientSession(headers=headers, timeout=limit) as http:
        question = [{"role": "user", "content": problem.question}]
        return await grader.score(question, samples, _Endpoint(http, judge))


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """The judge as a `scorers.types.ScorerModel`. A failed request gives a reply without a verdict."""

    http: aiohttp.ClientSession
    judge: Judge

    async def complete(self, messages: Sequence[Mapping[str, Any]], **params: Any) -> Sample:
        """See `scorers.types.ScorerModel`."""
        budget = {} if self.judge.budget is None else {"reasoning_effort": self.judge.budget}
        body = {**params, "messages": messages, **budget}
        if not budget:
            body.pop("reasoning_effort", None)
        try:
            async with self.http.post(
                f"{self.judge.url.rstrip('/')}/chat/completions", json=body
            ) as response:
                response.raise_for_status()
                choice = (await response.json(content_type=None))["choices"][0]
                text = choice["message"]["content"] or ""
                return Sample(0, str(text), finish_reason=str(choice.get("finish_reason")))
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError):
            return Sample(0, "", finish_reason="length")  # the judge reads no verdict in it

    def count(self, tokens: int) -> None:
        """Do nothing: nobody pays for tokens here."""
