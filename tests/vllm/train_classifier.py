"""Trains the classifier of this lane on labelled replies: `python train_classifier.py SAMPLES [DIRECTORY]`.

Runs inside vLLM's own environment (it needs torch and transformers). SAMPLES is a folder with
two published sets, from which only the weights in `classifier/` were made, so that the tests need
neither:

- `gsm8k_model_solutions.jsonl.gz`: GSM8K's test problems with four solutions by GPT-3 each and
  whether they are correct (github.com/openai/grade-school-math, MIT);
- `qwen_math_rm_samples.jsonl.gz`: MATH problems with eight replies by Qwen2.5-Math each and
  whether they are right (github.com/QwenLM/Qwen2.5-Math, evaluation, MIT).

Every fifth question is kept out of training; what the classifier says of those fits the calibration
beside the weights, and goes into the card with the area under the ROC curve: over all pairs of a
right and a wrong reply, and over pairs to the same question, which is what a vote needs.
Deterministic on one machine: one thread, one seed. Takes some minutes.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

__all__ = ["build"]

WIDTH, HEAD_SIZE, LAYERS = 128, 64, 2
"""vLLM's attention on a CPU takes head sizes 32, 64, 80, 96, 112 and 128."""
VOCABULARY, LENGTH = 1_536, 512
EPOCHS, BATCH, RATE = 3, 16, 1.5e-3
GPT3 = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply to a question, and whether it is right."""

    source: str
    question: str
    text: str
    right: bool

    @property
    def prompt(self) -> str:
        """As `scorers.trained.TEMPLATE` has it."""
        return f"{self.question}\n\n{self.text}"


def replies(samples: Path) -> Iterator[Reply]:
    """All labelled replies of both sets."""
    for row in lines(samples / "gsm8k_model_solutions.jsonl.gz"):
        for name in GPT3:
            yield Reply("GSM8K", row["question"], row[name]["solution"], row[name]["is_correct"])
    for row in lines(samples / "qwen_math_rm_samples.jsonl.gz"):
        for text, right in zip(row["code"], row["score"], strict=True):
            yield Reply("MATH", row["question"], text, right)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a gzipped file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def build_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with digits one by one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>")


def build_model() -> LlamaForSequenceClassification:
    """Half a million parameters, one label: a sigmoid."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // HEAD_SIZE,
        num_key_value_heads=1,
        head_dim=HEAD_SIZE,
        max_position_embeddings=2 * LENGTH,
        num_labels=1,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=0,
    )
    return LlamaForSequenceClassification(config)


def batches(encoded: Sequence[list[int]], order: Sequence[int]) -> list[list[int]]:
    """The places in `order`, in batches of texts of nearly equal length, so that little is padded."""
    by_length = sorted(order, key=lambda place: len(encoded[place]))
    return [by_length[start : start + BATCH] for start in range(0, len(by_length), BATCH)]


