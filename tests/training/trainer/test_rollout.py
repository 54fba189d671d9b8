"""What a step of reinforcement learning draws and hands over; a scripted engine stands in for the trainer."""

from collections.abc import Callable, Mapping, Sequence
from statistics import stdev
from types import SimpleNamespace
from typing import Any

import pytest

from policies.families import find_family
from tests.training.trainer.test_process_group import together
from training.data.budgets import BudgetSampler
from training.data.prompts import Prompter
from training.rewards import RewardContext, RewardPlan, reward_plan
from training.rl.advantages import Normalisation
from training.rl.length_schedule import LengthSchedule
from training.trainer.process_group import SINGLE_PROCESS, ProcessGroup
from training.trainer.rollout import Rollout, RolloutSettings
from training.trainer.weight_check import StaleWeights
from training.types import Problem

END = 0
ROWS = [Problem(f"{n}", f"What is {n}+0?", str(n)) for n in range(1, 9)]


class Letters:
    """A tokenizer whose tokens are characters; 0 ends a turn."""

    eos_token_id = END

    def apply_chat_template(self, conversation: Sequence[Mapping[str, str]], **options: Any) -> str:
        """The contents, one a line."""
        return "".join(f"{message['content']}\n" for message in conversation)

    def encode(self, text: str, **options: Any) -> list[int]:
        """Code points."""
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        """And back."""
        return "".join(map(chr, ids))


