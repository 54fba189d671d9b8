"""The result of a run, from the samples that finished; with a vote, its cost and its trace."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.errors import UpstreamError
from gateway.runs.events import (
    Enforced,
    Event,
    FailedSample,
    Finished,
    FinishedSample,
    RunResult,
    SampleCounts,
    Status,
    TokenCounts,
)
from gateway.runs.logprobs import trim_sample_logprobs
from gateway.runs.request import RunRequest
from gateway.runs.voting import FinalVote
from scorers.types import Answer, Sample, VoteResult

__all__ = ["SampleRecords", "is_silent", "result_of", "result_of_vote", "with_cost"]


@dataclass(slots=True)
class SampleRecords:
    """The samples of a vote run so far: what came of each.

    `finished` and `status` are by sample index, `finished` in order of finishing; `answers` are those that
    were read. `lost` counts the tokens of samples that were aborted or failed; `failure` is the last error.
    `notes` are those of the plans, each once: a dictionary keeps their order, its values mean nothing.
    """

    finished: dict[int, FinishedSample] = field(default_factory=dict)
    status: dict[int, Status] = field(default_factory=dict)
    answers: Mapping[int, Answer] = field(default_factory=dict)
    lost: list[TokenCounts] = field(default_factory=list)
    launched: int = 0
    failure: UpstreamError | None = None
    notes: dict[str, None] = field(default_factory=dict)


def result_of(
    request: RunRequest,
    finished: Sequence[FinishedSample],
    started: float,
    notes: Sequence[str],
    failed: Sequence[FailedSample] = (),
    **fields: Any,
) -> RunResult:
    """Return the result of samples that are all returned. Raises the last error where all have failed.

    `fields` are further ones of the result; to replace them later would cost as much as all of this.
    """
    samples = tuple(entry.sample for entry in finished)
    if not samples:
        raise failed[-1].error if failed else UpstreamError(502, "The upstream's reply has no choices.")
    launched = len(samples) + len(failed)
    own_notes = dict.fromkeys(note for entry in finished for note in entry.notes)
    if failed:
        own_notes[f"{len(failed)} of {launched} choices failed ({failed[-1].error})"] = None
    truncated = sum(sample.truncated for sample in samples)
    counts = [*(entry.counts for entry in finished), *(entry.counts for entry in failed)]
    fields.setdefault("usage", finished[0].usage if len(finished) == 1 else {})
    return RunResult(
        chosen=samples,
        samples=samples,
        counts=SampleCounts(
            request.sampling.samples,
            launched,
            finished=len(samples),
            truncated=truncated,
            failed=len(failed),
        ),
        sampling=request.sampling,
        generated=sum(count.completion for count in counts),
        reasoning=sum(count.reasoning for count in counts),
        prompt=max(count.prompt for count in counts),
        upstream_prompt=sum(count.upstream_prompt for count in counts),
        estimated=any(count.estimated for count in counts),
        seconds=time.monotonic() - started,
        enforced=_combine_enforced(finished),
        limit=request.sampling.thinking_limit,
        notes=(*request.notes, *notes, *own_notes),
        envelope=finished[0].envelope,
        models={
            entry.sample.index: str(entry.envelope["model"])
            for entry in finished
            if "model" in entry.envelope
        },
        **fields,
    )


def result_of_vote(
    request: RunRequest,
    records: SampleRecords,
    counts: SampleCounts,
    vote: FinalVote | None,
    *,
    started: float,
    stop: str,
    scorer_tokens: int,
) -> RunResult:
    """Return the result of a vote run; `vote` is None where the samples are returned without a vote."""
    samples = {index: entry.sample for index, entry in records.finished.items()}
    ranking = sorted(samples) if vote is None else _ranking(vote.result, list(samples.values()))
    finished = [records.finished[index] for index in ranking]
    result = result_of(request, finished, started, tuple(records.notes))
    ranked = tuple(
        sample if sample.logprobs is None else trim_sample_logprobs(sample, request.body)
        for sample in result.samples
    )
    everything = [*(entry.counts for entry in finished), *records.lost]
    result = replace(
        result,
        chosen=ranked[: request.reply.choices],
        samples=ranked,
        counts=counts,
        generated=sum(count.completion for count in everything),
        reasoning=sum(count.reasoning for count in everything),
        upstream_prompt=sum(count.upstream_prompt for count in everything),
        estimated=any(count.estimated for count in everything),
        scorer_tokens=scorer_tokens,
        notes=(*result.notes, *_notes(records, counts, vote)),
        trace=_trace(records, {} if vote is None else vote.scores) if request.reply.trace else (),
    )
    if vote is None:
        return result
    return replace(
        result,
        vote=vote.result,
        method=vote.method,
        scorer=vote.scorer,
        scores=vote.scores,
        saved=_saved_tokens(request.sampling.samples, finished, records.lost),
        stop=stop,
    )


def _ranking(vote: VoteResult, samples: Sequence[Sample]) -> list[int]:
    """Return the vote's ranking, then the samples that did not vote, truncated ones last."""
    rest = [sample for sample in samples if sample.index not in vote.ranking]
    return [*vote.ranking, *(sample.index for sample in sorted(rest, key=lambda sample: sample.truncated))]


