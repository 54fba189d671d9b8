"""The sample in an unstreamed reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.errors import UpstreamError
from gateway.runs.events import Enforced, FinishedSample, TokenCounts
from gateway.runs.sample_plan import SamplePlan
from gateway.runs.sample_state import (
    TEXT_FIELDS,
    envelope_of,
    estimate_tokens,
    tokens_before,
)
from policies.thinking import Markup, ThinkingText
from scorers.types import Sample, Usage

__all__ = ["read_reply"]

_CHOICE_OWN = frozenset({"index", "message", "finish_reason", "logprobs"})


def read_reply(
    body: Mapping[str, Any], plan: SamplePlan, close_ids: Sequence[int] | None = None
) -> FinishedSample:
    """Return the sample in an unstreamed chat reply. Raises `UpstreamError` where the reply has none.

    `close_ids`: the gateway had asked for `token_ids`, in which the end tag reads so.
    """
    choices = body.get("choices") or ()
    if not choices:
        raise UpstreamError(502, "The upstream's reply has no choices.")
    choice, alone, usage = choices[0], len(choices) == 1, body.get("usage") or {}
    envelope, own = envelope_of(body), _CHOICE_OWN
    if close_ids is not None:
        own |= {"token_ids"}
        envelope.pop("prompt_token_ids", None)
    message = choice.get("message") or {}
    reasoning, content = _split_message(message, plan)
    counts = _count(usage, reasoning, content, alone=alone)
    if close_ids is not None and isinstance(ids := choice.get("token_ids"), list) and reasoning:
        counts.reasoning, counts.estimated = tokens_before(ids, close_ids), not alone
    sample = Sample(
        0,
        content,
        reasoning,
        choice.get("finish_reason") or "stop",
        Usage(counts.prompt, counts.completion, counts.reasoning, counts.estimated),
        tuple(message.get("tool_calls") or ()),
        choice.get("logprobs"),
        {
            "message": {k: v for k, v in message.items() if k not in TEXT_FIELDS and k != "tool_calls"},
            "choice": {k: v for k, v in choice.items() if k not in own},
        },
    )
    enforced: Enforced = "none" if plan.limit is None else "native"
    return FinishedSample(sample, counts, enforced, envelope, usage if alone else {})


def _split_message(message: Mapping[str, Any], plan: SamplePlan) -> tuple[str, str]:
    """Return a message's thinking and answer, split by the engine or, where it doesn't, by the tags."""
    markup: Markup = plan.markup
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    content = message.get("content") or ""
    # vLLM says "" of thinking that ended before its first token, and nothing at all without a parser.
    splits = (
        plan.traits.splits_thinking
        or bool(thought)
        or (message.get("reasoning") == "" and markup.close not in content)
    )
    if plan.thinking_off and not content:  # vLLM's parsers take an unstreamed answer for thinking
        thought, content = "", thought
    opened = markup.opened and not splits
    if not (markup.open in content or opened or markup.answer):
        return thought.removeprefix(markup.open), content
    text = ThinkingText(markup if opened == markup.opened else replace(markup, opened=opened))
    if thought:
        text.add_split(thought.removeprefix(markup.open), "")
    text.feed(content)
    text.finish()
    return text.reasoning, text.content


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
