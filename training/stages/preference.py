"""The preference reward model: Bradley-Terry on pairs of replies, from the policy's own weights.

Source: InstructGPT, arXiv:2203.02155, section 3.5; R1 uses one for what can't be verified
(arXiv:2501.12948, section 2.3.4). Pairs come from rows whose good replies are known or can be
checked: a good one against what the policy itself gets wrong, or, where it gets all right, against
the good one spoilt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from scorers.answers import verify
from training.data.instructions import preferences_among
from training.problems import DataError
from training.prompting import Prompter
from training.rewards.preference import PreferenceModel
from training.stages.run import Stage
from training.trainer.drawing import draw
from training.trainer.watch import quieten
from training.types import Row

__all__ = ["preference_model"]

_SAMPLES = 4
_EPOCHS = 3
_BATCH = 32
_RATE = 3e-4


def preference_model(stage: Stage, start: Path | None, rows: Sequence[Row]) -> tuple[PreferenceModel, float]:
    """The model, trained into the stage's folder unless it is there, and its mean score of good replies."""
    directory = stage.directory / "preference"
    policy, tokenizer, prompter = stage.load(start)
    if not (directory / "config.json").exists():
        pairs = _pairs(policy, prompter, rows, stage.seed)
        if not pairs:
            raise DataError(
                "the preference model has nothing to compare: no general row has an answer or checks"
            )
        _train(stage, start, tokenizer, pairs, directory)
        stage.ranks.wait()
    judge = _Judge(directory, tokenizer, prompter)
    known = [row for row in rows if "answer" in row.extra][:64]
    scores = judge([row.question for row in known], [row.extra["answer"] for row in known])
    return judge, sum(scores) / len(scores) if scores else 0.0


def _pairs(policy: Any, prompter: Prompter, rows: Sequence[Row], seed: int) -> list[dict[str, list[int]]]:
    """Pairs as token ids: one a row with an answer, up to two a row with checks."""
    prompts = [prompter.prompt(row, None) for row in rows]
    drawn = draw(policy, prompter, prompts, samples=_SAMPLES, max_tokens=64, seed=seed)
    rng = random.Random(f"pairs {seed}")
    pairs = []
    for row, prompt, replies in zip(rows, prompts, drawn, strict=True):
        answers = [reply.answer for reply in replies]
        if row.checks:
            found = [(pair.chosen, pair.rejected) for pair in preferences_among(row, answers, 2, seed)]
        elif "answer" not in row.extra:
            found = []
        else:
            good = row.extra["answer"]
            wrong = [answer for answer in answers if answer.strip() and verify(answer, good) is not True]
            found = [(good, wrong[0] if wrong else _spoilt(good, rng))]
        for chosen, rejected in found:
            pairs.append(
                {
                    "chosen_ids": [*prompt.ids, *prompter.target(prompt, "", chosen)],
                    "rejected_ids": [*prompt.ids, *prompter.target(prompt, "", rejected)],
                }
            )
    return pairs


def _spoilt(text: str, rng: random.Random) -> str:
    """The text with one word doubled, dropped or moved."""
    words = text.split()
    place = rng.randrange(len(words))
    if len(words) == 1 or rng.random() < 0.5:
        return " ".join([*words[: place + 1], *words[place:]])
    return " ".join([*words[:place], *words[place + 1 :]])


def _train(
    stage: Stage, start: Path | None, tokenizer: Any, pairs: Sequence[dict[str, list[int]]], directory: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(
        start or stage.config.model.path, num_labels=1, dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    cpu = model.device.type == "cpu"
    settings = RewardConfig(
        output_dir=str(directory / "checkpoints"),
        num_train_epochs=_EPOCHS,
        per_device_train_batch_size=max(1, _BATCH // stage.ranks.count),
        learning_rate=_RATE,
        weight_decay=0.0,
        save_strategy="no",
        seed=stage.seed,
        use_cpu=cpu,
        bf16=not cpu,
        gradient_checkpointing=False,
        max_length=None,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=not cpu,
    )
    trainer = RewardTrainer(
        model=model, args=settings, train_dataset=Dataset.from_list(list(pairs)), processing_class=tokenizer
    )
    quieten(trainer)
    trainer.train()
    if stage.ranks.index == 0:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


class _Judge:
    """The trained model as `training.rewards.preference.PreferenceModel`."""

    def __init__(self, directory: Path, tokenizer: Any, prompter: Prompter) -> None:
        self._model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
        self._pad = tokenizer.pad_token_id
        self._prompter = prompter

    def __call__(self, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """One score for each pair."""
        if not questions:
            return []
        sequences = []
        for question, answer in zip(questions, answers, strict=True):
            prompt = self._prompter.prompt(Row("", question), None)
            sequences.append([*prompt.ids, *self._prompter.target(prompt, "", answer)])
        width = max(map(len, sequences))
        ids = torch.tensor([each + [self._pad] * (width - len(each)) for each in sequences])
        mask = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in sequences])
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask).logits
        return logits[:, 0].tolist()
