"""The settings that TRL gets, and what its trainer does with a batch."""

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
    """Return TRL's configuration for a table with these fields."""
    table = RlTable.model_validate({"max_steps": 4, **fields})
    return grpo_config(table, tmp_path, 1, cpu=True, mixed=False)


def test_epsilon_high_has_trls_meaning(tmp_path: Path) -> None:
    """With CISPO it is the largest ratio, with the other losses how far a ratio may rise above 1."""
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
    settings = config(tmp_path, beta=0.02, mask_truncated_completions=True)
    assert (settings.scale_rewards, settings.shuffle_dataset, settings.logging_nan_inf_filter) == (
        "none",
        False,
        False,
    )
    assert (settings.top_p, settings.top_k, settings.min_p) == (1.0, 0, None)
    assert (settings.beta, settings.mask_truncated_completions) == (0.02, True)


def test_a_server_samples_where_one_is_named(tmp_path: Path) -> None:
    """TRL would otherwise start a vLLM engine in the training process."""
    url = "http://127.0.0.1:8000"
    served = config(tmp_path, vllm_server_base_url=url)
    assert (served.use_vllm, served.vllm_mode, served.vllm_server_base_url) == (True, "server", url)
    assert not config(tmp_path).use_vllm


def test_a_step_is_divided_among_the_processes(tmp_path: Path) -> None:
    """A step has as many groups and completions on any number of processes, or is refused."""
    sizes = {"max_steps": 4, "num_generations": 4, "per_device_train_batch_size": 8}
    table, six = (RlTable.model_validate({"groups": groups, **sizes}) for groups in (8, 6))
    for processes in (1, 2, 4):
        settings = grpo_config(table, tmp_path, 1, cpu=True, mixed=False, processes=processes)
        shares = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
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
    """Return a model of a few thousand weights."""
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
    """Return the model after a few steps on the same two completions a group, and a log of the steps."""
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
            "advantage": [advantage or 0.0 for _, advantage in replies],
            "env_mask": [[int(advantage is not None)] * len(ids) for ids, advantage in replies],
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
def test_masked_completions_do_not_thin_the_loss(
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


def test_a_batch_of_masked_completions_changes_nothing(start: ModelSource, tmp_path: Path) -> None:
    """The loss is 0 and the weights stay."""
    model, (logged,) = trained(start, tmp_path, [*IDLE, *IDLE], beta=0.5)
    assert (logged["loss"], logged["grad_norm"]) == (0, 0)
    before = load_model(start)
    assert all(
        torch.equal(one, other) for one, other in zip(model.parameters(), before.parameters(), strict=True)
    )


def test_beta_holds_the_policy_near_its_start_model(start: ModelSource, tmp_path: Path) -> None:
    """The same rewards move it less far, and the loss and the log have the distance."""
    ids = torch.tensor([PROMPT + LONG])
    results = {}
    for kl in (0.0, 1.0):
        model, logged = trained(start, tmp_path / str(kl), LIVE, beta=kl, max_steps=24, learning_rate=1e-3)
        with torch.no_grad():
            start_logprobs, end_logprobs = (
                scored(input_ids=ids).logits.log_softmax(-1) for scored in (load_model(start), model)
            )
        results[kl] = (
            torch.nn.functional.kl_div(
                end_logprobs, start_logprobs, log_target=True, reduction="batchmean"
            ).item(),
            logged,
        )
    (far_distance, without), (near_distance, within) = results[0.0], results[1.0]
    assert near_distance < far_distance / 2
    assert "kl" not in without[0]
    assert within[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert within[-1]["kl"] > 0
    assert within[0]["loss"] == pytest.approx(without[0]["loss"], abs=1e-5)
    assert within[-1]["loss"] > without[-1]["loss"]


def test_completions_without_advantage_are_dropped() -> None:
    """So are columns that pad all others; the rest stays the same."""
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


def test_a_batch_without_advantages_keeps_one_unmasked_completion() -> None:
    """A masked one has no entropy to log."""
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


def test_scoring_completions_alone_changes_neither_loss_nor_gradient(
    start: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's output for prompts and padding never counted."""
    scored: list[int] = []
    apply = trl.trainer.utils._ChunkedLogProbFunction.apply

    def noting(hidden: Any, *more: Any) -> Any:
        scored.append(len(hidden))
        return apply(hidden, *more)

    monkeypatch.setattr("training.trainer.grpo.pack_shared_prompts", lambda *_: None)
    with patch.object(trl.trainer.utils._ChunkedLogProbFunction, "apply", noting):
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
def test_dropping_completions_changes_neither_loss_nor_gradient(
    start: ModelSource, tmp_path: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One group teaches; the completions of the other are all equally good."""
    replies = [(LONG, 0.0), (SHORT, 0.0), *LIVE]
    model, (less,) = trained(start, tmp_path, replies, loss_type=loss)
    monkeypatch.setattr("training.trainer.grpo.drop_zero_advantages", lambda inputs: inputs)
    other, (whole,) = trained(start, tmp_path, replies, loss_type=loss)
    assert less["loss"] == pytest.approx(whole["loss"], abs=1e-5)
    assert less["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-3)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("trl", [{"entropy_coef": 0.5}, {"top_entropy_quantile": 0.5}])
def test_settings_over_all_completions_see_those_without_advantage(
    start: ModelSource, tmp_path: Path, trl: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entropy bonus, and a quantile of entropies, change with the completions that they are taken over."""

    def refuse(_: Any) -> None:
        raise AssertionError("a completion was dropped")

    monkeypatch.setattr("training.trainer.grpo.drop_zero_advantages", refuse)
    replies = [(LONG, 0.0), (SHORT, 0.0), *LIVE]
    _, (logged,) = trained(start, tmp_path, replies, trl=trl)
    monkeypatch.undo()
    _, (plain,) = trained(start, tmp_path, replies)
    assert logged["loss"] != pytest.approx(plain["loss"], abs=1e-3)


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
    """The completions of a group see their prompt and themselves, wherever they are in the sequence."""
    replies = [*LIVE, (LONG, -0.5), ([2], 0.5)]
    passes: list[tuple[int, ...]] = []

    plainly = load_model

    def load(source: ModelSource) -> Any:
        model = plainly(source)
        model.set_attn_implementation(attention)
        note_shape = lambda _, args, arguments: passes.append(tuple(arguments["input_ids"].shape))  # noqa: E731
        model.model.register_forward_pre_hook(note_shape, with_kwargs=True)
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


def test_passing_a_prompt_once_works_with_an_adapter_in_half_precision(
    start: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to bfloat16's rounding, which changes gradients by a few hundredths."""
    source = start.model_copy(update={"dtype": "bfloat16", "lora": Lora(rank=4, alpha=8)})
    replies = [*LIVE, (LONG, -0.5), ([2], 0.5)]
    called: list[bool] = []

    def noting(*arguments: Any) -> Any:
        packed_batch = pack_shared_prompts(*arguments)
        called.append(packed_batch is not None)
        return packed_batch

    monkeypatch.setattr("training.trainer.grpo.pack_shared_prompts", noting)
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
def test_the_learning_rate_falls_with_the_time_if_the_clock_ends_a_stage(
    start: ModelSource, tmp_path: Path, clocked: bool, shares: list[float]
) -> None:
    """Each step takes two fifths of the time here; without a clock the rate falls over the steps."""
    looks = count()  # two a step: weights that could decay and the others are two groups to torch
    spent = (lambda: next(looks) // 2 * 0.4) if clocked else None
    _, steps = trained(
        start, tmp_path, LIVE, spent=spent, max_steps=4, lr_scheduler_type="linear", learning_rate=1e-3
    )
    assert [step["learning_rate"] for step in steps] == pytest.approx([1e-3 * share for share in shares])