def padded(texts: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    """Token ids and their mask."""
    width = max(map(len, texts))
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    return {"input_ids": ids, "attention_mask": mask}


def train(
    model: LlamaForSequenceClassification, encoded: Sequence[list[int]], labels: Sequence[bool]
) -> None:
    """Binary cross-entropy over all replies, a few times."""
    chance = random.Random(0)
    steps = EPOCHS * len(batches(encoded, range(len(encoded))))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        # Shuffled in chunks of 20 batches, so that batches differ and lengths stay together.
        order = chance.sample(range(len(encoded)), len(encoded))
        parts = [order[start : start + 20 * BATCH] for start in range(0, len(order), 20 * BATCH)]
        drawn = [batch for part in parts for batch in batches(encoded, part)]
        chance.shuffle(drawn)
        total = 0.0
        for batch in drawn[: steps // EPOCHS]:
            logits = model(**padded([encoded[place] for place in batch])).logits[:, 0]
            target = torch.tensor([float(labels[place]) for place in batch])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(drawn):.4f}", file=sys.stderr, flush=True)


def logits_of(model: LlamaForSequenceClassification, encoded: Sequence[list[int]]) -> list[float]:
    """One logit a text."""
    values = [0.0] * len(encoded)
    with torch.inference_mode():
        for batch in batches(encoded, range(len(encoded))):
            logits = model(**padded([encoded[place] for place in batch])).logits[:, 0].tolist()
            for place, logit in zip(batch, logits, strict=True):
                values[place] = logit
    return values


def area(pairs: Iterator[tuple[float, float]]) -> float:
    """How often the first of a pair, the right reply, has the higher logit; ties count half."""
    won = [(right > wrong) + 0.5 * (right == wrong) for right, wrong in pairs]
    return sum(won) / len(won)


def areas(held: Sequence[Reply], logits: Sequence[float]) -> dict[str, float]:
    """The area under the ROC curve over each set, over all, and over pairs to one question."""
    scored = list(zip(held, logits, strict=True))
    right = [(reply, logit) for reply, logit in scored if reply.right]
    wrong = [(reply, logit) for reply, logit in scored if not reply.right]
    both = [(a, b) for a in right for b in wrong]
    found = {"all": area((x, y) for (_, x), (_, y) in both)}
    for source in ("GSM8K", "MATH"):
        found[source] = area((x, y) for (a, x), (b, y) in both if a.source == b.source == source)
    found["one question"] = area((x, y) for (a, x), (b, y) in both if a.question == b.question)
    return found


CARD = """\
---
license: mit
library_name: transformers
pipeline_tag: text-classification
---
# A classifier for tests

Says how probable it is that a reply to a mathematical problem is right. {parameters:,} parameters
({size:.1f} MB, half precision), made by `tests/vllm/train_classifier.py` from {trained:,} labelled
replies: GPT-3's solutions to GSM8K ([grade-school-math](https://github.com/openai/grade-school-math),
MIT) and Qwen2.5-Math's replies to MATH ([Qwen2.5-Math](https://github.com/QwenLM/Qwen2.5-Math), MIT).
Input: `{{question}}\\n\\n{{answer}}`.

It is here to be served, by vLLM and embedded, and compared with Hugging Face's own values. It is far
too small, and has seen far too little, to check a solution: most of what it has learnt is to tell the
two sets apart, of which one is mostly right. Area under the ROC curve on {held:,} replies to questions
that it was not trained on (0.5 is chance):

| pairs of a right and a wrong reply | AUC |
|---|---|
{rows}

`calibration.json` (Platt scaling) is fitted on the same held-out replies.
"""


def build(samples: Path, directory: Path) -> None:
    """Writes the classifier as a Hugging Face directory, its calibration and card beside it."""
    from scorers.calibration import fit_calibration, logistic

    torch.manual_seed(0)
    torch.set_num_threads(1)
    directory.mkdir(parents=True, exist_ok=True)
    known = list(replies(samples))
    questions = list(dict.fromkeys(reply.question for reply in known))
    apart = set(questions[::5])
    taught = [reply for reply in known if reply.question not in apart]
    held = [reply for reply in known if reply.question in apart]
    tokenizer = build_tokenizer([reply.prompt for reply in taught])

    def encoded(part: Sequence[Reply]) -> list[list[int]]:
        return [ids[-LENGTH:] for ids in tokenizer([reply.prompt for reply in part])["input_ids"]]

    model = build_model()
    train(model, encoded(taught), [reply.right for reply in taught])
    model = model.eval().half().float()  # what is saved is what is measured
    logits = logits_of(model, encoded(held))
    line = fit_calibration([logistic(logit) for logit in logits], [reply.right for reply in held])
    found = areas(held, logits)
    parameters = sum(p.numel() for p in model.parameters())
    tokenizer.save_pretrained(directory)
    model.half().save_pretrained(directory)
    (directory / "calibration.json").write_text(json.dumps({"scale": line.scale, "shift": line.shift}) + "\n")
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in found.items())
    card = CARD.format(
        parameters=parameters, size=2e-6 * parameters, trained=len(taught), held=len(held), rows=rows
    )
    (directory / "README.md").write_text(card)
    print(json.dumps({"auc": found, "parameters": parameters, "scale": line.scale, "shift": line.shift}))


if __name__ == "__main__":
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "classifier"
    build(Path(sys.argv[1]), target)
