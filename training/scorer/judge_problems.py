"""The problems that a generative judge learns from: is this the answer to that question? Pure.

The worked chain of such a problem solves the question again, then compares the result with the answer
character by character, up to the first difference. The reply is yes or no, so the grader can verify it like
that of any other problem.

A small model that must compare two numbers at once learns to solve the question, but says yes or no by
chance. Characters side by side do not help either, unless each pair has its own yes or no; the last one is
then the reply.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from scorers.trained import ClassifierInput, fill_template
from training.config import Miss
from training.scorer.labels import change_digit
from training.scorer.samples import LabelledProblem
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


def judge_problem(form: str, problem: Problem, answer: str, right: bool) -> Problem:
    """Return the problem of judging one answer; `form` contains {question} and {answer}."""
    chains: Mapping[str, str] = problem.extra.get("chains", {})
    comparison = compare_characters(problem.gold or "", answer.strip())
    extra = {"chains": {name: f"{chain}\n{comparison}" for name, chain in chains.items()}} if chains else {}
    question = fill_template(form, ClassifierInput(problem.question, answer))
    gold = "yes" if right else "no"
    return Problem(f"{problem.id}/{answer}", question, gold, source="checks", extra=extra)


def compare_characters(result: str, answer: str) -> str:
    """Return the result, then its characters against the answer's up to the first difference.

    "579" against "589" gives "579" and "5:5 yes 7:8 no"; "-" stands for a missing character.
    """
    pairs = []
    for left, right in zip_longest(result, answer[: len(result) + 1], fillvalue="-"):
        pairs.append(f"{left}:{right} {'yes' if left == right else 'no'}")
        if left != right:
            break
    return f"{result}\n{' '.join(pairs)}"


def perturb_answer(answer: str, misses: Sequence[Miss], rng: random.Random) -> str | None:
    """Return a wrong answer that differs from the correct one in one of these ways; None without a digit.

    Only a whole number can differ by its sign or its length, and 0 by neither; other answers differ by a
    digit.
    """
    miss = misses[0] if len(misses) == 1 else rng.choice(misses)
    number = re.fullmatch(r"(-?)([1-9]\d*)", answer)
    if miss == "digit" or number is None:
        return change_digit(answer, rng)
    sign, digits = number.groups()
    if miss == "sign":
        return digits if sign else f"-{digits}"
    position = rng.randrange(len(digits))
    if len(digits) > 1 and rng.random() < 0.5:
        return sign + digits[:position] + digits[position + 1 :]
    return sign + digits[: position + 1] + rng.choice("0123456789") + digits[position + 1 :]


def judge_problems_by_rule(
    form: str, problems: Sequence[Problem], seed: int, misses: Sequence[Miss] = DIGIT_ONLY
) -> list[Problem]:
    """Return one problem of judging an answer for each problem: half correct answers, half perturbed ones.

    A problem with a tolerance always gets its correct answer, because another number may be correct too.
    """
    rng = random.Random(f"checks {seed}")
    derived = []
    for problem in problems:
        gold = problem.gold or ""
        wrong = None
        if problem.tolerance is None and rng.random() < 0.5:
            wrong = perturb_answer(gold, misses, rng)
        derived.append(judge_problem(form, problem, wrong or gold, wrong is None))
    return derived


def judge_problems_from_replies(
    form: str,
    sampled: Sequence[LabelledProblem],
    seed: int,
    misses: Sequence[Miss] = DIGIT_ONLY,
    *,
    max_wrong: int = 2,
) -> list[Problem]:
    """Return problems of judging the policy's own answers: the correct one, and up to `max_wrong` wrong ones.

    The wrong ones are the most frequent, since those win votes. If the policy made no mistake, a perturbed
    answer takes their place.
    """
    rng = random.Random(f"checks {seed}")
    derived = []
    for labelled in sampled:
        counts = Counter(
            sample.answer.strip() for sample in labelled.samples if sample.finished and not sample.correct
        )
        answers = [answer for answer, _ in counts.most_common() if answer][:max_wrong]
        gold = labelled.problem.gold or ""
        perturbed = perturb_answer(gold, misses, rng) if labelled.problem.tolerance is None else None
        if not answers and perturbed is not None:
            answers = [perturbed]
        derived += [judge_problem(form, labelled.problem, answer, False) for answer in answers]
        derived.append(judge_problem(form, labelled.problem, gold, True))
    return derived


def judge_problems_to_imitate(
    form: str,
    problems: Sequence[Problem],
    sampled: Sequence[LabelledProblem],
    seed: int,
    misses: Sequence[Miss] = DIGIT_ONLY,
) -> list[Problem]:
    """Return problems by rule, then problems from a policy's replies, whose mistakes are harder to see."""
    return [
        *judge_problems_by_rule(form, problems, seed, misses),
        *judge_problems_from_replies(form, sampled, seed, misses),
    ]
