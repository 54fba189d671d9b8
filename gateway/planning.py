"""What to ask of the upstream for one request: the limit in tokens and the shaped body. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.backends.base import ModelCard
from gateway.budget import Asked
from policies.families import Family
from policies.limiter import share_tokens
from policies.prompts import LEVELS, Level, level_near, policy_prompt, thinking_limit
from policies.shaping import Shaped, shape
from policies.types import Budget

__all__ = ["Job", "Reply", "plan_job"]

_CHARACTERS_PER_PROMPT_TOKEN = 3  # low on purpose: a prompt taken for longer than it is leaves room


@dataclass(frozen=True, slots=True)
class Reply:
    """How a client wants its answer: as a stream, how many choices, with what beside the text."""

    stream: bool = False
    choices: int = 1
    include_usage: bool = False
    exclude_reasoning: bool = False
    live: Literal["winner", "first"] = "winner"
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One request, ready for the engine.

    `shaped.body` is the upstream chat request without `n` and `stream`; `limit` the thinking
    tokens allowed (None: no limit) and `total` the cap on thinking and answer together;
    `asked` is the client's own word for its budget, None where it said nothing.
    """

    shaped: Shaped
    budget: Budget
    reply: Reply
    family: Family
    asked: str | None = None
    limit: int | None = None
    total: int | None = None
    overridden: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    min_share: float = 0.0

    @property
    def votes(self) -> bool:
        """Whether samples are drawn to be combined (rather than returned as they are)."""
        return self.budget.samples > 1


def plan_job(
    body: Mapping[str, Any],
    asked: Asked,
    reply: Reply,
    card: ModelCard | None,
    family: Family,
    *,
    answer_reserve: int,
) -> Job:
    """Puts a request's wishes and its model's limits together. `body` is the chat request as cleaned."""
    context = card.context if card else None
    notes: list[str] = []
    level = _level(asked)
    limit, total = _limits(body, asked, level, context, answer_reserve)
    samples = asked.samples
    if samples > 1 and body.get("temperature") == 0:
        samples = 1
        notes.append("temperature is 0, so all samples would be the same: one was drawn")
    budget = Budget(
        effort=asked.thinking.effort if asked.thinking else None,
        thinking_tokens=limit,
        samples=samples,
        vote=asked.vote,
        scorer=asked.scorer,
        stop=asked.stop,
        limits=asked.limits,
        sources=asked.sources,
        window=asked.scaling.window,
        threshold=asked.scaling.threshold,
        choices=min(reply.choices, samples),
    )
    policy = None
    if level is not None:
        policy = policy_prompt(level, family.markup, teach=family.opens != "template" and _untaught(family))
    shaped = shape(family, body, budget, policy)
    if total is not None:
        key = "max_completion_tokens" if "max_completion_tokens" in shaped.body else "max_tokens"
        shaped.body[key] = total
    return Job(
        shaped,
        budget,
        reply,
        family,
        asked=str(asked.thinking) if asked.thinking else None,
        limit=limit,
        total=total,
        overridden=asked.overridden,
        notes=(*notes, *shaped.notes),
        min_share=asked.scaling.min_share,
    )


def _untaught(family: Family) -> bool:
    """Whether the model has to be told of the tags: nothing says that it writes them by itself."""
    return family.name == "generic"


def _level(asked: Asked) -> Level | None:
    """The level whose prompt fits; None where nothing was asked, or expressly no limit."""
    if asked.thinking is None:
        return None
    if asked.thinking.effort is not None:
        return LEVELS[asked.thinking.effort]
    return None if asked.thinking.tokens is None else level_near(asked.thinking.tokens)


def _limits(
    body: Mapping[str, Any], asked: Asked, level: Level | None, context: int | None, reserve: int
) -> tuple[int | None, int | None]:
    """(thinking limit, total limit); neither where no thinking budget was asked for."""
    if asked.thinking is None or level is None:
        return None, None
    if context is not None:
        reserve = min(reserve, context // 4)
    limit = asked.thinking.tokens if asked.thinking.effort is None else thinking_limit(level, context)
    if limit is None:
        return None, None
    own_cap = body.get("max_completion_tokens") or body.get("max_tokens")
    if context is not None:
        room = context - reserve - _prompt_estimate(body)
        limit = max(0, min(limit, room))
    return share_tokens(limit, reserve, own_cap)


def _prompt_estimate(body: Mapping[str, Any]) -> int:
    """Tokens of the prompt, rather too many than too few."""
    characters = 0
    for message in body.get("messages", ()):
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
        elif isinstance(content, list):
            characters += sum(len(part.get("text") or "") for part in content if isinstance(part, dict))
        characters += 24  # the template's own tokens around each message
    return characters // _CHARACTERS_PER_PROMPT_TOKEN + 64
