"""Reads a sample's answer: its tool calls, its JSON, or the answer that its text declares.

Tool calls and JSON vote by their canonical value. Free text has no equal answers to group, and
`is_free_form` says when samples are free text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from scorers.answers import canonical_json, extract, extract_async
from scorers.types import Answer, Sample

__all__ = ["is_free_form", "json_answer", "read_answer", "read_answer_async", "tool_call_answer"]

MAX_QUICK_JSON = 2_000  # characters of JSON that are read on the event loop


def read_answer(sample: Sample, *, as_json: bool = False) -> Answer | None:
    """Return a sample's answer: its tool calls, else its JSON with `as_json`, else its declared answer."""
    if sample.tool_calls:
        return tool_call_answer(sample)
    return json_answer(sample.content) if as_json else extract(sample.content)


async def read_answer_async(sample: Sample, *, as_json: bool = False) -> Answer | None:
    """Do the same as `read_answer`, with long texts in a thread."""
    if not sample.tool_calls and not as_json:
        return await extract_async(sample.content)
    texts = [sample.content, *(str(call.get("function")) for call in sample.tool_calls)]
    if sum(map(len, texts)) > MAX_QUICK_JSON:
        return await asyncio.to_thread(read_answer, sample, as_json=as_json)
    return read_answer(sample, as_json=as_json)


def tool_call_answer(sample: Sample) -> Answer | None:
    """Return a sample's tool calls as an answer: names and arguments, with parallel calls in any order.

    None if there are no calls, or if a call has no name or arguments that are no JSON object. Such
    a call can't be carried out, so it must not win a vote.
    """
    calls = []
    for call in sample.tool_calls:
        function = call.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
            return None
        arguments = function.get("arguments") or "{}"
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        canonical = _canonical(text)
        if canonical is None or not canonical.startswith("{"):
            return None
        calls.append(f"{name}({canonical})")
    return Answer("\n".join(calls), ("tools", *sorted(calls))) if calls else None


def json_answer(text: str) -> Answer | None:
    """Return the JSON value of `text`, without a Markdown fence around it; None if it is no valid JSON."""
    body = text.strip()
    if body.startswith("```") and body.endswith("```") and "\n" in body:
        body = body[body.index("\n") : -3].strip()
    canonical = _canonical(body)
    return None if canonical is None else Answer(body, ("json", canonical))


def is_free_form(samples: Sequence[Sample], answers: Sequence[Answer | None], *, words: int = 60) -> bool:
    """Return whether the samples are free text, without answers to group.

    That is so if most complete samples declare no answer, or one longer than `words` words that is
    no JSON. `answers` go with `samples`, one by one. Tool calls are never free text. Truncated
    samples do not count, because the cut may have removed their answer.
    """
    complete = [
        answer
        for sample, answer in zip(samples, answers, strict=True)
        if not sample.truncated and not sample.tool_calls
    ]
    free_form = sum(
        answer is None or (not answer.raw.startswith(("{", "[")) and len(answer.raw.split()) > words)
        for answer in complete
    )
    return 2 * free_form > len(complete)


def _canonical(text: str) -> str | None:
    """Return one text for equal JSON values; None for invalid JSON, NaN and endless nesting."""
    try:
        return canonical_json(json.loads(text, parse_constant=_refuse))
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
