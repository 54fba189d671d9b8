"""A request's outcome from the samples that came through."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from gateway.errors import UpstreamError
from gateway.runs.events import Counts, Enforced, Event, Finished, Outcome
from gateway.runs.request import Job
from gateway.runs.sample_state import Drawn
from scorers.types import Sample

__all__ = ["is_silent", "outcome_of", "with_cost"]


def outcome_of(job: Job, drawn: Sequence[Drawn], began: float, notes: Sequence[str]) -> Outcome:
    """The outcome of samples that all came through."""
    samples = tuple(each.sample for each in drawn)
    if not samples:
        raise UpstreamError(502, "The upstream's reply has no choices.")
    truncated = sum(sample.truncated for sample in samples)
    return Outcome(
        chosen=samples,
        drawn=samples,
        counts=Counts(job.budget.samples, len(samples), finished=len(samples), truncated=truncated),
        budget=job.budget,
        generated=sum(each.tally.completion for each in drawn),
        reasoning=sum(each.tally.reasoning for each in drawn),
        prompt=max(each.tally.prompt for each in drawn),
        upstream_prompt=sum(each.tally.upstream_prompt for each in drawn),
        estimated=any(each.tally.estimated for each in drawn),
        seconds=time.monotonic() - began,
        enforced=_enforced(drawn),
        limit=job.budget.thinking_tokens,
        notes=(*job.notes, *notes),
        envelope=drawn[0].envelope,
        usage=drawn[0].usage if len(drawn) == 1 else {},
    )


def _enforced(drawn: Sequence[Drawn]) -> Enforced:
    """Who kept the limit, over all samples: the gateway, if it had to for one."""
    kept = {each.enforced for each in drawn}
    return "forced" if "forced" in kept else "native" if "native" in kept else "none"


def is_silent(sample: Sample) -> bool:
    """Whether the model has thought, if that, and then said nothing."""
    return not sample.content.strip() and not sample.tool_calls and not sample.truncated


def with_cost(event: Event, lost: Sequence[Drawn]) -> Event:
    """The end of a run with the tokens of an earlier attempt counted in; other events as they are."""
    if not isinstance(event, Finished):
        return event
    outcome = event.outcome
    return Finished(
        replace(
            outcome,
            generated=outcome.generated + sum(each.tally.completion for each in lost),
            reasoning=outcome.reasoning + sum(each.tally.reasoning for each in lost),
            upstream_prompt=outcome.upstream_prompt + sum(each.tally.upstream_prompt for each in lost),
        )
    )
