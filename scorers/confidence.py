"""Scores samples by how sure the model was of its tokens, from OpenAI-style log probabilities.

A token's entry is `{"token", "logprob", "top_logprobs": [{"token", "logprob"}, ...]}`. The
confidence of a token is DeepConf's (Fu et al. 2025): minus the mean of the logged top-k log
probabilities. It is high where the model saw one way to go on, and low where it saw many. With
k < 2 it tells nothing, so tokens with fewer logged are skipped.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, exp, fsum, isfinite, log
from types import MappingProxyType
from typing import Any, overload

from scorers.types import Sample, ScorerModel

__all__ = [
    "MEASURES",
    "WINDOW",
    "ConfidenceScorer",
    "ConfidenceWindow",
    "compact_tokens",
    "logged_tokens",
    "mean_logprob",
    "self_certainty",
    "token_confidence",
]

WINDOW = 2048
"""Tokens in a window, and in the tail: DeepConf's number."""

Entry = Mapping[str, Any]

IMPOSSIBLE_LOGPROB = -9999.0
"""The value that engines write for minus infinity, as under a grammar; such a token tells nothing."""


def logged_tokens(logprobs: Mapping[str, Any] | None) -> Sequence[Entry]:
    """Return the tokens of OpenAI's `choices[].logprobs`; empty where there are none."""
    return (logprobs or {}).get("content") or ()


class _TopLogprobs(Sequence[Entry]):
    """The `top_logprobs` of one token without their texts, at 4 bytes each."""

    __slots__ = ("_values",)

    def __init__(self, values: Iterable[float]) -> None:
        self._values = array("f", values)

    def __len__(self) -> int:
        return len(self._values)

    def values(self) -> list[float]:
        """Return the log probabilities, without impossible ones."""
        return self._values.tolist()

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return _TopLogprobs(self._values[index])
        return {"logprob": self._values[index]}


def compact_tokens(content: Iterable[Entry]) -> list[Entry]:
    """Return the tokens with only the numbers that confidence needs, in a fraction of the memory."""
    return [
        {"logprob": entry["logprob"], "top_logprobs": _TopLogprobs(_top_logprobs(entry))} for entry in content
    ]


def token_confidence(entry: Entry) -> float | None:
    """Return minus the mean of the logged top-k log probabilities, in nats; None for fewer than two."""
    logged = _top_logprobs(entry)
    return -fsum(logged) / len(logged) if len(logged) >= 2 else None


def mean_logprob(content: Sequence[Entry]) -> float | None:
    """Return the mean log probability of the tokens, in nats; its exponential lies in (0, 1]."""
    logprobs = [float(entry["logprob"]) for entry in content if _is_possible(entry["logprob"])]
    return fsum(logprobs) / len(logprobs) if logprobs else None


def self_certainty(content: Sequence[Entry]) -> float | None:
    """Return KL(uniform || p) in nats, averaged over tokens (Kang et al. 2025).

    The paper sums over the whole vocabulary. An engine logs only the top k, so p is those k,
    renormalised: KL = -ln k - mean ln p_j. That ranks samples much as the full sum does, but its
    values compare only at the same k.
    """
    values = []
    for entry in content:
        logged = _top_logprobs(entry)
        if len(logged) >= 2:
            mass = log(fsum(map(exp, logged)))
            values.append(mass - fsum(logged) / len(logged) - log(len(logged)))
    return fsum(values) / len(values) if values else None


def _top_logprobs(entry: Entry) -> list[float]:
    if isinstance(compacted := entry.get("top_logprobs"), _TopLogprobs):
        return compacted.values()
    return [float(top["logprob"]) for top in entry.get("top_logprobs") or () if _is_possible(top["logprob"])]


def _is_possible(logprob: float | None) -> bool:
    return logprob is not None and isfinite(logprob) and logprob > IMPOSSIBLE_LOGPROB


