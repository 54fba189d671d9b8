"""One request's vote: answers read and compared as samples finish, scores and the verdict at the end.

What may take long (a hostile answer, sympy, similarity of long texts, a scorer) never runs
on the event loop, and each has a limit of its own, past which the vote goes on without it.
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
from scorers.types import Answer, Group, Sample, Scorer, ScorerError, ScorerModel, VoteResult

__all__ = ["Decision", "Election", "LatePool", "VoteSettings"]

_SCORED_VOTES = frozenset({"weighted", "best", "best-of-majority", "borda"})
_EXPLICIT = re.compile(r"\\boxed\s*\{|<answer>|^#### *-?\$?\d", re.MULTILINE)


class LatePool(WorkerPool):
    """The grader's workers, started by the first question between `open` and `close_async`.

    Few requests ever need them, so an app doesn't start them for nothing. Where they can't
    start, or before `open`, every question stays undecided; `failure` and the log say why they can't.
    """

    def __init__(self, workers: int = 2) -> None:
        super().__init__(workers)
        self._starting: asyncio.Task[None] | None = None
        self._opened = False

    def open(self) -> None:
        """Allows questions from now on."""
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
    """How an app's votes are held.

    `pool` holds the grader's workers; without it, answers that only they could compare
    count as different. `scorers` are those that clients may name. `launch` and
    `concurrency` are `VotePolicy`'s. `free_form` decides where the replies are talk: "mbr",
    "first" (the first complete one), or a scorer's name. `scorer_seconds` limits a scorer,
    `pool_seconds` all of a request's waiting for the workers. `top_logprobs` and `window`,
    in tokens, are DeepConf's k and group size.
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
        """The scorer's name that a request's vote needs; the vote "confidence" brings its own."""
        sampling = request.sampling
        return "confidence" if (sampling.vote, sampling.scorer) == ("confidence", "none") else sampling.scorer

    def needs_logprobs(self, request: RunRequest) -> bool:
        """Whether the upstream has to be asked for logprobs, though the client may not have."""
        scorer = self.scorers.get(self.scorer(request))
        watched = parse_stop(request.sampling.stop) == "confident"
        return request.votes and (watched or (scorer is not None and scorer.needs_logprobs))


@dataclass(frozen=True, slots=True)
class Decision:
    """A vote's end: the verdict, by which `method` it came about, what is to be told of that."""

    verdict: VoteResult
    method: str
    scorer: str
    scores: Mapping[int, float]
    notes: tuple[str, ...] = ()


class Election:
    """One request's answers, their classes and the vote over them."""

    def __init__(self, request: RunRequest, vote_settings: VoteSettings) -> None:
        self._request = request
        self._vote_settings = vote_settings
        self._grouper = AsyncGrouper(self._same)
        self._answers: dict[int, Answer] = {}
        self._patience = vote_settings.pool_seconds
        form = request.body.get("response_format")
        self._as_json = isinstance(form, Mapping) and form.get("type") in ("json_schema", "json_object")

    @property
    def groups(self) -> tuple[Group, ...]:
        """The classes so far."""
        return self._grouper.groups

    def answer(self, index: int) -> str | None:
        """What a sample answers, as it wrote it."""
        answer = self._answers.get(index)
        return None if answer is None else answer.raw

    async def add(self, sample: Sample) -> bool:
        """Takes a finished sample's answer; whether it has one that counts."""
        if sample.truncated:
            return False
        answer = await read_answer_async(sample, as_json=self._as_json)
        if answer is not None:
            self._answers[sample.index] = answer
        return await self._grouper.add(sample, answer)

    def standing(self, samples: Sequence[Sample]) -> VoteResult:
        """How the answers stand by their counts; scores and similarity come only at the end."""
        return self._decide("majority", self.groups, samples, {})

    async def decide(self, samples: Sequence[Sample], model: ScorerModel, seconds: float | None) -> Decision:
        """The verdict over `samples`, in order of finishing; `seconds` are left of the request's limit."""
        vote, scorer = self._request.sampling.vote, self._vote_settings.scorer(self._request)
        notes: list[str] = []
        talk = vote != "mbr" and self._is_talk(samples)
        if talk:
            vote, scorer = self._for_talk(scorer)
        groups = singleton_groups(samples) if talk or vote == "mbr" else self.groups
        scores: Mapping[int, float] = {}
        if scorer != "none":
            votable = {index for group in groups for index in group.members}
            candidates = [sample for sample in samples if sample.index in votable]
            scores, notes = await self._score(scorer, candidates, model, seconds)
            if talk and not scores:
                vote = "mbr"
        elif vote in _SCORED_VOTES:
            notes.append(f'the vote "{vote}" had no scorer, so every sample counted the same')
        if talk:
            notes.append(f'the replies are free text, so "{vote}" chose among them instead of a count')
        if vote == "mbr":
            verdict = await asyncio.to_thread(self._decide, vote, groups, samples, scores)
        else:
            verdict = self._decide(vote, groups, samples, scores)
        return Decision(verdict, vote, scorer, scores, tuple(notes))

    def _decide(
        self, vote: str, groups: Sequence[Group], samples: Sequence[Sample], scores: Mapping[int, float]
    ) -> VoteResult:
        sampling = replace(self._request.sampling, vote=vote)
        return take_vote(sampling, groups, samples, scores, min_share=self._request.min_share)

    def _is_talk(self, samples: Sequence[Sample]) -> bool:
        """Whether there is nothing to count: talk by most, and no reply that marks its answer as one."""
        if self._as_json or len(singleton_groups(samples)) < 2 or self._vote_settings.free_form == "first":
            return False
        answers = [self._answers.get(sample.index) for sample in samples]
        return is_free_form(samples, answers) and not any(_EXPLICIT.search(s.content) for s in samples)

    def _for_talk(self, scorer: str) -> tuple[str, str]:
        """The vote and the scorer over free text."""
        if scorer != "none":
            return "best", scorer
        return (
            ("mbr", "none")
            if self._vote_settings.free_form == "mbr"
            else ("best", self._vote_settings.free_form)
        )

    async def _score(
        self, name: str, candidates: Sequence[Sample], model: ScorerModel, seconds: float | None
    ) -> tuple[Mapping[int, float], list[str]]:
        """The scores by sample index, and why there are none where the scorer gave none."""
        limit = (
            self._vote_settings.scorer_seconds
            if seconds is None
            else min(self._vote_settings.scorer_seconds, seconds)
        )
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

    async def _same(self, first: Answer, new: Answer) -> bool | None:
        """Whether two answers are one class; the workers are asked until the request's patience is over."""
        if self._vote_settings.pool is None or self._patience <= 0:
            return await equivalent_async(first, new)
        began = time.monotonic()
        verdict = await equivalent_async(first, new, self._vote_settings.pool)
        self._patience -= time.monotonic() - began
        return verdict
