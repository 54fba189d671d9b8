"""Takes the dressing off an answer: LaTeX spacing and fonts, math marks, Markdown, typographic signs."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["split_outside_brackets", "strip_formatting"]

_SIGNS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/",
        "⁄": "/", "∕": "/", "π": "\\pi ", "∞": "\\infty ", "≤": "<=", "≥": ">=", "≠": "!=", "∪": "\\cup ",
        "∈": "\\in ", "∅": "\\emptyset ", "±": "\\pm ", "∓": "\\mp ", "√": "\\sqrt ", "θ": "\\theta ",
        "ℝ": "\\mathbb{R}", "‘": "'", "’": "'", "“": '"', "”": '"', "′": "'", "º": "°", "˚": "°",
        "⟨": "(", "⟩": ")", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u200b": None, "\ufeff": None,
        "∛": "\\sqrt[3]", "≈": "\\approx ", "½": "\\frac{1}{2}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}",
        "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "⅛": "\\frac{1}{8}", "⅜": "\\frac{3}{8}",
        "⅝": "\\frac{5}{8}", "⅞": "\\frac{7}{8}", "⅕": "\\frac{1}{5}", "⅙": "\\frac{1}{6}",
    }
)  # fmt: skip
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_FENCE = re.compile(r"^```[\w+-]*\n(.*?)\n?```$", re.DOTALL)
_RATE = re.compile(
    r"(?<=[\d} ])\\[dt]?frac ?\{ ?\\(?:text|mathrm|rm) ?\{([^{}]{1,20})\} ?\}"
    r"\{ ?\\(?:text|mathrm|rm) ?\{([^{}]{1,20})\} ?(\^ ?\{?\d\}?)? ?\}"
)
_ROW = "\x1e"  # stands for a matrix row's end while backslashes are taken away
_LATEX = [
    (re.compile(r"\\\\(?:\[[^\]\n]{0,8}\])?"), " \x1e "),
    (re.compile(r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|rm|bf|it)(?![A-Za-z])"), ""),
    (re.compile(r",\\!\s*|\{,\}"), ","),
    (re.compile(r"(?<=\d)(?:\\[,! ]|\{\\,\}|~)\s*(?=\d{3}(?!\d))"), ""),
    (re.compile(r"\\[,;:! ]|\\(?:quad|qquad|enspace|thinspace|hfill)(?![A-Za-z])|~"), " "),
    (re.compile(r"\\[()\[\]]|\$"), ""),
    (re.compile(r"\\([%#&_])"), r"\1"),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:leqslant|leq|le)(?![A-Za-z])"), "<="),
    (re.compile(r"\\(?:geqslant|geq|ge)(?![A-Za-z])"), ">="),
    (re.compile(r"\\(?:neq|ne)(?![A-Za-z])"), "!="),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\operatorname\*?\s*\{([A-Za-z]+)\}"), r"\\\1 "),
    (re.compile(r"\\(?:langle)(?![A-Za-z])"), "("),
    (re.compile(r"\\(?:rangle)(?![A-Za-z])"), ")"),
]
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|mathrm|mathbf|mathit|mathsf|mathcal|mbox|hbox|emph|boldsymbol"
    r"|bold|bm|vec|overrightarrow|boxed|fbox)\s*\{([^{}]*)\}"
)
_SPACES = re.compile(r"\s+")
_POWER = re.compile(r"\*\*")


def strip_formatting(text: str) -> str:
    """`text` without dressing: still LaTeX where that carries meaning, but one spelling of it."""
    text = text.strip()
    fence = _FENCE.match(text)
    if fence:
        text = fence[1]
    if not text.isascii():
        text = _RAISED.sub(
            lambda m: "^{" + unicodedata.normalize("NFKC", m[0]).replace("\u2212", "-") + "}", text
        )
        text = _LOWERED.sub(lambda m: "_{" + unicodedata.normalize("NFKC", m[0]) + "}", text)
        text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS)
    if "\x00" <= min(text, default="a") < " ":
        text = _CONTROL.sub("", text)
    if "\\" in text or "$" in text or "{,}" in text or "~" in text:
        text = text.replace("\\$", "$")
        text = _RATE.sub(r" \1/\2\3", text)
        for pattern, new in _LATEX:
            text = pattern.sub(new, text)
        for _ in range(4):
            text, count = _TEXT.subn(r" \1 ", text)
            if not count:
                break
    return _strip_marks(_SPACES.sub(" ", text.replace(_ROW, "\\\\")).strip())


def _strip_marks(text: str) -> str:
    """Without Markdown marks, quotes, and the full stop at the end."""
    for _ in range(6):
        before = text
        if text.startswith("**") and text.count("**") % 2 == 0:
            text = _POWER.sub("", text)
        for mark in ("`", '"', "'", "*", "_"):
            if len(text) > 2 and text[0] == text[-1] == mark:
                text = text[1:-1]
        text = text.rstrip(" .,;:").lstrip(" :")
        if len(text) > 2 and text[-1] == "!" and text[-3:-1].isalpha():
            text = text[:-1]
        if text == before:
            break
    return text


def split_outside_brackets(text: str, separators: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The pieces of `text` between `separators` outside all brackets, and those separators.

    Brackets of different kinds may pair, as in half-open intervals.
    """
    marks = {match.start(): match for match in separators.finditer(text)}
    pieces: list[str] = []
    found: list[str] = []
    if not marks:
        return [text], found
    depth = start = 0
    for at, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        if not depth and at in marks and at >= start:
            pieces.append(text[start:at])
            found.append(marks[at][0])
            start = marks[at].end()
    return [*pieces, text[start:]], found
