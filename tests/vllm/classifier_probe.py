"""What Hugging Face's own code and the gateway's embedded classifier say of texts.

Runs inside vLLM's own environment: `python classifier_probe.py DIRECTORY < TEXTS`, a JSON list
on standard input; prints `{"float32": [...], "bfloat16": [...], "embedded": [...], "tokens": [...]}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from scorers.local_classifier import LocalClassifier
from scorers.trained import ClassifierInput


def by_hand(directory: Path, texts: list[str], dtype: torch.dtype) -> list[float]:
    """One text at a time, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=dtype).eval()
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0, 0].float() for text in texts]
    return [float(torch.sigmoid(logit)) for logit in logits]


def embedded(directory: Path, texts: list[str]) -> list[float]:
    """All texts in one padded batch."""
    classifier = LocalClassifier(directory, template="{answer}")
    values, tokens = asyncio.run(classifier.classify([ClassifierInput("", text) for text in texts]))
    assert tokens > 0
    classifier.close()
    return values


if __name__ == "__main__":
    where, asked = Path(sys.argv[1]), json.load(sys.stdin)
    told = {
        "float32": by_hand(where, asked, torch.float32),
        "bfloat16": by_hand(where, asked, torch.bfloat16),
        "embedded": embedded(where, asked),
        "tokens": [len(ids) for ids in AutoTokenizer.from_pretrained(where)(asked)["input_ids"]],
    }
    print(json.dumps(told))
