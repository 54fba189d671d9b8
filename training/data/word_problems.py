"""Word problems of two steps with their worked chains, made by rule, for small models."""

from __future__ import annotations

import random
from collections.abc import Iterator

from training.types import Problem

__all__ = ["word_problems"]

_NAMES = (
    "Ada",
    "Ben",
    "Cleo",
    "Dan",
    "Eva",
    "Finn",
    "Gus",
    "Hana",
    "Ivo",
    "Jana",
    "Kai",
    "Lea",
    "Max",
    "Nora",
)
_THINGS = ("apples", "books", "cards", "coins", "eggs", "marbles", "pens", "shells", "stamps", "stickers")
_PACKS = ("bags", "boxes", "jars", "packs", "trays")


def word_problems(seed: str) -> Iterator[Problem]:
    """Yield problems without end; the same seed gives the same ones. Answers are whole numbers from 0 on."""
    rng = random.Random(f"stories {seed}")
    kinds = (_gained_lost, _packed, _shared, _priced, _compared)
    while True:
        text, first, second, answer = rng.choice(kinds)(rng)
        yield Problem(
            id=text,
            question=text,
            gold=str(answer),
            source="stories",
            extra={"chains": {"low": f"{_result(first)}, {_result(second)}", "high": f"{first}\n{second}"}},
        )


def _result(step: str) -> str:
    return step.rpartition("= ")[2]


def _gained_lost(rng: random.Random) -> tuple[str, str, str, int]:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    had, gained = rng.randint(5, 60), rng.randint(2, 40)
    lost = rng.randint(1, had + gained - 1)
    verb = rng.choice(("buys", "finds", "gets"))
    loses = rng.choice(("gives away", "loses", "sells"))
    text = (
        f"{name} has {had} {thing}. {name} {verb} {gained} more and {loses} {lost}. "
        f"How many {thing} are left?"
    )
    now = had + gained
    return text, f"{had} + {gained} = {now}", f"{now} - {lost} = {now - lost}", now - lost


def _packed(rng: random.Random) -> tuple[str, str, str, int]:
    name, thing, pack = rng.choice(_NAMES), rng.choice(_THINGS), rng.choice(_PACKS)
    count, size, loose = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 30)
    text = (
        f"{name} has {count} {pack} with {size} {thing} each, and {loose} loose {thing}. "
        f"How many {thing} does {name} have in all?"
    )
    packed = count * size
    return text, f"{count} * {size} = {packed}", f"{packed} + {loose} = {packed + loose}", packed + loose


def _shared(rng: random.Random) -> tuple[str, str, str, int]:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    friends, share, rest = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 20)
    had = friends * share + rest
    text = (
        f"{name} has {had} {thing}, keeps {rest} and shares the rest among {friends} friends. "
        f"How many {thing} does each friend get?"
    )
    shared = had - rest
    return text, f"{had} - {rest} = {shared}", f"{shared} / {friends} = {share}", share


def _priced(rng: random.Random) -> tuple[str, str, str, int]:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    count, price = rng.randint(2, 9), rng.randint(2, 9)
    paid = count * price + rng.randint(1, 30)
    text = (
        f"{name} buys {count} {thing} at {price} dollars each and pays with {paid} dollars. "
        "How many dollars come back?"
    )
    cost = count * price
    return text, f"{count} * {price} = {cost}", f"{paid} - {cost} = {paid - cost}", paid - cost


def _compared(rng: random.Random) -> tuple[str, str, str, int]:
    name, other = rng.sample(_NAMES, 2)
    thing = rng.choice(_THINGS)
    had, more = rng.randint(3, 40), rng.randint(2, 30)
    text = (
        f"{name} has {had} {thing}. {other} has {more} more than {name}. "
        f"How many {thing} do both have together?"
    )
    others = had + more
    return text, f"{had} + {more} = {others}", f"{had} + {others} = {had + others}", had + others
