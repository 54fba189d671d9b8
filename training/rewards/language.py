"""The language reward: whether a model thinks in the language it was asked in.

DeepSeek-R1 (arXiv:2501.12948, section 2.3.2) rewards the share of words in the target language.
Here the script of each word tells first, which needs no model and is right for a single
word; languages that share a script are told apart in long prose alone, where an identifier
is at hand. Formulas and code belong to no language and are taken out before.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from training.types import Completion, Problem

__all__ = ["Identify", "Language", "consistency", "langid", "prose"]

Identify = Callable[[str], tuple[str, float]]
"""The language of a text and the probability of it, in [0, 1]."""

MIN_WORDS = 5  # of thinking, under which there is nothing to judge
MIN_PROSE = 100  # letters from which on an identifier is asked
SURE = 0.95  # probability from which on it is believed
HOME = 0.1  # part of the question's words from which on a script is one of its own

_LANGUAGELESS = re.compile(
    r"""
      ```.*?(?:```|\Z) | ~~~.*?(?:~~~|\Z) | `[^`\n]*`         # code
    | \$\$.*?\$\$ | \$[^$\n]*\$ | \\\(.*?\\\) | \\\[.*?\\\]   # formulas
    | \\begin\{(\w+\*?)\}.*?\\end\{\1\}
    | \\[A-Za-z]+\*?(?:\{[^{}]*\})*                           # a command and its arguments
    | https?://\S+
    | \w*[\d_]\w*                                             # numbers, and names as x_1 or sha256
    """,
    re.DOTALL | re.VERBOSE,
)
_UNSPACED = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"}
_KANA = {"HIRAGANA", "KATAKANA"}
_JAPANESE = _KANA | {"CJK"}
_SPELLED_OTHERWISE = {
    "KATAKANA-HIRAGANA": "KATAKANA",
    "FULLWIDTH": "LATIN",
    "HALFWIDTH": "KATAKANA",
    "IDEOGRAPHIC": "CJK",
}


@dataclass(frozen=True, slots=True)
class Language:
    """The share of the thinking, in [0, 1], that is in the question's language (see `consistency`)."""

    identify: Identify | None = None

    def __call__(self, row: Problem, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`."""
        return [consistency(row.question, each.thinking, self.identify) for each in completions]


def consistency(question: str, thinking: str, identify: Identify | None = None) -> float | None:
    """The share of the thinking's words that are in the question's language, in [0, 1].

    A word is in it where its script is one of the question's; a paragraph of long prose that
    `identify` is sure to be in another language than the question's (long prose, too) is not.
    None where there is nothing to judge: a question without words, or hardly any thinking.
    """
    asked = prose(question)
    scripts = _scripts(asked)
    if not scripts:
        return None
    home = _home(scripts)
    spoken = _spoken(asked, identify)
    total = fitting = 0.0
    for paragraph in re.split(r"\n\s*\n", prose(thinking)):
        found = _scripts(paragraph)
        total += sum(found.values())
        other = _spoken(paragraph, identify) if spoken else None
        if other is None or other == spoken:
            fitting += sum(words for script, words in found.items() if script in home)
    return fitting / total if total >= MIN_WORDS else None


def prose(text: str) -> str:
    """The text without code, formulas, addresses, and what has digits in it."""
    return _LANGUAGELESS.sub(" ", text)


@lru_cache(maxsize=1)
def langid() -> Identify | None:
    """py3langid's identifier (0.4 or later), where it is installed; else None."""
    try:
        module = importlib.import_module("py3langid.langid")
    except ImportError:
        return None
    identifier = module.LanguageIdentifier.from_model_file(module.MODEL_FILE, norm_probs=True)

    def identify(text: str) -> tuple[str, float]:
        language, probability = identifier.classify(text)
        return str(language), float(probability)

    return identify


def _scripts(text: str) -> dict[str, float]:
    """How many words are in each script; without spaces between words two characters are one word."""
    counts: dict[str, float] = {}
    for script, run in groupby(unicodedata.normalize("NFC", text), key=_script):
        letters = len(list(run))
        # A letter alone is a variable, in scripts that write words with several.
        words = letters / 2 if script in _UNSPACED else float(letters > 1)
        if script and words:
            counts[script] = counts.get(script, 0) + words
    return counts


def _home(scripts: Mapping[str, float]) -> set[str]:
    """The scripts that a question is written in; Japanese writes with three."""
    home = {script for script, words in scripts.items() if words >= HOME * sum(scripts.values())}
    return home | _JAPANESE if home & _KANA else home


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """The script by the character's Unicode name, whose first word it is; "" for what is no letter."""
    if unicodedata.category(character)[0] not in "LM":
        return ""
    first = unicodedata.name(character, "").partition(" ")[0]
    return _SPELLED_OTHERWISE.get(first, first)


def _spoken(text: str, identify: Identify | None) -> str | None:
    """The language of long prose; None where it is short, or the identifier isn't sure."""
    if identify is None or sum(map(str.isalpha, text)) < MIN_PROSE:
        return None
    language, probability = identify(text)
    return language if probability >= SURE else None
