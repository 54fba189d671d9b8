"""What TRL is told to do, and what its trainer then does with a batch."""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import trl.trainer.utils  # noqa: E402
from datasets import Dataset  # noqa: E402

from training.config import ConfigError, Lora, ModelSource, RlTable  # noqa: E402
from training.tiny.model import build  # noqa: E402
from training.trainer.grpo import Trainer, advantage_reward, drop_zero_advantages, grpo_config  # noqa: E402
from training.trainer.models import load_model, load_tokenizer  # noqa: E402
from training.trainer.packing import pack_shared_prompts  # noqa: E402
from training.trainer.trl_compat import score_completions_only  # noqa: E402

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]


def config(tmp_path: Path, **fields: object):  # type: ignore[no-untyped-def]
    """TRL's settings for a table with these fields."""
    table = RlTable.model_validate({"max_steps": 4, **fields})
    return grpo_config(table, tmp_path, 1, cpu=True, mixed=False)


def test_cispo_clips_at_one_more_than_the_margin(tmp_path: Path) -> None:
    """TRL's CISPO takes the largest ratio, the other losses how far it may be above 1."""
    assert config(tmp_path, loss_type="cispo").epsilon_high == pytest.approx(1.28)
    assert config(tmp_path, loss_type="cispo", epsilon_high=5.0).epsilon_high == pytest.approx(5.0)
    assert config(tmp_path, loss_type="dapo").epsilon_high == pytest.approx(0.28)


def test_the_divisor_of_dr_grpo_stays_while_the_limit_grows(tmp_path: Path) -> None:
    """It is the first limit, so that a token weighs the same before and after the limit has grown."""
    grown = config(tmp_path, loss_type="dr_grpo", max_completion_length=64, final_completion_length=256)
    assert (
        grown.max_completion_length
        == config(tmp_path, loss_type="dr_grpo", max_completion_length=64).max_completion_length
        == 64
    )


def test_advantages_are_used_as_they_are_and_nothing_is_truncated(tmp_path: Path) -> None:
    """TRL neither scales nor shuffles, samples from the whole distribution, and hides no broken loss."""
    told = config(tmp_path, beta=0.02, mask_truncated_completions=True)
    assert (told.scale_rewards, told.shuffle_dataset, told.logging_nan_inf_filter) == ("none", False, False)
    assert (told.top_p, told.top_k, told.min_p) == (1.0, 0, None)
    assert (told.beta, told.mask_truncated_completions) == (0.02, True)


def test_a_step_is_shared_out_among_the_processes(tmp_path: Path) -> None:
    """A step's groups and replies stay as many, however many processes there are; else it is refused."""
    sizes = {"max_steps": 4, "num_generations": 4, "per_device_train_batch_size": 8}
    table, six = (RlTable.model_validate({"groups": groups, **sizes}) for groups in (8, 6))
    for processes in (1, 2, 4):
        told = grpo_config(table, tmp_path, 1, cpu=True, mixed=False, processes=processes)
        shares = told.per_device_train_batch_size * told.gradient_accumulation_steps
        assert shares * processes == 32
    with pytest.raises(ConfigError, match=r"groups \(8\) must be a multiple of the processes \(3\)"):
        grpo_config(table, tmp_path, 1, cpu=True, mixed=False, processes=3)
    with pytest.raises(ConfigError, match="a multiple of per_device_train_batch_size"):
        grpo_config(six, tmp_path, 1, cpu=True, mixed=False, processes=2)