class Engine:
    """Stands where TRL's trainer generates: replies by the question's number, logged."""

    def __init__(self, reply: Callable[[int, int], str], logprobs: float | None = None) -> None:
        self.state = SimpleNamespace(global_step=0)
        self.asked: list[str] = []
        self.limits: list[int] = []
        self.seeds: list[str] = []
        self._reply = reply
        self.logprobs = logprobs

    def sample(
        self, prompts: list[list[int]], seeds: list[str], limit: int, ends: frozenset[int]
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        """Both replies to each question."""
        texts = ["".join(map(chr, prompt)) for prompt in prompts]
        self.asked += texts[::2]
        self.seeds += seeds
        self.limits.append(limit)
        numbers = [int(text.rpartition("What is ")[2].partition("+")[0]) for text in texts]
        ids = [[*map(ord, self._reply(number, place % 2)), END] for place, number in enumerate(numbers)]
        return ids, None if self.logprobs is None else [[self.logprobs] * len(each) for each in ids]


def plan(limit: int) -> RewardPlan:
    """Right or wrong, and nothing else."""
    return reward_plan(RewardContext(max_tokens=limit), {"correct"}, {})


def rollout(
    rounds: int = 1,
    *,
    length: LengthSchedule | None = None,
    scale_rewards: Normalisation = "group",
    judge: Callable[[int], RewardPlan] = plan,
    **more: Any,
) -> Rollout:
    """Two replies to a question, no budget."""
    length = length or LengthSchedule(8, 8)
    settings = RolloutSettings(
        2, BudgetSampler({"none": 1}), length, rounds=rounds, scale_rewards=scale_rewards
    )
    return Rollout(ROWS, Prompter(Letters(), find_family("qwen3")), judge, settings, **more)


def prompts(*places: int) -> list[str]:
    """What the trainer's sampler gives: each row's place, once for each sample."""
    return [str(place) for place in places for _ in range(2)]


def test_advantages_are_handed_over_in_the_order_of_the_replies() -> None:
    """One right and one wrong reply get opposite advantages; equal ones none, and come last."""
    engine = Engine(lambda number, place: str(number) if number == 1 or place == 0 else "no")
    out = rollout()(prompts(0, 1), engine)
    assert out["advantage"][0] == -out["advantage"][1] > 0
    assert out["advantage"][2:] == [0.0, 0.0]
    assert [len(out[name]) for name in ("prompt_ids", "completion_ids", "advantage")] == [4, 4, 4]
    assert out["completion_ids"][0] == [ord("2"), END]


def test_groups_that_teach_nothing_are_drawn_again_at_most_twice() -> None:
    """The live ones come first, the batch keeps its size, and what only fills it has no gradient."""
    engine = Engine(lambda number, place: str(number) if number % 2 or place else "no")
    drawn = rollout(rounds=3)
    out = drawn(prompts(0, 2), engine)  # 1 and 3 are always right
    assert len(out["advantage"]) == 4
    assert 1 < drawn.figures["rounds"] <= 3
    asked = len(engine.asked)
    assert 2 < asked <= 6
    assert drawn.figures["live"] == pytest.approx(sum("2468".count(q[8]) for q in engine.asked) / asked)
    assert sum(value > 0 for value in out["advantage"]) == len(
        {row for row in drawn.problem_ids if int(row) % 2 == 0}
    )


def test_a_batch_that_teaches_nothing_changes_nothing_and_stops_nothing() -> None:
    """When no group is live after all rounds, all advantages are 0 (verl#953: it used to abort)."""
    out = rollout(rounds=3)(prompts(0, 1), Engine(lambda number, place: "no"))
    assert out["advantage"] == [0.0] * 4


@pytest.mark.parametrize(("rounds", "idle"), [(1, 1), (2, 0)])
def test_what_only_fills_a_batch_is_masked_out_of_the_loss(rounds: int, idle: int) -> None:
    """Its tokens are in no divisor; without filtering every reply counts, as GRPO has it."""
    engine = Engine(lambda number, place: "no" if number == 3 and place else str(number))
    engine.state.global_step = 1  # at which 3 is not drawn again
    drawn = rollout(rounds)
    out = drawn(prompts(2, 0), engine)
    live = [row.endswith("3") for row in drawn.problem_ids for _ in range(2)]
    assert live[:2] == [True, True]
    assert not live[-1]
    masks = zip(out["completion_ids"], live, out["env_mask"], strict=True)
    assert all(mask == [1 if taught else idle] * len(ids) for ids, taught, mask in masks)
    assert drawn.figures["taught"] == (sum(live) / len(live) if rounds > 1 else 1)


def test_what_is_redrawn_depends_on_the_step_alone() -> None:
    """The same step asks the same questions again, another step others."""

    def asked(step: int) -> list[str]:
        engine = Engine(lambda number, place: "no")
        engine.state.global_step = step
        rollout(rounds=3)(prompts(0, 1), engine)
        return engine.asked

    assert asked(5) == asked(5)
    assert asked(5)[2:] != asked(6)[2:]


@pytest.mark.parametrize("how", ["group", "batch", "none", "magistral"])
def test_advantages_are_in_the_unit_that_was_chosen(how: Normalisation) -> None:
    """A question with one right and one wrong reply, beside one with two right ones."""
    engine = Engine(lambda number, place: str(number) if place or number == 2 else "no")
    out = rollout(scale_rewards=how)(prompts(0, 1), engine)
    units = {
        "none": 1.0,
        "group": stdev([0, 1]),
        "batch": stdev([0, 1, 1, 1]),
        "magistral": stdev([-0.5, 0.5, 0, 0]),
    }
    assert out["advantage"] == pytest.approx([-0.5 / units[how], 0.5 / units[how], 0, 0])


def test_the_length_limit_grows_while_few_replies_are_cut_off() -> None:
    """The next steps may write more, up to the most; the rewards are told."""
    limits: list[int] = []

    def told(limit: int) -> RewardPlan:
        limits.append(limit)
        return plan(limit)

    engine = Engine(lambda number, place: "no")
    drawn = rollout(length=LengthSchedule(8, 16, window=2), judge=told)
    for _ in range(6):
        drawn(prompts(0), engine)
    assert engine.limits == limits == [8, 8, 12, 12, 16, 16]


def test_the_length_limit_reaches_the_engine() -> None:
    """What the schedule says is what the engine may generate."""
    engine = Engine(lambda number, place: "no")
    rollout()(prompts(0), engine)
    assert engine.limits == [8]


def test_a_server_with_other_weights_stops_the_run() -> None:
    """Where server and trainer give the same tokens other logprobs, the canary says so; else it is logged."""
    engine = Engine(lambda number, place: "no", logprobs=-1.0)
    same = rollout(policy_logprobs=lambda prompt, ids: [-1.05] * len(ids))
    out = same(prompts(0), engine)
    assert same.figures["canary"] == pytest.approx(0.05)
    assert out["logprobs"] == [[-1.0] * 3] * 2
    with pytest.raises(StaleWeights, match=r"by 2\.00 nats"):
        rollout(policy_logprobs=lambda prompt, ids: [-3.0] * len(ids))(prompts(0), engine)


def test_a_server_that_the_adapter_never_reached_stops_the_run() -> None:
    """Its logprobs are the base model's, though these are still near the trainer's own."""
    engine = Engine(lambda number, place: "no", logprobs=-1.0)
    ours, base = -1.1, [-1.1]
    drawn = rollout(
        policy_logprobs=lambda prompt, ids: [ours] * len(ids),
        base_logprobs=lambda prompt, ids: base * len(ids),
    )
    drawn(prompts(0), engine)  # nothing learned yet: the adapter changes nothing
    base = [-1.01]
    with pytest.raises(StaleWeights, match=r"by 0\.10 nats .*without its adapter"):
        drawn(prompts(0), engine)
    engine.logprobs = -1.08  # of the adapter's weights, in another precision
    drawn(prompts(0), engine)


def test_processes_take_the_same_rounds_and_train_on_the_batch_that_one_would_have() -> None:
    """Each goes on with its part; questions, seeds, rounds and figures are those of one process."""

    def reply(number: int, place: int) -> str:
        return str(number) if number % 3 == 0 and place else "no"

    def run(ranks: ProcessGroup) -> tuple[dict[str, Any], Rollout, Engine]:
        engine, drawn = Engine(reply), rollout(rounds=3, group=ranks)
        each = 4 // ranks.world_size
        places = range(ranks.rank * each, (ranks.rank + 1) * each)
        return drawn(prompts(*places), engine), drawn, engine

    whole, alone, engine = run(SINGLE_PROCESS)
    assert alone.figures["rounds"] > 1
    parts = together(2, run)
    for name in ("prompt_ids", "completion_ids", "advantage"):
        assert [value for part, _, _ in parts for value in part[name]] == whole[name]
    assert [each.figures for _, each, _ in parts] == [alone.figures] * 2
    assert [each.problem_ids for _, each, _ in parts] == [alone.problem_ids] * 2
    assert {seed for *_, each in parts for seed in each.seeds} >= set(engine.seeds)
    assert len(set(engine.seeds)) == len(engine.seeds)
