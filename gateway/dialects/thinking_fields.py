"""The fields of a chat message, or of a streamed delta, that carry thinking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["answer_logprobs", "both_names", "engine_reasoning", "names_of", "without_thinking"]

_NAMES = ("reasoning_content", "reasoning")
"""The two names of the thinking's text: vLLM's and DeepSeek's older one, and vLLM's and OpenRouter's."""
_CARRIERS = frozenset(
    {
        *_NAMES,
        "reasoning_details",
        "reasoning_opaque",
        "reasoning_signature",
        "reasoning_text",
        "thinking",
        "thinking_blocks",
        "thinking_signature",
        "thoughts",
    }
)


def engine_reasoning(message: Mapping[str, Any]) -> str:
    """Return the thinking that the engine has separated itself."""
    return message.get("reasoning_content") or message.get("reasoning") or ""


def names_of(message: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names under which the engine gives the thinking's text, if there is any."""
    return tuple(name for name in _NAMES if message.get(name))


def both_names(reasoning: str) -> dict[str, str]:
    """Return the thinking's text under both names, because clients differ in which they read."""
    return {"reasoning_content": reasoning, "reasoning": reasoning}


def without_thinking(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message without everything that carries thinking."""
    return {key: value for key, value in message.items() if key not in _CARRIERS}


def answer_logprobs(logprobs: Mapping[str, Any] | None, answer: str) -> Mapping[str, Any] | None:
    """Return the log probabilities of the answer's tokens alone, without those of the thinking before it.

    They are counted by their text from the end, so that a token of an unknown form costs one of the
    answer's, and never shows one of the thinking's.
    """
    if logprobs is None:
        return None
    entries = logprobs.get("content") or []
    first, length = len(entries), 0
    while first and length < len(answer):
        first -= 1
        length += max(1, len(str(entries[first].get("token", ""))))
    if length > len(answer):  # this token also holds a part of what stands before the answer
        first += 1
    return {**logprobs, "content": entries[first:]}
