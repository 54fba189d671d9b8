"""The forms an answer may be asked for in, and the strict reading of a reply in such a form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from training.data.problems import EvaluationProblem

__all__ = ["ANSWER_FORMS", "AnswerForm", "chat_messages"]

_PHRASE = re.compile(r"\banswer is:?[ \t]*", re.IGNORECASE)
_TAG = re.compile(r"<answer>(.{1,4000}?)</answer>", re.IGNORECASE | re.DOTALL)
_BOX = "\\boxed{"


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """One way to declare an answer.

    `request` is what the model is told, `example` a reply with {answer} in its place, and
    `find` gives what a reply declares in this very form; None where it doesn't.
    """

    request: str
    example: str
    find: Callable[[str], str | None]


def chat_messages(
    problem: EvaluationProblem, form: AnswerForm, examples: Sequence[EvaluationProblem] = ()
) -> list[dict[str, str]]:
    """The chat that asks a problem: the examples as turns answered rightly, then the question."""
    chat = []
    for each in (*examples, problem):
        chat.append({"role": "user", "content": f"{each.question}\n\n{form.request}".strip()})
        chat.append({"role": "assistant", "content": form.example.replace("{answer}", each.gold)})
    return chat[:-1]


def _boxed(text: str) -> str | None:
    r"""What the last \boxed{} holds, with its braces in pairs."""
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


def _phrased(text: str) -> str | None:
    """What stands behind the last "answer is", up to the line's end."""
    parts = _PHRASE.split(text)
    return (parts[-1].split("\n")[0].strip().rstrip(".").strip() or None) if len(parts) > 1 else None


def _tagged(text: str) -> str | None:
    found = _TAG.findall(text)
    return (found[-1].strip() or None) if found else None


def _any(text: str) -> str | None:
    """Where no form is asked for, each of them counts, the most explicit first."""
    return _boxed(text) or _tagged(text) or _phrased(text)


ANSWER_FORMS: Mapping[str, AnswerForm] = {
    "boxed": AnswerForm("Put the final answer in \\boxed{}.", "\\boxed{{answer}}", _boxed),
    "phrase": AnswerForm(
        'End with "The answer is" and the final answer.', "The answer is {answer}.", _phrased
    ),
    "tag": AnswerForm(
        "Write the final answer as <answer>...</answer>.", "<answer>{answer}</answer>", _tagged
    ),
    "any": AnswerForm("", "The answer is {answer}.", _any),
}
"""To add a form: one row."""