PROMPT = [7, 8, 9]
SHORT, LONG = [20, 21, 22], [30, 31, 32, 33, 34, 35]
Reply = tuple[list[int], float | None]
"""A reply's ids and its advantage; None where it is left out."""
LIVE: list[Reply] = [(SHORT, 1.0), (LONG, -1.0)]
IDLE: list[Reply] = [(LONG, None), (SHORT, None)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """A model of a few thousand weights."""
    directory = tmp_path_factory.mktemp("model")
    build(directory, width=64, layers=1)
    return ModelSource(path=str(directory))


def trained(
    start: ModelSource,
    directory: Path,
    replies: Sequence[Reply],
    *,
    spent: Callable[[], float] | None = None,
    **fields: Any,
) -> tuple[Any, list[dict[str, float]]]:
    """The model after a few steps on always the same two replies a group, and a log of the steps."""
    settings = {
        "max_steps": 1,
        "groups": len(replies) // 2,
        "num_generations": 2,
        "per_device_train_batch_size": len(replies),
        "warmup_steps": 0,
    }
    table = RlTable.model_validate(settings | fields)
    model, tokenizer = load_model(start), load_tokenizer(start)

    def rollout(prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        return {
            "prompt_ids": [PROMPT for _ in replies],
            "completion_ids": [ids for ids, _ in replies],
            "logprobs": None,
            "advantage": [worth or 0.0 for _, worth in replies],
            "env_mask": [[int(worth is not None)] * len(ids) for ids, worth in replies],
        }

    trainer = Trainer(
        model=model,
        reward_funcs=advantage_reward,
        args=grpo_config(table, directory, 1, cpu=True, mixed=False),
        train_dataset=Dataset.from_dict({"prompt": list(map(str, range(table.groups * table.max_steps)))}),
        processing_class=tokenizer,
        rollout_func=rollout,
    )
    trainer.use_clock(spent)
    trainer.train()
    return model, [line for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "bnpo", "cispo"])
@pytest.mark.parametrize("kl", [0.0, 0.5])
def test_replies_that_are_left_out_do_not_thin_the_loss(
    start: ModelSource, tmp_path: Path, loss: str, kl: float
) -> None:
    """A group that teaches weighs as much beside two that only fill the batch as it does alone."""
    _, (alone,) = trained(start, tmp_path, LIVE, loss_type=loss, beta=kl)
    _, (filled,) = trained(start, tmp_path, [*IDLE, *LIVE, *IDLE], loss_type=loss, beta=kl)
    assert filled["loss"] == pytest.approx(alone["loss"], abs=1e-5)
    assert filled["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-3)
    assert alone["grad_norm"] > 0.01
    if loss == "dapo":
        assert filled["loss"] == pytest.approx((len(LONG) - len(SHORT)) / (len(LONG) + len(SHORT)), abs=1e-4)


def test_a_batch_of_nothing_moves_nothing(start: ModelSource, tmp_path: Path) -> None:
    """The loss is 0 and the weights stay."""
    model, (told,) = trained(start, tmp_path, [*IDLE, *IDLE], beta=0.5)
    assert (told["loss"], told["grad_norm"]) == (0, 0)
    before = load_model(start)
    assert all(
        torch.equal(one, other) for one, other in zip(model.parameters(), before.parameters(), strict=True)
    )


def test_kl_holds_the_policy_to_the_model_that_it_started_from(start: ModelSource, tmp_path: Path) -> None:
    """The same rewards move it less far, and the distance is in the loss and in the log."""
    ids = torch.tensor([PROMPT + LONG])
    found = {}
    for kl in (0.0, 1.0):
        model, told = trained(start, tmp_path / str(kl), LIVE, beta=kl, max_steps=24, learning_rate=1e-3)
        with torch.no_grad():
            held, free = (each(input_ids=ids).logits.log_softmax(-1) for each in (load_model(start), model))
        found[kl] = (
            torch.nn.functional.kl_div(free, held, log_target=True, reduction="batchmean").item(),
            told,
        )
    (far, without), (near, within) = found[0.0], found[1.0]
    assert near < far / 2
    assert "kl" not in without[0]
    assert within[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert within[-1]["kl"] > 0
    assert within[0]["loss"] == pytest.approx(without[0]["loss"], abs=1e-5)
    assert within[-1]["loss"] > without[-1]["loss"]


def test_what_teaches_nothing_is_not_passed_through_the_model() -> None:
    """Replies without advantage go, and columns that pad all that stay; the rest is as it was."""
    inputs = {
        "advantages": torch.tensor([0.0, 1.0, -1.0]),
        "prompt_ids": torch.tensor([[5, 6, 7, 8], [0, 0, 7, 8], [0, 6, 7, 8]]),
        "prompt_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]),
        "completion_ids": torch.tensor([[1, 2, 3], [1, 2, 0], [1, 0, 0]]),
        "completion_mask": torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]]),
        "tool_mask": torch.ones(3, 3),
        "num_items_in_batch": torch.tensor(6),
    }
    left = drop_zero_advantages(inputs)
    assert left["advantages"].tolist() == [1, -1]
    assert left["prompt_ids"].tolist() == [[0, 7, 8], [6, 7, 8]]
    assert left["completion_ids"].tolist() == [[1, 2], [1, 0]]
    assert left["tool_mask"].shape == (2, 2)
    assert left["num_items_in_batch"] == 6
    ratios = {"old_per_token_logps": torch.ones(3, 3), "importance_sampling_ratio": torch.ones(3, 1)}
    left = drop_zero_advantages({**inputs, **ratios})
    assert left["old_per_token_logps"].shape == (2, 2)
    assert left["importance_sampling_ratio"].shape == (2, 1)


def test_where_nothing_teaches_a_reply_that_counts_is_passed() -> None:
    """One that was left out has no entropy to log."""
    ids = torch.tensor([[1, 2], [3, 4]])
    inputs = {
        "advantages": torch.zeros(2),
        "prompt_ids": ids,
        "prompt_mask": torch.ones(2, 2),
        "completion_ids": ids,
        "completion_mask": torch.ones(2, 2),
        "tool_mask": torch.tensor([[0, 0], [1, 1]]),
    }
    assert drop_zero_advantages(inputs)["completion_ids"].tolist() == [[3, 4]]


