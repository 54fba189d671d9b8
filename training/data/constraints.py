"""Constraints on a reply that a program can check, in the manner of IFEval (arXiv:2311.07911).

A constraint is a mapping: its "kind", and the kind's parameters. To add a kind: one row of
`KINDS`, and one in `training.data.constraint_edits` that writes a text which keeps to it.
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
    "KINDS",
    "SCRIPTS",
    "Constraint",
    "Kind",
    "asked",
    "drawn",
    "paragraphs",
    "satisfied",
    "sentences",
    "words",
]

Constraint = Mapping[str, Any]
Given = Mapping[str, Any]

_WORDS = ("river", "light", "because", "seven", "quiet", "window", "matter", "green", "often", "people")
_OPENINGS = ("Certainly.", "In short:", "Let us begin.", "Here is what I think.", "My answer:")
_ENDINGS = ("That is all.", "Any questions?", "Hope this helps!", "The end.", "Thank you for reading.")
SCRIPTS: Mapping[str, str] = {"CYRILLIC": "Russian", "GREEK": "Greek", "CJK": "Chinese", "ARABIC": "Arabic"}
"""Scripts by the first word of their letters' Unicode names, and a language that is written in each."""

_SCRIPT_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Kind:
    """How a constraint is asked for (a format string of its parameters), checked, and drawn at random."""

    ask: str
    holds: Callable[[str, Given], bool]
    draw: Callable[[random.Random], dict[str, Any]]


def words(text: str) -> list[str]:
    """Stretches of letters and digits, apostrophes and hyphens within them included."""
    return re.findall(r"\w+(?:['’-]\w+)*", text)


def sentences(text: str) -> list[str]:
    """What ends in a full stop, question or exclamation mark before a space or the end; a rest counts too."""
    return [part.strip() for part in re.split(r"(?<=[.!?。！？])[\"'”)]*(?:\s+|$)", text) if words(part)]


def paragraphs(text: str) -> list[str]:
    """What blank lines set apart."""
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


def _quoted(text: str) -> bool:
    return len(text) > 2 and text[0] == text[-1] == '"' and '"' not in text[1:-1]


def _script_share(text: str, script: str) -> float:
    letters = [unicodedata.name(letter, "").partition(" ")[0] for letter in text if letter.isalpha()]
    return letters.count(script) / len(letters) if letters else 0.0


def _number(low: int, high: int, step: int = 1) -> Callable[[random.Random], dict[str, Any]]:
    return lambda chance: {"n": chance.randrange(low, high + 1, step)}


def _one_of(name: str, values: tuple[str, ...]) -> Callable[[random.Random], dict[str, Any]]:
    return lambda chance: {name: chance.choice(values)}


def _none(chance: random.Random) -> dict[str, Any]:
    return {}


