"""The samples in an unstreamed reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.errors import UpstreamError
from gateway.runs.events import Enforced, FailedSample, FinishedSample, TokenCounts
from gateway.runs.sample_plan import SamplePlan
from gateway.runs.sample_state import (
    TEXT_FIELDS,
    ended_well,
    envelope_of,
    estimate_tokens,
    tokens_before,
    unfinished,
)
from gateway.runs.sampling import share_out
from gateway.runs.written_text import FILED_AS_REASONING, LISTED_CONTENT
from gateway.upstreams.base import Completion
from policies.thinking import Markup, ThinkingText
from scorers.types import Sample, Usage

__all__ = ["read_choices", "read_reply"]

_CHOICE_OWN = frozenset({"index", "message", "finish_reason", "logprobs"})


def read_reply(
    completion: Completion, plan: SamplePlan, close_ids: Sequence[int] | None = None
) -> FinishedSample:
    """Return the one sample in an unstreamed chat reply. Raises `UpstreamError` where it has failed.

    `close_ids`: the gateway had asked for `token_ids`, in which the end tag reads so.
    """
    finished, failed = read_choices(completion, plan, close_ids)
    if finished:
        return finished[0]
    raise failed[0].error


def read_choices(
    completion: Completion, plan: SamplePlan, close_ids: Sequence[int] | None = None
) -> tuple[list[FinishedSample], list[FailedSample]]:
    """Return the samples in an unstreamed chat reply, and the failed ones. Raises where there are none."""
    body, failures = completion.body, dict(completion.failures)
    choices, usage = body.get("choices") or (), body.get("usage") or {}
    finished: list[FinishedSample] = []
    for place, choice in enumerate(choices):
        index = choice.get("index", place)
        if index not in failures and choice.get("finish_reason"):
            finished.append(_sample(index, choice, completion, plan, close_ids))
        else:
            failures.setdefault(index, unfinished())
    if not finished and not failures:
        raise UpstreamError(502, "The upstream's reply has no choices.")
    if len(choices) > 1:
        counts = [entry.counts for entry in finished]
        share_out(counts, usage.get("completion_tokens") or 0)
        for later in counts[1:]:
            later.upstream_prompt = 0  # the choices share one prompt
    return finished, [FailedSample(index, error, TokenCounts()) for index, error in failures.items()]


def _sample(
    index: int,
    choice: Mapping[str, Any],
    completion: Completion,
    plan: SamplePlan,
    close_ids: Sequence[int] | None,
) -> FinishedSample:
    """Return the sample in one choice."""
    body = completion.body
    alone, usage = len(body["choices"]) == 1, body.get("usage") or {}
    envelope, own = envelope_of(body), _CHOICE_OWN
    if close_ids is not None:
        own |= {"token_ids"}
        envelope.pop("prompt_token_ids", None)
    message = choice.get("message") or {}
    finish_reason = str(choice["finish_reason"])
    reasoning, content, notes = _split_message(message, plan, well=ended_well(finish_reason) or plan.verbatim)
    counts = _count(usage, reasoning, content, alone=alone)
    if notes:
        counts.reasoning, counts.estimated = 0, False
    if close_ids is not None and isinstance(ids := choice.get("token_ids"), list) and reasoning:
        counts.reasoning, counts.estimated = tokens_before(ids, close_ids), not alone
    sample = Sample(
        index,
        content,
        reasoning,
        finish_reason,
        Usage(counts.prompt, counts.completion, counts.reasoning, counts.estimated),
        tuple(message.get("tool_calls") or ()),
        choice.get("logprobs"),
        {
            "message": {k: v for k, v in message.items() if k not in TEXT_FIELDS and k != "tool_calls"},
            "choice": {k: v for k, v in choice.items() if k not in own},
        },
    )
    if index in completion.listed:
        notes = (LISTED_CONTENT, *notes)
    enforced: Enforced = "none" if plan.limit is None else "native"
    return FinishedSample(sample, counts, enforced, envelope, usage if alone else {}, notes=notes)


def _split_message(
    message: Mapping[str, Any], plan: SamplePlan, *, well: bool
) -> tuple[str, str, tuple[str, ...]]:
    """Return a message's thinking, its answer, and notes: split by the engine, else by the tags.

    `well`: the reply came to its own end, or it crosses verbatim. Then only an end tag makes thinking of
    a text.
    """
    markup: Markup = plan.markup
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    content = message.get("content") or ""
    if plan.thinking_off and thought and not content.strip():  # vLLM's parsers take an answer for thinking
        return "", thought, (FILED_AS_REASONING,)
    opened = markup.opened and not thought
    if not (markup.open in content or opened or markup.answer):
        return thought.removeprefix(markup.open), content, ()
    text = ThinkingText(markup if opened == markup.opened else replace(markup, opened=opened))
    if thought:
        text.add_split(thought.removeprefix(markup.open), "")
    text.feed(content)
    text.finish()
    if well and text.splitter.thinking:
        text.return_block()
    return text.reasoning, text.content, ()


def _count(usage: Mapping[str, Any], reasoning: str, content: str, *, alone: bool) -> TokenCounts:
    """Return one choice's tokens by the reply's usage, by the length of its texts where that doesn't say."""
    prompt = usage.get("prompt_tokens") or 0
    counted = usage.get("completion_tokens") if alone else None
    completion = counted if counted is not None else estimate_tokens(reasoning + content)
    thinking = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    estimated = bool(reasoning) and not thinking
    if estimated:
        thinking = round(completion * len(reasoning) / (len(reasoning) + len(content)))
    return TokenCounts(completion, thinking, prompt, prompt, estimated or counted is None)
