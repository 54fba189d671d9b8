"""The sources of problems. To add a kind of source: one function and one line in `SOURCES`."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count, islice

from training.config import Source
from training.data.arithmetic import additions, errands
from training.data.functions import coding_problems
from training.data.gym import gym_problems
from training.data.hub import HubSet, hub_problems
from training.data.instructions import instruction
from training.data.problems import DataError
from training.data.readers import read_problems
from training.data.recorded import rated_problems, recorded_problems
from training.data.word_problems import word_problems
from training.types import Problem

__all__ = ["SOURCES", "collect", "held_out"]


def _gym(source: Source, seed: str) -> Iterator[Problem]:
    if source.task is None or source.count is None:
        raise DataError("a source of kind gym needs a task and a count")
    number = random.Random(seed).getrandbits(31)
    problems = gym_problems(source.task, source.count, number)
    return (replace(problem, id=f"gym/{number}/{problem.id}") for problem in problems)


def _jsonl(source: Source, seed: str) -> Iterator[Problem]:
    if source.path is None:
        raise DataError("a source of kind jsonl needs a path")
    return iter(read_problems(source.path))


def _hub(source: Source, seed: str) -> Iterator[Problem]:
    if source.name is None:
        raise DataError("a source of kind hub needs a name")
    hub_set = HubSet(source.name, source.subset, source.split, source.columns, source.fixed)
    return iter(hub_problems(hub_set, source.count))


def _instructions(source: Source, seed: str) -> Iterator[Problem]:
    number = random.Random(seed).getrandbits(31)
    return (replace(instruction(number, index), general=True) for index in count())


def _recorded_problems(source: Source, seed: str) -> Iterator[Problem]:
    if source.path is None:
        raise DataError("a source of kind recorded needs a path")
    if source.ratings:
        return iter(rated_problems(source.path))
    return iter(recorded_problems(source.path, unlabelled=source.unlabelled))


SOURCES: Mapping[str, Callable[[Source, str], Iterator[Problem]]] = {
    "additions": lambda source, seed: additions(seed, digits=source.digits),
    "errands": lambda source, seed: errands(seed),
    "functions": lambda source, seed: iter(coding_problems()),
    "gym": _gym,
    "hub": _hub,
    "instructions": _instructions,
    "jsonl": _jsonl,
    "recorded": _recorded_problems,
    "stories": lambda source, seed: word_problems(seed),
}
"""Maps a kind to a function that yields its problems, perhaps without end. It may raise DataError.

The same source and seed give the same problems.
"""


def collect(
    sources: Sequence[Source], limit: int, seed: int, *, without: Iterable[str] = ()
) -> list[Problem]:
    """Return `limit` different problems, drawn from the sources by weight; fewer where all sources run dry.

    Leaves out the questions in `without`, which keeps held-out ones out of training. No two problems share an
    id, although files of the same name may: replies and pass rates are stored by it. Deterministic.
    """
    rng = random.Random(f"collect {seed}")
    questions = set(without)
    ids: set[str] = set()
    streams: dict[int, Iterator[Problem]] = {}
    for index, source in enumerate(sources):
        if source.kind not in SOURCES:
            raise DataError(f"no source is called {source.kind!r}; there are {', '.join(SOURCES)}")
        stream = SOURCES[source.kind](source, f"{seed} {source.seed} {index}")
        streams[index] = islice(stream, source.count)
    problems: list[Problem] = []
    repeats = 0
    while streams and len(problems) < limit and repeats < 100 * limit:
        indices = list(streams)
        index = rng.choices(indices, [sources[index].weight for index in indices])[0]
        problem = next(streams[index], None)
        if problem is None:
            del streams[index]
        elif problem.question in questions:
            repeats += 1
        else:
            questions.add(problem.question)
            problems.append(replace(problem, id=_unique(f"{problem.source}/{problem.id}", ids)))
            ids.add(problems[-1].id)
    if not problems:
        raise DataError("the sources hold no problems")
    return problems


def _unique(name: str, ids: Container[str]) -> str:
    """Return the name, or the name with the least number behind it that makes it differ from all `ids`."""
    numbered = (f"{name}#{number}" for number in count(2))
    return next(candidate for candidate in chain([name], numbered) if candidate not in ids)


def held_out(sources: Sequence[Source], limit: int) -> list[Problem]:
    """Return the problems to evaluate on. They don't depend on the run's seed, so runs can be compared."""
    return collect(sources, limit, seed=-1)
