"""The answer forms that a prompt can ask for, and the strict extraction of an answer in each form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from training.types import Problem

__all__ = ["ANSWER_FORMS", "AnswerForm", "chat_messages"]

_PHRASE = re.compile(r"\banswer is:?[ \t]*", re.IGNORECASE)
_TAG = re.compile(r"<answer>(.{1,4000}?)</answer>", re.IGNORECASE | re.DOTALL)
_BOX = "\\boxed{"


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """One way to declare an answer.

    `instruction` tells the model how to answer. `example` is a reply in this form, with {answer} as its
    placeholder. `extract` returns the answer that a reply declares in exactly this form, or None.
    """

    instruction: str
    example: str
    extract: Callable[[str], str | None]


def chat_messages(
    problem: Problem, form: AnswerForm, examples: Sequence[Problem] = ()
) -> list[dict[str, str]]:
    """Build the chat for a problem: each example as a turn with its correct answer, then the question."""
    messages = []
    for shown in (*examples, problem):
        messages.append({"role": "user", "content": f"{shown.question}\n\n{form.instruction}".strip()})
        messages.append({"role": "assistant", "content": form.example.replace("{answer}", shown.gold or "")})
    return messages[:-1]


def _find_boxed(text: str) -> str | None:
    r"""Return the content of the last \boxed{}, braces balanced."""
    start = text.rfind(_BOX)
    if start < 0:
        return None
    begin, depth = start + len(_BOX), 1
    for brace in re.finditer(r"\\?[{}]", text[begin:]):
        if brace[0] in "{}":
            depth += 1 if brace[0] == "{" else -1
        if not depth:
            return text[begin : begin + brace.start()].strip() or None
    return None


def _find_phrase(text: str) -> str | None:
    """Return the rest of the line after the last "answer is"."""
    parts = _PHRASE.split(text)
    return (parts[-1].split("\n")[0].strip().rstrip(".").strip() or None) if len(parts) > 1 else None


def _find_tagged(text: str) -> str | None:
    answers = _TAG.findall(text)
    return (answers[-1].strip() or None) if answers else None


def _any(text: str) -> str | None:
    """Return the answer in whichever form the reply uses, the most explicit form first."""
    return _find_boxed(text) or _find_tagged(text) or _find_phrase(text)


ANSWER_FORMS: Mapping[str, AnswerForm] = {
    "boxed": AnswerForm("Put the final answer in \\boxed{}.", "\\boxed{{answer}}", _find_boxed),
    "phrase": AnswerForm(
        'End with "The answer is" and the final answer.', "The answer is {answer}.", _find_phrase
    ),
    "tag": AnswerForm(
        "Write the final answer as <answer>...</answer>.", "<answer>{answer}</answer>", _find_tagged
    ),
    "any": AnswerForm("", "The answer is {answer}.", _any),
}
"""Answer forms by name. To add one, add a line."""
