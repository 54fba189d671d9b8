"""Where rows come from. To add a kind of source: one function and one line in `SOURCES`."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count, islice

from training.config import Source
from training.data.arithmetic import additions, errands
from training.data.functions import function_rows
from training.data.hub import HubSet, hub_rows
from training.data.instructions import instruction
from training.data.problems import DataError
from training.data.readers import gym_rows, read_rows
from training.data.recorded import rated_rows, recorded_rows
from training.data.word_problems import stories
from training.types import Problem

__all__ = ["SOURCES", "collect", "held_out"]


def _gym(source: Source, seed: str) -> Iterator[Problem]:
    if source.task is None or source.count is None:
        raise DataError("a source of kind gym needs a task and a count")
    number = random.Random(seed).getrandbits(31)
    return iter(gym_rows(source.task, source.count, number))


def _jsonl(source: Source, seed: str) -> Iterator[Problem]:
    if source.path is None:
        raise DataError("a source of kind jsonl needs a path")
    return iter(read_rows(source.path))


def _hub(source: Source, seed: str) -> Iterator[Problem]:
    if source.name is None:
        raise DataError("a source of kind hub needs a name")
    wanted = HubSet(source.name, source.subset, source.split, source.columns, source.fixed)
    return iter(hub_rows(wanted, source.count))


def _instructions(source: Source, seed: str) -> Iterator[Problem]:
    number = random.Random(seed).getrandbits(31)
    return (replace(instruction(number, index), general=True) for index in count())


def _recorded(source: Source, seed: str) -> Iterator[Problem]:
    if source.path is None:
        raise DataError("a source of kind recorded needs a path")
    if source.ratings:
        return iter(rated_rows(source.path))
    return iter(recorded_rows(source.path, unlabelled=source.unlabelled))


SOURCES: Mapping[str, Callable[[Source, str], Iterator[Problem]]] = {
    "additions": lambda source, seed: additions(seed, digits=source.digits),
    "errands": lambda source, seed: errands(seed),
    "functions": lambda source, seed: iter(function_rows()),
    "gym": _gym,
    "hub": _hub,
    "instructions": _instructions,
    "jsonl": _jsonl,
    "recorded": _recorded,
    "stories": lambda source, seed: stories(seed),
}
"""Each gives rows, perhaps without end; the same source and seed give the same rows. Raises DataError."""


def collect(sources: Sequence[Source], most: int, seed: int, *, without: Iterable[str] = ()) -> list[Problem]:
    """`most` different rows, drawn from the sources by weight; fewer only where all of them run dry.

    Questions in `without` are left out, which keeps held-out ones out of training. No two rows have one id:
    replies and pass rates are kept by it, and files of one name would share theirs. Deterministic.
    """
    rng = random.Random(f"collect {seed}")
    taken = set(without)
    ids: set[str] = set()
    streams: dict[int, Iterator[Problem]] = {}
    for place, source in enumerate(sources):
        if source.kind not in SOURCES:
            raise DataError(f"no source is called {source.kind!r}; there are {', '.join(SOURCES)}")
        stream = SOURCES[source.kind](source, f"{seed} {source.seed} {place}")
        streams[place] = islice(stream, source.count)
    rows: list[Problem] = []
    repeated = 0
    while streams and len(rows) < most and repeated < 100 * most:
        places = list(streams)
        place = rng.choices(places, [sources[p].weight for p in places])[0]
        row = next(streams[place], None)
        if row is None:
            del streams[place]
        elif row.question in taken:
            repeated += 1
        else:
            taken.add(row.question)
            rows.append(replace(row, id=_unlike(f"{row.source}/{row.id}", ids)))
            ids.add(rows[-1].id)
    if not rows:
        raise DataError("the sources hold no rows")
    return rows


def _unlike(wanted: str, taken: Container[str]) -> str:
    """The id itself, or with the least number behind it that makes it another than those taken."""
    numbered = (f"{wanted}#{number}" for number in count(2))
    return next(each for each in chain([wanted], numbered) if each not in taken)


def held_out(sources: Sequence[Source], most: int) -> list[Problem]:
    """The questions to evaluate on; they don't depend on the run's seed, so that runs can be compared."""
    return collect(sources, most, seed=-1)
