"""The `scaling` object: what was asked, what was done, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.runs.events import Counts, Outcome, Progress
from gateway.runs.request import Job
from scorers.types import Verdict

__all__ = ["progress_report", "report", "usage_of"]


def report(job: Job, outcome: Outcome, **more: Any) -> dict[str, Any]:
    """The whole story of a request; `more` is added as it is."""
    scaling: dict[str, Any] = {
        "budget": _budget(job, outcome),
        "samples": _samples(outcome.counts),
        "vote": _vote(job, outcome.verdict, outcome.method, outcome.scorer, outcome.stop)
        if outcome.verdict is not None
        else None,
        "usage": {
            "upstream_prompt_tokens": outcome.upstream_prompt,
            "scorer_tokens": outcome.scorer_tokens,
            "saved_tokens": outcome.saved,
            "seconds": round(outcome.seconds, 3),
            "estimated": outcome.estimated,
        },
        "overridden": list(job.overridden),
        "notes": list(outcome.notes),
        **more,
    }
    if job.route is not None:
        scaling["alias"] = {"name": job.route.alias, "target": job.route.target}
    if job.reply.trace:
        scaling["trace"] = list(outcome.trace)
    return scaling


def progress_report(job: Job, progress: Progress) -> dict[str, Any]:
    """How the vote stands after one more sample came to its end."""
    told: dict[str, Any] = {"index": progress.index, "status": progress.status, "answer": progress.answer}
    sample = progress.sample
    if sample is not None:
        told |= {"tokens": sample.usage.completion, "reasoning_tokens": sample.usage.reasoning}
        if job.reply.trace:
            told |= {"reasoning": sample.reasoning, "content": sample.content}
    return {
        "progress": told,
        "samples": _samples(progress.counts),
        "vote": _vote(job, progress.verdict, "majority", "none", None),
    }


def usage_of(outcome: Outcome) -> dict[str, Any]:
    """OpenAI's `usage`: the prompt once, and everything that was generated, aborted samples included."""
    details = outcome.usage.get("completion_tokens_details") or {}
    return {
        **outcome.usage,
        "prompt_tokens": outcome.prompt,
        "completion_tokens": outcome.generated,
        "total_tokens": outcome.prompt + outcome.generated,
        "completion_tokens_details": {**details, "reasoning_tokens": outcome.reasoning},
    }


def _budget(job: Job, outcome: Outcome) -> dict[str, Any]:
    used = max((sample.usage.reasoning for sample in outcome.chosen[:1]), default=0)
    return {
        "asked": job.asked,
        "by": job.budget.sources.get("thinking"),
        "limit": outcome.limit,
        "enforced": outcome.enforced,
        "family": job.model.family.name,
        "used": used,
    }


def _samples(counts: Counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in counts.__slots__}


def _vote(job: Job, verdict: Verdict, method: str, scorer: str, stop: str | None) -> Mapping[str, Any]:
    groups = verdict.groups
    lead = groups[0].weight if groups else 0.0
    margin = lead - (groups[1].weight if len(groups) > 1 else 0.0)
    return {
        "method": method,
        "scorer": scorer,
        "stop": job.budget.stop,
        "stopped_by": stop,
        "share": round(verdict.share, 4),
        "margin": int(margin) if margin == int(margin) else round(margin, 4),
        "abstained": verdict.abstained,
        "reason": verdict.reason,
        "groups": [
            {"answer": group.answer.raw, "count": len(group.members), "weight": group.weight}
            for group in groups
        ],
    }
