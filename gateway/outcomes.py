"""A request's outcome from the samples that came through."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.errors import UpstreamError
from gateway.events import Counts, Enforced, Outcome
from gateway.planning import Job
from gateway.track import Drawn

__all__ = ["outcome_of"]


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
