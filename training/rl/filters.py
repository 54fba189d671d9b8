"""Which questions are worth training on: once before the run, and in every batch.

A question that is always or never answered right teaches nothing: its advantages are all 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from training.rl.advantages import spread

__all__ = ["Batch", "Difficulty", "by_difficulty", "live", "next_batch", "pass_rate"]

MAX_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Ids of questions, sorted by what their pass rate was: in the band, above, below, or not known."""

    kept: tuple[str, ...]
    easy: tuple[str, ...]
    hard: tuple[str, ...]
    unknown: tuple[str, ...]


def pass_rate(rewards: Sequence[float | None]) -> float | None:
    """The share of replies that are wholly right (1.0; part credit is none); None without a judged reply."""
    judged = [value for value in rewards if value is not None]
    return sum(value >= 1.0 for value in judged) / len(judged) if judged else None


def by_difficulty(
    rewards: Mapping[str, Sequence[float | None]], low: float = 0.2, high: float = 0.8
) -> Difficulty:
    """Sorts questions by the start policy's pass rate; `rewards` are its replies' main rewards, by id.

    Kept is what lies in [low, high], both ends included. The rate is taken as it is, without
    an interval: with 8 samples its standard error is up to 0.18, so questions at the edges fall
    to either side by chance, which costs a few of them and biases nothing.
    """
    sorts: dict[str, list[str]] = {"kept": [], "easy": [], "hard": [], "unknown": []}
    for name, values in rewards.items():
        rate = pass_rate(values)
        sort = "unknown" if rate is None else "hard" if rate < low else "easy" if rate > high else "kept"
        sorts[sort].append(name)
    return Difficulty(**{sort: tuple(names) for sort, names in sorts.items()})


def live(totals: Sequence[float | None], main: Sequence[float | None]) -> bool:
    """Whether a group teaches something: its totals differ, and its main reward is neither all 0 nor all 1.

    Both conditions are needed: shaping rewards spread the totals of replies that are all wrong, and
    a mean between 0 and 1 is also that of replies that all got the same part credit.
    Replies without a total count nowhere.
    """
    judged = [
        value for total, value in zip(totals, main, strict=True) if total is not None and value is not None
    ]
    return bool(judged) and spread(totals) > 0 and 0.0 < fmean(judged) < 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What to do after a round of sampling; the numbers in `train` and `fill` are places of groups.

    `redraw` new questions are to be sampled first, where it isn't 0. `train` are the live groups to
    train on; with `fill`, groups without a gradient, they make up a batch of the wanted size,
    for trainers whose batches have a fixed shape. Without any live group the step is skipped.
    """

    train: tuple[int, ...]
    fill: tuple[int, ...] = ()
    redraw: int = 0

    @property
    def skip(self) -> bool:
        """Whether there is nothing to train on, and nothing more to draw."""
        return not self.train and not self.redraw


def next_batch(alive: Sequence[bool], wanted: int, rounds: int, max_rounds: int = MAX_ROUNDS) -> Batch:
    """Dynamic sampling (DAPO, arXiv:2503.14476), bounded; `alive` tells of each group drawn so far.

    `rounds` of sampling have been made, the first included. As many are redrawn as bring the
    missing ones at the share of live groups seen so far, but never more than `wanted`. When the rounds
    are used up the batch is what there is: fewer groups, or a skipped step, never an error.
    """
    living = [place for place, each in enumerate(alive) if each]
    dead = [place for place, each in enumerate(alive) if not each]
    missing = wanted - len(living)
    if missing > 0 and rounds < max_rounds:
        needed = math.ceil(missing * len(alive) / len(living)) if living else wanted
        return Batch(tuple(living), redraw=min(wanted, needed))
    return Batch(tuple(living[:wanted]), tuple(dead[: max(0, missing)]))
