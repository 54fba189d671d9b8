"""Questions about answers: what a generative judge learns from. Pure.

A check asks whether a question's answer is so and so; the thinking that is taught works the question out
anew, compares the result and the answer character by character as far as they agree, and the reply is yes
or no. So the row is verifiable like any other. A small model that is to compare two numbers at once learns
the working out alone and says yes or no by chance; even with the characters side by side it does, unless
each pair has a verdict of its own, of which the last is the reply.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from scorers.trained import Case, filled
from training.config import Miss
from training.scorer.labels import change_digit
from training.scorer.samples import Asked
from training.types import Problem

__all__ = [
    "DIGIT_ONLY",
    "compare_characters",
    "judge_problem",
    "judge_problems_by_rule",
    "judge_problems_from_replies",
    "judge_problems_to_imitate",
    "perturb_answer",
]

DIGIT_ONLY: tuple[Miss, ...] = ("digit",)


def judge_problem(form: str, row: Problem, answer: str, right: bool) -> Problem:
    """One check of an answer, as a row of its own; `form` has {question} and {answer}."""
    chains: Mapping[str, str] = row.extra.get("chains", {})
    beside = compare_characters(row.gold or "", answer.strip())
    extra = {"chains": {name: f"{chain}\n{beside}" for name, chain in chains.items()}} if chains else {}
    question = filled(form, Case(row.question, answer))
    return Problem(f"{row.id}/{answer}", question, "yes" if right else "no", source="checks", extra=extra)


def compare_characters(result: str, answer: str) -> str:
    """The result, and its characters against the answer's up to the first that differs.

    "579" against "589" gives "579" and "5:5 yes 7:8 no"; "-" stands for a character that isn't there.
    """
    pairs = []
    for left, right in zip_longest(result, answer[: len(result) + 1], fillvalue="-"):
        pairs.append(f"{left}:{right} {'yes' if left == right else 'no'}")
        if left != right:
            break
    return f"{result}\n{' '.join(pairs)}"


def perturb_answer(answer: str, misses: Sequence[Miss], chance: random.Random) -> str | None:
    """A wrong answer near the right one, in one of these ways; None where it has no digit.

    Only a whole number can miss by its sign or its length, 0 by neither; other answers do by a digit.
    """
    miss = misses[0] if len(misses) == 1 else chance.choice(misses)
    found = re.fullmatch(r"(-?)([1-9]\d*)", answer)
    if miss == "digit" or found is None:
        return change_digit(answer, chance)
    sign, digits = found.groups()
    if miss == "sign":
        return digits if sign else f"-{digits}"
    place = chance.randrange(len(digits))
    if len(digits) > 1 and chance.random() < 0.5:
        return sign + digits[:place] + digits[place + 1 :]
    return sign + digits[: place + 1] + chance.choice("0123456789") + digits[place + 1 :]


def judge_problems_by_rule(
    form: str, rows: Sequence[Problem], seed: int, misses: Sequence[Miss] = DIGIT_ONLY
) -> list[Problem]:
    """A check of each row: of its own answer, or, half of the time, of one that misses it in such a way.

    Rows with a tolerance are asked of their own answer alone: another number may be right too.
    """
    chance = random.Random(f"checks {seed}")
    found = []
    for row in rows:
        gold = row.gold or ""
        wrong = (
            perturb_answer(gold, misses, chance) if row.tolerance is None and chance.random() < 0.5 else None
        )
        found.append(judge_problem(form, row, wrong or gold, wrong is None))
    return found


def judge_problems_from_replies(
    form: str, asked: Sequence[Asked], seed: int, misses: Sequence[Miss] = DIGIT_ONLY, *, most: int = 2
) -> list[Problem]:
    """Checks of a policy's own replies: of each question its right answer, and as many wrong ones.

    The wrong ones are those given most often, which are those that win votes; where the policy made no
    mistake it is a near miss.
    """
    chance = random.Random(f"checks {seed}")
    found = []
    for each in asked:
        wrong = Counter(r.answer.strip() for r in each.replies if r.finished and not r.correct)
        answers = [answer for answer, _ in wrong.most_common() if answer][:most]
        gold = each.row.gold or ""
        near = perturb_answer(gold, misses, chance) if each.row.tolerance is None else None
        if not answers and near is not None:
            answers = [near]
        found += [judge_problem(form, each.row, answer, False) for answer in answers]
        found.append(judge_problem(form, each.row, gold, True))
    return found


def judge_problems_to_imitate(
    form: str, rows: Sequence[Problem], asked: Sequence[Asked], seed: int, misses: Sequence[Miss] = DIGIT_ONLY
) -> list[Problem]:
    """Checks of rows by rule, and behind them those of a policy's replies, whose mistakes are harder."""
    return [
        *judge_problems_by_rule(form, rows, seed, misses),
        *judge_problems_from_replies(form, asked, seed, misses),
    ]
