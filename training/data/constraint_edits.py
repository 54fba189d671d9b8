"""Edits that make a text satisfy constraints, which proves that they can be satisfied."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.data.constraints import CONSTRAINT_KINDS, Constraint, is_satisfied, sentences, words

__all__ = ["EDITS", "draft_text", "edit_to_satisfy"]

Edit = Callable[[str, Mapping[str, Any], random.Random], str]

_SENTENCES = (
    "There is more to {topic} than most people think.",
    "Many of us first meet {topic} as children, and we remember it for years.",
    "Some say that {topic} is a matter of taste, others call it a need.",
    "When you look closely, {topic} turns out to be simple.",
    "It takes time, patience, and a little luck.",
    "Nobody has to be an expert to enjoy it.",
    "In the end, what counts is how you use it.",
    "A good way to start is to ask someone who knows.",
    "Small steps are better than none, as every teacher knows.",
    "I would try it twice before giving up.",
)
_FOREIGN = {
    "CYRILLIC": "Это хороший вопрос. Я думаю, что всё зависит от времени и терпения.",
    "GREEK": "Αυτή είναι μια καλή ερώτηση. Νομίζω ότι όλα θέλουν χρόνο και υπομονή.",
    "CJK": "这是一个好问题。我认为一切都需要时间和耐心。",
    "ARABIC": "هذا سؤال جيد. أعتقد أن كل شيء يحتاج إلى وقت وصبر.",
}


def draft_text(topic: str, rng: random.Random) -> str:
    """Return a few plain sentences on a topic, without regard to any constraint."""
    return " ".join(line.format(topic=topic) for line in rng.sample(_SENTENCES, rng.randint(3, 6)))


def edit_to_satisfy(text: str, constraints: Sequence[Constraint], rng: random.Random) -> str | None:
    """Return the text, edited to satisfy all constraints; None where one edit undid another's work.

    Raises DataError for an unknown constraint.
    """
    for _ in range(2):  # an edit that was undone may succeed the second time
        for constraint in constraints:
            if not is_satisfied(constraint, text):
                text = EDITS[constraint["kind"]](text, constraint, rng)
    return text if all(is_satisfied(constraint, text) for constraint in constraints) else None


def _filler(rng: random.Random) -> str:
    return rng.choice(_SENTENCES[4:])


def _lengthen(text: str, enough: Callable[[str], bool], rng: random.Random) -> str:
    while not enough(text):
        text = f"{text} {_filler(rng)}"
    return text


def _take_sentences(text: str, count: int, rng: random.Random) -> list[str]:
    """Return `count` sentences: the text's first ones, and fillers where it has too few."""
    parts = sentences(text)[:count]
    return [*parts, *(_filler(rng) for _ in range(count - len(parts)))]


def _times(text: str, word: str, count: int) -> str:
    bare = _without(text, word)
    return f"{bare} Remember the words: {' '.join([word] * count)}."


def _without(text: str, word: str) -> str:
    return re.sub(rf"\b{re.escape(word)}\b[ \t]*", "", text, flags=re.IGNORECASE).strip()


def _shorten(text: str, count: int) -> str:
    return f"{' '.join(words(text)[:count])}."


def _longer(kind: str) -> Edit:
    """Return an edit that adds sentences until the constraint holds, for kinds that more text satisfies."""
    return lambda text, params, rng: _lengthen(text, lambda t: CONSTRAINT_KINDS[kind].holds(t, params), rng)


EDITS: Mapping[str, Edit] = {
    "words_at_least": _longer("words_at_least"),
    "words_at_most": lambda text, params, rng: _shorten(text, params["n"]),
    "sentences": lambda text, params, rng: " ".join(_take_sentences(text, params["n"], rng)),
    "paragraphs": lambda text, params, rng: "\n\n".join(_take_sentences(text, params["n"], rng)),
    "bullets": lambda text, params, rng: "\n".join(
        f"- {part}" for part in _take_sentences(text, params["n"], rng)
    ),
    "no_commas": lambda text, params, rng: re.sub("[,，、،]", "", text),
    "lowercase": lambda text, params, rng: text.lower(),
    "uppercase": lambda text, params, rng: text.upper(),
    "keyword": lambda text, params, rng: f"{text} Think of this word: {params['word']}.",
    "no_keyword": lambda text, params, rng: _without(text, params["word"]),
    "keyword_times": lambda text, params, rng: _times(text, params["word"], params["n"]),
    "starts_with": lambda text, params, rng: f"{params['phrase']} {text}",
    "ends_with": lambda text, params, rng: f"{text} {params['phrase']}",
    "json": lambda text, params, rng: json.dumps({"reply": text}, ensure_ascii=False),
    "title": lambda text, params, rng: f"<<A reply>>\n{text}",
    "quotation": lambda text, params, rng: '"' + text.replace('"', "'") + '"',
    "letter_at_least": _longer("letter_at_least"),
    "placeholders": lambda text, params, rng: f"{text} Ask {' or '.join(['[name]'] * params['n'])}.",
    "highlights": lambda text, params, rng: f"{text} {' '.join(['*Try it*!'] * params['n'])}",
    "postscript": lambda text, params, rng: f"{text}\n\nP.S. {_filler(rng)}",
    "script": lambda text, params, rng: _FOREIGN[params["script"]],
}
"""Maps each kind of constraint to an edit."""
