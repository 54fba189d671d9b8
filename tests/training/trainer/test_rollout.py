"""What a step of reinforcement learning samples; a scripted engine stands in for the trainer."""

from collections.abc import Callable, Mapping, Sequence
from statistics import stdev
from types import SimpleNamespace
from typing import Any

import pytest

from policies.families import find_family
from tests.training.trainer.test_process_group import in_processes
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
        """Return the contents, one a line."""
        return "".join(f"{message['content']}\n" for message in conversation)

    def encode(self, text: str, **options: Any) -> list[int]:
        """Return code points."""
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        """Return the text of code points."""
        return "".join(map(chr, ids))


class Engine:
    """Stands in for TRL's trainer: it replies by the question's number and logs the calls."""

    def __init__(self, reply: Callable[[int, int], str], logprobs: float | None = None) -> None:
        self.state = SimpleNamespace(global_step=0)
        self.questions: list[str] = []
        self.limits: list[int] = []
        self.seeds: list[str] = []
        self._reply = reply
        self.logprobs = logprobs

    def sample(
        self, prompts: list[list[int]], seeds: list[str], limit: int, stop_ids: frozenset[int]
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        """Return both completions of each question."""
        texts = ["".join(map(chr, prompt)) for prompt in prompts]
        self.questions += texts[::2]
        self.seeds += seeds
        self.limits.append(limit)
        numbers = [int(text.rpartition("What is ")[2].partition("+")[0]) for text in texts]
        ids = [[*map(ord, self._reply(number, place % 2)), END] for place, number in enumerate(numbers)]
        return ids, None if self.logprobs is None else [
            [self.logprobs] * len(completion) for completion in ids
        ]


def plan(limit: int) -> RewardPlan:
    """Return rewards for correct and wrong, and nothing else."""
    return reward_plan(RewardContext(max_tokens=limit), {"correct"}, {})


def make_rollout(
    rounds: int = 1,
    *,
    length: LengthSchedule | None = None,
    scale_rewards: Normalisation = "group",
    judge: Callable[[int], RewardPlan] = plan,
    **more: Any,
) -> Rollout:
    """Return a rollout with two completions of a question and no budget."""
    length = length or LengthSchedule(8, 8)
    settings = RolloutSettings(
        2, BudgetSampler({"none": 1}), length, rounds=rounds, scale_rewards=scale_rewards
    )
    return Rollout(ROWS, Prompter(Letters(), find_family("qwen3")), judge, settings, **more)


def prompts(*places: int) -> list[str]:
    """Return what the trainer's sampler gives: each problem's place, once for each completion."""
    return [str(place) for place in places for _ in range(2)]


def test_advantages_come_in_the_order_of_the_completions() -> None:
    """One right and one wrong completion get opposite advantages; equal ones none, and come last."""
    engine = Engine(lambda number, place: str(number) if number == 1 or place == 0 else "no")
    batch = make_rollout()(prompts(0, 1), engine)
    assert batch["advantage"][0] == -batch["advantage"][1] > 0
    assert batch["advantage"][2:] == [0.0, 0.0]
    assert [len(batch[name]) for name in ("prompt_ids", "completion_ids", "advantage")] == [4, 4, 4]
    assert batch["completion_ids"][0] == [ord("2"), END]


def test_groups_that_teach_nothing_are_replaced_at_most_twice() -> None:
    """Live ones come first, the batch keeps its size, and groups that only fill it have no gradient."""
    engine = Engine(lambda number, place: str(number) if number % 2 or place else "no")
    rollout = make_rollout(rounds=3)
    batch = rollout(prompts(0, 2), engine)  # 1 and 3 are always right
    assert len(batch["advantage"]) == 4
    assert 1 < rollout.metrics["rounds"] <= 3
    questions = len(engine.questions)
    assert 2 < questions <= 6
    assert rollout.metrics["live"] == pytest.approx(
        sum("2468".count(q[8]) for q in engine.questions) / questions
    )
    assert sum(value > 0 for value in batch["advantage"]) == len(
        {problem_id for problem_id in rollout.problem_ids if int(problem_id) % 2 == 0}
    )


def test_a_batch_that_teaches_nothing_changes_nothing_and_stops_nothing() -> None:
    """If no group is live after all rounds, all advantages are 0 (verl#953: it used to abort)."""
    batch = make_rollout(rounds=3)(prompts(0, 1), Engine(lambda number, place: "no"))
    assert batch["advantage"] == [0.0] * 4


@pytest.mark.parametrize(("rounds", "filler_mask"), [(1, 1), (2, 0)])
def test_groups_that_only_fill_a_batch_are_masked(rounds: int, filler_mask: int) -> None:
    """Their tokens are in no divisor; without filtering every completion counts, as GRPO has it."""
    engine = Engine(lambda number, place: "no" if number == 3 and place else str(number))
    engine.state.global_step = 1  # at which 3 is not drawn again
    rollout = make_rollout(rounds)
    batch = rollout(prompts(2, 0), engine)
    live = [problem_id.endswith("3") for problem_id in rollout.problem_ids for _ in range(2)]
    assert live[:2] == [True, True]
    assert not live[-1]
    masks = zip(batch["completion_ids"], live, batch["env_mask"], strict=True)
    assert all(mask == [1 if taught else filler_mask] * len(ids) for ids, taught, mask in masks)
    assert rollout.metrics["taught"] == (sum(live) / len(live) if rounds > 1 else 1)


def test_the_replacements_depend_on_the_step_alone() -> None:
    """The same step asks the same problems again, another step others."""

    def questions(step: int) -> list[str]:
        engine = Engine(lambda number, place: "no")
        engine.state.global_step = step
        make_rollout(rounds=3)(prompts(0, 1), engine)
        return engine.questions

    assert questions(5) == questions(5)
    assert questions(5)[2:] != questions(6)[2:]


@pytest.mark.parametrize("how", ["group", "batch", "none", "magistral"])
def test_advantages_have_the_configured_unit(how: Normalisation) -> None:
    """A problem with one correct and one wrong completion, beside one with two correct ones."""
    engine = Engine(lambda number, place: str(number) if place or number == 2 else "no")
    batch = make_rollout(scale_rewards=how)(prompts(0, 1), engine)
    units = {
        "none": 1.0,
        "group": stdev([0, 1]),
        "batch": stdev([0, 1, 1, 1]),
        "magistral": stdev([-0.5, 0.5, 0, 0]),
    }
    assert batch["advantage"] == pytest.approx([-0.5 / units[how], 0.5 / units[how], 0, 0])


def test_the_length_limit_grows_while_few_completions_are_truncated() -> None:
    """It grows up to the final limit, and the rewards get it too."""
    limits: list[int] = []

    def plan_at(limit: int) -> RewardPlan:
        limits.append(limit)
        return plan(limit)

    engine = Engine(lambda number, place: "no")
    rollout = make_rollout(length=LengthSchedule(8, 16, window=2), judge=plan_at)
    for _ in range(6):
        rollout(prompts(0), engine)
    assert engine.limits == limits == [8, 8, 12, 12, 16, 16]


def test_the_length_limit_reaches_the_engine() -> None:
    """The engine may generate what the schedule says."""
    engine = Engine(lambda number, place: "no")
    make_rollout()(prompts(0), engine)
    assert engine.limits == [8]


def test_a_server_with_other_weights_stops_the_run() -> None:
    """If server and trainer disagree about the same tokens the run stops; else the distance is logged."""
    engine = Engine(lambda number, place: "no", logprobs=-1.0)
    same = make_rollout(policy_logprobs=lambda prompt, ids: [-1.05] * len(ids))
    batch = same(prompts(0), engine)
    assert same.metrics["canary"] == pytest.approx(0.05)
    assert batch["logprobs"] == [[-1.0] * 3] * 2
    with pytest.raises(StaleWeights, match=r"by 2\.00 nats"):
        make_rollout(policy_logprobs=lambda prompt, ids: [-3.0] * len(ids))(prompts(0), engine)


def test_a_server_that_the_adapter_never_reached_stops_the_run() -> None:
    """Its logprobs are the base model's, although these are still near the trainer's own."""
    engine = Engine(lambda number, place: "no", logprobs=-1.0)
    ours, base = -1.1, [-1.1]
    rollout = make_rollout(
        policy_logprobs=lambda prompt, ids: [ours] * len(ids),
        base_logprobs=lambda prompt, ids: base * len(ids),
    )
    rollout(prompts(0), engine)  # nothing learned yet: the adapter changes nothing
    base = [-1.01]
    with pytest.raises(StaleWeights, match=r"by 0\.10 nats .*without its adapter"):
        rollout(prompts(0), engine)
    engine.logprobs = -1.08  # of the adapter's weights, in another precision
    rollout(prompts(0), engine)


def test_processes_take_the_same_rounds_and_train_on_the_same_batch_as_one() -> None:
    """Each continues with its part; problems, seeds, rounds and metrics are those of one process."""

    def reply(number: int, place: int) -> str:
        return str(number) if number % 3 == 0 and place else "no"

    def run(group: ProcessGroup) -> tuple[dict[str, Any], Rollout, Engine]:
        engine, rollout = Engine(reply), make_rollout(rounds=3, group=group)
        part_size = 4 // group.world_size
        places = range(group.rank * part_size, (group.rank + 1) * part_size)
        return rollout(prompts(*places), engine), rollout, engine

    whole_batch, single, engine = run(SINGLE_PROCESS)
    assert single.metrics["rounds"] > 1
    parts = in_processes(2, run)
    for name in ("prompt_ids", "completion_ids", "advantage"):
        assert [value for part, _, _ in parts for value in part[name]] == whole_batch[name]
    assert [part.metrics for _, part, _ in parts] == [single.metrics] * 2
    assert [part.problem_ids for _, part, _ in parts] == [single.problem_ids] * 2
    assert {seed for *_, part_engine in parts for seed in part_engine.seeds} >= set(engine.seeds)
    assert len(set(engine.seeds)) == len(engine.seeds)
