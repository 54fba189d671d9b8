"""Models for scorers to ask, in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scorers.types import Sample

__all__ = ["Oracle", "nobody"]


class Oracle:
    """A model whose replies are computed from the prompt; it records prompts and parameters."""

    def __init__(self, reply: Callable[[str], str], finish_reason: str = "stop") -> None:
        self._reply = reply
        self._finish_reason = finish_reason
        self.prompts: list[str] = []
        self.params: list[Mapping[str, Any]] = []
        self.tokens = 0
        self.running = self.most = 0

    async def complete(self, messages: Sequence[Mapping[str, Any]], **params: Any) -> Sample:
        """See `scorers.types.ScorerModel`."""
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self.prompts.append(messages[-1]["content"])
        self.params.append(params)
        return Sample(0, self._reply(messages[-1]["content"]), finish_reason=self._finish_reason)

    def count(self, tokens: int) -> None:
        """See `scorers.types.ScorerModel`."""
        self.tokens += tokens


def nobody() -> Oracle:
    """A model that fails if it is asked."""

    def refuse(prompt: str) -> str:
        raise AssertionError("this scorer asks no model")

    return Oracle(refuse)