def _notes(records: SampleRecords, counts: SampleCounts, vote: FinalVote | None) -> list[str]:
    notes: list[str] = []
    if counts.failed:
        kind = "choices" if vote is None else "samples"
        notes.append(f"{counts.failed} of {counts.launched} {kind} failed ({records.failure})")
    if vote is not None:
        notes += vote.notes
        if vote.result.winner is None:
            notes.append("no sample has an answer that counts; the first complete one is returned")
    return notes


def _saved_tokens(wanted: int, finished: Sequence[FinishedSample], lost: Sequence[TokenCounts]) -> int:
    """Estimate the tokens that stopping early saved: the samples not drawn, at the mean length."""
    mean = sum(entry.counts.completion for entry in finished) / len(finished)
    unspent = mean * (wanted - len(finished)) - sum(count.completion for count in lost)
    return max(0, round(unspent))


def _trace(records: SampleRecords, scores: Mapping[int, float]) -> tuple[Mapping[str, Any], ...]:
    """Return an entry for every sample, in the order of launch."""
    entries = []
    for index in sorted(records.status):
        entry: dict[str, Any] = {"index": index, "status": records.status[index]}
        if (finished := records.finished.get(index)) is not None:
            sample, answer = finished.sample, records.answers.get(index)
            entry |= {
                "answer": None if answer is None else answer.raw,
                "tokens": sample.usage.completion,
                "reasoning_tokens": sample.usage.reasoning,
                "finish_reason": sample.finish_reason,
                "reasoning": sample.reasoning,
                "content": sample.content,
            }
        if index in scores:
            entry["score"] = scores[index]
        entries.append(entry)
    return tuple(entries)


def _combine_enforced(finished: Sequence[FinishedSample]) -> Enforced:
    """Return who kept the limit, over all samples: the gateway, if it had to for one."""
    enforcers = {entry.enforced for entry in finished}
    return "forced" if "forced" in enforcers else "native" if "native" in enforcers else "none"


def is_silent(sample: Sample) -> bool:
    """Tell whether the model has said nothing, even if it has thought."""
    return not sample.content.strip() and not sample.tool_calls and not sample.truncated


def with_cost(event: Event, lost: TokenCounts) -> Event:
    """Add the tokens of an earlier attempt to the end of a run; return other events as they are."""
    if not isinstance(event, Finished):
        return event
    result = event.result
    return Finished(
        replace(
            result,
            generated=result.generated + lost.completion,
            reasoning=result.reasoning + lost.reasoning,
            upstream_prompt=result.upstream_prompt + lost.upstream_prompt,
        )
    )
