"""What a reply is when it is no worked-out answer: tool calls, JSON, or free text.

The first two vote by their canonical value; over free text no vote of classes means
anything, and `is_free_form` says when that is so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from scorers.answers import canonical_json, extract, extract_async
from scorers.types import Answer, Sample

__all__ = ["answer_json", "answer_tools", "is_free_form", "read_answer", "read_answer_async"]

MAX_QUICK_JSON = 2_000  # characters of JSON that the event loop may spend time on


def read_answer(sample: Sample, *, as_json: bool = False) -> Answer | None:
    """What a sample votes for: its tool calls, else its JSON where asked for, else its declared answer."""
    if sample.tool_calls:
        return answer_tools(sample)
    return answer_json(sample.content) if as_json else extract(sample.content)


async def read_answer_async(sample: Sample, *, as_json: bool = False) -> Answer | None:
    """`read_answer` that leaves what may take long to a thread."""
    if not sample.tool_calls and not as_json:
        return await extract_async(sample.content)
    written = [sample.content, *(str(call.get("function")) for call in sample.tool_calls)]
    if sum(map(len, written)) > MAX_QUICK_JSON:
        return await asyncio.to_thread(read_answer, sample, as_json=as_json)
    return read_answer(sample, as_json=as_json)


def answer_tools(sample: Sample) -> Answer | None:
    """What a sample's tool calls ask for: names and arguments, parallel calls in any order.

    None where it calls nothing, or where a call has no name or arguments that aren't a
    JSON object: such a call can't be carried out, so it must not win a vote.
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


def answer_json(text: str) -> Answer | None:
    """The JSON value that `text` is, a Markdown fence around it aside; None where it isn't valid JSON."""
    body = text.strip()
    if body.startswith("```") and body.endswith("```") and "\n" in body:
        body = body[body.index("\n") : -3].strip()
    canonical = _canonical(body)
    return None if canonical is None else Answer(body, ("json", canonical))


def is_free_form(samples: Sequence[Sample], answers: Sequence[Answer | None], *, words: int = 60) -> bool:
    """Whether the samples are talk, over which no class can be voted on.

    True where most whole samples declare no answer, or declare one that is itself longer
    than `words` words and no JSON. `answers` go with `samples`, one by one; tool calls are never talk,
    and truncated samples don't count, because their answer may be what was cut.
    """
    whole = [
        answer
        for sample, answer in zip(samples, answers, strict=True)
        if not sample.truncated and not sample.tool_calls
    ]
    talk = sum(
        answer is None or (not answer.raw.startswith(("{", "[")) and len(answer.raw.split()) > words)
        for answer in whole
    )
    return 2 * talk > len(whole)


def _canonical(text: str) -> str | None:
    """One text for equal JSON values; None for what isn't JSON, NaN and endless nesting included."""
    try:
        return canonical_json(json.loads(text, parse_constant=_refuse))
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
