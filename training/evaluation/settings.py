"""The settings that an evaluation compares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from policies.stopping import parse_stop
from policies.voting import parse_vote

__all__ = ["DEFAULT", "EvaluationSetting", "setting_grid"]

DEFAULT = "default"
"""The budget of a request that says nothing about thinking."""


@dataclass(frozen=True, slots=True)
class EvaluationSetting:
    """What one round of questions asks of the gateway; a single sample has neither vote nor stop.

    A vote may name the scorer that it goes by, as "weighted:checker"; else that is the gateway's affair.
    """

    budget: str
    samples: int = 1
    vote: str = ""
    stop: str = ""

    @property
    def name(self) -> str:
        """As "low" or "low@8 adaptive"."""
        return self.budget if self.samples == 1 else f"{self.budget}@{self.samples} {self.rule}"

    @property
    def rule(self) -> str:
        """The vote and the stopping rule, as a replay names them: "majority", "adaptive", "best+adaptive"."""
        if self.vote == "majority" and self.stop != "none":
            return self.stop
        return self.vote if self.stop == "none" else f"{self.vote}+{self.stop}"

    @property
    def headers(self) -> Mapping[str, str]:
        """The request headers that ask for it."""
        said = {} if self.budget == DEFAULT else {"X-Reasoning-Budget": self.budget}
        said["X-Samples"] = str(self.samples)
        if self.samples == 1:
            return said
        vote, _, scorer = self.vote.partition(":")
        return {**said, "X-Vote": vote, "X-Stop": self.stop} | ({"X-Scorer": scorer} if scorer else {})


def setting_grid(
    budgets: Iterable[str], samples: Iterable[int], votes: Sequence[str], stops: Sequence[str]
) -> list[EvaluationSetting]:
    """Every combination once. Raises ValueError for an unknown vote or stopping rule, or no samples."""
    for stop in stops:
        parse_stop(stop)
    votes = [_vote(vote) for vote in votes]
    settings: dict[EvaluationSetting, None] = {}
    for budget, count, vote, stop in product(budgets, samples, votes, stops):
        if count < 1:
            raise ValueError(f"at least one sample has to be drawn, not {count}")
        settings[
            EvaluationSetting(budget) if count == 1 else EvaluationSetting(budget, count, vote, stop)
        ] = None
    return list(settings)


def _vote(text: str) -> str:
    vote, colon, scorer = (part.strip() for part in text.partition(":"))
    if colon and not scorer:
        raise ValueError(f"{text!r} names no scorer behind its colon")
    return f"{parse_vote(vote)}{colon}{scorer}"
