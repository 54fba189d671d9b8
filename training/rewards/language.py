"""The language reward: whether a model thinks in the language of the question.

DeepSeek-R1 (arXiv:2501.12948, section 2.3.2) rewards the share of words in the target language. Here the
script of each word decides first, which needs no model and is correct for a single word. An identifier, where
there is one, tells languages of the same script apart, but only in long prose. Formulas and code belong to no
language and don't count.
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
"""Returns the language of a text and its probability, in [0, 1]."""

MIN_WORDS = 5  # thinking with fewer words is not judged
MIN_PROSE = 100  # letters; the identifier judges no shorter prose
SURE = 0.95  # the least probability at which the identifier counts
HOME = 0.1  # the least part of a question's words that makes a script one of the question's

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
    """The share of the thinking that is in the question's language, in [0, 1] (see `consistency`)."""

    identify: Identify | None = None

    def __call__(self, problem: Problem, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`."""
        return [consistency(problem.question, reply.thinking, self.identify) for reply in completions]


def consistency(question: str, thinking: str, identify: Identify | None = None) -> float | None:
    """Return the share of the thinking's words that are in the question's language, in [0, 1].

    A word is where its script is one of the question's. A paragraph of long prose is not where `identify` is
    sure that it is in another language than the question, which must be long prose too. None where there is
    nothing to judge: a question without words, or hardly any thinking.
    """
    asking = prose(question)
    scripts = _scripts(asking)
    if not scripts:
        return None
    home = _home(scripts)
    language = _language(asking, identify)
    total = fitting = 0.0
    for paragraph in re.split(r"\n\s*\n", prose(thinking)):
        counts = _scripts(paragraph)
        total += sum(counts.values())
        other = _language(paragraph, identify) if language else None
        if other is None or other == language:
            fitting += sum(words for script, words in counts.items() if script in home)
    return fitting / total if total >= MIN_WORDS else None


def prose(text: str) -> str:
    """Return the text without code, formulas, addresses, and words with digits."""
    return _LANGUAGELESS.sub(" ", text)


@lru_cache(maxsize=1)
def langid() -> Identify | None:
    """Return py3langid's identifier (0.4 or later); None where it isn't installed."""
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
    """Count the words of each script; in scripts without spaces two characters are one word."""
    counts: dict[str, float] = {}
    for script, run in groupby(unicodedata.normalize("NFC", text), key=_script):
        letters = len(list(run))
        # In scripts that write words with several letters, a single one is a variable.
        words = letters / 2 if script in _UNSPACED else float(letters > 1)
        if script and words:
            counts[script] = counts.get(script, 0) + words
    return counts


def _home(scripts: Mapping[str, float]) -> set[str]:
    """Return the scripts that a question is written in; Japanese has three."""
    home = {script for script, words in scripts.items() if words >= HOME * sum(scripts.values())}
    return home | _JAPANESE if home & _KANA else home


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """Return the script, which is the first word of the character's Unicode name; "" if it is no letter."""
    if unicodedata.category(character)[0] not in "LM":
        return ""
    first = unicodedata.name(character, "").partition(" ")[0]
    return _SPELLED_OTHERWISE.get(first, first)


def _language(text: str, identify: Identify | None) -> str | None:
    """Return the language of long prose; None where it is short or the identifier isn't sure."""
    if identify is None or sum(map(str.isalpha, text)) < MIN_PROSE:
        return None
    language, probability = identify(text)
    return language if probability >= SURE else None
