"""Several completions of a prompt packed into one sequence: each sees what it sees alone."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    MistralConfig,
    MptConfig,
)

from training.config import ModelSource  # noqa: E402
from training.tiny.model import build  # noqa: E402
from training.trainer.models import load_model  # noqa: E402
from training.trainer.packing import pack_groups, pack_shared_prompts, packing_is_cheaper  # noqa: E402

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

tokens = st.lists(st.integers(3, 60), max_size=5)
groups_of_replies = st.dictionaries(
    tokens.filter(bool).map(tuple), st.lists(tokens, min_size=1, max_size=4), min_size=1, max_size=3
)


@given(groups_of_replies)
def test_a_token_sees_only_its_prompt_and_its_own_completion(
    groups_by_prompt: dict[tuple[int, ...], list[list[int]]],
) -> None:
    """Read back through the mask every sequence is whole, with its own positions and labels."""
    sequences = [(prompt, reply) for prompt, replies in groups_by_prompt.items() for reply in replies]
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, (prompt, _) in enumerate(sequences):
        groups.setdefault(prompt, []).append(index)
    batch = pack_groups(groups, [reply for _, reply in sequences], 5, torch.device("cpu"))
    ids, positions = batch.ids.reshape(-1), batch.positions.reshape(-1)
    length = batch.ids.shape[1]
    for index, (prompt, reply) in enumerate(sequences):
        assert batch.unpack(batch.labels)[index].tolist() == reply + [0] * (5 - len(reply))
        for number, flat_index in enumerate(batch.token_indices[index, : len(reply)].tolist()):
            group, column = divmod(flat_index, length)
            visible = batch.mask[group, 0, column].nonzero()[:, 0] + group * length
            assert ids[visible].tolist() == [*prompt, *reply[:number]]
            assert positions[visible].tolist() == list(range(len(prompt) + number))


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """Return a model of two small layers."""
    build(tmp_path, width=64, layers=2)
    return load_model(ModelSource(path=str(tmp_path)), train=False)


def test_only_completions_of_one_prompt_are_packed(model: Any) -> None:
    """Different prompts stay apart."""
    mask = torch.ones(2, 4, dtype=torch.long)
    different = torch.tensor([[7, 8, 9, 9], [8, 8, 9, 9]])
    assert pack_shared_prompts(model, SAME, mask, 2) is not None
    assert pack_shared_prompts(model, different, mask, 2) is None


SAME = torch.tensor([[7, 8, 20, 21], [7, 8, 30, 31]])
SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**SIZES, intermediate_size=64, num_key_value_heads=2, sliding_window=2),
        BloomConfig(**SIZES),
        FalconConfig(**SIZES, alibi=True),
        MptConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=2, hidden_size=32),
    ],
    ids=lambda config: config.model_type,
)
def test_models_without_support_are_not_packed(config: Any) -> None:
    """A window of the last tokens would count other completions; ALiBi measures distances by columns."""
    model = AutoModelForCausalLM.from_config(config)
    assert pack_shared_prompts(model, SAME, torch.ones(2, 4, dtype=torch.long), 2) is None


def test_long_completions_of_a_short_prompt_are_not_packed() -> None:
    """A mask saves no attention: 8 completions of 8,000 tokens would cost more than a prompt is worth."""
    weights, attention = 100_000_000, 2 * 30 * 576
    assert packing_is_cheaper([60], [[25] * 8], weights, attention)
    assert not packing_is_cheaper([60], [[8_000] * 8], weights, attention)
    assert packing_is_cheaper([4_000], [[200] * 8], weights, attention)
    assert not packing_is_cheaper([2_000], [[2_000] * 8], 7_000_000_000, 2 * 32 * 4096), (
        "it would take too much memory"
    )
