"""Constraints on a reply that a program can check, in the manner of IFEval (arXiv:2311.07911).

A constraint is a mapping with its "kind" and the kind's parameters. To add a kind, write one row in
`CONSTRAINT_KINDS`, and one in `training.data.constraint_edits` that makes a text satisfy it.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from training.data.problems import DataError

__all__ = [
    "CONSTRAINT_KINDS",
    "SCRIPTS",
    "Constraint",
    "ConstraintKind",
    "constraint_request",
    "is_satisfied",
    "paragraphs",
    "random_constraint",
    "sentences",
    "words",
]

Constraint = Mapping[str, Any]
Parameters = Mapping[str, Any]

_WORDS = ("river", "light", "because", "seven", "quiet", "window", "matter", "green", "often", "people")
_OPENINGS = ("Certainly.", "In short:", "Let us begin.", "Here is what I think.", "My answer:")
_ENDINGS = ("That is all.", "Any questions?", "Hope this helps!", "The end.", "Thank you for reading.")
SCRIPTS: Mapping[str, str] = {"CYRILLIC": "Russian", "GREEK": "Greek", "CJK": "Chinese", "ARABIC": "Arabic"}
"""Maps a script, the first word of its letters' Unicode names, to a language that is written in it."""

_SCRIPT_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class ConstraintKind:
    """A kind of constraint: its request (a format string), its check, and random parameters."""

    request: str
    holds: Callable[[str, Parameters], bool]
    parameters: Callable[[random.Random], Parameters]


def words(text: str) -> list[str]:
    """Return stretches of letters and digits, with apostrophes and hyphens within them."""
    return re.findall(r"\w+(?:['’-]\w+)*", text)


def sentences(text: str) -> list[str]:
    """Return what ends in a full stop, question or exclamation mark before a space; the rest counts too."""
    return [part.strip() for part in re.split(r"(?<=[.!?。！？])[\"'”)]*(?:\s+|$)", text) if words(part)]


def paragraphs(text: str) -> list[str]:
    """Return the parts between blank lines."""
    return [part for part in re.split(r"\n\s*\n", text) if part.strip()]


def _bullets(text: str) -> int:
    return len(re.findall(r"^[ \t]*[-*•][ \t]+\S", text, re.MULTILINE))


def _count(text: str, word: str) -> int:
    return len(re.findall(rf"\b{re.escape(word)}\b", text, re.IGNORECASE))


def _json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (json.JSONDecodeError, RecursionError):
        return False


def _is_quoted(text: str) -> bool:
    return len(text) > 2 and text[0] == text[-1] == '"' and '"' not in text[1:-1]


def _script_share(text: str, script: str) -> float:
    letters = [unicodedata.name(letter, "").partition(" ")[0] for letter in text if letter.isalpha()]
    return letters.count(script) / len(letters) if letters else 0.0


def _number(low: int, high: int, step: int = 1) -> Callable[[random.Random], Parameters]:
    return lambda rng: {"n": rng.randrange(low, high + 1, step)}


def _one_of(name: str, values: tuple[str, ...]) -> Callable[[random.Random], Parameters]:
    return lambda rng: {name: rng.choice(values)}


def _none(rng: random.Random) -> Parameters:
    return {}


