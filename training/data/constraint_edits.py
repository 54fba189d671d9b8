"""Edits a text so that it keeps to a constraint: proof that it can be kept, and the good half of a pair."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.data.constraints import KINDS, Constraint, satisfied, sentences, words

__all__ = ["OBEY", "draft", "obeyed"]

Edit = Callable[[str, Mapping[str, Any], random.Random], str]

_SAID = (
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


def draft(topic: str, chance: random.Random) -> str:
    """A few plain sentences on a topic, which keep to nothing in particular."""
    return " ".join(line.format(topic=topic) for line in chance.sample(_SAID, chance.randint(3, 6)))


def obeyed(text: str, constraints: Sequence[Constraint], chance: random.Random) -> str | None:
    """The text edited to keep to all constraints; None where one edit undid another's work.

    Raises DataError for a constraint that isn't one.
    """
    for _ in range(2):  # an edit that was undone may come out right the second time
        for constraint in constraints:
            if not satisfied(constraint, text):
                text = OBEY[constraint["kind"]](text, constraint, chance)
    return text if all(satisfied(each, text) for each in constraints) else None


def _filler(chance: random.Random) -> str:
    return chance.choice(_SAID[4:])


def _lengthened(text: str, enough: Callable[[str], bool], chance: random.Random) -> str:
    while not enough(text):
        text = f"{text} {_filler(chance)}"
    return text


def _parted(text: str, count: int, chance: random.Random) -> list[str]:
    """So many sentences: the text's first ones, and others where it has too few."""
    found = sentences(text)[:count]
    return [*found, *(_filler(chance) for _ in range(count - len(found)))]


def _times(text: str, word: str, count: int) -> str:
    bare = _without(text, word)
    return f"{bare} Remember the words: {' '.join([word] * count)}."


def _without(text: str, word: str) -> str:
    return re.sub(rf"\b{re.escape(word)}\b[ \t]*", "", text, flags=re.IGNORECASE).strip()


def _shortened(text: str, count: int) -> str:
    return f"{' '.join(words(text)[:count])}."


def _same_kind(kind: str) -> Edit:
    """Add one sentence or phrase at a time until the constraint holds; for kinds that more text satisfies."""
    return lambda text, given, chance: _lengthened(text, lambda t: KINDS[kind].holds(t, given), chance)


OBEY: Mapping[str, Edit] = {
    "words_at_least": _same_kind("words_at_least"),
    "words_at_most": lambda text, given, chance: _shortened(text, given["n"]),
    "sentences": lambda text, given, chance: " ".join(_parted(text, given["n"], chance)),
    "paragraphs": lambda text, given, chance: "\n\n".join(_parted(text, given["n"], chance)),
    "bullets": lambda text, given, chance: "\n".join(
        f"- {each}" for each in _parted(text, given["n"], chance)
    ),
    "no_commas": lambda text, given, chance: re.sub("[,，、،]", "", text),
    "lowercase": lambda text, given, chance: text.lower(),
    "uppercase": lambda text, given, chance: text.upper(),
    "keyword": lambda text, given, chance: f"{text} Think of this word: {given['word']}.",
    "no_keyword": lambda text, given, chance: _without(text, given["word"]),
    "keyword_times": lambda text, given, chance: _times(text, given["word"], given["n"]),
    "starts_with": lambda text, given, chance: f"{given['phrase']} {text}",
    "ends_with": lambda text, given, chance: f"{text} {given['phrase']}",
    "json": lambda text, given, chance: json.dumps({"reply": text}, ensure_ascii=False),
    "title": lambda text, given, chance: f"<<A reply>>\n{text}",
    "quotation": lambda text, given, chance: '"' + text.replace('"', "'") + '"',
    "letter_at_least": _same_kind("letter_at_least"),
    "placeholders": lambda text, given, chance: f"{text} Ask {' or '.join(['[name]'] * given['n'])}.",
    "highlights": lambda text, given, chance: f"{text} {' '.join(['*Try it*!'] * given['n'])}",
    "postscript": lambda text, given, chance: f"{text}\n\nP.S. {_filler(chance)}",
    "script": lambda text, given, chance: _FOREIGN[given["script"]],
}
"""One edit for each kind of constraint."""
