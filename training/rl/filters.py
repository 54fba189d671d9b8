"""Filters for questions that are worth training on: once before the run, and in every batch.

A question that is always or never answered correctly teaches nothing: its advantages are all 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from training.rl.advantages import spread

__all__ = ["BatchPlan", "DifficultySplit", "informative", "next_batch", "pass_rate", "split_by_difficulty"]

MAX_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class DifficultySplit:
    """Ids of questions by their pass rate: within the band, above it, below it, or without one."""

    within: tuple[str, ...]
    easy: tuple[str, ...]
    hard: tuple[str, ...]
    unknown: tuple[str, ...]


def pass_rate(rewards: Sequence[float | None]) -> float | None:
    """Return the share of fully correct replies (1.0, not part credit); None where none was judged."""
    judged = [value for value in rewards if value is not None]
    return sum(value >= 1.0 for value in judged) / len(judged) if judged else None


def split_by_difficulty(
    rewards: Mapping[str, Sequence[float | None]], low: float = 0.2, high: float = 0.8
) -> DifficultySplit:
    """Split questions by the start policy's pass rate. `rewards` maps ids to the replies' main rewards.

    The band is [low, high], both ends included. The rate is taken without an interval: with 8 samples its
    standard error is up to 0.18. So chance decides about questions at the edges, which costs a few of them
    and biases nothing.
    """
    parts: dict[str, list[str]] = {"within": [], "easy": [], "hard": [], "unknown": []}
    for name, values in rewards.items():
        rate = pass_rate(values)
        part = "unknown" if rate is None else "hard" if rate < low else "easy" if rate > high else "within"
        parts[part].append(name)
    return DifficultySplit(**{part: tuple(names) for part, names in parts.items()})


def informative(totals: Sequence[float | None], main: Sequence[float | None]) -> bool:
    """Whether a group teaches something: its totals differ, and its main rewards are not all 0 nor all 1.

    Both conditions are needed. Shaping rewards spread the totals of replies that are all wrong; and a mean
    between 0 and 1 may come from replies that all got the same part credit. Replies without a total don't
    count.
    """
    judged = [
        value for total, value in zip(totals, main, strict=True) if total is not None and value is not None
    ]
    return bool(judged) and spread(totals) > 0 and 0.0 < fmean(judged) < 1.0


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What to do after a round of sampling. `train` and `fill` hold indices of groups.

    Where `redraw` isn't 0, sample that many new questions first. `train` are the informative groups to train
    on. `fill` are groups without a gradient that complete the batch, for trainers whose batches have a fixed
    shape. Without any informative group the step is skipped.
    """

    train: tuple[int, ...]
    fill: tuple[int, ...] = ()
    redraw: int = 0

    @property
    def skip(self) -> bool:
        """Whether there is nothing to train on, and nothing more to sample."""
        return not self.train and not self.redraw


def next_batch(groups: Sequence[bool], wanted: int, rounds: int, max_rounds: int = MAX_ROUNDS) -> BatchPlan:
    """Plan the next step of dynamic sampling (DAPO, arXiv:2503.14476), with bounds.

    `groups` says of each group sampled so far whether it is informative; `rounds` counts the rounds so far.
    At the share of informative groups so far, the redraw completes the batch, but it is never more than
    `wanted`. After the last round the batch is smaller, or the step is skipped; it is never an error.
    """
    useful = [index for index, is_informative in enumerate(groups) if is_informative]
    flat = [index for index, is_informative in enumerate(groups) if not is_informative]
    missing = wanted - len(useful)
    if missing > 0 and rounds < max_rounds:
        needed = math.ceil(missing * len(groups) / len(useful)) if useful else wanted
        return BatchPlan(tuple(useful), redraw=min(wanted, needed))
    return BatchPlan(tuple(useful[:wanted]), tuple(flat[: max(0, missing)]))