def test_scoring_replies_alone_changes_neither_loss_nor_gradient(
    start: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the head makes of prompts and padding never counted."""
    scored: list[int] = []
    apply = trl.trainer.utils._ChunkedLogProbFunction.apply

    def noted(hidden: Any, *more: Any) -> Any:
        scored.append(len(hidden))
        return apply(hidden, *more)

    monkeypatch.setattr("training.trainer.grpo.pack_shared_prompts", lambda *_: None)
    with patch.object(trl.trainer.utils._ChunkedLogProbFunction, "apply", noted):
        model, (every,) = trained(start, tmp_path, LIVE)
        with score_completions_only():
            other, (alone,) = trained(start, tmp_path, LIVE)
    assert scored == [2 * (len(PROMPT) + len(LONG) - 1), len(SHORT) + len(LONG)]
    assert alone["loss"] == pytest.approx(every["loss"], abs=1e-5)
    assert alone["grad_norm"] == pytest.approx(every["grad_norm"], rel=1e-3)
    assert alone["entropy"] == pytest.approx(every["entropy"], rel=1e-3)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", ["dapo", "cispo"])
def test_leaving_them_out_changes_neither_loss_nor_gradient(
    start: ModelSource, tmp_path: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a group that teaches, one whose replies are all as good as each other."""
    replies = [(LONG, 0.0), (SHORT, 0.0), *LIVE]
    model, (less,) = trained(start, tmp_path, replies, loss_type=loss)
    monkeypatch.setattr("training.trainer.grpo.drop_zero_advantages", lambda inputs: inputs)
    other, (whole,) = trained(start, tmp_path, replies, loss_type=loss)
    assert less["loss"] == pytest.approx(whole["loss"], abs=1e-5)
    assert less["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-3)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"beta": 0.5},
        {"loss_type": "dr_grpo", "num_iterations": 2, "max_steps": 2, "save_steps": 2},
    ],
)
def test_passing_a_prompt_once_changes_neither_loss_nor_gradient(
    start: ModelSource,
    tmp_path: Path,
    fields: dict[str, Any],
    attention: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The replies of a group see their prompt and themselves, wherever in the sequence they stand."""
    replies = [*LIVE, (LONG, -0.5), ([2], 0.5)]
    passes: list[tuple[int, ...]] = []

    plainly = load_model

    def load(source: ModelSource) -> Any:
        model = plainly(source)
        model.set_attn_implementation(attention)
        note = lambda _, args, given: passes.append(tuple(given["input_ids"].shape))  # noqa: E731
        model.model.register_forward_pre_hook(note, with_kwargs=True)
        return model

    monkeypatch.setattr(f"{__name__}.load_model", load)
    model, pack_shared_prompts = trained(start, tmp_path, replies, **fields)
    assert passes[-1] == (1, len(PROMPT) - 1 + sum(len(ids) for ids, _ in replies))
    monkeypatch.setattr("training.trainer.grpo.pack_shared_prompts", lambda *_: None)
    other, apart = trained(start, tmp_path, replies, **fields)
    assert passes[-1] == (4, len(PROMPT) + len(LONG))
    for one, two in zip(pack_shared_prompts, apart, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)
        assert one["entropy"] == pytest.approx(two["entropy"], rel=1e-3)
    for first, second in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-6)


def test_nor_does_it_behind_an_adapter_in_half_precision(
    start: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But by bfloat16's rounding, which moves gradients by a few hundredths."""
    source = start.model_copy(update={"dtype": "bfloat16", "lora": Lora(rank=4, alpha=8)})
    replies = [*LIVE, (LONG, -0.5), ([2], 0.5)]
    called: list[bool] = []

    def noted(*given: Any) -> Any:
        found = pack_shared_prompts(*given)
        called.append(found is not None)
        return found

    monkeypatch.setattr("training.trainer.grpo.pack_shared_prompts", noted)
    torch.manual_seed(0)  # an adapter begins at random
    model, once = trained(source, tmp_path, replies)
    assert called and all(called)  # noqa: PT018 (one claim: it was packed each time)
    monkeypatch.setattr("training.trainer.grpo.pack_shared_prompts", lambda *_: None)
    torch.manual_seed(0)
    other, apart = trained(source, tmp_path, replies)
    assert once[0]["loss"] == pytest.approx(apart[0]["loss"], abs=5e-3)
    assert once[0]["grad_norm"] == pytest.approx(apart[0]["grad_norm"], rel=5e-2)
    pairs = zip(model.named_parameters(), other.parameters(), strict=True)
    moved = [(first, second) for (name, first), second in pairs if "lora_B" in name]
    assert moved
    for first, second in moved:
        assert first.any()
        assert torch.cosine_similarity(first.flatten(), second.flatten(), dim=0) > 0.95


@pytest.mark.parametrize(
    ("clocked", "shares"), [(True, [1.0, 0.6, 0.2, 0.0]), (False, [1.0, 0.75, 0.5, 0.25])]
)
def test_the_rate_falls_with_the_time_where_the_clock_ends_a_stage(
    start: ModelSource, tmp_path: Path, clocked: bool, shares: list[float]
) -> None:
    """Two fifths of the time a step here; without a clock it falls over the steps."""
    looks = count()  # two a step: weights that could decay and the others are two groups to torch
    spent = (lambda: next(looks) // 2 * 0.4) if clocked else None
    _, steps = trained(
        start, tmp_path, LIVE, spent=spent, max_steps=4, lr_scheduler_type="linear", learning_rate=1e-3
    )
    assert [step["learning_rate"] for step in steps] == pytest.approx([1e-3 * share for share in shares])
