"""Several processes that train one model: what each does its share of, and what all must agree on.

`accelerate launch` starts them; nothing here distributes anything itself. The rule is that every
decision is made by every process from the same gathered facts, so that none waits for a step that
another doesn't take, and that only the first process writes files.
"""

from __future__ import annotations

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
    """The processes of a run; without `accelerate launch` there is one."""

    @property
    def index(self) -> int:
        """This process's number; 0 writes the files."""

    @property
    def count(self) -> int:
        """How many processes there are."""

    def gather(self, values: Sequence[T]) -> list[T]:
        """Every process's values, in the order of the processes; all must call it."""

    def wait(self) -> None:
        """Returns when every process has come here."""


@dataclass(frozen=True, slots=True)
class SingleProcess:
    """A run in one process."""

    index: int = 0
    count: int = 1

    def gather(self, values: Sequence[T]) -> list[T]:
        """The values themselves."""
        return list(values)

    def wait(self) -> None:
        """Nobody to wait for."""


SINGLE_PROCESS = SingleProcess()


def world_size() -> int:
    """How many processes were launched together, by what the launcher put into the environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Which of them this one is."""
    return int(os.environ.get("RANK", "0"))


def map_over_processes(
    ranks: ProcessGroup, items: Sequence[T], work: Callable[[int, Sequence[T]], Sequence[R]]
) -> list[R]:
    """What `work` makes of the items, one for each, every process doing an equal part of them.

    `work` gets the place of its first item and its items, as many in every process, so that
    models whose weights are spread over the processes are called equally often: where they don't come
    out even, the last item is done more than once and counted once. Every process gets all results.
    """
    if not items:
        return []
    each = -(-len(items) // ranks.count)
    first = ranks.index * each
    mine = items[first : first + each]
    mine = [*mine, *[items[-1]] * (each - len(mine))]
    return ranks.gather(work(first, mine))[: len(items)]


def rl_batch(groups: int, samples: int, batch: int, processes: int) -> tuple[int, int]:
    """A process's part of a step of reinforcement learning: (sequences in a pass, passes).

    A step has `groups` questions with `samples` replies each, over all processes; a process takes whole
    groups. Raises ValueError where they can't be shared out.
    """
    if groups % processes:
        raise ValueError(f"groups ({groups}) must be a multiple of the processes ({processes})")
    drawn = groups * samples // processes
    batch = min(batch, drawn)
    if drawn % batch:
        raise ValueError(f"groups * samples / processes ({drawn}) must be a multiple of batch ({batch})")
    return batch, drawn // batch


def sft_batch(batch: int, processes: int) -> int:
    """A process's part of a step's sequences. Raises ValueError where they can't be shared out."""
    if batch % processes:
        raise ValueError(f"batch ({batch}) must be a multiple of the processes ({processes})")
    return batch // processes