@dataclass(slots=True)
class ConfidenceWindow:
    """The windowed confidence of one sample while it streams, at O(1) for each token.

    A window's value is the mean confidence of the last `size` tokens (DeepConf's group
    confidence). Shorter windows do not count, because a few hesitant first words say little about
    a sample.
    """

    size: int = WINDOW
    full_windows: list[float] = field(default_factory=list)
    lowest: float | None = None
    """The lowest full window so far; None until the first is full."""
    count: int = 0
    total: float = 0.0
    _recent: deque[float] = field(default_factory=deque)
    _sum: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("a window holds at least one token")

    def feed(self, content: Iterable[Entry]) -> float | None:
        """Take the next tokens; return the lowest full window so far."""
        for entry in content:
            if (value := token_confidence(entry)) is not None:
                self._push(value)
        return self.lowest

    def _push(self, value: float) -> None:
        self.count += 1
        self.total += value
        self._sum += value
        self._recent.append(value)
        if len(self._recent) > self.size:
            self._sum -= self._recent.popleft()
        if len(self._recent) == self.size:
            mean = self._sum / self.size
            self.full_windows.append(mean)
            self.lowest = mean if self.lowest is None else min(self.lowest, mean)

    @property
    def mean(self) -> float | None:
        """Return the mean over all tokens; None where no token is logged."""
        return self.total / self.count if self.count else None

    @property
    def lowest_or_mean(self) -> float | None:
        """Return a finished sample's confidence: its lowest window, or the mean if it fills none."""
        return self.mean if self.lowest is None else self.lowest

    @property
    def tail(self) -> float | None:
        """Return the mean over the last `size` tokens, where a sample draws its conclusion."""
        return self._sum / len(self._recent) if self._recent else None

    def bottom(self, part: float = 0.1) -> float | None:
        """Return the mean of the lowest `part` of the windows, at least one; the mean where none is full."""
        if not self.full_windows:
            return self.mean
        lowest = sorted(self.full_windows)[: max(1, ceil(part * len(self.full_windows)))]
        return fsum(lowest) / len(lowest)


MEASURES: Mapping[str, Callable[[ConfidenceWindow], float | None]] = MappingProxyType(
    {
        "bottom": ConfidenceWindow.bottom,
        "lowest": lambda window: window.lowest_or_mean,
        "mean": lambda window: window.mean,
        "tail": lambda window: window.tail,
    }
)


@dataclass(frozen=True, slots=True)
class ConfidenceScorer:
    """Weighs samples by one of DeepConf's `MEASURES`, or by "certainty" or "probability".

    "probability" is the geometric mean of the tokens' probabilities, already in (0, 1]. Every
    other measure is open-ended, so it is divided by the largest among the samples scored together.
    The weights keep their proportions, as DeepConf's vote needs them, but do not compare across
    requests. A sample without usable logprobs gets None.
    """

    measure: str = "bottom"
    window: int = WINDOW
    needs_logprobs: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError("a window holds at least one token")
        allowed = (*MEASURES, "certainty", "probability")
        if self.measure not in allowed:
            raise ValueError(f"unknown measure {self.measure!r}; allowed: {', '.join(allowed)}")

    async def score(
        self, messages: Sequence[Mapping[str, Any]], samples: Sequence[Sample], model: ScorerModel
    ) -> list[float | None]:
        """See `Scorer`; asks no model."""
        return self.weigh([logged_tokens(sample.logprobs) for sample in samples])

    def weigh(self, contents: Sequence[Sequence[Entry]]) -> list[float | None]:
        """Return the weight of each sample, from its logged tokens."""
        values = [self._value(content) for content in contents]
        if self.measure == "probability":
            return [None if value is None else min(1.0, exp(value)) for value in values]
        largest = max((value for value in values if value is not None), default=0.0)
        return [
            None if value is None else (max(0.0, value) / largest if largest > 0 else 1.0) for value in values
        ]

    def _value(self, content: Sequence[Entry]) -> float | None:
        if self.measure == "certainty":
            return self_certainty(content)
        if self.measure == "probability":
            return mean_logprob(content)
        window = ConfidenceWindow(self.window)
        window.feed(content)
        return MEASURES[self.measure](window)
