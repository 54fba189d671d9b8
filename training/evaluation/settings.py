"""The settings that an evaluation compares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from policies.stopping import parse_stop
from policies.voting import parse_vote

__all__ = ["DEFAULT", "EvaluationSetting", "setting_grid"]

DEFAULT = "default"
"""The budget of a request that does not mention thinking."""


@dataclass(frozen=True, slots=True)
class EvaluationSetting:
    """One sampling request: budget, samples, vote and stopping rule; a single sample has no vote or stop.

    A vote may name its scorer, as in "weighted:checker"; otherwise the gateway chooses one.
    """

    budget: str
    samples: int = 1
    vote: str = ""
    stop: str = ""

    @property
    def name(self) -> str:
        """A short name, as in "low" or "low@8 adaptive"."""
        return self.budget if self.samples == 1 else f"{self.budget}@{self.samples} {self.rule}"

    @property
    def rule(self) -> str:
        """The vote and stopping rule, named as in a replay: "majority", "adaptive", "best+adaptive"."""
        if self.vote == "majority" and self.stop != "none":
            return self.stop
        return self.vote if self.stop == "none" else f"{self.vote}+{self.stop}"

    @property
    def headers(self) -> Mapping[str, str]:
        """The request headers of this setting."""
        headers = {} if self.budget == DEFAULT else {"X-Reasoning-Budget": self.budget}
        headers["X-Samples"] = str(self.samples)
        if self.samples == 1:
            return headers
        vote, _, scorer = self.vote.partition(":")
        return {**headers, "X-Vote": vote, "X-Stop": self.stop} | ({"X-Scorer": scorer} if scorer else {})


def setting_grid(
    budgets: Iterable[str], samples: Iterable[int], votes: Sequence[str], stops: Sequence[str]
) -> list[EvaluationSetting]:
    """Return every distinct combination.

    Raises ValueError for an unknown vote or stopping rule, or a sample count below 1.
    """
    for stop in stops:
        parse_stop(stop)
    votes = [_parse_vote(vote) for vote in votes]
    settings: dict[EvaluationSetting, None] = {}
    for budget, count, vote, stop in product(budgets, samples, votes, stops):
        if count < 1:
            raise ValueError(f"the number of samples must be at least 1, not {count}")
        single = EvaluationSetting(budget)
        settings[single if count == 1 else EvaluationSetting(budget, count, vote, stop)] = None
    return list(settings)


def _parse_vote(text: str) -> str:
    vote, colon, scorer = (part.strip() for part in text.partition(":"))
    if colon and not scorer:
        raise ValueError(f"{text!r} names no scorer after its colon")
    return f"{parse_vote(vote)}{colon}{scorer}"