CONSTRAINT_KINDS: Mapping[str, ConstraintKind] = {
    "words_at_least": ConstraintKind(
        "Use at least {n} words.", lambda t, g: len(words(t)) >= g["n"], _number(20, 100, 10)
    ),
    "words_at_most": ConstraintKind(
        "Use at most {n} words.", lambda t, g: len(words(t)) <= g["n"], _number(10, 60, 5)
    ),
    "sentences": ConstraintKind(
        "Write exactly {n} sentences.", lambda t, g: len(sentences(t)) == g["n"], _number(2, 6)
    ),
    "paragraphs": ConstraintKind(
        "Write exactly {n} paragraphs, set apart by blank lines.",
        lambda t, g: len(paragraphs(t)) == g["n"],
        _number(2, 4),
    ),
    "bullets": ConstraintKind(
        "Give exactly {n} bullet points, each on a line that begins with a hyphen.",
        lambda t, g: _bullets(t) == g["n"],
        _number(2, 6),
    ),
    "no_commas": ConstraintKind(
        "Do not use any commas.", lambda t, g: not any(comma in t for comma in ",，、،"), _none
    ),
    "lowercase": ConstraintKind(
        "Write in lowercase letters only.",
        lambda t, g: any(map(str.islower, t)) and not any(map(str.isupper, t)),
        _none,
    ),
    "uppercase": ConstraintKind(
        "Write in capital letters only.",
        lambda t, g: any(map(str.isupper, t)) and not any(map(str.islower, t)),
        _none,
    ),
    "keyword": ConstraintKind(
        'Use the word "{word}".', lambda t, g: _count(t, g["word"]) > 0, _one_of("word", _WORDS)
    ),
    "no_keyword": ConstraintKind(
        'Do not use the word "{word}".',
        lambda t, g: _count(t, g["word"]) == 0,
        _one_of("word", ("the", "and", "is", "of", "it", "very")),
    ),
    "keyword_times": ConstraintKind(
        'Use the word "{word}" exactly {n} times.',
        lambda t, g: _count(t, g["word"]) == g["n"],
        lambda rng: {"word": rng.choice(_WORDS), "n": rng.randint(2, 4)},
    ),
    "starts_with": ConstraintKind(
        'Begin your reply with "{phrase}"',
        lambda t, g: t.startswith(g["phrase"]),
        _one_of("phrase", _OPENINGS),
    ),
    "ends_with": ConstraintKind(
        'End your reply with "{phrase}"', lambda t, g: t.endswith(g["phrase"]), _one_of("phrase", _ENDINGS)
    ),
    "json": ConstraintKind("Reply with a JSON object and nothing else.", lambda t, g: _json(t), _none),
    "title": ConstraintKind(
        "Give your reply a title in double angle brackets, as <<title>>.",
        lambda t, g: re.search(r"<<[^<>\n]*\w[^<>\n]*>>", t) is not None,
        _none,
    ),
    "quotation": ConstraintKind(
        "Put your whole reply in double quotation marks.", lambda t, g: _is_quoted(t), _none
    ),
    "letter_at_least": ConstraintKind(
        'Use the letter "{letter}" at least {n} times.',
        lambda t, g: t.lower().count(g["letter"]) >= g["n"],
        lambda rng: {"letter": rng.choice("aeinorst"), "n": rng.randint(5, 25)},
    ),
    "placeholders": ConstraintKind(
        "Leave at least {n} blanks to fill in, each named in square brackets, as [name].",
        lambda t, g: len(re.findall(r"\[[^\[\]\n]*\w[^\[\]\n]*\]", t)) >= g["n"],
        _number(1, 4),
    ),
    "highlights": ConstraintKind(
        "Highlight at least {n} parts with single asterisks, as *this*.",
        lambda t, g: len(re.findall(r"(?<![*\w])\*[^*\s][^*\n]*\*(?![*\w])", t)) >= g["n"],
        _number(1, 3),
    ),
    "postscript": ConstraintKind(
        'Add a postscript on a line of its own that begins with "P.S."',
        lambda t, g: re.search(r"\S[^\n]*\n+P\.S\.[ \t]*\S", t) is not None,
        _none,
    ),
    "script": ConstraintKind(
        "Reply in {language} only.",
        lambda t, g: _script_share(t, g["script"]) >= _SCRIPT_SHARE,
        lambda rng: dict(zip(("script", "language"), rng.choice(sorted(SCRIPTS.items())), strict=True)),
    ),
}


def is_satisfied(constraint: Constraint, text: str) -> bool:
    """Whether a text satisfies a constraint; a text without words never does.

    Raises DataError for an unknown constraint and for wrong parameters.
    """
    text, kind = text.strip(), _kind(constraint)
    try:
        return bool(words(text)) and kind.holds(text, constraint)
    except (KeyError, TypeError) as error:
        raise DataError(f"the constraint {dict(constraint)!r} has wrong parameters") from error


def constraint_request(constraint: Constraint) -> str:
    """Return the sentence that asks for a constraint. Raises DataError as `is_satisfied` does."""
    try:
        return _kind(constraint).request.format_map(constraint)
    except KeyError as error:
        raise DataError(f"the constraint {dict(constraint)!r} has wrong parameters") from error


def random_constraint(kind: str, rng: random.Random) -> Constraint:
    """Return a constraint of this kind with random parameters."""
    return {"kind": kind, **CONSTRAINT_KINDS[kind].parameters(rng)}


def _kind(constraint: Constraint) -> ConstraintKind:
    try:
        return CONSTRAINT_KINDS[constraint["kind"]]
    except KeyError:
        raise DataError(f"no constraint is of the kind {constraint.get('kind')!r}") from None
