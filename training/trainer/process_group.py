"""The processes that train one model together: what each computes, and what all must agree on.

`accelerate launch` starts them; nothing here distributes anything itself. Every process makes every decision
from the same gathered facts, so that none waits for a step that another doesn't take. Only the process of
rank 0 writes files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

__all__ = [
    "SINGLE_PROCESS",
    "ProcessGroup",
    "SingleProcess",
    "map_over_processes",
    "process_rank",
    "rl_batch",
    "sft_batch",
    "world_size",
]

T = TypeVar("T")
R = TypeVar("R")


class ProcessGroup(Protocol):
    """The processes of a run. Without `accelerate launch` there is one."""

    @property
    def rank(self) -> int:
        """This process's number. 0 writes the files."""

    @property
    def world_size(self) -> int:
        """How many processes there are."""

    def gather(self, values: Sequence[T]) -> list[T]:
        """Return every process's values, in the order of ranks. All must call it."""

    def wait(self) -> None:
        """Return when every process has called this."""


@dataclass(frozen=True, slots=True)
class SingleProcess:
    """The group of a run in one process."""

    rank: int = 0
    world_size: int = 1

    def gather(self, values: Sequence[T]) -> list[T]:
        """Return the values themselves."""
        return list(values)

    def wait(self) -> None:
        """Return at once: there is no other process."""


SINGLE_PROCESS = SingleProcess()


def world_size() -> int:
    """Return how many processes were launched together, by the environment that the launcher set."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Return this process's rank, by the environment that the launcher set."""
    return int(os.environ.get("RANK", "0"))


def map_over_processes(
    group: ProcessGroup, items: Sequence[T], work: Callable[[int, Sequence[T]], Sequence[R]]
) -> list[R]:
    """Return one result for each item; every process computes an equal part, and all get all results.

    `work` takes the index of its first item and its items. Their number is the same in every process, so
    that models whose weights are sharded are called equally often. If the items don't divide evenly, the
    last one is computed more than once and counted once.
    """
    if not items:
        return []
    part_size = math.ceil(len(items) / group.world_size)
    first = group.rank * part_size
    part = items[first : first + part_size]
    part = [*part, *[items[-1]] * (part_size - len(part))]
    return group.gather(work(first, part))[: len(items)]


def rl_batch(groups: int, num_generations: int, batch: int, processes: int) -> tuple[int, int]:
    """Return a process's part of a step of reinforcement learning: (completions of a pass, passes).

    A step has `groups` problems with `num_generations` completions each, over all processes. A process takes
    whole groups. Raises ValueError if they don't divide evenly.
    """
    if groups % processes:
        raise ValueError(f"groups ({groups}) must be a multiple of the processes ({processes})")
    completions = groups * num_generations // processes
    batch = min(batch, completions)
    if completions % batch:
        raise ValueError(
            f"groups * num_generations / processes ({completions}) must be a multiple of "
            f"per_device_train_batch_size ({batch})"
        )
    return batch, completions // batch


def sft_batch(batch: int, processes: int) -> int:
    """Return a process's part of a step's sequences. Raises ValueError if they don't divide evenly."""
    if batch % processes:
        raise ValueError(f"batch ({batch}) must be a multiple of the processes ({processes})")
    return batch // processes
