"""The `scaling` object: what the client asked for, what was done, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.runs.events import Progress, RunResult, SampleCounts
from gateway.runs.request import RunRequest
from scorers.types import VoteResult

__all__ = ["progress_report", "report", "reported", "usage_and_report", "usage_of"]


def report(request: RunRequest, result: RunResult, **more: Any) -> dict[str, Any]:
    """Report the whole story of a request; `more` is added as it is."""
    scaling: dict[str, Any] = {
        "budget": _budget(request, result),
        "samples": _samples(result.counts),
        "vote": _vote(request, result.vote, result.method, result.scorer, result.stop)
        if result.vote is not None
        else None,
        "usage": {
            "upstream_prompt_tokens": result.upstream_prompt,
            "scorer_tokens": result.scorer_tokens,
            "saved_tokens": result.saved,
            "seconds": round(result.seconds, 3),
            "estimated": result.estimated,
        },
        "overridden": list(request.overridden),
        "notes": list(result.notes),
        **more,
    }
    if request.route is not None:
        scaling["alias"] = {"name": request.route.alias, "target": request.route.target}
    if request.reply.trace:
        scaling["trace"] = list(result.trace)
    return scaling


def reported(request: RunRequest, result: RunResult, **more: Any) -> dict[str, Any]:
    """Return the report as the field of a reply; no field where the operator wants plain replies."""
    return {} if request.reply.plain else {"scaling": report(request, result, **more)}


def progress_report(request: RunRequest, progress: Progress) -> dict[str, Any]:
    """Report how the vote stands after the end of one more sample."""
    entry: dict[str, Any] = {"index": progress.index, "status": progress.status, "answer": progress.answer}
    sample = progress.sample
    if sample is not None:
        entry |= {"tokens": sample.usage.completion, "reasoning_tokens": sample.usage.reasoning}
        if request.reply.trace:
            entry |= {"reasoning": sample.reasoning, "content": sample.content}
    return {
        "progress": entry,
        "samples": _samples(progress.counts),
        "vote": _vote(request, progress.vote, "majority", "none", None),
    }


def usage_and_report(request: RunRequest, result: RunResult) -> dict[str, Any]:
    """Return the two fields of a reply that say what it cost: `usage` and `scaling`."""
    return {"usage": usage_of(result), "scaling": report(request, result)}


def usage_of(result: RunResult) -> dict[str, Any]:
    """Return OpenAI's `usage`: the prompt once, and every generated token, aborted samples included."""
    details = result.usage.get("completion_tokens_details") or {}
    return {
        **result.usage,
        "prompt_tokens": result.prompt,
        "completion_tokens": result.generated,
        "total_tokens": result.prompt + result.generated,
        "completion_tokens_details": {**details, "reasoning_tokens": result.reasoning},
    }


def _budget(request: RunRequest, result: RunResult) -> dict[str, Any]:
    used = max((sample.usage.reasoning for sample in result.chosen[:1]), default=0)
    return {
        "asked": request.requested_budget,
        "by": request.sampling.sources.get("budget"),
        "limit": result.limit,
        "enforced": result.enforced,
        "family": request.model.family.name,
        "used": used,
    }


def _samples(counts: SampleCounts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in counts.__slots__}


def _vote(
    request: RunRequest, vote: VoteResult, method: str, scorer: str, stop: str | None
) -> Mapping[str, Any]:
    groups = vote.groups
    lead = groups[0].weight if groups else 0.0
    margin = lead - (groups[1].weight if len(groups) > 1 else 0.0)
    return {
        "method": method,
        "scorer": scorer,
        "stop": request.sampling.stop,
        "stopped_by": stop,
        "share": round(vote.share, 4),
        "margin": int(margin) if margin == int(margin) else round(margin, 4),
        "abstained": vote.abstained,
        "reason": vote.reason,
        "groups": [
            {"answer": group.answer.raw, "count": len(group.members), "weight": group.weight}
            for group in groups
        ],
    }
