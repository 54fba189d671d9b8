"""Classify texts with Hugging Face's own code and with the gateway's embedded classifier.

The script runs inside vLLM's own environment: `python classifier_probe.py DIRECTORY < TEXTS`. TEXTS is a JSON
list. It prints `{"float32": [...], "bfloat16": [...], "embedded": [...], "tokens": [...]}`.
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


def reference(directory: Path, texts: list[str], dtype: torch.dtype) -> list[float]:
    """Classify one text at a time, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=dtype).eval()
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0, 0].float() for text in texts]
    return [float(torch.sigmoid(logit)) for logit in logits]


def embedded(directory: Path, texts: list[str]) -> list[float]:
    """Classify all texts in one padded batch."""
    classifier = LocalClassifier(directory, template="{answer}")
    values, tokens = asyncio.run(classifier.classify([ClassifierInput("", text) for text in texts]))
    assert tokens > 0
    classifier.close()
    return values


if __name__ == "__main__":
    model, inputs = Path(sys.argv[1]), json.load(sys.stdin)
    findings = {
        "float32": reference(model, inputs, torch.float32),
        "bfloat16": reference(model, inputs, torch.bfloat16),
        "embedded": embedded(model, inputs),
        "tokens": [len(ids) for ids in AutoTokenizer.from_pretrained(model)(inputs)["input_ids"]],
    }
    print(json.dumps(findings))
