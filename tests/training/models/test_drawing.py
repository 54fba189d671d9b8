"""Replies drawn together: each is what it would have been alone."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from training.config import ModelSource
from training.tiny.model import build
from training.trainer.drawing import generate
from training.trainer.models import load_model

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

PROMPTS = [[7, 8, 9, 10], [11], [7, 8, 9, 10], [12, 13], [7, 8, 9, 10], [11]]
"""Of different lengths, some of them asked several times."""


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_prompts_asked_several_times_are_read_once_and_answered_as_alone(
    tmp_path: Path, temperature: float
) -> None:
    """The shared pass over a prompt changes no reply, whatever stands before, behind and between."""
    build(tmp_path, width=64, layers=2)
    model = load_model(ModelSource(path=str(tmp_path)), train=False).eval()
    seeds = [str(place) for place in range(len(PROMPTS))]
    together = generate(model, PROMPTS, temperature, 12, [2], seeds=seeds)
    alone = [
        generate(model, [prompt], temperature, 12, [2], seeds=[seed])[0]
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert together == alone
    if temperature:
        assert together[0] != together[2], "samples of one prompt differ"
