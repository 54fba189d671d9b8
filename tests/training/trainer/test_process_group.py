"""What several processes divide and agree on; threads stand in for the processes."""

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
        """Return every thread's values."""
        self.board[self.rank] = values
        self.barrier.wait(timeout=10)
        gathered = [value for index in range(self.world_size) for value in self.board[index]]
        self.barrier.wait(timeout=10)
        return gathered

    def wait(self) -> None:
        """Wait for the other threads."""
        self.barrier.wait(timeout=10)


def in_processes(count: int, work: Callable[[ProcessGroup], T]) -> list[T]:
    """Return each process's result of the same work."""
    barrier, board = Barrier(count), dict[int, Sequence[Any]]()
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda index: work(Thread(index, count, barrier, board)), range(count)))


@given(st.lists(st.integers(), max_size=12), st.integers(1, 4))
def test_every_process_gets_each_items_result_in_its_place(items: list[int], count: int) -> None:
    """On any number of processes the result is that of one."""

    def work(first: int, part: Sequence[int]) -> list[tuple[int, int]]:
        return [(first + place, item) for place, item in enumerate(part)]

    expected = map_over_processes(SINGLE_PROCESS, items, work)
    assert expected == list(enumerate(items))
    assert in_processes(count, lambda group: map_over_processes(group, items, work)) == [expected] * count


@given(st.lists(st.integers(), min_size=1, max_size=12), st.integers(1, 4))
def test_every_process_computes_equally_many_items(items: list[int], count: int) -> None:
    """Models whose weights are sharded must be called equally often in each."""

    def part_size(group: ProcessGroup) -> int:
        sizes: list[int] = []

        def work(first: int, part: Sequence[int]) -> Sequence[int]:
            sizes.append(len(part))
            return part

        map_over_processes(group, items, work)
        return sizes[0]

    assert len(set(in_processes(count, part_size))) == 1
