"""One request's vote: it reads and groups answers as samples finish; at the end it scores and votes.

What may take long (a hostile answer, sympy, similarity of long texts, a scorer) never runs on the event
loop. Each has a time limit of its own, past which the vote goes on without it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Literal

from gateway.errors import GatewayError
from gateway.runs.request import RunRequest
from gateway.scorer_settings import SCORERS
from policies.stopping import parse_stop
from policies.voting import take_vote
from scorers.answers import equivalent_async
from scorers.confidence import WINDOW
from scorers.grader.pool import WorkerPool
from scorers.grouping import AsyncGrouper, singleton_groups
from scorers.sample_answers import is_free_form, read_answer_async
from scorers.types import (
    Answer,
    Group,
    Sample,
    Scorer,
    ScorerError,
    ScorerModel,
    VoteOptions,
    VoteResult,
)
from scorers.votes import SCORED_VOTES, majority

__all__ = ["FinalVote", "LazyAsyncPool", "VoteSettings", "VoteTally"]

_EXPLICIT = re.compile(r"\\boxed\s*\{|<answer>|^#### *-?\$?\d", re.MULTILINE)


class LazyAsyncPool(WorkerPool):
    """The grader's workers, which the first question after `open` starts.

    Few requests need them, so an app doesn't start them for nothing. Before `open`, and where they can't
    start, every question stays undecided; `failure` and the log say why they can't.
    """

    def __init__(self, workers: int = 2) -> None:
        super().__init__(workers)
        self._starting: asyncio.Task[None] | None = None
        self._opened = False

    def open(self) -> None:
        """Allow questions from now on."""
        self._opened = True

    async def ask_async(self, a: str, b: str) -> bool | None:
        """See `WorkerPool.ask_async`."""
        if not self._opened:
            return None
        if self._starting is None:
            self._starting = asyncio.create_task(self._try_to_start())
        await asyncio.shield(self._starting)
        return await super().ask_async(a, b)

    async def close_async(self) -> None:
        """See `WorkerPool.close_async`."""
        self._opened = False
        if self._starting is not None:
            await asyncio.wait({self._starting})
            await super().close_async()

    async def _try_to_start(self) -> None:
        try:
            await self.start_async()
        except (RuntimeError, OSError) as error:
            self._report(error)


@dataclass(frozen=True, slots=True)
class VoteSettings:
    """The settings that all votes of an app share.

    `pool` holds the grader's workers; without it, answers that only they could compare count as different.
    `scorers` are those that clients may name. `launch` and `concurrency` are `VotePolicy`'s. `free_form`
    decides where the replies are free text: "mbr", "first" (the first complete one), or a scorer's name.
    `scorer_seconds` limits a scorer, `pool_seconds` all of a request's waiting for the workers.
    `top_logprobs` and `window`, in tokens, are DeepConf's k and group size.
    """

    pool: WorkerPool | None = None
    scorers: Mapping[str, Scorer] = field(default_factory=lambda: SCORERS)
    launch: Literal["waves", "all"] = "waves"
    concurrency: int | None = None
    free_form: str = "mbr"
    scorer_seconds: float = 30.0
    pool_seconds: float = 5.0
    top_logprobs: int = 20
    window: int = WINDOW

    def scorer(self, request: RunRequest) -> str:
        """Return the name of the scorer that a vote needs; the vote "confidence" brings its own."""
        sampling = request.sampling
        return "confidence" if (sampling.vote, sampling.scorer) == ("confidence", "none") else sampling.scorer

    def with_logprobs(self, request: RunRequest) -> RunRequest:
        """Return the request with the logprobs that its scorer or its stopping rule needs, if one does."""
        scorer = self.scorers.get(self.scorer(request))
        needed = request.sampling.stop == "confident" or (scorer is not None and scorer.needs_logprobs)
        if not (request.votes and needed):
            return request
        top = max(self.top_logprobs, request.body.get("top_logprobs") or 0)
        body = {**request.body, "logprobs": True, "top_logprobs": top}
        return replace(
            request, body=body, window=self.window, keeps_logprobs=bool(request.body.get("logprobs"))
        )


@dataclass(frozen=True, slots=True)
class FinalVote:
    """The vote at the end of a run: its result, the `method` and scorer behind it, notes for the client."""

    result: VoteResult
    method: str
    scorer: str
    scores: Mapping[int, float]
    notes: tuple[str, ...] = ()


class VoteTally:
    """Collects the answers of one request, groups them, and votes.

    `answers` maps the index of each sample that has an answer to it.
    """

    def __init__(self, request: RunRequest, vote_settings: VoteSettings) -> None:
        self.answers: dict[int, Answer] = {}
        self.groups: tuple[Group, ...] = ()
        self._request = request
        self._vote_settings = vote_settings
        self._grouper = AsyncGrouper(self._equal)
        self._seconds_left = vote_settings.pool_seconds
        shortest_first = parse_stop(request.sampling.stop) == "first-m"
        self._options = VoteOptions(min_share=request.min_share, shortest_first=shortest_first)
        form = request.body.get("response_format")
        self._as_json = isinstance(form, Mapping) and form.get("type") in ("json_schema", "json_object")

    async def add(self, sample: Sample) -> bool:
        """Read a finished sample's answer and group it; return whether it has a vote."""
        if sample.truncated:
            return False
        answer = await read_answer_async(sample, as_json=self._as_json)
        if answer is None:
            return False
        self.answers[sample.index] = answer
        has_vote = await self._grouper.add(sample, answer)
        self.groups = self._grouper.groups
        return has_vote

    def current_result(self, samples: Sequence[Sample]) -> VoteResult:
        """Return the vote so far, by the number of samples alone; scores and similarity come at the end."""
        return majority(self.groups, samples, self._options)

    async def decide(self, samples: Sequence[Sample], model: ScorerModel, seconds: float | None) -> FinalVote:
        """Score the samples, given in order of finishing, and vote; `seconds` is what is left to do so."""
        vote, scorer = self._request.sampling.vote, self._vote_settings.scorer(self._request)
        notes: list[str] = []
        free_form = vote != "mbr" and self._is_free_form(samples)
        if free_form:
            vote, scorer = self._for_free_form(scorer)
        groups = singleton_groups(samples) if free_form or vote == "mbr" else self.groups
        scores: Mapping[int, float] = {}
        if scorer != "none":
            votable = {index for group in groups for index in group.members}
            candidates = [sample for sample in samples if sample.index in votable]
            scores, notes = await self._score(scorer, candidates, model, seconds)
            if free_form and not scores:
                vote = "mbr"
        elif vote in SCORED_VOTES:
            notes.append(f'the vote "{vote}" had no scorer, so every sample counted the same')
        if free_form:
            notes.append(f'the replies are free text, so "{vote}" chose among them instead of a count')
        sampling, min_share = replace(self._request.sampling, vote=vote), self._request.min_share
        if vote == "mbr":
            result = await asyncio.to_thread(
                take_vote, sampling, groups, samples, scores, min_share=min_share
            )
        else:
            result = take_vote(sampling, groups, samples, scores, min_share=min_share)
        return FinalVote(result, vote, scorer, scores, tuple(notes))

    def _is_free_form(self, samples: Sequence[Sample]) -> bool:
        """Tell whether there is nothing to count: mostly free text, and no reply that marks its answer."""
        if self._as_json or len(samples) < 2 or self._vote_settings.free_form == "first":
            return False
        answers = [self.answers.get(sample.index) for sample in samples]
        return (
            is_free_form(samples, answers)
            and not any(_EXPLICIT.search(sample.content) for sample in samples)
            and len(singleton_groups(samples)) > 1
        )

    def _for_free_form(self, scorer: str) -> tuple[str, str]:
        """Return the vote and the scorer for free text."""
        if scorer != "none":
            return "best", scorer
        free_form = self._vote_settings.free_form
        return ("mbr", "none") if free_form == "mbr" else ("best", free_form)

    async def _score(
        self, name: str, candidates: Sequence[Sample], model: ScorerModel, seconds: float | None
    ) -> tuple[Mapping[int, float], list[str]]:
        """Return the scores by sample index, and a note where the scorer gave none."""
        limit = self._vote_settings.scorer_seconds
        if seconds is not None:
            limit = min(limit, seconds)
        if not candidates:
            return {}, []
        try:
            async with asyncio.timeout(limit):
                values = await self._vote_settings.scorers[name].score(
                    self._request.body["messages"], candidates, model
                )
        except TimeoutError:
            return {}, [f'the scorer "{name}" took longer than {limit:.3g} s; the vote is unweighted']
        except (ScorerError, GatewayError) as error:
            return {}, [f'the scorer "{name}" failed ({error}); the vote is unweighted']
        scores = {
            sample.index: value
            for sample, value in zip(candidates, values, strict=True)
            if value is not None and isfinite(value) and 0 <= value <= 1
        }
        notes = [] if scores else [f'the scorer "{name}" had no opinion; the vote is unweighted']
        return scores, notes

    async def _equal(self, first: Answer, new: Answer) -> bool | None:
        """Compare two answers; ask the workers only until the request's seconds for them are used up."""
        if self._vote_settings.pool is None or self._seconds_left <= 0:
            return await equivalent_async(first, new)
        started = time.monotonic()
        equal = await equivalent_async(first, new, self._vote_settings.pool)
        self._seconds_left -= time.monotonic() - started
        return equal
