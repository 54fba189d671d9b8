"""Rewards inside another engine's process: the stage's own reward plan, with the grader of serving.

Each question carries what grading its reply needs, as one line of JSON (`grading_record`). A file beside the
data holds what the run's rewards need (`scoring_file`). Neither torch nor TRL is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

from policies.thinking import Markup
from scorers.grader.pool import WorkerPool
from training.config import parse_config
from training.data.prompts import Prompt, Prompter, Tokenizer
from training.data.readers import parse_problems, problem_json
from training.export.plan import ExportError, ExportPlan, PromptedProblem
from training.rewards import RewardContext, reward_plan
from training.stages.reward_context import stage_reward_context, with_token_limit

__all__ = ["Scoring", "grading_record", "reward_names", "scoring_file"]

_UNSUPPORTED_REWARDS = {
    "majority": "compares a question's replies",
    "preference": "needs a model that the stage trains",
}


def grading_record(prompted: PromptedProblem) -> str:
    """Return what grading a reply to this problem needs, as one line of JSON."""
    problem = problem_json(replace(prompted.problem, extra={}, pairs=()))
    markup = asdict(prompted.prompt.markup)
    record = {"row": problem, "budget": prompted.prompt.budget, "markup": markup}
    return json.dumps(record, ensure_ascii=False)


def reward_names(plan: ExportPlan, prompted: Sequence[PromptedProblem]) -> list[str]:
    """Return the rewards that the problems name. Raises ExportError if one can't judge a reply alone."""
    names = sorted({item.problem.reward for item in prompted})
    for name in names:
        if name in _UNSUPPORTED_REWARDS:
            raise ExportError(f"the reward {name!r} {_UNSUPPORTED_REWARDS[name]}, which the engine can't do")
    if plan.table.rewards.get("short"):
        raise ExportError("rewards.short compares a question's replies, but the engine judges each alone")
    if plan.table.mask_truncated_completions:
        raise ExportError("mask_truncated_completions: the engine can't leave out single replies")
    return names


def scoring_file(plan: ExportPlan, rewards: Collection[str], stop_ids: Collection[int]) -> str:
    """Return the file from which `Scoring.open` builds the rewards again."""
    config = json.loads(plan.config.model_dump_json(by_alias=True))
    fields = {"stage": plan.stage, "model": plan.model, "kinds": sorted(rewards), "ends": sorted(stop_ids)}
    return json.dumps({**fields, "config": config}, indent=2) + "\n"


class Scoring:
    """Scores single replies.

    `close` ends the grader's worker process, which also ends with its parent.
    """

    def __init__(self, fields: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        config = parse_config(fields["config"])
        table: Any = config.table(fields["stage"])
        self._pool = WorkerPool(1).start()
        context = stage_reward_context(config, table, fields["kinds"], RewardContext(pool=self._pool))
        limit = table.final_completion_length or table.max_completion_length
        self._plan = reward_plan(with_token_limit(context, limit), fields["kinds"], table.rewards)
        self._prompter = Prompter(tokenizer, config.family, config.budgets, fields["ends"])

    @classmethod
    def open(cls, path: Path, tokenizer: Tokenizer | None = None) -> Self:
        """Load an export's file; the tokenizer defaults to the model's."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        if tokenizer is None:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(fields["model"])
        return cls(fields, tokenizer)

    def score(self, record: str, reply: Sequence[int] | str) -> dict[str, float]:
        """Return `score` to train on, `acc` by the problem's own reward alone, and every part, as numbers.

        `reply` is token ids, or text with its special tokens. It includes the token that ended it; a reply
        without one counts as cut off. A reward that does not apply counts 0.
        """
        fields = json.loads(record)
        answer = fields["markup"]["answer"]
        markup = Markup(**fields["markup"] | {"answer": tuple(answer) if answer else None})
        (problem,) = parse_problems([json.dumps(fields["row"])])
        encode = self._prompter.tokenizer.encode
        ids = encode(reply, add_special_tokens=False) if isinstance(reply, str) else list(reply)
        prompt = Prompt("", (), markup, fields["budget"])
        judged = self._plan.judge(problem, [self._prompter.completion(prompt, ids)])
        parts = {name: values[0] or 0.0 for name, values in judged.parts.items()}
        return {"score": judged.totals[0] or 0.0, "acc": judged.main[0] or 0.0, **parts}

    def reply(self, text: str, prompt: str) -> str:
        """Return the reply in a text that starts with its prompt, as written or re-decoded from its tokens.

        Raises ValueError if the text starts otherwise.
        """
        tokenizer = self._prompter.tokenizer
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        for start in (prompt, tokenizer.decode(ids, skip_special_tokens=False)):
            if text.startswith(start):
                return text[len(start) :]
        raise ValueError("the text does not begin with its prompt")

    def close(self) -> None:
        """End the grader's worker process."""
        self._pool.close()
