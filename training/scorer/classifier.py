"""A classifier that says how probably a reply is right: one label, cross-entropy on verified samples.

Source: verifiers of Cobbe et al. 2021, arXiv:2110.14168. The labels may be given at every step as well
(arXiv:2305.20050): the head that reads the last token is then trained at the end of each step, so that
the same weights are served, by vLLM's `/classify` or from a local directory, without any change.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from scorers.calibration import fit
from scorers.local_classifier import LocalClassifier
from scorers.trained import Case
from training.config import ClassifierTable
from training.data.problems import DataError
from training.data.prompts import Prompter
from training.scorer.labels import LabelledText
from training.types import Problem

__all__ = ["classification_template", "classify", "train_classifier", "write_calibration"]

_BATCH = 64  # texts in a forward pass without gradients
Encoded = tuple[list[int], list[int], list[bool]]
"""A text's ids, the places of its marks among them, and their labels."""


def classification_template(prompter: Prompter) -> str:
    """The text to classify: the question and the reply as the policy itself sees and writes them.

    It is the template that serving has to be given, and begins with no budget's system prompt, which a
    scorer is not told of.
    """
    prompt = prompter.prompt(Problem("", "{question}"), None)
    opening = "" if prompt.markup.opened else f"{prompt.markup.open}\n"
    end = prompter.tokenizer.decode([prompter.tokenizer.eos_token_id])
    return f"{prompt.text}{opening}{{reasoning}}\n{prompt.markup.close}\n\n{{answer}}{end}"


def train_classifier(
    backbone: Path,
    tokenizer: Any,
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    *,
    table: ClassifierTable,
    directory: Path,
    seed: int,
) -> dict[str, Any]:
    """Trains a new head and all weights of the backbone; keeps the weights of the least validation loss.

    Returns figures for the report. The result is a Hugging Face directory with safetensors.
    """
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1, dtype=torch.float32)
    if not hasattr(model, "score"):
        raise DataError(f"{backbone}: a {type(model).__name__} has no head that reads single tokens")
    model.config.pad_token_id = tokenizer.pad_token_id
    if torch.cuda.is_available():
        model.to("cuda")
    encoded, held = ([_encoded(tokenizer, each) for each in part] for part in (train, validation))
    optimizer = torch.optim.AdamW(model.parameters(), lr=table.rate, weight_decay=table.decay)
    rising = min(0.5, max(2, table.warmup) / table.steps)  # torch divides by one step less than it rises
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, table.rate, total_steps=table.steps, pct_start=rising
    )
    chance = random.Random(f"classifier {seed}")
    best, kept = float("inf"), {}
    losses = []
    for step in range(1, table.steps + 1):
        model.train()
        loss = _loss(model, chance.sample(encoded, min(table.batch, len(encoded))))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % table.every == 0 or step == table.steps:
            losses.append(_validation_loss(model, held))
            print(f"scorer: step {step}: validation loss {losses[-1]:.4f}", flush=True)
            if losses[-1] < best:
                best = losses[-1]
                kept = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(kept)
    model.save_pretrained(directory)
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(directory)
    return {"texts": len(train), "marks": sum(len(e.marks) for e in train), "validation_losses": losses}


def classify(directory: Path, template: str, cases: Sequence[Case]) -> list[float]:
    """The probabilities that the embedded classifier gives, the one that serves; equal cases are run once."""
    different = list(dict.fromkeys(cases))
    local = LocalClassifier(directory, template=template, batch=_BATCH)
    try:
        found = dict(zip(different, asyncio.run(local.classify(different))[0], strict=True))
    finally:
        local.close()
    return [found[case] for case in cases]


def write_calibration(directory: Path, probabilities: Sequence[float], labels: Sequence[bool]) -> None:
    """Writes the calibration beside the weights, where serving looks for it."""
    path = directory / "calibration.json"
    path.write_text(json.dumps(asdict(fit(probabilities, labels))) + "\n", encoding="utf-8")


def _encoded(tokenizer: Any, marked: LabelledText) -> Encoded:
    """Tokenized as it is in serving; a mark falls on the token that holds its last character."""
    found = tokenizer(marked.text, return_offsets_mapping=True)
    ends = [end for _, end in found["offset_mapping"]]
    places, labels = [], []
    for end, right in marked.marks:
        places.append(next((i for i, each in enumerate(ends) if each >= end), len(ends) - 1))
        labels.append(right)
    places[-1] = len(ends) - 1  # where the served head reads, whatever the tokenizer adds behind the text
    return found["input_ids"], places, labels


def _loss(model: Any, batch: Sequence[Encoded]) -> Any:
    """Cross-entropy at the marks; all steps of a text together weigh as much as its last mark."""
    width = max(len(ids) for ids, _, _ in batch)
    pad = model.config.pad_token_id
    device = model.device
    ids = torch.tensor([each + [pad] * (width - len(each)) for each, _, _ in batch], device=device)
    mask = torch.tensor([[1] * len(e) + [0] * (width - len(e)) for e, _, _ in batch], device=device)
    hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    rows = [row for row, (_, places, _) in enumerate(batch) for _ in places]
    columns = [place for _, places, _ in batch for place in places]
    labels = torch.tensor([float(x) for _, _, each in batch for x in each], device=device)
    weights = torch.tensor(
        [w for _, places, _ in batch for w in (*[1 / max(len(places) - 1, 1)] * (len(places) - 1), 1.0)],
        device=device,
    )
    logits = model.score(hidden[rows, columns])[:, 0].float()
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (weights * each).sum() / weights.sum()


def _validation_loss(model: Any, held: Sequence[Encoded]) -> float:
    """The loss of whole replies alone, which can be compared between ways of labelling."""
    model.eval()
    whole = [(ids, places[-1:], labels[-1:]) for ids, places, labels in held]
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(whole), _BATCH):
            part = whole[start : start + _BATCH]
            total += float(_loss(model, part)) * len(part)
    return total / len(whole)
