"""What several processes share out and agree on; threads stand in for the processes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from training.trainer.process_group import SINGLE_PROCESS, ProcessGroup, map_over_processes

T = TypeVar("T")


@dataclass(frozen=True)
class Thread:
    """One of several threads that meet whenever they gather."""

    rank: int
    world_size: int
    barrier: Barrier
    board: dict[int, Sequence[Any]]

    def gather(self, values: Sequence[T]) -> list[T]:
        """Everybody's values."""
        self.board[self.rank] = values
        self.barrier.wait(timeout=10)
        found = [value for index in range(self.world_size) for value in self.board[index]]
        self.barrier.wait(timeout=10)
        return found

    def wait(self) -> None:
        """Meets the others."""
        self.barrier.wait(timeout=10)


def together(count: int, work: Callable[[ProcessGroup], T]) -> list[T]:
    """What each of so many processes makes of the same work."""
    barrier, board = Barrier(count), dict[int, Sequence[Any]]()
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda index: work(Thread(index, count, barrier, board)), range(count)))


@given(st.lists(st.integers(), max_size=12), st.integers(1, 4))
def test_everybody_gets_every_item_done_once_in_its_place(items: list[int], count: int) -> None:
    """However many processes share the work, the result is that of one."""

    def work(first: int, part: Sequence[int]) -> list[tuple[int, int]]:
        return [(first + place, item) for place, item in enumerate(part)]

    alone = map_over_processes(SINGLE_PROCESS, items, work)
    assert alone == list(enumerate(items))
    assert together(count, lambda ranks: map_over_processes(ranks, items, work)) == [alone] * count


@given(st.lists(st.integers(), min_size=1, max_size=12), st.integers(1, 4))
def test_every_process_does_equally_much(items: list[int], count: int) -> None:
    """Models whose weights are spread over processes must be called equally often in each."""

    def done(ranks: ProcessGroup) -> int:
        sizes: list[int] = []

        def work(first: int, part: Sequence[int]) -> Sequence[int]:
            sizes.append(len(part))
            return part

        map_over_processes(ranks, items, work)
        return sizes[0]

    assert len(set(together(count, done))) == 1
