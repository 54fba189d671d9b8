"""Replies drawn together: each is what it would have been alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma2Config

from training.config import ModelSource
from training.tiny.model import build
from training.trainer.generation import generate_ids
from training.trainer.models import load_model

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

PROMPTS = [[7, 8, 9, 10], [11], [7, 8, 9, 10], [12, 13], [7, 8, 9, 10], [11]]
"""Of different lengths, some of them asked several times."""


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A model of two small layers."""
    build(tmp_path, width=64, layers=2)
    return load_model(ModelSource(path=str(tmp_path)), train=False).eval()


def drawn(
    model: Any,
    prompts: Sequence[Sequence[int]],
    temperature: float,
    first: int = 0,
    *,
    limit: int = 12,
    ends: Sequence[int] = (2,),
) -> list[list[int]]:
    """A reply to each prompt, with seeds by their places."""
    seeds = [str(first + place) for place in range(len(prompts))]
    return generate_ids(model, prompts, temperature, limit, ends, seeds=seeds)


@pytest.fixture
def passes(model: Any) -> list[tuple[int, int]]:
    """The rows and columns of every pass through the model."""
    seen: list[tuple[int, int]] = []

    def note(_: Any, args: Any, given: Any) -> None:
        seen.append(tuple(given["input_ids"].shape))

    model.model.register_forward_pre_hook(note, with_kwargs=True)
    return seen


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_prompts_asked_several_times_are_answered_as_alone(model: Any, temperature: float) -> None:
    """The shared pass over a prompt changes no reply, whatever stands before, behind and between."""
    together = drawn(model, PROMPTS, temperature)
    alone = [drawn(model, [prompt], temperature, place)[0] for place, prompt in enumerate(PROMPTS)]
    assert together == alone
    if temperature:
        assert together[0] != together[2], "samples of one prompt differ"


def test_prompts_asked_several_times_are_read_once(model: Any, passes: list[tuple[int, int]]) -> None:
    """All but the last token of three prompts, then the last one of each of the six."""
    drawn(model, PROMPTS, 1.0)
    assert passes[:2] == [(3, 3), (6, 1)]


def test_different_prompts_are_read_with_their_replies(model: Any, passes: list[tuple[int, int]]) -> None:
    """There is nothing to share."""
    drawn(model, [[7, 8, 9, 10], [11]], 1.0)
    assert passes[0] == (2, 4)


def test_a_cache_that_is_not_asked_for_is_not_made(model: Any, passes: list[tuple[int, int]]) -> None:
    """A model whose own settings say how it generates is left to it."""
    model.generation_config.use_cache = False
    drawn(model, PROMPTS, 1.0)
    assert passes[0] == (6, 4)


def test_an_adapters_model_shares_its_prompts_too(model: Any) -> None:
    """With the weights that its replies are drawn from."""
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    ).eval()
    alone = [drawn(adapted, [prompt], 1.0, place)[0] for place, prompt in enumerate(PROMPTS)]
    assert drawn(adapted, PROMPTS, 1.0) == alone


def test_a_reply_that_has_ended_takes_no_further_part(model: Any, passes: list[tuple[int, int]]) -> None:
    """The others are what they would have been, up to the limit."""
    ends = range(2, 14)  # so many that replies end after a few tokens, each after another number
    together = drawn(model, PROMPTS * 4, 1.0, limit=40, ends=ends)
    rows = [row for row, columns in passes if columns == 1]
    assert rows[0] == 24
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] <= 12
    assert len(rows) == max(map(len, together))
    assert all(reply[-1] in ends or len(reply) == 40 for reply in together)
    assert not any(token in ends for reply in together for token in reply[:-1])
    alone = [
        drawn(model, [prompt], 1.0, place, limit=40, ends=ends)[0] for place, prompt in enumerate(PROMPTS * 4)
    ]
    assert together == alone


def test_the_trainers_own_attention_is_back_after_drawing(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is faster backward is slower forward; a failure changes nothing of that."""
    used = []
    model.set_attn_implementation("eager")
    model.model.register_forward_pre_hook(lambda *_: used.append(model.config._attn_implementation))
    drawn(model, PROMPTS, 1.0)
    assert set(used) == {"sdpa"}
    assert model.config._attn_implementation == "eager"

    def broken(**_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(model, "generate", broken)
    with pytest.raises(MemoryError):
        drawn(model, PROMPTS, 1.0)
    assert model.config._attn_implementation == "eager"


def test_a_model_that_knows_no_other_attention_keeps_its_own() -> None:
    """Gemma 2's has a cap that torch's own can't apply."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = Gemma2Config(**sizes, num_attention_heads=2, num_key_value_heads=1, head_dim=16)
    capped = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    assert len(drawn(capped, PROMPTS, 1.0)) == len(PROMPTS)
    assert capped.config._attn_implementation == "eager"
