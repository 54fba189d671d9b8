"""A request's result from the samples that came through."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from gateway.errors import UpstreamError
from gateway.runs.events import Enforced, Event, Finished, RunResult, SampleCounts
from gateway.runs.request import RunRequest
from gateway.runs.sample_state import FinishedSample
from scorers.types import Sample

__all__ = ["is_silent", "result_of", "with_cost"]


def result_of(
    request: RunRequest, drawn: Sequence[FinishedSample], began: float, notes: Sequence[str]
) -> RunResult:
    """The result of samples that all came through."""
    samples = tuple(each.sample for each in drawn)
    if not samples:
        raise UpstreamError(502, "The upstream's reply has no choices.")
    truncated = sum(sample.truncated for sample in samples)
    return RunResult(
        chosen=samples,
        drawn=samples,
        counts=SampleCounts(
            request.sampling.samples, len(samples), finished=len(samples), truncated=truncated
        ),
        sampling=request.sampling,
        generated=sum(each.tally.completion for each in drawn),
        reasoning=sum(each.tally.reasoning for each in drawn),
        prompt=max(each.tally.prompt for each in drawn),
        upstream_prompt=sum(each.tally.upstream_prompt for each in drawn),
        estimated=any(each.tally.estimated for each in drawn),
        seconds=time.monotonic() - began,
        enforced=_enforced(drawn),
        limit=request.sampling.thinking_limit,
        notes=(*request.notes, *notes),
        envelope=drawn[0].envelope,
        models={each.sample.index: str(each.envelope["model"]) for each in drawn if "model" in each.envelope},
        usage=drawn[0].usage if len(drawn) == 1 else {},
    )


def _enforced(drawn: Sequence[FinishedSample]) -> Enforced:
    """Who kept the limit, over all samples: the gateway, if it had to for one."""
    kept = {each.enforced for each in drawn}
    return "forced" if "forced" in kept else "native" if "native" in kept else "none"


def is_silent(sample: Sample) -> bool:
    """Whether the model has thought, if that, and then said nothing."""
    return not sample.content.strip() and not sample.tool_calls and not sample.truncated


def with_cost(event: Event, lost: Sequence[FinishedSample]) -> Event:
    """The end of a run with the tokens of an earlier attempt counted in; other events as they are."""
    if not isinstance(event, Finished):
        return event
    result = event.result
    return Finished(
        replace(
            result,
            generated=result.generated + sum(each.tally.completion for each in lost),
            reasoning=result.reasoning + sum(each.tally.reasoning for each in lost),
            upstream_prompt=result.upstream_prompt + sum(each.tally.upstream_prompt for each in lost),
        )
    )