KINDS: Mapping[str, Kind] = {
    "words_at_least": Kind(
        "Use at least {n} words.", lambda t, g: len(words(t)) >= g["n"], _number(20, 100, 10)
    ),
    "words_at_most": Kind("Use at most {n} words.", lambda t, g: len(words(t)) <= g["n"], _number(10, 60, 5)),
    "sentences": Kind(
        "Write exactly {n} sentences.", lambda t, g: len(sentences(t)) == g["n"], _number(2, 6)
    ),
    "paragraphs": Kind(
        "Write exactly {n} paragraphs, set apart by blank lines.",
        lambda t, g: len(paragraphs(t)) == g["n"],
        _number(2, 4),
    ),
    "bullets": Kind(
        "Give exactly {n} bullet points, each on a line that begins with a hyphen.",
        lambda t, g: _bullets(t) == g["n"],
        _number(2, 6),
    ),
    "no_commas": Kind(
        "Do not use any commas.", lambda t, g: not any(comma in t for comma in ",，、،"), _none
    ),
    "lowercase": Kind(
        "Write in lowercase letters only.",
        lambda t, g: any(map(str.islower, t)) and not any(map(str.isupper, t)),
        _none,
    ),
    "uppercase": Kind(
        "Write in capital letters only.",
        lambda t, g: any(map(str.isupper, t)) and not any(map(str.islower, t)),
        _none,
    ),
    "keyword": Kind('Use the word "{word}".', lambda t, g: _count(t, g["word"]) > 0, _one_of("word", _WORDS)),
    "no_keyword": Kind(
        'Do not use the word "{word}".',
        lambda t, g: _count(t, g["word"]) == 0,
        _one_of("word", ("the", "and", "is", "of", "it", "very")),
    ),
    "keyword_times": Kind(
        'Use the word "{word}" exactly {n} times.',
        lambda t, g: _count(t, g["word"]) == g["n"],
        lambda chance: {"word": chance.choice(_WORDS), "n": chance.randint(2, 4)},
    ),
    "starts_with": Kind(
        'Begin your reply with "{phrase}"',
        lambda t, g: t.startswith(g["phrase"]),
        _one_of("phrase", _OPENINGS),
    ),
    "ends_with": Kind(
        'End your reply with "{phrase}"', lambda t, g: t.endswith(g["phrase"]), _one_of("phrase", _ENDINGS)
    ),
    "json": Kind("Reply with a JSON object and nothing else.", lambda t, g: _json(t), _none),
    "title": Kind(
        "Give your reply a title in double angle brackets, as <<title>>.",
        lambda t, g: re.search(r"<<[^<>\n]*\w[^<>\n]*>>", t) is not None,
        _none,
    ),
    "quotation": Kind("Put your whole reply in double quotation marks.", lambda t, g: _quoted(t), _none),
    "letter_at_least": Kind(
        'Use the letter "{letter}" at least {n} times.',
        lambda t, g: t.lower().count(g["letter"]) >= g["n"],
        lambda chance: {"letter": chance.choice("aeinorst"), "n": chance.randint(5, 25)},
    ),
    "placeholders": Kind(
        "Leave at least {n} blanks to fill in, each named in square brackets, as [name].",
        lambda t, g: len(re.findall(r"\[[^\[\]\n]*\w[^\[\]\n]*\]", t)) >= g["n"],
        _number(1, 4),
    ),
    "highlights": Kind(
        "Highlight at least {n} parts with single asterisks, as *this*.",
        lambda t, g: len(re.findall(r"(?<![*\w])\*[^*\s][^*\n]*\*(?![*\w])", t)) >= g["n"],
        _number(1, 3),
    ),
    "postscript": Kind(
        'Add a postscript on a line of its own that begins with "P.S."',
        lambda t, g: re.search(r"\S[^\n]*\n+P\.S\.[ \t]*\S", t) is not None,
        _none,
    ),
    "script": Kind(
        "Reply in {language} only.",
        lambda t, g: _script_share(t, g["script"]) >= _SCRIPT_SHARE,
        lambda chance: dict(zip(("script", "language"), chance.choice(sorted(SCRIPTS.items())), strict=True)),
    ),
}


def satisfied(constraint: Constraint, text: str) -> bool:
    """Whether a text keeps to a constraint; one without words never does. Raises DataError, see `_kind`."""
    text, kind = text.strip(), _kind(constraint)
    try:
        return bool(words(text)) and kind.holds(text, constraint)
    except (KeyError, TypeError) as error:
        raise DataError(f"the constraint {dict(constraint)!r} has wrong parameters") from error


def asked(constraint: Constraint) -> str:
    """The sentence that asks for a constraint. Raises DataError as `satisfied` does."""
    try:
        return _kind(constraint).ask.format_map(constraint)
    except KeyError as error:
        raise DataError(f"the constraint {dict(constraint)!r} has wrong parameters") from error


def drawn(kind: str, chance: random.Random) -> dict[str, Any]:
    """A constraint of this kind with parameters drawn at random."""
    return {"kind": kind, **KINDS[kind].draw(chance)}


def _kind(constraint: Constraint) -> Kind:
    try:
        return KINDS[constraint["kind"]]
    except KeyError:
        raise DataError(f"no constraint is of the kind {constraint.get('kind')!r}") from None
