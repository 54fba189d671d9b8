"""Rewards in another engine's process: the stage's own plan, whose verdict is the one serving votes with.

What a reply is judged by travels with its question, as one line of JSON (`told`); what the
run's rewards need is in a file beside the data (`settings`). Neither torch nor TRL is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

from policies.thinking import Markup
from scorers.grader.pool import MathPool
from training.config import TrainConfig
from training.data.prompts import Prompt, Prompter, Tokenizer
from training.data.readers import parse_rows, row_json
from training.export.stage_export import ExportError, PromptedProblem, StageExport
from training.rewards import RewardContext, reward_plan
from training.stages.reward_context import at_limit, reward_setting

__all__ = ["Scoring", "grading_record", "reward_names", "scoring_file"]

_GROUPS = {"majority": "compares a question's replies", "preference": "needs a model that the stage trains"}


def grading_record(asked: PromptedProblem) -> str:
    """What judging a reply to this question needs."""
    row = row_json(replace(asked.row, extra={}, pairs=()))
    markup = asdict(asked.prompt.markup)
    return json.dumps({"row": row, "budget": asked.prompt.budget, "markup": markup}, ensure_ascii=False)


def reward_names(job: StageExport, asked: Sequence[PromptedProblem]) -> list[str]:
    """The rewards that the rows name. Raises ExportError where one can't be had a reply at a time."""
    kinds = sorted({each.row.reward for each in asked})
    for kind in kinds:
        if kind in _GROUPS:
            raise ExportError(f"the reward {kind!r} {_GROUPS[kind]}, which the engine can't do")
    if job.table.rewards.get("short"):
        raise ExportError("rewards.short compares a question's replies, but the engine judges each alone")
    if job.table.leave_out_unfinished:
        raise ExportError("leave_out_unfinished: the engine can't leave single replies out")
    return kinds


def scoring_file(job: StageExport, kinds: Collection[str], ends: Collection[int]) -> str:
    """The file from which `Scoring.open` makes the rewards again."""
    config = json.loads(job.config.model_dump_json(by_alias=True))
    fields = {"stage": job.stage, "model": job.model, "kinds": sorted(kinds), "ends": sorted(ends)}
    return json.dumps({**fields, "config": config}, indent=2) + "\n"


class Scoring:
    """Judges single replies. `close` ends the grader's worker; a process that ends takes it along."""

    def __init__(self, fields: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        config = TrainConfig.model_validate(fields["config"])
        table: Any = config.table(fields["stage"])
        self._pool = MathPool(1).start()
        setting = reward_setting(config, table, fields["kinds"], RewardContext(pool=self._pool))
        limit = table.length_most or table.length
        self._plan = reward_plan(at_limit(setting, limit), fields["kinds"], table.rewards)
        self._prompter = Prompter(tokenizer, config.family, config.budgets, fields["ends"])

    @classmethod
    def open(cls, path: Path, tokenizer: Tokenizer | None = None) -> Self:
        """From an export's file; the tokenizer is the model's, unless given."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        if tokenizer is None:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(fields["model"])
        return cls(fields, tokenizer)

    def score(self, grading_record: str, reply: Sequence[int] | str) -> dict[str, float]:
        """`score` to train on, `acc` by the row's own reward alone, and every part, all plain numbers.

        `reply` is token ids or text with special tokens kept; the token that ended it belongs to it, for
        a reply without one was cut off. What a reward has no value for is 0.
        """
        fields = json.loads(grading_record)
        answer = fields["markup"]["answer"]
        markup = Markup(**fields["markup"] | {"answer": tuple(answer) if answer else None})
        (row,) = parse_rows([json.dumps(fields["row"])], "")
        encode = self._prompter.tokenizer.encode
        ids = encode(reply, add_special_tokens=False) if isinstance(reply, str) else list(reply)
        prompt = Prompt("", (), markup, fields["budget"])
        judged = self._plan.judge(row, [self._prompter.completion(prompt, ids)])
        parts = {name: values[0] or 0.0 for name, values in judged.parts.items()}
        return {"score": judged.totals[0] or 0.0, "acc": judged.main[0] or 0.0, **parts}

    def reply(self, text: str, prompt: str) -> str:
        """The reply in a text that its prompt begins, perhaps as tokens write it. Raises ValueError."""
        tokenizer = self._prompter.tokenizer
        again = tokenizer.decode(
            tokenizer.encode(prompt, add_special_tokens=False), skip_special_tokens=False
        )
        for start in (prompt, again):
            if text.startswith(start):
                return text[len(start) :]
        raise ValueError("the text does not begin with its prompt")

    def close(self) -> None:
        """Ends the grader's worker."""
        self._pool.close()
